//! Taking turns with a worker on the same core.
//!
//! A scheduler lets whoever runs go on for some milliseconds, also when a thread wakes up that would need the core for
//! moments only: an arrival that comes due during a scrape is then sent late by as much. A lower priority does not help
//! against that (with Linux 6.18 lateness was ten times the usual even at niceness 19), and it starves the scrape beside
//! a worker that is busy. Giving the core up every few moments does.

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
        self.pause_at(Instant::now(), || {
            thread::yield_now();
            Instant::now()
        });
    }

    /// `let_others` returns when it is our turn again.
    fn pause_at(&self, now: Instant, let_others: impl FnOnce() -> Instant) {
        if now.duration_since(self.began.get()) < self.length.get() {
            return;
        }
        let next = let_others();
        self.length.set(TURN.max(next.duration_since(now) / SHARE));
        self.began.set(next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_short_and_as_long_as_a_part_of_the_wait_for_them() {
        let turns = Turns::new();
        let mut now = turns.began.get();
        // What is worked before each pause, what the others then take, and whether they are let.
        for (worked, others_take, are_let) in [
            (TURN / 2, Duration::ZERO, false),
            (TURN / 2, Duration::ZERO, true),
            (TURN / 2, Duration::ZERO, false),
            (TURN / 2, TURN, true),
            (TURN, 40 * TURN, true),
            (9 * TURN, Duration::ZERO, false),
            (TURN, Duration::ZERO, true),
            (TURN, Duration::ZERO, true),
        ] {
            now += worked;
            let mut let_others = false;
            turns.pause_at(now, || {
                let_others = true;
                now + others_take
            });
            assert_eq!(let_others, are_let, "{worked:?} {others_take:?}");
            now += if are_let { others_take } else { Duration::ZERO };
        }
    }
}
