//! How many connections there are, and for how long: every key of the pool, seen from both ends.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::faults::{assert_logged_sparingly, assert_only_failure, failures, responses};
use crate::support::certificates::Authority;
use crate::support::dead::Blackhole;
use crate::support::nginx::Nginx;
use crate::support::origin::Request;
use crate::support::{Daemon, Origin, Reply, Scrape, target, wait_until};
use crate::tls::Files;

/// Closed connections of a target by reason, only those that occurred.
pub(crate) fn closed(scrape: &Scrape, target: &str) -> HashMap<String, u64> {
    let series = scrape.series("hammerd_connections_closed_total");
    let of_target = series.iter().filter(|sample| sample.labels["target"] == target && sample.value > 0.0);
    of_target.map(|sample| (sample.labels["reason"].clone(), sample.value as u64)).collect()
}

fn of(scrape: &Scrape, name: &str, target: &str) -> u64 {
    scrape.value(&format!("hammerd_{name}"), &[("target", target)]) as u64
}

/// Checks that all of a target's connections were closed for this reason, so many of them, and that nothing failed.
#[track_caller]
fn assert_closed(scrape: &Scrape, target: &str, reason: &str, count: u64) {
    assert_eq!(closed(scrape, target), HashMap::from([(reason.to_owned(), count)]), "{}", scrape.summary());
    assert_eq!(failures(scrape, target), HashMap::new(), "{}", scrape.summary());
}

/// A target called `a` with these keys of the pool.
fn pooled(url: &str, rate: &str, pool: &str, rest: &str) -> String {
    target("a", url, rate, &format!("pool = {{ {pool} }}\n{rest}"))
}

/// Waits for a scrape at a moment of rest, after at least `count` requests, with `open` connections.
fn at_rest(daemon: &Daemon, count: u64, open: impl Fn(u64) -> u64) -> Scrape {
    daemon.scrape_when(&format!("rest after {count} requests"), |scrape| {
        let finished = of(scrape, "requests_total", "a");
        let idle = of(scrape, "in_flight_requests", "a") == 0;
        idle && finished >= count && of(scrape, "connections_open", "a") == open(finished)
    })
}

#[test]
fn without_reuse_every_request_has_a_connection_of_its_own() {
    let origin = Origin::start(|_| Reply::ok("hello"));
    let daemon = Daemon::start(&pooled(&origin.url("/"), "40/s", "reuse = false", ""));
    let scrape = at_rest(&daemon, 30, |_| 0);
    let finished = of(&scrape, "requests_total", "a");
    assert_closed(&scrape, "a", "single_use", finished);
    assert_eq!(of(&scrape, "connections_opened_total", "a"), finished);
    assert_eq!(responses(&scrape, "a", "200"), finished as f64);
    let requests = origin.requests();
    assert!(requests.iter().all(|request| request.index == 0), "a second request on a connection");
    assert!(requests.len() as u64 >= finished);
    wait_until("end of the connections", Duration::from_secs(5), || origin.connections_open() == 0);
}

#[test]
fn a_connection_serves_as_many_requests_as_it_may_and_no_more() {
    const MAX: u64 = 3;
    let origin = Origin::start(|_| Reply::ok("hello"));
    // One at a time, so that both ends know which request goes where.
    let pool = format!("max_requests = {MAX}, max_connections = 1");
    let daemon = Daemon::start(&pooled(&origin.url("/"), "40/s", &pool, ""));
    let scrape = at_rest(&daemon, 40, |finished| u64::from(finished % MAX != 0));
    let finished = of(&scrape, "requests_total", "a");
    assert_closed(&scrape, "a", "max_requests", finished / MAX);
    assert_eq!(of(&scrape, "connections_opened_total", "a"), finished.div_ceil(MAX));
    for (request, n) in origin.requests().iter().zip(0..) {
        assert_eq!((request.connection, request.index), (n / MAX + 1, n % MAX), "request {n}");
    }
}

#[test]
fn a_connection_that_has_reached_its_age_makes_way_for_another_and_nothing_fails() {
    const MAX_AGE: Duration = Duration::from_millis(200);
    // The machine may be busy, and stand still for longer.
    const SLACK: Duration = Duration::from_millis(150);
    let origin = Origin::start(|_| Reply::ok("hello"));
    let pool = "max_age = \"200ms\", max_connections = 1";
    let daemon = Daemon::start(&pooled(&origin.url("/"), "50/s", pool, ""));
    let scrape = daemon.scrape_after("a", 100.0);
    let ended = of(&scrape, "connections_opened_total", "a") - of(&scrape, "connections_open", "a");
    assert_closed(&scrape, "a", "max_age", ended);

    let (mut ages, requests) = (BTreeMap::<u64, Vec<Request>>::new(), origin.requests());
    let standstills = |requests: &[Request]| -> Vec<Duration> {
        requests.windows(2).map(|two| two[1].at - two[0].at).filter(|gap| *gap > SLACK).collect()
    };
    let stood_still = standstills(&requests);
    let span = requests[requests.len() - 1].at - requests[0].at;
    let ran_ms = span.saturating_sub(stood_still.iter().sum()).as_millis() as u64;
    // Two requests lie 20 ms apart, and the next connection begins with the next one.
    let (least, most) = (ran_ms / (220 + 20 + 20), ran_ms / 180 + 1 + stood_still.len() as u64);
    assert!((least..=most).contains(&ended), "{ended} connections ended in {ran_ms} ms, not {least} to {most}");
    for request in requests {
        ages.entry(request.connection).or_default().push(request);
    }
    ages.pop_last();
    // What a connection did while the machine stood still says nothing about its age.
    ages.retain(|_, requests| standstills(requests).is_empty());
    for (connection, requests) in ages {
        let age = requests[requests.len() - 1].at - requests[0].at;
        let accepted = (MAX_AGE * 9 / 10).saturating_sub(SLACK)..MAX_AGE * 11 / 10 + SLACK;
        assert!(accepted.contains(&age), "connection {connection} was in use for {age:?}");
    }
}

#[test]
fn an_idle_connection_is_closed_before_the_next_request_and_a_busy_one_is_not() {
    let origin = Origin::start(|request| Reply::ok(&request.path));
    let idle = pooled(&origin.url("/idle"), "1/5s", "idle_timeout = \"2s\"", "");
    let busy = target("busy", &origin.url("/busy"), "20/s", "pool = { idle_timeout = \"2s\" }");
    let daemon = Daemon::start(&format!("{idle}{busy}"));
    let scrape = daemon.scrape_after("a", 1.0);
    assert_eq!(of(&scrape, "connections_opened_total", "a"), 1);
    let scrape = at_rest(&daemon, 1, |_| 0);
    assert_eq!(of(&scrape, "requests_started_total", "a"), 1, "closed before the next request, not by it");
    assert_closed(&scrape, "a", "idle", 1);

    let scrape = daemon.scrape_after("a", 2.0);
    assert_eq!(of(&scrape, "connections_opened_total", "a"), 2);
    assert_closed(&scrape, "a", "idle", 1);
    let indices = origin.requests().into_iter().filter(|request| request.path == "/idle").map(|request| request.index);
    assert_eq!(indices.collect::<Vec<_>>(), [0, 0]);
    assert_eq!(closed(&scrape, "busy"), HashMap::new());
    assert_eq!(of(&scrape, "connections_opened_total", "busy"), 1);
}

#[test]
fn requests_wait_for_one_of_the_connections_that_there_may_be() {
    let origin = Origin::start(|_| Reply::ok("hello").delayed(Duration::from_millis(100)));
    let rest = "process = \"burst\"\nburst = 6";
    let buckets = "[metrics]\nbuckets = [0.099, 0.199, 0.299]\n";
    let config = buckets.to_owned() + &pooled(&origin.url("/"), "12/s", "max_connections = 2", rest);
    let daemon = Daemon::start(&config);
    let scrape = at_rest(&daemon, 30, |_| 2);
    assert_eq!(of(&scrape, "connections_opened_total", "a"), 2);
    assert_eq!(origin.connections_opened(), 2);
    assert_eq!(closed(&scrape, "a"), HashMap::new());
    assert_eq!(failures(&scrape, "a"), HashMap::new());
    let latency = scrape.histogram("hammerd_request_latency_seconds", &[("outcome", "ok")]);
    assert_eq!(latency.count, of(&scrape, "requests_total", "a") as f64);
    // Of six at once, two are served at a time.
    assert_eq!(latency.count_le(0.099), 0.0, "{latency:?}");
    assert!(latency.count_le(0.199) <= latency.count / 3.0, "{latency:?}");
    assert!(latency.count_le(0.299) <= latency.count * 2.0 / 3.0, "{latency:?}");
    let connecting = scrape.sum("hammerd_request_phase_seconds_count", &[("target", "a"), ("phase", "connect")]);
    assert_eq!(connecting, 2.0, "those who waited for a connection did not connect");
}

/// First come, first served must not mean that each gets its connection when it is too late.
#[test]
fn under_a_slight_overload_most_requests_are_answered_and_the_others_had_no_connection() {
    let origin = Origin::start(|_| Reply::ok("hello").delayed(Duration::from_millis(100)));
    let daemon = Daemon::start(&pooled(&origin.url("/"), "15/s", "max_connections = 1", "timeout = \"4s\""));
    let scrape =
        daemon.scrape_when("requests without a connection", |scrape| failures(scrape, "a").values().sum::<u64>() >= 15);
    let (good, failed) = (responses(&scrape, "a", "200"), failures(&scrape, "a"));
    assert_eq!(failed.keys().collect::<Vec<_>>(), ["connect_timeout"], "{}", scrape.summary());
    assert!(good >= 2.0 * failed["connect_timeout"] as f64, "{good} good\n{}", scrape.summary());
    assert_eq!(of(&scrape, "connections_opened_total", "a"), 1);
}

#[test]
fn a_reload_that_allows_fewer_connections_closes_those_above() {
    let origin = Origin::start(|_| Reply::ok("hello").delayed(Duration::from_millis(50)));
    let config = |max: u32| pooled(&origin.url("/"), "60/s", &format!("max_connections = {max}"), "timeout = \"2s\"");
    let daemon = Daemon::start(&config(6));
    daemon.scrape_when("several connections", |scrape| of(scrape, "connections_open", "a") >= 3);
    assert!(daemon.reload_with(&config(1)));
    let scrape = daemon.scrape_when("one connection", |scrape| of(scrape, "connections_open", "a") == 1);
    assert!(closed(&scrape, "a")["retired"] >= 2, "{}", scrape.summary());
}

#[test]
fn requests_that_get_no_connection_in_time_are_connect_timeout() {
    let origin = Origin::start(|_| Reply::silence());
    let rest = "process = \"burst\"\nburst = 6\ntimeout = \"1s\"";
    let daemon = Daemon::start(&pooled(&origin.url("/"), "3/s", "max_connections = 2", rest));
    let scrape = at_rest(&daemon, 12, |_| 0);
    let finished = of(&scrape, "requests_total", "a");
    let expected = [("timeout_response", finished / 3), ("connect_timeout", finished * 2 / 3)];
    let expected: HashMap<_, _> = expected.map(|(reason, count)| (reason.to_owned(), count)).into();
    assert_eq!(failures(&scrape, "a"), expected, "two of each six had a connection\n{}", scrape.summary());
    assert_eq!(closed(&scrape, "a"), HashMap::from([("canceled".to_owned(), finished / 3)]), "{}", scrape.summary());
    assert_logged_sparingly(&daemon, &scrape, "a", "connect_timeout");

    origin.set_reply(|_| Reply::ok("hello"));
    daemon.scrape_when("good answers", |scrape| responses(scrape, "a", "200") >= 6.0);
    let healed = at_rest(&daemon, 0, |_| 2);
    let good = responses(&healed, "a", "200");
    let later = daemon.scrape_when("more good answers", |scrape| responses(scrape, "a", "200") >= good + 12.0);
    assert_eq!(failures(&later, "a"), failures(&healed, "a"));
    assert_eq!(closed(&later, "a"), closed(&healed, "a"), "two connections carry it all");
}

#[test]
fn connections_are_open_before_the_first_request_asks_for_one() {
    let origin = Origin::start(|_| Reply::ok("hello").delayed(Duration::from_millis(100)));
    // Of two equal targets one begins in the middle of the period.
    let rest = "process = \"burst\"\nburst = 3\npool = { preconnect = 3 }";
    let config = ["a", "b"].map(|name| target(name, &origin.url(&format!("/{name}")), "3/6s", rest)).concat();
    let daemon = Daemon::start(&config);
    let early = |scrape: &Scrape| {
        let early = |name: &str| {
            let waiting = of(scrape, "requests_scheduled_total", name) == 0;
            waiting && of(scrape, "connections_open", name) == 3
        };
        ["a", "b"].into_iter().find(|name| early(name))
    };
    let scrape = daemon.scrape_when("three connections and no request", |scrape| early(scrape).is_some());
    let name = early(&scrape).expect("just seen");
    assert_eq!(of(&scrape, "connections_opened_total", name), 3);

    let scrape = daemon.scrape_after(name, 3.0);
    assert_eq!(of(&scrape, "connections_opened_total", name), 3, "requests use those that are open");
    assert_eq!(closed(&scrape, name), HashMap::new());
    assert_eq!(failures(&scrape, name), HashMap::new());
    let connecting = [("target", name), ("phase", "connect")];
    assert_eq!(scrape.sum("hammerd_request_phase_seconds_count", &connecting), 0.0, "nobody had to connect");
}

/// Row 2.
#[test]
fn an_address_that_does_not_answer_is_given_up_after_the_time_for_connecting() {
    let dead = Blackhole::start();
    let pool = "connect_timeout = \"300ms\"";
    let buckets = "[metrics]\nbuckets = [0.299, 2.0]\n";
    let daemon = Daemon::start(&(buckets.to_owned() + &pooled(&dead.url(), "10/s", pool, "timeout = \"20s\"")));
    let scrape = daemon.scrape_after("a", 10.0);
    assert_only_failure(&scrape, "a", "connect_timeout");
    assert_logged_sparingly(&daemon, &scrape, "a", "connect_timeout");
    let latency = scrape.histogram("hammerd_request_latency_seconds", &[("outcome", "failed")]);
    assert_eq!((latency.count_le(0.299), latency.count_le(2.0)), (0.0, latency.count), "{latency:?}");
    assert_eq!(of(&scrape, "connections_opened_total", "a"), 0);

    let address = dead.address();
    drop(dead);
    let _healed = Origin::start_at(address, |_| Reply::ok("hello"));
    let healed = daemon.scrape_when("good answers", |scrape| responses(scrape, "a", "200") >= 5.0);
    daemon.scrape_after("a", of(&healed, "requests_total", "a") as f64 + 10.0);
    assert!(failures(&healed, "a").len() <= 2, "{}", healed.summary());
}

#[test]
fn a_reload_that_changes_the_age_keeps_connections_and_holds_for_them_too() {
    let origin = Origin::start(|_| Reply::ok("hello"));
    let config =
        |max_age: &str| pooled(&origin.url("/"), "40/s", &format!("max_connections = 1, max_age = \"{max_age}\""), "");
    let daemon = Daemon::start(&config("5m"));
    daemon.scrape_after("a", 10.0);
    assert!(daemon.reload_with(&config("10m")));
    let finished = of(&daemon.scrape(), "requests_total", "a") as f64;
    let scrape = daemon.scrape_after("a", finished + 20.0);
    assert_eq!(of(&scrape, "connections_opened_total", "a"), 1);
    assert_eq!(closed(&scrape, "a"), HashMap::new());

    assert!(daemon.reload_with(&config("400ms")));
    let scrape = daemon.scrape_when("two ages", |scrape| of(scrape, "connections_opened_total", "a") >= 3);
    let ended = of(&scrape, "connections_opened_total", "a") - of(&scrape, "connections_open", "a");
    assert_closed(&scrape, "a", "max_age", ended);
    assert!(origin.connections_opened() >= 3);
}

/// How long things may take, and how often a name is looked up, is no part of where a connection leads.
#[test]
fn a_reload_that_changes_only_budgets_keeps_connections_and_holds_for_new_ones() {
    let (authority, files) = (Authority::new("ca"), Files::new());
    let nginx = Nginx::builder().certificate(authority.server(&["localhost"])).start();
    let named = |url: String| url.replace("127.0.0.1", "localhost");
    let cases = [("one", nginx.https1_url("/one")), ("two", nginx.https2_url("/two")), ("plain", nginx.url("/plain"))];
    let trust = files.trust(&authority);
    let config = |budget: &str, refresh: &str| -> String {
        let common = format!("timeout = \"10m\"\npool.connect_timeout = \"{budget}\"\n");
        let common = format!("{common}dns = {{ family = \"ipv4\", refresh = \"{refresh}\" }}\n");
        let secure = format!("{common}tls.handshake_timeout = \"{budget}\"\n{trust}");
        let rest = |name: &str| if name == "plain" { &common } else { &secure };
        cases.iter().map(|(name, url)| target(name, &named(url.clone()), "20/s", rest(name))).collect()
    };
    let daemon = Daemon::start(&config("5m", "once"));
    for (name, _) in &cases {
        daemon.scrape_after(name, 5.0);
    }
    assert!(daemon.reload_with(&config("1s", "1s")));
    let before = daemon.scrape();
    for (name, _) in &cases {
        let scrape = daemon.scrape_after(name, of(&before, "requests_total", name) as f64 + 30.0);
        assert_eq!(of(&scrape, "connections_opened_total", name), 1, "{name}: {}", scrape.summary());
        assert_eq!((failures(&scrape, name), closed(&scrape, name)), (HashMap::new(), HashMap::new()), "{name}");
    }
    // The kernel accepts, and nobody shakes hands: those who need another connection wait for as long as they may now.
    nginx.freeze();
    let failed = daemon.scrape_when("handshakes that were given up", |scrape| {
        failures(scrape, "one").get("tls_timeout").is_some_and(|&count| count >= 5)
    });
    assert_only_failure(&failed, "one", "tls_timeout");
    nginx.thaw();
}
