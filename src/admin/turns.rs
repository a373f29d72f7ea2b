//! Taking turns with a worker on the same core.
//!
//! A scheduler lets whoever runs go on for some milliseconds, also when a thread wakes up that would wait for none of
//! them: an arrival that is due then is late by as much. A lower priority does not change that (measured: five times the
//! lateness at any niceness); giving the core up often does.

use std::cell::Cell;
use std::thread;
use std::time::{Duration, Instant};

/// How long the admin thread goes on before it lets others run. Letting go costs a microsecond when nobody wants to.
const TURN: Duration = Duration::from_micros(50);
/// When it had to wait long for its next turn, that may last this part of the wait: beside a worker that takes all of a
/// core a scrape takes a few times as long as alone, and not minutes.
const SHARE: u32 = 4;

/// The turns of the thread that it is used on.
#[derive(Debug)]
pub(super) struct Turns {
    began: Cell<Instant>,
    length: Cell<Duration>,
}

impl Turns {
    pub(super) fn new() -> Self {
        Self { began: Cell::new(Instant::now()), length: Cell::new(TURN) }
    }

    /// Lets others run if the turn has lasted long enough. To be called between small pieces of work.
    pub(super) fn pause(&self) {
        let stop = Instant::now();
        if stop.duration_since(self.began.get()) < self.length.get() {
            return;
        }
        thread::yield_now();
        let next = Instant::now();
        self.length.set(TURN.max(next.duration_since(stop) / SHARE));
        self.began.set(next);
    }
}
