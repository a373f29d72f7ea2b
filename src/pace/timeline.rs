//! From the clock that wakes us to the one that all replicas share.

/// A map from the monotonic clock to grid time, on which the replicas of a stream agree: nanoseconds since 1970.
///
/// Grid time is the wall clock as it was read at one instant. When the two are found to differ later, grid time is led
/// to the wall clock: it passes by [`SLEW_PPM`](Self::SLEW_PPM) faster or slower for a while, and never jumps.
/// [`grid_of`](Self::grid_of) and [`instant_of`](Self::instant_of) are exact inverses: an instant is the first nanosecond
/// of the monotonic clock at which grid time has come that far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeline {
    /// Grid time is ahead of the monotonic clock by this up to `start_ns`.
    offset_ns: i64,
    /// Between these two, on the monotonic clock, grid time passes faster or slower.
    start_ns: u64,
    end_ns: u64,
    /// By how much, in millionths.
    slew_ppm: i64,
}

const MILLION: u128 = 1_000_000;

impl Timeline {
    /// How much faster or slower grid time passes while it is led to another offset, in millionths: what NTP allows a
    /// clock. At any rate that is below one arrival in 2000.
    pub const SLEW_PPM: i64 = 500;
    /// Grid time is the monotonic clock: for a stream that nobody shares.
    pub const OWN: Self = Self::ahead_by(0);

    /// Grid time is ahead of the monotonic clock by so much.
    pub const fn ahead_by(offset_ns: i64) -> Self {
        Self { offset_ns, start_ns: u64::MAX, end_ns: u64::MAX, slew_ppm: 0 }
    }

    /// Grid time at an instant of the monotonic clock.
    pub fn grid_of(&self, at_ns: u64) -> u64 {
        if at_ns <= self.start_ns {
            return at_ns.saturating_add_signed(self.offset_ns);
        }
        let slewed_ns = at_ns.min(self.end_ns) - self.start_ns;
        let straight_ns = at_ns.saturating_sub(self.end_ns);
        self.grid_of(self.start_ns).saturating_add(self.passed(slewed_ns)).saturating_add(straight_ns)
    }

    /// The first instant of the monotonic clock at which grid time is `grid_ns` or later; `u64::MAX` for never.
    pub fn instant_of(&self, grid_ns: u64) -> u64 {
        if grid_ns == u64::MAX {
            return u64::MAX;
        }
        let Some(left_ns) = grid_ns.checked_sub(self.grid_of(self.start_ns)) else {
            return grid_ns.saturating_add_signed(self.offset_ns.saturating_neg());
        };
        if let Some(straight_ns) = left_ns.checked_sub(self.passed(self.end_ns - self.start_ns)) {
            return self.end_ns.saturating_add(straight_ns);
        }
        let slewed_ns = (u128::from(left_ns) * MILLION).div_ceil(self.speed());
        self.start_ns.saturating_add(u64::try_from(slewed_ns).unwrap_or(u64::MAX))
    }

    /// How far grid time is ahead of the monotonic clock at an instant.
    pub fn offset_at(&self, at_ns: u64) -> i64 {
        self.grid_of(at_ns).wrapping_sub(at_ns) as i64
    }

    /// How far it will be ahead in the end.
    pub fn last_offset(&self) -> i64 {
        if self.end_ns == u64::MAX { self.offset_ns } else { self.offset_at(self.end_ns) }
    }

    /// The same up to `at_ns`; from there on it is led to an offset, and keeps that.
    #[must_use]
    pub fn led_to(&self, offset_ns: i64, at_ns: u64) -> Self {
        let from_ns = self.offset_at(at_ns);
        let way_ns = offset_ns.saturating_sub(from_ns);
        let takes_ns = way_ns.unsigned_abs().saturating_mul(MILLION as u64 / Self::SLEW_PPM.unsigned_abs());
        let end_ns = at_ns.saturating_add(takes_ns);
        Self { offset_ns: from_ns, start_ns: at_ns, end_ns, slew_ppm: Self::SLEW_PPM * way_ns.signum() }
    }

    /// How much grid time passes in so much of the slew.
    fn passed(&self, slewed_ns: u64) -> u64 {
        u64::try_from(u128::from(slewed_ns) * self.speed() / MILLION).unwrap_or(u64::MAX)
    }

    /// How much grid time passes in a million.
    fn speed(&self) -> u128 {
        MILLION.saturating_add_signed(i128::from(self.slew_ppm))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const DAY: u64 = 86_400 * SECOND;

    #[test]
    fn a_step_of_the_wall_clock_is_followed_at_a_two_thousandth() {
        let timeline = Timeline::ahead_by(7 * DAY as i64).led_to(7 * DAY as i64 + 50_000_000, 10 * SECOND);
        let ahead_by = |at_s: u64| timeline.offset_at(at_s * SECOND) - 7 * DAY as i64;
        assert_eq!([0, 10, 12, 60, 110, 1000].map(ahead_by), [0, 0, 1_000_000, 25_000_000, 50_000_000, 50_000_000]);
        assert_eq!(timeline.last_offset(), 7 * DAY as i64 + 50_000_000);
        let back = timeline.led_to(7 * DAY as i64, 60 * SECOND);
        assert_eq!(back.offset_at(60 * SECOND), timeline.offset_at(60 * SECOND));
        assert_eq!(back.offset_at(1000 * SECOND), 7 * DAY as i64);
    }

    fn any_timeline() -> impl Strategy<Value = Timeline> {
        let offset = -(DAY as i64)..2_000_000_000 * SECOND as i64;
        (offset, prop::collection::vec((-(SECOND as i64)..SECOND as i64, DAY..DAY + 5000 * SECOND), 0..3)).prop_map(
            |(offset, ways)| {
                let mut timeline = Timeline::ahead_by(offset);
                let mut at = 0;
                for (way, wait) in ways {
                    at += wait;
                    timeline = timeline.led_to(timeline.offset_at(at) + way, at);
                }
                timeline
            },
        )
    }

    proptest! {
        #[test]
        fn grid_times_and_instants_are_inverses(timeline in any_timeline(), at in DAY..5 * DAY) {
            let grid = timeline.grid_of(at);
            let first = timeline.instant_of(grid);
            prop_assert!(first <= at && timeline.grid_of(first) >= grid);
            prop_assert!(timeline.grid_of(first - 1) < grid);
        }

        #[test]
        fn grid_time_never_stands_nor_jumps(timeline in any_timeline(), at in DAY..5 * DAY, wait in 0..DAY) {
            let passed = timeline.grid_of(at + wait) - timeline.grid_of(at);
            prop_assert!(passed.abs_diff(wait) <= wait / 2000 + 2, "{passed} in {wait}");
        }

        #[test]
        fn it_ends_where_it_was_led(timeline in any_timeline(), way in -(SECOND as i64)..SECOND as i64) {
            let to = timeline.offset_at(4 * DAY) + way;
            let led = timeline.led_to(to, 4 * DAY);
            prop_assert_eq!(led.last_offset(), to);
            prop_assert_eq!(led.grid_of(4 * DAY), timeline.grid_of(4 * DAY));
        }
    }
}
