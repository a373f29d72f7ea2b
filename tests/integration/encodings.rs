//! What Prometheus makes of a scrape in each of its encodings.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::support::certificates::Authority;
use crate::support::nginx::Nginx;
use crate::support::prometheus::{Element, Prometheus};
use crate::support::{Daemon, Origin, Reply, Scrape, target};

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
    let native = Prometheus::start_with("native-histograms,exemplar-storage", "1s", &[daemon.address()]);
    let classic = Prometheus::start_with("exemplar-storage", "1s", &[daemon.address()]);
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

/// The ledger's equations as Prometheus sees them, whatever it asked for.
#[test]
fn every_encoding_tells_the_same_of_the_ledger() {
    let origin = Origin::start(|request| Reply::status(if request.path == "/bad" { 500 } else { 200 }));
    let config =
        [target("good", &origin.url("/"), "40/s", ""), target("bad", &origin.url("/bad"), "20/s", "")].concat();
    let daemon = Daemon::start(&config);
    let native = Prometheus::start_with("native-histograms", "1s", &[daemon.address()]);
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
    let prometheus = Prometheus::start("1s", &[daemon.address()]);
    let rates = |elements: &[Element]| elements.len() == 2 && elements.iter().all(|(_, rate)| *rate > 0.0);
    prometheus.query_until("rate(hammerd_requests_total[5m])", rates);
    for query in queries {
        let answer = prometheus.query(query);
        // What looks for trouble finds none here.
        let is_filter = [" > ", " < ", " == 0"].iter().any(|comparison| query.contains(comparison));
        assert!(is_filter || !answer.is_empty(), "no answer to {query}");
        assert!(answer.iter().all(|(_, value)| !value.is_infinite()), "{query}: {answer:?}");
    }
}
