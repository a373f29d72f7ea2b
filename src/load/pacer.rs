//! Which lane has the next arrival. Pure: the worker brings the time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use slab::Slab;

use crate::pace::{Schedule, Stripe};

/// A place in the worker's table of lanes.
pub(super) type Slot = usize;

/// What a lane sends: every `stride`-th arrival of a schedule, from `next` on; then, perhaps, those of another course.
#[derive(Debug, Clone)]
pub struct Course {
    /// When arrivals are due.
    pub schedule: Arc<Schedule>,
    /// The number of the next arrival of this lane.
    pub next: u64,
    /// Lanes that share the schedule; 1 for a target that lives on one worker.
    pub stride: u64,
    /// The lane sends no arrival with this number or a higher one.
    pub end: u64,
    /// What it sends after that. Its arrivals are due no earlier than those of this one.
    pub then: Option<Box<Course>>,
}

impl Course {
    /// A stripe of the arrivals numbered from `first` on.
    pub fn new(schedule: Arc<Schedule>, stripe: Stripe, first: u64) -> Self {
        Self { schedule, next: stripe.first_from(first), stride: stripe.count(), end: u64::MAX, then: None }
    }

    /// Goes on as another course for what is due after `at_ns`.
    pub(crate) fn follow(&mut self, at_ns: u64, mut course: Self) {
        course.begin_after(at_ns);
        self.end_at(at_ns);
        self.append(course);
    }

    /// Takes the next arrival if it has a lower number than `end`.
    #[cfg(test)]
    pub(crate) fn take_below(&mut self, end: u64) -> Option<u64> {
        let number = self.next;
        (number < self.end.min(end)).then(|| {
            self.advance();
            number
        })
    }

    /// The next arrival has been taken.
    fn advance(&mut self) {
        self.next += self.stride;
        self.settle();
    }

    /// Leaves out what is due after `at_ns`, here and in what comes then.
    fn end_at(&mut self, at_ns: u64) {
        self.end = self.end.min(self.schedule.owed(at_ns));
        if let Some(then) = &mut self.then {
            then.end_at(at_ns);
        }
        self.settle();
    }

    /// Leaves out what is due at `at_ns` or before, here and in what comes then.
    fn begin_after(&mut self, at_ns: u64) {
        if let Some(then) = &mut self.then {
            then.begin_after(at_ns);
        }
        self.skip_until(at_ns);
    }

    /// Puts another course behind the last one.
    fn append(&mut self, course: Self) {
        match &mut self.then {
            Some(then) => then.append(course),
            None => self.then = Some(Box::new(course)),
        }
        self.settle();
    }

    /// No arrival any more.
    fn stop(&mut self) {
        self.end = self.next;
        self.then = None;
    }

    /// Goes on with the next course that has arrivals, if this one has none left.
    fn settle(&mut self) {
        while self.next >= self.end
            && let Some(then) = self.then.take()
        {
            *self = *then;
        }
    }

    /// When the next arrival is due; `u64::MAX` for never.
    fn due_ns(&self) -> u64 {
        if self.next >= self.end { u64::MAX } else { self.schedule.due(self.next) }
    }

    /// Takes all arrivals due at or before `horizon_ns`, and says how many there were.
    fn skip_until(&mut self, horizon_ns: u64) -> u64 {
        let owed = self.schedule.owed(horizon_ns).min(self.end);
        let count = owed.saturating_sub(self.next).div_ceil(self.stride);
        self.next += count * self.stride;
        self.settle();
        count
    }
}

/// What [`Pacer::next`] found due.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Release {
    /// An arrival to send.
    Due {
        /// Whose.
        slot: Slot,
        /// When it was due.
        due_ns: u64,
    },
    /// Arrivals that nobody may send any more.
    Late {
        /// Whose.
        slot: Slot,
        /// How many.
        count: u64,
    },
}

/// All lanes of a worker, in the order of their next arrivals.
#[derive(Debug, Default)]
pub(super) struct Pacer {
    courses: Slab<Course>,
    /// The next arrival of each lane that has one. An entry whose time is no longer its lane's is stale, and skipped.
    heap: BinaryHeap<Reverse<(u64, Slot)>>,
}

impl Pacer {
    /// Where the next lane will be put.
    pub(super) fn vacant_slot(&self) -> Slot {
        self.courses.vacant_key()
    }

    /// Adds a lane.
    pub(super) fn add(&mut self, mut course: Course) -> Slot {
        course.settle();
        let due_ns = course.due_ns();
        let slot = self.courses.insert(course);
        self.enter(slot, due_ns);
        slot
    }

    /// Follows `schedule`, which agrees with the one before on all arrivals that were sent already.
    pub(super) fn reschedule(&mut self, slot: Slot, schedule: Arc<Schedule>) {
        if let Some(course) = self.courses.get_mut(slot) {
            course.schedule = schedule;
            let due_ns = course.due_ns();
            self.enter(slot, due_ns);
        }
    }

    /// Follows another course for what is due after `at_ns`.
    pub(super) fn follow(&mut self, slot: Slot, at_ns: u64, course: Course) {
        if let Some(before) = self.courses.get_mut(slot) {
            before.follow(at_ns, course);
            let due_ns = before.due_ns();
            self.enter(slot, due_ns);
        }
    }

    /// Ends a lane's arrivals with those due at `at_ns`, or, with 0, at once.
    pub(super) fn end_at(&mut self, slot: Slot, at_ns: u64) {
        let Some(course) = self.courses.get_mut(slot) else { return };
        if at_ns == 0 {
            course.stop();
        } else {
            course.end_at(at_ns);
        }
    }

    /// Takes a lane away.
    pub(super) fn remove(&mut self, slot: Slot) {
        self.courses.try_remove(slot);
    }

    /// Whether the lane will never have another arrival.
    pub(super) fn is_over(&self, slot: Slot) -> bool {
        self.courses.get(slot).is_none_or(|course| course.next >= course.end)
    }

    /// Arrivals of all lanes end here.
    pub(super) fn stop(&mut self) {
        self.heap.clear();
        for (_, course) in &mut self.courses {
            course.stop();
        }
    }

    /// When the next arrival of all is due; `u64::MAX` for never. May be too early by a stale entry, never too late.
    pub(super) fn next_due_ns(&self) -> u64 {
        self.heap.peek().map_or(u64::MAX, |Reverse((due_ns, _))| *due_ns)
    }

    /// The next arrival due at or before `now_ns`; those due before `late_ns` only as a count.
    pub(super) fn next(&mut self, now_ns: u64, late_ns: u64) -> Option<Release> {
        loop {
            let Reverse((due_ns, slot)) = *self.heap.peek()?;
            if due_ns > now_ns {
                return None;
            }
            self.heap.pop();
            let Some(course) = self.courses.get_mut(slot) else { continue };
            if course.due_ns() != due_ns {
                continue;
            }
            let release = if due_ns < late_ns {
                Release::Late { slot, count: course.skip_until(late_ns - 1) }
            } else {
                course.advance();
                Release::Due { slot, due_ns }
            };
            let next_due_ns = course.due_ns();
            self.enter(slot, next_due_ns);
            return Some(release);
        }
    }

    fn enter(&mut self, slot: Slot, due_ns: u64) {
        if due_ns != u64::MAX {
            self.heap.push(Reverse((due_ns, slot)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pace::{Phase, Process, Rate};

    const MS: u64 = 1_000_000;

    fn schedule(per_second: u64) -> Arc<Schedule> {
        Arc::new(Schedule::new(Rate::per_second(per_second), Process::Even, Phase::default(), 0, 0))
    }

    fn course(per_second: u64) -> Course {
        Course::new(schedule(per_second), Stripe::WHOLE, 0)
    }

    fn drain(pacer: &mut Pacer, now_ns: u64, late_ns: u64) -> Vec<Release> {
        std::iter::from_fn(|| pacer.next(now_ns, late_ns)).collect()
    }

    fn due(slot: Slot, due_ns: u64) -> Release {
        Release::Due { slot, due_ns }
    }

    #[test]
    fn lanes_take_turns_in_the_order_of_their_arrivals() {
        let mut pacer = Pacer::default();
        let (slow, fast) = (pacer.add(course(100)), pacer.add(course(200)));
        let released = drain(&mut pacer, 10 * MS, 0);
        assert_eq!(released, [due(slow, 0), due(fast, 0), due(fast, 5 * MS), due(slow, 10 * MS), due(fast, 10 * MS)]);
        assert_eq!(pacer.next_due_ns(), 15 * MS);
    }

    #[test]
    fn after_a_freeze_the_late_are_counted_and_the_rest_goes_on_in_phase() {
        let mut pacer = Pacer::default();
        let slot = pacer.add(course(100));
        // Woken after 2 s and 3 ms; what was due more than 100 ms ago is late.
        let released = drain(&mut pacer, 2003 * MS, 1903 * MS);
        assert_eq!(released[0], Release::Late { slot, count: 191 });
        assert_eq!(released[1..], (191..=200).map(|n| due(slot, n * 10 * MS)).collect::<Vec<_>>());
    }

    #[test]
    fn stripes_share_a_schedule_without_a_gap_or_a_double() {
        let mut pacer = Pacer::default();
        for offset in 0..3 {
            pacer.add(Course::new(schedule(1000), Stripe::new(offset, 3).expect("a stripe"), 0));
        }
        let mut times: Vec<u64> = drain(&mut pacer, 500 * MS, 0)
            .into_iter()
            .map(|release| match release {
                Release::Due { due_ns, .. } => due_ns,
                Release::Late { .. } => panic!("nothing is late"),
            })
            .collect();
        times.dedup();
        assert_eq!(times, (0..=500).map(|n| n * MS).collect::<Vec<_>>());
        let late: u64 = drain(&mut pacer, 1000 * MS, 1001 * MS)
            .iter()
            .map(|release| match release {
                Release::Late { count, .. } => *count,
                Release::Due { .. } => panic!("all is late"),
            })
            .sum();
        assert_eq!(late, 500);
    }

    #[test]
    fn a_new_schedule_replaces_the_arrival_that_was_waiting() {
        let mut pacer = Pacer::default();
        let slot = pacer.add(course(1));
        assert_eq!(drain(&mut pacer, 0, 0), [due(slot, 0)]);
        let faster = schedule(1).with_rate_from(500 * MS, Rate::per_second(10));
        pacer.reschedule(slot, Arc::new(faster));
        assert_eq!(drain(&mut pacer, 700 * MS, 0), [due(slot, 550 * MS), due(slot, 650 * MS)]);
        // Back to slow: the entry at 750 ms is stale, nothing is sent at it.
        pacer.reschedule(slot, schedule(1));
        pacer.end_at(slot, 3999 * MS);
        assert_eq!(drain(&mut pacer, 5000 * MS, 0), [due(slot, 3000 * MS)]);
        assert!(pacer.is_over(slot));
    }

    #[test]
    fn a_course_that_follows_begins_where_the_one_before_ends() {
        let stripe = |index, first| Course::new(schedule(1000), Stripe::new(index, 2).expect("a stripe"), first);
        let mut pacer = Pacer::default();
        let slot = pacer.add(stripe(0, 0));
        assert_eq!(drain(&mut pacer, 2 * MS, 0), [due(slot, 0), due(slot, 2 * MS)]);
        // Twice before the first has begun: the second replaces it.
        pacer.follow(slot, 5 * MS, stripe(1, 0));
        let mut both = Course { end: 9, ..Course::new(schedule(1000), Stripe::WHOLE, 0) };
        both.then = Some(Box::new(stripe(1, 9)));
        pacer.follow(slot, 5 * MS, both);
        let dues: Vec<_> = [4, 6, 7, 8, 9, 11, 13].map(|at| due(slot, at * MS)).into();
        assert_eq!(drain(&mut pacer, 14 * MS, 0), dues);
        assert!(!pacer.is_over(slot));
        pacer.end_at(slot, 0);
        assert!(pacer.is_over(slot));
    }

    #[test]
    fn late_arrivals_are_counted_course_by_course() {
        let mut pacer = Pacer::default();
        let slot = pacer.add(course(1000));
        pacer.follow(slot, 99 * MS, course(100));
        let late = |count| Release::Late { slot, count };
        assert_eq!(drain(&mut pacer, 205 * MS, 195 * MS), [late(100), late(10), due(slot, 200 * MS)]);
    }

    #[test]
    fn nothing_comes_after_a_stop_or_from_a_removed_lane() {
        let mut pacer = Pacer::default();
        let removed = pacer.add(course(10));
        pacer.remove(removed);
        assert_eq!(drain(&mut pacer, 1000 * MS, 0), []);
        pacer.add(course(10));
        pacer.stop();
        assert_eq!(drain(&mut pacer, 1000 * MS, 0), []);
    }
}
