//! The HTTP face: what scrapers, probes and people get, and what those get who abuse it.

use std::io::{Read as _, Write as _};

use crate::support::nginx::Nginx;
use crate::support::prometheus::{Prometheus, promtool_complaints};
use crate::support::{Daemon, Origin, PATIENCE, Reply, Scrape, client, target, wait_until};

/// Every family, its type, and the labels of the series that a target has from the start.
const CATALOGUE: [(&str, &str, &[&str]); 35] = [
    ("hammerd_requests_scheduled_total", "counter", &["target"]),
    ("hammerd_requests_dropped_total", "counter", &["target", "reason"]),
    ("hammerd_requests_started_total", "counter", &["target"]),
    ("hammerd_requests_total", "counter", &["target"]),
    ("hammerd_requests_canceled_total", "counter", &["target"]),
    ("hammerd_responses_total", "counter", &["target", "code"]),
    ("hammerd_request_failures_total", "counter", &["target", "reason"]),
    ("hammerd_request_latency_seconds", "histogram", &["target", "outcome"]),
    ("hammerd_request_duration_seconds", "histogram", &["target", "outcome"]),
    ("hammerd_request_phase_seconds", "histogram", &["target", "phase"]),
    ("hammerd_schedule_lag_seconds", "histogram", &[]),
    ("hammerd_in_flight_requests", "gauge", &["target"]),
    ("hammerd_in_flight_requests_limit", "gauge", &["target"]),
    ("hammerd_target_requests_per_second", "gauge", &["target"]),
    ("hammerd_target_info", "gauge", &["target", "protocol", "authority", "team"]),
    ("hammerd_connections_open", "gauge", &["target"]),
    ("hammerd_connections_opened_total", "counter", &["target"]),
    ("hammerd_connections_closed_total", "counter", &["target", "reason"]),
    ("hammerd_sent_bytes_total", "counter", &["target"]),
    ("hammerd_received_bytes_total", "counter", &["target"]),
    ("hammerd_dns_addresses", "gauge", &["target"]),
    ("hammerd_retired_requests_total", "counter", &["stage"]),
    ("hammerd_workers", "gauge", &[]),
    ("hammerd_log_lines_lost_total", "counter", &[]),
    ("hammerd_config_last_reload_successful", "gauge", &[]),
    ("hammerd_config_last_reload_success_timestamp_seconds", "gauge", &[]),
    ("hammerd_config_reloads_total", "counter", &["result"]),
    ("hammerd_config_source_up", "gauge", &[]),
    ("hammerd_config_source_last_success_timestamp_seconds", "gauge", &[]),
    ("hammerd_config_source_fetches_total", "counter", &["result"]),
    ("hammerd_config_source_failures_total", "counter", &["reason"]),
    ("hammerd_build_info", "gauge", &["version", "revision", "rustc"]),
    ("process_cpu_seconds_total", "counter", &[]),
    ("process_resident_memory_bytes", "gauge", &[]),
    ("process_open_fds", "gauge", &[]),
];

#[test]
fn every_metric_is_there_from_the_start_and_promtool_is_content() {
    let origin = Origin::start(|_| Reply::ok("hi"));
    // The first arrival of such a target is far away.
    let daemon = Daemon::start(&target("a", &origin.url("/"), "1/h", "labels = { team = \"pay\" }"));
    let response = daemon.get("/metrics");
    assert_eq!(response.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let scrape = Scrape::parse(response.text()).expect("a valid scrape");
    for (name, kind, labels) in CATALOGUE {
        assert_eq!(scrape.kind(name), Some(kind), "{name}");
        let sample = if kind == "histogram" { format!("{name}_count") } else { name.to_owned() };
        let series = scrape.series(&sample);
        assert!(!series.is_empty(), "{name} has no series");
        for sample in &series {
            let found: Vec<&str> = sample.labels.keys().map(String::as_str).collect();
            let mut expected = labels.to_vec();
            expected.sort_unstable();
            assert_eq!(found, expected, "labels of {name}");
        }
    }
    let reasons = scrape.label_values("hammerd_request_failures_total", "reason");
    for reason in ["connect_refused", "timeout_response", "eof_reused", "status", "denied"] {
        assert!(reasons.contains(&reason), "{reason} is not among {reasons:?}");
    }
    assert_eq!(scrape.sum("hammerd_request_failures_total", &[]), 0.0);
    let authority = origin.address().to_string();
    let info = [("protocol", "http"), ("authority", authority.as_str()), ("team", "pay")];
    assert_eq!(scrape.value("hammerd_target_info", &info), 1.0);
    assert_eq!(scrape.value("hammerd_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), 1.0);
    assert!(scrape.value("process_resident_memory_bytes", &[]) > 1e6);
    assert_eq!(promtool_complaints(response.text()), "");
}

#[test]
fn what_goes_over_the_wire_is_counted_in_bytes() {
    let origin = Origin::start(|_| Reply::ok("0123456789"));
    let rest = "method = \"POST\"\nbody = \"hello\"\nheaders = { x-team = \"pay\" }";
    let daemon = Daemon::start(&target("a", &origin.url("/path?q=1"), "20/s", rest));
    let scrape = daemon.scrape_after("a", 20.0);
    let request = &origin.requests()[0];
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/path?q=1"));
    assert_eq!(request.header("host"), Some(origin.address().to_string().as_str()));
    let user_agent = format!("hammerd/{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(request.header("user-agent"), Some(user_agent.as_str()));
    assert_eq!((request.header("x-team"), request.body.as_slice()), (Some("pay"), &b"hello"[..]));

    let finished = scrape.value("hammerd_requests_total", &[("target", "a")]);
    let received = scrape.value("hammerd_received_bytes_total", &[("target", "a")]);
    let answer = "HTTP/1.1 200 Reason\r\nContent-Length: 10\r\n\r\n0123456789".len() as f64;
    let started = scrape.value("hammerd_requests_started_total", &[("target", "a")]);
    let whole_answers = (answer * finished)..=(answer * started);
    assert!(whole_answers.contains(&received), "{received} bytes for {finished} answers of {answer}");
    let sent = scrape.value("hammerd_sent_bytes_total", &[("target", "a")]);
    let least = "POST /path?q=1 HTTP/1.1\r\n\r\nhello".len() as f64;
    assert!(sent > least * finished, "{sent} bytes for {finished} requests of more than {least}");
    let opened = scrape.value("hammerd_connections_opened_total", &[("target", "a")]);
    let phases =
        |phase: &str| scrape.histogram("hammerd_request_phase_seconds", &[("target", "a"), ("phase", phase)]).count;
    assert_eq!((phases("connect"), phases("wait"), phases("receive")), (opened, finished, finished));
}

#[test]
fn a_scrape_is_compressed_when_asked_for() {
    let origin = Origin::start(|_| Reply::ok(""));
    let daemon = Daemon::start(&target("a", &origin.url("/"), "1/h", ""));
    let compressed = daemon.request("GET", "/metrics", &[("Accept-Encoding", "gzip")]);
    assert_eq!(compressed.header("content-encoding"), Some("gzip"));
    let mut text = String::new();
    flate2::read::GzDecoder::new(compressed.body.as_slice()).read_to_string(&mut text).expect("gzip");
    let scrape = Scrape::parse(&text).expect("a valid scrape");
    assert_eq!(scrape.value("hammerd_requests_total", &[("target", "a")]), 0.0);
    for refusal in ["gzip;q=0", "identity"] {
        let plain = daemon.request("GET", "/metrics", &[("Accept-Encoding", refusal)]);
        assert_eq!(plain.header("content-encoding"), None, "{refusal}");
        Scrape::parse(plain.text()).expect("a valid scrape");
    }
}

#[test]
fn pages_exist_or_do_not() {
    let origin = Origin::start(|_| Reply::ok(""));
    let rest = "headers = { authorization = \"Bearer s3cret-inline\" }\nbody = \"${HAMMERD_TEST_SECRET}\"";
    let config = target("a", &origin.url("/"), "20/s", rest);
    let daemon = Daemon::builder(&config).env("HAMMERD_TEST_SECRET", "s3cret-expanded").start();
    assert_eq!(daemon.get("/-/healthy").status, 200);
    assert_eq!(daemon.get("/-/ready").status, 200);
    assert_eq!(daemon.get("/").status, 200);
    assert_eq!(daemon.get("/nowhere").status, 404);
    assert_eq!(daemon.request("POST", "/metrics", &[]).status, 405);
    let head = daemon.request("GET", "/metrics?target=http://example.test/", &[]);
    assert_eq!(head.status, 200, "a parameter changes nothing");

    let shown = daemon.get("/config");
    assert_eq!(shown.status, 200);
    assert!(shown.text().contains("<secret>") && shown.text().contains(&origin.url("/")), "{}", shown.text());
    origin.wait_requests(2);
    assert_eq!(origin.requests()[0].header("authorization"), Some("Bearer s3cret-inline"));
    assert_eq!(origin.requests()[0].body, b"s3cret-expanded");
    for path in ["/config", "/metrics", "/", "/api/v1/status"] {
        assert!(!daemon.get(path).text().contains("s3cret"), "{path} shows a secret");
    }
    assert!(daemon.log_with(&["s3cret"]).is_empty(), "the log shows a secret");
}

/// The judge that counts: a real Prometheus sees it up, and its `rate()` is the rate that was asked for.
#[test]
fn a_real_prometheus_sees_the_rate_that_was_asked_for() {
    let nginx = Nginx::start();
    let daemon = Daemon::start(&target("a", &nginx.url("/"), "100/s", ""));
    let prometheus = Prometheus::start("1s", &[daemon.address()]);
    prometheus.query_until("count_over_time(up[1m]) >= 8", |answer| !answer.is_empty());
    assert_eq!(prometheus.query("min_over_time(up[1m])")[0].1, 1.0);
    let answer = prometheus.query_until("rate(hammerd_requests_scheduled_total[6s])", |answer| !answer.is_empty());
    assert_eq!(answer[0].0["target"], "a");
    let rate = answer[0].1;
    // Counted by us at our time, stamped by Prometheus at its own: what a busy machine puts between is its error.
    assert!((85.0..=115.0).contains(&rate), "{rate}");
    let unbalanced = "hammerd_requests_scheduled_total - hammerd_requests_started_total \
                      - on(target) sum by (target) (hammerd_requests_dropped_total) != 0";
    assert_eq!(prometheus.query(unbalanced), []);
    let quantile =
        prometheus.query("histogram_quantile(0.5, sum by (le) (rate(hammerd_request_latency_seconds_bucket[6s])))");
    assert!((0.0..1.0).contains(&quantile[0].1), "{quantile:?}");
}

/// Row 41.
#[test]
fn idle_connections_are_capped_cut_and_do_not_keep_a_scraper_out() {
    let origin = Origin::start(|_| Reply::ok(""));
    let daemon = Daemon::start(&target("a", &origin.url("/"), "20/s", ""));
    let mut idle = Vec::new();
    for n in 0..500 {
        if let Ok(mut stream) = client::connect(daemon.address()) {
            // Half of them begin a request that they never end.
            let _ = if n % 2 == 0 { stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: ") } else { Ok(()) };
            idle.push(stream);
        }
    }
    let descriptors = daemon.open_descriptors();
    assert!(descriptors < 400, "{descriptors} descriptors for 500 idle connections");
    let before = daemon.scrape();
    daemon.scrape_after("a", before.value("hammerd_requests_total", &[("target", "a")]) + 5.0);
    for mut stream in idle {
        stream.set_read_timeout(Some(2 * PATIENCE)).expect("a timeout");
        let end = stream.read_to_end(&mut Vec::new());
        let cut = end.as_ref().map_or_else(|error| error.kind() == std::io::ErrorKind::ConnectionReset, |_| true);
        assert!(cut, "an idle connection was not cut: {end:?}");
    }
    wait_until("release of the descriptors", PATIENCE, || daemon.open_descriptors() < 60);
}

/// Rows 41 and 42.
#[test]
fn many_scrapes_and_scrapers_that_leave_retain_nothing() {
    let origin = Origin::start(|_| Reply::ok(""));
    let many: String = (0..200).map(|n| target(&format!("t{n}"), &origin.url("/"), "1/h", "")).collect();
    let daemon = Daemon::start(&many);
    let leave = || {
        let mut stream = client::connect(daemon.address()).expect("a connection");
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").expect("a request");
        stream.read_exact(&mut [0; 100]).expect("the beginning of an answer");
    };
    (0..50).for_each(|_| leave());
    for _ in 0..50 {
        daemon.scrape();
    }
    let (descriptors, memory) = (daemon.own_descriptors(), daemon.resident_bytes());
    (0..300).for_each(|_| leave());
    for _ in 0..300 {
        assert_eq!(daemon.get("/metrics").status, 200);
    }
    wait_until("release of the descriptors", PATIENCE, || daemon.own_descriptors() <= descriptors + 1.0);
    let grown = daemon.resident_bytes().saturating_sub(memory);
    assert!(grown < 8 << 20, "{grown} bytes grown over 600 scrapes");
}
