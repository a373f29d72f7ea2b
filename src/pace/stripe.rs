//! Every so many-th arrival.

use std::num::NonZeroU64;

/// The arrivals k of a stream with k mod `count` = `index`.
///
/// All stripes of one count are the whole stream, each arrival once. A part of a stripe is a stripe again, so replicas and
/// the workers in them divide a stream in the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stripe {
    index: u64,
    count: NonZeroU64,
}

impl Stripe {
    /// The whole stream.
    pub const WHOLE: Self = Self { index: 0, count: NonZeroU64::MIN };

    /// Stripe `index` of `count`, if there is one of that index.
    pub const fn new(index: u64, count: u64) -> Option<Self> {
        match NonZeroU64::new(count) {
            Some(count) if index < count.get() => Some(Self { index, count }),
            _ => None,
        }
    }

    /// Which one it is.
    pub const fn index(self) -> u64 {
        self.index
    }

    /// How many there are of its kind; from one of its arrivals to the next the number rises by this.
    pub const fn count(self) -> u64 {
        self.count.get()
    }

    /// Stripe `part` of the `parts` that this one is divided into.
    #[must_use]
    pub const fn part(self, part: u64, parts: NonZeroU64) -> Self {
        Self { index: self.index + part * self.count.get(), count: self.count.saturating_mul(parts) }
    }

    /// The first of its arrivals that has number `n` or a higher one.
    pub const fn first_from(self, n: u64) -> u64 {
        let count = self.count.get();
        let past = n % count;
        let wait = if past <= self.index { self.index - past } else { count - past + self.index };
        n.saturating_add(wait)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_an_index_below_the_count_is_a_stripe() {
        assert!(Stripe::new(0, 0).is_none());
        assert!(Stripe::new(3, 3).is_none());
        assert_eq!(Stripe::new(0, 1), Some(Stripe::WHOLE));
    }

    proptest! {
        #[test]
        fn the_parts_of_the_stripes_are_the_whole_stream_and_none_has_an_arrival_twice(
            count in 1..40_u64, parts in 1..9_u64, from in 0..1_u64 << 50,
        ) {
            let parts = NonZeroU64::new(parts).expect("not 0");
            let mut sent: Vec<u64> = (0..count)
                .flat_map(|index| (0..parts.get()).map(move |part| (index, part)))
                .flat_map(|(index, part)| {
                    let stripe = Stripe::new(index, count).expect("below the count").part(part, parts);
                    let next = move |n: &u64| Some(stripe.first_from(*n + 1));
                    std::iter::successors(Some(stripe.first_from(from)), next).take_while(move |n| *n < from + 500)
                })
                .collect();
            sent.sort_unstable();
            prop_assert_eq!(sent, (from..from + 500).collect::<Vec<_>>());
        }
    }
}
