//! HTTP/3 against Caddy: what it is spoken like, secured with, kept for, and what is made of a server that goes away.

use std::collections::HashMap;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use crate::faults::{assert_logged_sparingly, assert_only_failure, failures, responses};
use crate::support::caddy_http3::{BIG_BODY, CaddyHttp3, LogEntry, by_connection};
use crate::support::certificates::{Authority, VALID, seconds};
use crate::support::dead::closed_port;
use crate::support::dns::{Dns, NAME_SERVER};
use crate::support::net::in_private_network;
use crate::support::{Daemon, Origin, Reply, Scrape, target, wait_for};

pub(crate) const EXPIRY: &str = "hammerd_tls_peer_certificate_not_after_timestamp_seconds";

/// An authority, and the lines of TOML that ask for HTTP/3 and trust it alone.
pub(crate) struct Trust {
    pub(crate) authority: Authority,
    directory: TempDir,
}

impl Trust {
    pub(crate) fn new() -> Self {
        let (authority, directory) = (Authority::new("ca"), tempfile::tempdir().expect("a temporary directory"));
        std::fs::write(directory.path().join("ca.pem"), authority.pem()).expect("a file");
        Self { authority, directory }
    }

    pub(crate) fn lines(&self) -> String {
        format!("http_version = \"3\"\ntls.ca_file = \"{}\"\n", self.path("ca.pem").display())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn caddy(&self) -> CaddyHttp3 {
        CaddyHttp3::start(self.authority.server(&["127.0.0.1"]))
    }
}

pub(crate) fn opened(scrape: &Scrape) -> f64 {
    scrape.value("hammerd_connections_opened_total", &[("target", "a")])
}

pub(crate) fn open(scrape: &Scrape) -> f64 {
    scrape.value("hammerd_connections_open", &[("target", "a")])
}

pub(crate) fn closed(scrape: &Scrape, reason: &str) -> f64 {
    scrape.value("hammerd_connections_closed_total", &[("target", "a"), ("reason", reason)])
}

/// Why connections of a target were closed.
pub(crate) fn closed_for(scrape: &Scrape, target: &str) -> Vec<String> {
    crate::pool::closed(scrape, target).into_keys().collect()
}

pub(crate) fn phase_count(scrape: &Scrape, phase: &str) -> f64 {
    scrape.sum("hammerd_request_phase_seconds_count", &[("target", "a"), ("phase", phase)])
}

/// Stops the daemon; checks that each request was sent and answered once, as the server has it, and none was cut off.
#[track_caller]
pub(crate) fn assert_same_count(daemon: &mut Daemon, seen: impl FnOnce() -> usize) {
    let (status, summary) = daemon.stop();
    assert_eq!(status.code(), Some(0));
    let (summary, seen) = (&summary["targets"]["a"], seen());
    let expected = [("started", seen), ("finished", seen), ("canceled", 0)];
    assert!(expected.iter().all(|(key, count)| summary[key] == *count), "{seen} seen by the server: {summary}");
    assert_eq!(summary["responses"]["200"], seen);
}

/// That each is a whole answer over HTTP/3.
#[track_caller]
fn assert_http3(log: &[LogEntry]) {
    assert!(log.iter().all(|entry| entry.request.proto == "HTTP/3.0" && entry.status == 200), "{log:?}");
}

#[test]
fn http3_is_spoken_on_one_connection_and_both_ledgers_agree() {
    let trust = Trust::new();
    let caddy = trust.caddy();
    let mut daemon = Daemon::start(&target("a", &caddy.url("/64k"), "50/s", &trust.lines()));
    let scrape = daemon.scrape_after("a", 100.0);
    assert_eq!(failures(&scrape, "a"), HashMap::new());
    assert_eq!((opened(&scrape), open(&scrape)), (1.0, 1.0));
    let finished = scrape.value("hammerd_requests_total", &[("target", "a")]);
    assert_eq!(["dns", "tls"].map(|phase| phase_count(&scrape, phase)), [0.0, 1.0]);
    // Those that came while the connection was opened waited for it.
    assert!((1.0..finished / 2.0).contains(&phase_count(&scrape, "connect")), "{}", scrape.summary());
    assert!(phase_count(&scrape, "receive") >= finished && phase_count(&scrape, "wait") >= finished);
    assert_eq!(scrape.value(EXPIRY, &[("target", "a")]), seconds(VALID.1));
    let received = scrape.value("hammerd_received_bytes_total", &[("target", "a")]);
    let sent = scrape.value("hammerd_sent_bytes_total", &[("target", "a")]);
    assert!(received > finished * BIG_BODY as f64 && sent > finished * 20.0, "{received} received, {sent} sent");
    assert_same_count(&mut daemon, || caddy.log_entries().len());
    let log = caddy.log_entries();
    assert_http3(&log);
    assert_eq!(by_connection(&log).len(), 1);
    let host = caddy.address().to_string();
    assert!(log.iter().all(|entry| entry.request.host == host && entry.size == BIG_BODY), "{log:?}");
}

#[test]
fn requests_that_take_long_run_beside_each_other_on_one_connection() {
    let origin = Origin::start(|_| {
        Reply::raw("").pause(Duration::from_secs(1)).send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    });
    let trust = Trust::new();
    let caddy = CaddyHttp3::builder(trust.authority.server(&["127.0.0.1"])).behind(origin.address()).start();
    let mut daemon = Daemon::start(&target("a", &caddy.url("/behind/slow"), "20/s", &trust.lines()));
    let scrape = daemon.scrape_when("fifteen requests in flight, and as many done", |scrape| {
        let value = |name| scrape.value(name, &[("target", "a")]);
        value("hammerd_in_flight_requests") >= 15.0 && value("hammerd_requests_total") >= 15.0
    });
    assert_eq!(failures(&scrape, "a"), HashMap::new());
    assert_eq!(opened(&scrape), 1.0);
    assert_same_count(&mut daemon, || caddy.log_entries().len());
    assert_http3(&caddy.log_entries());
}

/// Method, body and headers come through; a status that is not expected is that.
#[test]
fn a_request_is_what_the_config_says() {
    let origin = Origin::start(|_| Reply::ok("ok"));
    let trust = Trust::new();
    let caddy = CaddyHttp3::builder(trust.authority.server(&["127.0.0.1"])).behind(origin.address()).start();
    let body = "x".repeat(3 << 20);
    let post = format!("{}method = \"POST\"\nbody = \"{body}\"\nheaders = {{ x-team = \"pay\" }}\n", trust.lines());
    let head = format!("{}method = \"HEAD\"\n", trust.lines());
    let config = target("post", &caddy.url("/behind/post?q=1"), "5/s", &post)
        + &target("head", &caddy.url("/64k"), "5/s", &head)
        + &target("missing", &caddy.url("/404"), "5/s", &trust.lines());
    let daemon = Daemon::start(&config);
    let scrape = daemon.scrape_when("five of each", |scrape| {
        ["post", "head", "missing"]
            .iter()
            .all(|name| scrape.value("hammerd_requests_total", &[("target", name)]) >= 5.0)
    });
    assert_eq!(failures(&scrape, "post"), HashMap::new());
    assert_eq!(failures(&scrape, "head"), HashMap::new());
    assert_only_failure(&scrape, "missing", "status");
    let requests = origin.requests();
    assert!(requests.len() >= 5, "{} requests came through", requests.len());
    assert!(
        requests.iter().all(|request| {
            request.method == "POST" && request.body.len() == 3 << 20 && request.header("x-team") == Some("pay")
        }),
        "{} requests came otherwise",
        requests.len()
    );
    assert!(requests.iter().all(|request| request.path == "/behind/post?q=1"));
}

/// Row 13.
#[test]
fn an_unknown_authority_is_tls_certificate_until_the_config_is_right() {
    let (trust, stranger) = (Trust::new(), Trust::new());
    let caddy = trust.caddy();
    let daemon = Daemon::start(&target("a", &caddy.url("/"), "20/s", &stranger.lines()));
    let failed = daemon.scrape_after("a", 10.0);
    assert_only_failure(&failed, "a", "tls_certificate");
    assert_logged_sparingly(&daemon, &failed, "a", "tls_certificate");
    assert!(closed(&failed, "failed") >= 10.0, "{}", failed.summary());
    assert_eq!(failed.value(EXPIRY, &[("target", "a")]), seconds(VALID.1), "also of one that is refused");
    assert!(caddy.log_entries().is_empty());

    assert!(daemon.reload_with(&target("a", &caddy.url("/"), "20/s", &trust.lines())));
    let healed = daemon.scrape_when("good answers", |scrape| responses(scrape, "a", "200") >= 10.0);
    assert_only_failure(&healed, "a", "tls_certificate");
}

/// The name in TLS and the authority are the URL's, or what the config says, wherever the connection goes.
#[test]
fn connect_to_changes_the_way_and_not_the_names() {
    let trust = Trust::new();
    let caddy = CaddyHttp3::start(trust.authority.server(&["service.test", "other.test"]));
    let there = format!("{}connect_to = \"{}\"\n", trust.lines(), caddy.address());
    let anyone = there.replace(&trust.lines(), "http_version = \"3\"\ntls.insecure_skip_verify = true\n");
    let config = target("a", "https://service.test/a", "10/s", &there)
        + &target("named", "https://service.test/named", "10/s", &format!("{there}tls.server_name = \"other.test\"\n"))
        + &target("wrong", "https://wrong.test/", "10/s", &there)
        + &target("anyone", "https://wrong.test/anyone", "10/s", &anyone);
    let daemon = Daemon::start(&config);
    for (name, asked) in [("a", "service.test"), ("named", "other.test"), ("anyone", "wrong.test")] {
        let scrape = daemon.scrape_after(name, 5.0);
        assert_eq!(failures(&scrape, name), HashMap::new(), "{name}");
        let log = caddy.log_entries();
        let own: Vec<_> = log.iter().filter(|entry| entry.request.uri == format!("/{name}")).collect();
        assert!(!own.is_empty() && own.iter().all(|entry| entry.request.tls.server_name == asked), "{name}: {own:?}");
    }
    assert_only_failure(&daemon.scrape_after("wrong", 5.0), "wrong", "tls_certificate");
}

#[test]
fn a_client_certificate_is_shown_and_its_absence_is_tls_certificate() {
    let trust = Trust::new();
    let certificate = trust.authority.server(&["service.test"]);
    let caddy = CaddyHttp3::builder(certificate).client_ca(&trust.authority).start();
    let there = format!("{}connect_to = \"{}\"\n", trust.lines(), caddy.address());
    let client = trust.authority.client("hammer");
    std::fs::write(trust.path("client.pem"), client.cert).expect("a file");
    std::fs::write(trust.path("client.key"), client.key).expect("a file");
    let file = |key: &str, name: &str| format!("tls.{key} = \"{}\"\n", trust.path(name).display());
    let identity = there.clone() + &file("cert_file", "client.pem") + &file("key_file", "client.key");
    let config = target("a", "https://service.test/known", "10/s", &identity)
        + &target("nobody", "https://service.test/nobody", "10/s", &there);
    let daemon = Daemon::start(&config);
    assert_only_failure(&daemon.scrape_after("nobody", 10.0), "nobody", "tls_certificate");
    let scrape = daemon.scrape_after("a", 10.0);
    assert_eq!(failures(&scrape, "a"), HashMap::new());
    let log = caddy.log_entries();
    assert_http3(&log);
    assert!(log.iter().all(|entry| entry.request.tls.client_common_name == "hammer"), "{log:?}");
}

#[test]
fn sessions_are_resumed_unless_the_config_forbids_it() {
    let trust = Trust::new();
    let caddy = trust.caddy();
    let single = format!("{}pool.max_requests = 1\n", trust.lines());
    let config = target("a", &caddy.url("/a"), "10/s", &single)
        + &target("full", &caddy.url("/full"), "10/s", &format!("{single}tls.resumption = false\n"));
    let daemon = Daemon::start(&config);
    for (name, resumes) in [("a", true), ("full", false)] {
        let scrape = daemon.scrape_after(name, 10.0);
        assert_eq!(failures(&scrape, name), HashMap::new(), "{name}");
        let log = caddy.log_entries();
        let own: Vec<_> = log.iter().filter(|entry| entry.request.uri == format!("/{name}")).collect();
        assert!(own.len() >= 9, "{own:?}");
        // The first one has nothing to go on, nor has one that began before the first ticket had come.
        let resumed = own.iter().filter(|entry| entry.request.tls.resumed).count();
        assert!(if resumes { resumed * 2 > own.len() } else { resumed == 0 }, "{name}: {own:?}");
    }
}

/// Row 1.
#[test]
fn a_closed_port_is_connect_refused_at_once() {
    let trust = Trust::new();
    let url = format!("https://{}/", closed_port());
    let daemon = Daemon::start(&target("a", &url, "20/s", &format!("{}timeout = \"1h\"\n", trust.lines())));
    let scrape = daemon.scrape_after("a", 20.0);
    assert_only_failure(&scrape, "a", "connect_refused");
    assert_logged_sparingly(&daemon, &scrape, "a", "connect_refused");
    assert_eq!(opened(&scrape), 0.0);
}

/// Row 2: it is the connect budget's, or the request's own when that is shorter.
#[test]
fn a_port_that_never_answers_is_connect_timeout() {
    let (trust, silent) = (Trust::new(), UdpSocket::bind("127.0.0.1:0").expect("a socket"));
    let url = format!("https://{}/", silent.local_addr().expect("its address"));
    let config = target("a", &url, "10/s", &format!("{}pool.connect_timeout = \"1s\"\n", trust.lines()))
        + &target("short", &url, "10/s", &format!("{}timeout = \"1s\"\n", trust.lines()));
    let daemon = Daemon::start(&config);
    for name in ["a", "short"] {
        let scrape = daemon.scrape_after(name, 10.0);
        assert_only_failure(&scrape, name, "connect_timeout");
        assert_eq!(scrape.value("hammerd_connections_opened_total", &[("target", name)]), 0.0);
    }
}

/// Row 11: there is somebody, but no handshake comes of it.
#[test]
fn a_port_that_answers_nonsense_is_tls_timeout() {
    let (trust, socket) = (Trust::new(), UdpSocket::bind("127.0.0.1:0").expect("a socket"));
    let url = format!("https://{}/", socket.local_addr().expect("its address"));
    let echo = socket.try_clone().expect("the same socket");
    // Ends with the test's process: a blocked read can't be called off.
    std::thread::spawn(move || {
        let mut datagram = [0; 2048];
        while let Ok((_, client)) = echo.recv_from(&mut datagram) {
            let _ = echo.send_to(b"who is there?", client);
        }
    });
    let rest = |budget: &str| format!("{}{budget} = \"1s\"\n", trust.lines());
    let config =
        target("a", &url, "10/s", &rest("tls.handshake_timeout")) + &target("short", &url, "10/s", &rest("timeout"));
    let daemon = Daemon::start(&config);
    // The one has failed; the other was cut off before it could.
    for (name, end) in [("a", "failed"), ("short", "canceled")] {
        let scrape = daemon.scrape_after(name, 10.0);
        assert_only_failure(&scrape, name, "tls_timeout");
        assert_eq!(closed_for(&scrape, name), [end], "{}", scrape.summary());
    }
}

/// Row 3.
#[test]
fn an_address_without_a_way_is_connect_unreachable() {
    let name = "an_address_without_a_way_is_connect_unreachable";
    in_private_network(name, &["route add unreachable 192.0.2.1", "route add prohibit 192.0.2.2"], || {
        let trust = Trust::new();
        let hosts = [("unreachable", "192.0.2.1"), ("prohibited", "192.0.2.2"), ("no-route", "192.0.2.3")];
        let of = |(name, host): (&str, &str)| target(name, &format!("https://{host}/"), "5/s", &trust.lines());
        let daemon = Daemon::start(&hosts.map(of).concat());
        for (name, _) in hosts {
            assert_only_failure(&daemon.scrape_after(name, 5.0), name, "connect_unreachable");
        }
    });
}

/// Row 44.
#[test]
fn a_denied_network_is_never_dialled() {
    let trust = Trust::new();
    let caddy = trust.caddy();
    let config = format!(
        "[limits]\ndeny_networks = [\"127.0.0.0/8\"]\n{}",
        target("a", &caddy.url("/"), "20/s", &trust.lines())
    );
    let daemon = Daemon::start(&config);
    let scrape = daemon.scrape_after("a", 10.0);
    assert_only_failure(&scrape, "a", "denied");
    assert_eq!(scrape.value("hammerd_sent_bytes_total", &[("target", "a")]), 0.0);
    assert!(caddy.log_entries().is_empty());
}

/// Row 10: one of a name's addresses is dead, and the other carries the traffic.
#[test]
fn a_dead_address_beside_a_good_one_costs_no_request() {
    in_private_network("a_dead_address_beside_a_good_one_costs_no_request", &[], || {
        let trust = Trust::new();
        let caddy = CaddyHttp3::start(trust.authority.server(&["service.test"]));
        let _dns = Dns::with_hosts("127.0.0.1 service.test\n127.0.0.2 service.test\n", &[]);
        let rest = format!("{}dns.servers = [\"{NAME_SERVER}\"]\npool.max_requests = 3\n", trust.lines());
        let url = format!("https://service.test:{}/", caddy.address().port());
        let daemon = Daemon::start(&target("a", &url, "20/s", &rest));
        let scrape = daemon.scrape_after("a", 40.0);
        assert_eq!(failures(&scrape, "a"), HashMap::new());
        assert!(phase_count(&scrape, "dns") >= 1.0, "{}", scrape.summary());
    });
}

/// What it knew of its connections is gone with it; nobody but the kernel says so.
#[test]
fn a_server_that_was_killed_is_used_again_when_it_is_back() {
    let trust = Trust::new();
    let mut caddy = trust.caddy();
    let daemon = Daemon::start(&target("a", &caddy.url("/"), "20/s", &trust.lines()));
    daemon.scrape_after("a", 10.0);
    caddy.kill();
    let failed = daemon.scrape_when("ten refused connections", |scrape| {
        failures(scrape, "a").get("connect_refused").is_some_and(|&refused| refused >= 10)
    });
    // The one that met the end of the connection.
    let mut others = failures(&failed, "a");
    others.remove("connect_refused");
    assert!(others.len() <= 1 && others.get("reset").is_none_or(|&count| count == 1), "{others:?}");
    assert_logged_sparingly(&daemon, &failed, "a", "connect_refused");
    assert_eq!(open(&failed), 0.0);

    caddy.restart();
    let good = responses(&failed, "a", "200");
    let healed = daemon.scrape_when("good answers", |scrape| responses(scrape, "a", "200") >= good + 10.0);
    assert_eq!(opened(&healed), 2.0);
}

/// One that ends in good order says so, and finishes what it has begun.
#[test]
fn a_server_that_is_stopped_and_started_loses_no_request_that_it_had() {
    let trust = Trust::new();
    let mut caddy = trust.caddy();
    let mut daemon = Daemon::start(&target("a", &caddy.url("/"), "50/s", &trust.lines()));
    daemon.scrape_after("a", 20.0);
    caddy.stop();
    let failed = daemon.scrape_when("ten refused connections", |scrape| {
        failures(scrape, "a").get("connect_refused").is_some_and(|&refused| refused >= 10)
    });
    let known = ["connect_refused", "connect_timeout", "reset", "eof"];
    assert!(failures(&failed, "a").keys().all(|reason| known.contains(&reason.as_str())), "{}", failed.summary());
    caddy.restart();
    let good = responses(&failed, "a", "200");
    daemon.scrape_when("good answers", |scrape| responses(scrape, "a", "200") >= good + 20.0);
    let (_, summary) = daemon.stop();
    let log = caddy.log_entries();
    assert_http3(&log);
    let answered = summary["targets"]["a"]["responses"]["200"].as_u64().expect("a count") as usize;
    // One that it answered when nobody could hear it any more is a failure here, and only here.
    let unheard = log.len() - answered;
    assert!(unheard <= 2, "{} answered, {answered} heard", log.len());
}

#[test]
fn a_connection_serves_as_many_requests_and_lives_as_long_as_it_may() {
    let trust = Trust::new();
    let caddy = trust.caddy();
    for (policy, reason, most) in
        [("pool.max_requests = 7\n", "max_requests", 7), ("pool.max_age = \"200ms\"\n", "max_age", usize::MAX)]
    {
        let before = caddy.log_entries().len();
        let mut daemon = Daemon::start(&target("a", &caddy.url("/"), "50/s", &(trust.lines() + policy)));
        let scrape = daemon.scrape_after("a", 70.0);
        assert_eq!(failures(&scrape, "a"), HashMap::new(), "{reason}");
        assert!(closed(&scrape, reason) >= 4.0, "{}", scrape.summary());
        assert_same_count(&mut daemon, || caddy.log_entries().len() - before);
        let log = caddy.log_entries().split_off(before);
        assert_http3(&log);
        assert!(by_connection(&log).len() >= 5 && by_connection(&log).values().all(|&count| count <= most), "{log:?}");
    }
}

/// Neither a reload that leaves the target alone nor one that changes its rate costs a handshake.
#[test]
fn a_reload_keeps_the_connection() {
    let trust = Trust::new();
    let caddy = trust.caddy();
    let config = |rate: &str| target("a", &caddy.url("/"), rate, &trust.lines());
    let mut daemon = Daemon::start(&config("20/s"));
    daemon.scrape_after("a", 10.0);
    assert!(daemon.reload());
    assert!(daemon.reload_with(&config("40/s")));
    let done = daemon.scrape().value("hammerd_requests_total", &[("target", "a")]);
    let scrape = daemon.scrape_after("a", done + 20.0);
    assert_eq!(failures(&scrape, "a"), HashMap::new());
    assert_eq!((opened(&scrape), open(&scrape)), (1.0, 1.0));
    assert_same_count(&mut daemon, || caddy.log_entries().len());
    assert_eq!(by_connection(&caddy.log_entries()).len(), 1);
}

#[test]
fn connections_are_opened_beforehand_and_closed_when_they_idle() {
    let trust = Trust::new();
    let caddy = trust.caddy();
    let rest = format!("{}pool = {{ preconnect = 1, idle_timeout = \"300ms\" }}\n", trust.lines());
    let daemon = Daemon::start(&target("a", &caddy.url("/"), "1/1h", &rest));
    daemon.scrape_when("a connection", |scrape| opened(scrape) >= 1.0);
    let idle = daemon.scrape_when("its end", |scrape| open(scrape) == 0.0);
    assert_eq!((opened(&idle), closed(&idle, "idle")), (1.0, 1.0), "{}", idle.summary());
}

/// Rows 15 and 28.
#[test]
fn a_frozen_server_is_timeouts_and_good_again_on_a_new_connection() {
    let trust = Trust::new();
    let caddy = trust.caddy();
    let rest = format!("{}timeout = \"1s\"\n", trust.lines());
    let daemon = Daemon::start(&target("a", &caddy.url("/"), "20/s", &rest));
    daemon.scrape_after("a", 5.0);
    caddy.freeze();
    let failed = daemon.scrape_when("ten failures of the handshake", |scrape| {
        failures(scrape, "a").get("connect_timeout").is_some_and(|&count| count >= 10)
    });
    let mut others = failures(&failed, "a");
    others.remove("connect_timeout");
    assert_eq!(others.keys().collect::<Vec<_>>(), ["timeout_response"], "of those that had a connection");
    assert_eq!(closed(&failed, "canceled"), 1.0, "the dead path is given up: {}", failed.summary());
    caddy.thaw();
    let good = responses(&failed, "a", "200");
    daemon.scrape_when("good answers", |scrape| responses(scrape, "a", "200") >= good + 10.0);
}

/// While nobody asks for anything, pings keep the connection.
#[test]
fn a_connection_outlives_a_silence_of_its_requests() {
    /// Two requests, seventeen seconds apart; without a ping a connection is lost after fifteen.
    const BOTH_WITHIN: Duration = Duration::from_secs(50);
    let trust = Trust::new();
    let caddy = trust.caddy();
    let daemon = Daemon::start(&target("a", &caddy.url("/"), "1/17s", &trust.lines()));
    let scrape = wait_for("second request", BOTH_WITHIN, || {
        let scrape = daemon.scrape();
        if responses(&scrape, "a", "200") >= 2.0 { Ok(scrape) } else { Err(scrape.summary()) }
    });
    assert_eq!(failures(&scrape, "a"), HashMap::new());
    assert_eq!((opened(&scrape), open(&scrape)), (1.0, 1.0), "{}", scrape.summary());
}

/// Row 28: whoever has long to wait finds out that nobody is there.
#[test]
fn a_silence_that_no_ping_breaks_ends_the_connection() {
    /// Fifteen seconds, and what a busy machine takes; the server itself would give up after thirty.
    const SILENCE_PATIENCE: Duration = Duration::from_secs(25);
    let trust = Trust::new();
    let caddy = trust.caddy();
    let rest = format!("{}timeout = \"2m\"\n", trust.lines());
    let daemon = Daemon::start(&target("a", &caddy.url("/"), "2/s", &rest));
    daemon.scrape_after("a", 3.0);
    caddy.freeze();
    let failed = wait_for("failure", SILENCE_PATIENCE, || {
        let scrape = daemon.scrape();
        if failures(&scrape, "a").contains_key("timeout_response") { Ok(scrape) } else { Err(scrape.summary()) }
    });
    let latency = failed.histogram("hammerd_request_latency_seconds", &[("target", "a"), ("outcome", "failed")]);
    assert!(latency.sum / latency.count < 30.0, "{latency:?}: not the request's own timeout");
    caddy.thaw();
    let good = responses(&failed, "a", "200");
    daemon.scrape_when("good answers", |scrape| responses(scrape, "a", "200") >= good + 5.0);
}

/// Row 5, as over TCP.
#[test]
fn without_descriptors_requests_fail_and_metrics_still_answer() {
    let trust = Trust::new();
    let caddy = trust.caddy();
    let rest = format!("{}pool.max_requests = 1\nmax_in_flight = 200\n", trust.lines());
    let config = target("a", &caddy.url("/"), "200/s", &rest);
    let daemon = Daemon::builder(&config).wrapped(&["prlimit", "--nofile=32:32"]).start();
    let scrape = daemon.scrape_when("descriptors that are used up", |scrape| {
        failures(scrape, "a").get("local_fds").is_some_and(|&count| count >= 20)
    });
    assert_only_failure(&scrape, "a", "local_fds");
    let good = responses(&scrape, "a", "200");
    daemon.scrape_when("more good answers", |scrape| responses(scrape, "a", "200") > good);
}
