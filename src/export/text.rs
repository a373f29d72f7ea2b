//! The Prometheus text format 0.0.4, written from gathered families.
//!
//! The crate's encoder formats every sample from scratch through a trait object; with the 1.8 million samples of 10,000
//! targets that took most of a scrape. Here the labels of a metric are written once and copied for its buckets, and bucket
//! bounds are formatted once for a family. For finite values the output is the same, byte for byte (a property test).
//!
//! Format: <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use std::fmt::{self, Write as _};

use prometheus::proto::{Metric, MetricFamily, MetricType};

/// What the formatted values take beside names and labels, roughly; for reserving memory only.
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
    let samples: usize = families.iter().map(samples).sum();
    let mut text = String::with_capacity(samples * BYTES_PER_SAMPLE);
    for family in families {
        encode_family(&mut text, family)?;
    }
    Ok(text)
}

fn samples(family: &MetricFamily) -> usize {
    let buckets = family.get_metric().first().map_or(0, |metric| metric.get_histogram().get_bucket().len());
    family.get_metric().len() * if buckets == 0 { 1 } else { buckets + 3 }
}

fn encode_family(text: &mut String, family: &MetricFamily) -> Result<(), TextError> {
    let name = family.name();
    let kind = family.get_field_type();
    if name.is_empty() {
        return Err(TextError::Nameless);
    }
    if kind == MetricType::UNTYPED {
        return Err(TextError::Untyped(name.to_owned()));
    }
    if !family.help().is_empty() {
        text.push_str("# HELP ");
        text.push_str(name);
        text.push(' ');
        escape(text, family.help(), false);
        text.push('\n');
    }
    text.push_str("# TYPE ");
    text.push_str(name);
    text.push_str(match kind {
        MetricType::COUNTER => " counter\n",
        MetricType::GAUGE => " gauge\n",
        MetricType::HISTOGRAM => " histogram\n",
        MetricType::SUMMARY => " summary\n",
        MetricType::UNTYPED => " untyped\n",
    });
    let mut lines = Lines { text, name, labels: String::new(), bounds: Vec::new() };
    for metric in family.get_metric() {
        lines.take_labels(metric);
        match kind {
            MetricType::COUNTER => lines.sample("", None, metric.get_counter().get_value(), metric),
            MetricType::GAUGE => lines.sample("", None, metric.get_gauge().get_value(), metric),
            MetricType::HISTOGRAM => lines.histogram(metric),
            MetricType::SUMMARY => lines.summary(metric),
            // Refused above.
            MetricType::UNTYPED => {}
        }
    }
    Ok(())
}

/// Writes the lines of one family.
struct Lines<'a> {
    text: &'a mut String,
    name: &'a str,
    /// The labels of the metric at hand, without braces.
    labels: String,
    /// Bucket bounds met so far, by position: bits, and the label as it is written.
    bounds: Vec<(u64, String)>,
}

impl Lines<'_> {
    fn take_labels(&mut self, metric: &Metric) {
        self.labels.clear();
        for pair in metric.get_label() {
            if !self.labels.is_empty() {
                self.labels.push(',');
            }
            self.labels.push_str(pair.name());
            self.labels.push_str("=\"");
            escape(&mut self.labels, pair.value(), true);
            self.labels.push('"');
        }
    }

    /// One line; `more` is one more label as it is written.
    fn sample(&mut self, suffix: &str, more: Option<&str>, value: f64, metric: &Metric) {
        self.text.push_str(self.name);
        self.text.push_str(suffix);
        if more.is_some() || !self.labels.is_empty() {
            self.text.push('{');
            self.text.push_str(&self.labels);
            if let Some(more) = more {
                if !self.labels.is_empty() {
                    self.text.push(',');
                }
                self.text.push_str(more);
            }
            self.text.push('}');
        }
        self.text.push(' ');
        number(self.text, value);
        if metric.timestamp_ms() != 0 {
            // Writing to a String can't fail.
            let _ = write!(self.text, " {}", metric.timestamp_ms());
        }
        self.text.push('\n');
    }

    fn histogram(&mut self, metric: &Metric) {
        let histogram = metric.get_histogram();
        let mut bounds = std::mem::take(&mut self.bounds);
        let mut infinite = false;
        for (at, bucket) in histogram.get_bucket().iter().enumerate() {
            let bits = bucket.upper_bound().to_bits();
            if bounds.get(at).is_none_or(|(seen, _)| *seen != bits) {
                bounds.truncate(at);
                bounds.push((bits, bound("le", bucket.upper_bound())));
            }
            infinite |= bucket.upper_bound() == f64::INFINITY;
            self.sample("_bucket", Some(&bounds[at].1), bucket.cumulative_count() as f64, metric);
        }
        self.bounds = bounds;
        if !infinite {
            self.sample("_bucket", Some("le=\"+Inf\""), histogram.get_sample_count() as f64, metric);
        }
        self.sample("_sum", None, histogram.get_sample_sum(), metric);
        self.sample("_count", None, histogram.get_sample_count() as f64, metric);
    }

    fn summary(&mut self, metric: &Metric) {
        let summary = metric.get_summary();
        for quantile in summary.get_quantile() {
            self.sample("", Some(&bound("quantile", quantile.quantile())), quantile.value(), metric);
        }
        self.sample("_sum", None, summary.sample_sum(), metric);
        self.sample("_count", None, summary.sample_count() as f64, metric);
    }
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
    use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair};
    use prometheus::{Registry, TextEncoder};
    use proptest::prelude::*;

    use super::*;

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
