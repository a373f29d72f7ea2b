//! The metrics of targets and workers, read from the roster at scrape time.

use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;

use super::catalogue::{self as c, Metric};
use super::families::{Families, describe};
use super::sink::Sink;
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
    c::CERTIFICATE_NOT_AFTER,
    c::INSECURE,
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
        let mut families = Families::default();
        self.write(&mut families);
        families.build()
    }
}

impl FleetCollector {
    /// About how long the text of a scrape is, so that it need not be moved while it grows.
    pub(super) fn text_size_hint(&self) -> usize {
        /// Lines of one target, without histogram buckets.
        const LINES: usize = 70;
        /// Histogram series of one target.
        const HISTOGRAMS: usize = 8;
        const BYTES_PER_LINE: usize = 90;
        self.roster.len() * (LINES + HISTOGRAMS * self.roster.shape().bounds().len()) * BYTES_PER_LINE
    }

    /// Everything there is to say now, as one consistent cut for each target.
    pub(super) fn write(&self, sink: &mut impl Sink) {
        let shape = self.roster.shape();
        let RosterView { targets, retired } = self.roster.read();
        write_ledger(sink, &targets);
        write_histograms(sink, &targets, shape);
        write_gauges(sink, &targets);
        write_wire(sink, &targets);

        let mut lag = HistogramSnapshot::default();
        for worker in self.roster.workers() {
            lag.merge(&worker.lag());
        }
        sink.family(c::LAG);
        sink.histogram(&[], shape, &lag);

        sink.family(c::RETIRED);
        for (stage, count) in [
            ("scheduled", retired.scheduled),
            ("dropped", retired.dropped),
            ("started", retired.started),
            ("finished", retired.finished),
            ("canceled", retired.canceled),
        ] {
            sink.value(&[stage], count as f64);
        }
        sink.family(c::WORKERS);
        sink.value(&[], self.roster.workers().len() as f64);
    }
}

/// One sample for each target.
fn per_target(sink: &mut impl Sink, metric: Metric, targets: &[TargetView], value: impl Fn(&TargetView) -> f64) {
    sink.family(metric);
    for target in targets {
        sink.value(&[&target.name], value(target));
    }
}

/// One sample for each target and label value, those never met included.
fn per_label<const N: usize>(
    sink: &mut impl Sink,
    metric: Metric,
    targets: &[TargetView],
    labels: [&str; N],
    counts: impl Fn(&Snapshot) -> &[u64; N],
) {
    sink.family(metric);
    for target in targets {
        for (label, &count) in labels.iter().zip(counts(&target.counts)) {
            sink.value(&[&target.name, label], count as f64);
        }
    }
}

fn write_ledger(sink: &mut impl Sink, targets: &[TargetView]) {
    per_target(sink, c::SCHEDULED, targets, |target| target.counts.scheduled as f64);
    per_target(sink, c::STARTED, targets, |target| target.counts.started as f64);
    per_target(sink, c::FINISHED, targets, |target| target.counts.finished as f64);
    per_target(sink, c::CANCELED, targets, |target| target.counts.canceled as f64);
    per_label(sink, c::DROPPED, targets, DropReason::ALL.map(DropReason::label), |counts| &counts.dropped);
    per_label(sink, c::FAILURES, targets, Reason::ALL.map(Reason::label), |counts| &counts.failures);
    sink.family(c::RESPONSES);
    for target in targets {
        // A healthy target's series is there before its first response.
        if target.counts.responses.is_empty() {
            sink.value(&[&target.name, "200"], 0.0);
        }
        for &(status, count) in &target.counts.responses {
            let code = if status == Snapshot::OTHER_STATUS { "other".to_owned() } else { status.to_string() };
            sink.value(&[&target.name, &code], count as f64);
        }
    }
}

fn write_histograms(sink: &mut impl Sink, targets: &[TargetView], shape: &Shape) {
    sink.family(c::LATENCY);
    for target in targets {
        for verdict in Verdict::ALL {
            sink.histogram(&[&target.name, verdict.label()], shape, &target.counts.latency[verdict.index()]);
        }
    }
    sink.family(c::DURATION);
    for target in targets {
        for verdict in Verdict::ALL {
            sink.histogram(&[&target.name, verdict.label()], shape, &target.counts.duration[verdict.index()]);
        }
    }
    sink.family(c::PHASE);
    for target in targets {
        for stage in Stage::ALL {
            sink.histogram(&[&target.name, stage.label()], shape, &target.counts.stages[stage.index()]);
        }
    }
}

fn write_gauges(sink: &mut impl Sink, targets: &[TargetView]) {
    per_target(sink, c::IN_FLIGHT, targets, |target| target.counts.in_flight as f64);
    per_target(sink, c::IN_FLIGHT_LIMIT, targets, |target| target.info.max_in_flight as f64);
    per_target(sink, c::ASKED_RATE, targets, |target| target.info.rate_per_second);
    sink.family(c::TARGET_INFO);
    for target in targets {
        sink.info(&[&target.name, target.info.protocol, &target.info.authority], &target.info.labels);
    }
}

fn write_wire(sink: &mut impl Sink, targets: &[TargetView]) {
    per_target(sink, c::CONNECTIONS_OPEN, targets, |target| target.counts.wire.open as f64);
    per_target(sink, c::CONNECTIONS_OPENED, targets, |target| target.counts.wire.opened as f64);
    let reasons = CloseReason::ALL.map(CloseReason::label);
    per_label(sink, c::CONNECTIONS_CLOSED, targets, reasons, |counts| &counts.wire.closed);
    per_target(sink, c::SENT_BYTES, targets, |target| target.counts.wire.sent_bytes as f64);
    per_target(sink, c::RECEIVED_BYTES, targets, |target| target.counts.wire.received_bytes as f64);
    per_target(sink, c::DNS_ADDRESSES, targets, |target| target.counts.wire.dns_addresses as f64);
    sink.family(c::CERTIFICATE_NOT_AFTER);
    for target in targets.iter().filter(|target| target.counts.wire.certificate_not_after > 0) {
        sink.value(&[&target.name], target.counts.wire.certificate_not_after as f64);
    }
    sink.family(c::INSECURE);
    for (target, insecure) in targets.iter().filter_map(|target| Some((target, target.info.insecure?))) {
        sink.value(&[&target.name], f64::from(u8::from(insecure)));
    }
}
