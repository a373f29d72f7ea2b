//! What the daemon tells of its part of the streams.

use super::catalogue as c;
use super::families::Families;
use super::sink::Sink;
use crate::outcome::labels;
use crate::pace::Stripe;

labels! {
    /// How a process came to its part of the streams.
    Standing {
        /// Nobody shares them: it sends all.
        Whole => "whole",
        /// By an index and a count.
        Fixed => "fixed",
        /// By its place in the list of members.
        Listed => "listed",
        /// The list of members is without it: it sends nothing.
        Unlisted => "unlisted",
        /// It has not had a list of members yet: it sends nothing.
        Unknown => "unknown",
    }
}

/// A process's part of the streams, and how it stays in step with the others.
#[derive(Debug, Clone, Copy)]
pub struct Sharing {
    /// What it sends; `None`: nothing.
    pub stripe: Option<Stripe>,
    /// How many replicas there are; 0 when that is not known.
    pub count: u64,
    /// How it came to that.
    pub standing: Standing,
    /// Changes that took effect.
    pub changes: u64,
    /// Times that the list of members was read.
    pub lookups: u64,
    /// Times that it could not be.
    pub lookups_failed: u64,
    /// How far the wall clock is ahead of the grid.
    pub clock_offset_ns: i64,
}

impl Default for Sharing {
    /// Of a process that nobody shares anything with.
    fn default() -> Self {
        Self {
            stripe: Some(Stripe::WHOLE),
            count: 1,
            standing: Standing::Whole,
            changes: 0,
            lookups: 0,
            lookups_failed: 0,
            clock_offset_ns: 0,
        }
    }
}

/// The families that [`write`] writes.
pub(super) const METRICS: [c::Metric; 6] =
    [c::SHARD_INDEX, c::SHARD_COUNT, c::SHARD_STANDING, c::SHARD_CHANGES, c::SHARD_LOOKUPS, c::SHARD_CLOCK];

pub(super) fn write(sharing: &Sharing, families: &mut Families) {
    families.family(c::SHARD_INDEX);
    if let Some(stripe) = sharing.stripe {
        families.value(&[], stripe.index() as f64);
    }
    families.family(c::SHARD_COUNT);
    families.value(&[], sharing.count as f64);
    families.family(c::SHARD_STANDING);
    for standing in Standing::ALL {
        families.value(&[standing.label()], f64::from(u8::from(standing == sharing.standing)));
    }
    families.family(c::SHARD_CHANGES);
    families.value(&[], sharing.changes as f64);
    families.family(c::SHARD_LOOKUPS);
    families.value(&["success"], sharing.lookups as f64);
    families.value(&["failure"], sharing.lookups_failed as f64);
    families.family(c::SHARD_CLOCK);
    families.value(&[], sharing.clock_offset_ns as f64 / 1e9);
}
