//! Months of operation in small: a load balancer behind a name whose backends come and go, whose certificate is renewed
//! and which is reloaded, while the name server dies and comes back. Steady traffic notices none of it. Root only.
//!
//! Half a minute unless `HAMMERD_BALANCER_SECONDS` says otherwise.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::faults::failures;
use crate::network::start_with;
use crate::support::certificates::{Authority, VALID, seconds};
use crate::support::dns::Dns;
use crate::support::haproxy::{Frontend, Haproxy, LogEntry};
use crate::support::ledger::assert_each_once;
use crate::support::net::in_private_network;
use crate::support::nginx::Nginx;
use crate::support::{Daemon, let_pass, target, wait_log};

const SECONDS_VARIABLE: &str = "HAMMERD_BALANCER_SECONDS";
/// A run takes about as many times the shortest TTL.
const UNITS: f64 = 23.0;

/// The addresses that the name has, at times.
const FIRST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
const SECOND: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 12);
const THIRD: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 13);
const PORT: u16 = 443;
/// A target for each version of HTTP. In bursts, so that each needs several connections, which can be at different backends.
const TARGETS: [(&str, &str); 2] = [("1.1", "HTTP/1.1"), ("2", "HTTP/2.0")];
const MORE: &str = "process = \"burst\"\nburst = 10\nrequest_id_header = \"x-request-id\"\n";
const RENEWED_UNTIL: (i32, u8, u8) = (2119, 2, 3);
/// How long a name server that has failed may be left alone, and then waited for.
const SPARED: Duration = Duration::from_secs(6);
/// What a busy machine may add to the time within which a change is taken up.
const SLACK: Duration = Duration::from_secs(1);

/// How long everything takes.
#[derive(Debug, Clone, Copy)]
struct Times {
    ttl: Duration,
    max_age: Duration,
    /// How long traffic is watched before, between and after changes.
    watched: Duration,
}

/// When something was done, or was to be done by: milliseconds of the wall clock, as in the log.
type Moment = u64;

impl Times {
    fn chosen() -> Self {
        let asked = std::env::var(SECONDS_VARIABLE).map(|text| text.parse::<f64>().expect("seconds"));
        let unit = asked.map_or(1.0, |seconds| seconds / UNITS).max(1.0);
        let ttl = Duration::from_secs(unit as u64);
        Self { ttl, max_age: Duration::from_secs_f64(2.0 * unit), watched: Duration::from_secs_f64(2.0 * unit) }
    }

    /// Within this after it is known, a change of addresses has reached all connections: their age is exact to a tenth.
    fn aged(&self) -> Duration {
        self.max_age.mul_f64(1.1) + SLACK
    }
}

fn now() -> Moment {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock past 1970").as_millis() as Moment
}

fn hosts(addresses: &[Ipv4Addr]) -> String {
    addresses.iter().fold(String::new(), |lines, address| lines + &format!("{address} shop.test\n"))
}

/// A stretch of steady traffic that the log is asked about later.
fn watch(daemon: &Daemon, times: &Times) -> [Moment; 2] {
    let from = now();
    let_pass(times.watched);
    let dropped = daemon.scrape().sum("hammerd_requests_dropped_total", &[]);
    println!("{} s, {dropped} dropped so far", now() / 1000);
    [from, now()]
}

/// How many requests of a target each address has had in a stretch of time.
fn shares(log: &[LogEntry], uri: &str, [from, to]: [Moment; 2]) -> BTreeMap<Ipv4Addr, usize> {
    let mut shares = BTreeMap::from([FIRST, SECOND, THIRD].map(|address| (address, 0)));
    for entry in log.iter().filter(|entry| entry.uri.ends_with(uri) && (from..to).contains(&entry.end_ms)) {
        if let SocketAddr::V4(address) = entry.address {
            *shares.entry(*address.ip()).or_default() += 1;
        }
    }
    shares
}

/// Checks that these addresses, and no others, have each at least half of an equal share.
#[track_caller]
fn assert_shared(log: &[LogEntry], stretch: [Moment; 2], among: &[Ipv4Addr]) {
    for (version, _) in TARGETS {
        let shares = shares(log, &format!("/{version}"), stretch);
        println!("HTTP/{version}: {shares:?}");
        let (all, least) = (shares.values().sum::<usize>(), shares.values().sum::<usize>() / (2 * among.len()));
        assert!(all >= 100, "hardly any traffic: {shares:?}");
        for (address, count) in shares {
            let right = if among.contains(&address) { count >= least } else { count == 0 };
            assert!(right, "HTTP/{version}: {address} has {count} of {all} in {stretch:?}, shared by {among:?}");
        }
    }
}

fn assert_expiry(daemon: &Daemon, expected: f64) {
    let scrape = daemon.scrape();
    for shown in scrape.series("hammerd_tls_peer_certificate_not_after_timestamp_seconds") {
        assert_eq!(shown.value, expected, "{:?}", shown.labels);
    }
}

fn opened(daemon: &Daemon) -> f64 {
    daemon.scrape().sum("hammerd_connections_opened_total", &[])
}

#[test]
fn a_balancer_changes_in_every_way_and_no_request_is_lost() {
    in_private_network("a_balancer_changes_in_every_way_and_no_request_is_lost", &[], || {
        let times = Times::chosen();
        let (authority, nginx) = (Authority::new("ca"), [FIRST, SECOND, THIRD].map(|_| Nginx::start()));
        let [first, second, third] = [(FIRST, 0), (SECOND, 1), (THIRD, 2)]
            .map(|(address, server)| Frontend::new((address, PORT).into(), nginx[server].address()));
        let old = authority.server(&["shop.test"]);
        let haproxy = Haproxy::start(&old, &[first, second, third]);
        let mut dns = Dns::with_hosts(&hosts(&[FIRST, SECOND]), &[&format!("--local-ttl={}", times.ttl.as_secs())]);
        let directory = tempfile::tempdir().expect("a directory");
        let ca_file = directory.path().join("ca.pem");
        std::fs::write(&ca_file, authority.pem()).expect("the authority");
        let defaults =
            format!("[defaults]\npool.max_age = \"{}ms\"\ntls.ca_file = {ca_file:?}\n", times.max_age.as_millis());
        let targets = TARGETS.map(|(version, _)| {
            let rest = format!("{MORE}http_version = \"{version}\"");
            target(&format!("h{}", &version[..1]), &format!("https://shop.test/{version}"), "150/s", &rest)
        });
        let mut daemon = start_with(&dns, &(defaults + &targets.concat()));

        daemon.scrape_after("h1", 20.0);
        daemon.scrape_after("h2", 20.0);
        let at_first = watch(&daemon, &times);
        assert_expiry(&daemon, seconds(VALID.1));

        dns.set_hosts(&hosts(&[FIRST, SECOND, THIRD]));
        let_pass(times.ttl + times.aged());
        let with_third = watch(&daemon, &times);

        dns.set_hosts(&hosts(&[SECOND, THIRD]));
        let_pass(times.ttl + times.aged());
        let without_first = watch(&daemon, &times);

        let new = authority.server_valid(&["shop.test"], (VALID.0, RENEWED_UNTIL));
        haproxy.reload(&new, &[second, third]);
        let_pass(times.aged());
        assert_expiry(&daemon, seconds(RENEWED_UNTIL));

        dns.kill();
        let_pass(times.ttl + SLACK);
        let opened_before = opened(&daemon);
        haproxy.reload(&new, &[first, second, third]);
        let without_resolver = watch(&daemon, &times);
        assert!(opened(&daemon) > opened_before, "nobody had to ask for an address");

        dns.set_hosts(&hosts(&[FIRST, SECOND, THIRD]));
        dns.revive();
        let_pass(times.ttl.max(SPARED) + times.aged());
        let at_last = watch(&daemon, &times);

        let scrape = daemon.scrape();
        let (status, summary) = daemon.stop();
        assert_eq!(status.code(), Some(0));
        for (version, protocol) in TARGETS {
            let name = format!("h{}", &version[..1]);
            assert_eq!(failures(&scrape, &name), HashMap::new(), "{}", scrape.summary());
            let summary = &summary["targets"][&name];
            let own = || -> Vec<LogEntry> {
                haproxy.log_entries().into_iter().filter(|entry| entry.uri.ends_with(&format!("/{version}"))).collect()
            };
            let log = wait_log(summary["started"].as_u64().expect("a count") as usize, own);
            assert_each_once(log.iter().map(|entry| (&*entry.request_id, entry.status)), summary);
            let orderly = |entry: &&LogEntry| entry.protocol == protocol && entry.termination == "--";
            assert_eq!(log.iter().find(|entry| !orderly(entry)), None);
            let workers: BTreeSet<_> = log.iter().map(|entry| entry.worker).collect();
            assert_eq!(workers.len(), 3, "one worker for each configuration");
            println!("{name}: {} requests, all of them in the log of haproxy once; {summary}", log.len());
        }
        let log = haproxy.log_entries();
        for (stretch, among) in [
            (at_first, [FIRST, SECOND].as_slice()),
            (with_third, &[FIRST, SECOND, THIRD]),
            (without_first, &[SECOND, THIRD]),
            (without_resolver, &[SECOND, THIRD]),
            (at_last, &[FIRST, SECOND, THIRD]),
        ] {
            assert_shared(&log, stretch, among);
        }
    });
}
