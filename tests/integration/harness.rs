//! Tests of the parts that the other tests are built from: a witness that can't be trusted is none.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read as _, Write as _};
use std::time::Duration;

use crate::support::client::{self, get};
use crate::support::dead::{Blackhole, closed_port};
use crate::support::net::in_private_network;
use crate::support::nginx::{BIG_BODY, Nginx};
use crate::support::prometheus::{Prometheus, promtool_complaints};
use crate::support::{Origin, PATIENCE, Reply, Scrape, ledger, wait_until};

const VALID: &str = "\
# HELP c_total Things.
# TYPE c_total counter
c_total{a=\"x\\\"y\\\\z\\nw\",b=\"\"} 3
c_total{a=\"q\",b=\"r\"} 4.5e3
# HELP h_seconds Times.
# TYPE h_seconds histogram
h_seconds_bucket{le=\"0.5\"} 1
h_seconds_bucket{le=\"+Inf\"} 2
h_seconds_sum 3.25
h_seconds_count 2
# HELP g Level.
# TYPE g gauge
g -1
";

#[test]
fn a_valid_scrape_is_read_to_the_last_escape() {
    let scrape = Scrape::parse(VALID).expect("valid");
    assert_eq!(scrape.value("c_total", &[("a", "x\"y\\z\nw")]), 3.0);
    assert_eq!(scrape.sum("c_total", &[]), 4503.0);
    assert_eq!(scrape.value("g", &[]), -1.0);
    assert_eq!(scrape.kind("h_seconds"), Some("histogram"));
    assert_eq!(scrape.try_value("c_total", &[("a", "other")]), None);
    assert_eq!(scrape.label_values("c_total", "b"), ["", "r"]);
    let histogram = scrape.histogram("h_seconds", &[]);
    assert_eq!((histogram.count_le(0.5), histogram.count, histogram.sum), (1.0, 2.0, 3.25));
}

#[test]
fn an_invalid_scrape_is_refused_for_what_is_wrong_with_it() {
    let cases = [
        ("c_total{a=\"q\",b=\"r\"} 4.5e3", "c_total{a=\"x\\\"y\\\\z\\nw\",b=\"\"} 3", "a series twice"),
        ("# TYPE g gauge\n", "", "without TYPE"),
        ("# HELP g Level.\n", "", "without TYPE and HELP"),
        ("# TYPE g gauge\n", "# TYPE g gauge\n# TYPE g gauge\n", "a second TYPE"),
        ("g -1\n", "g -1\nc_total{a=\"late\",b=\"\"} 1\n", "in two places"),
        ("4.5e3", "NaN", "not a number"),
        ("4.5e3", "-1", "negative"),
        ("4.5e3", "1 1700000000", "single value"),
        ("le=\"0.5\"} 1", "le=\"0.5\"} 3", "do not rise"),
        ("h_seconds_bucket{le=\"+Inf\"} 2\n", "", "+Inf"),
        ("h_seconds_count 2", "h_seconds_count 3", "differs from the count"),
        ("h_seconds_sum 3.25", "h_seconds_sum NaN", "not a number"),
        ("h_seconds_sum 3.25\n", "", "not of the same series"),
        ("g -1\n", "g -1", "does not end"),
        ("a=\"q\"", "a=\"q", "without a quoted value"),
        ("a=\"q\"", "a=\"\\q\"", "unknown escape"),
        ("a=\"q\",b=\"r\"", "a=\"q\",a=\"r\"", "twice"),
    ];
    for (from, to, complaint) in cases {
        let text = VALID.replacen(from, to, 1);
        assert_ne!(text, VALID, "{from} is not in the text");
        let error = Scrape::parse(&text).expect_err(complaint);
        assert!(error.contains(complaint), "{from} -> {to}: {error}");
    }
}

/// A ledger of 10 scheduled: 1 dropped, 9 started; 1 canceled, 2 in flight, 6 finished; 4 good, 1 with a bad
/// status, 1 without any.
const LEDGER: &str = r#"# HELP hammerd_requests_scheduled_total h
# TYPE hammerd_requests_scheduled_total counter
hammerd_requests_scheduled_total{target="a"} 10
# HELP hammerd_requests_dropped_total h
# TYPE hammerd_requests_dropped_total counter
hammerd_requests_dropped_total{target="a",reason="late"} 1
hammerd_requests_dropped_total{target="a",reason="in_flight"} 0
# HELP hammerd_requests_started_total h
# TYPE hammerd_requests_started_total counter
hammerd_requests_started_total{target="a"} 9
# HELP hammerd_requests_total h
# TYPE hammerd_requests_total counter
hammerd_requests_total{target="a"} 6
# HELP hammerd_requests_canceled_total h
# TYPE hammerd_requests_canceled_total counter
hammerd_requests_canceled_total{target="a"} 1
# HELP hammerd_in_flight_requests h
# TYPE hammerd_in_flight_requests gauge
hammerd_in_flight_requests{target="a"} 2
# HELP hammerd_responses_total h
# TYPE hammerd_responses_total counter
hammerd_responses_total{target="a",code="200"} 4
hammerd_responses_total{target="a",code="503"} 1
# HELP hammerd_request_failures_total h
# TYPE hammerd_request_failures_total counter
hammerd_request_failures_total{target="a",reason="status"} 1
hammerd_request_failures_total{target="a",reason="reset"} 1
# HELP hammerd_request_latency_seconds h
# TYPE hammerd_request_latency_seconds histogram
hammerd_request_latency_seconds_bucket{target="a",outcome="ok",le="+Inf"} 4
hammerd_request_latency_seconds_sum{target="a",outcome="ok"} 1
hammerd_request_latency_seconds_count{target="a",outcome="ok"} 4
hammerd_request_latency_seconds_bucket{target="a",outcome="failed",le="+Inf"} 2
hammerd_request_latency_seconds_sum{target="a",outcome="failed"} 1
hammerd_request_latency_seconds_count{target="a",outcome="failed"} 2
# HELP hammerd_request_duration_seconds h
# TYPE hammerd_request_duration_seconds histogram
hammerd_request_duration_seconds_bucket{target="a",outcome="ok",le="+Inf"} 4
hammerd_request_duration_seconds_sum{target="a",outcome="ok"} 1
hammerd_request_duration_seconds_count{target="a",outcome="ok"} 4
hammerd_request_duration_seconds_bucket{target="a",outcome="failed",le="+Inf"} 2
hammerd_request_duration_seconds_sum{target="a",outcome="failed"} 1
hammerd_request_duration_seconds_count{target="a",outcome="failed"} 2
"#;

#[test]
fn a_ledger_is_refused_when_any_number_is_off_by_one() {
    let parse = |text: &str| Scrape::parse(text).expect("valid");
    assert_eq!(ledger::ledger_of(&parse(LEDGER), "a"), Ok(()));
    let cases = [
        ("scheduled_total{target=\"a\"} 10", "scheduled_total{target=\"a\"} 11", "scheduled"),
        ("reason=\"late\"} 1", "reason=\"late\"} 2", "scheduled"),
        ("canceled_total{target=\"a\"} 1", "canceled_total{target=\"a\"} 0", "started"),
        ("in_flight_requests{target=\"a\"} 2", "in_flight_requests{target=\"a\"} 3", "started"),
        ("code=\"503\"} 1", "code=\"503\"} 2", "responses"),
        ("reason=\"reset\"} 1", "reason=\"reset\"} 0", "responses"),
        ("reason=\"status\"} 1", "reason=\"status\"} 0", "failed latencies"),
    ];
    for (from, to, equation) in cases {
        let text = LEDGER.replacen(from, to, 1);
        assert_ne!(text, LEDGER, "{from} is not in the text");
        let difference = ledger::ledger_of(&parse(&text), "a").expect_err(equation);
        assert!(difference.contains(equation), "{from} -> {to}: {difference}");
    }
    for kind in ["latency", "duration"] {
        let text = LEDGER
            .replace(
                &format!("{kind}_seconds_count{{target=\"a\",outcome=\"ok\"}} 4"),
                &format!("{kind}_seconds_count{{target=\"a\",outcome=\"ok\"}} 5"),
            )
            .replace(
                &format!("{kind}_seconds_bucket{{target=\"a\",outcome=\"ok\",le=\"+Inf\"}} 4"),
                &format!("{kind}_seconds_bucket{{target=\"a\",outcome=\"ok\",le=\"+Inf\"}} 5"),
            );
        assert!(ledger::ledger_of(&parse(&text), "a").is_err(), "{kind}");
    }
}

#[test]
fn the_origin_answers_records_and_keeps_connections() {
    let origin = Origin::start(|request| Reply::ok(&request.path).header("X-Seen", "yes"));
    let mut stream = client::connect(origin.address()).expect("a connection");
    let head = b"POST /one HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello";
    for index in 0..2 {
        stream.write_all(head).expect("a request");
        let mut answer = [0; 64];
        let length = stream.read(&mut answer).expect("an answer");
        let expected = "HTTP/1.1 200 Reason\r\nContent-Length: 4\r\nX-Seen: yes\r\n\r\n/one";
        assert_eq!(std::str::from_utf8(&answer[..length]), Ok(expected));
        let request = &origin.requests()[index];
        assert_eq!((request.connection, request.index, request.method.as_str()), (1, index as u64, "POST"));
        assert_eq!((request.body.as_slice(), request.header("host")), (&b"hello"[..], Some("x")));
    }
    assert!(origin.requests()[0].at < origin.requests()[1].at);
    assert_eq!((origin.connections_opened(), origin.connections_open()), (1, 1));
    drop(stream);
    wait_until("end of the connection", PATIENCE, || origin.connections_open() == 0);

    origin.set_reply(|_| Reply::status(503));
    assert_eq!(get(origin.address(), "/").expect("an answer").status, 503);
}

#[test]
fn the_origin_misbehaves_as_told() {
    let origin = Origin::start(|request| match request.path.as_str() {
        "/reset" => Reply::raw("").reset(),
        "/reset-in-body" => Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhal").pause(SHORT).reset(),
        "/short" => Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").close(),
        "/drip" => Reply::raw("").drip("HTTP/1.1 204 x\r\n\r\n", Duration::from_millis(1)).close(),
        "/early" => Reply::status(413).without_reading_the_body().close(),
        "/more" => Reply::ok("1").send("HTTP/1.1 200 OK\r\n\r\n2").close(),
        other => Reply::raw(format!("garbage {other}")).close(),
    });
    let ask = |path: &str| {
        client::exchange(origin.address(), format!("GET {path} HTTP/1.1\r\nContent-Length: 0\r\n\r\n").as_bytes())
            .map(|answer| String::from_utf8(answer).expect("text"))
            .map_err(|error| error.kind())
    };
    assert_eq!(ask("/reset"), Err(ErrorKind::ConnectionReset));
    assert_eq!(ask("/reset-in-body"), Err(ErrorKind::ConnectionReset));
    assert_eq!(ask("/short").as_deref(), Ok("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"));
    assert_eq!(ask("/drip").as_deref(), Ok("HTTP/1.1 204 x\r\n\r\n"));
    assert_eq!(ask("/x").as_deref(), Ok("garbage /x"));
    let more = "HTTP/1.1 200 Reason\r\nContent-Length: 1\r\n\r\n1HTTP/1.1 200 OK\r\n\r\n2";
    assert_eq!(ask("/more").as_deref(), Ok(more));
    let early = client::exchange(origin.address(), b"POST /early HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n");
    assert!(early.expect("an answer").starts_with(b"HTTP/1.1 413"));
}

const SHORT: Duration = Duration::from_millis(50);

#[test]
fn the_origin_notices_that_a_client_has_given_up() {
    let origin = Origin::start(|request| match request.path.as_str() {
        "/silence" => Reply::silence(),
        "/after" => Reply::raw("HTTP/1.1 200 OK\r\n").hang(),
        _ => Reply::raw("HTTP/1.1 200 OK\r\n\r\n").forever("x", Duration::from_millis(1)),
    });
    for path in ["/silence", "/after", "/forever"] {
        let mut stream = client::connect(origin.address()).expect("a connection");
        stream.write_all(format!("GET {path} HTTP/1.1\r\n\r\n").as_bytes()).expect("a request");
        wait_until("connection", PATIENCE, || origin.connections_open() == 1);
        drop(stream);
        wait_until("end of the connection", PATIENCE, || origin.connections_open() == 0);
    }
    assert_eq!(origin.connections_opened(), 3);
}

#[test]
fn a_frozen_or_slow_origin_answers_no_sooner_than_told() {
    let origin = Origin::start(|_| Reply::ok("").delayed(SHORT).close());
    let start = std::time::Instant::now();
    origin.freeze(SHORT);
    client::exchange(origin.address(), b"GET / HTTP/1.1\r\n\r\n").expect("an answer");
    let requests = origin.requests();
    assert!(start.elapsed() >= 2 * SHORT, "answered after {:?}", start.elapsed());
    assert!(requests[0].at.elapsed() >= SHORT, "recorded before it is answered");
}

#[test]
fn a_closed_port_refuses_and_a_blackhole_does_not_answer() {
    let refused = client::connect(closed_port()).expect_err("refused");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    let hole = Blackhole::start();
    let address = hole.url()["http://".len()..].trim_end_matches('/').parse().expect("an address");
    let unanswered = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(500));
    assert_eq!(unanswered.map_err(|error| error.kind()).err(), Some(ErrorKind::TimedOut));
}

#[test]
fn nginx_logs_what_it_was_asked() {
    let nginx = Nginx::start();
    let id = [("X-Request-Id", "7")];
    let ask = |path| client::request(nginx.address(), "GET", path, &id, b"").expect("an answer");
    assert_eq!(ask("/").text(), "ok\n");
    assert_eq!(ask("/64k").body.len(), BIG_BODY);
    assert_eq!((ask("/204").status, ask("/500").status), (204, 500));
    assert_eq!(ask("/redirect").status, 302);
    let log = nginx.log_of(5);
    let seen: Vec<_> = log.iter().map(|entry| (entry.request.as_str(), entry.status)).collect();
    let expected = [("/", 200), ("/64k", 200), ("/204", 204), ("/500", 500), ("/redirect", 302)];
    assert_eq!(
        seen,
        expected
            .map(|(path, status)| (format!("GET {path} HTTP/1.1"), status))
            .each_ref()
            .map(|(request, status)| (request.as_str(), *status))
    );
    assert!(log.iter().all(|entry| entry.request_id == "7" && entry.request_on_connection == 1));
    assert!(log.windows(2).all(|pair| pair[0].connection < pair[1].connection && pair[0].end <= pair[1].end));

    nginx.freeze();
    let mut stream = client::connect(nginx.address()).expect("the kernel still accepts");
    stream.set_read_timeout(Some(SHORT)).expect("a timeout");
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("a request");
    let frozen = stream.read(&mut [0; 16]).map_err(|error| error.kind());
    assert_eq!(frozen, Err(ErrorKind::WouldBlock));
    nginx.thaw();
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    assert!(stream.read(&mut [0; 16]).expect("an answer after the thaw") > 0);
}

#[test]
fn prometheus_scrapes_and_promtool_complains() {
    let origin = Origin::start(|_| Reply::ok(VALID).header("Content-Type", "text/plain; version=0.0.4"));
    let prometheus = Prometheus::start("1s", &[origin.address()]);
    let up = prometheus.query_until("up", |answer| answer.iter().any(|(_, value)| *value == 1.0));
    assert_eq!((up.len(), up[0].0["job"].as_str()), (1, "hammerd"));
    let answer = prometheus.query("sum by (b) (c_total{a=\"q\"})");
    assert_eq!(answer, [([("b".to_owned(), "r".to_owned())].into(), 4500.0)]);
    assert_eq!(origin.requests()[0].path, "/metrics");

    assert_eq!(promtool_complaints(VALID), "");
    assert!(promtool_complaints("# TYPE c counter\nc 1\n").contains("_total"));
}

#[test]
fn a_private_network_has_a_loopback_and_the_routes_asked_for() {
    let routes = ["route add unreachable 192.0.2.1", "route add prohibit 192.0.2.2"];
    in_private_network("a_private_network_has_a_loopback_and_the_routes_asked_for", &routes, || {
        let origin = Origin::start(|_| Reply::ok("inside"));
        assert_eq!(get(origin.address(), "/").map(|answer| answer.status).ok(), Some(200));
        let kind = |address: &str| client::connect(address.parse().expect("an address")).map_err(|error| error.kind());
        assert_eq!(kind("192.0.2.1:80").err(), Some(ErrorKind::HostUnreachable));
        assert_eq!(kind("192.0.2.2:80").err(), Some(ErrorKind::PermissionDenied));
        assert_eq!(kind("192.0.2.3:80").err(), Some(ErrorKind::NetworkUnreachable));
    });
}

/// The words in backticks of a text.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// `docs/faults.md`: every reason is explained, every row of the table of faults has tests, and all of these exist.
#[test]
fn the_table_of_faults_names_every_reason_every_row_and_only_tests_that_exist() {
    let repository = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let read =
        |path: &str| std::fs::read_to_string(repository.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    let page = read("docs/faults.md");
    let cells = |line: &str| line.split(" | ").map(str::to_owned).collect::<Vec<_>>();
    let rows: Vec<_> = page.lines().filter_map(|line| line.strip_prefix("| ")).map(cells).collect();

    let explained: Vec<_> = rows.iter().filter(|row| row.len() == 3).filter_map(|row| quoted(&row[0]).next()).collect();
    assert_eq!(explained, hammerd::outcome::Reason::LABELS, "reasons explained, and reasons that there are");

    let numbered = rows.iter().filter_map(|row| Some((row[0].parse::<u32>().ok()?, row)));
    let numbered: Vec<_> = numbered.collect();
    let numbers: BTreeSet<u32> = numbered.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, (1..=33).chain([44, 45]).collect(), "rows");
    for (number, row) in numbered {
        assert_eq!(row.len(), 6, "row {number}: {row:?}");
        let tests: Vec<_> = quoted(&row[4]).collect();
        assert!(!tests.is_empty(), "row {number} has no test");
        for test in tests {
            let (module, name) = test.split_once("::").unwrap_or_else(|| panic!("row {number}: {test}"));
            let source = read(&format!("tests/integration/{module}.rs"));
            assert!(source.contains(&format!("#[test]\nfn {name}() {{")), "row {number}: there is no test {test}");
        }
    }
}
