//! Prometheus' protobuf messages, each family behind its length: classic and native histograms together, exemplars.
//!
//! The fleet's samples come straight from the ledgers' copies, as in the [text](super::text), and for the same reason;
//! the few messages and fields that it takes are written here. Their numbers are those of
//! <https://github.com/prometheus/client_model/blob/master/io/prometheus/client/metrics.proto>; how fields are written:
//! <https://protobuf.dev/programming-guides/encoding/>.

use std::collections::BTreeMap;

use prometheus::proto::{self, MetricFamily, MetricType};

use super::catalogue::Metric;
use super::format::{EncodeError, name_and_kind};
use super::sink::Sink;
use crate::stats::{Exemplar, HistogramSnapshot, Shape};

/// Messages that grow by samples, or by whole families.
pub(super) struct Protobuf {
    pub(super) out: Vec<u8>,
    /// The family that the samples belong to.
    kind: MetricType,
    label_names: &'static [&'static str],
    /// Where the family began whose length is not known yet.
    open: Option<Open>,
}

/// A family in the making.
struct Open {
    start: usize,
    head: usize,
}

impl Protobuf {
    pub(super) fn new() -> Self {
        Self { out: Vec::new(), kind: MetricType::GAUGE, label_names: &[], open: None }
    }

    /// For samples of one family, without the message around them.
    pub(super) fn samples_only(metric: Metric) -> Self {
        Self { kind: metric.kind, label_names: metric.labels, ..Self::new() }
    }

    /// Adds gathered families.
    pub(super) fn append(&mut self, families: &[MetricFamily]) -> Result<(), EncodeError> {
        for family in families {
            let (name, kind) = name_and_kind(family)?;
            self.begin(name, family.help(), kind);
            for sample in family.get_metric() {
                self.nested(FAMILY_METRIC, |message| message.gathered(sample, kind));
            }
        }
        self.close();
        Ok(())
    }

    fn gathered(&mut self, sample: &proto::Metric, kind: MetricType) {
        for pair in sample.get_label() {
            self.label(METRIC_LABEL, pair.name(), pair.value());
        }
        match kind {
            MetricType::COUNTER => self.single(kind, sample.get_counter().get_value()),
            MetricType::GAUGE => self.single(kind, sample.get_gauge().get_value()),
            MetricType::HISTOGRAM => self.nested(METRIC_HISTOGRAM, |message| {
                let histogram = sample.get_histogram();
                message.varint_field(1, histogram.get_sample_count());
                message.double(2, histogram.get_sample_sum());
                for bucket in histogram.get_bucket() {
                    message.bucket(bucket.upper_bound(), bucket.cumulative_count(), None);
                }
            }),
            MetricType::SUMMARY => self.nested(METRIC_SUMMARY, |message| {
                let summary = sample.get_summary();
                message.varint_field(1, summary.sample_count());
                message.double(2, summary.sample_sum());
                for quantile in summary.get_quantile() {
                    message.nested(3, |message| {
                        message.double(1, quantile.quantile());
                        message.double(2, quantile.value());
                    });
                }
            }),
            // Refused by the caller.
            MetricType::UNTYPED => {}
        }
        if sample.timestamp_ms() != 0 {
            self.varint_field(METRIC_TIMESTAMP, sample.timestamp_ms() as u64);
        }
    }

    /// Ends the family before and begins one whose length will be put in when it ends.
    fn begin(&mut self, name: &str, help: &str, kind: MetricType) {
        self.close();
        self.kind = kind;
        let start = self.out.len();
        self.head(name, help, kind);
        self.open = Some(Open { start, head: self.out.len() });
    }

    fn head(&mut self, name: &str, help: &str, kind: MetricType) {
        self.bytes(1, name.as_bytes());
        if !help.is_empty() {
            self.bytes(2, help.as_bytes());
        }
        self.varint_field(3, kind_number(kind));
    }

    /// Ends the family at hand: puts its length before it, or takes it back if it has no samples.
    pub(super) fn close(&mut self) {
        let Some(Open { start, head }) = self.open.take() else { return };
        if self.out.len() == head {
            self.out.truncate(start);
        } else {
            self.insert_length(start, start);
        }
    }

    /// A sample: its labels and what `fill` adds.
    fn sample<'a>(
        &mut self,
        values: &[&str],
        more: impl Iterator<Item = (&'a String, &'a String)>,
        fill: impl FnOnce(&mut Self),
    ) {
        let names = self.label_names;
        self.nested(FAMILY_METRIC, |message| {
            for (name, value) in names.iter().zip(values) {
                message.label(METRIC_LABEL, name, value);
            }
            for (name, value) in more {
                message.label(METRIC_LABEL, name, value);
            }
            fill(message);
        });
    }

    fn single(&mut self, kind: MetricType, value: f64) {
        let field = if kind == MetricType::COUNTER { METRIC_COUNTER } else { METRIC_GAUGE };
        self.nested(field, |message| message.double(1, value));
    }

    fn label(&mut self, field: u64, name: &str, value: &str) {
        self.nested(field, |message| {
            message.bytes(1, name.as_bytes());
            message.bytes(2, value.as_bytes());
        });
    }

    fn bucket(&mut self, upper_bound: f64, cumulative: u64, exemplar: Option<&Exemplar>) {
        self.nested(HISTOGRAM_BUCKET, |message| {
            message.varint_field(1, cumulative);
            message.double(2, upper_bound);
            if let Some(exemplar) = exemplar {
                message.nested(3, |message| message.exemplar(exemplar));
            }
        });
    }

    fn exemplar(&mut self, exemplar: &Exemplar) {
        self.label(1, "trace_id", &format!("{:032x}", exemplar.trace_id));
        self.double(2, exemplar.value_seconds());
        self.nested(3, |timestamp| {
            timestamp.varint_field(1, exemplar.at_ms / 1000);
            timestamp.varint_field(2, exemplar.at_ms % 1000 * 1_000_000);
        });
    }

    /// The native buckets: spans of neighbouring ones, and the difference of each count to the one before.
    fn native(&mut self, shape: &Shape, snapshot: &HistogramSnapshot) {
        self.varint_field(5, zigzag(i64::from(shape.schema())));
        self.double(6, shape.zero_threshold());
        self.varint_field(7, snapshot.zero);
        let spans = snapshot.native.chunk_by(|(left, _), (right, _)| left + 1 == *right);
        let mut behind = 0;
        for span in spans {
            let (first, length) = (span.first().map_or(0, |(index, _)| *index), span.len());
            self.nested(HISTOGRAM_SPAN, |message| {
                message.varint_field(1, zigzag(i64::from(first - behind)));
                message.varint_field(2, length as u64);
            });
            behind = first + length as i32;
        }
        if snapshot.native.is_empty() {
            // By this a reader knows that it is a native histogram: one without values yet.
            self.nested(HISTOGRAM_SPAN, |message| {
                message.varint_field(1, 0);
                message.varint_field(2, 0);
            });
            return;
        }
        self.nested(HISTOGRAM_DELTA, |message| {
            let mut before = 0;
            for &(_, count) in &snapshot.native {
                message.varint(zigzag(count as i64 - before));
                before = count as i64;
            }
        });
    }

    /// A message, or packed numbers, as a field: what `fill` writes, behind its length.
    fn nested(&mut self, field: u64, fill: impl FnOnce(&mut Self)) {
        self.varint(field << 3 | LENGTH_DELIMITED);
        let start = self.out.len();
        // Most are short: a byte for the length is there beforehand.
        self.out.push(0);
        fill(self);
        let length = self.out.len() - start - 1;
        if length < 0x80 {
            self.out[start] = length as u8;
        } else {
            self.insert_length(start, start + 1);
        }
    }

    /// Puts the length of what begins at `body` in place of what is between `start` and there.
    fn insert_length(&mut self, start: usize, body: usize) {
        let (mut length, mut bytes, mut used) = (self.out.len() - body, [0; 10], 0);
        while length >= 0x80 {
            bytes[used] = length as u8 | 0x80;
            length >>= 7;
            used += 1;
        }
        bytes[used] = length as u8;
        self.out.splice(start..body, bytes[..=used].iter().copied());
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.varint(field << 3 | LENGTH_DELIMITED);
        self.varint(bytes.len() as u64);
        self.out.extend_from_slice(bytes);
    }

    fn double(&mut self, field: u64, value: f64) {
        self.varint(field << 3 | FIXED_64);
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    fn varint_field(&mut self, field: u64, value: u64) {
        self.varint(field << 3 | VARINT);
        self.varint(value);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.out.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }
}

impl Sink for Protobuf {
    fn family(&mut self, metric: Metric) {
        self.label_names = metric.labels;
        self.begin(metric.name, metric.help, metric.kind);
    }

    fn sized_family(&mut self, metric: Metric, bytes: impl FnOnce() -> usize) {
        self.close();
        (self.kind, self.label_names) = (metric.kind, metric.labels);
        let bytes = bytes();
        if bytes > 0 {
            let start = self.out.len();
            self.head(metric.name, metric.help, metric.kind);
            let head = self.out.split_off(start);
            self.varint((head.len() + bytes) as u64);
            self.out.extend(head);
        }
    }

    fn value(&mut self, labels: &[&str], value: f64) {
        let kind = self.kind;
        self.sample(labels, std::iter::empty(), |message| message.single(kind, value));
    }

    fn info(&mut self, labels: &[&str], more: &BTreeMap<String, String>) {
        let kind = self.kind;
        self.sample(labels, more.iter(), |message| message.single(kind, 1.0));
    }

    fn histogram(&mut self, labels: &[&str], shape: &Shape, snapshot: &HistogramSnapshot) {
        self.sample(labels, std::iter::empty(), |message| {
            message.nested(METRIC_HISTOGRAM, |message| {
                message.varint_field(1, snapshot.count);
                message.double(2, snapshot.sum_seconds);
                let exemplar = |at| snapshot.exemplars.iter().find(|(bucket, _)| *bucket == at).map(|(_, found)| found);
                for (at, (bound, count)) in snapshot.cumulative(shape).enumerate() {
                    message.bucket(bound, count, exemplar(at));
                }
                // The last bucket is implied, but not what is known of it.
                if let Some(exemplar) = exemplar(shape.bounds().len()) {
                    message.bucket(f64::INFINITY, snapshot.count, Some(exemplar));
                }
                message.native(shape, snapshot);
            });
        });
    }
}

/// Types of fields on the wire.
const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const LENGTH_DELIMITED: u64 = 2;

/// Fields of a family, a metric and a histogram that hold messages.
const FAMILY_METRIC: u64 = 4;
const METRIC_LABEL: u64 = 1;
const METRIC_GAUGE: u64 = 2;
const METRIC_COUNTER: u64 = 3;
const METRIC_SUMMARY: u64 = 4;
const METRIC_TIMESTAMP: u64 = 6;
const METRIC_HISTOGRAM: u64 = 7;
const HISTOGRAM_BUCKET: u64 = 3;
const HISTOGRAM_SPAN: u64 = 12;
const HISTOGRAM_DELTA: u64 = 13;

fn kind_number(kind: MetricType) -> u64 {
    match kind {
        MetricType::COUNTER => 0,
        MetricType::GAUGE => 1,
        MetricType::SUMMARY => 2,
        MetricType::UNTYPED => 3,
        MetricType::HISTOGRAM => 4,
    }
}

/// A number that may be negative: 0, -1, 1, -2 and so on become 0, 1, 2, 3.
fn zigzag(number: i64) -> u64 {
    (number << 1 ^ number >> 63) as u64
}

#[cfg(test)]
mod tests;
