//! A copy of a target's counts, which can be added to another.

use super::{Brief, HistogramSnapshot, LastFailure, WireSnapshot};
use crate::outcome::{DropReason, Reason, Stage, Verdict};

/// A consistent copy of one or several ledgers. Arrays are indexed by the `index()` of their label.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// Arrivals that came due.
    pub scheduled: u64,
    /// Handed to a hammer.
    pub started: u64,
    /// Finished, well or badly.
    pub finished: u64,
    /// Cut off.
    pub canceled: u64,
    /// Started and neither finished nor canceled.
    pub in_flight: u64,
    /// Never sent, by reason.
    pub dropped: [u64; DropReason::COUNT],
    /// Finished and not good, by reason.
    pub failures: [u64; Reason::COUNT],
    /// Complete responses by status code, those seen only; [`Self::OTHER_STATUS`] for codes outside 100-599.
    pub responses: Vec<(u16, u64)>,
    /// Arrival to last byte, by verdict.
    pub latency: [HistogramSnapshot; Verdict::COUNT],
    /// Send to last byte, by verdict.
    pub duration: [HistogramSnapshot; Verdict::COUNT],
    /// The phases of a request.
    pub stages: [HistogramSnapshot; Stage::COUNT],
    /// The latest failure.
    pub last_failure: LastFailure,
    /// Its connections.
    pub wire: WireSnapshot,
}

impl Snapshot {
    /// Stands for every status code outside 100-599; the label says `other`.
    pub const OTHER_STATUS: u16 = u16::MAX;

    /// Adds the counts of another ledger. Sums of consistent copies are consistent.
    pub fn merge(&mut self, other: &Self) {
        self.scheduled += other.scheduled;
        self.started += other.started;
        self.finished += other.finished;
        self.canceled += other.canceled;
        self.in_flight += other.in_flight;
        add_each(&mut self.dropped, &other.dropped);
        add_each(&mut self.failures, &other.failures);
        for &(status, count) in &other.responses {
            match self.responses.binary_search_by_key(&status, |&(status, _)| status) {
                Ok(at) => self.responses[at].1 += count,
                Err(at) => self.responses.insert(at, (status, count)),
            }
        }
        merge_each(&mut self.latency, &other.latency);
        merge_each(&mut self.duration, &other.duration);
        merge_each(&mut self.stages, &other.stages);
        self.last_failure = self.last_failure.max(other.last_failure);
        self.wire.merge(&other.wire);
    }

    /// Which of the ledger's equations does not hold, with its numbers; `None` when all do.
    pub fn ledger_error(&self) -> Option<String> {
        let dropped: u64 = self.dropped.iter().sum();
        let ended = self.finished + self.canceled + self.in_flight;
        let latencies: u64 = self.latency.iter().map(|histogram| histogram.count).sum();
        let durations: u64 = self.duration.iter().map(|histogram| histogram.count).sum();
        let responses: u64 = self.responses.iter().map(|&(_, count)| count).sum();
        let incomplete = self.failures.iter().sum::<u64>() - self.failures[Reason::Status.index()];
        let equations = [
            ("scheduled = started + dropped", self.scheduled, self.started + dropped),
            ("started = finished + canceled + in flight", self.started, ended),
            ("finished = latencies", self.finished, latencies),
            ("finished = durations", self.finished, durations),
            ("finished = responses + failures without one", self.finished, responses + incomplete),
        ];
        let broken = equations.into_iter().find(|(_, left, right)| left != right);
        broken.map(|(equation, left, right)| format!("{equation} does not hold: {left} and {right}"))
    }
}

impl From<&Snapshot> for Brief {
    fn from(counts: &Snapshot) -> Self {
        let mut values = HistogramSnapshot::default();
        counts.latency.iter().for_each(|histogram| values.merge(histogram));
        Self {
            scheduled: counts.scheduled,
            dropped: counts.dropped.iter().sum(),
            finished: counts.finished,
            failed: counts.failures.iter().sum(),
            values,
        }
    }
}

fn add_each(totals: &mut [u64], parts: &[u64]) {
    for (total, part) in totals.iter_mut().zip(parts) {
        *total += part;
    }
}

fn merge_each(totals: &mut [HistogramSnapshot], parts: &[HistogramSnapshot]) {
    for (total, part) in totals.iter_mut().zip(parts) {
        total.merge(part);
    }
}
