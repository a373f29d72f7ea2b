//! The life that a daemon is made for, in small: steady traffic for as long as it is let, rates that are changed all
//! the time, files that are wrong now and then. Done-when 2.
//!
//! Twelve seconds unless `HAMMERD_SOAK_SECONDS` says otherwise.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::nginx::{LogEntry, Nginx};
use crate::support::{Daemon, Scrape, let_pass, target};

const SECONDS_VARIABLE: &str = "HAMMERD_SOAK_SECONDS";
const DEFAULT_SECONDS: usize = 12;
/// All targets together, at every moment.
const TOTAL_RATE: f64 = 1000.0;
/// What the two targets with changing rates send together.
const CHANGING_RATE: u32 = 935;
/// Never touched: 50/s and 5/s of the file that is shipped, and one between them.
const UNTOUCHED: [(&str, f64); 3] = [("home", 50.0), ("search", 5.0), ("untouched", 10.0)];
const CHANGING: [&str; 2] = ["left", "right"];
const LONGEST_GAP_PERIODS: f64 = 2.5;
/// How long a busy machine may keep the worker from noticing what is due.
const NOTICED_WITHIN_S: f64 = 0.25;

/// The configuration that is shipped, with targets at `nginx`.
fn shipped(nginx: &Nginx) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/hammerd.toml");
    let text = std::fs::read_to_string(path).expect("the shipped configuration");
    text.replace("127.0.0.1:8080", &nginx.address().to_string())
}

/// What lies over the shipped file: a header that tells the targets apart in the log of nginx, and three targets.
fn overlay(nginx: &Nginx, left: u32) -> String {
    let header = |name: &str| format!("headers = {{ x-request-id = \"{name}\" }}\n");
    let own = |name: &str, rate: &str| target(name, &nginx.url(&format!("/{name}")), rate, &header(name));
    let more = ["home", "search"].map(|name| format!("[targets.{name}]\n{}", header(name))).concat();
    let right = CHANGING_RATE - left;
    "[shutdown]\nlinger = \"0s\"\n".to_owned()
        + &more
        + &own("untouched", "10/s")
        + &own("left", &format!("{left}/s"))
        + &own("right", &format!("{right}/s"))
}

/// The rate of `left` from second `second` on: slow and fast, never the same twice in a row.
fn left_rate(second: usize) -> u32 {
    [467, 15, 920, 300, 700][second % 5] + second as u32 % 7
}

/// An overlay that must be refused, and that would be noticed if any of it were used.
fn bad_overlay(nginx: &Nginx, second: usize) -> String {
    let good = overlay(nginx, 1);
    match second / 5 % 4 {
        0 => good + "[targets.extra]\nurl = \"http://127.0.0.1:1/\"\nrate = \"-1/s\"\n",
        1 => good + "[targets.extra\n",
        2 => good.replace("rate = \"10/s\"", "rate = \"10/s\"\nretries = 3"),
        _ => good.replace("rate = \"10/s\"", "rate = \"1999/s\""),
    }
}

fn scheduled(scrape: &Scrape) -> f64 {
    scrape.sum("hammerd_requests_scheduled_total", &[])
}

fn reloads(scrape: &Scrape, result: &str) -> f64 {
    scrape.value("hammerd_config_reloads_total", &[("result", result)])
}

/// Replaces the overlay, whole, and asks for a reload; says whether it succeeded.
fn reload_with(daemon: &Daemon, overlay: &Path, text: &str) -> bool {
    let next = overlay.with_extension("next");
    std::fs::write(&next, text).expect("the overlay");
    std::fs::rename(&next, overlay).expect("the overlay");
    daemon.reload()
}

/// What one second came to.
struct Second {
    /// Whether its reload succeeded.
    reloaded: bool,
    /// Connections to all targets at its end.
    connections: f64,
}

/// One second: a reload and a scrape, with their checks.
fn second(daemon: &Daemon, nginx: &Nginx, overlay_path: &Path, number: usize, rate_before: u32) -> Second {
    let bad = number % 5 == 4;
    let rate = if bad { rate_before } else { left_rate(number) };
    let text = if bad { bad_overlay(nginx, number) } else { overlay(nginx, rate) };
    assert_eq!(reload_with(daemon, overlay_path, &text), !bad, "second {number}:\n{text}");
    // The ledger is checked by the scrape.
    let scrape = daemon.scrape();
    let asked = |name: &str| scrape.value("hammerd_target_requests_per_second", &[("target", name)]);
    assert_eq!((asked("left"), asked("right")), (f64::from(rate), f64::from(CHANGING_RATE - rate)), "second {number}");
    for (name, untouched) in UNTOUCHED {
        assert_eq!(asked(name), untouched, "second {number}");
    }
    Second { reloaded: !bad, connections: scrape.sum("hammerd_connections_open", &[]) }
}

#[test]
fn rates_change_every_second_and_every_request_is_accounted_for() {
    let seconds = std::env::var(SECONDS_VARIABLE).map_or(DEFAULT_SECONDS, |text| text.parse().expect("seconds"));
    let nginx = Nginx::start();
    let directory = tempfile::tempdir().expect("a directory");
    let overlay_path = directory.path().join("overlay.toml");
    let mut rate = left_rate(0);
    std::fs::write(&overlay_path, overlay(&nginx, rate)).expect("the overlay");
    let path = overlay_path.to_str().expect("UTF-8");
    let mut daemon = Daemon::builder(&shipped(&nginx)).arg("--config").arg(path).start();
    // Until every target has its connections and histograms, memory may grow.
    daemon.scrape_after("untouched", 20.0);

    let outer = Instant::now();
    let first = daemon.scrape();
    let inner = Instant::now();
    let (memory, descriptors) = (daemon.resident_bytes(), daemon.own_descriptors());
    let (mut succeeded, mut refused, mut most_connections) = (0.0, 0.0, 0.0_f64);
    for number in 1..=seconds {
        let Second { reloaded, connections } = second(&daemon, &nginx, &overlay_path, number, rate);
        most_connections = most_connections.max(connections);
        if reloaded {
            rate = left_rate(number);
            succeeded += 1.0;
        } else {
            refused += 1.0;
        }
        let left = Duration::from_secs(number as u64).checked_sub(inner.elapsed());
        left.into_iter().for_each(let_pass);
    }
    let inner = inner.elapsed().as_secs_f64();
    let last = daemon.scrape();
    let outer = outer.elapsed().as_secs_f64();

    let due = scheduled(&last) - scheduled(&first);
    let (fewest, most) = (TOTAL_RATE * (inner - NOTICED_WITHIN_S) - 5.0, TOTAL_RATE * (outer + NOTICED_WITHIN_S) + 5.0);
    assert!((fewest..=most).contains(&due), "{due} arrivals of all targets, not {fewest} to {most}");
    assert_eq!((reloads(&last, "success"), reloads(&last, "failure")), (succeeded, refused));
    let grown = daemon.resident_bytes().saturating_sub(memory);
    // A moment in which the machine was busy has taken more connections, and their buffers.
    let allowed = (4 << 20) + (64 << 10) * most_connections as u64;
    assert!(grown < allowed, "{grown} bytes grown, with at most {most_connections} connections");
    let more = daemon.own_descriptors() - descriptors;
    assert!(more <= 2.0, "{more} descriptors more than before, connections to targets left out");
    let dropped = last.sum("hammerd_requests_dropped_total", &[]);

    let (status, summary) = daemon.stop();
    assert_eq!(status.code(), Some(0));
    let log = by_target(nginx.log_entries());
    for name in UNTOUCHED.iter().map(|(name, _)| *name).chain(CHANGING) {
        assert_log_agrees(name, &log[name], &summary["targets"][name]);
    }
    assert_eq!(log.values().map(Vec::len).sum::<usize>(), nginx.log_entries().len(), "nothing else was sent");
    println!("{seconds} s: {due} arrivals, {dropped} dropped, at most {most_connections} connections");
    println!("{grown} bytes and {more} descriptors grown, connections to targets left out");
    for (name, rate) in UNTOUCHED {
        assert_no_gap(name, rate, &log[name], &summary["targets"][name]);
    }
}

/// Checks that no gap in the log is longer than [`LONGEST_GAP_PERIODS`], and as much more as hammerd itself says that
/// the machine was late by: a reload that tears a hole says nothing.
#[track_caller]
fn assert_no_gap(name: &str, rate: f64, ends: &[f64], counted: &Value) {
    let number = |value: &Value| value.as_f64().expect("a number");
    let periods = longest_gap(ends) * rate;
    let machine = number(&counted["dropped"]["late"]) + number(&counted["latency"]["max"]) * rate;
    println!("longest gap of {name} at {rate}/s: {periods:.2} periods, of which the machine may have {machine:.2}");
    assert!(periods <= LONGEST_GAP_PERIODS + machine, "{name}: a gap of {periods} periods");
}

/// The end of each request in the log, by target.
fn by_target(log: Vec<LogEntry>) -> BTreeMap<String, Vec<f64>> {
    let mut ends: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for entry in log {
        assert_eq!(entry.status, 200, "{entry:?}");
        ends.entry(entry.request_id).or_default().push(entry.end);
    }
    ends
}

/// Checks that nginx has served exactly what was started, and that all of it was good.
#[track_caller]
fn assert_log_agrees(name: &str, ends: &[f64], counted: &Value) {
    assert_eq!(counted["started"], ends.len(), "{name}: {counted:#}");
    assert_eq!(counted["responses"], serde_json::json!({ "200": ends.len() }), "{name}: {counted:#}");
    assert_eq!(counted["canceled"], 0, "{name}: {counted:#}");
}

/// The longest time between two requests that follow each other in the log, in seconds.
fn longest_gap(ends: &[f64]) -> f64 {
    ends.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max)
}
