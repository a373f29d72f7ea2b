//! Replicas that share every stream: each in a network of its own, all against one origin that notes when what arrived.
//!
//! `docs/scaling.md` has the figures that these tests print.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::daemon::Builder;
use crate::support::dns::Dns;
use crate::support::net::{Spur, in_private_network};
use crate::support::origin::Request;
use crate::support::prometheus::Prometheus;
use crate::support::wall_clock::WallClock;
use crate::support::{Daemon, Origin, PATIENCE, Reply, Scrape, let_pass, target, wait_for, wait_until};

/// Where the replicas find the origin and the name server.
const CENTRE: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
const SETUP: &[&str] = &["addr add 10.99.0.1/32 dev lo"];
/// Tells whose request it is.
const REPLICA: &str = "x-replica";

fn start_origin() -> Origin {
    Origin::start_at(SocketAddr::from((CENTRE, 0)), |_| Reply::ok(""))
}

/// Ends as soon as nothing is in flight.
const NO_LINGER: &str = "[shutdown]\nlinger = \"0s\"\n";

/// The configuration of a replica on a spur: it listens where the others and Prometheus reach it.
fn of(spur: &Spur, config: &str) -> String {
    format!("[server]\nlisten = \"{0}:9955\"\n[defaults.headers]\n{REPLICA} = \"{0}\"\n{config}", spur.address)
}

/// A replica on a spur, started by `adjust`.
fn start(spur: &Spur, config: &str, adjust: impl FnOnce(Builder) -> Builder + Send) -> Daemon {
    let builder = Daemon::builder(&of(spur, config)).listen_from_file();
    spur.run(|| adjust(builder).start())
}

fn counts(scrape: &Scrape) -> (f64, f64) {
    let value = |name| scrape.value(name, &[("target", "a")]);
    (value("hammerd_requests_total"), value("hammerd_target_requests_per_second"))
}

/// How evenly requests arrived.
struct Evenness {
    /// The median of how far a gap is from the ideal one, as a share of that.
    median_deviation: f64,
    /// The share of gaps that are within a quarter of the ideal one.
    within_a_quarter: f64,
    gaps: usize,
}

impl Evenness {
    /// Of the requests between two instants, which should come at `rate`.
    fn of(requests: &[Request], from: Instant, to: Instant, rate: f64) -> Self {
        let mut at: Vec<Instant> = requests.iter().map(|request| request.at).collect();
        at.retain(|at| (from..to).contains(at));
        at.sort_unstable();
        let gaps = at.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64() * rate);
        let mut deviations: Vec<f64> = gaps.map(|gap| (gap - 1.0).abs()).collect();
        deviations.sort_unstable_by(f64::total_cmp);
        let within = deviations.iter().filter(|deviation| **deviation <= 0.25).count();
        Self {
            median_deviation: deviations[deviations.len() / 2],
            within_a_quarter: within as f64 / deviations.len() as f64,
            gaps: deviations.len(),
        }
    }
}

impl fmt::Display for Evenness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (median, within) = (self.median_deviation * 100.0, self.within_a_quarter * 100.0);
        write!(f, "{} gaps, half of them within {median:.1} % of the ideal one, {within:.1} % within 25 %", self.gaps)
    }
}

#[test]
fn three_replicas_are_one_even_stream_and_prometheus_counts_every_request_once() {
    const RATE: f64 = 300.0;
    const MEASURED: Duration = Duration::from_secs(3);
    in_private_network("three_replicas_are_one_even_stream", SETUP, || {
        let origin = start_origin();
        let spurs = [1, 2, 3].map(Spur::new);
        let config = target("a", &origin.url("/"), "300/s", "");

        let mut alone = start(&spurs[0], &format!("{NO_LINGER}{config}"), |builder| builder);
        alone.scrape_after("a", RATE / 2.0);
        let begun = Instant::now();
        let_pass(MEASURED);
        let one = Evenness::of(&origin.requests(), begun, Instant::now(), RATE);
        let (_, summary) = alone.stop();
        let sent_alone = summary["targets"]["a"]["finished"].as_u64().expect("a count");
        assert_eq!(origin.requests().len() as u64, sent_alone);

        // The three ways to say which one it is.
        let mut replicas = [
            start(&spurs[0], &config, |builder| builder.arg("--shard").arg("0/3")),
            start(&spurs[1], &config, |builder| {
                builder.env("HAMMERD__SHARD__INDEX", "1").env("HAMMERD__SHARD__COUNT", "3")
            }),
            start(&spurs[2], &format!("{config}[shard]\nindex = 2\ncount = 3\n"), |builder| builder),
        ];
        let addresses: Vec<SocketAddr> = replicas.iter().map(Daemon::address).collect();
        let prometheus = Prometheus::start("500ms", &addresses);
        prometheus.query_until("count(hammerd_requests_total > 0)", |answer| matches!(answer, [(_, 3.0)]));
        let begun = Instant::now();
        let_pass(MEASURED);
        let three = Evenness::of(&origin.requests(), begun, Instant::now(), RATE);
        eprintln!("one process:    {one}\nthree replicas: {three}");
        // A machine that is busy with other tests spoils both alike, and a second third process a little more.
        assert!(three.median_deviation < one.median_deviation + 0.15, "{three}, one process: {one}");
        assert!(three.within_a_quarter > one.within_a_quarter - 0.3, "{three}, one process: {one}");

        let asked = prometheus.query("sum by (target) (hammerd_target_requests_per_second)");
        assert!((asked[0].1 - RATE).abs() < 1e-6, "{asked:?}");
        assert_eq!(prometheus.query("count(count_values(\"index\", hammerd_shard_index))")[0].1, 3.0);
        assert_eq!(prometheus.query("sum(hammerd_shard_replicas)")[0].1, 9.0);
        for replica in &replicas {
            replica.signal(Signal::TERM);
        }
        for replica in &mut replicas {
            assert!(replica.wait_exit(PATIENCE).success());
        }
        let arrived = (origin.requests().len() as u64 - sent_alone) as f64;
        // Each waited for one more scrape when it had drained.
        let counted = prometheus.query("sum(last_over_time(hammerd_requests_total[5m]))");
        eprintln!("{arrived} requests at the origin, {} in Prometheus", counted[0].1);
        assert_eq!(counted[0].1, arrived);
    });
}

/// When the requests of each replica came within the time in which each sends once: the median, as an angle.
fn positions(requests: &[Request], begun: Instant, period_s: f64) -> BTreeMap<String, f64> {
    let mut by_replica: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for request in requests.iter().filter(|request| request.at >= begun) {
        let replica = request.header(REPLICA).expect("whose it is").to_owned();
        by_replica.entry(replica).or_default().push((request.at - begun).as_secs_f64() / period_s);
    }
    let median = |mut turns: Vec<f64>| {
        // Relative to the first one, so that none is cut in two by the end of a period.
        let first = turns[0].fract();
        for turn in &mut turns {
            *turn = (*turn - first + 0.5).rem_euclid(1.0) - 0.5;
        }
        turns.sort_unstable_by(f64::total_cmp);
        (first + turns[turns.len() / 2]).rem_euclid(1.0) * period_s
    };
    by_replica.into_iter().map(|(replica, turns)| (replica, median(turns))).collect()
}

#[test]
fn a_clock_that_is_50_ms_off_moves_arrivals_by_50_ms_and_loses_none() {
    const PERIOD_S: f64 = 0.3;
    const OFF_S: f64 = 0.05;
    /// A busy machine: half of the requests may be later than this against the others' half.
    const SLACK_S: f64 = 0.02;
    in_private_network("a_clock_that_is_50_ms_off", SETUP, || {
        let origin = start_origin();
        let spurs = [1, 2, 3].map(Spur::new);
        let clock = WallClock::new();
        clock.set((OFF_S * 1000.0) as i64);
        let config = NO_LINGER.to_owned() + &target("a", &origin.url("/"), "10/s", "");
        let replicas: Vec<Daemon> = spurs
            .iter()
            .zip(["0/3", "1/3", "2/3"])
            .map(|(spur, shard)| {
                start(spur, &config, |builder| {
                    let builder = builder.arg("--shard").arg(shard);
                    if shard == "1/3" { clock.on(builder) } else { builder }
                })
            })
            .collect();
        let begun = Instant::now();
        let_pass(Duration::from_secs(5));
        let positions = positions(&origin.requests(), begun, PERIOD_S);
        let behind = |n: u8| {
            let of = |n: u8| positions[&spurs[usize::from(n)].address.to_string()];
            (of(n) - of(0)).rem_euclid(PERIOD_S)
        };
        eprintln!(
            "after replica 0: replica 1, whose clock is 50 ms ahead, by {:.3} s; replica 2 by {:.3} s",
            behind(1),
            behind(2)
        );
        assert!((behind(1) - (PERIOD_S / 3.0 - OFF_S)).abs() < SLACK_S, "{positions:?}");
        assert!((behind(2) - PERIOD_S / 3.0 * 2.0).abs() < SLACK_S, "{positions:?}");

        // Put right while it runs, the clock is followed: slowly, and at once when it is far off.
        let offset = || replicas[1].scrape().value("hammerd_shard_clock_offset_seconds", &[]);
        let scheduled = || replicas[1].scrape().value("hammerd_requests_scheduled_total", &[("target", "a")]);
        assert!(offset().abs() < 0.002, "{}", offset());
        clock.set(0);
        wait_until("the clock's way back", PATIENCE, || (-OFF_S - 0.002..-0.04).contains(&offset()));
        let far = offset();
        wait_until("some of the way", PATIENCE, || offset() > far + 0.0005);
        let (before, begun) = (scheduled(), Instant::now());
        for hours in [5, -5, 0] {
            clock.set(hours * 3_600_000);
            wait_until("the new time", PATIENCE, || offset().abs() < 0.002);
        }
        let (due, took_s) = (scheduled() - before, begun.elapsed().as_secs_f64());
        assert!((due - took_s / PERIOD_S).abs() < 6.0, "{due} arrivals in {took_s} s");

        let sent: f64 = replicas
            .into_iter()
            .map(|mut replica| {
                let (_, summary) = replica.stop();
                summary["targets"]["a"]["finished"].as_f64().expect("a count")
            })
            .sum();
        assert_eq!(sent, origin.requests().len() as f64);
    });
}

#[test]
fn a_reload_changes_the_rate_and_the_stripe_and_keeps_the_connections() {
    const MEASURED: Duration = Duration::from_secs(2);
    in_private_network("a_reload_changes_the_rate_and_the_stripe", SETUP, || {
        let origin = start_origin();
        let spurs = [1, 2].map(Spur::new);
        let config = |rate: &str, index: usize, count: usize| {
            let target = target("a", &origin.url("/"), rate, "");
            of(
                &spurs[index],
                &format!("{NO_LINGER}{target}[shard]\nindex = {index}\ncount = {count}\nrefresh = \"1s\"\n"),
            )
        };
        let mut replicas = [0, 1].map(|index| {
            let builder = Daemon::builder(&config("50/s", index, 2)).listen_from_file();
            let daemon = spurs[index].run(|| builder.start());
            daemon.scrape_after("a", 10.0);
            daemon
        });
        for (index, replica) in replicas.iter().enumerate() {
            assert!(replica.reload_with(&config("200/s", index, 2)));
        }
        let begun = Instant::now();
        let_pass(MEASURED);
        let evenness = Evenness::of(&origin.requests(), begun, Instant::now(), 200.0);
        assert!(evenness.within_a_quarter > 0.5, "{evenness}");

        let (status, _) = replicas[1].stop();
        assert!(status.success());
        assert!(replicas[0].reload_with(&config("200/s", 0, 1)));
        let scrape = replicas[0].scrape_when("the whole stream", |scrape| counts(scrape).1 == 200.0);
        let retired = [("target", "a"), ("reason", "retired")];
        assert_eq!(scrape.value("hammerd_connections_closed_total", &retired), 0.0, "{}", scrape.summary());
        let before = scrape.value("hammerd_requests_scheduled_total", &[("target", "a")]);
        let begun = Instant::now();
        let_pass(MEASURED);
        let due = replicas[0].scrape().value("hammerd_requests_scheduled_total", &[("target", "a")]) - before;
        let expected = begun.elapsed().as_secs_f64() * 200.0;
        assert!((due - expected).abs() < 60.0, "{due} arrivals, {expected} expected");
        assert!(
            !replicas[0].reload_with(&config("200/s", 0, 1).replace("[shard]", "[shard]\nmembers = \"peers.test\""))
        );
    });
}

/// The replicas of a headless service, and its name server.
struct Service {
    dns: Dns,
    origin: Origin,
    replicas: BTreeMap<Ipv4Addr, Daemon>,
    listed: Vec<Ipv4Addr>,
}

impl Service {
    const RATE: f64 = 100.0;
    const REFRESH: Duration = Duration::from_secs(1);
    const NAME: &str = "hammerd-peers.shop.test";

    fn new() -> Self {
        let dns = Dns::with_hosts_at(CENTRE, "", &["--local-ttl=0"]);
        Self { dns, origin: start_origin(), replicas: BTreeMap::new(), listed: Vec::new() }
    }

    /// Starts a replica, which is in no list yet.
    fn start(&mut self, n: u8) {
        let spur = Spur::new(n);
        let target = target("a", &self.origin.url("/"), "100/s", "");
        let config = format!("{NO_LINGER}{target}[shard]\nmembers = \"{}\"\nrefresh = \"1s\"\n", Self::NAME);
        let wrapper = self.dns.wrapper();
        let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
        let daemon = start(&spur, &config, |builder| builder.wrapped(&wrapper));
        self.replicas.insert(spur.address, daemon);
    }

    /// Lists these replicas, and waits until each has its stripe and all others have none. Returns how long that took.
    fn list(&mut self, members: &[u8]) -> Duration {
        self.listed = members.iter().map(|n| Ipv4Addr::new(10, 99, *n, 2)).collect();
        let lines = self.listed.iter().rev().map(|address| format!("{address} {}\n", Self::NAME));
        self.dns.set_hosts(&lines.collect::<String>());
        let begun = Instant::now();
        for (address, replica) in &self.replicas {
            let index = self.listed.iter().position(|listed| listed == address);
            wait_for(&format!("standing of {address}"), PATIENCE, || {
                let scrape = replica.scrape();
                let standing = if index.is_some() { "listed" } else { "unlisted" };
                let stands = scrape.value("hammerd_shard_standing", &[("standing", standing)]) == 1.0;
                let shard = scrape.try_value("hammerd_shard_index", &[]);
                let count = scrape.value("hammerd_shard_replicas", &[]);
                let asked = index.map_or(0.0, |_| Self::RATE / self.listed.len() as f64);
                let right = stands
                    && shard == index.map(|index| index as f64)
                    && count == self.listed.len() as f64
                    && counts(&scrape).1 == asked;
                if right { Ok(()) } else { Err(format!("index {shard:?} of {count}\n{}", scrape.summary())) }
            });
        }
        begun.elapsed()
    }

    /// Checks that the listed ones, and nobody else, send the whole stream once, from now on for a while.
    #[track_caller]
    fn assert_whole(&self, what: &str) {
        const MEASURED: Duration = Duration::from_millis(1500);
        /// A busy machine: the origin may be late with noting what has arrived.
        const SLACK: f64 = 30.0;
        let begun = Instant::now();
        let before = self.origin.requests().len();
        let_pass(MEASURED);
        let requests = self.origin.requests();
        let due = begun.elapsed().as_secs_f64() * Self::RATE;
        let came = (requests.len() - before) as f64;
        assert!((came - due).abs() < SLACK, "{what}: {came} requests, {due} were due");
        let mut shares: BTreeMap<&str, usize> = BTreeMap::new();
        for request in &requests[before..] {
            *shares.entry(request.header(REPLICA).expect("whose it is")).or_default() += 1;
        }
        let listed: Vec<String> = self.listed.iter().map(Ipv4Addr::to_string).collect();
        assert!(shares.keys().copied().eq(listed.iter().map(String::as_str)), "{what}: {shares:?}");
        let even = came / listed.len() as f64;
        assert!(shares.values().all(|share| (*share as f64 - even).abs() < SLACK / 2.0), "{what}: {shares:?}");
        let evenness = Evenness::of(&requests, begun, Instant::now(), Self::RATE);
        eprintln!("{what}: {evenness}");
    }
}

/// Arrivals of an even stream that never came, and those that came twice, by the places at which they should be.
fn missing_and_twice(requests: &[Request], from: Instant, to: Instant, rate: f64) -> (usize, usize) {
    let mut at: Vec<f64> = requests
        .iter()
        .filter(|request| (from..to).contains(&request.at))
        .map(|request| (request.at - from).as_secs_f64() * rate)
        .collect();
    at.sort_unstable_by(f64::total_cmp);
    // The grid is where half of them are later, and half of them sooner.
    let first = at[0].fract();
    let mut phases: Vec<f64> = at.iter().map(|at| (at - first + 0.5).rem_euclid(1.0) - 0.5).collect();
    phases.sort_unstable_by(f64::total_cmp);
    let phase = first + phases[phases.len() / 2];
    let mut places: BTreeMap<i64, usize> = BTreeMap::new();
    for at in &at {
        *places.entry((at - phase).round() as i64).or_default() += 1;
    }
    let (first, last) = (places.keys().next().expect("requests"), places.keys().last().expect("requests"));
    let twice = places.values().map(|count| count - 1).sum();
    ((last - first + 1) as usize - places.len(), twice)
}

/// A list of members is followed: from three to five and back, through a death, and while the name server is silent.
#[test]
fn members_come_and_go_and_the_stream_goes_on() {
    in_private_network("members_come_and_go_and_the_stream_goes_on", SETUP, || {
        let mut service = Service::new();
        for n in [1, 2, 3] {
            service.start(n);
        }
        let unknown = |daemon: &Daemon| daemon.scrape().value("hammerd_shard_standing", &[("standing", "unknown")]);
        assert!(service.replicas.values().all(|daemon| unknown(daemon) == 1.0));
        assert_eq!(service.origin.requests().len(), 0, "nobody sends before there is a list");
        service.list(&[1, 2, 3]);
        service.assert_whole("three replicas");

        let steady = Instant::now();
        service.start(4);
        service.start(5);
        let five = service.list(&[1, 2, 3, 4, 5]);
        service.assert_whole("five replicas");
        let three = service.list(&[1, 2, 3]);
        service.assert_whole("three again");
        let steady_end = Instant::now();
        let requests = service.origin.requests();
        let (missing, twice) = missing_and_twice(&requests, steady, steady_end, Service::RATE);
        eprintln!("3 to 5 took {five:?}, 5 to 3 {three:?}: {missing} places missed and {twice} taken twice");
        // All hear the same unless the list changes in the very moment in which they ask: then, at most, what a round holds.
        let bound = (Service::RATE * Service::REFRESH.as_secs_f64()) as usize;
        assert!(missing < bound && twice < bound, "{missing} missing and {twice} twice");

        // A replica dies, and another one comes in its place.
        let dead = Ipv4Addr::new(10, 99, 2, 2);
        let mut killed = service.replicas.remove(&dead).expect("a replica");
        killed.signal(Signal::KILL);
        killed.wait_exit(PATIENCE);
        service.start(6);
        service.list(&[1, 3, 6]);
        service.assert_whole("one replaced");

        // Without an answer the last list holds.
        service.dns.kill();
        let failures = |daemon: &Daemon| daemon.scrape().value("hammerd_shard_lookups_total", &[("result", "failure")]);
        for (address, replica) in &service.replicas {
            let before = failures(replica);
            wait_until(&format!("failures of {address}"), PATIENCE, || failures(replica) >= before + 2.0);
        }
        service.assert_whole("no name server");
        service.dns.revive();
        service.list(&[1, 3]);
        service.assert_whole("two replicas");

        let mut sent: BTreeMap<String, u64> = BTreeMap::new();
        for (address, mut replica) in service.replicas {
            let (status, summary) = replica.stop();
            assert!(status.success());
            sent.insert(address.to_string(), summary["targets"]["a"]["finished"].as_u64().expect("a count"));
        }
        let mut came: BTreeMap<String, u64> = BTreeMap::new();
        for request in service.origin.requests() {
            *came.entry(request.header(REPLICA).expect("whose it is").to_owned()).or_default() += 1;
        }
        came.remove(&dead.to_string());
        assert_eq!(sent, came);
    });
}

/// A reload may wait, here for a pipe that nobody writes to. What the list says holds none the less.
#[test]
fn a_reload_that_waits_holds_up_no_change_of_the_list() {
    in_private_network("a_reload_that_waits_holds_up_no_change_of_the_list", SETUP, || {
        let mut service = Service::new();
        service.start(1);
        service.start(2);
        service.list(&[1, 2]);
        for replica in service.replicas.values() {
            let pipe = replica.path("pipe");
            let fifo = rustix::fs::FileType::Fifo;
            rustix::fs::mknodat(rustix::fs::CWD, &pipe, fifo, 0o600.into(), 0).expect("a pipe");
            std::fs::rename(pipe, replica.path("hammerd.toml")).expect("the config file");
            replica.signal(Signal::HUP);
        }
        let took = service.list(&[1]);
        for (address, replica) in &mut service.replicas {
            let reloads = replica.scrape().sum("hammerd_config_reloads_total", &[]);
            assert_eq!(reloads, 0.0, "{address} still reads; the list took {took:?}");
            assert!(replica.stop().0.success());
        }
    });
}
