//! How it ends: no more arrivals, what is under way is finished or counted, and the last numbers can be read.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::daemon::Builder;
use crate::support::{Daemon, Origin, PATIENCE, Reply, Scrape, is_root, skip, target, wait_until};

const SLOW: Duration = Duration::from_millis(700);

fn shutdown(grace: &str, linger: &str) -> String {
    format!("[shutdown]\ngrace = \"{grace}\"\nlinger = \"{linger}\"\n")
}

fn drains(daemon: &Daemon) {
    wait_until("start of the drain", PATIENCE, || daemon.get("/-/ready").status == 503);
}

/// Checks that a summary has the numbers of a scrape.
#[track_caller]
fn assert_same(summary: &Value, scrape: &Scrape) {
    for target in scrape.label_values("hammerd_requests_scheduled_total", "target") {
        let said = &summary["targets"][target];
        let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("{target}: not a number in {said:#}"));
        let value = |name: &str| scrape.value(name, &[("target", target)]);
        assert_eq!(number(&said["scheduled"]), value("hammerd_requests_scheduled_total"));
        assert_eq!(number(&said["started"]), value("hammerd_requests_started_total"));
        assert_eq!(number(&said["canceled"]), value("hammerd_requests_canceled_total"));
        for (key, metric, label) in [
            ("dropped", "hammerd_requests_dropped_total", "reason"),
            ("responses", "hammerd_responses_total", "code"),
            ("failures", "hammerd_request_failures_total", "reason"),
        ] {
            for sample in scrape.series(metric) {
                if sample.labels["target"] == target {
                    // What has not happened may be left out of a summary.
                    let counted = said[key].get(&sample.labels[label]).map_or(0.0, number);
                    assert_eq!(counted, sample.value, "{key} {label} {} in {said:#}", sample.labels[label]);
                }
            }
        }
    }
}

/// Stops a daemon with slow requests under way, and follows it to the end.
fn stop_with_requests_in_flight(signal: Signal, wrap: impl Fn(Builder) -> Builder) {
    let origin = Origin::start(|_| Reply::ok("").delayed(SLOW));
    let config = shutdown("20s", "20s") + &target("a", &origin.url("/"), "50/s", "");
    let mut daemon = wrap(Daemon::builder(&config)).start();
    origin.wait_requests(10);
    assert_eq!(daemon.get("/-/ready").status, 200);

    daemon.signal(signal);
    drains(&daemon);
    assert_eq!(daemon.get("/-/healthy").status, 200, "alive to the last");
    // Waited for at the origin: a scrape after the drain is what ends the lingering.
    wait_until("end of the requests", PATIENCE, || origin.connections_open() == 0);
    assert!(daemon.is_running(), "the last numbers have not been read");
    let last = daemon.scrape();
    assert_eq!(last.value("hammerd_in_flight_requests", &[("target", "a")]), 0.0);
    assert_eq!(daemon.wait_exit(PATIENCE).code(), Some(0));

    let requests = origin.requests().len() as f64;
    assert_eq!(last.value("hammerd_responses_total", &[("target", "a"), ("code", "200")]), requests);
    assert_eq!(last.value("hammerd_requests_canceled_total", &[("target", "a")]), 0.0);
    let summaries = daemon.summaries();
    assert_eq!(summaries.len(), 1, "{:?}", daemon.stdout());
    assert_same(&summaries[0], &last);
}

/// Promise 7, done-when 5.
#[test]
fn sigterm_finishes_what_is_in_flight_and_shows_the_last_numbers() {
    stop_with_requests_in_flight(Signal::TERM, |builder| builder);
}

#[test]
fn sigint_does_the_same() {
    stop_with_requests_in_flight(Signal::INT, |builder| builder);
}

/// Done-when 5, row 33: process 1 gets no default handling of signals.
#[test]
fn process_1_of_a_container_drains_as_well() {
    if !is_root() {
        return skip("process_1_of_a_container_drains_as_well", "needs root for a PID namespace");
    }
    stop_with_requests_in_flight(Signal::TERM, Builder::in_pid_namespace);
}

#[test]
fn what_outlasts_the_grace_is_canceled_and_counted() {
    let origin = Origin::start(|_| Reply::silence());
    let config =
        shutdown("300ms", "0s") + &target("a", &origin.url("/"), "50/s", "timeout = \"60s\"\nmax_in_flight = 20");
    let mut daemon = Daemon::start(&config);
    origin.wait_requests(20);
    let (status, summary) = daemon.stop();
    assert_eq!(status.code(), Some(0));
    let summary = &summary["targets"]["a"];
    assert_eq!((&summary["started"], &summary["canceled"]), (&Value::from(20), &Value::from(20)), "{summary:#}");
    let dropped: f64 = summary["dropped"].as_object().expect("an object").values().filter_map(Value::as_f64).sum();
    assert_eq!(summary["scheduled"].as_f64(), Some(20.0 + dropped));
}

/// Without a scrape it waits no longer than told; a scrape before the drain does not count as the last one.
#[test]
fn it_lingers_for_a_scrape_but_not_for_ever() {
    let origin = Origin::start(|_| Reply::ok(""));
    let config = shutdown("5s", "400ms") + &target("a", &origin.url("/"), "50/s", "");
    let mut daemon = Daemon::start(&config);
    daemon.scrape_after("a", 5.0);
    let start = std::time::Instant::now();
    let (status, _) = daemon.stop();
    assert_eq!(status.code(), Some(0));
    assert!(start.elapsed() >= Duration::from_millis(400), "gone after {:?}", start.elapsed());
}

#[test]
fn the_second_signal_ends_it_at_once() {
    for (second, code) in [(Signal::TERM, 128 + 15), (Signal::INT, 128 + 2)] {
        let origin = Origin::start(|_| Reply::silence());
        let config = shutdown("10m", "10m") + &target("a", &origin.url("/"), "50/s", "timeout = \"10m\"");
        let mut daemon = Daemon::start(&config);
        origin.wait_requests(5);
        daemon.signal(Signal::TERM);
        drains(&daemon);
        assert!(daemon.is_running());
        daemon.signal(second);
        assert_eq!(daemon.wait_exit(PATIENCE).code(), Some(code));
    }
}

#[test]
fn sigusr1_prints_a_summary_and_nothing_stops() {
    let origin = Origin::start(|_| Reply::ok(""));
    let mut daemon = Daemon::start(&target("a", &origin.url("/"), "50/s", ""));
    let before = daemon.scrape_after("a", 10.0);
    daemon.signal(Signal::USR1);
    wait_until("a summary", PATIENCE, || daemon.summaries().len() == 1);
    let after = daemon.scrape();
    let scheduled = |scrape: &Scrape| scrape.value("hammerd_requests_scheduled_total", &[("target", "a")]);
    let said = daemon.summaries()[0]["targets"]["a"]["scheduled"].as_f64().expect("a number");
    assert!((scheduled(&before)..=scheduled(&after)).contains(&said), "{said}");
    daemon.scrape_after("a", scheduled(&after) + 5.0);
    daemon.stop();
    assert_eq!(daemon.summaries().len(), 2);
}

/// `--duration` ends a run as SIGTERM would, after exactly as many arrivals as the rate makes of it.
#[test]
fn a_duration_ends_the_run() {
    let origin = Origin::start(|_| Reply::ok("").delayed(Duration::from_millis(100)));
    let config =
        shutdown("20s", "0s") + "[engine]\nlate_after = \"10s\"\n" + &target("a", &origin.url("/"), "50/s", "");
    let mut daemon = Daemon::builder(&config).arg("--duration").arg("2s").start();
    assert_eq!(daemon.wait_exit(PATIENCE).code(), Some(0));
    let summary = &daemon.summaries().pop().expect("a summary")["targets"]["a"];
    let scheduled = summary["scheduled"].as_f64().expect("a number");
    // The run's clock and the schedule's may start a moment apart, and a busy machine ends it a little late.
    assert!((99.0..=125.0).contains(&scheduled), "{summary:#}");
    assert_eq!(summary["responses"]["200"].as_f64(), Some(origin.requests().len() as f64));
    assert_eq!(summary["started"].as_f64(), Some(origin.requests().len() as f64));
}
