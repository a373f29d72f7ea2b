//! hammerd

pub mod config;
pub mod pace;
