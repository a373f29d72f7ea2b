//! hammerd

pub mod admin;
pub mod demo;
pub mod export;
pub mod logs;
pub mod pace;
