//! The system's resolver config and hosts file, which come late and change, and name servers that answer for one family
//! alone. Each test in a network of its own. Root only.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::faults::{assert_only_failure, assert_recover, failures, responses};
use crate::names::{NO_REUSE, addresses, at, came, origins, wait_came};
use crate::network::start_with;
use crate::pool::closed;
use crate::support::dns::{Dns, Kind, Say};
use crate::support::net::in_private_network;
use crate::support::{Daemon, Origin, PATIENCE, Reply, wait_until};

const FIRST: Ipv4Addr = Ipv4Addr::LOCALHOST;
const SECOND: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// How long the files are not looked at again.
const MIN_PAUSE: Duration = Duration::from_secs(1);

/// A daemon with nothing but the files of `dns` in `/etc`.
fn start_in_etc(dns: &Dns, config: &str) -> Daemon {
    let wrapper = dns.wrapper_of_etc();
    Daemon::builder(config).wrapped(&wrapper.iter().map(String::as_str).collect::<Vec<_>>()).start()
}

/// Puts another file in the place of one, as tools do that never let half a file be seen.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).expect("a file");
    std::fs::rename(new, path).expect("its name");
}

#[track_caller]
fn assert_flawless(daemon: &Daemon, name: &str) {
    let scrape = daemon.scrape();
    assert_eq!(failures(&scrape, name), HashMap::new(), "{name}\n{}", scrape.summary());
}

/// Row 7: a network that comes up after us, as at the start of a machine.
#[test]
fn a_resolver_config_that_comes_late_is_used() {
    in_private_network("a_resolver_config_that_comes_late_is_used", &[], || {
        let dns = Dns::start(&["--address=/shop.test/127.0.0.1"]);
        let text = std::fs::read_to_string(dns.resolv_conf()).expect("resolv.conf");
        std::fs::remove_file(dns.resolv_conf()).expect("resolv.conf");
        let origin = Origin::start(|_| Reply::ok(""));
        let daemon = start_in_etc(&dns, &at("shop.test", "a", &origin, "10/s", ""));
        let scrape = daemon.scrape_after("a", 15.0);
        assert_only_failure(&scrape, "a", "dns_failed");
        assert_eq!(daemon.log_with(&["name lookups don't work"]).len(), 1, "said once");
        replace(&dns.resolv_conf(), &text);
        assert_recover(&daemon, &["a"], 10.0, MIN_PAUSE);
    });
}

/// Row 7.
#[test]
fn without_a_resolver_config_names_in_the_hosts_file_are_good() {
    in_private_network("without_a_resolver_config_names_in_the_hosts_file_are_good", &[], || {
        let (dns, _socket) = Dns::silent();
        std::fs::remove_file(dns.resolv_conf()).expect("resolv.conf");
        std::fs::write(dns.hosts(), "127.0.0.1 shop.test\n").expect("hosts");
        let origin = Origin::start(|_| Reply::ok(""));
        let targets =
            ["shop.test", "localhost", "other.test"].map(|host| at(host, &host[..1], &origin, "20/s", NO_REUSE));
        let daemon = start_in_etc(&dns, &targets.concat());
        for name in ["s", "l", "o"] {
            daemon.scrape_after(name, 20.0);
        }
        assert_flawless(&daemon, "s");
        assert_flawless(&daemon, "l");
        assert_only_failure(&daemon.scrape(), "o", "dns_failed");
        assert_eq!(addresses(&daemon.scrape(), "s"), 1.0);
    });
}

/// Row 9: the servers that are asked are those that the file names now, whether it was written anew or replaced, and also for
/// those who wait for one that is silent.
#[test]
fn a_resolver_config_that_changes_is_used_from_then_on() {
    in_private_network("a_resolver_config_that_changes_is_used_from_then_on", &[], || {
        let first = Dns::start(&["--address=/shop.test/127.0.0.1"]);
        let _second = Dns::start_at("127.0.0.54:53".parse().expect("an address"), &["--address=/shop.test/127.0.0.2"]);
        let [old, new] = origins([FIRST.into(), SECOND.into()], Duration::ZERO);
        let both = ["ttl", "1s"]
            .map(|refresh| at("shop.test", refresh, &old, "20/s", &format!("{NO_REUSE}dns.refresh = {refresh:?}")));
        let daemon = start_in_etc(&first, &both.concat());
        for name in ["ttl", "1s"] {
            wait_came(&old, name, 10);
        }
        assert_eq!(new.connections_opened(), 0);
        replace(&first.resolv_conf(), "nameserver 127.0.0.54\n");
        for name in ["ttl", "1s"] {
            wait_came(&new, name, 10);
        }
        // One that can't be used leaves in force what it said.
        replace(&first.resolv_conf(), "search test\n");
        wait_until("a warning", PATIENCE, || !daemon.log_with(&["stays in force"]).is_empty());
        let stayed = came(&old, "ttl");
        wait_came(&new, "ttl", came(&new, "ttl") + 20);
        assert_eq!(came(&old, "ttl"), stayed);
        // Written anew, in the place where it was.
        std::fs::write(first.resolv_conf(), "nameserver 127.0.0.53\n").expect("resolv.conf");
        for name in ["ttl", "1s"] {
            wait_came(&old, name, came(&old, name) + 10);
            assert_flawless(&daemon, name);
        }
    });
}

/// Row 8: a lookup that nobody answers takes longer than a test lasts; it does not keep those who wait for it.
#[test]
fn who_waits_for_a_silent_name_server_asks_the_one_that_takes_its_place() {
    in_private_network("who_waits_for_a_silent_name_server_asks_the_one_that_takes_its_place", &[], || {
        let (silent, _socket) = Dns::silent();
        let _good = Dns::start_at("127.0.0.54:53".parse().expect("an address"), &["--address=/shop.test/127.0.0.1"]);
        std::fs::write(silent.resolv_conf(), "nameserver 127.0.0.53\noptions timeout:30\n").expect("resolv.conf");
        let origin = Origin::start(|_| Reply::ok(""));
        let daemon = start_with(&silent, &at("shop.test", "a", &origin, "10/s", "timeout = \"1s\""));
        let scrape = daemon.scrape_after("a", 10.0);
        assert_only_failure(&scrape, "a", "dns_timeout");
        std::fs::write(silent.resolv_conf(), "nameserver 127.0.0.54\n").expect("resolv.conf");
        assert_recover(&daemon, &["a"], 10.0, MIN_PAUSE + Duration::from_secs(1));
    });
}

/// Row 9: without a word from any name server. Connections that are kept hear of it too.
#[test]
fn a_hosts_file_that_changes_moves_the_traffic() {
    in_private_network("a_hosts_file_that_changes_moves_the_traffic", &[], || {
        let (dns, _socket) = Dns::silent();
        std::fs::write(dns.hosts(), "127.0.0.1 shop.test\n").expect("hosts");
        let [old, new] = origins([FIRST.into(), SECOND.into()], Duration::ZERO);
        let keys = [("kept", "pool.max_age = \"1h\"\n"), ("single", NO_REUSE)];
        let daemon = start_with(&dns, &keys.map(|(name, rest)| at("shop.test", name, &old, "20/s", rest)).concat());
        for (name, _) in keys {
            wait_came(&old, name, 20);
        }
        std::fs::write(dns.hosts(), "127.0.0.2 shop.test\n").expect("hosts");
        for (name, _) in keys {
            wait_came(&new, name, 20);
            assert_flawless(&daemon, name);
        }
        wait_until("end of the connections", PATIENCE, || old.connections_open() == 0);
        let scrape = daemon.scrape();
        assert!(closed(&scrape, "kept").keys().eq(["address_gone"]), "{:?}", closed(&scrape, "kept"));
        assert_eq!(addresses(&scrape, "kept"), 1.0);
    });
}

/// Row 9: a target that a reload brings finds its name as the files have it at that moment, however lately they were looked at.
#[test]
fn a_reload_reads_the_files_at_once() {
    in_private_network("a_reload_reads_the_files_at_once", &[], || {
        let dns = Dns::start(&["--address=/busy.test/127.0.0.1"]);
        let origin = Origin::start(|_| Reply::ok(""));
        let busy = at("busy.test", "busy", &origin, "100/s", NO_REUSE);
        let daemon = start_with(&dns, &busy);
        wait_came(&origin, "busy", 50);
        let mut config = busy;
        for name in ["b", "c", "d"] {
            let hosts = std::fs::read_to_string(dns.hosts()).expect("hosts");
            std::fs::write(dns.hosts(), format!("{hosts}127.0.0.1 {name}.new.test\n")).expect("hosts");
            config += &at(&format!("{name}.new.test"), name, &origin, "50/s", "");
            assert!(daemon.reload_with(&config));
            daemon.scrape_after(name, 10.0);
            assert_flawless(&daemon, name);
        }
    });
}

/// Row 8: a common fault of name servers and of boxes before them.
#[test]
fn a_name_server_that_drops_questions_for_one_family_holds_nobody_up() {
    in_private_network("a_name_server_that_drops_questions_for_one_family_holds_nobody_up", &[], || {
        let answers: Arc<AtomicBool> = Arc::default();
        let both = Arc::clone(&answers);
        let dns = Dns::scripted(move |kind| match kind {
            Kind::V4 => Say::Addresses(vec![FIRST.into()]),
            Kind::V6 if both.load(Ordering::Relaxed) => Say::Addresses(vec![Ipv6Addr::LOCALHOST.into()]),
            Kind::V6 => Say::Nothing,
        });
        std::fs::write(dns.resolv_conf(), "nameserver 127.0.0.53\noptions timeout:5 attempts:1\n")
            .expect("resolv.conf");
        let [four, six] = origins([FIRST.into(), Ipv6Addr::LOCALHOST.into()], Duration::ZERO);
        let names = [("ttl", "ttl"), ("every", "1s")];
        let config = names.map(|(name, refresh)| {
            at("shop.test", name, &four, "20/s", &format!("{NO_REUSE}dns.refresh = {refresh:?}\ntimeout = \"3s\""))
        });
        let daemon = start_with(&dns, &("[metrics]\nbuckets = [0.2, 1.0]\n".to_owned() + &config.concat()));
        for (name, _) in names {
            let scrape = daemon.scrape_after(name, 100.0);
            assert_eq!(failures(&scrape, name), HashMap::new(), "{}", scrape.summary());
            assert_eq!(addresses(&scrape, name), 1.0);
            // The first question alone waits for the other family, and those who came while it did.
            let asking = scrape.histogram("hammerd_request_phase_seconds", &[("target", name), ("phase", "dns")]);
            assert!(asking.count - asking.count_le(0.2) <= 30.0, "{name}: {asking:?}");
        }
        assert_eq!(six.connections_opened(), 0);
        // What it is not silent about any more is used.
        answers.store(true, Ordering::Relaxed);
        for (name, _) in names {
            wait_came(&six, name, 5);
        }
        for (name, _) in names {
            assert_eq!(addresses(&daemon.scrape(), name), 2.0);
        }
        // And again it is, with no harm to what is known.
        answers.store(false, Ordering::Relaxed);
        for (name, _) in names {
            let good = responses(&daemon.scrape(), name, "200");
            daemon.scrape_when("traffic", |scrape| responses(scrape, name, "200") >= good + 60.0);
            let scrape = daemon.scrape();
            assert_eq!(addresses(&scrape, name), 2.0, "{name}");
            assert_eq!(failures(&scrape, name), HashMap::new(), "{}", scrape.summary());
        }
    });
}

/// Linux connects the unspecified address to this machine, and calls the other end otherwise.
#[test]
fn connections_to_the_unspecified_address_are_kept() {
    in_private_network("connections_to_the_unspecified_address_are_kept", &[], || {
        let (dns, _socket) = Dns::silent();
        std::fs::write(dns.hosts(), "0.0.0.0 four.test\n:: six.test\n").expect("hosts");
        // For both: a listener of IPv6 takes those of IPv4 too.
        let origin = Origin::start_at(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)), |_| Reply::ok(""));
        let config = at("four.test", "four", &origin, "20/s", "") + &at("six.test", "six", &origin, "20/s", "");
        let daemon = start_with(&dns, &config);
        for name in ["four", "six"] {
            let scrape = daemon.scrape_after(name, 60.0);
            assert_eq!(failures(&scrape, name), HashMap::new(), "{}", scrape.summary());
            assert_eq!(closed(&scrape, name), HashMap::new(), "{name}");
            // A request that takes long on a busy machine may need a second one.
            let opened = scrape.value("hammerd_connections_opened_total", &[("target", name)]);
            assert!(opened <= 30.0, "{name}: {opened} connections for 60 requests");
        }
    });
}
