//! Which part of every stream this process sends, and from when on.

use std::num::NonZeroU64;
use std::sync::Arc;

use tracing::{info, warn};

use super::plan::tempo;
use super::{Batch, Fleet, WorkerLost};
use crate::clock::{self, WallReading};
use crate::load::{Course, LaneChange, Turn};
use crate::pace::{Phase, Process, Rate, Schedule, Stripe, Timeline};

/// A stripe of every stream, on the grid that all replicas share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sharing {
    timeline: Timeline,
    /// `None`: nothing is ours.
    stripe: Option<Stripe>,
    /// What will be ours from an instant of grid time on.
    next: Option<(u64, Option<Stripe>)>,
}

impl Sharing {
    pub(super) fn new(timeline: Timeline, stripe: Option<Stripe>) -> Self {
        Self { timeline, stripe, next: None }
    }

    pub(super) fn timeline(&self) -> Timeline {
        self.timeline
    }

    /// What is ours now.
    pub(super) fn stripe(&self) -> Option<Stripe> {
        self.stripe
    }

    /// Whether a stripe is ours from an instant of grid time on, as far as is known.
    pub(super) fn holds(&self, grid_ns: u64, stripe: Option<Stripe>) -> bool {
        self.latest() == stripe && self.next.is_none_or(|(from_ns, _)| from_ns <= grid_ns)
    }

    /// What will be ours once every change that is known has taken effect.
    pub(super) fn latest(&self) -> Option<Stripe> {
        self.next.map_or(self.stripe, |(_, stripe)| stripe)
    }

    /// Another stripe is ours from an instant of grid time on. One that was to come before that never comes.
    pub(super) fn switch(&mut self, grid_ns: u64, stripe: Option<Stripe>) {
        self.next = Some((grid_ns, stripe));
    }

    /// The same on a grid that has nothing to do with this one: a change that is to come does at the same moment.
    fn laid_anew(self, timeline: Timeline) -> Self {
        let at_that_moment = |grid_ns: u64| timeline.grid_of(self.timeline.instant_of(grid_ns));
        let next = self.next.map(|(grid_ns, stripe)| (at_that_moment(grid_ns), stripe));
        Self { timeline, next, ..self }
    }

    /// Takes note that the next stripe is the one of now, if its time has come. Returns whether it has.
    pub(super) fn settle(&mut self, now_ns: u64) -> bool {
        match self.next {
            Some((grid_ns, stripe)) if grid_ns <= self.timeline.grid_of(now_ns) => {
                (self.stripe, self.next) = (stripe, None);
                true
            }
            _ => false,
        }
    }

    /// The schedule of a target, which is the same in all replicas.
    pub(super) fn schedule(&self, name: &str, rate: Rate, process: Process) -> Schedule {
        Schedule::on_grid(rate, process, Phase::of_name(name), self.timeline)
    }

    /// What lane `part` of `parts` sends of what is due after `at_ns`.
    pub(super) fn course(&self, schedule: &Arc<Schedule>, at_ns: u64, part: u64, parts: NonZeroU64) -> Course {
        let piece = |stripe: Option<Stripe>, first: u64| match stripe {
            Some(stripe) => Course::new(Arc::clone(schedule), stripe.part(part, parts), first),
            None => Course { end: first, ..Course::new(Arc::clone(schedule), Stripe::WHOLE, first) },
        };
        let first = schedule.owed(at_ns);
        let mut course = piece(self.stripe, first);
        if let Some((grid_ns, stripe)) = self.next {
            // The same number in all replicas.
            let cut = schedule.owed_before(grid_ns).max(first);
            course.end = course.end.min(cut);
            course.then = Some(Box::new(piece(stripe, cut)));
        }
        course
    }
}

/// Grid time is not led anywhere for less than this: clocks that NTP keeps differ by as much between machines.
const TOLERANCE_NS: u64 = 100_000;
/// A wall clock that is further off was set, not kept. To lead grid time there would take more than half an hour, so the
/// grid is laid anew.
const MAX_WAY_NS: u64 = 1_000_000_000;

/// What of every stream is ours changes here.
impl Fleet {
    /// The grid that the streams are shared on, if they are.
    pub fn timeline(&self) -> Option<Timeline> {
        self.sharing.map(|sharing| sharing.timeline())
    }

    /// What of every stream is ours now.
    pub fn stripe(&self) -> Option<Stripe> {
        self.sharing.map_or(Some(Stripe::WHOLE), |sharing| sharing.stripe())
    }

    /// Whether a stripe is ours from an instant of grid time on, as far as is known.
    pub fn holds(&self, grid_ns: u64, stripe: Option<Stripe>) -> bool {
        self.sharing.map_or(stripe == Some(Stripe::WHOLE), |sharing| sharing.holds(grid_ns, stripe))
    }

    /// What will be ours once every change that is known has taken effect.
    pub fn latest_stripe(&self) -> Option<Stripe> {
        self.sharing.map_or(Some(Stripe::WHOLE), |sharing| sharing.latest())
    }

    /// From an instant of grid time on another stripe is ours: what is due before it is divided as before.
    pub async fn reshare(&mut self, grid_ns: u64, stripe: Option<Stripe>) -> Result<(), WorkerLost> {
        let at_ns = self.instant_of_change(self.members.len());
        let Some(sharing) = &mut self.sharing else { return Ok(()) };
        sharing.settle(at_ns);
        sharing.switch(grid_ns, stripe);
        self.turn_all(at_ns).await
    }

    /// What is told of the targets follows a change of stripe whose time has come. Returns whether there was one.
    pub fn settle(&mut self) -> bool {
        let settled = self.sharing.as_mut().is_some_and(|sharing| sharing.settle(clock::now_ns()));
        if settled {
            for (name, member) in &self.members {
                self.roster.describe(&name.as_ref().into(), self.info(&member.target));
            }
        }
        settled
    }

    /// Leads grid time to the wall clock, if the two have come apart. Returns how far the wall clock is ahead, in
    /// nanoseconds.
    pub async fn steer(&mut self) -> Result<i64, WorkerLost> {
        let Some(sharing) = self.sharing else { return Ok(0) };
        let (reading, timeline) = (WallReading::take(), sharing.timeline());
        let apart_ns = |offset_ns: i64| reading.ahead_by_ns.saturating_sub(offset_ns);
        let way_ns = apart_ns(timeline.offset_at(reading.at_ns));
        if apart_ns(timeline.last_offset()).unsigned_abs() <= TOLERANCE_NS.max(reading.error_ns) {
            return Ok(way_ns);
        }
        let at_ns = self.instant_of_change(self.members.len());
        let seconds = way_ns as f64 / 1e9;
        let sharing = if way_ns.unsigned_abs() > MAX_WAY_NS {
            warn!(seconds, "the wall clock was set: the arrivals go on where they are by it now");
            sharing.laid_anew(Timeline::ahead_by(reading.ahead_by_ns))
        } else {
            info!(seconds, "the wall clock was set: the arrivals follow it slowly");
            Sharing { timeline: timeline.led_to(reading.ahead_by_ns, at_ns), ..sharing }
        };
        self.sharing = Some(sharing);
        for member in self.members.values_mut() {
            member.schedule = Arc::new(member.schedule.on_timeline(sharing.timeline()));
        }
        self.turn_all(at_ns).await?;
        Ok(way_ns)
    }

    /// All targets send what is theirs by now of what is due after `at_ns`.
    async fn turn_all(&mut self, at_ns: u64) -> Result<(), WorkerLost> {
        let mut batch = Batch::new(self.workers.len());
        for (name, mut member) in std::mem::take(&mut self.members) {
            let target = member.target.clone();
            let parts = member.lanes.len();
            if self.stripes(&target) != parts {
                self.retire_lanes(&mut member, &target, at_ns, None, &mut batch);
                self.enlane(&name, member, 0, at_ns, &mut batch);
                continue;
            }
            for (part, &(id, worker)) in member.lanes.iter().enumerate() {
                let turn = Some(Turn::Course { at_ns, course: self.course(&member.schedule, 0, at_ns, part, parts) });
                let tempo = tempo(&target, parts, part);
                batch.0[worker].push(LaneChange::Update { id, turn, tempo, arm: None });
            }
            self.members.insert(name, member);
        }
        self.plan_anew();
        self.send(batch).await
    }

    /// What is planned on each worker, by the stripes of now.
    fn plan_anew(&mut self) {
        self.planned.fill(0.0);
        for member in self.members.values() {
            let share = self.own_rate(&member.target) / member.lanes.len() as f64;
            for &(_, worker) in &member.lanes {
                self.planned[worker] += share;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const NOW: u64 = 1_792_000_000 * SECOND;

    /// A replica, and what it has sent.
    struct Replica {
        sharing: Sharing,
        schedule: Arc<Schedule>,
        lanes: Vec<Course>,
        sent: Vec<u64>,
    }

    impl Replica {
        fn new(rate: Rate, process: Process, uptime_ns: u64, lanes: u64, stripe: Option<Stripe>) -> Self {
            let sharing = Sharing::new(Timeline::ahead_by((NOW - uptime_ns) as i64), stripe);
            let schedule = Arc::new(sharing.schedule("a", rate, process));
            let parts = NonZeroU64::new(lanes).expect("lanes");
            let lanes = (0..lanes).map(|part| sharing.course(&schedule, uptime_ns, part, parts)).collect();
            Self { sharing, schedule, lanes, sent: Vec::new() }
        }

        /// Sends what is due before `grid_ns`.
        fn run(&mut self, grid_ns: u64) {
            let until = self.schedule.owed_before(grid_ns);
            for lane in &mut self.lanes {
                while let Some(number) = lane.take_below(until) {
                    self.sent.push(number);
                }
            }
        }

        /// Hears at `heard_ns` that it has another stripe from `grid_ns` on.
        fn switch(&mut self, heard_ns: u64, grid_ns: u64, stripe: Option<Stripe>) {
            self.run(heard_ns);
            let at = self.sharing.timeline().instant_of(heard_ns);
            self.sharing.settle(at);
            self.sharing.switch(grid_ns, stripe);
            let parts = NonZeroU64::new(self.lanes.len() as u64).expect("lanes");
            for (part, lane) in self.lanes.iter_mut().enumerate() {
                lane.follow(at, self.sharing.course(&self.schedule, at, part as u64, parts));
            }
        }
    }

    #[test]
    fn a_change_comes_when_it_was_to_come_on_a_grid_that_is_laid_anew() {
        const UPTIME: u64 = 100 * SECOND;
        const WAIT: u64 = SECOND / 2;
        let (first, half) = (Stripe::new(0, 1), Stripe::new(1, 2));
        for hours in [-5, 5] {
            let by = |ahead_ns: i64| Timeline::ahead_by((NOW - UPTIME) as i64 + ahead_ns);
            let mut sharing = Sharing::new(by(0), first);
            sharing.switch(NOW + WAIT, half);
            let mut sharing = sharing.laid_anew(by(hours * 3600 * SECOND as i64));
            assert!(!sharing.settle(UPTIME + WAIT - 1), "{hours}");
            assert!(sharing.settle(UPTIME + WAIT), "{hours}");
            assert_eq!(sharing.stripe(), half);
        }
    }

    #[test]
    fn a_stripe_that_comes_later_than_it_should_is_not_held_yet() {
        let (first, half) = (Stripe::new(0, 1), Stripe::new(1, 2));
        let mut sharing = Sharing::new(Timeline::OWN, first);
        assert!(sharing.holds(0, first) && !sharing.holds(NOW, half));
        sharing.switch(NOW, half);
        assert!(sharing.holds(NOW, half) && sharing.holds(NOW + SECOND, half));
        assert!(!sharing.holds(NOW - 1, half));
        assert!(!sharing.holds(NOW - 1, first), "it is ours no more after the change");
    }

    fn any_rate() -> impl Strategy<Value = Rate> {
        (1..2_000_u64, 1..7_u64).prop_filter_map("in range", |(count, seconds)| {
            Rate::new(count, std::time::Duration::from_secs(seconds)).ok()
        })
    }

    proptest! {
        #[test]
        fn through_changes_of_membership_every_arrival_is_sent_once(
            rate in any_rate(),
            process in prop_oneof![Just(Process::Even), (1..50_u32).prop_map(|size| Process::Burst { size })],
            lanes in prop::collection::vec(1..4_u64, 8),
            counts in prop::collection::vec(1..=8_u64, 1..6),
            heard in prop::collection::vec(0..900_000_000_u64, 8),
        ) {
            let stripe = |index: u64, count: u64| Stripe::new(index, count);
            let mut replicas: Vec<Replica> = (0..8)
                .map(|index| {
                    let uptime = (index + 1) * 1_234_567_891;
                    Replica::new(rate, process, uptime, lanes[index as usize], stripe(index, counts[0]))
                })
                .collect();
            for (round, &count) in counts.iter().enumerate().skip(1) {
                let began = NOW + (round as u64 - 1) * SECOND;
                for (index, replica) in replicas.iter_mut().enumerate() {
                    replica.switch(began + heard[index], began + SECOND, stripe(index as u64, count));
                }
            }
            let end = NOW + (counts.len() as u64 + 1) * SECOND;
            for replica in &mut replicas {
                replica.run(end);
            }
            let schedule = &replicas[0].schedule;
            // What is due at the very instant at which a replica comes is not its any more.
            let expected: Vec<u64> = (schedule.owed_before(NOW + 1)..schedule.owed_before(end)).collect();
            let mut union: Vec<u64> = replicas.into_iter().flat_map(|replica| replica.sent).collect();
            union.sort_unstable();
            prop_assert_eq!(union, expected);
        }
    }
}
