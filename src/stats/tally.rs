//! What happened to a target lately, and how it does by that.

use super::HistogramSnapshot;
use crate::outcome::labels;

labels! {
    /// How a target does. The worst first.
    State {
        /// [`BAD_SHARE`] of the requests that finished lately failed.
        Failing => "failing",
        /// [`BAD_SHARE`] of the arrivals that came due lately were dropped.
        Dropping => "dropping",
        /// No request has finished or been dropped since it came.
        Waiting => "waiting",
        /// None of the others.
        Good => "good",
        /// Arrivals have ended for good. Never told by a history.
        Draining => "draining",
    }
}

/// From which share of failed requests, or dropped arrivals, on a target is not good.
pub const BAD_SHARE: f64 = 0.01;

/// What a history is made of: counts and values since the target came, over all its lanes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Brief {
    /// Arrivals that came due.
    pub scheduled: u64,
    /// Never sent.
    pub dropped: u64,
    /// Finished, well or badly.
    pub finished: u64,
    /// Finished and not good.
    pub failed: u64,
    /// The latencies of all that finished.
    pub values: HistogramSnapshot,
}

impl Brief {
    /// Adds the counts of another lane.
    pub fn merge(&mut self, other: &Self) {
        self.scheduled += other.scheduled;
        self.dropped += other.dropped;
        self.finished += other.finished;
        self.failed += other.failed;
        self.values.merge(&other.values);
    }
}

/// What happened in one interval, or in several together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// How long it was.
    pub span_ms: u64,
    /// Arrivals that came due.
    pub scheduled: u64,
    /// Never sent.
    pub dropped: u64,
    /// Finished, well or badly.
    pub finished: u64,
    /// Finished and not good.
    pub failed: u64,
}

impl Tally {
    /// The two together.
    pub fn add(&mut self, other: Self) {
        self.span_ms += other.span_ms;
        self.scheduled += other.scheduled;
        self.dropped += other.dropped;
        self.finished += other.finished;
        self.failed += other.failed;
    }

    /// Handed to a hammer.
    pub fn started(&self) -> u64 {
        self.scheduled.saturating_sub(self.dropped)
    }

    /// How many of something a second; `None` without any time.
    pub fn per_second(&self, count: u64) -> Option<f64> {
        (self.span_ms > 0).then(|| count as f64 * 1e3 / self.span_ms as f64)
    }

    /// The failed among those that finished; `None` when nothing did.
    pub fn error_ratio(&self) -> Option<f64> {
        share(self.failed, self.finished)
    }

    /// The dropped among those that came due; `None` when nothing did.
    pub fn dropped_ratio(&self) -> Option<f64> {
        share(self.dropped, self.scheduled)
    }

    /// How a target does to which this happened lately; `None` when this does not tell.
    pub(super) fn state(&self) -> Option<State> {
        let bad = |ratio: Option<f64>| ratio.is_some_and(|ratio| ratio >= BAD_SHARE);
        match self {
            _ if bad(self.error_ratio()) => Some(State::Failing),
            _ if bad(self.dropped_ratio()) => Some(State::Dropping),
            Self { finished: 1.., .. } => Some(State::Good),
            _ => None,
        }
    }
}

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}
