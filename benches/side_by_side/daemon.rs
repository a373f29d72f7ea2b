//! hammerd as a client under measurement: its configuration, and what it says of itself.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::process::Result;

/// The release binary that cargo built for this bench.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_hammerd");
/// Longer than any scrape takes.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(10);

/// How much of a scrape is read at once.
const SCRAPE_READ: usize = 64 << 10;

/// What hammerd is told to do. Everything that is not here has its default.
pub(crate) struct Plan<'a> {
    /// How long an arrival may wait to share a wake-up.
    pub(crate) coalesce: &'a str,
    /// How many targets, all alike.
    pub(crate) targets: usize,
    /// The rate of each.
    pub(crate) rate_per_second: u64,
    /// Bound of each target's requests in flight, and so of its connections.
    pub(crate) max_in_flight: usize,
    /// Where they strike.
    pub(crate) url: &'a str,
}

/// A hammerd that can be started.
pub(crate) struct Daemon {
    /// Starts it.
    pub(crate) command: Command,
    /// Where its metrics are.
    port: u16,
}

impl Daemon {
    /// With its configuration in `dir`; it ends after `life`.
    pub(crate) fn new(plan: &Plan<'_>, dir: &Path, life: Duration) -> Result<Self> {
        Ok(Self::start(plan.write(dir)?, life))
    }

    /// With one worker and these targets, and everything else at its default.
    pub(crate) fn with_targets(targets: &str, dir: &Path, life: Duration) -> Result<Self> {
        let text = |port| format!("{}{}", server(port), targets);
        Ok(Self::start(write(dir, text)?, life))
    }

    fn start((file, port): (PathBuf, u16), life: Duration) -> Self {
        let mut command = Command::new(BINARY);
        command.args(["run", "--output", "json", "--log-level", "warn", "--config"]).arg(file);
        command.arg("--duration").arg(format!("{}ms", life.as_millis()));
        Self { command, port }
    }

    /// Its metrics as text.
    pub(crate) fn scrape(&self) -> Result<String> {
        let mut answer = String::new();
        self.ask()?.read_to_string(&mut answer)?;
        good(answer.as_bytes())?;
        Ok(answer)
    }

    /// Scrapes like somebody on another machine: without memory for the text, and out of the way of the witness on this
    /// core whenever it wakes up. Returns the number of lines, of which some dozens are no samples.
    pub(crate) fn scrape_aside(&self) -> Result<usize> {
        let mut stream = self.ask()?;
        let mut buffer = vec![0; SCRAPE_READ];
        let mut lines = 0;
        loop {
            let read = stream.read(&mut buffer)?;
            if lines == 0 {
                good(&buffer[..read])?;
            }
            if read == 0 {
                return Ok(lines);
            }
            lines += buffer[..read].iter().filter(|&&byte| byte == b'\n').count();
            std::thread::yield_now();
        }
    }

    /// Asks for the metrics, in a version of HTTP whose answers are not in chunks.
    fn ask(&self) -> Result<TcpStream> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_read_timeout(Some(SCRAPE_TIMEOUT))?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
        Ok(stream)
    }
}

/// Fails unless the answer is of the metrics.
fn good(answer: &[u8]) -> Result<()> {
    if answer.starts_with(b"HTTP/1.0 200 ") {
        return Ok(());
    }
    let head = String::from_utf8_lossy(answer.split(|&byte| byte == b'\r').next().unwrap_or_default());
    Err(format!("/metrics answered {head:?}").into())
}

impl Plan<'_> {
    /// Writes the configuration into `dir`, and says where it is and on which port metrics will be.
    pub(crate) fn write(&self, dir: &Path) -> Result<(PathBuf, u16)> {
        write(dir, |port| self.toml(port))
    }

    fn toml(&self, port: u16) -> String {
        let total = self.rate_per_second * self.targets as u64;
        let mut text = format!(
            "{}coalesce = \"{}\"\n\
             [limits]\nmax_total_rate = \"{total}/s\"\nmax_total_in_flight = {}\n\
             [defaults]\nurl = \"{}\"\nrate = \"{}/s\"\nmax_in_flight = {}\n",
            server(port),
            self.coalesce,
            (self.max_in_flight * self.targets).clamp(10_000, 1_000_000),
            self.url,
            self.rate_per_second,
            self.max_in_flight,
        );
        for index in 0..self.targets {
            // Writing to a String can't fail.
            let _ = writeln!(text, "[targets.t{index:05}]");
        }
        text
    }
}

/// The beginning of every configuration, which ends in the section `engine`.
fn server(port: u16) -> String {
    format!("[server]\nlisten = \"127.0.0.1:{port}\"\n[shutdown]\nlinger = \"0s\"\n[engine]\nworkers = 1\n")
}

/// Writes a configuration into `dir`, and says where it is and on which port metrics will be.
fn write(dir: &Path, text: impl Fn(u16) -> String) -> Result<(PathBuf, u16)> {
    // Free now; taken again by hammerd a moment later.
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    let file = dir.join("hammerd.toml");
    fs::write(&file, text(port))?;
    Ok((file, port))
}

/// The sum over all series of a metric, whose name is followed by labels or a space.
pub(crate) fn sum(metrics: &str, name: &str) -> f64 {
    let value = |line: &str| {
        let rest = line.strip_prefix(name)?;
        if rest.starts_with(['{', ' ']) { rest.rsplit(' ').next()?.parse::<f64>().ok() } else { None }
    };
    metrics.lines().filter_map(value).sum()
}

/// Requests sent within a millisecond of being due, and all that were sent.
pub(crate) fn punctual(metrics: &str) -> (f64, f64) {
    let name = "hammerd_schedule_lag_seconds";
    (sum(metrics, &format!("{name}_bucket{{le=\"0.001\"}}")), sum(metrics, &format!("{name}_count")))
}
