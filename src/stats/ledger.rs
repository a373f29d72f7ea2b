//! One target's counts on one worker.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use super::cell::{Counter, Cut};
use super::{Brief, Exemplar, Histogram, Shape, Snapshot, Wire};
use crate::outcome::{DropReason, Outcome, Reason, Stage, Trace, Verdict};

/// Where every arrival of a target is, in exactly one place:
/// `scheduled = started + dropped` and `started = finished + canceled + in_flight`.
///
/// The methods that change it belong to [`LedgerWriter`]; anyone may take a [`snapshot`](Self::snapshot).
#[derive(Debug)]
pub struct Ledger {
    shape: Shape,
    cut: Cut,
    scheduled: Counter,
    started: Counter,
    finished: Counter,
    canceled: Counter,
    /// Counted up and down by itself, not derived, so that the equations say something.
    in_flight: Counter,
    dropped: [Counter; DropReason::COUNT],
    failures: [Counter; Reason::COUNT],
    responses: Responses,
    latency: [Histogram; Verdict::COUNT],
    duration: [Histogram; Verdict::COUNT],
    stages: [Histogram; Stage::COUNT],
    last_failure: Counter,
    /// What happens on the target's connections.
    pub wire: Wire,
}

/// Responses by status code: a list of those seen, in the order in which they first came, since most targets give one
/// or two. Codes outside 100-599 share a place, so it has an end.
#[derive(Debug, Default)]
struct Responses {
    first: OnceLock<Box<Seen>>,
}

#[derive(Debug)]
struct Seen {
    status: u16,
    count: Counter,
    next: OnceLock<Box<Seen>>,
}

impl Responses {
    fn add(&self, status: u16) {
        let status = if (100..600).contains(&status) { status } else { Snapshot::OTHER_STATUS };
        let mut place = &self.first;
        loop {
            let new = || Box::new(Seen { status, count: Counter::default(), next: OnceLock::new() });
            let seen = place.get_or_init(new);
            if seen.status == status {
                return seen.count.add(1);
            }
            place = &seen.next;
        }
    }

    fn snapshot(&self) -> Vec<(u16, u64)> {
        let all = std::iter::successors(self.first.get(), |seen| seen.next.get());
        // One that was only just entered is not counted yet.
        let counted = all.map(|seen| (seen.status, seen.count.get())).filter(|&(_, count)| count > 0);
        let mut responses: Vec<_> = counted.collect();
        responses.sort_unstable();
        responses
    }
}

impl Ledger {
    /// A ledger in which nothing has happened.
    pub fn new(shape: Shape) -> Self {
        Self {
            shape,
            cut: Cut::default(),
            scheduled: Counter::default(),
            started: Counter::default(),
            finished: Counter::default(),
            canceled: Counter::default(),
            in_flight: Counter::default(),
            dropped: Default::default(),
            failures: Default::default(),
            responses: Responses::default(),
            latency: Default::default(),
            duration: Default::default(),
            stages: Default::default(),
            last_failure: Counter::default(),
            wire: Wire::default(),
        }
    }

    /// A consistent copy: the ledger's equations hold in it, whatever the writer does meanwhile.
    pub fn snapshot(&self) -> Snapshot {
        self.cut.read(|| Snapshot {
            scheduled: self.scheduled.get(),
            started: self.started.get(),
            finished: self.finished.get(),
            canceled: self.canceled.get(),
            in_flight: self.in_flight.get(),
            dropped: std::array::from_fn(|index| self.dropped[index].get()),
            failures: std::array::from_fn(|index| self.failures[index].get()),
            responses: self.responses.snapshot(),
            latency: std::array::from_fn(|index| self.latency[index].snapshot(&self.shape)),
            duration: std::array::from_fn(|index| self.duration[index].snapshot(&self.shape)),
            stages: std::array::from_fn(|index| self.stages[index].snapshot(&self.shape)),
            last_failure: self.last_failure(),
            wire: self.wire.snapshot(),
        })
    }

    /// The part of a copy that a history is made of, at a fraction of the cost.
    pub fn brief(&self) -> Brief {
        self.cut.read(|| {
            let mut values = self.latency[Verdict::Ok.index()].snapshot(&self.shape);
            values.merge(&self.latency[Verdict::Failed.index()].snapshot(&self.shape));
            Brief {
                scheduled: self.scheduled.get(),
                dropped: self.dropped.iter().map(Counter::get).sum(),
                finished: self.finished.get(),
                failed: self.failures.iter().map(Counter::get).sum(),
                values,
            }
        })
    }

    /// The latest failure.
    pub fn last_failure(&self) -> LastFailure {
        LastFailure(self.last_failure.get())
    }
}

/// The latest failure, if there was one: time, status and reason in one word, so that it needs no cut and the later of two
/// is the greater. Whole milliseconds, or a little more: 2^20 ns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LastFailure(u64);

/// A request that was not good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// When it ended, on the clock of [`crate::clock`], rounded down to a millisecond or so.
    pub at_ns: u64,
    /// Why it was not good.
    pub reason: Reason,
    /// The status code, when the response was complete.
    pub status: Option<u16>,
}

impl LastFailure {
    const TIME_SHIFT: u32 = 20;
    const STATUS_SHIFT: u32 = 8;
    const STATUS_MASK: u64 = 0xfff;

    fn new(reason: Reason, status: Option<u16>, at_ns: u64) -> Self {
        let status = u64::from(status.unwrap_or(0)) & Self::STATUS_MASK;
        let time = at_ns >> Self::TIME_SHIFT << Self::TIME_SHIFT;
        Self(time | status << Self::STATUS_SHIFT | (reason.index() as u64 + 1))
    }

    /// What it was.
    pub fn get(self) -> Option<Failure> {
        let reason = *Reason::ALL.get((self.0 as u8).checked_sub(1)? as usize)?;
        let status = (self.0 >> Self::STATUS_SHIFT & Self::STATUS_MASK) as u16;
        let at_ns = self.0 >> Self::TIME_SHIFT << Self::TIME_SHIFT;
        Some(Failure { at_ns, reason, status: (status > 0).then_some(status) })
    }
}

/// The one writer of a [`Ledger`]: made once, moved, never cloned.
#[derive(Debug)]
pub struct LedgerWriter(Arc<Ledger>);

impl LedgerWriter {
    /// A new ledger and its writer.
    pub fn new(shape: Shape) -> (Self, Arc<Ledger>) {
        let ledger = Arc::new(Ledger::new(shape));
        (Self(Arc::clone(&ledger)), ledger)
    }

    /// An arrival came due and was handed to its hammer.
    pub fn start(&self) {
        self.cut.write(|| {
            self.scheduled.add(1);
            self.started.add(1);
            self.in_flight.add(1);
        });
    }

    /// Arrivals came due and will never be sent.
    pub fn drop_arrivals(&self, reason: DropReason, count: u64) {
        self.cut.write(|| {
            self.scheduled.add(count);
            self.dropped[reason.index()].add(count);
        });
    }

    /// A started request came to its end.
    ///
    /// `latency_ns` runs from the arrival, `duration_ns` from the actual send, both to the last byte.
    pub fn finish(&self, outcome: Outcome, latency_ns: u64, duration_ns: u64, trace: &Trace) {
        self.finish_traced(outcome, latency_ns, duration_ns, trace, None);
    }

    /// The same for a request that can be traced: by its trace id and when it ended, in milliseconds since 1970.
    pub fn finish_traced(
        &self,
        outcome: Outcome,
        latency_ns: u64,
        duration_ns: u64,
        trace: &Trace,
        traced: Option<(u128, u64)>,
    ) {
        let verdict = outcome.verdict().index();
        self.cut.write(|| {
            self.in_flight.subtract(1);
            self.finished.add(1);
            if let Some(status) = outcome.status {
                self.responses.add(status);
            }
            if let Some(reason) = outcome.failure {
                self.failures[reason.index()].add(1);
            }
            match traced {
                None => self.latency[verdict].record(&self.shape, latency_ns),
                Some((trace_id, at_ms)) => {
                    let exemplar = Exemplar { trace_id, value_ns: latency_ns, at_ms };
                    self.latency[verdict].record_traced(&self.shape, exemplar);
                }
            }
            self.duration[verdict].record(&self.shape, duration_ns);
            for stage in Stage::ALL {
                if let Some(took_ns) = trace.took_ns(stage) {
                    self.stages[stage.index()].record(&self.shape, took_ns);
                }
            }
        });
    }

    /// What failed just now is the latest failure.
    pub fn note_failure(&self, reason: Reason, status: Option<u16>, now_ns: u64) {
        self.last_failure.set(LastFailure::new(reason, status, now_ns).0);
    }

    /// A started request was cut off by the end of the drain or by its target's removal.
    pub fn cancel(&self) {
        self.cut.write(|| {
            self.in_flight.subtract(1);
            self.canceled.add(1);
        });
    }

    /// The ledger itself, for counting on the wire from the same thread.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.0
    }
}

impl Deref for LedgerWriter {
    type Target = Ledger;

    fn deref(&self) -> &Ledger {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer() -> LedgerWriter {
        LedgerWriter::new(Shape::new(3, &[0.1, 1.0])).0
    }

    #[test]
    fn every_arrival_is_in_one_place() {
        let ledger = writer();
        ledger.drop_arrivals(DropReason::Late, 7);
        ledger.drop_arrivals(DropReason::InFlight, 1);
        for _ in 0..5 {
            ledger.start();
        }
        let trace = Trace::new();
        trace.enter(Stage::Wait, 0);
        trace.complete(40_000_000);
        ledger.finish(Outcome::good(204), 50_000_000, 40_000_000, &trace);
        ledger.finish(Outcome::bad_status(503), 50_000_000, 40_000_000, &trace);
        ledger.finish(Outcome::failed(Reason::Reset), 2_000_000_000, 40_000_000, &Trace::new());
        ledger.cancel();

        let snapshot = ledger.snapshot();
        assert_eq!(snapshot.ledger_error(), None);
        assert_eq!((snapshot.scheduled, snapshot.started, snapshot.finished), (13, 5, 3));
        assert_eq!((snapshot.canceled, snapshot.in_flight), (1, 1));
        assert_eq!(snapshot.dropped, [1, 7, 0]);
        assert_eq!(snapshot.responses, [(204, 1), (503, 1)]);
        assert_eq!(snapshot.failures[Reason::Status.index()], 1);
        assert_eq!(snapshot.failures[Reason::Reset.index()], 1);
        assert_eq!(snapshot.latency[Verdict::Failed.index()].classic, [1, 0]);
        assert_eq!(snapshot.stages[Stage::Wait.index()].count, 2);
        assert_eq!(snapshot.stages[Stage::Connect.index()].count, 0);
    }

    #[test]
    fn the_latest_failure_is_told_with_its_time() {
        let ledger = writer();
        assert_eq!(ledger.last_failure().get(), None);
        let mut earlier = LastFailure::default();
        for (reason, status, at_ns) in [
            (Reason::ALL[0], None, 5_000_000),
            (Reason::Status, Some(503), 3_600_000_000_000),
            (Reason::Status, Some(999), 1 << 62),
        ] {
            ledger.note_failure(reason, status, at_ns);
            let last = ledger.last_failure();
            let failure = last.get().expect("a failure");
            assert_eq!((failure.reason, failure.status), (reason, status));
            assert!((at_ns - (1 << 20)..=at_ns).contains(&failure.at_ns), "{}", failure.at_ns);
            assert!(last > earlier, "the later one is the greater");
            earlier = last;
        }
        assert_eq!(ledger.snapshot().last_failure, earlier);
    }

    #[test]
    fn the_brief_is_a_part_of_the_copy() {
        let ledger = writer();
        ledger.drop_arrivals(DropReason::Late, 7);
        ledger.drop_arrivals(DropReason::InFlight, 2);
        for (outcome, latency_ns) in [(Outcome::good(200), 1_000_000), (Outcome::failed(Reason::Eof), 2_000_000_000)] {
            ledger.start();
            ledger.finish(outcome, latency_ns, 1, &Trace::new());
        }
        let (brief, copy) = (ledger.brief(), ledger.snapshot());
        assert_eq!((brief.scheduled, brief.dropped, brief.finished, brief.failed), (11, 9, 2, 1));
        let mut latency = copy.latency[0].clone();
        latency.merge(&copy.latency[1]);
        assert_eq!(brief.values, latency);
        assert_eq!(Brief::from(&copy), brief);
    }

    #[test]
    fn responses_are_told_in_the_order_of_their_codes() {
        let ledger = writer();
        for status in [503, 200, 999, 404, 200] {
            ledger.start();
            ledger.finish(Outcome::good(status), 1, 1, &Trace::new());
        }
        assert_eq!(ledger.snapshot().responses, [(200, 2), (404, 1), (503, 1), (Snapshot::OTHER_STATUS, 1)]);
    }

    #[test]
    fn odd_status_codes_are_other() {
        let ledger = writer();
        for status in [99, 100, 599, 600, 999] {
            ledger.start();
            ledger.finish(Outcome::good(status), 1, 1, &Trace::new());
        }
        assert_eq!(ledger.snapshot().responses, [(100, 1), (599, 1), (Snapshot::OTHER_STATUS, 3)]);
    }

    #[test]
    fn the_equations_hold_in_every_copy_while_the_writer_works() {
        let (writer, ledger) = LedgerWriter::new(Shape::new(3, &[0.1, 1.0]));
        std::thread::scope(|scope| {
            let work = scope.spawn(move || {
                for round in 0..200_000_u64 {
                    writer.start();
                    match round % 4 {
                        0 => writer.cancel(),
                        1 => writer.finish(Outcome::failed(Reason::Eof), round * 1000, round, &Trace::new()),
                        _ => writer.finish(Outcome::good(200), round * 1000, round, &Trace::new()),
                    }
                    writer.drop_arrivals(DropReason::Late, round % 3);
                }
            });
            let mut copies = 0;
            while !work.is_finished() {
                assert_eq!(ledger.snapshot().ledger_error(), None);
                copies += 1;
            }
            assert!(copies > 0);
        });
        assert_eq!((ledger.snapshot().started, ledger.snapshot().in_flight), (200_000, 0));
    }
}
