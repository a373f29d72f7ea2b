//! Instructions per request, counted by callgrind: a regression check that a noisy machine can't disturb.
//!
//! Two runs that differ only in their length: what start and end cost falls out of the difference. The figure is about
//! user-space code alone, and belongs to one compiler; it is recorded in a file, with how far a change may go.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::daemon::{BINARY, Plan};
use crate::peers::CONNECTIONS;
use crate::process::{Client, Result, Witness, number};

/// The figure that was recorded.
const RECORD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.json");
/// Enough requests that what else differs between two runs (hash seeds, timers) is lost among them, and few enough that
/// callgrind keeps up.
const RATE_PER_SECOND: u64 = 1000;
const SHORT: Duration = Duration::from_secs(3);
const LONG: Duration = Duration::from_secs(9);
/// How much longer than asked a run takes under callgrind.
const START_UP: Duration = Duration::from_secs(2);

/// How the guard is started.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The binary under test, built with the release profile
    #[arg(long, value_name = "FILE", default_value = BINARY)]
    hammerd: PathBuf,
    /// Write today's figure into the record
    #[arg(long)]
    record: bool,
}

/// Counts, and fails when the figure is above the recorded one by more than the tolerance. Without valgrind it says so.
pub(crate) fn run(args: &Args) -> Result<()> {
    let found = Command::new("valgrind").arg("--version").stdout(Stdio::null()).status();
    if !found.is_ok_and(|status| status.success()) {
        println!("instruction guard skipped: valgrind is missing (apt-get install valgrind)");
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let (short, long) = (count(args, dir.path(), SHORT)?, count(args, dir.path(), LONG)?);
    let measured = (long.instructions - short.instructions) / (long.requests - short.requests);
    let record: Value = serde_json::from_str(&fs::read_to_string(RECORD)?)?;
    let (recorded, tolerance) = (number(&record, "instructions_per_request")?, number(&record, "tolerance_percent")?);
    let change = (measured / recorded - 1.0) * 100.0;
    println!(
        "{measured:.0} instructions per request; recorded: {recorded:.0} ({change:+.1} %, at most +{tolerance} %)"
    );
    if args.record {
        let record = json!({ "instructions_per_request": measured.round(), "tolerance_percent": tolerance });
        fs::write(RECORD, serde_json::to_string_pretty(&record)? + "\n")?;
    } else if change > tolerance {
        return Err(
            "a request costs more instructions than it did. If that is worth it, record it with --record".into()
        );
    } else if change < -tolerance {
        println!("cheaper than recorded: keep it so with --record");
    }
    Ok(())
}

struct Count {
    instructions: f64,
    requests: f64,
}

fn count(args: &Args, dir: &Path, life: Duration) -> Result<Count> {
    let witness = Witness::start(None, dir.join("arrivals"), Duration::ZERO)?;
    let url = witness.url();
    let plan =
        Plan { coalesce: "250us", targets: 1, rate_per_second: RATE_PER_SECOND, max_in_flight: CONNECTIONS, url: &url };
    let (file, _port) = plan.write(dir)?;
    let mut command = Command::new("valgrind");
    command.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}", dir.join("callgrind").display()));
    command.arg(&args.hammerd).args(["run", "--output", "json", "--log-level", "off", "--config"]).arg(file);
    command.arg("--duration").arg(format!("{}s", life.as_secs()));
    let ended = Client::start(None, &mut command, dir.join("output"), life + START_UP)?.finish()?;
    let collected = ended.output.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    let instructions = collected.ok_or_else(|| format!("callgrind told no count: {}", ended.output))?;
    Ok(Count { instructions, requests: witness.finish()?.arrivals_ns.len() as f64 })
}
