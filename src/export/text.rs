//! The text formats: Prometheus 0.0.4 and OpenMetrics 1.0.0.
//!
//! Our own samples come straight from the ledgers' copies; families that other collectors gathered are appended. Making
//! the crate's families out of the 1.8 million samples of 10,000 targets, and formatting each from scratch as its encoder
//! does, took most of a scrape: see the record in docs/decisions. Here the labels of a histogram are written once and
//! copied for its buckets, and a bucket's bound is formatted once. For finite values the output is that of the crate's
//! encoder, byte for byte (a property test).
//!
//! Format: <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use prometheus::proto::{self, MetricFamily, MetricType};

use super::catalogue::Metric;
use super::format::{EncodeError, name_and_kind};
use super::sink::Sink;
use crate::stats::{Exemplar, HistogramSnapshot, Shape};

/// What every counter's name ends in.
const TOTAL: &str = "_total";
/// What a sample takes beside its family's head, roughly; for reserving memory only.
const BYTES_PER_SAMPLE: usize = 100;

/// The text of all families in the Prometheus format.
pub fn encode(families: &[MetricFamily]) -> Result<String, EncodeError> {
    let mut text = Text::new(Dialect::Prometheus);
    text.append(families)?;
    Ok(text.out)
}

/// Where the two formats differ, this says how to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Prometheus,
    OpenMetrics,
}

/// A text that grows by samples, or by whole families.
pub(super) struct Text {
    dialect: Dialect,
    pub(super) out: String,
    /// The family whose first sample has not come yet.
    announced: Option<Metric>,
    name: String,
    label_names: &'static [&'static str],
    /// The labels of the sample at hand, without braces.
    labels: String,
    /// Bucket bounds met so far, by position: bits, and the label as it is written.
    bounds: Vec<(u64, String)>,
}

impl Text {
    pub(super) fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            out: String::new(),
            announced: None,
            name: String::new(),
            label_names: &[],
            labels: String::new(),
            bounds: Vec::new(),
        }
    }

    /// What stands behind everything.
    pub(super) fn end(&self) -> &'static str {
        match self.dialect {
            Dialect::Prometheus => "",
            Dialect::OpenMetrics => "# EOF\n",
        }
    }

    /// Adds gathered families.
    pub(super) fn append(&mut self, families: &[MetricFamily]) -> Result<(), EncodeError> {
        let samples: usize = families.iter().map(samples).sum();
        self.out.reserve(samples * BYTES_PER_SAMPLE);
        for family in families {
            let (name, kind) = name_and_kind(family)?;
            self.head(name, family.help(), kind);
            for sample in family.get_metric() {
                self.gathered(sample, kind);
            }
        }
        Ok(())
    }

    fn gathered(&mut self, sample: &proto::Metric, kind: MetricType) {
        self.labels.clear();
        for pair in sample.get_label() {
            self.label(pair.name(), pair.value());
        }
        let at_ms = sample.timestamp_ms();
        match kind {
            MetricType::COUNTER => self.sample("", None, sample.get_counter().get_value(), at_ms),
            MetricType::GAUGE => self.sample("", None, sample.get_gauge().get_value(), at_ms),
            MetricType::HISTOGRAM => {
                let histogram = sample.get_histogram();
                let buckets = histogram.get_bucket().iter();
                let buckets = buckets.map(|bucket| (bucket.upper_bound(), bucket.cumulative_count()));
                self.buckets(buckets, histogram.get_sample_count(), histogram.get_sample_sum(), &[], at_ms);
            }
            MetricType::SUMMARY => {
                let summary = sample.get_summary();
                for quantile in summary.get_quantile() {
                    let label = self.dialect.bound("quantile", quantile.quantile());
                    self.sample("", Some(&label), quantile.value(), at_ms);
                }
                self.sample("_sum", None, summary.sample_sum(), at_ms);
                self.sample("_count", None, summary.sample_count() as f64, at_ms);
            }
            // Refused by the caller.
            MetricType::UNTYPED => {}
        }
    }

    fn head(&mut self, name: &str, help: &str, kind: MetricType) {
        self.name.clear();
        self.name.push_str(name);
        let mut family = name;
        let is_open = self.dialect == Dialect::OpenMetrics;
        if is_open && kind == MetricType::COUNTER {
            // The family goes without the ending that its samples must have.
            family = name.strip_suffix(TOTAL).unwrap_or(name);
            self.name.truncate(family.len());
            self.name.push_str(TOTAL);
        }
        if !help.is_empty() {
            self.out.push_str("# HELP ");
            self.out.push_str(family);
            self.out.push(' ');
            escape(&mut self.out, help, is_open);
            self.out.push('\n');
        }
        self.out.push_str("# TYPE ");
        self.out.push_str(family);
        self.out.push_str(match kind {
            MetricType::COUNTER => " counter\n",
            MetricType::GAUGE => " gauge\n",
            MetricType::HISTOGRAM => " histogram\n",
            MetricType::SUMMARY => " summary\n",
            MetricType::UNTYPED => " untyped\n",
        });
    }

    fn label(&mut self, name: &str, value: &str) {
        if !self.labels.is_empty() {
            self.labels.push(',');
        }
        self.labels.push_str(name);
        self.labels.push_str("=\"");
        escape(&mut self.labels, value, true);
        self.labels.push('"');
    }

    /// One line; `more` is one more label as it is written.
    fn sample(&mut self, suffix: &str, more: Option<&str>, value: f64, at_ms: i64) {
        self.unended(suffix, more, value, at_ms);
        self.out.push('\n');
    }

    /// The same without the end of the line.
    fn unended(&mut self, suffix: &str, more: Option<&str>, value: f64, at_ms: i64) {
        self.out.push_str(&self.name);
        self.out.push_str(suffix);
        if more.is_some() || !self.labels.is_empty() {
            self.out.push('{');
            self.out.push_str(&self.labels);
            if let Some(more) = more {
                if !self.labels.is_empty() {
                    self.out.push(',');
                }
                self.out.push_str(more);
            }
            self.out.push('}');
        }
        self.out.push(' ');
        number(&mut self.out, value);
        if at_ms != 0 {
            self.out.push(' ');
            self.dialect.timestamp(&mut self.out, at_ms);
        }
    }

    /// One line of a bucket, with its exemplar where the format has a place for one.
    fn bucket(&mut self, label: &str, count: u64, exemplar: Option<&Exemplar>, at_ms: i64) {
        self.unended("_bucket", Some(label), count as f64, at_ms);
        if let (Some(exemplar), Dialect::OpenMetrics) = (exemplar, self.dialect) {
            // Writing to a String can't fail.
            let _ = write!(self.out, " # {{trace_id=\"{:032x}\"}} {} ", exemplar.trace_id, exemplar.value_seconds());
            self.dialect.timestamp(&mut self.out, exemplar.at_ms as i64);
        }
        self.out.push('\n');
    }

    /// `exemplars` are those of some buckets, by position, rising.
    fn buckets(
        &mut self,
        buckets: impl Iterator<Item = (f64, u64)>,
        count: u64,
        sum: f64,
        exemplars: &[(usize, Exemplar)],
        at_ms: i64,
    ) {
        let mut bounds = std::mem::take(&mut self.bounds);
        let (mut infinite, mut finite) = (false, 0);
        let exemplar = |at| exemplars.iter().find(|(bucket, _)| *bucket == at).map(|(_, exemplar)| exemplar);
        for (at, (upper_bound, cumulative)) in buckets.enumerate() {
            let bits = upper_bound.to_bits();
            if bounds.get(at).is_none_or(|(seen, _)| *seen != bits) {
                bounds.truncate(at);
                bounds.push((bits, self.dialect.bound("le", upper_bound)));
            }
            infinite |= upper_bound == f64::INFINITY;
            finite = at + 1;
            self.bucket(&bounds[at].1, cumulative, exemplar(at), at_ms);
        }
        self.bounds = bounds;
        if !infinite {
            self.bucket("le=\"+Inf\"", count, exemplar(finite), at_ms);
        }
        self.sample("_sum", None, sum, at_ms);
        self.sample("_count", None, count as f64, at_ms);
    }

    /// Begins a sample: the head of its family if it is the first one, and its labels.
    fn begin(&mut self, values: &[&str]) {
        if let Some(metric) = self.announced.take() {
            self.head(metric.name, metric.help, metric.kind);
            self.label_names = metric.labels;
        }
        self.labels.clear();
        for (name, value) in self.label_names.iter().zip(values) {
            self.label(name, value);
        }
    }
}

impl Sink for Text {
    fn family(&mut self, metric: Metric) {
        self.announced = Some(metric);
    }

    fn value(&mut self, labels: &[&str], value: f64) {
        self.begin(labels);
        self.sample("", None, value, 0);
    }

    fn info(&mut self, labels: &[&str], more: &BTreeMap<String, String>) {
        self.begin(labels);
        for (name, value) in more {
            self.label(name, value);
        }
        self.sample("", None, 1.0, 0);
    }

    fn histogram(&mut self, labels: &[&str], shape: &Shape, snapshot: &HistogramSnapshot) {
        self.begin(labels);
        self.buckets(snapshot.cumulative(shape), snapshot.count, snapshot.sum_seconds, &snapshot.exemplars, 0);
    }
}

fn samples(family: &MetricFamily) -> usize {
    let buckets = family.get_metric().first().map_or(0, |sample| sample.get_histogram().get_bucket().len());
    family.get_metric().len() * if buckets == 0 { 1 } else { buckets + 3 }
}

impl Dialect {
    /// A bucket's bound, or a quantile, as a label.
    fn bound(self, label: &str, bound: f64) -> String {
        let mut text = format!("{label}=\"");
        match self {
            Self::Prometheus => number(&mut text, bound),
            Self::OpenMetrics => canonical(&mut text, bound),
        }
        text.push('"');
        text
    }

    fn timestamp(self, text: &mut String, at_ms: i64) {
        // Writing to a String can't fail.
        let _ = match self {
            Self::Prometheus => write!(text, "{at_ms}"),
            Self::OpenMetrics => write!(text, "{}", at_ms as f64 / 1e3),
        };
    }
}

/// A number as OpenMetrics wants it in labels, where `1`, `1.0` and `1e0` would be different series: never without a
/// point or an exponent, and the exponent as C's `%g` has it.
fn canonical(text: &mut String, value: f64) {
    let size = value.abs();
    if size == 0.0 || (1e-4..1e6).contains(&size) {
        // Writing to a String can't fail.
        let _ = write!(text, "{value:?}");
    } else if value.is_finite() {
        let scientific = format!("{value:e}");
        let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
        let exponent: i32 = exponent.parse().unwrap_or_default();
        let _ = write!(text, "{mantissa}e{exponent:+03}");
    } else {
        number(text, value);
    }
}

/// A value as the format has it. Counts, which most values are, take the short way.
fn number(text: &mut String, value: f64) {
    /// Below this, a whole number is an integer exactly.
    const EXACT: f64 = (1_u64 << 53) as f64;
    if value == f64::INFINITY {
        text.push_str("+Inf");
    } else if value == f64::NEG_INFINITY {
        text.push_str("-Inf");
    } else if (0.0..EXACT).contains(&value) && value.fract() == 0.0 && value.is_sign_positive() {
        text.push_str(itoa::Buffer::new().format(value as u64));
    } else {
        // Writing to a String can't fail.
        let _ = write!(text, "{value}");
    }
}

/// Appends `raw` with a backslash before backslashes, line ends and, in label values, quotes.
fn escape(text: &mut String, raw: &str, quotes: bool) {
    if !raw.bytes().any(|byte| matches!(byte, b'\\' | b'\n' | b'"')) {
        text.push_str(raw);
        return;
    }
    for character in raw.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '"' if quotes => text.push_str("\\\""),
            character => text.push(character),
        }
    }
}

#[cfg(test)]
mod tests;
