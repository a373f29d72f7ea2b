//! `hammerd hit URL`: one target, given by flags, for a while.

use std::cell::Cell;
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
    start(&logs, config, |options| Options {
        sources,
        duration: args.duration,
        output: args.output.into(),
        live: live.map(|live| Box::new(move |view: &RosterView| live.draw(view)) as _),
        ..options
    })
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
    started_before: Cell<u64>,
    drawn: Cell<bool>,
}

impl Live {
    /// A line on standard error, if that is a terminal.
    fn new() -> io::Result<Option<Self>> {
        if !io::stderr().is_terminal() {
            return Ok(None);
        }
        let (started_before, drawn) = (Cell::new(0), Cell::new(false));
        Ok(Some(Self { terminal: Outlet::stderr()?, begun: Instant::now(), started_before, drawn }))
    }

    fn draw(&self, view: &RosterView) {
        let Some(target) = view.targets.first() else { return };
        let counts = &target.counts;
        let mut latency = HistogramSnapshot::default();
        for histogram in &counts.latency {
            latency.merge(histogram);
        }
        let quantile = |q| latency.quantile(&target.info.shape, q).map_or("-".to_owned(), report::duration);
        let rate = counts.started - self.started_before.replace(counts.started);
        let failed = counts.latency[Verdict::Failed.index()].count;
        let line = format!(
            "{:>4}s {rate}/s  sent {} failed {failed} dropped {} open {}  p50 {} p99 {}",
            self.begun.elapsed().as_secs(),
            counts.started,
            counts.dropped.iter().sum::<u64>(),
            counts.in_flight,
            quantile(0.5),
            quantile(0.99),
        );
        self.drawn.set(true);
        // A line that is longer than the terminal is wide can't be drawn over.
        let line: String = line.chars().take(columns().saturating_sub(1)).collect();
        self.terminal.write(format!("\r\x1b[K{line}"));
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
