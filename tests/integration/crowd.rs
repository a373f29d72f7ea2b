//! Many at once: thousands of scrapes, clients that take their time, thousands of targets.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::Instant;

use crate::support::client::{self, KeepAlive};
use crate::support::nginx::Nginx;
use crate::support::{Daemon, Origin, PATIENCE, Reply, target, wait_until};

/// Clients that send a head byte by byte and never come to its end.
struct Slowloris(Vec<TcpStream>);

impl Slowloris {
    fn start(daemon: &Daemon, count: usize) -> Self {
        let begin = || {
            let mut stream = client::connect(daemon.address()).expect("a connection");
            stream.write_all(b"GET /metrics HTTP/1.1\r\nX-Slow: ").expect("the beginning of a head");
            stream
        };
        Self((0..count).map(|_| begin()).collect())
    }

    /// One more byte of each; those that were cut off are nobody's concern any more.
    fn drip(&mut self) {
        self.0.retain_mut(|stream| stream.write_all(b"x").is_ok());
    }

    /// Whether each has been cut off, however much it was still sending.
    fn all_cut(&mut self) -> bool {
        self.drip();
        self.0.is_empty()
    }
}

/// Row 41: ten thousand scrapes on a few connections that are kept, beside clients that never finish their requests.
#[test]
fn ten_thousand_scrapes_beside_slow_clients_retain_nothing() {
    const SCRAPERS: usize = 8;
    const ROUNDS: usize = 10_000 / SCRAPERS;
    const SLOW: usize = 64;
    let origin = Origin::start(|_| Reply::ok(""));
    let daemon = Daemon::start(&target("a", &origin.url("/"), "20/s", ""));
    let mut scrapers: Vec<KeepAlive> =
        (0..SCRAPERS).map(|_| KeepAlive::connect(daemon.address()).expect("a connection")).collect();
    let round = |scrapers: &mut Vec<KeepAlive>| {
        for scraper in scrapers {
            let answer = scraper.get("/metrics").expect("an answer");
            assert_eq!(answer.status, 200);
        }
    };
    (0..50).for_each(|_| round(&mut scrapers));
    let (descriptors, memory) = (daemon.own_descriptors(), daemon.resident_bytes());

    let mut slow = Slowloris::start(&daemon, SLOW);
    for number in 0..ROUNDS {
        round(&mut scrapers);
        if number % 25 == 0 {
            slow.drip();
            // One that comes anew is let in, and what it reads adds up.
            daemon.scrape();
        }
    }
    wait_until("end of the slow ones", PATIENCE, || slow.all_cut());
    wait_until("release of the descriptors", PATIENCE, || daemon.own_descriptors() <= descriptors + 1.0);
    let grown = daemon.resident_bytes().saturating_sub(memory);
    assert!(grown < 4 << 20, "{grown} bytes grown over ten thousand scrapes");
    let before = daemon.scrape().value("hammerd_requests_total", &[("target", "a")]);
    daemon.scrape_after("a", before + 5.0);
}

/// Row 43: as many as the default ceiling allows, all at work, each on a connection of its own.
#[test]
fn ten_thousand_targets_are_all_struck() {
    const TARGETS: usize = 10_000;
    const RATE: f64 = 500.0;
    // The default buckets would make scrapes of a hundred megabytes.
    const BUCKETS: &str = "[metrics]\nbuckets = [1.0]\n";
    let nginx = Nginx::start();
    let config = (0..TARGETS).map(|n| target(&format!("t{n}"), &nginx.url("/close"), "3/min", ""));
    let config = BUCKETS.to_owned() + &config.collect::<String>();
    let start = Instant::now();
    let mut daemon = Daemon::start(&config);
    let ready = start.elapsed();
    let memory = daemon.resident_bytes();
    nginx.log_of(5 * RATE as usize);

    let scrape = daemon.scrape();
    let struck = scrape.series("hammerd_requests_total").iter().filter(|sample| sample.value > 0.0).count();
    assert_eq!(scrape.series("hammerd_target_info").len(), TARGETS);
    assert_eq!(scrape.sum("hammerd_target_requests_per_second", &[]).round(), RATE);
    assert_eq!(scrape.sum("hammerd_request_failures_total", &[]), 0.0);
    // Each once in twenty seconds, and their phases are spread: as many targets as requests.
    let finished = scrape.sum("hammerd_requests_total", &[]);
    assert!(struck as f64 >= 0.9 * finished.min(TARGETS as f64), "{struck} targets for {finished} requests");
    println!("ready after {ready:?}, {memory} bytes then, {} after a scrape", daemon.resident_bytes());

    daemon.signal(rustix::process::Signal::TERM);
    assert_eq!(daemon.wait_exit(2 * PATIENCE).code(), Some(0));
    let summary = daemon.summaries().pop().expect("a summary");
    let targets = summary["targets"].as_object().expect("an object").values();
    let started: u64 = targets.map(|counted| counted["started"].as_u64().expect("a number")).sum();
    assert_eq!(started, nginx.log_entries().len() as u64, "each request is sent once");
}
