//! The last minutes of a target, interval by interval, packed.
//!
//! Made for thousands of targets that nobody looks at: each interval is a handful of numbers at seven bits to a byte
//! (LEB128, as in DWARF) and those native buckets in which a value fell, so that a target at a request a second takes less
//! than a kilobyte for [`History::INTERVALS`] of them. Numbers are exact; buckets are as fine as those of the ledger, up to
//! [`History::MAX_SCHEMA`].
//!
//! Pure: whoever keeps it says what time it is.

use super::packed::{self, Pairs};
use super::{Brief, HistogramSnapshot, Shape, State, Tally};

/// One interval.
#[derive(Debug, Clone, Copy)]
pub struct Interval<'a> {
    /// Its counts.
    pub tally: Tally,
    values: &'a [u8],
}

impl Interval<'_> {
    /// The values that fell in it: slot and count, rising. Slot 0 is the zero bucket; see [`History::slot_exponent`].
    pub fn values(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        packed::pairs(self.values)
    }
}

/// See the module.
#[derive(Debug, Clone)]
pub struct History {
    /// The intervals, the oldest first, one behind the other.
    log: Vec<u8>,
    intervals: usize,
    /// The counts and values at the end of the last interval.
    counts: Tally,
    values: Vec<u8>,
    max_ns: u64,
    noted_ns: u64,
    state: State,
}

impl History {
    /// How many intervals are kept.
    pub const INTERVALS: usize = 60;
    /// How many of them are what happened lately.
    pub const RECENT: usize = 12;
    /// The finest buckets that are kept: eight in an octave.
    pub const MAX_SCHEMA: u8 = 3;
    /// A target that is asked for fewer requests an interval has happened lately in all that is kept, not in
    /// [`Self::RECENT`] only: ten in a minute.
    pub const SLOW_PER_SECOND: f64 = 10.0 / 60.0;

    /// Of a target that came at `since_ns`.
    pub fn new(since_ns: u64) -> Self {
        Self {
            log: Vec::new(),
            intervals: 0,
            counts: Tally::default(),
            values: Vec::new(),
            max_ns: 0,
            noted_ns: since_ns,
            state: State::Waiting,
        }
    }

    /// How many intervals tell what happened lately at this rate.
    pub fn recent_of(per_second: f64) -> usize {
        if per_second < Self::SLOW_PER_SECOND { Self::INTERVALS } else { Self::RECENT }
    }

    /// The shape in which its values are, when those of the ledger have `shape`.
    pub fn shape_of(shape: &Shape) -> Shape {
        Shape::new(shape.schema().min(Self::MAX_SCHEMA), &[])
    }

    /// Ends an interval at `now_ns`, with these counts and values of the given shape since the target came. `recent` is
    /// how many intervals make up its state. Returns what happened in the interval.
    pub fn note(&mut self, now_ns: u64, brief: &Brief, shape: &Shape, recent: usize) -> Tally {
        if self.intervals == Self::INTERVALS {
            let mut rest = self.log.as_slice();
            take_interval(&mut rest);
            self.log.drain(..self.log.len() - rest.len());
            self.intervals -= 1;
        }
        let (all, grown) = compare(slots(&brief.values, shape), packed::pairs(&self.values));
        let tally = Tally {
            span_ms: now_ns.saturating_sub(self.noted_ns) / 1_000_000,
            scheduled: brief.scheduled.saturating_sub(self.counts.scheduled),
            dropped: brief.dropped.saturating_sub(self.counts.dropped),
            finished: brief.finished.saturating_sub(self.counts.finished),
            failed: brief.failed.saturating_sub(self.counts.failed),
        };
        let mut head = Vec::with_capacity(16);
        for number in [tally.span_ms, tally.scheduled, tally.dropped, tally.finished, tally.failed, grown.len() as u64]
        {
            packed::push(&mut head, number);
        }
        packed::append(&mut self.log, &[&head, &grown]);
        self.intervals += 1;
        self.values.clear();
        packed::append(&mut self.values, &[&all]);
        let Brief { scheduled, dropped, finished, failed, .. } = *brief;
        self.counts = Tally { span_ms: 0, scheduled, dropped, finished, failed };
        self.max_ns = brief.values.max_ns;
        // What a millisecond leaves over is in the next interval.
        self.noted_ns += tally.span_ms * 1_000_000;
        if let Some(state) = self.tally(recent).state() {
            self.state = state;
        }
        tally
    }

    /// How the target does: by what happened lately or, if nothing did, as before.
    pub fn state(&self) -> State {
        self.state
    }

    /// When the last interval ended, on the clock of [`History::note`].
    pub fn noted_ns(&self) -> u64 {
        self.noted_ns
    }

    /// The last `most` intervals, the oldest first.
    pub fn intervals(&self, most: usize) -> impl Iterator<Item = Interval<'_>> {
        let mut rest = self.log.as_slice();
        let all = (0..self.intervals).map(move |_| take_interval(&mut rest));
        all.skip(self.intervals.saturating_sub(most))
    }

    /// What happened in the last `most` intervals together.
    pub fn tally(&self, most: usize) -> Tally {
        let mut tally = Tally::default();
        self.intervals(most).for_each(|interval| tally.add(interval.tally));
        tally
    }

    /// The values of the last `most` intervals together. `shape` is that of [`History::shape_of`]. The sum and the classic
    /// buckets stay empty, and the largest value is at most a bucket above what it was.
    pub fn values(&self, most: usize, shape: &Shape) -> HistogramSnapshot {
        let mut counts = vec![0; slots_of(shape.schema())];
        for interval in self.intervals(most) {
            for (slot, count) in interval.values() {
                // All slots are below: they were made for this shape.
                counts[slot as usize] += count;
            }
        }
        let seen = || counts.iter().enumerate().filter(|&(_, &count)| count > 0);
        let native = seen().filter(|&(slot, _)| slot > 0);
        let native: Vec<_> = native.map(|(slot, &count)| (native_index(slot as u32, shape.schema()), count)).collect();
        let last = native.last().map_or(shape.zero_threshold(), |&(index, _)| shape.upper_bound(index));
        HistogramSnapshot {
            count: counts.iter().sum(),
            zero: counts[0],
            max_ns: self.max_ns.min((last * 1e9) as u64),
            native,
            ..HistogramSnapshot::default()
        }
    }

    /// The power of two, in seconds, up to which the octave of a slot goes.
    pub fn slot_exponent(slot: u32, shape: &Shape) -> i32 {
        Shape::LOWEST_EXPONENT + slot.div_ceil(1 << shape.schema()) as i32
    }

    /// The memory that it takes.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.log.capacity() + self.values.capacity()
    }
}

/// How many slots there are: one for zero and one for each native bucket.
fn slots_of(schema: u8) -> usize {
    (Shape::OCTAVES << schema) + 1
}

fn native_index(slot: u32, schema: u8) -> i32 {
    slot as i32 + (Shape::LOWEST_EXPONENT << schema)
}

/// The values of a snapshot as slots and counts, rising.
fn slots(values: &HistogramSnapshot, shape: &Shape) -> impl Iterator<Item = (u32, u64)> {
    let schema = shape.schema().min(History::MAX_SCHEMA);
    let finer = shape.schema() - schema;
    let zero = (values.zero > 0).then_some((0, values.zero));
    let native = values.native.iter().map(move |&(index, count)| {
        // The coarser bucket that this one lies in; both include their upper bounds.
        let index = (index + (1 << finer) - 1) >> finer;
        ((index - (Shape::LOWEST_EXPONENT << schema)) as u32, count)
    });
    let mut all = zero.into_iter().chain(native).peekable();
    std::iter::from_fn(move || {
        let (slot, mut count) = all.next()?;
        while let Some((_, more)) = all.next_if(|&(next, _)| next == slot) {
            count += more;
        }
        Some((slot, count))
    })
}

/// Packs the counts of now, and by how much they are above those of before.
fn compare(now: impl Iterator<Item = (u32, u64)>, before: impl Iterator<Item = (u32, u64)>) -> (Vec<u8>, Vec<u8>) {
    let (mut all, mut grown) = (Pairs::default(), Pairs::default());
    let mut before = before.peekable();
    for (slot, count) in now {
        while before.next_if(|&(earlier, _)| earlier < slot).is_some() {}
        let had = before.next_if(|&(same, _)| same == slot).map_or(0, |(_, count)| count);
        all.push(slot, count);
        if count > had {
            grown.push(slot, count - had);
        }
    }
    (all.packed, grown.packed)
}

fn take_interval<'a>(log: &mut &'a [u8]) -> Interval<'a> {
    let [span_ms, scheduled, dropped, finished, failed, length] = std::array::from_fn(|_| packed::take(log));
    let (values, rest) = log.split_at(length as usize);
    *log = rest;
    Interval { tally: Tally { span_ms, scheduled, dropped, finished, failed }, values }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::stats::Histogram;

    const SECOND_NS: u64 = 1_000_000_000;

    /// What a target has come to, value by value.
    #[derive(Default)]
    struct Course {
        brief: Brief,
        histogram: Histogram,
    }

    impl Course {
        fn strike(&mut self, shape: &Shape, value_ns: u64, failed: bool) {
            self.histogram.record(shape, value_ns);
            self.brief.scheduled += 1;
            self.brief.finished += 1;
            self.brief.failed += u64::from(failed);
            self.brief.values = self.histogram.snapshot(shape);
        }
    }

    #[test]
    fn the_last_intervals_are_kept_and_no_more() {
        let shape = Shape::new(3, &[]);
        let (mut history, mut course) = (History::new(SECOND_NS), Course::default());
        for round in 1..=100_u64 {
            for _ in 0..round {
                course.strike(&shape, round * 1_000_000, round % 2 == 0);
            }
            let tally = history.note(SECOND_NS + round * 5 * SECOND_NS, &course.brief, &shape, History::RECENT);
            assert_eq!((tally.span_ms, tally.finished), (5_000, round));
        }
        let intervals: Vec<_> = history.intervals(usize::MAX).map(|interval| interval.tally).collect();
        assert_eq!(intervals.len(), History::INTERVALS);
        for (interval, round) in intervals.iter().zip(41..) {
            let failed = if round % 2 == 0 { round } else { 0 };
            let expected = Tally { span_ms: 5_000, scheduled: round, dropped: 0, finished: round, failed };
            assert_eq!(*interval, expected);
        }
        assert_eq!(history.tally(2), Tally { span_ms: 10_000, scheduled: 199, dropped: 0, finished: 199, failed: 100 });
        assert_eq!(history.values(3, &shape).count, 98 + 99 + 100);
    }

    #[test]
    fn a_state_is_what_happened_lately_and_stays_when_nothing_does() {
        let shape = Shape::new(3, &[]);
        let (mut history, mut course, mut now_ns) = (History::new(0), Course::default(), 0);
        // Finished, failed and dropped in the next intervals, how many there are of them, and the state after them.
        for (finished, failed, dropped, times, state) in [
            (0, 0, 0, 3, State::Waiting),
            (1, 0, 0, 1, State::Good),
            (99, 1, 0, 1, State::Failing),
            (10, 0, 0, 1, State::Good),
            (0, 0, 2, 1, State::Dropping),
            (20, 0, 0, 12, State::Good),
            (0, 0, 0, 70, State::Good),
            (1, 1, 9, 1, State::Failing),
            (0, 0, 0, 70, State::Failing),
            (1, 0, 0, 1, State::Good),
        ] {
            for _ in 0..times {
                (0..finished).for_each(|n| course.strike(&shape, SECOND_NS, n < failed));
                course.brief.dropped += dropped;
                course.brief.scheduled += dropped;
                now_ns += 5 * SECOND_NS;
                history.note(now_ns, &course.brief, &shape, History::RECENT);
            }
            assert_eq!(history.state(), state, "{finished} {failed} {dropped} {times}");
        }
    }

    #[test]
    fn slow_targets_are_judged_by_all_that_is_kept() {
        for (per_second, intervals) in [(10.0 / 60.0, 12), (9.9 / 60.0, 60), (1.0, 12), (1.0 / 3600.0, 60)] {
            assert_eq!(History::recent_of(per_second), intervals, "{per_second}");
        }
    }

    #[test]
    fn a_target_at_a_request_a_second_takes_less_than_a_kilobyte() {
        let shape = Shape::new(3, &[]);
        let (mut history, mut course) = (History::new(0), Course::default());
        for round in 1..=200_u64 {
            // Five requests, each in an octave of its own.
            (0..5).for_each(|n| course.strike(&shape, 1_000_000 << n, false));
            history.note(round * 5 * SECOND_NS, &course.brief, &shape, History::RECENT);
        }
        assert!(history.bytes() <= 1_024, "{}", history.bytes());
    }

    proptest! {
        #[test]
        fn what_is_kept_is_what_happened(
            schema in 0..=Shape::MAX_SCHEMA,
            rounds in prop::collection::vec(prop::collection::vec(0..20_000_000_000_u64, 0..20), 1..80),
        ) {
            let (fine, mut history, mut course) = (Shape::new(schema, &[]), History::new(0), Course::default());
            let coarse = History::shape_of(&fine);
            for (values, round) in rounds.iter().zip(1..) {
                for &value_ns in values {
                    course.strike(&fine, value_ns, false);
                }
                history.note(round * SECOND_NS, &course.brief, &fine, History::RECENT);
            }
            let kept = rounds.len().min(History::INTERVALS);
            let expected = Histogram::default();
            rounds[rounds.len() - kept..].iter().flatten().for_each(|&value_ns| expected.record(&coarse, value_ns));
            let (found, expected) = (history.values(usize::MAX, &coarse), expected.snapshot(&coarse));
            prop_assert_eq!((found.count, found.zero, &found.native), (expected.count, expected.zero, &expected.native));
            let (found, expected) = (found.quantile(&coarse, 1.0), expected.quantile(&coarse, 1.0));
            let ratio = found.zip(expected).map_or(1.0, |(found, expected)| (found + 1e-6) / (expected + 1e-6));
            prop_assert!((1.0..2.0).contains(&ratio), "{found:?} for {expected:?}");
        }
    }
}
