//! Where inside its period each of many equal targets starts.

use std::collections::{BTreeSet, HashMap};

use super::{Process, Rate};

/// A place inside the period, as a fraction of it in units of 2^-32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Phase(u32);

impl Phase {
    /// The `index`-th point of the golden-ratio Kronecker sequence: any first n points cut the period into gaps of at
    /// most three lengths, the longest at most 2.62 times the shortest (three-gap theorem), and stay so as n grows.
    pub const fn nth(index: u32) -> Self {
        /// The fractional part of the golden ratio, times 2^32.
        const GOLDEN: u32 = 0x9E37_79B9;
        Self(index.wrapping_mul(GOLDEN))
    }

    /// The fraction in units of 2^-32.
    pub(super) const fn units(self) -> u32 {
        self.0
    }
}

/// Hands out phases: each group of equal targets (same rate, same process) fills its own sequence.
///
/// A released place is given to the next target of the group, so that months of reloads leave no holes.
#[derive(Debug, Default)]
pub struct PhaseBook {
    groups: HashMap<(Rate, Process), Group>,
}

#[derive(Debug, Default)]
struct Group {
    used: u32,
    released: BTreeSet<u32>,
}

impl PhaseBook {
    /// The lowest free place in the group, and its phase.
    pub fn take(&mut self, rate: Rate, process: Process) -> (u32, Phase) {
        let group = self.groups.entry((rate, process)).or_default();
        let index = group.released.pop_first().unwrap_or_else(|| {
            group.used += 1;
            group.used - 1
        });
        (index, Phase::nth(index))
    }

    /// Gives back place `index` of the group.
    pub fn release(&mut self, rate: Rate, process: Process, index: u32) {
        let Some(group) = self.groups.get_mut(&(rate, process)) else { return };
        group.released.insert(index);
        if group.released.len() == group.used as usize {
            self.groups.remove(&(rate, process));
        }
    }
}
