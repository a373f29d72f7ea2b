//! hammerd side by side with a raw floor and with other load generators.
//!
//!     cargo bench --bench side_by_side -- --help
//!
//! Every client sends the same traffic from the same core to the same witness on another core, one after the other, for
//! several rounds. What counts are ratios inside a round: absolute figures change with the machine and the minute.

mod claims;
mod contest;
mod daemon;
mod floor;
mod guard;
mod observed;
mod peers;
mod plots;
mod process;
mod protocols;
mod report;
mod sample;
mod schedule;
mod stats;
mod svg;
mod sys;
mod witness;

use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand, ValueEnum};

use crate::process::{Cores, Result};
use crate::schedule::Session;

/// hammerd beside a raw floor and beside other load generators, on one core each.
#[derive(Parser)]
#[command(name = "side_by_side", args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(flatten)]
    args: BenchArgs,
    #[command(subcommand)]
    part: Option<Part>,
    /// Said by `cargo bench`; without it, and without other arguments, nothing is run
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

/// The parts that run as processes of their own.
#[derive(Subcommand)]
enum Part {
    /// Serve and note when requests arrive, until standard input ends
    Witness(witness::Args),
    /// Send evenly spaced requests with nothing but system calls
    Floor(floor::Args),
    /// Count the instructions of a request and compare them with the record
    Guard(guard::Args),
}

#[derive(clap::Args)]
struct BenchArgs {
    /// Rounds, in each of which every client runs once
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Measured seconds of a run, after two seconds of warm-up
    #[arg(long, default_value_t = 8)]
    seconds: u64,
    /// Seconds of the run at rest
    #[arg(long, default_value_t = 30)]
    rest_seconds: u64,
    /// Requests a second of the precision scenario; the goals are about 1,000 and 10,000
    #[arg(long, value_delimiter = ',', default_values_t = [1000, 10_000])]
    rate: Vec<u64>,
    /// One short round of everything: a look, not a measurement
    #[arg(long)]
    quick: bool,
    /// Only these clients, by name: hammerd, floor, wrk, ..., or one setting of them: "hammerd 250us"
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only these scenarios
    #[arg(long, value_delimiter = ',')]
    scenario: Vec<Scenario>,
    /// Also write everything as JSON to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Also write plots (SVG) into this directory
    #[arg(long, value_name = "DIR")]
    plots: Option<PathBuf>,
    /// Core of the witness
    #[arg(long)]
    server_core: Option<usize>,
    /// Core of the clients
    #[arg(long)]
    client_core: Option<usize>,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// CPU per request and evenness at a given rate
    Precision,
    /// CPU per request in a closed loop, as many as the core can do
    Saturated,
    /// The largest rate held on one core
    Capacity,
    /// 10,000 targets at 1/s against one at 10,000/s, and scrapes of them
    Targets,
    /// One target at 1/s
    Rest,
    /// 10,000 requests in flight
    Connections,
    /// CPU per request over TLS and HTTP/2
    Protocols,
    /// A plain target beside 500 TLS handshakes a second
    Storm,
    /// 100 targets with traces, and with a scrape every 100 ms
    Observed,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.is_empty() {
        // What `cargo test --benches` does: nothing to measure there.
        println!("cargo bench --bench side_by_side -- --help");
        return Ok(());
    }
    let cli = Cli::parse();
    match cli.part {
        Some(Part::Witness(args)) => Ok(witness::run(&args)?),
        Some(Part::Floor(args)) => Ok(floor::run(&args)?),
        Some(Part::Guard(args)) => guard::run(&args),
        None => bench(&cli.args, &arguments),
    }
}

fn bench(args: &BenchArgs, arguments: &[String]) -> Result<()> {
    let mut session = Session::new(args, cores(args)?)?;
    let outcome = session.run();
    // What was measured before something failed is worth showing.
    let findings = claims::findings(&session.samples);
    print!("{}", report::tables(&session.samples, &findings));
    if let Some(path) = &args.json {
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new("")))?;
        std::fs::write(path, report::record(&session.samples, &findings, arguments))?;
    }
    if let Some(dir) = &args.plots {
        plots::write_all(&session.samples, dir)?;
    }
    outcome
}

/// Two different cores. With one only, client and witness would measure each other's scheduling.
fn cores(args: &BenchArgs) -> Result<Cores> {
    let allowed = sys::allowed_cores()?;
    let [first, second, ..] = allowed[..] else { return Err("at least two cores are needed".into()) };
    let cores = Cores { server: args.server_core.unwrap_or(first), client: args.client_core.unwrap_or(second) };
    if cores.server == cores.client {
        return Err("witness and clients need different cores".into());
    }
    Ok(cores)
}
