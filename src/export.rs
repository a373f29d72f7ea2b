//! What Prometheus sees.

mod process;

pub use process::ProcessCollector;
