//! The metrics of targets and workers, read from the roster at scrape time.

use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;

use super::catalogue as c;
use super::cut::FleetCut;
use super::families::{Families, describe};
use super::format::Format;
use super::samples::PER_TARGET;
use crate::roster::Roster;

/// Collects everything about targets and workers.
#[derive(Debug)]
pub struct FleetCollector {
    roster: Arc<Roster>,
    descs: Arc<[Desc]>,
}

impl FleetCollector {
    /// A collector that reads `roster`.
    pub fn new(roster: Arc<Roster>) -> prometheus::Result<Self> {
        let of_targets = PER_TARGET.iter().map(|(metric, _)| *metric);
        let metrics: Vec<_> = of_targets.chain([c::LAG, c::RETIRED, c::WORKERS]).collect();
        Ok(Self { roster, descs: describe(&metrics)? })
    }

    /// Everything there is to say now in a format, as one consistent cut for each target. Calls `pause` after every
    /// target.
    pub(super) fn cut(&self, format: Format, pause: impl Fn()) -> FleetCut {
        FleetCut::new(&self.roster, format, pause)
    }
}

impl Collector for FleetCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = Families::default();
        self.cut(Format::Text, || ()).write_on(&mut families, |_| false, || ());
        families.build()
    }
}
