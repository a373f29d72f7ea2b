//! The n-th arrival, and how many are owed.

use super::{Curve, Phase, Position, Process, Rate};

/// The pure function that gives the n-th arrival of a target: an arrival process on a rate curve.
///
/// Arrivals are numbered from 0. [`due`](Self::due) and [`owed`](Self::owed) are inverses: arrival `n` is due at the
/// first nanosecond at which more than `n` arrivals are owed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    process: Process,
    curve: Curve,
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
        Self { process, curve: Curve::constant(rate, start_ns, Position::from_units(position)) }
    }

    /// When arrival `n` is due, in nanoseconds; `u64::MAX` for never.
    pub fn due(&self, n: u64) -> u64 {
        self.curve.instant_of(self.process.operational_time(n))
    }

    /// How many arrivals are due at or before `at_ns`.
    pub fn owed(&self, at_ns: u64) -> u64 {
        self.process.count_at(self.curve.cumulative(at_ns))
    }

    /// The same schedule with another rate from `at_ns` on: no arrival is lost or doubled, and the fraction of a period
    /// that had passed counts towards the next one.
    #[must_use]
    pub fn with_rate_from(&self, at_ns: u64, rate: Rate) -> Self {
        Self { process: self.process, curve: self.curve.with_rate_from(at_ns, rate) }
    }

    /// The rate asked for at `at_ns`.
    pub fn rate_at(&self, at_ns: u64) -> Rate {
        self.curve.rate_at(at_ns)
    }

    /// The arrival process.
    pub fn process(&self) -> Process {
        self.process
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const YEAR_S: u64 = 365 * 86_400;

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
