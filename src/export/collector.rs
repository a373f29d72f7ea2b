//! The metrics of targets and workers, read from the roster at scrape time.

use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;

use super::catalogue::{self as c, Metric};
use super::families::{Family, describe, label};
use crate::outcome::{DropReason, Reason, Stage, Verdict};
use crate::roster::{Roster, RosterView, TargetView};
use crate::stats::{CloseReason, HistogramSnapshot, Shape, Snapshot};

const METRICS: &[Metric] = &[
    c::SCHEDULED,
    c::DROPPED,
    c::STARTED,
    c::FINISHED,
    c::CANCELED,
    c::RESPONSES,
    c::FAILURES,
    c::LATENCY,
    c::DURATION,
    c::PHASE,
    c::LAG,
    c::IN_FLIGHT,
    c::IN_FLIGHT_LIMIT,
    c::ASKED_RATE,
    c::TARGET_INFO,
    c::CONNECTIONS_OPEN,
    c::CONNECTIONS_OPENED,
    c::CONNECTIONS_CLOSED,
    c::SENT_BYTES,
    c::RECEIVED_BYTES,
    c::DNS_ADDRESSES,
    c::RETIRED,
    c::WORKERS,
];

/// Collects everything about targets and workers.
#[derive(Debug)]
pub struct FleetCollector {
    roster: Arc<Roster>,
    descs: Arc<[Desc]>,
}

impl FleetCollector {
    /// A collector that reads `roster`.
    pub fn new(roster: Arc<Roster>) -> prometheus::Result<Self> {
        Ok(Self { roster, descs: describe(METRICS)? })
    }
}

impl Collector for FleetCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let shape = self.roster.shape();
        let RosterView { targets, retired } = self.roster.read();
        let mut families = ledger_families(&targets);
        families.extend(histogram_families(&targets, shape));
        families.extend(gauge_families(&targets));
        families.extend(wire_families(&targets));

        let mut lag = HistogramSnapshot::default();
        for worker in self.roster.workers() {
            lag.merge(&worker.lag());
        }
        let mut lags = Family::new(c::LAG);
        lags.histogram(&[], shape, &lag);

        let mut stages = Family::new(c::RETIRED);
        for (stage, count) in [
            ("scheduled", retired.scheduled),
            ("dropped", retired.dropped),
            ("started", retired.started),
            ("finished", retired.finished),
            ("canceled", retired.canceled),
        ] {
            stages.value(&[stage], count as f64);
        }
        let mut workers = Family::new(c::WORKERS);
        workers.value(&[], self.roster.workers().len() as f64);
        families.extend([lags, stages, workers]);
        families.into_iter().map(Family::build).collect()
    }
}

/// One sample for each target.
fn per_target(metric: Metric, targets: &[TargetView], value: impl Fn(&TargetView) -> f64) -> Family {
    let mut family = Family::new(metric);
    for target in targets {
        family.value(&[&target.name], value(target));
    }
    family
}

/// One sample for each target and label value, those never met included.
fn per_label<const N: usize>(
    metric: Metric,
    targets: &[TargetView],
    labels: [&str; N],
    counts: impl Fn(&Snapshot) -> &[u64; N],
) -> Family {
    let mut family = Family::new(metric);
    for target in targets {
        for (label, &count) in labels.iter().zip(counts(&target.counts)) {
            family.value(&[&target.name, label], count as f64);
        }
    }
    family
}

fn ledger_families(targets: &[TargetView]) -> Vec<Family> {
    let mut responses = Family::new(c::RESPONSES);
    for target in targets {
        // A healthy target's series is there before its first response.
        if target.counts.responses.is_empty() {
            responses.value(&[&target.name, "200"], 0.0);
        }
        for &(status, count) in &target.counts.responses {
            let code = if status == Snapshot::OTHER_STATUS { "other".to_owned() } else { status.to_string() };
            responses.value(&[&target.name, &code], count as f64);
        }
    }
    vec![
        per_target(c::SCHEDULED, targets, |target| target.counts.scheduled as f64),
        per_target(c::STARTED, targets, |target| target.counts.started as f64),
        per_target(c::FINISHED, targets, |target| target.counts.finished as f64),
        per_target(c::CANCELED, targets, |target| target.counts.canceled as f64),
        per_label(c::DROPPED, targets, DropReason::ALL.map(DropReason::label), |counts| &counts.dropped),
        per_label(c::FAILURES, targets, Reason::ALL.map(Reason::label), |counts| &counts.failures),
        responses,
    ]
}

fn histogram_families(targets: &[TargetView], shape: &Shape) -> Vec<Family> {
    let (mut latency, mut duration) = (Family::new(c::LATENCY), Family::new(c::DURATION));
    let mut phase = Family::new(c::PHASE);
    for target in targets {
        for verdict in Verdict::ALL {
            let values = [&*target.name, verdict.label()];
            latency.histogram(&values, shape, &target.counts.latency[verdict.index()]);
            duration.histogram(&values, shape, &target.counts.duration[verdict.index()]);
        }
        for stage in Stage::ALL {
            phase.histogram(&[&target.name, stage.label()], shape, &target.counts.stages[stage.index()]);
        }
    }
    vec![latency, duration, phase]
}

fn gauge_families(targets: &[TargetView]) -> Vec<Family> {
    let mut info = Family::new(c::TARGET_INFO);
    for target in targets {
        let mut labels = info.labels(&[&target.name, target.info.protocol, &target.info.authority]);
        labels.extend(target.info.labels.iter().map(|(name, value)| label(name, value)));
        info.labelled_value(labels, 1.0);
    }
    vec![
        per_target(c::IN_FLIGHT, targets, |target| target.counts.in_flight as f64),
        per_target(c::IN_FLIGHT_LIMIT, targets, |target| target.info.max_in_flight as f64),
        per_target(c::ASKED_RATE, targets, |target| target.info.rate_per_second),
        info,
    ]
}

fn wire_families(targets: &[TargetView]) -> Vec<Family> {
    vec![
        per_target(c::CONNECTIONS_OPEN, targets, |target| target.counts.wire.open as f64),
        per_target(c::CONNECTIONS_OPENED, targets, |target| target.counts.wire.opened as f64),
        per_label(c::CONNECTIONS_CLOSED, targets, CloseReason::ALL.map(CloseReason::label), |counts| {
            &counts.wire.closed
        }),
        per_target(c::SENT_BYTES, targets, |target| target.counts.wire.sent_bytes as f64),
        per_target(c::RECEIVED_BYTES, targets, |target| target.counts.wire.received_bytes as f64),
        per_target(c::DNS_ADDRESSES, targets, |target| target.counts.wire.dns_addresses as f64),
    ]
}
