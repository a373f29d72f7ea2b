//! Samples as the `prometheus` crate's metric families.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use prometheus::core::Desc;
use prometheus::proto::{self, Bucket, Counter, Gauge, Histogram, LabelPair, MetricFamily, MetricType};

use super::catalogue::Metric;
use super::sink::Sink;
use crate::stats::{HistogramSnapshot, Shape};

/// Collects samples into families.
#[derive(Default)]
pub(super) struct Families {
    families: Vec<(Metric, Vec<proto::Metric>)>,
}

impl Families {
    /// The families, those without a sample left out.
    pub(super) fn build(self) -> Vec<MetricFamily> {
        let families = self.families.into_iter().filter(|(_, samples)| !samples.is_empty());
        let build = |(metric, samples): (Metric, _)| {
            let mut family = MetricFamily::default();
            family.set_name(metric.name.to_owned());
            family.set_help(metric.help.to_owned());
            family.set_field_type(metric.kind);
            family.set_metric(samples);
            family
        };
        families.map(build).collect()
    }

    fn push(&mut self, labels: Vec<LabelPair>, fill: impl FnOnce(&mut proto::Metric, MetricType)) {
        if let Some((metric, samples)) = self.families.last_mut() {
            let mut sample = proto::Metric::from_label(labels);
            fill(&mut sample, metric.kind);
            samples.push(sample);
        }
    }

    fn labels(&self, values: &[&str]) -> Vec<LabelPair> {
        let names = self.families.last().map_or(&[][..], |(metric, _)| metric.labels);
        debug_assert_eq!(values.len(), names.len());
        names.iter().zip(values).map(|(name, value)| label(name, value)).collect()
    }
}

impl Sink for Families {
    fn family(&mut self, metric: Metric) {
        self.families.push((metric, Vec::new()));
    }

    fn value(&mut self, labels: &[&str], value: f64) {
        self.push(self.labels(labels), |sample, kind| set_value(sample, kind, value));
    }

    fn info(&mut self, labels: &[&str], more: &BTreeMap<String, String>) {
        let mut labels = self.labels(labels);
        labels.extend(more.iter().map(|(name, value)| label(name, value)));
        self.push(labels, |sample, kind| set_value(sample, kind, 1.0));
    }

    fn histogram(&mut self, labels: &[&str], shape: &Shape, snapshot: &HistogramSnapshot) {
        let buckets = snapshot.cumulative(shape).map(|(bound, count)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(bound);
            bucket.set_cumulative_count(count);
            bucket
        });
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(snapshot.count);
        histogram.set_sample_sum(snapshot.sum_seconds);
        self.push(self.labels(labels), |sample, _| sample.set_histogram(histogram));
    }
}

/// Makes a sample a counter or a gauge.
pub(super) fn set_value(sample: &mut proto::Metric, kind: MetricType, value: f64) {
    if kind == MetricType::COUNTER {
        let mut counter = Counter::default();
        counter.set_value(value);
        sample.set_counter(counter);
    } else {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        sample.set_gauge(gauge);
    }
}

fn label(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}

/// What a registry wants to know of metrics before it sees them.
pub(super) fn describe(metrics: &[Metric]) -> prometheus::Result<Arc<[Desc]>> {
    let describe = |metric: &Metric| {
        let labels = metric.labels.iter().map(|&label| label.to_owned()).collect();
        Desc::new(metric.name.to_owned(), metric.help.to_owned(), labels, HashMap::new())
    };
    metrics.iter().map(describe).collect()
}
