//! How arrivals lie in operational time, apart from how often they come.

use super::Position;

/// An arrival process at unit rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Process {
    /// One after the other, equally spaced.
    #[default]
    Even,
    /// `size` at once, then nothing until the next `size` are due.
    Burst {
        /// Arrivals that share one instant; 0 is taken as 1.
        size: u32,
    },
}

impl Process {
    /// The operational time of arrival `n`; never falls as `n` grows.
    pub fn operational_time(self, n: u64) -> Position {
        let span = self.span();
        Position::whole(n / span * span)
    }

    /// Arrivals whose operational time is at or before `position`.
    pub fn count_at(self, position: Position) -> u64 {
        if position < Position::ZERO {
            return 0;
        }
        let span = u128::from(self.span());
        let complete = position.floor().unsigned_abs() / span;
        u64::try_from((complete + 1).saturating_mul(span)).unwrap_or(u64::MAX)
    }

    /// The operational time after which the pattern repeats: a phase moves a target inside this much.
    pub fn span(self) -> u64 {
        match self {
            Self::Even => 1,
            Self::Burst { size } => u64::from(size.max(1)),
        }
    }
}
