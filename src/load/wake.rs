//! The one timer of a worker.

use std::cell::Cell;
use std::io;
use std::os::fd::OwnedFd;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// A timerfd that the worker's runtime waits for. Its slack is the kernel's (tens of microseconds), where a tokio sleep
/// would round to its millisecond slots.
#[derive(Debug)]
pub(super) struct Wake {
    timer: AsyncFd<OwnedFd>,
    armed_ns: Cell<u64>,
}

impl Wake {
    /// A timer that is not armed. Called inside the worker's runtime.
    pub(super) fn new() -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        let timer = crate::fd::readable(timer)?;
        Ok(Self { timer, armed_ns: Cell::new(u64::MAX) })
    }

    /// Fires at `at_ns` on the clock of [`crate::clock`], at once if that has passed; `u64::MAX` for never.
    pub(super) fn arm(&self, at_ns: u64) {
        if self.armed_ns.replace(at_ns) == at_ns {
            return;
        }
        // An all-zero time disarms.
        let at_ns = if at_ns == u64::MAX { 0 } else { at_ns.max(1) };
        let it_value = Timespec { tv_sec: (at_ns / 1_000_000_000) as i64, tv_nsec: (at_ns % 1_000_000_000) as i64 };
        let it_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
        let spec = Itimerspec { it_interval, it_value };
        // The descriptor is a timer and the time is in range: there is no error to handle.
        let armed = timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &spec);
        debug_assert!(armed.is_ok(), "{armed:?}");
    }

    /// Waits until the timer has fired. It need not be read: arming it again takes back the expiry, and epoll reports
    /// the next one as a new edge.
    pub(super) async fn fired(&self) {
        if let Ok(mut ready) = self.timer.readable().await {
            ready.clear_ready();
            self.armed_ns.set(u64::MAX);
        }
    }
}
