//! Repeated lines become one line and a count.

/// Lets one line through per interval and counts the others. Pure: time comes in as nanoseconds.
///
/// One throttle belongs to one source of lines (a target, an accept loop), so that a noisy one never hides another.
#[derive(Debug, Clone)]
pub struct Throttle {
    interval_ns: u64,
    admitted_at_ns: Option<u64>,
    held_back: u64,
}

impl Throttle {
    /// A throttle that lets the first line through, and then at most one per `interval_ns`.
    pub const fn new(interval_ns: u64) -> Self {
        Self { interval_ns, admitted_at_ns: None, held_back: 0 }
    }

    /// Whether a line may be written at `now_ns`: then how many were held back since the last one, else `None`.
    ///
    /// A `now_ns` before the last admitted line (a caller without a monotonic clock) holds the line back.
    pub const fn admit(&mut self, now_ns: u64) -> Option<u64> {
        if let Some(admitted_at_ns) = self.admitted_at_ns
            && now_ns.saturating_sub(admitted_at_ns) < self.interval_ns
        {
            self.held_back = self.held_back.saturating_add(1);
            return None;
        }
        self.admitted_at_ns = Some(now_ns);
        let held_back = self.held_back;
        self.held_back = 0;
        Some(held_back)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_passes_at_once_even_at_time_zero() {
        assert_eq!(Throttle::new(10).admit(0), Some(0));
    }

    #[test]
    fn lines_inside_the_interval_are_counted_and_told_with_the_next_one() {
        let mut throttle = Throttle::new(10);
        let answers: Vec<_> = [5, 6, 14, 15, 16, 30, 40].into_iter().map(|now_ns| throttle.admit(now_ns)).collect();
        assert_eq!(answers, [Some(0), None, None, Some(2), None, Some(1), Some(0)]);
    }

    #[test]
    fn a_clock_that_goes_back_or_ends_breaks_nothing() {
        let mut throttle = Throttle::new(u64::MAX);
        assert_eq!(throttle.admit(100), Some(0));
        assert_eq!(throttle.admit(50), None);
        assert_eq!(throttle.admit(u64::MAX), None);
        let mut throttle = Throttle::new(1);
        assert_eq!(throttle.admit(u64::MAX), Some(0));
        assert_eq!(throttle.admit(u64::MAX), None);
    }

    #[test]
    fn a_zero_interval_throttles_nothing() {
        let mut throttle = Throttle::new(0);
        assert_eq!((throttle.admit(7), throttle.admit(7)), (Some(0), Some(0)));
    }
}
