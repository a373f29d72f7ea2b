//! What a decoder of somebody else's reads.

use std::sync::Arc;

use prometheus::core::Collector as _;
use prometheus::proto::{self, MetricType};
use proptest::prelude::*;
use prost::Message as _;

use crate::export::exposition::Exposition;
use crate::export::format::Format;
use crate::export::{FleetCollector, text};
use crate::outcome::{Outcome, Reason, Stage, Trace};
use crate::roster::{Roster, TargetInfo};
use crate::stats::{Exemplar, Histogram, HistogramSnapshot, LedgerWriter, Shape};

/// The messages as Prometheus' own metrics.proto declares them, for prost to decode.
mod model {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct MetricFamily {
        #[prost(string, optional, tag = "1")]
        pub(super) name: Option<String>,
        #[prost(string, optional, tag = "2")]
        pub(super) help: Option<String>,
        #[prost(int32, optional, tag = "3")]
        pub(super) kind: Option<i32>,
        #[prost(message, repeated, tag = "4")]
        pub(super) metric: Vec<Metric>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Metric {
        #[prost(message, repeated, tag = "1")]
        pub(super) label: Vec<LabelPair>,
        #[prost(message, optional, tag = "2")]
        pub(super) gauge: Option<Single>,
        #[prost(message, optional, tag = "3")]
        pub(super) counter: Option<Single>,
        #[prost(message, optional, tag = "4")]
        pub(super) summary: Option<Summary>,
        #[prost(int64, optional, tag = "6")]
        pub(super) timestamp_ms: Option<i64>,
        #[prost(message, optional, tag = "7")]
        pub(super) histogram: Option<Histogram>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct LabelPair {
        #[prost(string, optional, tag = "1")]
        pub(super) name: Option<String>,
        #[prost(string, optional, tag = "2")]
        pub(super) value: Option<String>,
    }

    /// A gauge or a counter.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Single {
        #[prost(double, optional, tag = "1")]
        pub(super) value: Option<f64>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Summary {
        #[prost(uint64, optional, tag = "1")]
        pub(super) sample_count: Option<u64>,
        #[prost(double, optional, tag = "2")]
        pub(super) sample_sum: Option<f64>,
        #[prost(message, repeated, tag = "3")]
        pub(super) quantile: Vec<Quantile>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Quantile {
        #[prost(double, optional, tag = "1")]
        pub(super) quantile: Option<f64>,
        #[prost(double, optional, tag = "2")]
        pub(super) value: Option<f64>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Histogram {
        #[prost(uint64, optional, tag = "1")]
        pub(super) sample_count: Option<u64>,
        #[prost(double, optional, tag = "2")]
        pub(super) sample_sum: Option<f64>,
        #[prost(message, repeated, tag = "3")]
        pub(super) bucket: Vec<Bucket>,
        #[prost(sint32, optional, tag = "5")]
        pub(super) schema: Option<i32>,
        #[prost(double, optional, tag = "6")]
        pub(super) zero_threshold: Option<f64>,
        #[prost(uint64, optional, tag = "7")]
        pub(super) zero_count: Option<u64>,
        #[prost(message, repeated, tag = "12")]
        pub(super) positive_span: Vec<Span>,
        #[prost(sint64, repeated, tag = "13")]
        pub(super) positive_delta: Vec<i64>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Bucket {
        #[prost(uint64, optional, tag = "1")]
        pub(super) cumulative_count: Option<u64>,
        #[prost(double, optional, tag = "2")]
        pub(super) upper_bound: Option<f64>,
        #[prost(message, optional, tag = "3")]
        pub(super) exemplar: Option<Exemplar>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Span {
        #[prost(sint32, optional, tag = "1")]
        pub(super) offset: Option<i32>,
        #[prost(uint32, optional, tag = "2")]
        pub(super) length: Option<u32>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Exemplar {
        #[prost(message, repeated, tag = "1")]
        pub(super) label: Vec<LabelPair>,
        #[prost(double, optional, tag = "2")]
        pub(super) value: Option<f64>,
        #[prost(message, optional, tag = "3")]
        pub(super) timestamp: Option<Timestamp>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Timestamp {
        #[prost(int64, tag = "1")]
        pub(super) seconds: i64,
        #[prost(int32, tag = "2")]
        pub(super) nanos: i32,
    }
}

/// Reads all that is there; panics at the first byte that does not belong there.
fn decode(mut bytes: &[u8]) -> Vec<model::MetricFamily> {
    let mut families = Vec::new();
    while !bytes.is_empty() {
        families.push(model::MetricFamily::decode_length_delimited(&mut bytes).expect("a family"));
    }
    families
}

fn encode(fleet: Option<&FleetCollector>, gathered: &[proto::MetricFamily]) -> Vec<model::MetricFamily> {
    let cut = fleet.map(|fleet| fleet.cut(Format::Protobuf, || ()));
    let mut exposition = Exposition::new(cut, Format::Protobuf, gathered).expect("sound families");
    let bytes: Vec<u8> = std::iter::from_fn(|| exposition.next_piece(|| ())).flatten().collect();
    decode(&bytes)
}

/// What was decoded, as the crate's families, so that both can be written as text and compared.
fn as_gathered(families: &[model::MetricFamily]) -> Vec<proto::MetricFamily> {
    let family = |family: &model::MetricFamily| {
        let mut gathered = proto::MetricFamily::default();
        gathered.set_name(family.name.clone().expect("a name"));
        gathered.set_help(family.help.clone().unwrap_or_default());
        let kind = match family.kind {
            Some(0) => MetricType::COUNTER,
            Some(1) => MetricType::GAUGE,
            Some(2) => MetricType::SUMMARY,
            Some(4) => MetricType::HISTOGRAM,
            other => panic!("type {other:?}"),
        };
        gathered.set_field_type(kind);
        gathered.set_metric(family.metric.iter().map(|metric| sample(metric, kind)).collect());
        gathered
    };
    families.iter().map(family).collect()
}

fn sample(metric: &model::Metric, kind: MetricType) -> proto::Metric {
    let label = |pair: &model::LabelPair| {
        let mut label = proto::LabelPair::default();
        label.set_name(pair.name.clone().expect("a name"));
        label.set_value(pair.value.clone().expect("a value"));
        label
    };
    let mut sample = proto::Metric::from_label(metric.label.iter().map(label).collect());
    sample.set_timestamp_ms(metric.timestamp_ms.unwrap_or_default());
    match kind {
        MetricType::COUNTER => {
            let mut counter = proto::Counter::default();
            counter.set_value(metric.counter.as_ref().expect("a counter").value.expect("a value"));
            sample.set_counter(counter);
        }
        MetricType::HISTOGRAM => sample.set_histogram(classic(metric.histogram.as_ref().expect("a histogram"))),
        MetricType::SUMMARY => sample.set_summary(summary(metric.summary.as_ref().expect("a summary"))),
        _ => {
            let mut gauge = proto::Gauge::default();
            gauge.set_value(metric.gauge.as_ref().expect("a gauge").value.expect("a value"));
            sample.set_gauge(gauge);
        }
    }
    sample
}

fn classic(histogram: &model::Histogram) -> proto::Histogram {
    let bucket = |bucket: &model::Bucket| {
        let mut classic = proto::Bucket::default();
        classic.set_upper_bound(bucket.upper_bound.expect("a bound"));
        classic.set_cumulative_count(bucket.cumulative_count.expect("a count"));
        classic
    };
    let mut classic = proto::Histogram::default();
    classic.set_bucket(histogram.bucket.iter().map(bucket).collect());
    classic.set_sample_count(histogram.sample_count.expect("a count"));
    classic.set_sample_sum(histogram.sample_sum.expect("a sum"));
    classic
}

fn summary(summary: &model::Summary) -> proto::Summary {
    let quantile = |quantile: &model::Quantile| {
        let mut decoded = proto::Quantile::default();
        decoded.set_quantile(quantile.quantile.expect("a quantile"));
        decoded.set_value(quantile.value.expect("a value"));
        decoded
    };
    let mut decoded = proto::Summary::default();
    decoded.set_sample_count(summary.sample_count.expect("a count"));
    decoded.set_sample_sum(summary.sample_sum.expect("a sum"));
    decoded.set_quantile(summary.quantile.iter().map(quantile).collect());
    decoded
}

/// The native buckets as a reader understands spans and deltas.
fn native(histogram: &model::Histogram) -> Vec<(i32, u64)> {
    let mut deltas = histogram.positive_delta.iter();
    let (mut index, mut count, mut buckets) = (0, 0, Vec::new());
    for span in &histogram.positive_span {
        index += span.offset.expect("an offset");
        for _ in 0..span.length.expect("a length") {
            count += deltas.next().expect("as many deltas as buckets");
            buckets.push((index, u64::try_from(count).expect("a count")));
            index += 1;
        }
    }
    assert_eq!(deltas.next(), None, "more deltas than buckets");
    buckets
}

const BOUNDS: [f64; 3] = [0.001, 0.01, 1.0];

/// Targets of these names, each with some requests that took so long.
fn fleet(targets: &[(String, Vec<u64>)]) -> (FleetCollector, Vec<LedgerWriter>) {
    let shape = Shape::new(3, &BOUNDS);
    let roster = Roster::new(shape.clone(), Vec::new());
    let join = |(name, took_ns): &(String, Vec<u64>)| {
        let name: Arc<str> = name.as_str().into();
        roster.describe(&name, TargetInfo { shape: shape.clone(), ..TargetInfo::plain() });
        let (writer, ledger) = LedgerWriter::new(shape.clone());
        roster.enlist(&name, ledger);
        for &took_ns in took_ns {
            let trace = Trace::new();
            trace.enter(Stage::Wait, 0);
            trace.complete(took_ns);
            writer.start();
            let outcome = if took_ns % 3 == 0 { Outcome::failed(Reason::Eof) } else { Outcome::good(200) };
            writer.finish(outcome, took_ns, took_ns, &trace);
        }
        writer
    };
    let writers = targets.iter().map(join).collect();
    (FleetCollector::new(Arc::new(roster)).expect("distinct metrics"), writers)
}

proptest! {
    #[test]
    fn what_is_read_is_what_a_registry_gathers(
        targets in prop::collection::btree_map("\\PC{1,200}", prop::collection::vec(0..3_000_000_000_u64, 0..30), 1..20),
    ) {
        let targets: Vec<_> = targets.into_iter().collect();
        let (fleet, _writers) = fleet(&targets);
        let decoded = as_gathered(&encode(Some(&fleet), &[]));
        prop_assert_eq!(text::encode(&decoded), text::encode(&fleet.collect()));
    }

    #[test]
    fn native_buckets_are_those_that_were_counted(
        schema in 0..=Shape::MAX_SCHEMA,
        values_ns in prop::collection::vec(prop_oneof![0..3000_u64, 0..100_000_000_u64, any::<u64>()], 0..100),
    ) {
        let shape = Shape::new(schema, &BOUNDS);
        let histogram = Histogram::default();
        for &value_ns in &values_ns {
            histogram.record(&shape, value_ns);
        }
        let snapshot = histogram.snapshot(&shape);
        let decoded = written(&shape, &snapshot);
        prop_assert_eq!(native(&decoded), snapshot.native);
        prop_assert_eq!(decoded.schema, Some(i32::from(schema)));
        prop_assert_eq!(decoded.zero_count, Some(snapshot.zero));
        prop_assert_eq!(decoded.zero_threshold, Some(shape.zero_threshold()));
        prop_assert_eq!(decoded.sample_count, Some(values_ns.len() as u64));
        prop_assert!(!decoded.positive_span.is_empty(), "a reader would take it for a classic histogram");
    }
}

/// A histogram, written and decoded.
fn written(shape: &Shape, snapshot: &HistogramSnapshot) -> model::Histogram {
    use crate::export::sink::Sink as _;
    let mut protobuf = super::Protobuf::new();
    protobuf.family(crate::export::catalogue::LAG);
    protobuf.histogram(&[], shape, snapshot);
    protobuf.close();
    let mut families = decode(&protobuf.out);
    families.remove(0).metric.remove(0).histogram.expect("a histogram")
}

#[test]
fn exemplars_stand_in_their_buckets() {
    let shape = Shape::new(3, &BOUNDS);
    let histogram = Histogram::default();
    histogram.record_traced(&shape, Exemplar { trace_id: 0xabc, value_ns: 2_000_000, at_ms: 1_500_000_000_001 });
    histogram.record_traced(&shape, Exemplar { trace_id: u128::MAX, value_ns: 3_000_000_000, at_ms: 5000 });
    let decoded = written(&shape, &histogram.snapshot(&shape));
    let known = |bucket: &model::Bucket| {
        let exemplar = bucket.exemplar.clone()?;
        let [model::LabelPair { name, value }] = &exemplar.label[..] else { panic!("one label") };
        assert_eq!(name.as_deref(), Some("trace_id"));
        let model::Timestamp { seconds, nanos } = exemplar.timestamp.expect("Prometheus drops others");
        Some((bucket.upper_bound?, value.clone()?, exemplar.value?, seconds, nanos))
    };
    let known: Vec<_> = decoded.bucket.iter().filter_map(known).collect();
    assert_eq!(
        known,
        [
            (0.01, format!("{:032x}", 0xabc), 0.002, 1_500_000_000, 1_000_000),
            (f64::INFINITY, "f".repeat(32), 3.0, 5, 0)
        ]
    );
    let counts: Vec<_> = decoded.bucket.iter().filter_map(|bucket| bucket.cumulative_count).collect();
    assert_eq!(counts, [0, 1, 1, 2]);
}

#[test]
fn what_others_gathered_is_written_too() {
    let mut summary = proto::Summary::default();
    summary.set_sample_count(3);
    summary.set_sample_sum(4.5);
    let mut quantile = proto::Quantile::default();
    quantile.set_quantile(0.5);
    quantile.set_value(1.25);
    summary.set_quantile(vec![quantile]);
    let mut sample = proto::Metric::from_label(Vec::new());
    sample.set_summary(summary);
    sample.set_timestamp_ms(-5);
    let mut family = proto::MetricFamily::default();
    family.set_name("s".to_owned());
    family.set_field_type(MetricType::SUMMARY);
    family.set_metric(vec![sample]);

    let registry = prometheus::Registry::new();
    let buckets = prometheus::HistogramOpts::new("h", "two\nlines").buckets(vec![0.5, 1.0]);
    let histogram = prometheus::HistogramVec::new(buckets, &["label"]).expect("a sound family");
    registry.register(Box::new(histogram.clone())).expect("one of its kind");
    histogram.with_label_values(&["\"é\n"]).observe(0.75);
    let mut gathered = registry.gather();
    gathered.push(family);
    assert_eq!(text::encode(&as_gathered(&encode(None, &gathered))), text::encode(&gathered));
}

#[test]
fn a_family_without_samples_is_no_family() {
    let (fleet, _writers) = fleet(&[("a".to_owned(), vec![])]);
    let names: Vec<_> = encode(Some(&fleet), &[]).into_iter().filter_map(|family| family.name).collect();
    assert!(names.iter().all(|name| !name.contains("certificate")), "{names:?}");
    assert!(names.iter().any(|name| name == "hammerd_workers"), "{names:?}");
}
