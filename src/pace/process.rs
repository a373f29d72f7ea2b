//! How arrivals lie in time, apart from how often they come.

/// An arrival process at unit rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Process {
    /// One after the other, equally spaced.
    #[default]
    Even,
    /// `size` at once, then nothing until the next `size` are due.
    Burst {
        /// Arrivals that share one instant; at least 1.
        size: u32,
    },
}
