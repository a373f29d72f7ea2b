//! The counts as Prometheus metrics.
//!
//! A [`prometheus::Registry`] is the registry; collectors of ours read the roster at scrape time, so that nothing of that
//! crate runs while requests are made. Names, help texts and labels stand in [`catalogue`] and nowhere else.

pub mod catalogue;
mod collector;
mod families;
mod process;
pub mod text;
mod vitals;

pub use collector::FleetCollector;
pub use process::ProcessCollector;
pub use vitals::{Vitals, VitalsCollector};

use std::sync::Arc;

use crate::roster::Roster;

/// A registry with everything that hammerd exports. A user of the library may register more.
pub fn registry(roster: Arc<Roster>, vitals: Arc<Vitals>) -> prometheus::Result<prometheus::Registry> {
    let registry = prometheus::Registry::new();
    registry.register(Box::new(FleetCollector::new(roster)?))?;
    registry.register(Box::new(VitalsCollector::new(vitals)?))?;
    registry.register(Box::new(ProcessCollector::new()?))?;
    Ok(registry)
}
