//! hammerd

pub mod export;
pub mod logs;
pub mod pace;
