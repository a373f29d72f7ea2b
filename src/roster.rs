//! The list of targets and their ledgers, as readers see it.
//!
//! The [`fleet`](crate::fleet) keeps it up to date; scrapes, summaries and the status page read it. Its lock is held by
//! control and admin threads only, never by a worker.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::stats::{Brief, History, LastFailure, Ledger, Shape, Snapshot, Tally, WorkerStats};

/// What is known of a target beside its counts.
#[derive(Debug, Clone, PartialEq)]
pub struct TargetInfo {
    /// The protocol that its hammer speaks.
    pub protocol: &'static str,
    /// Host and port that it strikes.
    pub authority: String,
    /// Whether its certificate is not checked; `None` without TLS.
    pub insecure: Option<bool>,
    /// The operator's labels.
    pub labels: BTreeMap<String, String>,
    /// The rate that the schedule asks for, per second.
    pub rate_per_second: f64,
    /// The most requests that may be in flight.
    pub max_in_flight: usize,
    /// The shape of its histograms.
    pub shape: Shape,
    /// When it came, on the clock of [`crate::clock`].
    pub since_ns: u64,
}

#[cfg(test)]
impl TargetInfo {
    /// Of a target about which nothing matters to a test.
    pub(crate) fn plain() -> Self {
        Self {
            protocol: "http",
            authority: "a:80".to_owned(),
            insecure: None,
            labels: BTreeMap::new(),
            rate_per_second: 1.0,
            max_in_flight: 1,
            shape: Shape::new(3, &[1.0]),
            since_ns: 0,
        }
    }
}

/// A target and a consistent copy of its counts.
#[derive(Debug, Clone, PartialEq)]
pub struct TargetView {
    /// Its name.
    pub name: Arc<str>,
    /// What is known of it.
    pub info: Arc<TargetInfo>,
    /// Its counts, over all workers and since it came.
    pub counts: Snapshot,
}

/// What [`Roster::read`] saw.
#[derive(Debug, Clone, PartialEq)]
pub struct RosterView {
    /// All targets in the order of their names.
    pub targets: Vec<TargetView>,
    /// The totals of removed targets, with those whose last requests are still in flight.
    pub retired: RetiredTotals,
}

/// Totals of targets that were removed, so that sums over the process stay exact.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RetiredTotals {
    /// Arrivals that came due.
    pub scheduled: u64,
    /// Handed to a hammer.
    pub started: u64,
    /// Never sent.
    pub dropped: u64,
    /// Finished, well or badly.
    pub finished: u64,
    /// Cut off.
    pub canceled: u64,
}

impl RetiredTotals {
    fn add(&mut self, counts: &Snapshot) {
        self.scheduled += counts.scheduled;
        self.started += counts.started;
        self.dropped += counts.dropped.iter().sum::<u64>();
        self.finished += counts.finished;
        self.canceled += counts.canceled;
    }
}

/// See the module.
#[derive(Debug)]
pub struct Roster {
    shape: Shape,
    workers: Vec<Arc<WorkerStats>>,
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    targets: BTreeMap<Arc<str>, Entry>,
    /// Ledgers of removed targets that may still be written to.
    retiring: Vec<Arc<Ledger>>,
    retired: RetiredTotals,
}

/// What there is of one target.
#[derive(Debug)]
pub struct Entry {
    info: Arc<TargetInfo>,
    history: History,
    /// One for each lane, those that are ending included.
    ledgers: Vec<Arc<Ledger>>,
    /// The sum of ledgers that nobody writes to any more. Boxed: most targets have none, and it is over a kilobyte.
    settled: Option<Box<Snapshot>>,
}

impl Entry {
    /// Adds up the ledgers whose lanes are gone, so that the list stays as short as the lanes are few.
    fn settle(&mut self) {
        let settled = &mut self.settled;
        self.ledgers.retain_mut(|ledger| {
            keep_or_settle(ledger, |counts| {
                let settled = settled.get_or_insert_default();
                settled.merge(counts);
                // Counts go on; the latest that a lane saw which is gone says nothing of now.
                (settled.wire.dns_addresses, settled.wire.certificate_not_after) = (0, 0);
            })
        });
    }

    /// What is known of it beside its counts.
    pub fn info(&self) -> &Arc<TargetInfo> {
        &self.info
    }

    /// Its last minutes, as far as somebody notes them.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Ends an interval of its history now, at `now_ns`. Returns what happened in it.
    pub fn note(&mut self, now_ns: u64) -> Tally {
        let (brief, recent) = (self.brief(), History::recent_of(self.info.rate_per_second));
        self.history.note(now_ns, &brief, &self.info.shape, recent)
    }

    fn brief(&self) -> Brief {
        let mut brief = self.settled.as_deref().map(Brief::from).unwrap_or_default();
        self.ledgers.iter().for_each(|ledger| brief.merge(&ledger.brief()));
        brief
    }

    /// Its latest failure.
    pub fn last_failure(&self) -> LastFailure {
        let settled = self.settled.as_ref().map(|settled| settled.last_failure);
        self.ledgers.iter().map(|ledger| ledger.last_failure()).chain(settled).max().unwrap_or_default()
    }

    /// A consistent copy of its counts, over all workers and since it came.
    pub fn counts(&self) -> Snapshot {
        let mut copies = self.ledgers.iter().map(|ledger| ledger.snapshot());
        let mut counts = copies.next().unwrap_or_default();
        copies.for_each(|copy| counts.merge(&copy));
        if let Some(settled) = &self.settled {
            counts.merge(settled);
        }
        counts
    }
}

/// False, after `settle` had the final counts, when the roster is the last to know the ledger.
fn keep_or_settle(ledger: &mut Arc<Ledger>, settle: impl FnOnce(&Snapshot)) -> bool {
    // Exclusive access proves that the writer is gone, and makes its last writes visible.
    let writerless = Arc::get_mut(ledger).is_some();
    if writerless {
        settle(&ledger.snapshot());
    }
    !writerless
}

impl Roster {
    /// A roster without targets. The workers' own histograms have `shape`.
    pub fn new(shape: Shape, workers: Vec<Arc<WorkerStats>>) -> Self {
        Self { shape, workers, entries: Mutex::default() }
    }

    /// The shape of the workers' histograms.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The stats of all workers.
    pub fn workers(&self) -> &[Arc<WorkerStats>] {
        &self.workers
    }

    /// Adds a target, or changes what is known of it; its counts go on.
    pub fn describe(&self, name: &Arc<str>, info: TargetInfo) {
        let mut entries = self.entries();
        if let Some(entry) = entries.targets.get_mut(name) {
            let since_ns = entry.info.since_ns;
            entry.info = Arc::new(TargetInfo { since_ns, ..info });
        } else {
            let history = History::new(info.since_ns);
            let entry = Entry { info: Arc::new(info), history, ledgers: Vec::new(), settled: None };
            entries.targets.insert(Arc::clone(name), entry);
        }
    }

    /// Adds a lane's ledger to a target that was described.
    pub fn enlist(&self, name: &str, ledger: Arc<Ledger>) {
        if let Some(entry) = self.entries().targets.get_mut(name) {
            entry.settle();
            entry.ledgers.push(ledger);
        }
    }

    /// Removes a target; its counts go on in the retired totals.
    pub fn retire(&self, name: &str) {
        let mut entries = self.entries();
        if let Some(entry) = entries.targets.remove(name) {
            if let Some(settled) = &entry.settled {
                entries.retired.add(settled);
            }
            entries.retiring.extend(entry.ledgers);
        }
    }

    /// How many targets there are.
    pub fn len(&self) -> usize {
        self.entries().targets.len()
    }

    /// Whether there is no target.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All targets, and what became of those that were removed, at one moment.
    pub fn read(&self) -> RosterView {
        let mut targets = Vec::new();
        let retired = self.visit(|target| targets.push(target));
        RosterView { targets, retired }
    }

    /// Shows all targets in the order of their names to `see`, and returns what became of those that were removed: what
    /// [`read`](Self::read) does, for those who need not keep the copies. The roster is locked meanwhile.
    pub fn visit(&self, mut see: impl FnMut(TargetView)) -> RetiredTotals {
        let mut entries = self.entries();
        let Entries { targets, retiring, retired } = &mut *entries;
        retiring.retain_mut(|ledger| keep_or_settle(ledger, |counts| retired.add(counts)));
        let mut retired = *retired;
        for ledger in retiring {
            retired.add(&ledger.snapshot());
        }
        for (name, entry) in targets {
            entry.settle();
            see(TargetView { name: Arc::clone(name), info: Arc::clone(&entry.info), counts: entry.counts() });
        }
        retired
    }

    /// Shows to `see` at most `most` targets, in the order of their names, whose names come behind `after`. Returns the
    /// last name; `None` when there was none. The roster is locked meanwhile, so that many are better shown bit by bit.
    pub fn walk(
        &self,
        after: Option<&str>,
        most: usize,
        mut see: impl FnMut(&Arc<str>, &mut Entry),
    ) -> Option<Arc<str>> {
        let mut entries = self.entries();
        let behind = (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        let mut last = None;
        for (name, entry) in entries.targets.range_mut::<str, _>(behind).take(most) {
            see(name, entry);
            last = Some(name);
        }
        last.cloned()
    }

    /// Shows one target to `see`. `None` when there is none of that name.
    pub fn look<T>(&self, name: &str, see: impl FnOnce(&Entry) -> T) -> Option<T> {
        self.entries().targets.get(name).map(see)
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        // A reader that panicked has changed nothing.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{Outcome, Trace};
    use crate::stats::LedgerWriter;

    fn info(rate_per_second: f64) -> TargetInfo {
        TargetInfo { rate_per_second, ..TargetInfo::plain() }
    }

    fn strike(writer: &LedgerWriter) {
        writer.start();
        writer.finish(Outcome::good(200), 1_000_000, 1_000_000, &Trace::new());
    }

    #[test]
    fn counts_outlive_the_lanes_that_made_them() {
        let shape = Shape::new(3, &[1.0]);
        let roster = Roster::new(shape.clone(), Vec::new());
        let name: Arc<str> = "a".into();
        roster.describe(&name, info(1.0));
        for _ in 0..3 {
            let (writer, ledger) = LedgerWriter::new(shape.clone());
            ledger.wire.dns_addresses.set(7);
            ledger.wire.certificate_not_after.set(1_000);
            roster.enlist("a", ledger);
            strike(&writer);
        }
        let (writer, ledger) = LedgerWriter::new(shape.clone());
        ledger.wire.dns_addresses.set(2);
        ledger.wire.certificate_not_after.set(2_000);
        roster.enlist("a", ledger);
        strike(&writer);
        roster.describe(&name, info(2.0));

        let view = &roster.read().targets[0];
        assert_eq!((view.counts.finished, view.counts.responses.as_slice()), (4, [(200, 4)].as_slice()));
        assert_eq!(*view.info, info(2.0));
        assert_eq!(view.counts.wire.dns_addresses, 2, "addresses in use are those of lanes at work");
        assert_eq!(view.counts.wire.certificate_not_after, 2_000, "and so are certificates");
        assert_eq!(roster.entries().targets["a"].ledgers.len(), 1, "ledgers without a writer are added up");
    }

    #[test]
    fn a_removed_target_lives_on_in_the_totals_until_its_last_request() {
        let shape = Shape::new(3, &[1.0]);
        let roster = Roster::new(shape.clone(), Vec::new());
        roster.describe(&"a".into(), info(1.0));
        let (writer, ledger) = LedgerWriter::new(shape);
        roster.enlist("a", ledger);
        strike(&writer);
        writer.start();
        roster.retire("a");
        assert_eq!(roster.read().targets, []);
        assert_eq!(
            roster.read().retired,
            RetiredTotals { scheduled: 2, started: 2, finished: 1, ..Default::default() }
        );
        writer.cancel();
        drop(writer);
        let last = RetiredTotals { scheduled: 2, started: 2, finished: 1, canceled: 1, dropped: 0 };
        assert_eq!((roster.read().retired, roster.read().retired), (last, last));
        assert!(roster.entries().retiring.is_empty());
    }
}
