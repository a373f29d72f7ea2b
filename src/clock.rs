//! The one clock of the load path: nanoseconds of `CLOCK_MONOTONIC`. Beside it, the time of day for exemplars.
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
