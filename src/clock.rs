//! The one clock of the load path: nanoseconds of `CLOCK_MONOTONIC`. Beside it, the time of day for exemplars, and for the
//! grid that replicas share.
//!
//! The timerfd that wakes a worker counts on the same clock, so a due time is armed as it stands. Setting the wall clock
//! doesn't move it, and it goes on while the process is frozen: what was missed meanwhile is seen to be late.

use rustix::time::{ClockId, clock_gettime};

/// Now, in nanoseconds since some fixed point before the process started.
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// The time of day, in milliseconds since 1970. For what others compare with their own clocks; never for pacing.
pub fn unix_ms() -> u64 {
    let now = clock_gettime(ClockId::Realtime);
    now.tv_sec.max(0) as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
}

/// How the time of day and the monotonic clock stand to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WallReading {
    /// When both were read, on the monotonic clock.
    pub at_ns: u64,
    /// How far the time of day, in nanoseconds since 1970, is ahead of the monotonic clock.
    pub ahead_by_ns: i64,
    /// By how much that may be wrong: we may have been held up between the two.
    pub error_ns: u64,
}

impl WallReading {
    /// The best of some readings.
    pub fn take() -> Self {
        const READINGS: usize = 5;
        let readings = std::iter::repeat_with(|| {
            let before_ns = now_ns();
            let wall = clock_gettime(ClockId::Realtime);
            let after_ns = now_ns();
            let wall_ns = wall.tv_sec.saturating_mul(1_000_000_000).saturating_add(wall.tv_nsec);
            let at_ns = before_ns.midpoint(after_ns);
            Self { at_ns, ahead_by_ns: wall_ns.saturating_sub(at_ns as i64), error_ns: after_ns - before_ns }
        });
        let first = readings.take(READINGS).min_by_key(|reading| reading.error_ns);
        first.unwrap_or(Self { at_ns: now_ns(), ahead_by_ns: 0, error_ns: u64::MAX })
    }
}
