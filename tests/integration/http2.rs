//! HTTP/2 against real servers: many requests on one connection, limits, farewells, and servers that hang or die.

use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::faults::{assert_logged_sparingly, assert_only_failure, assert_recover, failures, responses};
use crate::support::dead::Blackhole;
use crate::support::nghttpd::Nghttpd;
use crate::support::nginx::{LogEntry, Nginx};
use crate::support::{Daemon, Scrape, assert_ledger, target, wait_for};

const H2: &str = "http_version = \"2\"\n";

fn opened(scrape: &Scrape) -> f64 {
    scrape.value("hammerd_connections_opened_total", &[("target", "a")])
}

fn finished(scrape: &Scrape) -> f64 {
    scrape.value("hammerd_requests_total", &[("target", "a")])
}

fn closed(scrape: &Scrape, reason: &str) -> f64 {
    scrape.value("hammerd_connections_closed_total", &[("target", "a"), ("reason", reason)])
}

/// Stops the daemon; checks that each request was sent and answered once, as the server has it, and none was cut off.
#[track_caller]
fn assert_same_count(daemon: &mut Daemon, log: impl FnOnce() -> usize) {
    let (status, summary) = daemon.stop();
    assert_eq!(status.code(), Some(0));
    let (summary, seen) = (&summary["targets"]["a"], log());
    let expected = [("started", seen), ("finished", seen), ("canceled", 0)];
    assert!(expected.iter().all(|(key, count)| summary[key] == *count), "{seen} seen by the server: {summary}");
    assert_eq!(summary["responses"]["200"], seen);
}

/// The numbers of the connections, each with the requests on it.
fn by_connection(log: &[LogEntry]) -> HashMap<u64, Vec<&LogEntry>> {
    let mut connections: HashMap<u64, Vec<&LogEntry>> = HashMap::new();
    for entry in log {
        connections.entry(entry.connection).or_default().push(entry);
    }
    connections
}

/// The largest number of these requests that ran at one moment. Times have a resolution of a millisecond: requests that
/// touch do not overlap.
fn most_at_once(requests: &[&LogEntry]) -> usize {
    let running_at = |moment: f64| {
        let runs = |entry: &&&LogEntry| entry.end - entry.seconds <= moment && moment < entry.end - 0.002;
        requests.iter().filter(runs).count()
    };
    requests.iter().map(|entry| running_at(entry.end - entry.seconds)).max().unwrap_or(0)
}

#[test]
fn http2_is_spoken_by_prior_knowledge_on_one_connection() {
    let server = Nghttpd::start(&[]);
    let mut daemon = Daemon::start(&target("a", &server.url("/small"), "50/s", H2));
    let scrape = daemon.scrape_after("a", 50.0);
    assert_eq!(failures(&scrape, "a"), HashMap::new());
    assert_eq!(opened(&scrape), 1.0);
    let tls = scrape.sum("hammerd_request_phase_seconds_count", &[("target", "a"), ("phase", "tls")]);
    assert_eq!(tls, 0.0);
    assert_same_count(&mut daemon, || server.requests().len());
    let connections: HashSet<u64> = server.requests().into_iter().collect();
    assert_eq!(connections.len(), 1);
}

#[test]
fn requests_that_take_long_run_beside_each_other_on_one_connection() {
    let nginx = Nginx::start();
    let mut daemon = Daemon::start(&target("a", &nginx.h2c_url("/slow"), "10/s", H2));
    let scrape = daemon.scrape_when("fifteen requests in flight, and as many done", |scrape| {
        scrape.value("hammerd_in_flight_requests", &[("target", "a")]) >= 15.0 && finished(scrape) >= 15.0
    });
    assert_eq!(failures(&scrape, "a"), HashMap::new());
    assert_eq!(opened(&scrape), 1.0);
    assert_eq!(scrape.sum("hammerd_requests_dropped_total", &[("target", "a")]), 0.0);
    assert_same_count(&mut daemon, || nginx.log_entries().len());
    let log = nginx.log_entries();
    assert!(log.iter().all(|entry| entry.protocol == "HTTP/2.0" && entry.connection == log[0].connection), "{log:?}");
    let at_once = most_at_once(&log.iter().collect::<Vec<_>>());
    assert!(at_once >= 15, "{at_once}: {log:?}");
}

/// Row 28.
#[test]
fn a_server_that_allows_few_requests_at_once_gets_more_connections_and_every_request() {
    let nginx = Nginx::builder().directive("http2_max_concurrent_streams 2").start();
    let mut daemon = Daemon::start(&target("a", &nginx.h2c_url("/slow"), "10/s", H2));
    let scrape = daemon.scrape_after("a", 30.0);
    assert_eq!(failures(&scrape, "a"), HashMap::new());
    assert!((8.0..=30.0).contains(&opened(&scrape)), "{}", scrape.summary());
    assert_eq!(scrape.sum("hammerd_requests_dropped_total", &[("target", "a")]), 0.0);
    assert_same_count(&mut daemon, || nginx.log_entries().len());
    let log = nginx.log_entries();
    for requests in by_connection(&log).values() {
        assert!(most_at_once(requests) <= 2, "{requests:?}");
    }
}

/// Row 28: a farewell every five requests, one after the other and twenty at once.
#[test]
fn a_server_that_says_farewell_every_few_requests_costs_none() {
    for more in ["max_in_flight = 10\n", "max_in_flight = 20\nprocess = \"burst\"\nburst = 20\n"] {
        let nginx = Nginx::builder().directive("keepalive_requests 5").start();
        let mut daemon = Daemon::start(&target("a", &nginx.h2c_url("/"), "60/s", &format!("{H2}{more}")));
        let scrape = daemon.scrape_after("a", 500.0);
        assert_eq!(failures(&scrape, "a"), HashMap::new(), "{more}");
        assert!(opened(&scrape) >= 100.0, "{more}: {}", scrape.summary());
        assert!(closed(&scrape, "peer") >= 50.0, "{more}: {}", scrape.summary());
        // Those in use, and as many that idle.
        let open = scrape.value("hammerd_connections_open", &[("target", "a")]);
        assert!(open <= 40.0, "{more}: {}", scrape.summary());
        assert_same_count(&mut daemon, || nginx.log_entries().len());
        let log = nginx.log_entries();
        assert!(by_connection(&log).values().all(|requests| requests.len() <= 5), "{log:?}");
    }
}

/// Row 28: what the first connections have shown holds for the next ones. Otherwise most of a hundred requests at once would
/// be sent in vain again and again, and in the end each on a connection of its own.
#[test]
fn a_farewell_every_ten_requests_takes_no_more_connections_than_it_must() {
    const EACH: f64 = 10.0;
    let nginx = Nginx::builder().directive("keepalive_requests 10").start();
    let rest = format!("{H2}max_in_flight = 200\nprocess = \"burst\"\nburst = 100\n");
    let mut daemon = Daemon::start(&target("a", &nginx.h2c_url("/"), "200/s", &rest));
    let scrape = daemon.scrape_after("a", 1000.0);
    assert_eq!(failures(&scrape, "a"), HashMap::new());
    let (must, may) = (finished(&scrape) / EACH, finished(&scrape) / EACH * 1.3 + EACH);
    assert!((must..=may).contains(&opened(&scrape)), "not {must} to {may}: {}", scrape.summary());
    assert_same_count(&mut daemon, || nginx.log_entries().len());
    let log = nginx.log_entries();
    assert!(by_connection(&log).values().all(|requests| requests.len() as f64 <= EACH), "{log:?}");
}

/// Row 22: what is known beforehand may be wrong.
#[test]
fn a_server_that_speaks_only_http1_is_protocol_where_http2_is_known_beforehand() {
    let nginx = Nginx::start();
    let config = target("a", &nginx.url("/"), "20/s", H2);
    let daemon = Daemon::start(&config);
    let failed = daemon.scrape_after("a", 10.0);
    assert_only_failure(&failed, "a", "protocol");
    assert_logged_sparingly(&daemon, &failed, "a", "protocol");
    assert!(daemon.reload_with(&target("a", &nginx.url("/"), "20/s", "")));
    let healed = assert_recover(&daemon, &["a"], 20.0, Duration::ZERO);
    assert_only_failure(&healed, "a", "protocol");
}

/// Rows 15 and 28.
#[test]
fn a_frozen_server_is_timeouts_and_good_again_on_a_new_connection() {
    let nginx = Nginx::start();
    let daemon = Daemon::start(&target("a", &nginx.h2c_url("/"), "20/s", &format!("{H2}timeout = \"1s\"")));
    daemon.scrape_after("a", 5.0);
    let before = nginx.log_of(5);
    nginx.freeze();
    // More than were in flight on the connection that it froze: it has ended with the last of them.
    let failed = daemon.scrape_when("thirty failures", |scrape| failures(scrape, "a").values().sum::<u64>() >= 30);
    assert_only_failure(&failed, "a", "timeout_response");
    assert_logged_sparingly(&daemon, &failed, "a", "timeout_response");
    let ends: Vec<String> = crate::pool::closed(&failed, "a").into_keys().collect();
    assert_eq!(ends, ["canceled"], "the dead path is given up: {}", failed.summary());
    nginx.thaw();
    let healed = assert_recover(&daemon, &["a"], 20.0, Duration::from_secs(1));
    assert_only_failure(&healed, "a", "timeout_response");
    let log = nginx.log_entries();
    assert!(log[log.len() - 1].connection > before[0].connection, "{log:?}");
    assert_eq!(healed.value("hammerd_connections_open", &[("target", "a")]), 1.0, "{}", healed.summary());
}

/// Row 28: whoever has long to wait finds out by a ping.
#[test]
fn a_ping_that_goes_unanswered_ends_the_connection() {
    const PING_PATIENCE: Duration = Duration::from_secs(40);
    let nginx = Nginx::start();
    let daemon = Daemon::start(&target("a", &nginx.h2c_url("/"), "2/s", &format!("{H2}timeout = \"2m\"")));
    daemon.scrape_after("a", 3.0);
    nginx.freeze();
    let failed = wait_for("failure", PING_PATIENCE, || {
        let scrape = daemon.scrape();
        if failures(&scrape, "a").is_empty() { Err(scrape.summary()) } else { Ok(scrape) }
    });
    assert_only_failure(&failed, "a", "timeout_response");
    let latency = failed.histogram("hammerd_request_latency_seconds", &[("target", "a"), ("outcome", "failed")]);
    assert!(latency.sum / latency.count < 30.0, "{latency:?}: not the request's own timeout");
    nginx.thaw();
    let healed = assert_recover(&daemon, &["a"], 2.0, Duration::ZERO);
    assert_only_failure(&healed, "a", "timeout_response");
}

#[test]
fn a_server_that_was_killed_is_used_again_when_it_is_back() {
    let mut server = Nghttpd::start(&[]);
    let daemon = Daemon::start(&target("a", &server.url("/small"), "20/s", H2));
    daemon.scrape_after("a", 10.0);
    server.kill();
    let failed = daemon.scrape_when("ten refused connections", |scrape| {
        failures(scrape, "a").get("connect_refused").is_some_and(|&refused| refused >= 10)
    });
    // The one that was under way, if there was one, met the end of the connection.
    let mut others = failures(&failed, "a");
    others.remove("connect_refused");
    assert!(
        others.len() <= 1
            && others.iter().all(|(reason, &count)| ["eof", "reset"].contains(&reason.as_str()) && count == 1),
        "{others:?}"
    );
    assert_logged_sparingly(&daemon, &failed, "a", "connect_refused");

    server.restart();
    let healed = assert_recover(&daemon, &["a"], 20.0, Duration::ZERO);
    assert_eq!(opened(&healed), 2.0);
    let connections: HashSet<u64> = server.requests().into_iter().collect();
    assert_eq!(connections.len(), 1);
}

/// Row 2: those who wait for a connection together have each the time for connecting, also who came when the others had
/// nearly used it up.
#[test]
fn an_attempt_that_fails_for_others_does_not_cut_the_time_of_those_who_join_it() {
    let dead = Blackhole::start();
    let buckets = "[metrics]\nbuckets = [0.499, 2.0]\n";
    let rest = format!("{H2}timeout = \"20s\"\npool.connect_timeout = \"500ms\"");
    let daemon = Daemon::start(&(buckets.to_owned() + &target("a", &dead.url(), "20/s", &rest)));
    let scrape = daemon.scrape_after("a", 40.0);
    assert_only_failure(&scrape, "a", "connect_timeout");
    let latency = scrape.histogram("hammerd_request_latency_seconds", &[("outcome", "failed")]);
    assert_eq!((latency.count_le(0.499), latency.count_le(2.0)), (0.0, latency.count), "{latency:?}");
    let address = dead.address();
    drop(dead);
    let _healed = Nghttpd::start_at(address);
    assert_recover(&daemon, &["a"], 20.0, Duration::from_millis(500));
}

/// What the pool allows a connection holds for shared ones.
#[test]
fn a_shared_connection_serves_as_many_requests_as_it_may() {
    let nginx = Nginx::start();
    let rest = format!("{H2}pool.max_requests = 7\n");
    let mut daemon = Daemon::start(&target("a", &nginx.h2c_url("/"), "50/s", &rest));
    let scrape = daemon.scrape_after("a", 60.0);
    assert_eq!(failures(&scrape, "a"), HashMap::new());
    assert!(closed(&scrape, "max_requests") >= 8.0, "{}", scrape.summary());
    assert_same_count(&mut daemon, || nginx.log_entries().len());
    let log = nginx.log_entries();
    assert!(by_connection(&log).values().all(|requests| requests.len() <= 7), "{log:?}");
}

/// A connection that was begun beforehand and never completed does not keep requests from the server behind it.
#[test]
fn a_silent_connection_opened_beforehand_does_not_hold_the_requests_up() {
    let server = Nghttpd::start(&[]);
    let door = Door::before(server.address());
    let rest = format!("{H2}timeout = \"100ms\"\npool = {{ preconnect = 1, connect_timeout = \"500ms\" }}");
    let daemon = Daemon::start(&target("a", &format!("http://{}/", door.address), "20/s", &rest));
    let scrape = daemon.scrape_when("answers", |scrape| responses(scrape, "a", "200") >= 5.0);
    assert_ledger(&scrape);
}

/// Stands before a server: keeps who comes first waiting, for ever and without a word, and lets all others through.
struct Door {
    address: SocketAddr,
    listener: Arc<TcpListener>,
    keeper: Option<JoinHandle<()>>,
}

impl Door {
    fn before(server: SocketAddr) -> Self {
        let listener = Arc::new(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port"));
        let address = listener.local_addr().expect("its address");
        let keeper = std::thread::spawn({
            let listener = Arc::clone(&listener);
            move || {
                let _first = listener.accept();
                while let Ok((near, _)) = listener.accept() {
                    let Ok(far) = TcpStream::connect(server) else { return };
                    for (from, to) in [(near.try_clone(), far.try_clone()), (Ok(far), Ok(near))] {
                        let (mut from, mut to) = (from.expect("a descriptor"), to.expect("a descriptor"));
                        std::thread::spawn(move || {
                            let _ = std::io::copy(&mut from, &mut to);
                            let _ = to.shutdown(Shutdown::Write);
                        });
                    }
                }
            }
        });
        Self { address, listener, keeper: Some(keeper) }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        // Wakes the keeper on Linux.
        let _ = rustix::net::shutdown(&*self.listener, rustix::net::Shutdown::Both);
        let _ = self.keeper.take().map(JoinHandle::join);
    }
}
