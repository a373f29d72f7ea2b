//! Connections that go elsewhere than where the URL points: Unix domain sockets and other addresses.

use std::collections::HashMap;
use std::os::unix::net::UnixListener;

use crate::faults::{assert_logged_sparingly, assert_only_failure, failures, responses};
use crate::support::certificates::Authority;
use crate::support::nginx::Nginx;
use crate::support::{Daemon, Origin, Reply, target};

#[test]
fn a_unix_socket_is_spoken_to_in_the_name_of_the_url() {
    let nginx = Nginx::start();
    let rest = format!("connect_to = \"unix:{}\"", nginx.socket().display());
    let mut daemon = Daemon::start(&target("a", "http://service.test:8080/by/socket", "20/s", &rest));
    let scrape = daemon.scrape_after("a", 20.0);
    assert_eq!(failures(&scrape, "a"), HashMap::new());
    assert_eq!(scrape.value("hammerd_connections_opened_total", &[("target", "a")]), 1.0);
    let phases = |phase| scrape.sum("hammerd_request_phase_seconds_count", &[("target", "a"), ("phase", phase)]);
    assert_eq!(["dns", "connect", "tls"].map(phases), [0.0, 1.0, 0.0]);
    let (_, summary) = daemon.stop();
    let log = nginx.log_entries();
    assert_eq!(summary["targets"]["a"]["started"], log.len());
    assert!(
        log.iter().all(|entry| {
            entry.host == "service.test:8080" && entry.request == "GET /by/socket HTTP/1.1" && entry.port.is_empty()
        }),
        "{log:?}"
    );
}

/// Row 1, for paths.
#[test]
fn a_socket_that_is_missing_or_abandoned_is_connect_refused_until_somebody_listens() {
    let nginx = Nginx::start();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let [missing, abandoned] = ["missing", "abandoned"].map(|name| directory.path().join(name));
    drop(UnixListener::bind(&abandoned).expect("a socket"));
    let config = [("missing", &missing), ("abandoned", &abandoned)].map(|(name, path)| {
        target(name, "http://service.test/", "20/s", &format!("connect_to = \"unix:{}\"", path.display()))
    });
    let daemon = Daemon::start(&config.concat());
    for name in ["missing", "abandoned"] {
        let failed = daemon.scrape_after(name, 10.0);
        assert_only_failure(&failed, name, "connect_refused");
        assert_logged_sparingly(&daemon, &failed, name, "connect_refused");
        assert_eq!(failed.value("hammerd_connections_opened_total", &[("target", name)]), 0.0);
    }
    std::fs::remove_file(&abandoned).expect("the socket");
    for path in [&missing, &abandoned] {
        std::os::unix::fs::symlink(nginx.socket(), path).expect("a link");
    }
    for name in ["missing", "abandoned"] {
        let good = daemon.scrape_when("good answers", |scrape| responses(scrape, name, "200") >= 5.0);
        assert_only_failure(&good, name, "connect_refused");
    }
}

/// Row 5: on this machine, too, they leave some for scrapes.
#[test]
fn connections_to_a_socket_leave_descriptors_for_scrapes() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("silent");
    // The kernel accepts for it, and nobody answers.
    let _listener = UnixListener::bind(&path).expect("a socket");
    let rest = format!("connect_to = \"unix:{}\"\nmax_in_flight = 200\ntimeout = \"10m\"", path.display());
    let daemon = Daemon::builder(&target("a", "http://service.test/", "200/s", &rest))
        .wrapped(&["prlimit", "--nofile=48:48"])
        .start();
    let scrape = daemon.scrape_when("descriptors that are used up", |scrape| {
        failures(scrape, "a").get("local_fds").is_some_and(|&count| count >= 100)
    });
    assert_only_failure(&scrape, "a", "local_fds");
    assert_logged_sparingly(&daemon, &scrape, "a", "local_fds");
    // A quarter is left; of that, a socket that is being refused and the scrapes may hold a few.
    let taken = daemon.open_descriptors();
    assert!((36..=40).contains(&taken), "{taken} of 48 descriptors are in use");
    for _ in 0..20 {
        daemon.scrape();
    }
}

/// Neither name is looked up, and both are kept.
#[test]
fn connect_to_changes_the_way_and_not_the_names() {
    let (authority, directory) = (Authority::new("ca"), tempfile::tempdir().expect("a temporary directory"));
    let ca = directory.path().join("ca.pem");
    std::fs::write(&ca, authority.pem()).expect("a file");
    let nginx = Nginx::builder().certificate(authority.server(&["service.test"])).start();
    let origin = Origin::start(|_| Reply::ok(""));
    let secure = |version: &str| {
        let address = nginx.https2_address();
        let rest =
            format!("connect_to = \"{address}\"\nhttp_version = \"{version}\"\ntls.ca_file = \"{}\"", ca.display());
        target(&format!("v{}", &version[..1]), "https://service.test/secure", "10/s", &rest)
    };
    let plain = target("plain", "http://service.test/plain", "10/s", &format!("connect_to = \"{}\"", origin.address()));
    let daemon = Daemon::start(&(secure("1.1") + &secure("2") + &plain));
    for name in ["v1", "v2", "plain"] {
        let scrape = daemon.scrape_after(name, 10.0);
        assert_eq!(failures(&scrape, name), HashMap::new(), "{name}");
    }
    let log = nginx.log_entries();
    assert!(log.iter().all(|entry| entry.host == "service.test" && entry.server_name == "service.test"), "{log:?}");
    let requests = origin.requests();
    let hosts = |request: &crate::support::origin::Request| request.header("host").map(str::to_owned);
    assert!(requests.iter().all(|request| hosts(request).as_deref() == Some("service.test")), "{requests:?}");
}
