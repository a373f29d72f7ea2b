//! When requests are due. Pure: no clock, no I/O; time comes in as nanoseconds.

mod process;
mod rate;

pub use process::Process;
pub use rate::{Rate, RateError};
