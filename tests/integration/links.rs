//! Below TLS and HTTP/2: links that go down under secured and shared connections, and networks that must not be reached.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use crate::faults::{assert_logged_sparingly, assert_only_failure, assert_recover, failures};
use crate::pool::closed;
use crate::support::certificates::Authority;
use crate::support::net::{THERE, in_linked_networks};
use crate::support::nginx::Nginx;
use crate::support::{Daemon, Origin, Reply, Scrape, target, wait_for};
use crate::tls::Files;

const H2: &str = "http_version = \"2\"\n";

fn finished(scrape: &Scrape, target: &str) -> f64 {
    scrape.value("hammerd_requests_total", &[("target", target)])
}

/// Waits until this target has failed for each of these reasons, and checks that it did for no other.
fn assert_failures(daemon: &Daemon, target: &str, reasons: &[&str], within: Duration) -> Scrape {
    let expected: HashSet<String> = reasons.iter().map(|&reason| reason.to_owned()).collect();
    wait_for("failures", within, || {
        let scrape = daemon.scrape();
        let seen: HashSet<String> = failures(&scrape, target).into_keys().collect();
        assert!(seen.is_subset(&expected), "{target}: {seen:?}");
        if seen == expected { Ok(scrape) } else { Err(scrape.summary()) }
    })
}

/// Rows 21 and 28. What is under way when the link goes down waits in vain for an answer, what comes later for a
/// connection: until its own deadline, or, when that is far away, until a ping is not answered.
#[test]
fn a_link_that_goes_down_under_tls_or_http2_is_timeouts_and_new_connections_afterwards() {
    const TEST: &str = "a_link_that_goes_down_under_tls_or_http2_is_timeouts_and_new_connections_afterwards";
    const TIMEOUT: Duration = Duration::from_secs(2);
    /// Ten seconds of silence, five more for the answer to a ping, and what a busy machine takes.
    const FOUND_OUT_WITHIN: Duration = Duration::from_secs(40);
    in_linked_networks(TEST, |beyond| {
        let (authority, files) = (Authority::new("ca"), Files::new());
        let certificate = authority.server(&[&THERE.to_string()]);
        let nginx = beyond.run(|| Nginx::builder().host(THERE).certificate(certificate).start());
        let quick = format!("timeout = \"2s\"\n{}", files.trust(&authority));
        let quick_h2c = format!("timeout = \"2s\"\n{H2}");
        let cases = [
            ("tls1", nginx.https1_url("/"), &quick),
            ("tls2", nginx.https2_url("/"), &quick),
            ("h2c", nginx.h2c_url("/"), &quick_h2c),
        ];
        let patient = format!("timeout = \"5m\"\npool.connect_timeout = \"1s\"\n{H2}");
        let mut config = target("patient", &nginx.h2c_url("/"), "2/s", &patient);
        for (name, url, rest) in &cases {
            config.push_str(&target(name, url, "20/s", rest));
        }
        let daemon = Daemon::start(&config);
        for (name, count) in [("patient", 2.0), ("tls1", 10.0), ("tls2", 10.0), ("h2c", 10.0)] {
            let scrape = daemon.scrape_after(name, count);
            assert_eq!(failures(&scrape, name).len(), 0, "{}", scrape.summary());
        }

        beyond.set_link("down");
        for (name, ..) in &cases {
            let scrape = assert_failures(&daemon, name, &["timeout_response", "connect_timeout"], FOUND_OUT_WITHIN);
            assert_eq!(scrape.value("hammerd_connections_open", &[("target", name)]), 0.0, "{}", scrape.summary());
            // A machine that had stood still for a moment has more than one over HTTP/1.1.
            let opened = scrape.value("hammerd_connections_opened_total", &[("target", name)]) as u64;
            assert_eq!(closed(&scrape, name), HashMap::from([("canceled".to_owned(), opened)]), "{name}");
        }
        let scrape = assert_failures(&daemon, "patient", &["timeout_response", "connect_timeout"], FOUND_OUT_WITHIN);
        let latency =
            scrape.histogram("hammerd_request_latency_seconds", &[("target", "patient"), ("outcome", "failed")]);
        assert!(latency.sum / latency.count < 40.0, "{latency:?}: not the request's own timeout");

        beyond.set_link("up");
        assert_recover(&daemon, &cases.each_ref().map(|(name, ..)| *name), 20.0, TIMEOUT);
        assert_recover(&daemon, &["patient"], 2.0, Duration::from_secs(1));
    });
}

/// Row 44, for a name whose addresses are all denied, over TLS.
#[test]
fn a_name_that_leads_into_a_denied_network_gets_no_handshake() {
    let (authority, files) = (Authority::new("ca"), Files::new());
    let nginx = Nginx::builder().certificate(authority.server(&["localhost"])).start();
    let witness = Origin::start(|_| Reply::ok(""));
    let url = |port: u16| format!("https://localhost:{port}/");
    // On IPv4 alone the server listens.
    let rest = format!("dns.family = \"ipv4\"\n{}", files.trust(&authority));
    let targets = target("nginx", &url(nginx.https2_address().port()), "20/s", &rest)
        + &target("witness", &url(witness.address().port()), "20/s", &rest);
    let daemon = Daemon::start(&format!("[limits]\ndeny_networks = [\"127.0.0.0/8\", \"::1/128\"]\n{targets}"));
    for name in ["nginx", "witness"] {
        let scrape = daemon.scrape_after(name, 10.0);
        assert_only_failure(&scrape, name, "denied");
        assert_logged_sparingly(&daemon, &scrape, name, "denied");
        for nothing in ["connections_opened_total", "sent_bytes_total"] {
            assert_eq!(scrape.value(&format!("hammerd_{nothing}"), &[("target", name)]), 0.0, "{name} {nothing}");
        }
        let tls = scrape.sum("hammerd_request_phase_seconds_count", &[("target", name), ("phase", "tls")]);
        assert_eq!(tls, 0.0);
    }
    assert_eq!(witness.connections_opened(), 0);

    assert!(daemon.reload_with(&format!("[limits]\nallow_networks = [\"127.0.0.0/8\"]\n{targets}")));
    let healed = assert_recover(&daemon, &["nginx"], 20.0, Duration::ZERO);
    assert_only_failure(&healed, "nginx", "denied");
    assert!(finished(&healed, "nginx") >= 20.0);
}
