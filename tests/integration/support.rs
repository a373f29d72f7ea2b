//! Parts to build a test from: the daemon, servers good and bad, witnesses, and the one way to wait.
//!
//! Everything started here listens on a port of its own, is bounded in time and is ended by its process id when it
//! goes out of scope, so that tests may run beside each other.

pub(crate) mod browser;
pub(crate) mod caddy;
#[cfg(feature = "http3")]
pub(crate) mod caddy_http3;
pub(crate) mod certificates;
pub(crate) mod cgroup;
pub(crate) mod client;
pub(crate) mod daemon;
pub(crate) mod dead;
pub(crate) mod dns;
pub(crate) mod envoy;
pub(crate) mod frames;
pub(crate) mod grafana;
pub(crate) mod haproxy;
pub(crate) mod ledger;
pub(crate) mod moto;
pub(crate) mod net;
pub(crate) mod nghttpd;
pub(crate) mod nginx;
pub(crate) mod origin;
pub(crate) mod process;
pub(crate) mod prometheus;
#[cfg(feature = "http3")]
pub(crate) mod quic;
pub(crate) mod scrape;
pub(crate) mod wall_clock;

use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

pub(crate) use daemon::{Daemon, target};
pub(crate) use ledger::assert_ledger;
pub(crate) use origin::{Origin, Reply};
pub(crate) use scrape::Scrape;

/// How long anything that ought to happen may take before a test gives up: far above what it does take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Asks `probe` again and again until it answers `Ok`, and panics with its last `Err` after `timeout`.
///
/// The only place that sleeps: every wait in these tests is for a condition.
pub(crate) fn wait_for<T>(what: &str, timeout: Duration, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match probe() {
            Ok(value) => return value,
            Err(seen) if start.elapsed() >= timeout => panic!("no {what} within {timeout:?}; last seen: {seen}"),
            Err(_) => std::thread::sleep(POLL_INTERVAL),
        }
    }
}

/// [`wait_for`] a condition that has nothing to say but yes or no.
pub(crate) fn wait_until(what: &str, timeout: Duration, mut condition: impl FnMut() -> bool) {
    wait_for(what, timeout, || if condition() { Ok(()) } else { Err("not yet".to_owned()) });
}

/// The whole lines of a log, each an object of JSON.
pub(crate) fn read_log<T: DeserializeOwned>(path: &Path) -> Vec<T> {
    let log = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let whole = log.rfind('\n').map_or("", |end| &log[..end]);
    whole.lines().map(read_log_line).collect()
}

/// One line of a log, an object of JSON.
pub(crate) fn read_log_line<T: DeserializeOwned>(line: &str) -> T {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

/// Waits until a server's log has as many lines, and returns it.
pub(crate) fn wait_log<T>(count: usize, read: impl Fn() -> Vec<T>) -> Vec<T> {
    wait_for(&format!("log of {count} requests"), PATIENCE, || {
        let entries = read();
        if entries.len() >= count { Ok(entries) } else { Err(format!("{} requests", entries.len())) }
    })
}

/// Lets a stretch of time pass because the passing itself is under test (a frozen process, a full second of traffic).
pub(crate) fn let_pass(duration: Duration) {
    let start = Instant::now();
    wait_until("passing of time", duration + PATIENCE, || start.elapsed() >= duration);
}

/// Whether the tests may make namespaces and raise limits.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Says on the real stderr (past the test runner's capture) that a test did not run, and leaves a line for the count
/// that `tests/run` prints at the end.
pub(crate) fn skip(test: &str, why: &str) {
    let line = format!("SKIPPED {test}: {why}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(path) = std::env::var_os("HAMMERD_TESTS_SKIPPED")
        && let Ok(mut file) = OpenOptions::new().create(true).append(true).open(path)
    {
        let _ = file.write_all(line.as_bytes());
    }
}

/// A server that is no Debian package: `tests/run` installs it beside what cargo builds.
pub(crate) fn installed(name: &str) -> PathBuf {
    installed_in("peers/bin", name)
}

/// The same of one that has an environment of its own, because of all that it needs.
pub(crate) fn judge(name: &str) -> PathBuf {
    installed_in("peers/judges/bin", name)
}

fn installed_in(directory: &str, name: &str) -> PathBuf {
    let beside = Path::new(env!("CARGO_BIN_EXE_hammerd")).ancestors().map(|up| up.join(directory).join(name));
    let found = beside.into_iter().find(|path| path.exists());
    found.unwrap_or_else(|| panic!("{name} is not installed: tests/run does that, once"))
}

/// A port that nothing listens on, below the range that the kernel gives to outgoing connections, so that no
/// connection of a neighbouring test can take it meanwhile.
pub(crate) fn free_port() -> u16 {
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 20_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id() % u32::from(COUNT)) as u16;
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (start.wrapping_mul(7) % COUNT + step % COUNT) % COUNT;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port among {COUNT}");
}
