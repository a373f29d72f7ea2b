//! Faults below HTTP, each in a network of its own: routes, ports, descriptors, name servers. Root only.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::faults::{assert_logged_sparingly, assert_only_failure, assert_recover, failures, responses};
use crate::overload::assert_rate_holds;
use crate::support::client;
use crate::support::dns::Dns;
use crate::support::net::{in_private_network, ip};
use crate::support::{Daemon, Origin, PATIENCE, Reply, Scrape, is_root, skip, target, wait_until};

fn any_address() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], 0))
}

/// Row 3.
#[test]
fn an_address_without_a_way_is_connect_unreachable_until_there_is_one() {
    let routes = ["route add unreachable 192.0.2.1", "route add prohibit 192.0.2.2"];
    in_private_network("an_address_without_a_way_is_connect_unreachable_until_there_is_one", &routes, || {
        let origin = Origin::start_at(any_address(), |_| Reply::ok(""));
        let port = origin.address().port();
        let cases = [
            ("unreachable", "192.0.2.1", "os error 113"),
            ("prohibited", "192.0.2.2", "os error 13"),
            ("no-route", "192.0.2.3", "os error 101"),
        ];
        let config: String =
            cases.iter().map(|(name, host, _)| target(name, &format!("http://{host}:{port}/"), "5/s", "")).collect();
        let daemon = Daemon::start(&config);
        for (name, _, errno) in cases {
            let scrape = daemon.scrape_after(name, 5.0);
            assert_only_failure(&scrape, name, "connect_unreachable");
            assert_logged_sparingly(&daemon, &scrape, name, "connect_unreachable");
            assert!(!daemon.log_with(&[name, errno]).is_empty(), "no {errno} of {name} in the log");
        }
        assert_eq!(origin.connections_opened(), 0);
        for (_, host, _) in cases {
            ip(&format!("addr add {host}/32 dev lo"));
        }
        assert_recover(&daemon, &cases.map(|(name, ..)| name), 5.0, Duration::ZERO);
    });
}

/// Row 4.
#[test]
fn used_up_local_ports_have_a_reason_of_their_own() {
    const RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
    in_private_network("used_up_local_ports_have_a_reason_of_their_own", &[], || {
        let origin = Origin::start(|_| Reply::silence());
        let daemon = Daemon::start(&target("a", &origin.url("/"), "50/s", "timeout = \"1s\""));
        let range = std::fs::read_to_string(RANGE).expect("the range of local ports");
        std::fs::write(RANGE, "40000 40003").expect("a shorter range");
        let scrape = daemon.scrape_when("ports that are used up", |scrape| {
            failures(scrape, "a").get("local_ports").is_some_and(|&count| count >= 20)
        });
        assert_logged_sparingly(&daemon, &scrape, "a", "local_ports");
        std::fs::write(RANGE, range).expect("the range as it was");
        origin.set_reply(|_| Reply::ok(""));
        assert_recover(&daemon, &["a"], 50.0, Duration::from_secs(1));
    });
}

/// Row 4: a connection for each request leaves its port in `TIME_WAIT`. Those that find none fail at once, and cost no
/// more than others.
#[test]
fn a_connection_for_each_request_uses_up_local_ports_and_nothing_spins() {
    const RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
    const REUSE: &str = "/proc/sys/net/ipv4/tcp_tw_reuse";
    in_private_network("a_connection_for_each_request_uses_up_local_ports_and_nothing_spins", &[], || {
        let origin = Origin::start(|_| Reply::ok(""));
        let daemon = Daemon::start(&target("a", &origin.url("/"), "100/s", "pool.reuse = false"));
        daemon.scrape_after("a", 20.0);
        let range = std::fs::read_to_string(RANGE).expect("the range of local ports");
        // By default a port on loopback may be used again after a second.
        std::fs::write(REUSE, "0").expect("ports that rest");
        std::fs::write(RANGE, "40000 40015").expect("a shorter range");
        let before = daemon.scrape_when("ports that are used up", |scrape| {
            let at_rest = scrape.value("hammerd_in_flight_requests", &[("target", "a")]) == 0.0;
            at_rest && failures(scrape, "a").contains_key("local_ports")
        });
        let good = responses(&before, "a", "200");
        assert_rate_holds(&daemon, "a", 100.0, Duration::from_secs(1));
        let after = daemon.scrape();
        assert_only_failure(&after, "a", "local_ports");
        assert_eq!(responses(&after, "a", "200"), good, "there is no port left");
        let cpu = |scrape: &Scrape| scrape.value("process_cpu_seconds_total", &[]);
        assert!(cpu(&after) - cpu(&before) < 0.5, "{} s of processor time", cpu(&after) - cpu(&before));
        std::fs::write(RANGE, range).expect("the range as it was");
        daemon.scrape_when("good answers", |scrape| responses(scrape, "a", "200") >= good + 10.0);
    });
}

/// Row 5.
#[test]
fn without_descriptors_requests_fail_and_metrics_still_answer() {
    let origin = Origin::start(|_| Reply::silence());
    let rest = "max_in_flight = 200\ntimeout = \"1s\"";
    let config = target("a", &origin.url("/"), "200/s", rest);
    let daemon = Daemon::builder(&config).wrapped(&["prlimit", "--nofile=48:48"]).start();
    let scrape = daemon.scrape_when("descriptors that are used up", |scrape| {
        failures(scrape, "a").get("local_fds").is_some_and(|&count| count >= 100)
    });
    assert_logged_sparingly(&daemon, &scrape, "a", "local_fds");
    for _ in 0..20 {
        assert_eq!(daemon.get("/-/healthy").status, 200);
    }
    let warnings = daemon.log_with(&["WARN", "48"]);
    assert!(!warnings.is_empty(), "the plan exceeds the limit and nobody was told");
    origin.set_reply(|_| Reply::ok(""));
    // The descriptors come free when what was asked before is given up.
    assert_recover(&daemon, &["a"], 200.0, Duration::from_secs(1));
}

/// Row 5: neither the target's connections nor those of idle clients hold a scrape up.
#[test]
fn a_scrape_finds_a_descriptor_when_none_comes_free() {
    let origin = Origin::start(|_| Reply::silence());
    let config = target("a", &origin.url("/"), "200/s", "max_in_flight = 200\ntimeout = \"10m\"");
    let daemon = Daemon::builder(&config).wrapped(&["prlimit", "--nofile=48:48"]).start();
    origin.wait_requests(5);
    let _idle = [(); 40].map(|()| client::connect(daemon.address()).expect("the kernel accepts"));
    let at_the_limit = |scrape: &Scrape| failures(scrape, "a").get("local_fds").is_some_and(|&count| count >= 100);
    daemon.scrape_when("descriptors that are used up", at_the_limit);
    for _ in 0..20 {
        let begun = Instant::now();
        daemon.scrape();
        assert!(begun.elapsed() < Duration::from_secs(1), "a scrape took {:?}", begun.elapsed());
    }
}

/// Row 5: the soft limit is no limit.
#[test]
fn the_descriptor_limit_is_raised_to_the_hard_one() {
    let origin = Origin::start(|_| Reply::ok(""));
    let config = target("a", &origin.url("/"), "1/s", "");
    let daemon = Daemon::builder(&config).wrapped(&["prlimit", "--nofile=64:1024"]).start();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", daemon.pid().as_raw_nonzero())).expect("limits");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("a limit of open files");
    assert_eq!(line.split_whitespace().nth(3), Some("1024"), "{line}");
}

/// A daemon that asks `dns`; the port of every URL is the origin's.
pub(crate) fn start_with(dns: &Dns, config: &str) -> Daemon {
    let wrapper = dns.wrapper();
    Daemon::builder(config).wrapped(&wrapper.iter().map(String::as_str).collect::<Vec<_>>()).start()
}

/// A target called `a` at the origin's port of a named host.
pub(crate) fn named(name: &str, origin: &Origin, rest: &str) -> String {
    target("a", &format!("http://{name}:{}/", origin.address().port()), "10/s", rest)
}

/// Row 6.
#[test]
fn a_name_that_does_not_exist_is_dns_not_found_until_it_does() {
    in_private_network("a_name_that_does_not_exist_is_dns_not_found_until_it_does", &[], || {
        let mut dns = Dns::start(&[]);
        let origin = Origin::start(|_| Reply::ok(""));
        let daemon = start_with(&dns, &named("shop.test", &origin, ""));
        let scrape = daemon.scrape_after("a", 10.0);
        assert_only_failure(&scrape, "a", "dns_not_found");
        assert_logged_sparingly(&daemon, &scrape, "a", "dns_not_found");
        dns.restart(&["--address=/shop.test/127.0.0.1"]);
        assert_recover(&daemon, &["a"], 10.0, Duration::ZERO);
        let authority = format!("shop.test:{}", origin.address().port());
        assert_eq!(origin.requests()[0].header("host"), Some(authority.as_str()));
    });
}

/// Row 7.
#[test]
fn a_failing_name_server_is_dns_failed() {
    const SERVFAIL: u8 = 2;
    const NO_ERROR: u8 = 0;
    for (what, code) in [("SERVFAIL", SERVFAIL), ("an empty answer", NO_ERROR)] {
        in_private_network(&format!("a_failing_name_server_is_dns_failed, {what}"), &[], || {
            let mut dns = Dns::without_records(code);
            let origin = Origin::start(|_| Reply::ok(""));
            let daemon = start_with(&dns, &named("shop.test", &origin, ""));
            let scrape = daemon.scrape_after("a", 10.0);
            assert_only_failure(&scrape, "a", "dns_failed");
            dns.restart(&["--address=/shop.test/127.0.0.1"]);
            assert_recover(&daemon, &["a"], 10.0, Duration::ZERO);
        });
    }
}

/// Row 7: the last good addresses stay in use.
#[test]
fn known_addresses_outlive_their_name_server() {
    const SERVFAIL: u8 = 2;
    in_private_network("known_addresses_outlive_their_name_server", &[], || {
        let dns = Dns::start(&["--address=/shop.test/127.0.0.1", "--local-ttl=1"]);
        // Every request needs a connection of its own, and so an address.
        let origin = Origin::start(|_| Reply::ok("").close());
        let daemon = start_with(&dns, &named("shop.test", &origin, ""));
        daemon.scrape_after("a", 5.0);
        drop(dns);
        let failing = Dns::without_records(SERVFAIL);
        // Three seconds: the answer was good for one.
        let scrape = daemon.scrape_after("a", 5.0 + 30.0);
        assert_eq!(failures(&scrape, "a").len(), 0, "{}", scrape.summary());
        assert_eq!(scrape.value("hammerd_dns_addresses", &[("target", "a")]), 1.0);
        drop(failing);
    });
}

/// The gauge is 0 for an address literal, also for one that has taken a name's place.
#[test]
fn addresses_of_a_name_that_is_gone_are_not_in_use() {
    let origin = Origin::start(|_| Reply::ok(""));
    let config = |host: &str| target("a", &format!("http://{host}:{}/", origin.address().port()), "20/s", "");
    let daemon = Daemon::start(&config("localhost"));
    let addresses = |scrape: &Scrape| scrape.value("hammerd_dns_addresses", &[("target", "a")]);
    daemon.scrape_when("addresses of localhost", |scrape| addresses(scrape) >= 1.0);
    assert!(daemon.reload_with(&config("127.0.0.1")));
    daemon.scrape_when("no addresses of a literal", |scrape| addresses(scrape) == 0.0);
}

/// Row 8.
#[test]
fn a_silent_name_server_is_dns_timeout_and_does_not_hold_up_the_exit() {
    in_private_network("a_silent_name_server_is_dns_timeout_and_does_not_hold_up_the_exit", &[], || {
        let (dns, _socket) = Dns::silent();
        let origin = Origin::start(|_| Reply::ok(""));
        let shutdown = "[shutdown]\ngrace = \"2s\"\nlinger = \"0s\"\n";
        let mut daemon = start_with(&dns, &format!("{shutdown}{}", named("shop.test", &origin, "timeout = \"300ms\"")));
        let scrape = daemon.scrape_after("a", 10.0);
        assert_only_failure(&scrape, "a", "dns_timeout");
        let (status, _) = daemon.stop();
        assert_eq!(status.code(), Some(0));
    });
}

/// Row 8: a name server that speaks again is heard.
#[test]
fn a_name_server_that_was_silent_is_heard_as_soon_as_it_speaks() {
    in_private_network("a_name_server_that_was_silent_is_heard_as_soon_as_it_speaks", &[], || {
        let dns = Dns::start(&["--address=/shop.test/127.0.0.1"]);
        let origin = Origin::start(|_| Reply::ok(""));
        dns.freeze();
        let daemon = start_with(&dns, &named("shop.test", &origin, "timeout = \"500ms\""));
        let scrape = daemon.scrape_after("a", 10.0);
        assert_only_failure(&scrape, "a", "dns_timeout");
        assert_logged_sparingly(&daemon, &scrape, "a", "dns_timeout");
        dns.thaw();
        assert_recover(&daemon, &["a"], 10.0, Duration::from_millis(500));
    });
}

/// Row 10: with a deadline that is longer and one that is shorter than what one address may take.
#[test]
fn of_two_addresses_the_one_that_answers_carries_the_traffic() {
    let blackhole = [
        "link add v0 type veth peer name v1",
        "link set v0 up",
        "link set v1 up",
        "addr add 192.0.2.1/24 dev v0",
        "neigh add 192.0.2.2 lladdr 02:00:00:00:00:01 dev v0",
    ];
    in_private_network("of_two_addresses_the_one_that_answers_carries_the_traffic", &blackhole, || {
        let dns = Dns::start(&["--address=/shop.test/192.0.2.1", "--address=/shop.test/192.0.2.2"]);
        // Every request needs a connection of its own, and every other one begins with the dead address.
        let origin = Origin::start_at(any_address(), |_| Reply::ok("").close());
        let url = format!("http://shop.test:{}/", origin.address().port());
        let long = target("long", &url, "10/s", "timeout = \"10s\"");
        let short = target("short", &url, "10/s", "timeout = \"1s\"");
        let daemon = start_with(&dns, &format!("{long}{short}"));
        for name in ["long", "short"] {
            let scrape = daemon.scrape_after(name, 30.0);
            assert_eq!(scrape.value("hammerd_dns_addresses", &[("target", name)]), 2.0);
            assert_eq!(failures(&scrape, name), HashMap::new());
        }
    });
}

/// Row 33.
#[test]
fn nobody_on_a_read_only_root_as_process_1_without_capabilities_is_enough() {
    if !is_root() {
        return skip("nobody_on_a_read_only_root_as_process_1_without_capabilities_is_enough", "needs root");
    }
    let script = "mount -t proc proc /proc && mount -o remount,bind,ro / && exec setpriv --reuid=65534 --regid=65534 \
                  --clear-groups --bounding-set=-all --no-new-privs \"$@\"";
    let origin = Origin::start(|_| Reply::ok(""));
    let mut daemon = Daemon::builder(&target("a", &origin.url("/"), "20/s", ""))
        .wrapped(&["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script, "sh"])
        .start();
    daemon.scrape_when("good answers", |scrape| responses(scrape, "a", "200") >= 5.0);
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid().as_raw_nonzero())).expect("status");
    let field =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).expect("a field").trim().to_owned();
    assert_eq!((field("CapEff:").as_str(), field("Uid:").split('\t').next()), ("0000000000000000", Some("65534")));
    assert!(field("NSpid:").ends_with("\t1"), "{}", field("NSpid:"));
    let (exit, summary) = daemon.stop();
    assert_eq!(exit.code(), Some(0));
    assert_eq!(summary["targets"]["a"]["canceled"], 0);
    wait_until("end of the connections", PATIENCE, || origin.connections_open() == 0);
}

/// Row 44.
#[test]
fn a_denied_network_gets_nothing() {
    let origin = Origin::start(|_| Reply::ok(""));
    let config = |limits: &str| format!("[limits]\n{limits}\n{}", target("a", &origin.url("/"), "20/s", ""));
    let daemon = Daemon::start(&config("deny_networks = [\"127.0.0.0/8\"]"));
    let scrape = daemon.scrape_after("a", 10.0);
    assert_only_failure(&scrape, "a", "denied");
    assert_logged_sparingly(&daemon, &scrape, "a", "denied");
    assert!(daemon.reload_with(&config("allow_networks = [\"192.0.2.0/24\"]")));
    let count = scrape.value("hammerd_requests_total", &[("target", "a")]);
    daemon.scrape_after("a", count + 10.0);
    assert_eq!(origin.connections_opened(), 0);
    assert!(daemon.reload_with(&config("allow_networks = [\"127.0.0.0/8\"]")));
    assert_recover(&daemon, &["a"], 20.0, Duration::ZERO);
}

/// Row 44: also a network that is denied while connections into it are open.
#[test]
fn a_network_denied_by_a_reload_gets_nothing_from_then_on() {
    let origin = Origin::start(|_| Reply::ok(""));
    let config = |limits: &str| format!("{limits}{}", target("a", &origin.url("/"), "50/s", ""));
    let daemon = Daemon::start(&config(""));
    daemon.scrape_after("a", 10.0);
    assert!(daemon.reload_with(&config("[limits]\ndeny_networks = [\"127.0.0.0/8\"]\n")));
    let denied = |scrape: &Scrape| failures(scrape, "a").get("denied").copied().unwrap_or(0);
    let good = responses(&daemon.scrape_when("denials", |scrape| denied(scrape) >= 1), "a", "200");
    let scrape = daemon.scrape_when("more denials", |scrape| denied(scrape) >= 20);
    assert_eq!(responses(&scrape, "a", "200"), good);
    wait_until("end of the connections", PATIENCE, || origin.connections_open() == 0);
}

/// Row 44: link-local is denied unless told otherwise. In a network of its own: a real one may have an answer there.
#[test]
fn link_local_addresses_are_denied_from_the_start() {
    in_private_network("link_local_addresses_are_denied_from_the_start", &["link set lo up"], || {
        let config = target("a", "http://169.254.169.254/", "20/s", "") + &target("b", "http://[fe80::1]/", "20/s", "");
        let daemon = Daemon::start(&config);
        for name in ["a", "b"] {
            let scrape = daemon.scrape_after(name, 5.0);
            assert_only_failure(&scrape, name, "denied");
        }
        let latency = daemon.scrape().histogram("hammerd_request_latency_seconds", &[("outcome", "failed")]);
        assert!(latency.sum / latency.count < Duration::from_secs(1).as_secs_f64(), "denied without a try");
    });
}
