//! TLS against a real server: whom the daemon trusts, who it is, and what is counted when a handshake fails.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use crate::faults::{assert_logged_sparingly, assert_only_failure, assert_recover, failures, responses};
use crate::pool::closed;
use crate::support::certificates::{Authority, Certificate, EXPIRED, NOT_YET_VALID, VALID, seconds};
use crate::support::nginx::{LogEntry, Nginx};
use crate::support::{Daemon, PATIENCE, Scrape, target, wait_until};

pub(crate) const EXPIRY: &str = "hammerd_tls_peer_certificate_not_after_timestamp_seconds";

/// Files that a config names.
pub(crate) struct Files(TempDir);

impl Files {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Replaces a file as a whole, and returns the line of TOML that names it for `key`.
    pub(crate) fn put(&self, key: &str, name: &str, content: &str) -> String {
        let next = self.path("next");
        std::fs::write(&next, content).and_then(|()| std::fs::rename(&next, self.path(name))).expect("a file");
        self.line(key, name)
    }

    fn line(&self, key: &str, name: &str) -> String {
        format!("tls.{key} = \"{}\"\n", self.path(name).display())
    }

    /// The lines that trust this authority alone.
    pub(crate) fn trust(&self, authority: &Authority) -> String {
        self.put("ca_file", "ca.pem", authority.pem())
    }

    /// The lines that show this certificate.
    pub(crate) fn identity(&self, certificate: &Certificate) -> String {
        self.put("cert_file", "client.pem", &certificate.cert) + &self.put("key_file", "client.key", &certificate.key)
    }
}

fn opened(scrape: &Scrape, target: &str) -> f64 {
    scrape.value("hammerd_connections_opened_total", &[("target", target)])
}

fn finished(scrape: &Scrape, target: &str) -> f64 {
    scrape.value("hammerd_requests_total", &[("target", target)])
}

/// Requests that had and completed a phase.
fn phase_count(scrape: &Scrape, target: &str, phase: &str) -> f64 {
    scrape.sum("hammerd_request_phase_seconds_count", &[("target", target), ("phase", phase)])
}

/// Connections of a target that were closed because a request on them failed.
fn closed_failed(scrape: &Scrape, target: &str) -> f64 {
    scrape.value("hammerd_connections_closed_total", &[("target", target), ("reason", "failed")])
}

fn of_path<'a>(log: &'a [LogEntry], path: &str) -> Vec<&'a LogEntry> {
    let path = format!("GET {path} ");
    log.iter().filter(|entry| entry.request.starts_with(&path)).collect()
}

/// A secured connection is made once and used again, over either version of HTTP.
#[test]
fn https_is_spoken_in_the_version_that_the_server_chooses_or_the_config_demands() {
    let (authority, files) = (Authority::new("ca"), Files::new());
    let nginx = Nginx::builder().certificate(authority.server(&["127.0.0.1"])).start();
    let trust = files.trust(&authority);
    let cases = [
        ("only1", nginx.https1_url("/only1"), "", "HTTP/1.1"),
        ("chosen2", nginx.https2_url("/chosen2"), "", "HTTP/2.0"),
        ("forced1", nginx.https2_url("/forced1"), "http_version = \"1.1\"\n", "HTTP/1.1"),
        ("forced2", nginx.https2_url("/forced2"), "http_version = \"2\"\n", "HTTP/2.0"),
    ];
    let mut config = String::new();
    for (name, url, version, _) in &cases {
        config.push_str(&target(name, url, "5/s", &format!("{version}{trust}")));
    }
    let mut daemon = Daemon::start(&config);
    let scrape = daemon
        .scrape_when("twelve requests of each", |scrape| cases.iter().all(|(name, ..)| finished(scrape, name) >= 12.0));
    for (name, ..) in &cases {
        assert_eq!(failures(&scrape, name), HashMap::new(), "{name}");
        assert_eq!(opened(&scrape, name), 1.0, "{name} uses its connection again");
        assert_eq!(phase_count(&scrape, name, "connect"), 1.0, "{name}");
        assert_eq!(phase_count(&scrape, name, "tls"), 1.0, "{name}");
        let waited = phase_count(&scrape, name, "wait");
        assert!(waited >= finished(&scrape, name), "{name}: {waited}");
        assert_eq!(scrape.value(EXPIRY, &[("target", name)]), seconds(VALID.1), "{name}");
    }
    let (_, summary) = daemon.stop();
    let log = nginx.log_entries();
    for (name, _, _, protocol) in &cases {
        let own = of_path(&log, &format!("/{name}"));
        assert_eq!(summary["targets"][name]["started"], own.len(), "{name}");
        assert!(own.iter().all(|entry| entry.protocol == *protocol && entry.status == 200), "{name}: {own:?}");
        assert!(own.iter().all(|entry| entry.connection == own[0].connection), "{name}: {own:?}");
    }
}

/// What was agreed on is not guessed: a server that offers no HTTP/2 is not spoken to in HTTP/2.
#[test]
fn a_server_without_http2_fails_where_http2_is_demanded() {
    let (authority, files) = (Authority::new("ca"), Files::new());
    let nginx = Nginx::builder().certificate(authority.server(&["127.0.0.1"])).start();
    let rest = format!("http_version = \"2\"\n{}", files.trust(&authority));
    let daemon = Daemon::start(&target("a", &nginx.https1_url("/"), "20/s", &rest));
    let scrape = daemon.scrape_after("a", 10.0);
    assert_only_failure(&scrape, "a", "tls_protocol");
    assert!(nginx.log_entries().is_empty(), "{:?}", nginx.log_entries());
}

/// Row 13.
#[test]
fn a_wrong_name_or_an_unknown_authority_is_tls_certificate_until_the_config_is_right() {
    let (authority, files) = (Authority::new("ca"), Files::new());
    let nginx = Nginx::builder().certificate(authority.server(&["service.test"])).start();
    let trust = files.trust(&authority);
    let stranger = files.put("ca_file", "stranger.pem", Authority::new("ca").pem());
    let named = "tls.server_name = \"service.test\"\n";
    let config = |cases: &[(&str, String)]| -> String {
        cases.iter().map(|(name, rest)| target(name, &nginx.https2_url(&format!("/{name}")), "10/s", rest)).collect()
    };
    let wrong = [
        ("name", trust.clone()),
        ("authority", format!("{named}{stranger}")),
        // The system's roots.
        ("nobody", named.to_owned()),
    ];
    let daemon = Daemon::start(&config(&wrong));
    let failed = daemon
        .scrape_when("ten failures of each", |scrape| wrong.iter().all(|(name, _)| finished(scrape, name) >= 10.0));
    for (name, _) in &wrong {
        assert_only_failure(&failed, name, "tls_certificate");
        assert_logged_sparingly(&daemon, &failed, name, "tls_certificate");
        assert!(closed_failed(&failed, name) >= finished(&failed, name), "{name}");
        assert!(opened(&failed, name) >= finished(&failed, name), "{name}");
        assert_eq!(phase_count(&failed, name, "wait"), 0.0, "{name}");
    }
    assert!(nginx.log_entries().is_empty(), "nothing is sent to a stranger: {:?}", nginx.log_entries());

    assert!(daemon.reload_with(&config(&wrong.clone().map(|(name, _)| (name, format!("{named}{trust}"))))));
    assert_recover(&daemon, &wrong.each_ref().map(|(name, _)| *name), 10.0, Duration::ZERO);
}

/// Row 12.
#[test]
fn a_certificate_out_of_its_time_is_tls_certificate_and_its_expiry_is_shown() {
    let (authority, files) = (Authority::new("ca"), Files::new());
    let trust = files.trust(&authority);
    for days in [EXPIRED, NOT_YET_VALID] {
        let mut nginx = Nginx::builder().certificate(authority.server_valid(&["127.0.0.1"], days)).start();
        let versions = [("one", nginx.https1_url("/")), ("two", nginx.https2_url("/"))];
        let config = versions.each_ref().map(|(name, url)| target(name, url, "20/s", &trust)).concat();
        let daemon = Daemon::start(&config);
        for (name, _) in &versions {
            let failed = daemon.scrape_after(name, 10.0);
            assert_only_failure(&failed, name, "tls_certificate");
            assert_logged_sparingly(&daemon, &failed, name, "tls_certificate");
            assert_eq!(failed.value(EXPIRY, &[("target", name)]), seconds(days.1));
        }
        assert!(nginx.log_entries().is_empty(), "{:?}", nginx.log_entries());

        // Its old workers may answer a few more.
        nginx.replace_certificate(&authority.server(&["127.0.0.1"]));
        let good = assert_recover(&daemon, &["one", "two"], 20.0, Duration::from_millis(500));
        for (name, _) in &versions {
            assert_only_failure(&good, name, "tls_certificate");
            assert_eq!(good.value(EXPIRY, &[("target", name)]), seconds(VALID.1));
        }
    }
}

/// A certificate that ends sooner than the one before is the one that counts.
#[test]
fn the_expiry_shown_is_that_of_the_latest_certificate() {
    const SOONER: (i32, u8, u8) = (2100, 6, 7);
    let (authority, files) = (Authority::new("ca"), Files::new());
    let mut nginx = Nginx::builder().certificate(authority.server(&["127.0.0.1"])).start();
    let rest = format!("pool.reuse = false\n{}tls.resumption = false\n", files.trust(&authority));
    let daemon = Daemon::start(&target("a", &nginx.https1_url("/"), "20/s", &rest));
    daemon.scrape_when("the first expiry", |scrape| {
        scrape.try_value(EXPIRY, &[("target", "a")]) == Some(seconds(VALID.1))
    });
    nginx.replace_certificate(&authority.server_valid(&["127.0.0.1"], (VALID.0, SOONER)));
    let scrape = daemon.scrape_when("the second expiry", |scrape| {
        scrape.try_value(EXPIRY, &[("target", "a")]) == Some(seconds(SOONER))
    });
    assert_eq!(failures(&scrape, "a"), HashMap::new());
}

/// Row 14.
#[test]
fn a_server_that_speaks_no_tls_is_tls_protocol() {
    let nginx = Nginx::start();
    let config = target("a", &format!("https://{}/", nginx.address()), "20/s", "");
    let daemon = Daemon::start(&config);
    let failed = daemon.scrape_after("a", 10.0);
    assert_only_failure(&failed, "a", "tls_protocol");
    assert_logged_sparingly(&daemon, &failed, "a", "tls_protocol");
    assert!(closed_failed(&failed, "a") >= finished(&failed, "a"));
    assert_eq!(failed.try_value(EXPIRY, &[("target", "a")]), None, "nobody has shown a certificate");

    assert!(daemon.reload_with(&config.replace("https:", "http:")));
    assert_recover(&daemon, &["a"], 20.0, Duration::ZERO);
}

/// The other way around nginx says so in HTTP.
#[test]
fn plain_http_to_a_tls_port_is_what_the_server_answers() {
    let authority = Authority::new("ca");
    let nginx = Nginx::builder().certificate(authority.server(&["127.0.0.1"])).start();
    let url = nginx.https1_url("/").replace("https:", "http:");
    let daemon = Daemon::start(&target("a", &url, "20/s", ""));
    let scrape = daemon.scrape_after("a", 10.0);
    assert_only_failure(&scrape, "a", "status");
    assert_eq!(responses(&scrape, "a", "400"), finished(&scrape, "a"));
}

/// Row 14: no version, or no cipher, that both sides know.
#[test]
fn nothing_in_common_is_tls_protocol() {
    let (authority, files) = (Authority::new("ca"), Files::new());
    let certificate = authority.server(&["127.0.0.1"]);
    let old = Nginx::builder().certificate(certificate.clone()).directive("ssl_protocols TLSv1.2").start();
    let odd = Nginx::builder()
        .certificate(certificate)
        .directive("ssl_protocols TLSv1.2")
        .directive("ssl_ciphers ECDHE-ECDSA-AES256-SHA384")
        .start();
    let trust = files.trust(&authority);
    let config = |min_version: &str| {
        let version = format!("tls.min_version = \"{min_version}\"\n{trust}");
        target("version", &old.https2_url("/"), "10/s", &version)
            + &target("cipher", &odd.https2_url("/"), "10/s", &trust)
    };
    let daemon = Daemon::start(&config("1.3"));
    for name in ["version", "cipher"] {
        let failed = daemon.scrape_after(name, 10.0);
        assert_only_failure(&failed, name, "tls_protocol");
        assert_logged_sparingly(&daemon, &failed, name, "tls_protocol");
    }
    assert!(old.log_entries().is_empty() && odd.log_entries().is_empty());

    for name in ["version", "cipher"] {
        assert_eq!(daemon.scrape().try_value(EXPIRY, &[("target", name)]), None, "nobody has shown a certificate");
    }

    assert!(daemon.reload_with(&config("1.2").replace(&odd.https2_url("/"), &old.https2_url("/"))));
    assert_recover(&daemon, &["version", "cipher"], 10.0, Duration::ZERO);
}

/// Row 11: the kernel accepts, the server says nothing.
#[test]
fn a_silent_handshake_is_tls_timeout_until_the_server_goes_on() {
    let (authority, files) = (Authority::new("ca"), Files::new());
    let nginx = Nginx::builder().certificate(authority.server(&["127.0.0.1"])).start();
    let trust = files.trust(&authority);
    // Long enough that connecting, which costs nothing here, is over before it on a busy machine too.
    let cases = [("handshake", "tls.handshake_timeout = \"1s\"\n"), ("request", "timeout = \"1s\"\n")];
    let versions = [("1", nginx.https1_url("/")), ("2", nginx.https2_url("/"))];
    let mut names = Vec::new();
    let mut config = String::new();
    for ((case, rest), (version, url)) in cases.iter().flat_map(|case| versions.iter().map(move |url| (case, url))) {
        names.push(format!("{case}{version}"));
        config.push_str(&target(&names[names.len() - 1], url, "10/s", &format!("{rest}{trust}")));
    }
    nginx.freeze();
    let daemon = Daemon::start(&config);
    let failed =
        daemon.scrape_when("ten failures of each", |scrape| names.iter().all(|name| finished(scrape, name) >= 10.0));
    for name in &names {
        assert_only_failure(&failed, name, "tls_timeout");
        assert_logged_sparingly(&daemon, &failed, name, "tls_timeout");
        assert_eq!(phase_count(&failed, name, "tls"), 0.0, "{name}: only what was completed is counted");
        let latency = failed.histogram("hammerd_request_latency_seconds", &[("target", name), ("outcome", "failed")]);
        assert!(latency.sum < 3.0 * latency.count, "{name}: {latency:?} is far above the timeout");
        // The one has failed; the other was cut off before it could.
        let end = if name.starts_with("handshake") { "failed" } else { "canceled" };
        assert_eq!(closed(&failed, name).into_keys().collect::<Vec<_>>(), [end], "{name}");
    }
    let descriptors = daemon.open_descriptors();
    // At 10/s and a second for each no more than some ten handshakes are under way at a time.
    assert!(descriptors < 40 + names.len() * 15, "{descriptors} descriptors");

    nginx.thaw();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let good = assert_recover(&daemon, &names, 10.0, Duration::from_secs(1));
    for name in names {
        assert_only_failure(&good, name, "tls_timeout");
    }
}

/// Who has no certificate, or a stranger's, gets an answer: nginx finishes the handshake and says 400.
#[test]
fn a_client_certificate_is_shown_to_a_server_that_asks() {
    let (authority, clients, files) = (Authority::new("ca"), Authority::new("clients"), Files::new());
    let nginx = Nginx::builder().certificate(authority.server(&["127.0.0.1"])).client_ca(&clients).start();
    let trust = files.trust(&authority);
    let known = files.identity(&clients.client("known"));
    let other = Authority::new("others").client("stranger");
    let stranger = files.put("cert_file", "other.pem", &other.cert) + &files.put("key_file", "other.key", &other.key);
    let one = |name: &str, rest: &str| target(name, &nginx.mutual_url(&format!("/{name}")), "10/s", rest);
    let config = one("known", &format!("{trust}{known}"))
        + &one("known1", &format!("http_version = \"1.1\"\n{trust}{known}"))
        + &one("stranger", &format!("{trust}{stranger}"))
        + &one("nobody", &trust);
    let daemon = Daemon::start(&config);
    for name in ["known", "known1"] {
        let scrape = daemon.scrape_after(name, 10.0);
        assert_eq!(failures(&scrape, name), HashMap::new(), "{name}");
    }
    for name in ["stranger", "nobody"] {
        let scrape = daemon.scrape_after(name, 10.0);
        assert_only_failure(&scrape, name, "status");
        assert_eq!(responses(&scrape, name, "400"), finished(&scrape, name), "{name}");
    }
    let log = nginx.log_entries();
    assert!(of_path(&log, "/known").iter().all(|entry| entry.client == "CN=known" && entry.protocol == "HTTP/2.0"));
    assert!(of_path(&log, "/known1").iter().all(|entry| entry.client == "CN=known" && entry.protocol == "HTTP/1.1"));
    assert!(of_path(&log, "/nobody").iter().all(|entry| entry.client.is_empty()));
}

/// Waits until the server has seen this client, and returns the scrape after that.
fn wait_for_client(nginx: &Nginx, name: &str) {
    let subject = format!("CN={name}");
    wait_until(&format!("request of the client {name}"), PATIENCE, || {
        nginx.log_entries().iter().any(|entry| entry.client == subject)
    });
}

/// Row 45, without a reload and with sessions that could be resumed: new connections show the new certificate. Files
/// that are broken change nothing.
#[test]
fn a_client_certificate_that_changes_on_disk_is_used_by_new_connections() {
    let (authority, clients, files) = (Authority::new("ca"), Authority::new("clients"), Files::new());
    let nginx = Nginx::builder().certificate(authority.server(&["127.0.0.1"])).client_ca(&clients).start();
    let rest = format!("pool.reuse = false\n{}{}", files.trust(&authority), files.identity(&clients.client("first")));
    let daemon = Daemon::start(&target("a", &nginx.mutual_url("/"), "20/s", &rest));
    wait_for_client(&nginx, "first");

    files.identity(&clients.client("second"));
    wait_for_client(&nginx, "second");

    files.put("cert_file", "client.pem", "-----BEGIN CERTIFICATE-----\nnonsense\n");
    wait_until("a word about the broken file", PATIENCE, || !daemon.log_with(&["old one stays"]).is_empty());
    let broken_at = nginx.log_entries().len();
    let log = nginx.log_of(broken_at + 10);
    assert!(log[broken_at..].iter().all(|entry| entry.client == "CN=second"), "{log:?}");

    files.identity(&clients.client("third"));
    wait_for_client(&nginx, "third");
    let scrape = daemon.scrape();
    assert_eq!(failures(&scrape, "a"), HashMap::new());
    assert_eq!(scrape.sum("hammerd_config_reloads_total", &[]), 0.0);
}

/// The name that is asked for, the one that is checked, and the one who checks nothing.
#[test]
fn a_server_name_of_ones_own_and_no_verification_at_all() {
    let (authority, files) = (Authority::new("ca"), Files::new());
    let nginx = Nginx::builder().certificate(authority.server_valid(&["service.test"], EXPIRED)).start();
    let current = Nginx::builder().certificate(authority.server(&["service.test"])).start();
    let config = target("careless", &nginx.https2_url("/careless"), "10/s", "tls.insecure_skip_verify = true\n")
        + &target(
            "named",
            &current.https2_url("/named"),
            "10/s",
            &format!("tls.server_name = \"service.test\"\n{}", files.trust(&authority)),
        )
        + &target("plain", &current.url("/plain"), "10/s", "");
    let daemon = Daemon::start(&config);
    let scrape = daemon.scrape_when("ten requests of each", |scrape| {
        ["careless", "named", "plain"].iter().all(|name| finished(scrape, name) >= 10.0)
    });
    for name in ["careless", "named", "plain"] {
        assert_eq!(failures(&scrape, name), HashMap::new(), "{name}");
    }
    let insecure = |name| scrape.try_value("hammerd_tls_insecure_skip_verify", &[("target", name)]);
    assert_eq!(["careless", "named", "plain"].map(insecure), [Some(1.0), Some(0.0), None]);
    assert_eq!(scrape.value(EXPIRY, &[("target", "careless")]), seconds(EXPIRED.1), "unverified, and still shown");
    assert_eq!(scrape.try_value(EXPIRY, &[("target", "plain")]), None);

    let log = current.log_entries();
    assert!(of_path(&log, "/named").iter().all(|entry| entry.server_name == "service.test"), "{log:?}");
    let host = current.https2_address().to_string();
    assert!(of_path(&log, "/named").iter().all(|entry| entry.host == host), "the host stays the URL's: {log:?}");
    // An address is no name that could be asked for (RFC 6066, 3).
    let log = nginx.log_entries();
    assert!(log.iter().all(|entry| entry.server_name.is_empty()), "{log:?}");
}

#[test]
fn sessions_are_resumed_unless_that_is_off() {
    let (authority, files) = (Authority::new("ca"), Files::new());
    let trust = files.trust(&authority);
    for version in ["TLSv1.2", "TLSv1.3"] {
        let directive = format!("ssl_protocols {version}");
        let nginx = Nginx::builder().certificate(authority.server(&["127.0.0.1"])).directive(&directive).start();
        let one = |name: &str, rest: &str| target(name, &nginx.https1_url(&format!("/{name}")), "20/s", rest);
        let config = one("on", &format!("pool.reuse = false\n{trust}"))
            + &one("off", &format!("pool.reuse = false\ntls.resumption = false\n{trust}"));
        let daemon = Daemon::start(&config);
        for name in ["on", "off"] {
            let scrape = daemon.scrape_after(name, 30.0);
            assert_eq!(failures(&scrape, name), HashMap::new(), "{version} {name}");
            assert!(opened(&scrape, name) >= finished(&scrape, name), "{version} {name}");
            assert_eq!(scrape.value(EXPIRY, &[("target", name)]), seconds(VALID.1), "{version} {name}");
        }
        let log = nginx.log_entries();
        let resumed = |path: &str| of_path(&log, path).iter().map(|entry| entry.resumed.as_str()).collect::<String>();
        let (on, off) = (resumed("/on"), resumed("/off"));
        assert!(on.starts_with('.') && off.chars().all(|word| word == '.'), "{version}: on {on}, off {off}");
        // One that was opened while the first was under way has nothing to resume yet.
        assert!(on.matches('.').count() <= 3, "{version}: on {on}");
    }
}
