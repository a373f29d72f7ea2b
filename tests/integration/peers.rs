//! The servers that targets sit behind: Envoy, Caddy, haproxy and nginx, as they are. What they log and what the daemon
//! counts are compared request by request.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use crate::faults::{failures, responses};
use crate::pool::closed;
use crate::support::caddy::Caddy;
use crate::support::certificates::Authority;
use crate::support::dns::Dns;
use crate::support::envoy::{Envoy, Limits};
use crate::support::haproxy::{Frontend, Haproxy};
use crate::support::ledger::assert_each_once;
use crate::support::net::in_private_network;
use crate::support::nginx::Nginx;
use crate::support::{Daemon, Scrape, free_port, target, wait_log};

const IDS: &str = "request_id_header = \"x-request-id\"\n";

fn local() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()))
}

/// A file with this authority's certificate, as a line of TOML for a target.
fn trust(authority: &Authority) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("ca.pem");
    std::fs::write(&path, authority.pem()).expect("a file");
    (directory, format!("tls.ca_file = \"{}\"\n", path.display()))
}

fn started(summary: &serde_json::Value) -> usize {
    summary["started"].as_u64().expect("a count") as usize
}

/// Checks that nothing was dropped and nothing failed.
#[track_caller]
fn assert_flawless(scrape: &Scrape, name: &str) {
    assert_eq!(failures(scrape, name), HashMap::new(), "{}", scrape.summary());
    assert_eq!(scrape.sum("hammerd_requests_dropped_total", &[("target", name)]), 0.0, "{}", scrape.summary());
}

/// Row 28: over TLS and by prior knowledge, a farewell every twenty requests or after a second, and few at once.
#[test]
fn envoy_says_farewell_all_the_time_and_gets_every_request_once() {
    const LIMITS: Limits = Limits { streams: 3, requests: 20, age_ms: 1000 };
    let (authority, tls, plain) = (Authority::new("ca"), local(), local());
    let certificate = authority.server(&["127.0.0.1"]);
    let envoy = Envoy::start(&[(tls, Some(&certificate)), (plain, None)], LIMITS);
    let (_file, trust) = trust(&authority);
    let bursts = format!("{IDS}process = \"burst\"\nburst = 10\n");
    let config = target("h2", &format!("https://{tls}/"), "100/s", &format!("{bursts}{trust}"))
        + &target("h2c", &format!("http://{plain}/"), "100/s", &format!("{bursts}http_version = \"2\"\n"))
        // So slow that age is what ends its connections.
        + &target("seldom", &format!("http://{plain}/seldom"), "10/s", &format!("{IDS}http_version = \"2\"\n"));
    let mut daemon = Daemon::start(&config);
    let all = [("h2", tls, "/", 500.0), ("h2c", plain, "/", 500.0), ("seldom", plain, "/seldom", 50.0)];
    let mut scrape = daemon.scrape();
    for (name, .., count) in all {
        scrape = daemon.scrape_after(name, count);
    }
    let (_, summary) = daemon.stop();
    for (name, address, path, _) in all {
        assert_flawless(&scrape, name);
        let summary = &summary["targets"][name];
        let own = || {
            let all = envoy.log_entries().into_iter();
            all.filter(|entry| entry.address == address && entry.path == path).collect::<Vec<_>>()
        };
        let log = wait_log(started(summary), own);
        assert_each_once(log.iter().map(|entry| (&*entry.request_id, entry.status)), summary);
        assert!(log.iter().all(|entry| entry.protocol == "HTTP/2"), "{log:?}");
        let mut connections = BTreeMap::new();
        for entry in &log {
            *connections.entry(entry.connection).or_insert(0) += 1;
        }
        // Those that were sent before the farewell had come are served too.
        let most = LIMITS.requests + LIMITS.streams;
        assert!(connections.values().all(|requests| *requests <= most), "{name}: {connections:?}");
        let ended = closed(&scrape, name).get("peer").copied().unwrap_or(0);
        let least = if name == "seldom" { 3 } else { 20 };
        assert!(ended >= least && connections.len() as u64 > least, "{name}: {}", scrape.summary());
    }
}

/// Row 28: a reload ends all connections with a farewell.
#[test]
fn caddy_is_reloaded_in_the_middle_of_traffic_and_no_request_is_lost() {
    const RELOADS: usize = 5;
    let (authority, address) = (Authority::new("ca"), local());
    let (_file, trust) = trust(&authority);
    let caddy = Caddy::start(address, &authority.server(&["127.0.0.1"]), "x");
    let mut daemon = Daemon::start(&target("a", &format!("https://{address}/"), "200/s", &format!("{IDS}{trust}")));
    for reload in 1..=RELOADS {
        let good = responses(&daemon.scrape(), "a", "200");
        daemon.scrape_when("good answers", |scrape| responses(scrape, "a", "200") >= good + 50.0);
        caddy.reload(&"x".repeat(1 + reload));
    }
    let good = responses(&daemon.scrape(), "a", "200");
    let scrape = daemon.scrape_when("good answers", |scrape| responses(scrape, "a", "200") >= good + 50.0);
    assert_flawless(&scrape, "a");
    assert_eq!(closed(&scrape, "a"), HashMap::from([("peer".to_owned(), RELOADS as u64)]), "{}", scrape.summary());

    let (_, summary) = daemon.stop();
    let summary = &summary["targets"]["a"];
    let log = wait_log(started(summary), || caddy.log_entries());
    assert_each_once(log.iter().map(|entry| (entry.request.id(), entry.status)), summary);
    assert!(log.iter().all(|entry| entry.request.proto == "HTTP/2.0"), "{log:?}");
    for size in 1..=1 + RELOADS {
        let answers = log.iter().filter(|entry| entry.size == size).count();
        assert!(answers >= 50, "{answers} answers of configuration {size}");
    }
}

/// The example that is shipped, as it stands, in a network that has all of its names and addresses. What is redirected
/// are paths of files and sockets of the machine, and the one target whose server listens elsewhere.
#[test]
fn the_example_of_connections_runs_against_real_servers() {
    let (lb, hidden, resolver) = ("10.0.0.7:8443", "10.0.0.8:443", "10.0.0.2:53");
    let addresses = ["10.0.0.7", "10.0.0.8", "10.0.0.2"].map(|address| format!("addr add {address}/32 dev lo"));
    let addresses = addresses.each_ref().map(String::as_str);
    in_private_network("the_example_of_connections_runs_against_real_servers", &addresses, || {
        let [lb, hidden, resolver, web, api, gateway]: [SocketAddr; 6] =
            [lb, hidden, resolver, "127.0.0.21:443", "127.0.0.22:443", "127.0.0.22:8080"]
                .map(|address| address.parse().expect("an address"));
        let (public, private) = (Authority::new("public"), Authority::new("private"));
        let shop = public.server(&["shop.internal"]);
        let caddy = Caddy::start(web, &shop, "ok");
        let envoy = Envoy::start(&[(api, Some(&public.server(&["api.internal"]))), (gateway, None)], Limits::NONE);
        let payments = private.server(&["payments.internal"]);
        let nginx =
            Nginx::builder().certificate(payments).client_ca(&private).directive("ssl_protocols TLSv1.3").start();
        let frontends = [lb, hidden].map(|address| Frontend::new(address, nginx.address()));
        let haproxy = Haproxy::start(&shop, &frontends);
        let names = [("shop", web), ("api", api), ("gateway", gateway)];
        let names = names.map(|(name, address)| format!("--address=/{name}.internal/{}", address.ip()));
        let dns = Dns::start(&names.each_ref().map(String::as_str));
        let _other = Dns::start_at(resolver, &["--address=/shop.internal/10.0.0.8"]);

        let files = tempfile::tempdir().expect("a directory");
        let put = |name: &str, text: &str| {
            let path = files.path().join(name);
            std::fs::write(&path, text).expect("a file");
            path.to_str().expect("UTF-8").to_owned()
        };
        let client = private.client("hammerd");
        let own = |key: &str, value: &str| (format!("HAMMERD__TARGETS__{key}"), value.to_owned());
        let redirected = [
            ("SSL_CERT_FILE".to_owned(), put("public.pem", public.pem())),
            own("PAYMENTS__CONNECT_TO", nginx.mutual_url("").trim_start_matches("https://")),
            own("PAYMENTS__TLS__CA_FILE", &put("ca.pem", private.pem())),
            own("PAYMENTS__TLS__CERT_FILE", &put("client.pem", &client.cert)),
            own("PAYMENTS__TLS__KEY_FILE", &put("client.key", &client.key)),
            own("LOCAL__CONNECT_TO", &format!("unix:{}", nginx.socket().display())),
        ];
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples/connections.toml");
        let example = std::fs::read_to_string(example).expect("the example");
        let wrapper = dns.wrapper();
        let mut builder = Daemon::builder(&example).wrapped(&wrapper.iter().map(String::as_str).collect::<Vec<_>>());
        for (name, value) in &redirected {
            builder = builder.env(name, value);
        }
        let mut daemon = builder.start();

        let names = ["web", "api", "grpc-gateway", "payments", "local", "one-backend", "handshakes"];
        let mut scrape = daemon.scrape();
        assert_eq!(scrape.label_values("hammerd_requests_total", "target").len(), names.len());
        for name in names {
            scrape = daemon.scrape_after(name, if name == "handshakes" { 4.0 } else { 20.0 });
            assert_flawless(&scrape, name);
        }
        let opened = |name: &str| scrape.value("hammerd_connections_opened_total", &[("target", name)]);
        let single = scrape.value("hammerd_requests_started_total", &[("target", "handshakes")]);
        assert_eq!((opened("api"), opened("grpc-gateway"), opened("handshakes")), (1.0, 1.0, single));
        let (_, summary) = daemon.stop();

        // What each server has seen, as: target, id, status, and all that tells how it was asked.
        let mut seen: Vec<(&str, String, u16, String)> = Vec::new();
        for entry in wait_log(started(&summary["targets"]["web"]), || caddy.log_entries()) {
            let how = format!("{} {}", entry.request.proto, entry.request.host);
            seen.push(("web", entry.request.id().to_owned(), entry.status, how));
        }
        let at_envoy = ["api", "grpc-gateway"].map(|name| started(&summary["targets"][name]));
        for entry in wait_log(at_envoy.iter().sum(), || envoy.log_entries()) {
            let name = if entry.address == api { "api" } else { "grpc-gateway" };
            let how = format!("{} {} {} {:?}", entry.protocol, entry.authority, entry.path, entry.server_name);
            seen.push((name, entry.request_id, entry.status, how));
        }
        let behind = names[3..].iter().map(|name| started(&summary["targets"][name])).sum();
        for entry in wait_log(behind, || nginx.log_entries()) {
            let name = if entry.port.is_empty() { "local" } else { "payments" };
            let how = format!("{} {} {} {}", entry.request, entry.host, entry.server_name, entry.client);
            // What is left came through haproxy, which has a log of its own.
            if !entry.client.is_empty() || name == "local" {
                seen.push((name, entry.request_id, entry.status, how.trim_end().to_owned()));
            }
        }
        let at_haproxy = names[5..].iter().map(|name| started(&summary["targets"][name])).sum();
        for entry in wait_log(at_haproxy, || haproxy.log_entries()) {
            let name = if entry.address == lb { "one-backend" } else { "handshakes" };
            let how = format!("{} {} {}", entry.protocol, entry.server_name, entry.resumed);
            seen.push((name, entry.request_id, entry.status, how));
        }
        for (name, expected) in [
            ("web", "HTTP/2.0 shop.internal"),
            ("api", "HTTP/2 api.internal /v1/health Some(\"api.internal\")"),
            ("grpc-gateway", "HTTP/2 gateway.internal:8080 /healthz None"),
            ("payments", "GET /ping HTTP/2.0 payments.internal payments.internal CN=hammerd"),
            ("local", "GET /ready HTTP/1.1 app.internal"),
            ("one-backend", "HTTP/2.0 shop.internal 0"),
            ("handshakes", "HTTP/1.1 shop.internal 0"),
        ] {
            let own: Vec<_> = seen.iter().filter(|(of, ..)| *of == name).collect();
            assert_each_once(own.iter().map(|(_, id, status, _)| (&**id, *status)), &summary["targets"][name]);
            assert_eq!(own.iter().find(|(.., how)| how != expected), None, "{name}");
        }
    });
}

/// The server says farewell every few requests, so that many meet a connection that takes no more and are sent again.
#[test]
fn every_request_has_an_id_of_its_own_over_resends_and_reloads() {
    let nginx = Nginx::builder().directive("keepalive_requests 5").start();
    let all = [("one", nginx.url("/one"), "1.1"), ("two", nginx.h2c_url("/two"), "2")];
    let config = |more: &str| -> String {
        let rest =
            |version: &str| format!("{IDS}process = \"burst\"\nburst = 20\nhttp_version = \"{version}\"\n{more}");
        all.iter().map(|(name, url, version)| target(name, url, "100/s", &rest(version))).collect()
    };
    let mut daemon = Daemon::start(&config(""));
    for (name, ..) in &all {
        daemon.scrape_after(name, 200.0);
    }
    // Another request, and so another hammer, which keeps the connections.
    assert!(daemon.reload_with(&config("headers = { x-other = \"1\" }")));
    for (name, ..) in &all {
        daemon.scrape_after(name, 400.0);
    }
    let (_, summary) = daemon.stop();
    for (name, ..) in &all {
        let (summary, path) = (&summary["targets"][name], format!("GET /{name} "));
        let own = || {
            let all = nginx.log_entries().into_iter();
            all.filter(|entry| entry.request.starts_with(&path)).collect::<Vec<_>>()
        };
        let log = wait_log(started(summary), own);
        assert_each_once(log.iter().map(|entry| (&*entry.request_id, entry.status)), summary);
        let prefixes: HashSet<_> = log.iter().map(|entry| &entry.request_id[..16]).collect();
        assert_eq!(prefixes.len(), 2, "one for each hammer");
    }
}
