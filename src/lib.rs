//! hammerd

pub mod outcome;
pub mod pace;
pub mod stats;
