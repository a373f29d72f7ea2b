//! Addresses that change, die or go silent behind a name or a link, each in networks of its own. Root only.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::faults::{failures, responses};
use crate::network::{named, start_with};
use crate::support::dead::Blackhole;
use crate::support::dns::Dns;
use crate::support::net::{THERE, in_linked_networks, in_private_network};
use crate::support::scrape::Histogram;
use crate::support::{Daemon, Origin, PATIENCE, Reply, Scrape, target, wait_until};

/// How long an address that failed comes last.
const COMES_LAST: Duration = Duration::from_secs(10);

const FIRST: Ipv4Addr = Ipv4Addr::LOCALHOST;
const SECOND: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// An origin of which every request needs a connection of its own, and so an address.
fn without_keep_alive(address: SocketAddr) -> Origin {
    Origin::start_at(address, |_| Reply::ok("").close())
}

fn finished(scrape: &Scrape) -> f64 {
    scrape.value("hammerd_requests_total", &[("target", "a")])
}

/// Row 9, as far as it concerns new connections.
#[test]
fn a_changed_answer_sends_new_connections_to_the_new_address() {
    in_private_network("a_changed_answer_sends_new_connections_to_the_new_address", &[], || {
        let mut dns = Dns::start(&["--address=/shop.test/127.0.0.1", "--local-ttl=1"]);
        let old = without_keep_alive(SocketAddr::from((FIRST, 0)));
        let new = without_keep_alive(SocketAddr::from((SECOND, old.address().port())));
        let daemon = start_with(&dns, &named("shop.test", &old, ""));
        old.wait_requests(5);
        assert_eq!(new.connections_opened(), 0);

        dns.restart(&["--address=/shop.test/127.0.0.2", "--local-ttl=1"]);
        new.wait_requests(3);
        let left_behind = old.requests().len();
        new.wait_requests(15);
        assert_eq!(old.requests().len(), left_behind, "the old address is still in use");
        let scrape = daemon.scrape();
        assert_eq!(failures(&scrape, "a").len(), 0, "{}", scrape.summary());
    });
}

const BOTH: [&str; 2] = ["--host-record=shop.test,127.0.0.1", "--host-record=shop.test,127.0.0.2"];

/// Checks that all of `count` requests were good, and came to `alive`.
fn assert_carried(daemon: &Daemon, alive: &Origin, count: f64) -> Scrape {
    let scrape = daemon.scrape_after("a", count);
    assert_eq!(failures(&scrape, "a").len(), 0, "{}", scrape.summary());
    assert_eq!(responses(&scrape, "a", "200"), finished(&scrape));
    assert_eq!(scrape.value("hammerd_dns_addresses", &[("target", "a")]), 2.0);
    assert!(alive.requests().len() as f64 >= count);
    scrape
}

/// Row 10.
#[test]
fn an_address_that_refuses_leaves_the_traffic_to_the_other() {
    in_private_network("an_address_that_refuses_leaves_the_traffic_to_the_other", &[], || {
        let dns = Dns::start(&BOTH);
        let alive = without_keep_alive(SocketAddr::from((FIRST, 0)));
        let daemon = start_with(&dns, &named("shop.test", &alive, ""));
        assert_carried(&daemon, &alive, 30.0);
        // Well again, it has its share once it has come last for long enough.
        let healed = without_keep_alive(SocketAddr::from((SECOND, alive.address().port())));
        wait_until("share of the healed address", COMES_LAST + PATIENCE, || !healed.requests().is_empty());
        let of_alive = alive.requests().len();
        healed.wait_requests(11);
        let of_alive = alive.requests().len() - of_alive;
        assert!((9..=12).contains(&of_alive), "{of_alive} requests to the one, 10 to the other");
    });
}

/// Row 10: a connection attempt that goes unanswered gives way to the next address before the request times out.
#[test]
fn an_address_that_does_not_answer_leaves_the_traffic_to_the_other() {
    in_private_network("an_address_that_does_not_answer_leaves_the_traffic_to_the_other", &[], || {
        const CONNECT_BUDGET_S: f64 = 1.5;
        let dns = Dns::start(&BOTH);
        let alive = without_keep_alive(SocketAddr::from((FIRST, 0)));
        let dead = Blackhole::start_at(SocketAddr::from((SECOND, alive.address().port())));
        let buckets = format!("[metrics]\nbuckets = [1.0, {CONNECT_BUDGET_S:?}]\n");
        let daemon = start_with(&dns, &(buckets + &named("shop.test", &alive, "timeout = \"10s\"")));
        let scrape = assert_carried(&daemon, &alive, 40.0);
        let connecting = scrape.histogram("hammerd_request_phase_seconds", &[("phase", "connect")]);
        let detours = |connecting: &Histogram| connecting.count - connecting.count_le(1.0);
        // Every other one, until the first of them had waited in vain.
        let found_out = detours(&connecting);
        assert!((1.0..=10.0).contains(&found_out), "{found_out} of {} tried the dead address first", connecting.count);
        assert_eq!(
            connecting.count_le(1.0),
            connecting.count_le(CONNECT_BUDGET_S),
            "given up before the budget is over"
        );
        // From then on it comes last.
        let connecting =
            assert_carried(&daemon, &alive, 90.0).histogram("hammerd_request_phase_seconds", &[("phase", "connect")]);
        assert_eq!(detours(&connecting), found_out, "{connecting:?}");
        drop(dead);
    });
}

/// Packets that have left a device of the calling thread's network.
fn sent(device: &str) -> u64 {
    let devices = std::fs::read_to_string("/proc/thread-self/net/dev").expect("the devices");
    let counts = devices.lines().find_map(|line| line.trim().strip_prefix(device)?.strip_prefix(':'));
    counts.and_then(|counts| counts.split_whitespace().nth(8)?.parse().ok()).expect("a count")
}

/// Row 10: what the first attempts come to decides over the next ones, by how much time they had. The real thing: each
/// SYN to an address that never answers is a packet on a link of its own.
#[test]
fn an_address_is_blamed_for_its_silence_when_it_had_the_time_to_answer() {
    // An address that is another's behind each link, and silent.
    let links: Vec<String> = (0..3)
        .flat_map(|n| {
            [
                format!("link add out{n} type veth peer name in{n}"),
                format!("link set out{n} addrgenmode none"),
                format!("link set in{n} addrgenmode none"),
                format!("link set out{n} up"),
                format!("link set in{n} up"),
                format!("addr add 192.0.2.{}/30 dev out{n}", 4 * n + 1),
                format!("neigh add 192.0.2.{} lladdr 02:00:00:00:00:01 dev out{n} nud permanent", 4 * n + 2),
            ]
        })
        .collect();
    let links: Vec<&str> = links.iter().map(String::as_str).collect();
    in_private_network("an_address_is_blamed_for_its_silence_when_it_had_the_time_to_answer", &links, || {
        // A request leaves half of its time to the first of two addresses: 300 ms, 200 ms, and 50 ms of 100 ms in all.
        let targets = [
            ("enough", "timeout = \"600ms\"\n", true),
            ("hasty", "timeout = \"400ms\"\n", false),
            ("its-share", "timeout = \"600ms\"\npool.connect_timeout = \"100ms\"\n", true),
        ];
        let records: Vec<String> = (0..3)
            .flat_map(|n| {
                let dead = format!("192.0.2.{}", 4 * n + 2);
                [FIRST.to_string(), dead].map(|address| format!("--host-record={}.test,{address}", targets[n].0))
            })
            .collect();
        let dns = Dns::start(&records.iter().map(String::as_str).collect::<Vec<_>>());
        let origin = without_keep_alive(SocketAddr::from((FIRST, 0)));
        let config = targets.map(|(name, keys, _)| {
            target(name, &format!("http://{name}.test:{}/", origin.address().port()), "10/s", keys)
        });
        let daemon = start_with(&dns, &config.concat());
        let attempts = || [0, 1, 2].map(|n| sent(&format!("out{n}")));
        wait_until("first attempts", PATIENCE, || !attempts().contains(&0));
        let pass = |more: f64| {
            let scrape = daemon.scrape();
            for (name, ..) in targets {
                daemon.scrape_after(name, scrape.value("hammerd_requests_total", &[("target", name)]) + more);
            }
        };
        pass(10.0);
        let before = attempts();
        // Five seconds: one that is blamed comes last for ten.
        pass(50.0);
        for (n, (name, _, blamed)) in targets.into_iter().enumerate() {
            let more = attempts()[n] - before[n];
            assert_eq!(more == 0, blamed, "{name}: {more} more\n{}", daemon.scrape().summary());
            assert!(blamed || more >= 10, "{name}: every other one begins there, and {more} did");
        }
    });
}

/// Row 21.
#[test]
fn a_link_that_goes_down_is_timeouts_and_new_connections_afterwards() {
    in_linked_networks("a_link_that_goes_down_is_timeouts_and_new_connections_afterwards", |beyond| {
        let origin = beyond.run(|| Origin::start_at(SocketAddr::from((THERE, 0)), |_| Reply::ok("")));
        let daemon = Daemon::start(&target("a", &origin.url("/"), "20/s", "timeout = \"1s\""));
        daemon.scrape_after("a", 10.0);
        let before = origin.connections_opened();

        beyond.set_link("down");
        let scrape = daemon.scrape_when("timeouts of a silent link", |scrape| {
            let reasons = failures(scrape, "a");
            // First those under way on a connection, then those without one.
            reasons.get("timeout_response").is_some_and(|&count| count >= 1)
                && reasons.get("connect_timeout").is_some_and(|&count| count >= 20)
        });
        assert_eq!(failures(&scrape, "a").len(), 2, "{}", scrape.summary());
        assert_eq!(scrape.value("hammerd_connections_open", &[("target", "a")]), 0.0, "{}", scrape.summary());

        beyond.set_link("up");
        let good = responses(&scrape, "a", "200");
        let healed = daemon.scrape_when("good answers", |scrape| responses(scrape, "a", "200") >= good + 40.0);
        assert!(origin.connections_opened() > before, "the connection was replaced");
        let failed = healed.sum("hammerd_request_failures_total", &[("target", "a")]);
        daemon.scrape_after("a", finished(&healed) + 20.0);
        assert_eq!(daemon.scrape().sum("hammerd_request_failures_total", &[("target", "a")]), failed, "it has healed");
    });
}
