//! The n-th arrival, and how many are owed.

use super::{Curve, Phase, Position, Process, Rate, Timeline};

/// The pure function that gives the n-th arrival of a target: an arrival process on a rate curve. Instants are those of the
/// monotonic clock; the curve may count in another time, see [`Timeline`].
///
/// Arrivals are numbered from 0. [`due`](Self::due) and [`owed`](Self::owed) are inverses: arrival `n` is due at the
/// first nanosecond at which more than `n` arrivals are owed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    process: Process,
    /// In grid time.
    curve: Curve,
    timeline: Timeline,
}

impl Schedule {
    /// A schedule whose first arrival comes within one period of `start_ns`, where `phase` puts it.
    ///
    /// Phases count from `epoch_ns`, which all targets of a fleet share: two targets of one rate keep their distance
    /// whenever each of them started.
    pub fn new(rate: Rate, process: Process, phase: Phase, epoch_ns: u64, start_ns: u64) -> Self {
        let span = i128::from(process.span()) << Position::SHIFT;
        let phase_units = i128::from(phase.units()) * i128::from(process.span());
        let elapsed = Curve::constant(rate, epoch_ns, Position::ZERO).cumulative(start_ns.max(epoch_ns));
        let into_pattern = (elapsed.units() - phase_units).rem_euclid(span);
        let position = if into_pattern == 0 { 0 } else { into_pattern - span };
        let curve = Curve::constant(rate, start_ns, Position::from_units(position));
        Self { process, curve, timeline: Timeline::OWN }
    }

    /// A schedule whose arrivals are numbered from 1970 on: it is the same, number by number, in every process that has
    /// the same rate, process and phase, and `timeline` says when its grid time is here.
    pub fn on_grid(rate: Rate, process: Process, phase: Phase, timeline: Timeline) -> Self {
        let phase_units = i128::from(phase.units()) * i128::from(process.span());
        Self { process, curve: Curve::constant(rate, 0, Position::from_units(-phase_units)), timeline }
    }

    /// The same arrivals with the same numbers, at other instants.
    #[must_use]
    pub fn on_timeline(&self, timeline: Timeline) -> Self {
        Self { timeline, ..self.clone() }
    }

    /// When arrival `n` is due, in nanoseconds; `u64::MAX` for never.
    pub fn due(&self, n: u64) -> u64 {
        self.timeline.instant_of(self.curve.instant_of(self.process.operational_time(n)))
    }

    /// How many arrivals are due at or before `at_ns`.
    pub fn owed(&self, at_ns: u64) -> u64 {
        self.process.count_at(self.curve.cumulative(self.timeline.grid_of(at_ns)))
    }

    /// How many arrivals are due before an instant of grid time: the number of the first one that is not.
    pub fn owed_before(&self, grid_ns: u64) -> u64 {
        grid_ns.checked_sub(1).map_or(0, |before_ns| self.process.count_at(self.curve.cumulative(before_ns)))
    }

    /// The same schedule with another rate from `at_ns` on: no arrival is lost or doubled, and the fraction of a period
    /// that had passed counts towards the next one.
    #[must_use]
    pub fn with_rate_from(&self, at_ns: u64, rate: Rate) -> Self {
        Self { curve: self.curve.with_rate_from(self.timeline.grid_of(at_ns), rate), ..self.clone() }
    }

    /// The rate asked for at `at_ns`.
    pub fn rate_at(&self, at_ns: u64) -> Rate {
        self.curve.rate_at(self.timeline.grid_of(at_ns))
    }

    /// The arrival process.
    pub fn process(&self) -> Process {
        self.process
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Stripe;
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const YEAR_S: u64 = 365 * 86_400;
    const DAY: u64 = 86_400 * SECOND;

    fn schedule(rate: &str) -> Schedule {
        Schedule::new(rate.parse().expect("a rate"), Process::Even, Phase::default(), 0, 0)
    }

    #[test]
    fn fifty_a_second_is_one_every_twenty_milliseconds() {
        let schedule = schedule("50/s");
        assert_eq!([0, 1, 2, 50].map(|n| schedule.due(n)), [0, 20_000_000, 40_000_000, SECOND]);
    }

    #[test]
    fn a_rate_that_divides_nothing_is_exact_after_a_year() {
        let schedule = schedule("7777/s");
        assert_eq!(schedule.owed(YEAR_S * SECOND - 1), 7777 * YEAR_S);
        assert_eq!(schedule.due(7777 * YEAR_S), YEAR_S * SECOND);
    }

    #[test]
    fn bursts_come_together_and_keep_the_rate() {
        let rate = Rate::per_second(100);
        let schedule = Schedule::new(rate, Process::Burst { size: 50 }, Phase::default(), 0, 0);
        assert_eq!([0, 49, 50, 99, 100].map(|n| schedule.due(n)), [0, 0, SECOND / 2, SECOND / 2, SECOND]);
        assert_eq!(schedule.owed(10 * SECOND - 1), 1000);
    }

    #[test]
    fn a_rate_change_carries_the_fraction_of_a_period() {
        // Three quarters of the way to the next arrival at 1/s; the last quarter passes at 10/s.
        let schedule = schedule("1/s").with_rate_from(1_750_000_000, Rate::per_second(10));
        assert_eq!([1, 2, 3].map(|n| schedule.due(n)), [SECOND, 1_775_000_000, 1_875_000_000]);
    }

    #[test]
    fn equal_targets_are_spread_over_the_period_whenever_they_start() {
        for targets in [2_u32, 3, 10, 100, 1000] {
            let mut dues: Vec<u64> = (0..targets)
                .map(|k| {
                    let start_ns = 10 * SECOND + u64::from(k) * 17_000_003;
                    let schedule = Schedule::new(Rate::per_second(1), Process::Even, Phase::nth(k), 5, start_ns);
                    let n = schedule.owed(100 * SECOND);
                    schedule.due(n) - 100 * SECOND
                })
                .collect();
            dues.sort_unstable();
            let ideal = SECOND as f64 / f64::from(targets);
            let gaps = dues.windows(2).map(|pair| pair[1] - pair[0]).chain([dues[0] + SECOND - dues[dues.len() - 1]]);
            for gap in gaps {
                assert!((0.3..2.0).contains(&(gap as f64 / ideal)), "{targets} targets leave a gap of {gap} ns");
            }
        }
    }

    #[test]
    fn the_sum_of_many_targets_is_nearly_as_even_as_one() {
        let schedules: Vec<Schedule> =
            (0..10_000).map(|k| Schedule::new(Rate::per_second(1), Process::Even, Phase::nth(k), 0, 0)).collect();
        for millisecond in 1..=1000_u64 {
            let total: u64 = schedules.iter().map(|schedule| schedule.owed(millisecond * 1_000_000)).sum();
            assert!(total.abs_diff(millisecond * 10) <= 5, "{total} arrivals after {millisecond} ms");
        }
    }

    /// In the autumn of 2026.
    const NOW_S: u64 = 1_792_000_000;
    /// What the monotonic clocks of some replicas say then.
    const UPTIMES_S: [u64; 4] = [3, 86_400, 7_776_000, 1_000];

    /// The schedule of a replica that has been up for so long at [`NOW_S`].
    fn replica(rate: Rate, process: Process, phase: Phase, uptime_ns: u64) -> Schedule {
        let timeline = Timeline::ahead_by((NOW_S * SECOND - uptime_ns) as i64);
        Schedule::on_grid(rate, process, phase, timeline)
    }

    #[test]
    fn replicas_that_started_at_different_times_are_one_even_stream() {
        let mut union: Vec<u64> = Vec::new();
        for index in 0..3 {
            let uptime = UPTIMES_S[index as usize] * SECOND;
            let schedule = replica(Rate::per_second(300), Process::Even, Phase::of_name("a"), uptime);
            let stripe = Stripe::new(index, 3).expect("a stripe");
            let first = stripe.first_from(schedule.owed(uptime));
            union.extend((0..100).map(|n| schedule.due(first + n * 3) - uptime));
        }
        union.sort_unstable();
        let gaps: Vec<u64> = union.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.iter().all(|gap| (3_333_333..=3_333_334).contains(gap)), "{gaps:?}");
    }

    #[test]
    fn each_replica_sends_its_part_of_every_burst_at_its_instant() {
        let process = Process::Burst { size: 50 };
        let schedule = replica(Rate::per_second(100), process, Phase::default(), 0);
        let due = |index: u64| {
            let stripe = Stripe::new(index, 3).expect("a stripe");
            let first = stripe.first_from(schedule.owed_before(NOW_S * SECOND));
            (0..100).map(|n| schedule.due(first + n * 3)).take_while(|due| *due < SECOND).collect::<Vec<_>>()
        };
        let sizes = |index| [0, SECOND / 2].map(|at| due(index).iter().filter(|due| **due == at).count());
        assert_eq!([0, 1, 2].map(due).concat().len(), 100);
        assert_eq!([0, 1, 2].map(sizes), [[16, 17], [17, 17], [17, 16]]);
    }

    fn any_rate() -> impl Strategy<Value = Rate> {
        (1..=1_000_000_u64, prop_oneof![Just(1_u64), Just(7), Just(60), Just(3600), 1..86_400_u64])
            .prop_filter_map("in range", |(count, seconds)| {
                Rate::new(count, std::time::Duration::from_secs(seconds)).ok()
            })
    }

    fn any_process() -> impl Strategy<Value = Process> {
        prop_oneof![Just(Process::Even), (1..1000_u32).prop_map(|size| Process::Burst { size })]
    }

    prop_compose! {
        fn any_schedule()(
            rate in any_rate(), process in any_process(), index in 0..100_000_u32,
            epoch in 0..YEAR_S * SECOND, wait in 0..YEAR_S * SECOND,
        ) -> (Schedule, u64) {
            (Schedule::new(rate, process, Phase::nth(index), epoch, epoch + wait), epoch + wait)
        }
    }

    proptest! {
        #[test]
        fn the_stripes_of_replicas_are_the_unshared_stream(
            rate in any_rate(), process in any_process(), name in "[a-z0-9-]{1,20}", count in 1..20_u64,
            uptime in 1..YEAR_S * SECOND, wait in 0..YEAR_S * SECOND,
        ) {
            const ARRIVALS: u64 = 200;
            let phase = Phase::of_name(&name);
            let whole = replica(rate, process, phase, uptime);
            let first = whole.owed(uptime + wait);
            let expected: Vec<u64> = (first..first + ARRIVALS).map(|n| whole.due(n) - uptime).collect();
            let mut union = Vec::new();
            for index in 0..count {
                let uptime = uptime / (index + 1);
                let schedule = replica(rate, process, phase, uptime);
                let stripe = Stripe::new(index, count).expect("a stripe");
                let numbers = (0..).map(|n| stripe.first_from(first) + n * count);
                union.extend(numbers.take_while(|n| *n < first + ARRIVALS).map(|n| schedule.due(n) - uptime));
            }
            union.sort_unstable();
            prop_assert_eq!(union, expected);
        }

        #[test]
        fn on_a_grid_due_and_owed_are_inverses(
            rate in any_rate(), process in any_process(), index in 0..100_000_u32, way in -(SECOND as i64)..SECOND as i64,
            wait in 0..YEAR_S * SECOND,
        ) {
            let timeline = Timeline::ahead_by((NOW_S * SECOND) as i64);
            let straight = Schedule::on_grid(rate, process, Phase::nth(index), timeline);
            let led = straight.on_timeline(timeline.led_to((NOW_S * SECOND) as i64 + way, DAY));
            for (schedule, at) in [(&straight, wait), (&led, DAY + wait % (4 * DAY))] {
                let owed = schedule.owed(at);
                prop_assert!(schedule.due(owed) > at);
                let due = schedule.due(owed - 1);
                prop_assert!(due <= at && schedule.owed(due) == owed);
                prop_assert_eq!(schedule.owed_before(schedule.timeline.grid_of(at) + 1), owed);
            }
        }

        #[test]
        fn due_never_falls_and_never_lies_before_the_start((schedule, start) in any_schedule(), n in 0..1_u64 << 44) {
            prop_assert!(schedule.due(n) >= start);
            prop_assert!(schedule.due(n) <= schedule.due(n + 1));
        }

        #[test]
        fn due_and_owed_are_inverses((schedule, start) in any_schedule(), wait in 0..100 * YEAR_S * SECOND) {
            let at = start + wait;
            let owed = schedule.owed(at);
            prop_assert!(schedule.due(owed) > at);
            if let Some(last) = owed.checked_sub(1) {
                let due = schedule.due(last);
                prop_assert!(due <= at && schedule.owed(due) > last);
                prop_assert!(due == start || schedule.owed(due - 1) <= last);
            }
        }

        #[test]
        fn the_first_arrival_comes_within_one_pattern((schedule, start) in any_schedule()) {
            let span_ns = u128::from(schedule.rate_at(start).period_ns()) * u128::from(schedule.process().span())
                / u128::from(schedule.rate_at(start).count());
            prop_assert!(u128::from(schedule.due(0) - start) <= span_ns + 1);
        }

        #[test]
        fn the_count_is_exact_after_a_year(rate in any_rate(), index in 0..1000_u32) {
            let schedule = Schedule::new(rate, Process::Even, Phase::nth(index), 0, 0);
            let exact = u128::from(YEAR_S) * u128::from(SECOND) * u128::from(rate.count()) / u128::from(rate.period_ns());
            prop_assert!(u128::from(schedule.owed(YEAR_S * SECOND)).abs_diff(exact) <= 1);
        }

        #[test]
        fn changes_of_rate_lose_and_double_nothing(
            (first, start) in any_schedule(),
            changes in prop::collection::vec((1..60 * SECOND, any_rate()), 1..10),
        ) {
            let mut schedule = first;
            let (mut at, mut began) = (start, vec![start]);
            for (wait, rate) in changes {
                at += wait;
                // Stretches that ended long ago are forgotten.
                let remembered = began[began.len().saturating_sub(Curve::KEPT_SEGMENTS)];
                began.push(at);
                let owed_before = (schedule.owed(at - 1), schedule.owed(at));
                let next = schedule.with_rate_from(at, rate);
                prop_assert_eq!((next.owed(at - 1), next.owed(at)), owed_before);
                // What was due before the change is due at the same instant after it.
                if let Some(last) = owed_before.0.checked_sub(1)
                    && (remembered == start || schedule.due(last) > remembered)
                {
                    prop_assert_eq!(next.due(last), schedule.due(last));
                }
                // The next arrival comes at the new rate, at once or within one pattern.
                let gap = u128::from(next.due(owed_before.1) - at);
                let span = u128::from(rate.period_ns()) * u128::from(next.process().span());
                prop_assert!(gap <= span / u128::from(rate.count()) + 1);
                schedule = next;
            }
        }
    }
}
