//! The cells: single writer, any reader.

use std::sync::atomic::{AtomicU64, Ordering, fence};

/// A number that one thread writes and any thread reads.
///
/// Adding is a plain load and store, not a locked instruction: two writers would lose counts. The types that own
/// counters see to it that there is one writer ([`LedgerWriter`](super::LedgerWriter) can't be cloned).
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `amount`; wraps around.
    pub fn add(&self, amount: u64) {
        self.0.store(self.get().wrapping_add(amount), Ordering::Relaxed);
    }

    /// Replaces the number.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Takes `amount` away; wraps around.
    pub fn subtract(&self, amount: u64) {
        self.0.store(self.get().wrapping_sub(amount), Ordering::Relaxed);
    }

    /// Raises the number to `value` if it is lower.
    pub fn raise_to(&self, value: u64) {
        if self.get() < value {
            self.0.store(value, Ordering::Relaxed);
        }
    }

    /// Adds to a number kept as the bits of an `f64`.
    pub fn add_f64(&self, amount: f64) {
        self.0.store((self.get_f64() + amount).to_bits(), Ordering::Relaxed);
    }

    /// The number.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// The number whose bits are kept.
    pub fn get_f64(&self) -> f64 {
        f64::from_bits(self.get())
    }
}

/// A sequence lock: groups of writes that a reader sees as a whole or not at all.
///
/// The writer never waits. A reader whose copy a write crossed copies again (Boehm, "Can seqlocks get along with
/// programming language memory models?", MSPC 2012; all cells are atomics, so a torn copy is merely discarded).
#[derive(Debug, Default)]
pub(super) struct Cut(AtomicU64);

impl Cut {
    /// Runs `change`, whose writes a reader sees together. One writer, never nested.
    pub(super) fn write<T>(&self, change: impl FnOnce() -> T) -> T {
        let sequence = self.0.load(Ordering::Relaxed);
        self.0.store(sequence.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        let result = change();
        self.0.store(sequence.wrapping_add(2), Ordering::Release);
        result
    }

    /// Runs `copy` until no write crossed it. A write takes well under a microsecond and they are rare beside that, so
    /// this ends at once; the thread yields when it does not.
    pub(super) fn read<T>(&self, mut copy: impl FnMut() -> T) -> T {
        loop {
            for _ in 0..64 {
                let before = self.0.load(Ordering::Acquire);
                if before.is_multiple_of(2) {
                    let result = copy();
                    fence(Ordering::Acquire);
                    if self.0.load(Ordering::Relaxed) == before {
                        return result;
                    }
                }
                std::hint::spin_loop();
            }
            std::thread::yield_now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_never_sees_half_a_group_of_writes() {
        let (cut, left, right) = (Cut::default(), Counter::default(), Counter::default());
        let mut copies = 0;
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for _ in 0..1_000_000 {
                    cut.write(|| {
                        left.add(1);
                        right.add(1);
                    });
                    std::hint::spin_loop();
                }
            });
            while !writer.is_finished() {
                let (left, right) = cut.read(|| (left.get(), right.get()));
                assert_eq!(left, right);
                copies += 1;
            }
        });
        assert!(copies > 0);
        assert_eq!(left.get(), 1_000_000);
    }
}
