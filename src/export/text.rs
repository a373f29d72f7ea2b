//! The Prometheus text format 0.0.4.
//!
//! Our own samples come straight from the ledgers' copies; families that other collectors gathered are appended. Making
//! the crate's families out of the 1.8 million samples of 10,000 targets, and formatting each from scratch as its encoder
//! does, took most of a scrape: see the record in docs/decisions. Here the labels of a histogram are written once and
//! copied for its buckets, and a bucket's bound is formatted once. For finite values the output is that of the crate's
//! encoder, byte for byte (a property test).
//!
//! Format: <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use prometheus::proto::{self, MetricFamily, MetricType};

use super::catalogue::Metric;
use super::sink::Sink;
use crate::stats::{HistogramSnapshot, Shape};

/// What a sample takes beside its family's head, roughly; for reserving memory only.
const BYTES_PER_SAMPLE: usize = 100;

/// A family that the format can't hold. Ours never are; a collector of somebody else's may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextError {
    /// It has no name.
    Nameless,
    /// It is of a kind whose values the crate keeps to itself.
    Untyped(String),
}

impl fmt::Display for TextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nameless => f.write_str("a metric family has no name"),
            Self::Untyped(name) => write!(f, "metric family {name} is untyped"),
        }
    }
}

impl std::error::Error for TextError {}

/// The text of all families.
pub fn encode(families: &[MetricFamily]) -> Result<String, TextError> {
    let mut text = Text::default();
    text.append(families)?;
    Ok(text.out)
}

/// A text that grows by samples, or by whole families.
#[derive(Default)]
pub(super) struct Text {
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
    /// Adds gathered families.
    pub(super) fn append(&mut self, families: &[MetricFamily]) -> Result<(), TextError> {
        let samples: usize = families.iter().map(samples).sum();
        self.out.reserve(samples * BYTES_PER_SAMPLE);
        for family in families {
            let (name, kind) = (family.name(), family.get_field_type());
            if name.is_empty() {
                return Err(TextError::Nameless);
            }
            if kind == MetricType::UNTYPED {
                return Err(TextError::Untyped(name.to_owned()));
            }
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
                self.buckets(buckets, histogram.get_sample_count(), histogram.get_sample_sum(), at_ms);
            }
            MetricType::SUMMARY => {
                let summary = sample.get_summary();
                for quantile in summary.get_quantile() {
                    self.sample("", Some(&bound("quantile", quantile.quantile())), quantile.value(), at_ms);
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
        if !help.is_empty() {
            self.out.push_str("# HELP ");
            self.out.push_str(name);
            self.out.push(' ');
            escape(&mut self.out, help, false);
            self.out.push('\n');
        }
        self.out.push_str("# TYPE ");
        self.out.push_str(name);
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
            // Writing to a String can't fail.
            let _ = write!(self.out, " {at_ms}");
        }
        self.out.push('\n');
    }

    fn buckets(&mut self, buckets: impl Iterator<Item = (f64, u64)>, count: u64, sum: f64, at_ms: i64) {
        let mut bounds = std::mem::take(&mut self.bounds);
        let mut infinite = false;
        for (at, (upper_bound, cumulative)) in buckets.enumerate() {
            let bits = upper_bound.to_bits();
            if bounds.get(at).is_none_or(|(seen, _)| *seen != bits) {
                bounds.truncate(at);
                bounds.push((bits, bound("le", upper_bound)));
            }
            infinite |= upper_bound == f64::INFINITY;
            self.sample("_bucket", Some(&bounds[at].1), cumulative as f64, at_ms);
        }
        self.bounds = bounds;
        if !infinite {
            self.sample("_bucket", Some("le=\"+Inf\""), count as f64, at_ms);
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
        self.buckets(snapshot.cumulative(shape), snapshot.count, snapshot.sum_seconds, 0);
    }
}

fn samples(family: &MetricFamily) -> usize {
    let buckets = family.get_metric().first().map_or(0, |sample| sample.get_histogram().get_bucket().len());
    family.get_metric().len() * if buckets == 0 { 1 } else { buckets + 3 }
}

fn bound(label: &str, bound: f64) -> String {
    let mut text = format!("{label}=\"");
    number(&mut text, bound);
    text.push('"');
    text
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
mod tests {
    use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric};
    use prometheus::{Registry, TextEncoder};
    use proptest::prelude::*;

    use super::{TextError, encode};
    use prometheus::proto::{MetricFamily, MetricType};

    fn family(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        family.set_metric(metrics);
        family
    }

    fn labelled(labels: &[(String, String)]) -> Metric {
        let pair = |(name, value): &(String, String)| {
            let mut pair = LabelPair::default();
            pair.set_name(name.clone());
            pair.set_value(value.clone());
            pair
        };
        Metric::from_label(labels.iter().map(pair).collect())
    }

    fn counter(labels: &[(String, String)], value: f64) -> Metric {
        let (mut metric, mut counter) = (labelled(labels), Counter::default());
        counter.set_value(value);
        metric.set_counter(counter);
        metric
    }

    fn gauge(labels: &[(String, String)], value: f64) -> Metric {
        let (mut metric, mut gauge) = (labelled(labels), Gauge::default());
        gauge.set_value(value);
        metric.set_gauge(gauge);
        metric
    }

    fn histogram(labels: &[(String, String)], buckets: &[(f64, u64)], sum: f64) -> Metric {
        let (mut metric, mut histogram) = (labelled(labels), Histogram::default());
        let bucket = |&(bound, count): &(f64, u64)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(bound);
            bucket.set_cumulative_count(count);
            bucket
        };
        histogram.set_bucket(buckets.iter().map(bucket).collect());
        histogram.set_sample_count(buckets.last().map_or(0, |(_, count)| *count));
        histogram.set_sample_sum(sum);
        metric.set_histogram(histogram);
        metric
    }

    fn labels() -> impl Strategy<Value = Vec<(String, String)>> {
        prop::collection::vec(("[a-z_]{1,8}", "\\PC*|[\"\\\\\n a-z]*"), 0..4)
    }

    fn values() -> impl Strategy<Value = f64> {
        prop_oneof![0.0..1e18, (0..1_u64 << 60).prop_map(|count| count as f64), Just(-0.0), -1e6..1e6, Just(f64::NAN)]
    }

    proptest! {
        #[test]
        fn the_text_is_the_crates_own(
            help in "\\PC*|[\"\\\\\n a-z]*",
            singles in prop::collection::vec((labels(), values()), 1..5),
            bounds in prop::collection::vec(0.000_001..1e4, 0..5),
            histograms in prop::collection::vec((labels(), 0.0..1e9), 1..4),
        ) {
            let buckets: Vec<_> = bounds.into_iter().zip(1_u64..).collect();
            let families = [
                family("c_total", &help, MetricType::COUNTER,
                    singles.iter().map(|(labels, value)| counter(labels, *value)).collect()),
                family("g", "", MetricType::GAUGE,
                    singles.iter().map(|(labels, value)| gauge(labels, *value)).collect()),
                family("h_seconds", "h", MetricType::HISTOGRAM,
                    histograms.iter().map(|(labels, sum)| histogram(labels, &buckets, *sum)).collect()),
            ];
            let theirs = TextEncoder::new().encode_to_string(&families).expect("valid families");
            prop_assert_eq!(encode(&families), Ok(theirs));
        }
    }

    #[test]
    fn bounds_may_differ_from_metric_to_metric() {
        let metrics = vec![
            histogram(&[], &[(0.5, 1), (1.0, 2)], 1.0),
            histogram(&[], &[(0.5, 1), (2.0, 2), (4.0, 3)], 1.0),
            histogram(&[], &[(0.25, 1), (2.0, 2)], 1.0),
        ];
        let families = [family("h", "", MetricType::HISTOGRAM, metrics)];
        assert_eq!(encode(&families), Ok(TextEncoder::new().encode_to_string(&families).expect("valid families")));
    }

    #[test]
    fn what_the_format_cannot_hold_is_an_error() {
        let nameless = family("", "", MetricType::GAUGE, vec![gauge(&[], 1.0)]);
        assert_eq!(encode(&[nameless]), Err(TextError::Nameless));
        let untyped = family("u", "", MetricType::UNTYPED, vec![gauge(&[], 1.0)]);
        assert_eq!(encode(&[untyped]), Err(TextError::Untyped("u".to_owned())));
    }

    #[test]
    fn infinities_are_written_as_the_format_has_them() {
        let families =
            [family("g", "", MetricType::GAUGE, vec![gauge(&[], f64::INFINITY), gauge(&[], f64::NEG_INFINITY)])];
        assert_eq!(encode(&families).as_deref(), Ok("# TYPE g gauge\ng +Inf\ng -Inf\n"));
        assert_eq!(encode(&Registry::new().gather()).as_deref(), Ok(""));
    }
}
