//! How operational time passes: the cumulative count of a rate that changes in steps.

use super::{Position, Rate};

/// A rate over time, as the cumulative count of arrivals that it asks for.
///
/// Constant between steps. [`cumulative`](Self::cumulative) and [`instant_of`](Self::instant_of) are exact inverses:
/// an instant is the first nanosecond at which the cumulative count reaches the position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Curve {
    /// In the order of time; never empty.
    segments: Vec<Segment>,
}

/// A stretch of constant rate, up to the next segment's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Segment {
    start_ns: u64,
    position: Position,
    rate: Rate,
}

impl Segment {
    fn cumulative(&self, at_ns: u64) -> Position {
        let elapsed_ns = u128::from(at_ns.saturating_sub(self.start_ns));
        // At most 2^64 ns times 2^32 counts: fits until the shift, which saturates after 146 years.
        let scaled = (elapsed_ns * u128::from(self.rate.count())).saturating_mul(1 << Position::SHIFT);
        let units = scaled / u128::from(self.rate.period_ns());
        self.position + Position::from_units(i128::try_from(units).unwrap_or(i128::MAX))
    }

    fn instant_of(&self, position: Position) -> u64 {
        let units = (position - self.position).units();
        if units <= 0 {
            return self.start_ns;
        }
        let Some(scaled) = units.unsigned_abs().checked_mul(u128::from(self.rate.period_ns())) else {
            return u64::MAX;
        };
        let elapsed_ns = scaled.div_ceil(u128::from(self.rate.count()) << Position::SHIFT);
        u64::try_from(elapsed_ns).map_or(u64::MAX, |elapsed_ns| self.start_ns.saturating_add(elapsed_ns))
    }
}

impl Curve {
    /// A constant rate from `start_ns` on, where the cumulative count is `position`.
    pub fn constant(rate: Rate, start_ns: u64, position: Position) -> Self {
        Self { segments: vec![Segment { start_ns, position, rate }] }
    }

    /// The same curve up to `at_ns`, and `rate` from there on; the cumulative count goes on without a step.
    ///
    /// Changes that were planned for `at_ns` or later are replaced. Stretches that ended several changes ago are
    /// forgotten, so the curve stays small however often the rate changes.
    #[must_use]
    pub fn with_rate_from(&self, at_ns: u64, rate: Rate) -> Self {
        let mut segments: Vec<Segment> =
            self.segments.iter().copied().filter(|segment| segment.start_ns < at_ns).collect();
        let position = self.cumulative(at_ns);
        segments.drain(..segments.len().saturating_sub(Self::KEPT_SEGMENTS));
        segments.push(Segment { start_ns: at_ns, position, rate });
        Self { segments }
    }

    /// Stretches kept before the newest one: a worker may be behind by this many changes of rate.
    pub(super) const KEPT_SEGMENTS: usize = 4;

    /// The cumulative count at `at_ns`, rounded down to the grid; before the first instant, the count there.
    pub fn cumulative(&self, at_ns: u64) -> Position {
        self.segment_before(|segment| segment.start_ns <= at_ns).cumulative(at_ns)
    }

    /// The first nanosecond at which the cumulative count is `position` or more; `u64::MAX` for never.
    pub fn instant_of(&self, position: Position) -> u64 {
        self.segment_before(|segment| segment.position < position).instant_of(position)
    }

    /// The rate at `at_ns`.
    pub fn rate_at(&self, at_ns: u64) -> Rate {
        self.segment_before(|segment| segment.start_ns <= at_ns).rate
    }

    /// The last segment for which `holds`, or the first of all. Positions rise with time, so either order finds it.
    fn segment_before(&self, holds: impl Fn(&Segment) -> bool) -> &Segment {
        self.segments.iter().rev().find(|segment| holds(segment)).unwrap_or(&self.segments[0])
    }
}
