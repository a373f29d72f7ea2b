//! Names and the addresses behind them: when they are looked up, whom, which count, and what becomes of connections to
//! those that are gone. Each test in a network of its own. Root only.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use crate::faults::{assert_only_failure, failures, responses};
use crate::network::start_with;
use crate::pool::closed;
use crate::support::dns::Dns;
use crate::support::net::in_private_network;
use crate::support::{Daemon, Origin, PATIENCE, Reply, Scrape, target, wait_until};

const FIRST: Ipv4Addr = Ipv4Addr::LOCALHOST;
const SECOND: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const THIRD: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

/// Every request needs a connection of its own, and so an address.
pub(crate) const NO_REUSE: &str = "pool = { reuse = false }\n";

/// Origins at these addresses, all at one port.
pub(crate) fn origins<const N: usize>(addresses: [IpAddr; N], delay: Duration) -> [Origin; N] {
    let mut port = 0;
    addresses.map(|address| {
        let origin = Origin::start_at(SocketAddr::from((address, port)), move |_| Reply::ok("hello").delayed(delay));
        port = origin.address().port();
        origin
    })
}

/// A target at a named host, with a path that tells it from others.
pub(crate) fn at(host: &str, name: &str, origin: &Origin, rate: &str, rest: &str) -> String {
    target(name, &format!("http://{host}:{}/{name}", origin.address().port()), rate, rest)
}

/// As [`at`], with keys of its names, and an address for each request.
fn asking(host: &str, name: &str, origin: &Origin, dns: &str) -> String {
    at(host, name, origin, "10/s", &format!("{NO_REUSE}dns = {{ {dns} }}"))
}

/// How many requests of a target have come to an origin.
pub(crate) fn came(origin: &Origin, name: &str) -> usize {
    origin.requests().iter().filter(|request| request.path[1..] == *name).count()
}

pub(crate) fn wait_came(origin: &Origin, name: &str, count: usize) {
    wait_until(&format!("{count} requests of {name}"), PATIENCE, || came(origin, name) >= count);
}

pub(crate) fn addresses(scrape: &Scrape, name: &str) -> f64 {
    scrape.value("hammerd_dns_addresses", &[("target", name)])
}

/// Checks that nothing of a target has failed, and that each of its requests had a connection of its own.
#[track_caller]
fn assert_flawless(scrape: &Scrape, name: &str) {
    assert_eq!(failures(scrape, name), HashMap::new(), "{name}\n{}", scrape.summary());
    assert!(closed(scrape, name).keys().eq(["single_use"]), "{name}: {:?}", closed(scrape, name));
}

/// Row 9, as far as it concerns new connections.
#[test]
fn a_changed_answer_is_taken_up_when_the_refresh_says_so() {
    in_private_network("a_changed_answer_is_taken_up_when_the_refresh_says_so", &[], || {
        let records = |address: Ipv4Addr| {
            [format!("--host-record=long.test,{address},3600"), format!("--host-record=short.test,{address},1")]
        };
        let [long, short] = records(FIRST);
        let mut dns = Dns::start(&[&long, &short]);
        let [old, new] = origins([FIRST.into(), SECOND.into()], Duration::ZERO);
        let moving = [("every", "long.test", "1s"), ("short", "short.test", "ttl")];
        let staying = [("long", "long.test", "ttl"), ("seldom", "short.test", "30s"), ("once", "short.test", "once")];
        let all = [moving.as_slice(), &staying].concat();
        let config =
            all.iter().map(|(name, host, refresh)| asking(host, name, &old, &format!("refresh = {refresh:?}")));
        let daemon = start_with(&dns, &config.collect::<String>());
        for (name, ..) in &all {
            wait_came(&old, name, 5);
        }
        assert_eq!(new.connections_opened(), 0);

        let [long, short] = records(SECOND);
        dns.restart(&[&long, &short]);
        for (name, ..) in moving {
            wait_came(&new, name, 5);
        }
        let left_behind = moving.map(|(name, ..)| came(&old, name));
        let stayed = staying.map(|(name, ..)| came(&old, name));
        for (name, ..) in moving {
            wait_came(&new, name, 35);
        }
        assert_eq!(moving.map(|(name, ..)| came(&old, name)), left_behind, "the old address is still in use");
        for ((name, ..), stayed) in staying.into_iter().zip(stayed) {
            assert_eq!(came(&new, name), 0, "{name} has asked again");
            wait_came(&old, name, stayed + 20);
        }
        let scrape = daemon.scrape();
        for (name, ..) in all {
            assert_flawless(&scrape, name);
        }
    });
}

#[test]
fn the_family_says_which_addresses_count() {
    in_private_network("the_family_says_which_addresses_count", &[], || {
        let dns = Dns::start(&["--host-record=shop.test,127.0.0.1,::1", "--host-record=four.test,127.0.0.1"]);
        let [four, six] = origins([FIRST.into(), Ipv6Addr::LOCALHOST.into()], Duration::ZERO);
        let config: String = ["any", "ipv4", "ipv6"]
            .map(|name| asking("shop.test", name, &four, &format!("family = {name:?}")))
            .concat();
        let daemon = start_with(&dns, &(config + &asking("four.test", "lacking", &four, "family = \"ipv6\"")));
        for name in ["any", "ipv4", "ipv6"] {
            daemon.scrape_after(name, 20.0);
        }
        let scrape = daemon.scrape_after("lacking", 20.0);
        for (name, count) in [("any", 2.0), ("ipv4", 1.0), ("ipv6", 1.0)] {
            assert_flawless(&scrape, name);
            assert_eq!(addresses(&scrape, name), count, "addresses of {name}");
        }
        assert_only_failure(&scrape, "lacking", "dns_failed");
        assert_eq!((came(&six, "ipv4"), came(&four, "ipv6"), came(&four, "lacking")), (0, 0, 0));
        assert!(came(&four, "any").abs_diff(came(&six, "any")) <= 2, "both in turn");
        drop(dns);
    });
}

#[test]
fn name_servers_of_its_own_answer_for_a_target() {
    in_private_network("name_servers_of_its_own_answer_for_a_target", &[], || {
        let system = Dns::start(&["--address=/shop.test/127.0.0.1"]);
        let own_address: SocketAddr = "127.0.0.54:5354".parse().expect("an address");
        let _own = Dns::start_at(own_address, &["--address=/shop.test/127.0.0.2"]);
        let [of_system, of_own] = origins([FIRST.into(), SECOND.into()], Duration::ZERO);
        let targets = [
            ("system", "servers = []"),
            ("own", "servers = [\"127.0.0.54:5354\"]"),
            // Nobody answers at the first.
            ("second", "servers = [\"127.0.0.99\", \"127.0.0.54:5354\"]"),
        ];
        let config = |targets: &[(&str, &str)]| -> String {
            targets.iter().map(|(name, dns)| asking("shop.test", name, &of_own, dns)).collect()
        };
        let daemon = start_with(&system, &config(&targets));
        for (name, _) in targets {
            daemon.scrape_after(name, 10.0);
        }
        let scrape = daemon.scrape();
        for (name, _) in targets {
            assert_flawless(&scrape, name);
        }
        assert_eq!((came(&of_own, "system"), came(&of_system, "own"), came(&of_system, "second")), (0, 0, 0));

        assert!(daemon.reload_with(&config(&[("system", targets[1].1), targets[1], targets[2]])));
        wait_came(&of_own, "system", 10);
        assert_flawless(&daemon.scrape(), "system");
    });
}

/// A daemon whose requests may take less than a lookup that fails, and have all gone well so far.
fn start_impatient(dns: &Dns, origin: &Origin) -> Daemon {
    let daemon = start_with(dns, &at("shop.test", "a", origin, "20/s", &format!("{NO_REUSE}timeout = \"1800ms\"")));
    let scrape = daemon.scrape_after("a", 10.0);
    assert_flawless(&scrape, "a");
    daemon
}

/// Waits for five seconds of traffic (the answer was good for one), and checks that it went to the address that was
/// known, without a failure.
fn assert_outlived(daemon: &Daemon, origin: &Origin) {
    let before = responses(&daemon.scrape(), "a", "200");
    let scrape = daemon
        .scrape_when("traffic", |scrape| scrape.value("hammerd_requests_total", &[("target", "a")]) >= before + 100.0);
    assert_flawless(&scrape, "a");
    assert_eq!(addresses(&scrape, "a"), 1.0);
    assert!(came(origin, "a") as f64 >= before + 100.0);
}

/// Rows 7 and 8.
#[test]
fn known_addresses_outlive_a_name_server_that_is_killed() {
    in_private_network("known_addresses_outlive_a_name_server_that_is_killed", &[], || {
        let mut dns = Dns::start(&["--address=/shop.test/127.0.0.1", "--local-ttl=1"]);
        let [old, new] = origins([FIRST.into(), SECOND.into()], Duration::ZERO);
        let daemon = start_impatient(&dns, &old);
        dns.kill();
        assert_outlived(&daemon, &old);
        dns.restart(&["--address=/shop.test/127.0.0.2", "--local-ttl=1"]);
        wait_came(&new, "a", 40);
        assert_flawless(&daemon.scrape(), "a");
    });
}

/// Rows 7 and 8.
#[test]
fn known_addresses_outlive_a_name_server_that_falls_silent() {
    in_private_network("known_addresses_outlive_a_name_server_that_falls_silent", &[], || {
        let dns = Dns::with_hosts("127.0.0.1 shop.test\n", &["--local-ttl=1"]);
        let [old, new] = origins([FIRST.into(), SECOND.into()], Duration::ZERO);
        let daemon = start_impatient(&dns, &old);
        dns.freeze();
        assert_outlived(&daemon, &old);
        dns.set_hosts("127.0.0.2 shop.test\n");
        dns.thaw();
        wait_came(&new, "a", 40);
        assert_flawless(&daemon.scrape(), "a");
    });
}

/// Row 9, as far as it concerns connections that are kept.
#[test]
fn connections_to_an_address_that_has_left_are_retired_and_a_new_one_has_its_share() {
    in_private_network("connections_to_an_address_that_has_left_are_retired_and_a_new_one_has_its_share", &[], || {
        const TTL: Duration = Duration::from_secs(1);
        const MAX_AGE: Duration = Duration::from_secs(2);
        // A busy machine, and the tenth by which an age may be longer.
        const SLACK: Duration = Duration::from_secs(2);
        let dns = Dns::with_hosts("127.0.0.1 shop.test\n127.0.0.2 shop.test\n", &["--local-ttl=1"]);
        let [leaving, staying, new] = origins([FIRST.into(), SECOND.into(), THIRD.into()], Duration::from_millis(100));
        let daemon = start_with(&dns, &at("shop.test", "a", &staying, "50/s", "pool = { max_age = \"2s\" }"));
        leaving.wait_requests(20);
        staying.wait_requests(20);

        dns.set_hosts("127.0.0.2 shop.test\n127.0.0.3 shop.test\n");
        let changed = Instant::now();
        new.wait_requests(1);
        wait_until("end of the connections", PATIENCE, || leaving.connections_open() == 0);
        let took = changed.elapsed();
        assert!(took < TTL + MAX_AGE + SLACK, "the change was taken up after {took:?}");
        let counts = || [&leaving, &staying, &new].map(|origin| origin.requests().len());
        let before = counts();
        let finished = daemon.scrape().value("hammerd_requests_total", &[("target", "a")]);
        let scrape = daemon.scrape_after("a", finished + 250.0);
        let shares: Vec<usize> = counts().into_iter().zip(before).map(|(now, before)| now - before).collect();
        assert_eq!(shares[0], 0, "{shares:?}");
        assert!(shares[1].min(shares[2]) >= 50, "{shares:?}");

        assert_eq!(failures(&scrape, "a"), HashMap::new(), "{}", scrape.summary());
        assert_eq!(addresses(&scrape, "a"), 2.0);
        // A connection that is asked for late may find its age over before the answer has changed.
        let closed = closed(&scrape, "a");
        assert!(
            closed.keys().all(|reason| ["address_gone", "max_age"].contains(&reason.as_str())),
            "{}",
            scrape.summary()
        );
    });
}

/// Row 9: a connection that is kept hears of a change when the answer expires, long before its age is over.
#[test]
fn a_kept_connection_is_retired_when_the_answer_expires_and_leads_elsewhere() {
    in_private_network("a_kept_connection_is_retired_when_the_answer_expires_and_leads_elsewhere", &[], || {
        // How long an answer is relied on at least.
        const MIN_TTL: Duration = Duration::from_secs(5);
        let hosts = |address: Ipv4Addr| format!("{address} ttl.test\n{address} other.test\n");
        let dns = Dns::with_hosts(&hosts(FIRST), &["--local-ttl=1"]);
        let [old, new] = origins([FIRST.into(), SECOND.into()], Duration::ZERO);
        let moving = [("ttl", "ttl.test", "ttl"), ("too", "ttl.test", "ttl"), ("every", "other.test", "2s")];
        let all = [moving.as_slice(), &[("once", "other.test", "once")]].concat();
        let kept = |refresh: &str| format!("dns.refresh = {refresh:?}\npool = {{ max_age = \"1h\", preconnect = 3 }}");
        let config = all.iter().map(|(name, host, refresh)| at(host, name, &old, "20/s", &kept(refresh)));
        let started = Instant::now();
        let daemon = start_with(&dns, &config.collect::<String>());
        for (name, ..) in &all {
            wait_came(&old, name, 5);
        }
        wait_until("connections", PATIENCE, || old.connections_open() >= 3 * all.len());
        assert_eq!(new.connections_opened(), 0);

        dns.set_hosts(&hosts(SECOND));
        for (name, ..) in moving {
            wait_came(&new, name, 5);
        }
        let (queries, rounds) = (dns.queries("ttl.test"), 1 + started.elapsed().as_secs() / MIN_TTL.as_secs());
        assert!(queries as u64 <= rounds + 2, "{queries} queries in {rounds} rounds for two targets that ask alike");
        let left_behind = moving.map(|(name, ..)| came(&old, name));
        let stayed = came(&old, "once");
        for (name, ..) in moving {
            wait_came(&new, name, 25);
        }
        wait_came(&old, "once", stayed + 20);
        assert_eq!(moving.map(|(name, ..)| came(&old, name)), left_behind, "the old address is still in use");
        assert_eq!(came(&new, "once"), 0);
        let open = |name: &str| daemon.scrape().value("hammerd_connections_open", &[("target", name)]);
        wait_until("end of the idle ones", PATIENCE, || old.connections_open() as f64 == open("once"));
        let scrape = daemon.scrape();
        for (name, ..) in all {
            assert_eq!(failures(&scrape, name), HashMap::new(), "{name}\n{}", scrape.summary());
            let expected: &[&str] = if name == "once" { &[] } else { &["address_gone"] };
            assert!(closed(&scrape, name).keys().eq(expected.iter().copied()), "{name}: {:?}", closed(&scrape, name));
        }
    });
}

/// One that idles does not wait for its next request, which may be a day away.
#[test]
fn an_idle_connection_to_an_address_that_has_left_is_closed_at_once() {
    in_private_network("an_idle_connection_to_an_address_that_has_left_is_closed_at_once", &[], || {
        let dns = Dns::with_hosts("127.0.0.1 shop.test\n", &["--local-ttl=1"]);
        let [old, new] = origins([FIRST.into(), SECOND.into()], Duration::ZERO);
        let config = |rate: &str| {
            at("shop.test", "busy", &old, "20/s", "dns.refresh = \"1s\"")
                + &at("shop.test", "rare", &old, rate, "dns.refresh = \"5s\"\npool.idle_timeout = \"10m\"")
        };
        let daemon = start_with(&dns, &config("20/s"));
        wait_came(&old, "rare", 5);
        dns.set_hosts("127.0.0.2 shop.test\n");
        wait_came(&new, "busy", 1);
        // The last lookup for those that came so far is still to come.
        assert!(daemon.reload_with(&config("1/24h")));
        wait_until("end of the connections", PATIENCE, || old.connections_open() == 0);
        let scrape = daemon.scrape();
        assert!(closed(&scrape, "rare").keys().eq(["address_gone"]), "{}", scrape.summary());
        assert_eq!(failures(&scrape, "rare"), HashMap::new());
    });
}

/// A target that has become slow asks no name server for the sake of a connection that it does not use, and lets go of
/// it in time.
#[test]
fn a_name_is_looked_up_again_only_while_requests_are_sent() {
    in_private_network("a_name_is_looked_up_again_only_while_requests_are_sent", &[], || {
        let dns = Dns::start(&["--address=/busy.test/127.0.0.1", "--address=/rare.test/127.0.0.1"]);
        let origin = Origin::start(|_| Reply::ok(""));
        let config = |rate: &str| {
            let keys = "dns.refresh = \"1s\"\npool.idle_timeout = \"5s\"";
            at("busy.test", "busy", &origin, "20/s", keys) + &at("rare.test", "rare", &origin, rate, keys)
        };
        let daemon = start_with(&dns, &config("20/s"));
        wait_until("lookups of both", PATIENCE, || dns.queries("busy.test").min(dns.queries("rare.test")) >= 3);
        assert!(daemon.reload_with(&config("1/24h")));
        let (busy, rare) = (dns.queries("busy.test"), dns.queries("rare.test"));
        wait_until("more lookups", PATIENCE, || dns.queries("busy.test") >= busy + 4);
        let asked = dns.queries("rare.test") - rare;
        assert!(asked <= 1, "{asked} lookups for nobody");
        let scrape = daemon.scrape_when("end of the idle connection", |scrape| {
            scrape.value("hammerd_connections_open", &[("target", "rare")]) == 0.0
        });
        assert!(closed(&scrape, "rare").keys().eq(["idle"]), "{}", scrape.summary());
        assert_eq!(failures(&scrape, "busy").len() + failures(&scrape, "rare").len(), 0, "{}", scrape.summary());
    });
}

#[test]
fn all_addresses_are_used_in_turn() {
    in_private_network("all_addresses_are_used_in_turn", &[], || {
        let dns = Dns::start(&[
            "--address=/shop.test/127.0.0.1",
            "--address=/shop.test/127.0.0.2",
            "--address=/shop.test/127.0.0.3",
        ]);
        let all = origins([FIRST.into(), SECOND.into(), THIRD.into()], Duration::ZERO);
        let daemon = start_with(&dns, &at("shop.test", "a", &all[0], "30/s", NO_REUSE));
        let scrape = daemon.scrape_after("a", 90.0);
        assert_flawless(&scrape, "a");
        assert_eq!(addresses(&scrape, "a"), 3.0);
        let mut requests: Vec<_> = all
            .iter()
            .enumerate()
            .flat_map(|(n, origin)| origin.requests().into_iter().map(move |request| (request.at, n)))
            .collect();
        requests.sort_unstable();
        let counts = [0, 1, 2].map(|origin| requests[..90].iter().filter(|(_, n)| *n == origin).count());
        assert!(counts.iter().all(|count| (29..=31).contains(count)), "{counts:?}");
    });
}
