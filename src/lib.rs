//! hammerd

pub mod admin;
pub mod cli;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod demo;
pub mod export;
pub mod fleet;
pub mod hammer;
pub mod load;
pub mod logs;
pub mod net;
pub mod outcome;
pub mod pace;
pub mod report;
pub mod roster;
pub mod signals;
pub mod stats;
