//! The counts as Prometheus metrics.
//!
//! Collectors of ours read the roster at scrape time, so that nothing of the `prometheus` crate runs while requests are
//! made. What there is to export of a target is described once (`samples`), copied at one moment (`cut`) and written to
//! a sink: metric families for a registry, or text in pieces ([`Exposition`]). Names, help texts and labels stand in
//! [`catalogue`] and nowhere else.

pub mod catalogue;
mod collector;
mod column;
mod cut;
mod exposition;
mod families;
mod format;
mod process;
mod protobuf;
mod samples;
mod sharing;
mod sink;
pub mod text;
mod vitals;

pub use collector::FleetCollector;
pub use exposition::Exposition;
pub use format::{EncodeError, Format};
pub use process::ProcessCollector;
pub use sharing::{Sharing, Standing};
pub use vitals::{Vitals, VitalsCollector};

use std::sync::Arc;

use prometheus::Registry;
use prometheus::core::Collector as _;
use prometheus::proto::MetricFamily;

use crate::roster::Roster;

/// All that a scrape shows.
#[derive(Clone)]
pub struct Exports {
    fleet: Option<Arc<FleetCollector>>,
    registry: Registry,
}

impl Exports {
    /// The fleet of `roster`, the daemon's own vitals, and the process.
    pub fn new(roster: Arc<Roster>, vitals: Arc<Vitals>) -> prometheus::Result<Self> {
        let registry = Registry::new();
        registry.register(Box::new(VitalsCollector::new(vitals)?))?;
        registry.register(Box::new(ProcessCollector::new()?))?;
        Ok(Self { fleet: Some(Arc::new(FleetCollector::new(roster)?)), registry })
    }

    /// What a registry has, and no fleet.
    pub fn of_registry(registry: Registry) -> Self {
        Self { fleet: None, registry }
    }

    /// Where more collectors may be registered; a scrape shows them beside the fleet.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Everything as metric families, as a registry with all collectors would gather them.
    pub fn gather(&self) -> Vec<MetricFamily> {
        let mut families = self.fleet.as_ref().map_or_else(Vec::new, |fleet| fleet.collect());
        families.extend(self.registry.gather());
        families
    }

    /// Everything in a format, without the detour by families for the fleet's many samples: the values of now, written
    /// in pieces later. Calls `pause` after every target, so that others may use the processor.
    pub fn exposition(&self, format: Format, pause: impl Fn()) -> Result<Exposition, EncodeError> {
        let gathered = self.registry.gather();
        Exposition::new(self.fleet.as_ref().map(|fleet| fleet.cut(format, pause)), format, &gathered)
    }

    /// The same in one piece.
    pub fn whole(&self, format: Format) -> Result<Vec<u8>, EncodeError> {
        let mut exposition = self.exposition(format, || ())?;
        Ok(std::iter::from_fn(|| exposition.next_piece(|| ())).flatten().collect())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::outcome::{DropReason, Outcome, Reason, Stage, Trace};
    use crate::roster::TargetInfo;
    use crate::stats::{LedgerWriter, Shape, WorkerStats};

    /// With those who write to the ledgers, and so are at work for as long as these are held.
    fn exports() -> (Exports, Vec<LedgerWriter>) {
        let shape = Shape::new(3, &[0.001, 0.01, 1.0]);
        let worker = Arc::new(WorkerStats::new(shape.clone()));
        worker.record_lag(70_000);
        let roster = Arc::new(Roster::new(shape.clone(), vec![worker]));
        let mut writers = Vec::new();
        for name in ["a", "b", "gone"] {
            let info = TargetInfo {
                insecure: Some(name == "b"),
                protocol: "http",
                authority: "[::1]:80".to_owned(),
                labels: BTreeMap::from([("team".to_owned(), "a\\b \"quoted\"\nnext".to_owned())]),
                rate_per_second: 0.5,
                max_in_flight: 7,
                shape: shape.clone(),
                since_ns: 0,
            };
            roster.describe(&name.into(), info);
            let (writer, ledger) = LedgerWriter::new(shape.clone());
            roster.enlist(name, ledger);
            if name == "b" {
                continue;
            }
            writer.ledger().wire.certificate_not_after.set(2_000_000_000);
            let trace = Trace::new();
            trace.enter(Stage::Wait, 0);
            trace.complete(3_000_000);
            for status in [200, 404, 999] {
                writer.start();
                writer.finish(Outcome::good(status), 4_000_000, 3_000_000, &trace);
            }
            writer.start();
            writer.finish(Outcome::failed(Reason::Eof), 2_000_000_000, 1, &trace);
            writer.drop_arrivals(DropReason::Late, 5);
            writers.push(writer);
        }
        roster.retire("gone");
        (
            Exports::new(roster, Arc::new(Vitals::new(Arc::new(|| 3), Arc::default()))).expect("distinct metrics"),
            writers,
        )
    }

    /// The lines that don't change between two scrapes.
    fn steady(text: &str) -> Vec<&str> {
        text.lines().filter(|line| !line.starts_with("process_")).collect()
    }

    #[test]
    fn the_text_is_that_of_the_gathered_families() {
        let (exports, _at_work) = exports();
        let direct = String::from_utf8(exports.whole(Format::Text).expect("text")).expect("text");
        let gathered = text::encode(&exports.gather()).expect("text");
        assert_eq!(steady(&direct), steady(&gathered));
        for line in [
            "hammerd_requests_scheduled_total{target=\"a\"} 9",
            "hammerd_responses_total{target=\"a\",code=\"other\"} 1",
            "hammerd_responses_total{target=\"b\",code=\"200\"} 0",
            "hammerd_request_latency_seconds_bucket{target=\"a\",outcome=\"ok\",le=\"0.01\"} 3",
            "hammerd_request_latency_seconds_bucket{target=\"a\",outcome=\"failed\",le=\"1\"} 0",
            "hammerd_request_latency_seconds_count{target=\"a\",outcome=\"failed\"} 1",
            "hammerd_request_phase_seconds_count{target=\"a\",phase=\"wait\"} 4",
            "hammerd_retired_requests_total{stage=\"finished\"} 4",
            "hammerd_target_info{target=\"a\",protocol=\"http\",authority=\"[::1]:80\",team=\"a\\\\b \\\"quoted\\\"\\nnext\"} 1",
            "hammerd_tls_peer_certificate_not_after_timestamp_seconds{target=\"a\"} 2000000000",
            "hammerd_tls_insecure_skip_verify{target=\"a\"} 0",
            "hammerd_tls_insecure_skip_verify{target=\"b\"} 1",
            "hammerd_log_lines_lost_total 3",
        ] {
            assert!(direct.lines().any(|written| written == line), "no {line} in\n{direct}");
        }
    }

    #[test]
    fn every_metric_of_the_catalogue_is_exported_once() {
        let (exports, _at_work) = exports();
        let families = exports.gather();
        for metric in catalogue::ALL {
            let of_name = families.iter().filter(|family| family.name() == metric.name).count();
            assert_eq!(of_name, 1, "{}", metric.name);
        }
    }
}
