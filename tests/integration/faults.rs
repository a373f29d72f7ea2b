//! What a target can do wrong, and what is made of it: one exact reason, a ledger that adds up, and traffic that is
//! good again as soon as the target is.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::dead::{Blackhole, closed_port};
use crate::support::nginx::Nginx;
use crate::support::{Daemon, Origin, PATIENCE, Reply, Scrape, target, wait_until};

/// Failures of a target by reason, only those that occurred.
pub(crate) fn failures(scrape: &Scrape, target: &str) -> HashMap<String, u64> {
    let series = scrape.series("hammerd_request_failures_total");
    let of_target = series.iter().filter(|sample| sample.labels["target"] == target && sample.value > 0.0);
    of_target.map(|sample| (sample.labels["reason"].clone(), sample.value as u64)).collect()
}

/// Responses of a target with this code; 0 when there has been none.
pub(crate) fn responses(scrape: &Scrape, target: &str, code: &str) -> f64 {
    scrape.sum("hammerd_responses_total", &[("target", target), ("code", code)])
}

/// Checks that the target has failed for this reason and for no other.
#[track_caller]
pub(crate) fn assert_only_failure(scrape: &Scrape, target: &str, reason: &str) {
    let failures = failures(scrape, target);
    assert!(
        failures.len() == 1 && failures.contains_key(reason),
        "{target} failed with {failures:?} and not only with {reason}"
    );
}

/// How many good answers make a target that has been ill a healthy one.
const GOOD: f64 = 10.0;

/// Checks, right after it has been healed, that each of these targets recovers within a retry period: what fails from here
/// on was under way already, or is no more than `rate` per second brings in that period.
#[track_caller]
pub(crate) fn assert_recover(daemon: &Daemon, targets: &[&str], rate: f64, retry_period: Duration) -> Scrape {
    let failed = |scrape: &Scrape, name: &str| scrape.sum("hammerd_request_failures_total", &[("target", name)]);
    let healed = daemon.scrape();
    let after = daemon.scrape_when("good answers of every target", |scrape| {
        targets.iter().all(|name| responses(scrape, name, "200") >= responses(&healed, name, "200") + GOOD)
    });
    for name in targets {
        let under_way = healed.value("hammerd_in_flight_requests", &[("target", name)]);
        let (most, more) =
            (under_way + rate * retry_period.as_secs_f64(), failed(&after, name) - failed(&healed, name));
        assert!(
            more <= most,
            "{more} more failures of {name} than when it was healed, not {most}\n{}",
            after.summary()
        );
    }
    after
}

/// Checks that each target's failures were logged, by fewer lines than there were failures.
#[track_caller]
pub(crate) fn assert_logged_sparingly(daemon: &Daemon, scrape: &Scrape, target: &str, reason: &str) {
    let failures = scrape.value("hammerd_request_failures_total", &[("target", target), ("reason", reason)]);
    let quoted = format!("\"{target}\"");
    let lines = daemon.log_with(&[&quoted, reason]).len();
    assert!(lines >= 1, "{failures} {reason} of {target} are not in the log");
    assert!((lines as f64) < failures, "{lines} log lines for {failures} {reason} of {target}");
}

const OK_HEAD: &str = "HTTP/1.1 200 OK\r\n";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
const TICK: Duration = Duration::from_millis(20);

/// Name of a target, the reason it fails for, and what its origin does.
fn broken_answers() -> Vec<(&'static str, &'static str, Reply)> {
    let many_headers = "X-Many: 1\r\n".repeat(150);
    vec![
        // 15
        ("silent", "timeout_response", Reply::silence()),
        ("half-head", "timeout_response", Reply::raw(OK_HEAD).hang()),
        ("head-trickle", "timeout_response", Reply::raw(OK_HEAD).drip(format!("X-Long: {:900}", "x"), TICK)),
        ("endless-1xx", "timeout_response", Reply::raw("").forever("HTTP/1.1 102 Processing\r\n\r\n", TICK)),
        // 16
        (
            "body-trickle",
            "timeout_body",
            Reply::raw(format!("{OK_HEAD}Content-Length: 9999\r\n\r\n")).forever("x", TICK),
        ),
        ("body-stalled", "timeout_body", Reply::raw(format!("{CHUNKED}5\r\nab")).hang()),
        // 17
        ("endless-body", "body_too_large", Reply::raw(format!("{OK_HEAD}\r\n")).forever([b'x'; 8192], Duration::ZERO)),
        (
            "endless-chunks",
            "body_too_large",
            Reply::raw(CHUNKED).forever(format!("400\r\n{:1024}\r\n", "x").repeat(8), Duration::ZERO),
        ),
        // 18
        ("reset", "reset", Reply::raw("").reset()),
        ("reset-in-head", "reset", Reply::raw(OK_HEAD).pause(TICK).reset()),
        ("reset-in-body", "reset", Reply::raw(format!("{OK_HEAD}Content-Length: 9\r\n\r\nhal")).pause(TICK).reset()),
        // 19
        ("short-body", "eof", Reply::raw(format!("{OK_HEAD}Content-Length: 9\r\n\r\nhalf")).close()),
        ("short-chunk", "eof", Reply::raw(format!("{CHUNKED}5\r\nab")).close()),
        ("no-last-chunk", "eof", Reply::raw(format!("{CHUNKED}2\r\nab\r\n")).close()),
        ("no-answer", "eof", Reply::raw("").close()),
        ("short-head", "eof", Reply::raw(format!("{OK_HEAD}X-Half: ")).close()),
        // 22
        ("garbage", "protocol", Reply::raw("\u{1}\u{2}\u{3} nothing that anyone would know\r\n\r\n").close()),
        ("http-0-9", "protocol", Reply::raw("<html>hello</html>\r\n").close()),
        ("bad-chunk-size", "protocol", Reply::raw(format!("{CHUNKED}xyz\r\nab\r\n0\r\n\r\n")).close()),
        ("bad-length", "protocol", Reply::raw(format!("{OK_HEAD}Content-Length: -1\r\n\r\n")).close()),
        (
            "length-and-chunks",
            "protocol",
            Reply::raw(format!("{OK_HEAD}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")),
        ),
        ("many-headers", "protocol", Reply::raw(format!("{OK_HEAD}{many_headers}Content-Length: 0\r\n\r\n"))),
        (
            "huge-head",
            "protocol",
            Reply::raw(OK_HEAD).forever("X-Pad: 0123456789abcdef\r\n".repeat(400), Duration::ZERO),
        ),
    ]
}

/// Rows 15 to 19 and 22.
#[test]
fn every_broken_answer_has_its_one_reason_and_the_next_good_one_is_good() {
    const TIMEOUT: Duration = Duration::from_secs(1);
    let cases = broken_answers();
    let replies: HashMap<String, Reply> =
        cases.iter().map(|(name, _, reply)| (format!("/{name}"), reply.clone())).collect();
    let origin = Origin::start(move |request| replies[&request.path].clone());
    let mut config = "[limits]\nmax_body = \"256KiB\"\n".to_owned();
    for (name, reason, _) in &cases {
        let timeout = if reason.starts_with("timeout") { "timeout = \"1s\"" } else { "timeout = \"20s\"" };
        config.push_str(&target(name, &origin.url(&format!("/{name}")), "10/s", timeout));
    }
    let daemon = Daemon::start(&config);

    let failed = daemon.scrape_when("ten failures of every target", |scrape| {
        cases.iter().all(|(name, _, _)| scrape.value("hammerd_requests_total", &[("target", name)]) >= 10.0)
    });
    let wrong: Vec<_> = cases
        .iter()
        .map(|(name, reason, _)| (name, reason, failures(&failed, name)))
        .filter(|(_, reason, failures)| failures.len() != 1 || !failures.contains_key(**reason))
        .collect();
    assert!(wrong.is_empty(), "target, expected reason, failures by reason: {wrong:#?}");
    for (name, reason, _) in &cases {
        assert_logged_sparingly(&daemon, &failed, name, reason);
    }
    // Of the targets that time out rate x timeout requests are under way, of others two or three, and nothing is kept.
    let slow = cases.iter().filter(|(_, reason, _)| reason.starts_with("timeout")).count();
    let descriptors = daemon.open_descriptors();
    assert!(descriptors < 40 + slow * 11 + (cases.len() - slow) * 3, "{descriptors} descriptors");

    origin.set_reply(|_| Reply::ok("well again"));
    let names: Vec<_> = cases.iter().map(|(name, ..)| *name).collect();
    assert_recover(&daemon, &names, 10.0, TIMEOUT);
    // A healthy connection is kept; those that were given up are closed.
    wait_until("end of the abandoned connections", PATIENCE, || origin.connections_open() <= cases.len());
}

/// Row 1.
#[test]
fn a_closed_port_is_connect_refused_until_it_opens() {
    let address = closed_port();
    let daemon = Daemon::start(&target("a", &format!("http://{address}/"), "20/s", ""));
    let scrape = daemon.scrape_after("a", 10.0);
    assert_only_failure(&scrape, "a", "connect_refused");
    assert_logged_sparingly(&daemon, &scrape, "a", "connect_refused");
    assert_eq!(scrape.value("hammerd_connections_opened_total", &[("target", "a")]), 0.0);

    let origin = Origin::start_at(address, |_| Reply::ok(""));
    origin.wait_requests(1);
    assert_recover(&daemon, &["a"], 20.0, Duration::ZERO);
}

/// Row 2.
#[test]
fn an_address_that_never_answers_is_connect_timeout() {
    let hole = Blackhole::start();
    let daemon = Daemon::start(&target("a", &hole.url(), "10/s", "timeout = \"1s\""));
    let scrape = daemon.scrape_after("a", 10.0);
    assert_only_failure(&scrape, "a", "connect_timeout");
    let latency = scrape.histogram("hammerd_request_latency_seconds", &[("target", "a"), ("outcome", "failed")]);
    assert!(latency.sum >= latency.count, "{latency:?}: a timeout takes as long as the timeout");

    let address = hole.address();
    drop(hole);
    let _healed = Origin::start_at(address, |_| Reply::ok(""));
    assert_recover(&daemon, &["a"], 10.0, Duration::from_secs(1));
}

/// Row 17: memory does not grow with what a target sends.
#[test]
fn an_endless_body_costs_no_memory() {
    let origin = Origin::start(|_| Reply::raw(format!("{OK_HEAD}\r\n")).forever([b'x'; 8192], Duration::ZERO));
    let daemon =
        Daemon::start(&format!("[limits]\nmax_body = \"4MiB\"\n{}", target("a", &origin.url("/"), "10/s", "")));
    daemon.scrape_after("a", 5.0);
    let before = daemon.resident_bytes();
    let scrape = daemon.scrape_after("a", 25.0);
    assert_only_failure(&scrape, "a", "body_too_large");
    let grown = daemon.resident_bytes().saturating_sub(before);
    assert!(grown < 4 << 20, "{grown} bytes grown over twenty bodies of 4 MiB");
}

/// Row 15: however fast they come, interim responses are read to a bound, and the neighbour is served.
#[test]
fn a_flood_of_interim_responses_is_not_drunk_up() {
    let flood = "HTTP/1.1 102 Processing\r\n\r\n".repeat(4000);
    let origin = Origin::start(move |request| match request.path.as_str() {
        "/flood" => Reply::raw("").forever(&flood, Duration::ZERO),
        _ => Reply::ok(""),
    });
    let config = target("flood", &origin.url("/flood"), "5/s", "timeout = \"1s\"\nmax_in_flight = 1")
        + &target("good", &origin.url("/"), "20/s", "");
    let daemon = Daemon::start(&config);
    let scrape = daemon.scrape_after("flood", 5.0);
    assert_only_failure(&scrape, "flood", "timeout_response");
    assert_eq!(failures(&scrape, "good"), HashMap::new());
    let received = scrape.value("hammerd_received_bytes_total", &[("target", "flood")]);
    let started = scrape.value("hammerd_requests_started_total", &[("target", "flood")]);
    assert!(received < started * f64::from(3 << 20), "{received} bytes received for {started} requests");
}

/// Row 20: the connection had been closed before the request was written to it.
#[test]
fn a_connection_closed_while_idle_costs_no_request() {
    let origin = Origin::start(|_| Reply::ok("").close());
    let mut daemon = Daemon::start(&target("a", &origin.url("/"), "20/s", ""));
    let scrape = daemon.scrape_after("a", 30.0);
    assert_eq!(failures(&scrape, "a"), HashMap::new());
    let (_, summary) = daemon.stop();
    let requests = origin.requests();
    assert_eq!(summary["targets"]["a"]["started"], requests.len(), "each request is sent once");
    assert!(requests.iter().all(|request| request.index == 0), "a closed connection is not used");
}

/// Row 20: the connection was closed by what the request set off; it may have been acted upon and is not repeated.
#[test]
fn a_request_that_was_written_is_never_repeated() {
    let origin = Origin::start(|request| if request.index == 0 { Reply::ok("") } else { Reply::raw("").close() });
    let mut daemon = Daemon::start(&target("a", &origin.url("/"), "20/s", ""));
    let scrape = daemon.scrape_after("a", 30.0);
    assert_only_failure(&scrape, "a", "eof_reused");
    let (_, summary) = daemon.stop();
    let requests = origin.requests();
    let again = requests.iter().filter(|request| request.index > 0).count();
    let summary = &summary["targets"]["a"];
    assert_eq!(summary["started"], requests.len(), "each request is sent once");
    assert_eq!(summary["failures"]["eof_reused"], again);
    assert_eq!(summary["responses"]["200"], requests.len() - again);
}

/// Row 23.
#[test]
fn bytes_after_an_answer_are_never_taken_for_the_next_one() {
    let origin = Origin::start(|_| Reply::ok("1").send("HTTP/1.1 500 Injected\r\nContent-Length: 0\r\n\r\n"));
    let daemon = Daemon::start(&target("a", &origin.url("/"), "20/s", ""));
    let scrape = daemon.scrape_after("a", 30.0);
    assert_eq!(responses(&scrape, "a", "500"), 0.0, "{}", scrape.summary());
    assert_eq!(failures(&scrape, "a"), HashMap::new());
    assert!(origin.requests().iter().all(|request| request.index == 0), "a spoilt connection is not used again");
    wait_until("end of the spoilt connections", PATIENCE, || origin.connections_open() <= 1);
}

/// Row 24.
#[test]
fn a_redirect_is_counted_and_not_followed() {
    let nginx = Nginx::start();
    let daemon = Daemon::start(&target("a", &nginx.url("/redirect"), "20/s", ""));
    let scrape = daemon.scrape_after("a", 10.0);
    assert_eq!(responses(&scrape, "a", "302"), scrape.value("hammerd_requests_total", &[("target", "a")]));
    assert_eq!(failures(&scrape, "a"), HashMap::new());
    let log = nginx.log_of(10);
    assert!(log.iter().all(|entry| entry.request == "GET /redirect HTTP/1.1"), "{log:?}");
}

/// Row 25.
#[test]
fn a_storm_of_errors_is_counted_by_code_and_leaves_the_rate_alone() {
    let turn = Arc::new(Mutex::new(0));
    let origin = Origin::start(move |request| {
        let mut turn = turn.lock().expect("a counter");
        *turn += usize::from(request.path == "/storm");
        Reply::status(if request.path == "/calm" { 200 } else { [503, 429][*turn % 2] })
    });
    let calm = target("calm", &origin.url("/calm"), "50/s", "");
    let daemon = Daemon::start(&(calm + &target("storm", &origin.url("/storm"), "50/s", "")));
    let scrape = daemon.scrape_after("storm", 60.0);
    assert_only_failure(&scrape, "storm", "status");
    let (unavailable, limited) = (responses(&scrape, "storm", "503"), responses(&scrape, "storm", "429"));
    assert!(unavailable >= 20.0 && limited >= 20.0, "{unavailable} and {limited}");
    assert_eq!(unavailable + limited, scrape.value("hammerd_requests_total", &[("target", "storm")]));
    let scheduled = |name| scrape.value("hammerd_requests_scheduled_total", &[("target", name)]);
    assert!((scheduled("calm") - scheduled("storm")).abs() <= 1.0, "{}", scrape.summary());
    assert_eq!(failures(&scrape, "calm"), HashMap::new());
    origin.set_reply(|_| Reply::ok(""));
    assert_recover(&daemon, &["storm", "calm"], 50.0, Duration::ZERO);
}

/// Row 26, and codes that are no final answer.
#[test]
fn a_status_outside_the_classes_is_other() {
    let origin = Origin::start(|_| Reply::status(999));
    let daemon = Daemon::start(&target("a", &origin.url("/"), "20/s", ""));
    let scrape = daemon.scrape_after("a", 10.0);
    assert_only_failure(&scrape, "a", "status");
    assert_eq!(responses(&scrape, "a", "other"), scrape.value("hammerd_requests_total", &[("target", "a")]));
    assert_eq!(responses(&scrape, "a", "999"), 0.0);
    origin.set_reply(|_| Reply::ok(""));
    assert_recover(&daemon, &["a"], 20.0, Duration::ZERO);
}

/// Row 27: the answer comes before the body has been sent, and nobody reads the rest.
#[test]
fn an_early_answer_to_a_large_post_is_counted_and_its_connection_released() {
    let origin = Origin::start(|_| Reply::status(413).without_reading_the_body().pause(PATIENCE));
    let body = "x".repeat(8 << 20);
    let rest = format!("method = \"POST\"\nbody = \"{body}\"");
    let daemon = Daemon::start(&target("a", &origin.url("/"), "10/s", &rest));
    let scrape = daemon.scrape_after("a", 40.0);
    assert_only_failure(&scrape, "a", "status");
    assert_eq!(responses(&scrape, "a", "413"), scrape.value("hammerd_requests_total", &[("target", "a")]));
    wait_until("release of the descriptors", PATIENCE, || daemon.open_descriptors() < 35);
    origin.set_reply(|_| Reply::ok(""));
    assert_recover(&daemon, &["a"], 10.0, Duration::ZERO);
}
