//! `hammerd hit URL`: one target, given by flags, for a while.

use std::cell::{Cell, RefCell};
use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;

use super::{FLUSH_PATIENCE, LogArgs, LogFormat, OutputFormat, fail, start};
use crate::config::{self, Sources};
use crate::daemon::Options;
use crate::logs::{DEFAULT_FILTER, Outlet};
use crate::outcome::Verdict;
use crate::report;
use crate::roster::RosterView;
use crate::stats::HistogramSnapshot;

#[derive(Args)]
pub(super) struct HitArgs {
    /// Where the requests go
    url: String,
    /// How often, as in 50/s, 3/min or 1/5s
    #[arg(short, long, default_value = "10/s")]
    rate: String,
    /// For how long; without it, until it is interrupted
    #[arg(short, long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// Request method
    #[arg(short = 'X', long)]
    method: Option<String>,
    /// A header, as "name: value"; repeats
    #[arg(short = 'H', long = "header", value_name = "HEADER")]
    headers: Vec<String>,
    /// Request body
    #[arg(short = 'b', long, conflicts_with = "body_file")]
    body: Option<String>,
    /// File with the request body
    #[arg(long, value_name = "FILE")]
    body_file: Option<PathBuf>,
    /// How long a request may take
    #[arg(short, long, default_value = "10s")]
    timeout: String,
    /// Requests in flight at once
    #[arg(long, value_name = "N", default_value = "1000")]
    max_in_flight: String,
    /// How the summary looks
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t = OutputFormat::Text)]
    output: OutputFormat,
}

/// The one target's name.
const TARGET: &str = "hit";

pub(super) fn hit(args: HitArgs) -> u8 {
    let mut overrides = vec![
        ("server.listen".to_owned(), "off".to_owned()),
        ("limits.max_total_rate".to_owned(), "1000000/s".to_owned()),
        ("limits.max_total_in_flight".to_owned(), "1000000".to_owned()),
        // What was asked for is waited for; a second interrupt ends at once.
        ("shutdown.grace".to_owned(), args.timeout.clone()),
    ];
    let mut set = |key: &str, value: Option<String>| {
        overrides.extend(value.map(|value| (format!("targets.{TARGET}.{key}"), value)));
    };
    set("url", Some(args.url));
    set("rate", Some(args.rate));
    set("method", args.method);
    set("body", args.body);
    set("body_file", args.body_file.map(|path| path.to_string_lossy().into_owned()));
    set("timeout", Some(args.timeout));
    set("max_in_flight", Some(args.max_in_flight));
    for header in args.headers {
        let Some((name, value)) = header.split_once(':') else {
            super::complain("--header: a header is \"name: value\"");
            return super::exit::USAGE;
        };
        set(&format!("headers.{}", name.trim()), Some(value.trim().to_owned()));
    }
    let sources = Sources { overrides, ..Sources::default() };
    let config = match config::load(&sources) {
        Ok(config) => config,
        // All of it was typed: what is wrong with it is wrong usage.
        Err(rejected) => {
            super::complain(&rejected.to_string());
            return super::exit::USAGE;
        }
    };
    let logs = LogArgs { log_format: LogFormat::Text, log_level: quiet() };
    let live = match Live::new() {
        Ok(live) => live,
        Err(error) => return fail(&format!("standard error can't be used: {error}")),
    };
    let mut results = None;
    let code = start(&logs, config, |options| {
        results = Some(options.results.clone());
        Options {
            sources,
            duration: args.duration,
            output: args.output.into(),
            live: live.map(|live| Box::new(move |view: &RosterView| live.draw(view)) as _),
            ..options
        }
    });
    // The summary is all that it was for. (A daemon has /metrics, and stops for no reader.)
    match results {
        Some(results) if code == super::exit::OK && results.lost() > 0 => {
            fail("standard output: the summary can't be written there")
        }
        _ => code,
    }
}

/// Faults are in the live line and the summary; lines about them would only tear it.
fn quiet() -> String {
    std::env::var("RUST_LOG")
        .unwrap_or_else(|_| if io::stderr().is_terminal() { "error" } else { DEFAULT_FILTER }.to_owned())
}

/// The line that is drawn over itself once a second. It goes through an outlet: a terminal can be paused (ctrl-S), and
/// would then hold up whoever writes to it, the end of the traffic with it.
struct Live {
    terminal: Outlet,
    begun: Instant,
    speed: RefCell<Speed>,
    drawn: Cell<bool>,
}

/// How fast it goes.
#[derive(Debug, Default)]
struct Speed {
    per_second: f64,
    /// What was started when it was measured last, and when that was.
    started: u64,
    at: Duration,
}

impl Speed {
    /// Below this a difference says little; the last drawing can come right behind the one before.
    const LEAST: Duration = Duration::from_millis(500);

    fn measure(&mut self, at: Duration, started: u64) -> f64 {
        let passed = at.saturating_sub(self.at);
        if passed >= Self::LEAST {
            let per_second = started.saturating_sub(self.started) as f64 / passed.as_secs_f64();
            *self = Self { per_second, started, at };
        }
        self.per_second
    }
}

impl Live {
    /// A line on standard error, if that is a terminal.
    fn new() -> io::Result<Option<Self>> {
        if !io::stderr().is_terminal() {
            return Ok(None);
        }
        let (speed, drawn) = (RefCell::default(), Cell::new(false));
        Ok(Some(Self { terminal: Outlet::stderr()?, begun: Instant::now(), speed, drawn }))
    }

    fn draw(&self, view: &RosterView) {
        let Some(target) = view.targets.first() else { return };
        let counts = &target.counts;
        let mut latency = HistogramSnapshot::default();
        for histogram in &counts.latency {
            latency.merge(histogram);
        }
        let quantile = |q| latency.quantile(&target.info.shape, q).map_or("-".to_owned(), report::duration);
        let elapsed = self.begun.elapsed();
        let rate = self.speed.borrow_mut().measure(elapsed, counts.started);
        let failed = counts.latency[Verdict::Failed.index()].count;
        // What is cut off first, where there is little room, is what can be done without.
        let line = format!(
            "{:>4}s {rate:.0}/s  p50 {} p99 {}  sent {} failed {} dropped {} open {}",
            elapsed.as_secs(),
            quantile(0.5),
            quantile(0.99),
            short(counts.started),
            short(failed),
            short(counts.dropped.iter().sum()),
            short(counts.in_flight),
        );
        self.drawn.set(true);
        // A line that is longer than the terminal is wide can't be drawn over.
        let line: String = line.chars().take(columns().saturating_sub(1)).collect();
        self.terminal.write(format!("\r\x1b[K{line}"));
    }
}

/// A count in at most five characters, up to a thousand millions; what it is exactly says the summary.
fn short(count: u64) -> String {
    match count {
        0..100_000 => count.to_string(),
        100_000..1_000_000 => format!("{}k", count / 1_000),
        1_000_000..10_000_000 => format!("{}.{:02}M", count / 1_000_000, count % 1_000_000 / 10_000),
        10_000_000..100_000_000 => format!("{}.{}M", count / 1_000_000, count % 1_000_000 / 100_000),
        _ => format!("{}M", count / 1_000_000),
    }
}

/// How wide the terminal is now; one that does not say is as wide as they were.
fn columns() -> usize {
    let size = rustix::termios::tcgetwinsize(io::stderr());
    size.ok().map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0).unwrap_or(80)
}

impl Drop for Live {
    fn drop(&mut self) {
        if self.drawn.get() {
            self.terminal.write("\n");
            self.terminal.flush(FLUSH_PATIENCE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_speed_is_that_of_the_time_since_it_was_measured() {
        let mut speed = Speed::default();
        for (at_ms, started, per_second) in [
            (0, 0, 0.0),
            (1_000, 50, 50.0),
            (3_000, 150, 50.0),
            // Too soon to tell.
            (3_010, 150, 50.0),
            (3_499, 175, 50.0),
            (3_500, 170, 40.0),
            (10_000, 170, 0.0),
        ] {
            let measured = speed.measure(Duration::from_millis(at_ms), started);
            assert!((measured - per_second).abs() < 1e-9, "{at_ms} ms: {measured}");
        }
    }

    #[test]
    fn counts_in_the_line_have_five_characters_at_most() {
        for (count, text) in [
            (0, "0"),
            (99_999, "99999"),
            (100_000, "100k"),
            (999_999, "999k"),
            (1_000_000, "1.00M"),
            (9_999_999, "9.99M"),
            (10_000_000, "10.0M"),
            (123_456_789, "123M"),
            (9_999_999_999, "9999M"),
        ] {
            assert_eq!(short(count), text);
        }
    }
}
