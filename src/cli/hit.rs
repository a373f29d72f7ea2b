//! `hammerd hit URL`: one target, given by flags, for a while.

use std::cell::Cell;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;

use super::{LogArgs, LogFormat, OutputFormat, reject, start_with};
use crate::config::{self, Sources};
use crate::daemon::Options;
use crate::logs::DEFAULT_FILTER;
use crate::outcome::Verdict;
use crate::report;
use crate::roster::RosterView;
use crate::stats::{HistogramSnapshot, Shape};

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
    let loaded = match config::load(&sources) {
        Ok(loaded) => loaded,
        Err(rejected) => return reject(&rejected),
    };
    let shape = Shape::new(loaded.config.metrics.native_schema, &loaded.config.metrics.buckets);
    let logs = LogArgs { log_format: LogFormat::Text, log_level: quiet() };
    let live = Live { shape, begun: Instant::now(), started_before: Cell::new(0), drawn: Cell::new(false) };
    start_with(&logs, loaded, |options| Options {
        sources,
        duration: args.duration,
        output: args.output.into(),
        live: std::io::stderr().is_terminal().then(|| Box::new(move |view: &RosterView| live.draw(view)) as _),
        ..options
    })
}

/// Faults are in the live line and the summary; lines about them would only tear it.
fn quiet() -> String {
    std::env::var("RUST_LOG")
        .unwrap_or_else(|_| if std::io::stderr().is_terminal() { "error" } else { DEFAULT_FILTER }.to_owned())
}

/// The line that is drawn over itself once a second.
struct Live {
    shape: Shape,
    begun: Instant,
    started_before: Cell<u64>,
    drawn: Cell<bool>,
}

impl Live {
    fn draw(&self, view: &RosterView) {
        let Some(target) = view.targets.first() else { return };
        let counts = &target.counts;
        let mut latency = HistogramSnapshot::default();
        for histogram in &counts.latency {
            latency.merge(histogram);
        }
        let quantile = |q| latency.quantile(&self.shape, q).map_or("-".to_owned(), report::duration);
        let rate = counts.started - self.started_before.replace(counts.started);
        let failed = counts.latency[Verdict::Failed.index()].count;
        let line = format!(
            "{:>4}s  {rate}/s  {} sent, {failed} failed, {} dropped, {} in flight  p50 {} p99 {}",
            self.begun.elapsed().as_secs(),
            counts.started,
            counts.dropped.iter().sum::<u64>(),
            counts.in_flight,
            quantile(0.5),
            quantile(0.99),
        );
        self.drawn.set(true);
        // A terminal that went away misses a line of decoration.
        let _ = write!(std::io::stderr(), "\r\x1b[K{line}");
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if self.drawn.get() {
            let _ = writeln!(std::io::stderr());
        }
    }
}
