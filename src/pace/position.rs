//! Operational time in fixed point.

use std::ops::{Add, Sub};

/// A point in operational time: how many arrivals the curve has asked for, in units of 2^-32 arrival.
///
/// Whole arrivals lie exactly on the grid, so rounding a position down never moves it across an arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(i128);

impl Position {
    /// Fractional bits.
    pub(super) const SHIFT: u32 = 32;
    /// Where the first arrival of every process lies.
    pub const ZERO: Self = Self(0);

    /// The position of `arrivals` whole arrivals.
    pub const fn whole(arrivals: u64) -> Self {
        Self((arrivals as i128) << Self::SHIFT)
    }

    /// A position from its count of 2^-32 arrivals.
    pub(super) const fn from_units(units: i128) -> Self {
        Self(units)
    }

    /// The count of 2^-32 arrivals.
    pub(super) const fn units(self) -> i128 {
        self.0
    }

    /// Whole arrivals below or at this position, rounding towards minus infinity.
    pub(super) const fn floor(self) -> i128 {
        self.0 >> Self::SHIFT
    }
}

impl Add for Position {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sub for Position {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}
