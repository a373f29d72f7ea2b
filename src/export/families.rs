//! Builds metric families out of numbers.

use std::collections::HashMap;
use std::sync::Arc;

use prometheus::core::Desc;
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, MetricFamily, MetricType};

use super::catalogue::Metric;
use crate::stats::{HistogramSnapshot, Shape};

/// The samples of one metric, as they come in.
pub(super) struct Family {
    metric: Metric,
    samples: Vec<prometheus::proto::Metric>,
}

impl Family {
    pub(super) fn new(metric: Metric) -> Self {
        Self { metric, samples: Vec::new() }
    }

    /// Adds a counter or gauge. `values` are the label values in the order of the catalogue.
    pub(super) fn value(&mut self, values: &[&str], value: f64) {
        let labels = self.labels(values);
        self.labelled_value(labels, value);
    }

    /// Adds a counter or gauge with labels of its own.
    pub(super) fn labelled_value(&mut self, labels: Vec<LabelPair>, value: f64) {
        let mut sample = prometheus::proto::Metric::from_label(labels);
        if self.metric.kind == MetricType::COUNTER {
            let mut counter = Counter::default();
            counter.set_value(value);
            sample.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            sample.set_gauge(gauge);
        }
        self.samples.push(sample);
    }

    /// Adds a histogram with classic buckets.
    pub(super) fn histogram(&mut self, values: &[&str], shape: &Shape, snapshot: &HistogramSnapshot) {
        let mut cumulative = 0;
        let counts = snapshot.classic.iter().copied().chain(std::iter::repeat(0));
        let buckets = shape.bounds().iter().zip(counts).map(|(&bound, count)| {
            cumulative += count;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(bound);
            bucket.set_cumulative_count(cumulative);
            bucket
        });
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(snapshot.count);
        histogram.set_sample_sum(snapshot.sum_seconds);
        let mut sample = prometheus::proto::Metric::from_label(self.labels(values));
        sample.set_histogram(histogram);
        self.samples.push(sample);
    }

    pub(super) fn labels(&self, values: &[&str]) -> Vec<LabelPair> {
        debug_assert_eq!(values.len(), self.metric.labels.len(), "{}", self.metric.name);
        self.metric.labels.iter().zip(values).map(|(name, value)| label(name, value)).collect()
    }

    pub(super) fn build(self) -> MetricFamily {
        let mut family = MetricFamily::default();
        family.set_name(self.metric.name.to_owned());
        family.set_help(self.metric.help.to_owned());
        family.set_field_type(self.metric.kind);
        family.set_metric(self.samples);
        family
    }
}

/// One label.
pub(super) fn label(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}

/// What the registry wants to know of metrics before it sees them.
pub(super) fn describe(metrics: &[Metric]) -> prometheus::Result<Arc<[Desc]>> {
    let describe = |metric: &Metric| {
        let labels = metric.labels.iter().map(|&label| label.to_owned()).collect();
        Desc::new(metric.name.to_owned(), metric.help.to_owned(), labels, HashMap::new())
    };
    metrics.iter().map(describe).collect()
}
