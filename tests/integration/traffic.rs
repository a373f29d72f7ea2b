//! What the server sees of the schedule: evenness inside the second, across targets and worker threads.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::faults::failures;
use crate::support::origin::Request;
use crate::support::{Daemon, Origin, Reply, Scrape, target};

/// The times between requests that follow each other, rising.
fn gaps(requests: &[Request]) -> Vec<Duration> {
    let mut at: Vec<Instant> = requests.iter().map(|request| request.at).collect();
    at.sort_unstable();
    let mut gaps: Vec<Duration> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
    gaps.sort_unstable();
    gaps
}

/// Where in their period the requests lie: the median of their places, in fractions of it. The circle is cut
/// opposite to the first place, so that a stream that sits on the cut is not torn apart.
pub(crate) fn phase(requests: &[Request], start: Instant, period: Duration) -> f64 {
    let place = |request: &Request| (request.at - start).as_secs_f64() / period.as_secs_f64();
    let cut = place(&requests[0]) - 0.5;
    let mut places: Vec<f64> = requests.iter().map(|request| (place(request) - cut).rem_euclid(1.0)).collect();
    places.sort_unstable_by(f64::total_cmp);
    (places[places.len() / 2] + cut).rem_euclid(1.0)
}

/// How far apart two places on the circle of a period are.
pub(crate) fn distance(a: f64, b: f64) -> f64 {
    let apart = (a - b).abs();
    apart.min(1.0 - apart)
}

/// Promise 2. Half of the gaps may be anything on a busy machine; their median is the period.
#[test]
fn requests_are_even_inside_the_second() {
    let origin = Origin::start(|_| Reply::ok(""));
    let _daemon = Daemon::start(&target("a", &origin.url("/"), "100/s", ""));
    let gaps = gaps(&origin.wait_requests(200));
    let median = gaps[gaps.len() / 2];
    assert!((Duration::from_millis(8)..=Duration::from_millis(12)).contains(&median), "{median:?}");
}

/// Promise 2: no second begins with all targets at once.
#[test]
fn equal_targets_have_different_phases() {
    const PERIOD: Duration = Duration::from_millis(200);
    let origin = Origin::start(|_| Reply::ok(""));
    let names: Vec<String> = (0..8).map(|n| format!("t{n}")).collect();
    let config: String = names.iter().map(|name| target(name, &origin.url(&format!("/{name}")), "5/s", "")).collect();
    let _daemon = Daemon::start(&config);
    let requests = origin.wait_requests(8 * 12);
    let phase_of = |name: &String| {
        let own: Vec<Request> = requests.iter().filter(|request| request.path[1..] == **name).cloned().collect();
        phase(&own, requests[0].at, PERIOD)
    };
    let phases: Vec<f64> = names.iter().map(phase_of).collect();
    let nearest = |n: usize| (0..8).filter(|&m| m != n).map(|m| distance(phases[n], phases[m])).fold(1.0, f64::min);
    assert!((0..8).all(|n| nearest(n) > 0.04), "eight phases, an eighth apart at best: {phases:?}");
}

/// The way of go-hammer, for those who want it.
#[test]
fn a_burst_sends_several_at_once_at_the_same_rate() {
    let origin = Origin::start(|_| Reply::ok(""));
    let daemon = Daemon::start(&target("a", &origin.url("/"), "50/s", "process = \"burst\"\nburst = 10"));
    let gaps = gaps(&origin.wait_requests(60));
    assert!(gaps[gaps.len() / 2] < Duration::from_millis(5), "{gaps:?}");
    assert!(gaps[gaps.len() - 3] > Duration::from_millis(100), "{gaps:?}");
    crate::overload::assert_rate_holds(&daemon, "a", 50.0, Duration::from_secs(2));
}

/// Promise 5, at every scrape, while three threads count and every seventh request fails.
#[test]
fn the_ledger_holds_at_every_scrape_under_load() {
    let turn = AtomicUsize::new(0);
    let origin = Origin::start(move |_| match turn.fetch_add(1, Ordering::Relaxed) % 7 {
        0 => Reply::raw("").reset(),
        1 => Reply::status(503),
        _ => Reply::ok("hello"),
    });
    let two = ["a", "b"].map(|name| target(name, &origin.url("/"), "500/s", "max_in_flight = 20")).concat();
    let mut daemon = Daemon::start(&format!("[engine]\nworkers = 3\n{two}"));
    daemon.scrape_after("a", 10.0);
    // The ledger is checked by each scrape.
    for _ in 0..300 {
        daemon.scrape();
    }
    let scrape = daemon.scrape_after("a", 1000.0);
    let reasons = failures(&scrape, "a");
    assert!(reasons.contains_key("reset") && reasons.contains_key("status"), "{reasons:?}");
    let (status, summary) = daemon.stop();
    assert_eq!(status.code(), Some(0));
    let sum = |key: &str| ["a", "b"].iter().map(|name| summary["targets"][name][key].as_u64().expect(key)).sum::<u64>();
    assert_eq!(sum("started"), origin.requests().len() as u64, "each request is sent once");
}

/// A target too fast for one thread is striped over three and still one exact stream; also across a reload that makes
/// it slow enough for one. It may have three requests in flight: all others are dropped, which costs little.
#[test]
fn a_striped_target_is_one_exact_stream() {
    const FAST: f64 = 30_000.0;
    let origin = Origin::start(|_| Reply::silence());
    let config = |rate: &str| {
        format!(
            "[engine]\nworkers = 3\n{}",
            target("a", &origin.url("/"), rate, "max_in_flight = 3\ntimeout = \"10m\"")
        )
    };
    let daemon = Daemon::start(&config("30000/s"));
    origin.wait_requests(3);
    crate::overload::assert_rate_holds(&daemon, "a", FAST, Duration::from_secs(1));
    let threads = daemon.scrape().value("hammerd_workers", &[]);
    assert_eq!(threads, 3.0);

    let scheduled = |scrape: &Scrape| scrape.value("hammerd_requests_scheduled_total", &[("target", "a")]);
    let before = scheduled(&daemon.scrape());
    assert!(daemon.reload_with(&config("50/s")));
    assert!(scheduled(&daemon.scrape()) >= before, "a counter has fallen");
    crate::overload::assert_rate_holds(&daemon, "a", 50.0, Duration::from_secs(1));
}
