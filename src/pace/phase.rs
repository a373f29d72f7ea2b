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

    /// A phase that the name alone decides, so that all replicas of a target give it the same, in every version: the high
    /// bits of FNV-1a (64 bits) after the last mixing of `MurmurHash3`. As even among many names as chance is.
    pub fn of_name(name: &str) -> Self {
        const OFFSET_BASIS: u64 = 0xCBF2_9CE4_8422_2325;
        const PRIME: u64 = 0x0000_0100_0000_01B3;
        let hash = name.bytes().fold(OFFSET_BASIS, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME));
        let hash = (hash ^ (hash >> 33)).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
        let hash = (hash ^ (hash >> 33)).wrapping_mul(0xC4CE_B9FE_1A85_EC53);
        Self((hash >> 32) as u32)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Replicas of two versions share a stream while one replaces the other: these numbers never change.
    #[test]
    fn the_phase_of_a_name_is_the_same_for_ever() {
        assert_eq!(
            ["", "a", "checkout"].map(|name| Phase::of_name(name).units()),
            [0xEFD0_1F60, 0x82A2_A958, 0x5F26_3ED7]
        );
    }

    #[test]
    fn phases_of_names_fill_the_period() {
        let mut tenths = [0; 10];
        for n in 0..1000 {
            let phase = Phase::of_name(&format!("shop-{n}")).units();
            tenths[((u64::from(phase) * 10) >> 32) as usize] += 1;
        }
        assert!(tenths.iter().all(|count| (60..=140).contains(count)), "{tenths:?}");
    }
}
