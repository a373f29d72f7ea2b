//! hammerd

pub mod pace;
