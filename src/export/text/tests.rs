//! Both formats, against the crate's own encoder where it has one.

use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric};
use prometheus::{Registry, TextEncoder};
use proptest::prelude::*;

use super::{Dialect, EncodeError, Text, canonical, encode};
use crate::export::sink::Sink as _;
use crate::stats::{self, Exemplar, Shape};
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
    assert_eq!(encode(&[nameless]), Err(EncodeError::Nameless));
    let untyped = family("u", "", MetricType::UNTYPED, vec![gauge(&[], 1.0)]);
    assert_eq!(encode(&[untyped]), Err(EncodeError::Untyped("u".to_owned())));
}

#[test]
fn infinities_are_written_as_the_format_has_them() {
    let families = [family("g", "", MetricType::GAUGE, vec![gauge(&[], f64::INFINITY), gauge(&[], f64::NEG_INFINITY)])];
    assert_eq!(encode(&families).as_deref(), Ok("# TYPE g gauge\ng +Inf\ng -Inf\n"));
    assert_eq!(encode(&Registry::new().gather()).as_deref(), Ok(""));
}

/// Some families as OpenMetrics.
fn open(families: &[MetricFamily]) -> String {
    let mut text = Text::new(Dialect::OpenMetrics);
    text.append(families).expect("valid families");
    text.out
}

#[test]
fn openmetrics_differs_in_names_bounds_times_and_escapes() {
    let labels = [("a".to_owned(), "\"\\\n".to_owned())];
    let mut timed = counter(&labels, 2.0);
    timed.set_timestamp_ms(1_500_000_000_250);
    let families = [
        family("c_total", "\"what\"", MetricType::COUNTER, vec![timed]),
        family("bare", "", MetricType::COUNTER, vec![counter(&[], 1.5)]),
        family(
            "h_seconds",
            "",
            MetricType::HISTOGRAM,
            vec![histogram(&[], &[(0.5, 1), (1.0, 2), (f64::INFINITY, 2)], 1.0)],
        ),
    ];
    assert_eq!(
        open(&families),
        "# HELP c \\\"what\\\"\n# TYPE c counter\nc_total{a=\"\\\"\\\\\\n\"} 2 1500000000.25\n\
         # TYPE bare counter\nbare_total 1.5\n\
         # TYPE h_seconds histogram\nh_seconds_bucket{le=\"0.5\"} 1\nh_seconds_bucket{le=\"1.0\"} 2\n\
         h_seconds_bucket{le=\"+Inf\"} 2\nh_seconds_sum 1\nh_seconds_count 2\n"
    );
}

#[test]
fn an_exemplar_stands_behind_its_bucket() {
    let shape = Shape::new(3, &[0.001, 1.0]);
    let histogram = stats::Histogram::default();
    histogram.record_traced(&shape, Exemplar { trace_id: 0xabc, value_ns: 2_000_000, at_ms: 1_500_000_000_001 });
    histogram.record_traced(&shape, Exemplar { trace_id: u128::MAX, value_ns: 3_000_000_000, at_ms: 5000 });
    let written = |dialect| {
        let mut text = Text::new(dialect);
        text.family(crate::export::catalogue::LAG);
        text.histogram(&[], &shape, &histogram.snapshot(&shape));
        text.out.lines().filter(|line| line.contains("_bucket")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(
        written(Dialect::OpenMetrics),
        [
            "hammerd_schedule_lag_seconds_bucket{le=\"0.001\"} 0",
            "hammerd_schedule_lag_seconds_bucket{le=\"1.0\"} 1 # {trace_id=\"00000000000000000000000000000abc\"} 0.002 1500000000.001",
            "hammerd_schedule_lag_seconds_bucket{le=\"+Inf\"} 2 # {trace_id=\"ffffffffffffffffffffffffffffffff\"} 3 5",
        ]
    );
    assert!(written(Dialect::Prometheus).iter().all(|line| !line.contains('#')));
}

#[test]
fn bounds_are_written_in_one_way_only() {
    // As Go's strconv and C's %g write them, which is what other exporters do.
    for (bound, wanted) in [
        (0.0, "0.0"),
        (1.0, "1.0"),
        (10.0, "10.0"),
        (0.25, "0.25"),
        (0.000_25, "0.00025"),
        (0.000_1, "0.0001"),
        (0.000_05, "5e-05"),
        (0.000_012_5, "1.25e-05"),
        (999_999.5, "999999.5"),
        (1e6, "1e+06"),
        (1_234_567.0, "1.234567e+06"),
        (1e100, "1e+100"),
        (f64::INFINITY, "+Inf"),
    ] {
        let mut text = String::new();
        canonical(&mut text, bound);
        assert_eq!(text, wanted);
    }
}
