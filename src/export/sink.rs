//! Where samples go: one description of what is exported, several forms.

use std::collections::BTreeMap;

use super::catalogue::Metric;
use crate::stats::{HistogramSnapshot, Shape};

/// Takes samples, family by family.
///
/// Label values come in the order of the catalogue's labels.
pub(super) trait Sink {
    /// The samples from here on belong to `metric`.
    fn family(&mut self, metric: Metric);
    /// The same, for a sink that must know beforehand how many bytes the samples will take: `bytes` finds out.
    fn sized_family(&mut self, metric: Metric, bytes: impl FnOnce() -> usize) {
        let _ = bytes;
        self.family(metric);
    }

    /// A counter or a gauge.
    fn value(&mut self, labels: &[&str], value: f64);

    /// A gauge that is 1, with labels of the operator's behind those of the catalogue.
    fn info(&mut self, labels: &[&str], more: &BTreeMap<String, String>);

    /// A histogram.
    fn histogram(&mut self, labels: &[&str], shape: &Shape, snapshot: &HistogramSnapshot);
}
