//! hammerd

pub mod admin;
pub mod export;
pub mod logs;
pub mod pace;
