//! More arrivals than can be sent: what hangs, freezes or runs out is dropped and counted, and nothing else suffers.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::faults::{assert_only_failure, failures, responses};
use crate::support::nginx::Nginx;
use crate::support::scrape::Histogram;
use crate::support::{Daemon, Origin, Reply, Scrape, let_pass, target};

const BUCKETS: &str = "[metrics]\nbuckets = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 2.0]\n";

fn scheduled(scrape: &Scrape, target: &str) -> f64 {
    scrape.value("hammerd_requests_scheduled_total", &[("target", target)])
}

fn dropped(scrape: &Scrape, target: &str, reason: &str) -> f64 {
    scrape.value("hammerd_requests_dropped_total", &[("target", target), ("reason", reason)])
}

/// Scrapes at two instants at least `apart` from each other, and checks that `rate` arrivals a second came due in
/// between, as exactly as two scrapes can tell it.
#[track_caller]
pub(crate) fn assert_rate_holds(daemon: &Daemon, target: &str, rate: f64, apart: Duration) {
    // How long a busy machine may keep the worker from noticing what is due.
    const NOTICED_WITHIN_S: f64 = 0.25;
    let outer = Instant::now();
    let first = daemon.scrape();
    let inner = Instant::now();
    let_pass(apart);
    let inner = inner.elapsed();
    let second = daemon.scrape();
    let outer = outer.elapsed();
    let due = scheduled(&second, target) - scheduled(&first, target);
    let least = rate * (inner.as_secs_f64() - NOTICED_WITHIN_S) - 1.0;
    let most = rate * (outer.as_secs_f64() + NOTICED_WITHIN_S) + 1.0;
    assert!((least..=most).contains(&due), "{due} arrivals of {target}, not {least} to {most}");
}

/// The first promises: exact, open loop, honest; done-when 3.
#[test]
fn a_target_that_hangs_is_dropped_at_its_limit_and_its_neighbour_does_not_notice() {
    let origin = Origin::start(|request| if request.path == "/hang" { Reply::silence() } else { Reply::ok("") });
    let hang = target("hang", &origin.url("/hang"), "100/s", "max_in_flight = 5\ntimeout = \"1s\"");
    let daemon = Daemon::start(&format!("{BUCKETS}{hang}{}", target("good", &origin.url("/good"), "100/s", "")));
    daemon.scrape_after("hang", 20.0);
    assert_rate_holds(&daemon, "hang", 100.0, Duration::from_secs(1));
    let scrape = daemon.scrape();

    assert_only_failure(&scrape, "hang", "timeout_response");
    assert_eq!(scrape.value("hammerd_in_flight_requests_limit", &[("target", "hang")]), 5.0);
    assert!(scrape.value("hammerd_in_flight_requests", &[("target", "hang")]) <= 5.0);
    assert!(dropped(&scrape, "hang", "in_flight") > 100.0, "{}", scrape.summary());
    let latency = scrape.histogram("hammerd_request_latency_seconds", &[("target", "hang")]);
    assert_eq!(latency.count, failures(&scrape, "hang")["timeout_response"] as f64);
    assert_eq!(latency.count_le(0.5), 0.0, "no timeout is shorter than the timeout");

    assert_eq!(failures(&scrape, "good").len(), 0);
    assert_eq!(dropped(&scrape, "good", "in_flight"), 0.0);
    assert!((scheduled(&scrape, "good") - scheduled(&scrape, "hang")).abs() <= 1.0);
    assert!(origin.connections_open() <= 5 + 100);
}

/// The limit over all targets.
#[test]
fn the_global_limit_drops_and_says_so() {
    let origin = Origin::start(|_| Reply::silence());
    let two = ["a", "b"].map(|name| target(name, &origin.url("/"), "50/s", "timeout = \"500ms\"")).concat();
    let daemon = Daemon::start(&format!("[limits]\nmax_total_in_flight = 6\n{two}"));
    for _ in 0..20 {
        let scrape = daemon.scrape();
        assert!(scrape.sum("hammerd_in_flight_requests", &[]) <= 6.0, "{}", scrape.summary());
    }
    let scrape = daemon.scrape_when("drops of both targets", |scrape| {
        ["a", "b"].iter().all(|name| dropped(scrape, name, "global_limit") >= 10.0)
    });
    assert_eq!(dropped(&scrape, "a", "in_flight") + dropped(&scrape, "b", "in_flight"), 0.0);
    assert!(origin.connections_open() <= 6 + 100);
}

/// How many observations of a histogram lie above a boundary.
fn above(histogram: &Histogram, seconds: f64) -> f64 {
    histogram.count - histogram.count_le(seconds)
}

/// No coordinated omission: done-when 3. The server stands still for a second; those who would have come meanwhile
/// have all waited for the rest of that second, each a little less than the one before.
#[test]
fn a_frozen_server_shows_as_latency_spread_over_the_freeze() {
    const RATE: f64 = 200.0;
    /// What a latency and a duration may differ by unless hammerd itself was late.
    const LAG_S: f64 = 0.1;
    let nginx = Nginx::start();
    let late = "[engine]\nlate_after = \"10s\"\n";
    let config = target("a", &nginx.url("/"), "200/s", "max_in_flight = 1000");
    let daemon = Daemon::start(&format!("{BUCKETS}{late}{config}"));
    daemon.scrape_after("a", 20.0);

    let outer = Instant::now();
    let before = daemon.scrape();
    nginx.freeze();
    let frozen = Instant::now();
    let_pass(Duration::from_secs(1));
    let frozen = frozen.elapsed().as_secs_f64();
    let due = scheduled(&daemon.scrape(), "a");
    nginx.thaw();
    let after = daemon.scrape_after("a", due);
    let outer = outer.elapsed().as_secs_f64();

    assert_eq!(failures(&after, "a").len(), 0);
    let slower = |name: &str, labels: &[(&str, &str)], seconds: f64| {
        above(&after.histogram(name, labels), seconds) - above(&before.histogram(name, labels), seconds)
    };
    let in_flight = before.value("hammerd_in_flight_requests", &[("target", "a")]);
    let lagging = slower("hammerd_schedule_lag_seconds", &[], LAG_S);
    for tenth in 2..=9 {
        let seconds = f64::from(tenth) / 10.0;
        // Whatever else was slow adds to them, but nobody waits longer than from the arrival to the last scrape.
        let range = RATE * (frozen - seconds) - 2.0..=RATE * (outer - seconds) + in_flight + 2.0;
        let latencies = slower("hammerd_request_latency_seconds", &[("target", "a")], seconds);
        assert!(range.contains(&latencies), "{latencies} latencies above {seconds} s, not in {range:?}");
        // They were sent when they were due, so that the server took as long by its own measure.
        let durations = slower("hammerd_request_duration_seconds", &[("target", "a")], f64::from(tenth - 1) / 10.0);
        assert!(durations >= latencies - lagging, "{durations} durations against {latencies} latencies, {seconds} s");
    }
}

/// Row 29 and done-when 4.
#[test]
fn a_frozen_daemon_drops_what_it_missed_and_sends_no_burst() {
    const RATE: f64 = 100.0;
    const LATE_AFTER_S: f64 = 0.1;
    let origin = Origin::start(|_| Reply::ok(""));
    let daemon = Daemon::start(&target("a", &origin.url("/"), "100/s", ""));
    let before = daemon.scrape_after("a", 50.0);

    daemon.signal(Signal::STOP);
    let asleep = Instant::now();
    let_pass(Duration::from_secs(2));
    let asleep = asleep.elapsed().as_secs_f64();
    let sent_before = origin.requests().len();
    daemon.signal(Signal::CONT);
    let requests = origin.wait_requests(sent_before + 50);

    let late = dropped(&daemon.scrape(), "a", "late") - dropped(&before, "a", "late");
    let least = RATE * (asleep - LATE_AFTER_S) - 2.0;
    assert!(late >= least, "{late} dropped as late, not at least {least}");

    let first = requests[sent_before].at;
    let at_once =
        requests[sent_before..].iter().filter(|request| request.at - first < Duration::from_millis(10)).count();
    let most = RATE * LATE_AFTER_S + 3.0;
    assert!((at_once as f64) <= most, "{at_once} requests at once after the thaw, not at most {most}");
    assert_rate_holds(&daemon, "a", RATE, Duration::from_secs(1));
}

/// To wait for a shared wake-up is no lateness, whatever the two are set to.
#[test]
fn coalescing_makes_nothing_late() {
    let origin = Origin::start(|_| Reply::ok(""));
    let engine = "[engine]\ncoalesce = \"100ms\"\nlate_after = \"50ms\"\n";
    let daemon = Daemon::start(&format!("{engine}{}", target("a", &origin.url("/"), "100/s", "")));
    let scrape = daemon.scrape_when("arrivals", |scrape| scheduled(scrape, "a") >= 200.0);
    // A busy machine may add some that are late by themselves.
    assert!(dropped(&scrape, "a", "late") < 40.0, "{}", scrape.summary());
}

/// Promise 4: what hammerd itself was late by is in the latency and shown as lag, and is not blamed on the target.
#[test]
fn a_late_daemon_shows_as_latency_and_lag_and_not_as_duration() {
    const RATE: f64 = 100.0;
    let origin = Origin::start(|_| Reply::ok(""));
    let late = "[engine]\nlate_after = \"10s\"\n";
    let config = target("a", &origin.url("/"), "100/s", "max_in_flight = 1000");
    let daemon = Daemon::start(&format!("{BUCKETS}{late}{config}"));
    let before = daemon.scrape_after("a", 10.0);
    daemon.signal(Signal::STOP);
    let asleep = Instant::now();
    let_pass(Duration::from_secs(1));
    let asleep = asleep.elapsed().as_secs_f64();
    daemon.signal(Signal::CONT);
    // The first scrapes after the thaw may come before the worker has noticed what it missed.
    let missed = scheduled(&before, "a") + RATE * asleep - 2.0;
    let due = scheduled(&daemon.scrape_when("what it missed", |scrape| scheduled(scrape, "a") >= missed), "a");
    let scrape = daemon.scrape_after("a", due);

    assert_eq!(dropped(&scrape, "a", "late"), 0.0);
    let slow = |name: &str, labels: &[(&str, &str)]| above(&scrape.histogram(name, labels), 0.5);
    let least = RATE * (asleep - 0.5) - 2.0;
    let latency = slow("hammerd_request_latency_seconds", &[("target", "a")]);
    let lag = slow("hammerd_schedule_lag_seconds", &[]);
    assert!(latency >= least && lag >= least, "{latency} latencies and {lag} lags above 0.5 s, not {least}");
    let duration = slow("hammerd_request_duration_seconds", &[("target", "a")]);
    assert!(duration < least / 2.0, "{duration} durations above 0.5 s at a target that answers at once");
}

/// Done-when 2 in small: what nginx has logged is what was counted, to the last request, while rates change.
#[test]
fn an_access_log_and_the_counters_agree_to_the_last_request() {
    let nginx = Nginx::start();
    let config = |rate: u32| {
        target("a", &nginx.url("/"), &format!("{rate}/s"), "") + &target("b", &nginx.url("/64k"), "50/s", "")
    };
    let mut daemon = Daemon::start(&config(300));
    for rate in [200, 400, 100, 500] {
        let count = daemon.scrape().value("hammerd_requests_total", &[("target", "a")]);
        daemon.scrape_after("a", count + 100.0);
        assert!(daemon.reload_with(&config(rate)));
        assert!(!daemon.reload_with("[targets.a]\nurl = 5\n"), "a bad file is refused");
    }
    let (status, summary) = daemon.stop();
    assert_eq!(status.code(), Some(0));
    let log = nginx.log_entries();
    for (name, path) in [("a", "/"), ("b", "/64k")] {
        let served = log.iter().filter(|entry| entry.request == format!("GET {path} HTTP/1.1")).count();
        let counted = &summary["targets"][name];
        assert_eq!(counted["started"], served, "{counted}");
        assert_eq!(counted["responses"]["200"], served, "{counted}");
    }
}

/// Promise 1, as far as a test may last.
#[test]
fn as_many_requests_are_sent_as_the_rate_asks_for() {
    let nginx = Nginx::start();
    let three = target("per-second", &nginx.url("/"), "77/s", "")
        + &target("per-minute", &nginx.url("/"), "90/min", "")
        + &target("fast", &nginx.url("/"), "1000/s", "");
    let daemon = Daemon::start(&three);
    daemon.scrape_after("fast", 1.0);
    for (name, rate) in [("per-second", 77.0), ("per-minute", 1.5), ("fast", 1000.0)] {
        assert_rate_holds(&daemon, name, rate, Duration::from_secs(2));
        assert_eq!(daemon.scrape().value("hammerd_target_requests_per_second", &[("target", name)]), rate);
    }
    let scrape = daemon.scrape();
    assert_eq!(responses(&scrape, "fast", "200"), scrape.value("hammerd_requests_total", &[("target", "fast")]));
}
