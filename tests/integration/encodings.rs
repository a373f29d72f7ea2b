//! What Prometheus makes of a scrape in each of its encodings.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hammerd::export::{Exports, Format, Vitals};
use hammerd::roster::{Roster, TargetInfo};
use hammerd::stats::Shape;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use prost::Message as _;
use serde_json::Value;

use crate::support::certificates::Authority;
use crate::support::nginx::Nginx;
use crate::support::prometheus::{Element, Options, Prometheus};
use crate::support::{Daemon, Origin, PATIENCE, Reply, Scrape, installed, target, wait_for};

/// The headers of Prometheus 2.42, plain and with native histograms, and of Prometheus 3 likewise.
const ACCEPTED: [(&str, &str); 4] = [
    (
        "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
         text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
        "application/openmetrics-text; version=1.0.0; charset=utf-8",
    ),
    (
        "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,\
         application/openmetrics-text;version=1.0.0;q=0.8,application/openmetrics-text;version=0.0.1;q=0.75,\
         text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
        "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited",
    ),
    (
        "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
         application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
         text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
        "application/openmetrics-text; version=1.0.0; charset=utf-8",
    ),
    (
        "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.7,\
         application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
         application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
         text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
        "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited",
    ),
];

#[test]
fn a_scraper_gets_the_encoding_that_it_asks_for() {
    let origin = Origin::start(|_| Reply::ok(""));
    let daemon = Daemon::start(&target("a", &origin.url("/"), "1/h", ""));
    for (accept, content_type) in ACCEPTED {
        let answer = daemon.request("GET", "/metrics", &[("Accept", accept)]);
        assert_eq!(answer.header("content-type"), Some(content_type), "{accept}");
        assert_eq!(answer.header("vary"), Some("accept, accept-encoding"));
        let is_open = content_type.starts_with("application/openmetrics");
        assert_eq!(answer.body.ends_with(b"\n# EOF\n"), is_open, "{accept}");
    }
    for accept in ["image/png", "application/openmetrics-text;version=7", "nonsense;;;q=x"] {
        let answer = daemon.request("GET", "/metrics", &[("Accept", accept)]);
        assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"), "{accept}");
        Scrape::parse(answer.text()).expect("a valid scrape");
    }
}

/// What asks for protobuf.
const NATIVE: Options<'_> = Options { native_histograms: true, exemplars: false, rules: &[], twice: false };

const LATENCY: &str = "hammerd_request_latency_seconds";

/// How long the target takes for its n-th request: 100 to 390 ms, each as often as the others.
fn delay(n: u64) -> Duration {
    Duration::from_millis(100 + n * 7 % 30 * 10)
}

/// Done-when 1: both forms of the histogram say what the target itself knows, as closely as their buckets allow.
#[test]
fn prometheus_computes_the_same_quantiles_from_native_and_classic_histograms() {
    let served = AtomicU64::new(0);
    let origin = Origin::start(move |_| Reply::ok("").delayed(delay(served.fetch_add(1, Ordering::Relaxed))));
    let mut daemon = Daemon::start(&target("a", &origin.url("/"), "60/s", ""));
    let native = Prometheus::start_with("1s", &[daemon.address()], NATIVE);
    let classic = Prometheus::start("1s", &[daemon.address()]);
    let quantiles = [0.5, 0.9, 0.99];
    let enough = |elements: &[Element]| elements.first().is_some_and(|(_, count)| *count >= 300.0);
    native.query_until(&format!("histogram_count(sum({LATENCY}{{outcome='ok'}}))"), enough);
    classic.query_until(&format!("sum({LATENCY}_count{{outcome='ok'}})"), enough);
    let ask = |prometheus: &Prometheus, inner: &str| {
        quantiles.map(|q| match &prometheus.query(&format!("histogram_quantile({q}, {inner})"))[..] {
            [(_, value)] => *value,
            other => panic!("{inner}: {other:?}"),
        })
    };
    let from_native = ask(&native, &format!("sum({LATENCY}{{outcome='ok'}})"));
    let from_classic = ask(&classic, &format!("sum by (le) ({LATENCY}_bucket{{outcome='ok'}})"));
    let types = native.query(&format!("{LATENCY}_bucket"));
    assert_eq!(types, [], "Prometheus took the classic buckets");

    let (_, summary) = daemon.stop();
    let latest = summary["targets"]["a"]["latency"]["max"].as_f64().expect("a number");
    let mut delays: Vec<f64> = (0..30).map(|n| delay(n).as_secs_f64()).collect();
    delays.sort_unstable_by(f64::total_cmp);
    // What a busy machine added at worst, so that the witness's quantile is between these two.
    let added = (latest - delays[29]).max(0.0);
    for ((q, native), classic) in quantiles.into_iter().zip(from_native).zip(from_classic) {
        let (low, high) = (delays[(q * 29.0) as usize], delays[(q * 29.0) as usize + usize::from(q < 0.99)] + added);
        // At schema 3 a bucket is this wide; a quantile may lie anywhere in the bucket of the value.
        let width = (1.0_f64 / 8.0).exp2();
        assert!(
            (low / width..=high * width).contains(&native),
            "p{q}: {native} from native, {low} to {high} at the target"
        );
        let bounds = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
        let floor = bounds.iter().rev().find(|bound| **bound < low).copied().unwrap_or(0.0);
        let ceiling = bounds.iter().find(|bound| **bound >= high).copied().unwrap_or(f64::INFINITY);
        assert!((floor..=ceiling).contains(&classic), "p{q}: {classic} from classic, {low} to {high} at the target");
    }
}

/// Done-when 1: from a bucket to the request in the target's own log, whatever the encoding and the version of HTTP.
#[test]
fn exemplars_lead_to_requests_in_the_targets_log() {
    let nginx = Nginx::start();
    let config = [
        target("sampled", &nginx.url("/"), "20/s", "traceparent = \"sampled\""),
        target("unsampled", &nginx.h2c_url("/500"), "20/s", "http_version = \"2\"\ntraceparent = \"unsampled\""),
        target("plain", &nginx.url("/204"), "20/s", ""),
    ];
    let daemon = Daemon::start(&config.concat());
    for native_histograms in [true, false] {
        let options = Options { native_histograms, exemplars: true, rules: &[], twice: false };
        let prometheus = Prometheus::start_with("1s", &[daemon.address()], options);
        let known = |target: &str| prometheus.trace_ids(&format!("{{__name__=~'{LATENCY}.*',target='{target}'}}"));
        for (target, outcome, flags) in [("sampled", 200, "01"), ("unsampled", 500, "00")] {
            let ids = wait_for("two exemplars", PATIENCE, || {
                let ids = known(target);
                if ids.len() >= 2 { Ok(ids) } else { Err(format!("{ids:?}")) }
            });
            let log = nginx.log_entries();
            for id in ids {
                let found: Vec<_> = log.iter().filter(|entry| entry.traceparent.contains(&id)).collect();
                assert_eq!(
                    found.len(),
                    1,
                    "{id} is in the log {} times (native histograms: {native_histograms})",
                    found.len()
                );
                assert_eq!(found[0].status, outcome);
                assert!(found[0].traceparent.ends_with(flags), "{}", found[0].traceparent);
            }
        }
        assert_eq!(known("plain"), [""; 0]);
    }
    let log = nginx.log_entries();
    let ids: HashSet<_> = log.iter().filter(|entry| entry.status != 204).map(|entry| &entry.traceparent).collect();
    assert_eq!(ids.len(), log.iter().filter(|entry| entry.status != 204).count(), "a trace id twice, or none");
    assert!(log.iter().all(|entry| entry.status != 204 || entry.traceparent.is_empty()));
}

/// The reference parser of OpenMetrics reads what we write, names, label values and exemplars of any kind included.
#[test]
fn the_strict_parser_of_openmetrics_reads_the_same_numbers() {
    let origin = Origin::start(|_| Reply::ok(""));
    let rest = "traceparent = \"sampled\"\nlabels = { team = \"a\\\\b \\\"quoted\\\" \u{e9}\" }\n\
                buckets = [0.00001, 0.001, 1, 1000000]";
    let daemon = Daemon::start(
        &[target("a", &origin.url("/"), "50/s", rest), target("b", &origin.url("/"), "1/h", "")].concat(),
    );
    daemon.scrape_after("a", 20.0);
    let scraped = daemon.request("GET", "/metrics", &[("Accept", "application/openmetrics-text;version=1.0.0")]);
    let judge = "import sys, json\n\
                 from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse\n\
                 text = sys.stdin.buffer.read().decode()\n\
                 out = []\n\
                 for family in parse(text):\n\
                 \x20   for s in family.samples:\n\
                 \x20       out.append([family.type, s.name, s.labels, s.value, s.exemplar and s.exemplar.labels])\n\
                 print(json.dumps(out))";
    let samples = judged(judge, &scraped.body);
    let of = |name: &str, label: (&str, &str)| {
        let is = |sample: &&Value| sample[1] == name && sample[2][label.0] == label.1;
        samples.iter().filter(is).collect::<Vec<_>>()
    };
    let info = of("hammerd_target_info", ("target", "a"));
    assert_eq!(info[0][2]["team"], "a\\b \"quoted\" \u{e9}");
    assert_eq!(of("hammerd_requests_total", ("target", "a"))[0][0], "counter");
    let buckets = of("hammerd_request_latency_seconds_bucket", ("target", "a"));
    let ok: Vec<_> = buckets.iter().filter(|sample| sample[2]["outcome"] == "ok").collect();
    let bounds: Vec<_> = ok.iter().filter_map(|sample| sample[2]["le"].as_str()).collect();
    assert_eq!(bounds, ["1e-05", "0.001", "1.0", "1e+06", "+Inf"]);
    let count = of("hammerd_request_latency_seconds_count", ("target", "a"))[0][3].as_f64();
    assert_eq!(ok[4][3].as_f64(), count);
    assert!(count >= Some(20.0));
    let traced = ok.iter().filter(|sample| sample[4]["trace_id"].as_str().is_some_and(|id| id.len() == 32)).count();
    assert!((1..=4).contains(&traced), "{traced} exemplars");
}

/// What a program in Python, given this input, prints as JSON.
fn judged(program: &str, input: &[u8]) -> Vec<Value> {
    let mut python = Command::new(installed("python"));
    python.args(["-c", program]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = python.spawn().expect("the judge");
    child.stdin.take().expect("its input").write_all(input).expect("a reader");
    let output = child.wait_with_output().expect("its judgement");
    assert!(output.status.success(), "it refuses this:\n{}", String::from_utf8_lossy(input));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The ledger's equations as Prometheus sees them, whatever it asked for.
#[test]
fn every_encoding_tells_the_same_of_the_ledger() {
    let origin = Origin::start(|request| Reply::status(if request.path == "/bad" { 500 } else { 200 }));
    let config =
        [target("good", &origin.url("/"), "40/s", ""), target("bad", &origin.url("/bad"), "20/s", "")].concat();
    let daemon = Daemon::start(&config);
    let native = Prometheus::start_with("1s", &[daemon.address()], NATIVE);
    let classic = Prometheus::start("1s", &[daemon.address()]);
    for (prometheus, count) in [
        (&native, "histogram_count(sum without (outcome) (hammerd_request_latency_seconds))"),
        (&classic, "sum without (outcome) (hammerd_request_latency_seconds_count)"),
    ] {
        let some = |elements: &[Element]| elements.len() == 2 && elements.iter().all(|(_, value)| *value >= 20.0);
        prometheus.query_until("hammerd_requests_total", some);
        for (expression, equations) in [
            (format!("hammerd_requests_total - {count}"), 2),
            ("hammerd_requests_started_total - hammerd_requests_total - hammerd_requests_canceled_total - hammerd_in_flight_requests".to_owned(), 2),
            ("hammerd_requests_scheduled_total - hammerd_requests_started_total - sum without (reason) (hammerd_requests_dropped_total)".to_owned(), 2),
            ("hammerd_request_failures_total{reason='status',target='bad'} - ignoring(reason,code) hammerd_responses_total{code='500'}".to_owned(), 1),
        ] {
            let differences = prometheus.query(&expression);
            assert_eq!(differences.len(), equations, "{expression}: {differences:?}");
            assert!(differences.iter().all(|(_, difference)| *difference == 0.0), "{expression}: {differences:?}");
        }
    }
}

/// A rate of a series that comes and goes lacks its beginning, and an alert on one that is gone never fires.
#[test]
fn the_series_of_good_responses_stays_when_others_come_first() {
    let origin = Origin::start(|_| Reply::status(503));
    let daemon = Daemon::start(
        &[target("bad", &origin.url("/"), "50/s", ""), target("idle", &origin.url("/"), "1/h", "")].concat(),
    );
    let scrape = daemon.scrape_after("bad", 5.0);
    let good = |name| scrape.value("hammerd_responses_total", &[("target", name), ("code", "200")]);
    assert_eq!((good("bad"), good("idle")), (0.0, 0.0));
}

/// A query that nobody has ever asked is a guess.
#[test]
fn every_query_of_the_reference_has_an_answer() {
    let reference = include_str!("../../docs/metrics.md");
    let queries: Vec<&str> =
        reference.split("```promql\n").skip(1).map(|rest| rest.split("\n```").next().unwrap_or(rest)).collect();
    assert!(queries.len() > 30);
    let nginx = Nginx::builder().certificate(Authority::new("ours").server(&["127.0.0.1"])).start();
    let config = [
        target("plain", &nginx.url("/"), "20/s", ""),
        target("secured", &nginx.https1_url("/"), "20/s", "tls.insecure_skip_verify = true"),
    ];
    let daemon = Daemon::start(&config.concat());
    // Under two jobs, so that a query that matches by half of what tells series apart is refused.
    let twice = Options { twice: true, ..Options::default() };
    let prometheus = Prometheus::start_with("1s", &[daemon.address()], twice);
    let rates = |elements: &[Element]| elements.len() == 4 && elements.iter().all(|(_, rate)| *rate > 0.0);
    prometheus.query_until("rate(hammerd_requests_total[5m])", rates);
    for query in queries {
        let answer = prometheus.query(query);
        // What looks for trouble finds none here.
        let is_filter = [" > ", " < ", " == 0", " == 1"].iter().any(|comparison| query.contains(comparison));
        assert!(is_filter || !answer.is_empty(), "no answer to {query}");
        assert!(answer.iter().all(|(_, value)| !value.is_infinite()), "{query}: {answer:?}");
    }
}

/// Label values of any kind, from a seed that is always the same.
fn unusual_values(count: usize) -> Vec<String> {
    let mark = prop_oneof![
        Just('"'),
        Just('\\'),
        Just('\n'),
        Just('\r'),
        Just('n'),
        Just('{'),
        Just('}'),
        Just(','),
        Just('='),
        Just('#'),
        Just(' '),
        any::<char>()
    ];
    let value = prop::collection::vec(mark, 1..24).prop_map(String::from_iter);
    let mut runner = TestRunner::deterministic();
    (0..count).map(|_| value.new_tree(&mut runner).expect("a value").current()).collect()
}

/// As much of Prometheus' metrics.proto as labels need.
mod model {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct MetricFamily {
        #[prost(string, optional, tag = "1")]
        pub(super) name: Option<String>,
        #[prost(message, repeated, tag = "4")]
        pub(super) metric: Vec<Metric>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Metric {
        #[prost(message, repeated, tag = "1")]
        pub(super) label: Vec<LabelPair>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct LabelPair {
        #[prost(string, optional, tag = "1")]
        pub(super) name: Option<String>,
        #[prost(string, optional, tag = "2")]
        pub(super) value: Option<String>,
    }
}

/// The labels `odd` of `hammerd_target_info` in protobuf, by target.
fn odd_in_protobuf(mut bytes: &[u8]) -> BTreeMap<String, String> {
    let mut infos = BTreeMap::new();
    while !bytes.is_empty() {
        let family = model::MetricFamily::decode_length_delimited(&mut bytes).expect("a family");
        let is_info = family.name.as_deref() == Some("hammerd_target_info");
        for metric in family.metric.into_iter().filter(|_| is_info) {
            let mut labels: HashMap<_, _> = metric
                .label
                .into_iter()
                .map(|pair| (pair.name.expect("a name"), pair.value.expect("a value")))
                .collect();
            infos.insert(labels.remove("target").expect("a target"), labels.remove("odd").expect("its label"));
        }
    }
    infos
}

/// The same as one of the parsers of the Python client reads them from text.
fn odd_in_text(parser: &str, text: &[u8]) -> BTreeMap<String, String> {
    let judge = format!(
        "import sys, json\n\
         from prometheus_client.{parser} import text_string_to_metric_families as parse\n\
         text = sys.stdin.buffer.read().decode()\n\
         samples = [s.labels for family in parse(text) for s in family.samples if s.name == 'hammerd_target_info']\n\
         print(json.dumps([[labels['target'], labels['odd']] for labels in samples]))"
    );
    let text_of = |value: &Value| value.as_str().expect("a text").to_owned();
    judged(&judge, text).iter().map(|pair| (text_of(&pair[0]), text_of(&pair[1]))).collect()
}

/// Configuration lets no control character into a label; the encodings carry them nevertheless.
#[test]
fn label_values_of_any_kind_are_read_as_they_were_by_decoders_of_others() {
    let shape = Shape::new(3, &[1.0]);
    let roster = Roster::new(shape.clone(), Vec::new());
    let values: BTreeMap<String, String> =
        unusual_values(500).into_iter().enumerate().map(|(index, value)| (format!("t{index}"), value)).collect();
    assert!(["\n", "\"", "\\", "\\n"].iter().all(|mark| values.values().any(|value| value.contains(mark))));
    for (name, value) in &values {
        let info = TargetInfo {
            insecure: None,
            protocol: "http",
            authority: "shop.example:80".to_owned(),
            labels: [("odd".to_owned(), value.clone())].into(),
            rate_per_second: 1.0,
            max_in_flight: 1,
            shape: shape.clone(),
            since_ns: 0,
        };
        roster.describe(&name.as_str().into(), info);
    }
    let exports = Exports::new(Arc::new(roster), Arc::new(Vitals::new(Arc::new(|| 0), Arc::default())))
        .expect("a sound catalogue");
    let whole = |format| exports.whole(format).expect("sound families");
    assert_eq!(odd_in_protobuf(&whole(Format::Protobuf)), values);
    assert_eq!(odd_in_text("openmetrics.parser", &whole(Format::OpenMetrics)), values);
    assert_eq!(odd_in_text("parser", &whole(Format::Text)), values);
}
