//! Commands and flags: what was typed becomes sources and options, and an end becomes an exit code.

mod health;
mod hit;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::{self, Config, Reading, Seen, Sources};
use crate::daemon::{self, Ended, Options};
use crate::demo;
use crate::logs::{self, Format, Outlet};
use crate::notify::Notify;
use crate::remote::{self, Missing, Remote};
use crate::report::Output;

/// How a command ended, as the shell sees it.
mod exit {
    /// As asked.
    pub(super) const OK: u8 = 0;
    /// It failed while running.
    pub(super) const FAILED: u8 = 1;
    /// Wrong usage.
    pub(super) const USAGE: u8 = 2;
    /// The configuration was rejected (`EX_CONFIG` of sysexits).
    pub(super) const CONFIG: u8 = 78;
    /// Added to the number of a signal that cut a drain short.
    pub(super) const SIGNALED: u8 = 128;
}

/// How long log lines may take to leave when we end.
const FLUSH_PATIENCE: Duration = Duration::from_millis(500);
/// How long a summary may take, which can have megabytes.
const RESULTS_PATIENCE: Duration = Duration::from_secs(5);

/// Always-on synthetic HTTP traffic with honest Prometheus metrics.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true, arg_required_else_help = false)]
struct Cli {
    #[command(flatten)]
    run: RunArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the daemon (also without a command)
    Run(RunArgs),
    /// Validate the configuration, print the plan, and exit
    Check(CheckArgs),
    /// Send traffic to one URL for a while and print a summary
    Hit(hit::HitArgs),
    /// Run the whole daemon on a built-in server and configuration
    Demo(DemoArgs),
    /// Ask a running hammerd whether it is healthy: exit code 0 if so, else 1
    Health(health::HealthArgs),
    /// Print the JSON Schema of the configuration file
    Schema,
}

#[derive(Args)]
struct SourceArgs {
    /// Configuration file (TOML; YAML or JSON by extension), or one that is fetched and followed, as in
    /// `https://host/path` and `s3://bucket/key`; later ones overlay earlier ones; - reads stdin; without it, the one that
    /// `HAMMERD_CONFIG` names
    #[arg(short, long = "config", value_name = "FILE")]
    config: Vec<PathBuf>,
}

impl SourceArgs {
    /// The files named here, if there are any, in place of those that the environment names.
    fn over(self, environment: Sources) -> Sources {
        if self.config.is_empty() { environment } else { Sources { files: self.config, ..environment } }
    }
}

#[derive(Args)]
struct ShardArgs {
    /// Which part of every stream to send: replica INDEX, from 0 on, of COUNT
    #[arg(long, value_name = "INDEX/COUNT")]
    shard: Option<String>,
}

impl ShardArgs {
    /// The keys that it sets, or what it should be.
    fn overrides(self) -> Result<Vec<(String, String)>, &'static str> {
        let Some(shard) = self.shard else { return Ok(Vec::new()) };
        let (index, count) = shard.split_once('/').ok_or("--shard: it is INDEX/COUNT, as in 0/3")?;
        Ok(vec![("shard.index".to_owned(), index.to_owned()), ("shard.count".to_owned(), count.to_owned())])
    }
}

#[derive(Args)]
struct CheckArgs {
    #[command(flatten)]
    sources: SourceArgs,
    #[command(flatten)]
    shard: ShardArgs,
}

#[derive(Args)]
struct LogArgs {
    /// How log lines look
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// error, warn, info, debug, trace, or directives as in `RUST_LOG`
    #[arg(long, value_name = "LEVEL", env = "RUST_LOG", default_value = logs::DEFAULT_FILTER)]
    log_level: String,
}

#[derive(Args)]
struct RunArgs {
    #[command(flatten)]
    sources: SourceArgs,
    #[command(flatten)]
    logs: LogArgs,
    /// Where /metrics is served, or "off"
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Stop after this time as SIGTERM would
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    #[command(flatten)]
    shard: ShardArgs,
    /// How summaries look; json also follows from --log-format json
    #[arg(long, value_enum, value_name = "FORMAT")]
    output: Option<OutputFormat>,
}

#[derive(Args)]
struct DemoArgs {
    #[command(flatten)]
    logs: LogArgs,
    /// Where /metrics is served
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9955")]
    listen: String,
    /// Stop after this time as SIGTERM would
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OutputFormat {
    Text,
    Json,
}

impl From<OutputFormat> for Output {
    fn from(format: OutputFormat) -> Self {
        match format {
            OutputFormat::Text => Self::Text,
            OutputFormat::Json => Self::Json,
        }
    }
}

/// Does what the arguments say and returns the exit code.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too. Nothing to do about a closed terminal.
            let _ = error.print();
            return error.exit_code().try_into().unwrap_or(exit::USAGE);
        }
    };
    match cli.command {
        None => run(cli.run),
        Some(Command::Run(args)) => run(args),
        Some(Command::Check(args)) => check(args),
        Some(Command::Hit(args)) => hit::hit(args),
        Some(Command::Demo(args)) => demo(args),
        Some(Command::Health(args)) => health::health(args),
        Some(Command::Schema) => print(&config::schema()),
    }
}

fn run(args: RunArgs) -> u8 {
    let mut overrides = match args.shard.overrides() {
        Ok(overrides) => overrides,
        Err(usage) => return misuse(usage),
    };
    overrides.extend(args.listen.map(|listen| ("server.listen".to_owned(), listen)));
    let follows_log = if args.logs.log_format == LogFormat::Json { Output::Json } else { Output::Text };
    let output = args.output.map_or(follows_log, Output::from);
    with_sources(args.sources, overrides, |config, loaded| {
        start(&args.logs, config, |options| {
            let Loaded { sources, seen, remote } = loaded;
            Options { sources, seen, remote, duration: args.duration, output, ..options }
        })
    })
}

fn check(args: CheckArgs) -> u8 {
    match args.shard.overrides() {
        Ok(overrides) => with_sources(args.sources, overrides, |config, _| print(&config::plan(&config))),
        Err(usage) => misuse(usage),
    }
}

fn demo(args: DemoArgs) -> u8 {
    let origin = match demo::Origin::start() {
        Ok(origin) => origin,
        Err(error) => return fail(&format!("the demo's server can't start: {error}")),
    };
    let sources = Sources {
        inline: Some(demo::config(origin.addr())),
        overrides: vec![("server.listen".to_owned(), args.listen)],
        ..Sources::default()
    };
    match config::load(&sources) {
        Ok(config) => {
            let origin = origin.addr();
            let greeting = Box::new(move |listen| demo::welcome(listen, origin));
            start(&args.logs, config, |options| Options {
                sources,
                duration: args.duration,
                greeting: Some(greeting),
                ..options
            })
        }
        Err(rejected) => reject(&rejected),
    }
}

/// What a configuration was loaded from.
struct Loaded {
    sources: Sources,
    seen: Seen,
    remote: Option<Remote>,
}

/// Loads the configuration that the arguments and the environment name, and goes on if it is valid.
fn with_sources(args: SourceArgs, overrides: Vec<(String, String)>, then: impl FnOnce(Config, Loaded) -> u8) -> u8 {
    let mut sources = Sources { overrides, ..args.over(environment()) };
    if let Err(error) = sources.read_stdin() {
        return fail(&format!("can't read the configuration from stdin: {error}"));
    }
    let remote = match remote::gather(&mut sources) {
        Ok(remote) => remote,
        Err(Missing::Name(why)) => {
            complain(&format!("--config {why}"));
            return exit::USAGE;
        }
        Err(Missing::Source(why)) => return fail(&why),
        Err(Missing::Start(error)) => return fail(&format!("the configuration can't be fetched: {error}")),
        Err(Missing::Stopped) => return exit::OK,
    };
    let Reading { config, seen } = config::read(&sources);
    match config {
        Ok(config) => then(config, Loaded { sources, seen, remote }),
        Err(rejected) => reject(&rejected),
    }
}

/// What the environment has to say. A variable that is not UTF-8 can't be a setting of ours, and one of our two names
/// that is empty says nothing: a deployment template often can't leave it out.
fn environment() -> Sources {
    let text = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
    let env: Vec<_> = std::env::vars_os().filter_map(text).collect();
    let files = std::env::var_os("HAMMERD_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from);
    let inline = std::env::var("HAMMERD_CONFIG_INLINE").ok().filter(|text| !text.is_empty());
    Sources { files: files.into_iter().collect(), inline, env, ..Sources::default() }
}

/// Sets up the ways out, lets `complete` fill in what is particular, and runs until the end.
fn start(args: &LogArgs, config: Config, complete: impl FnOnce(Options) -> Options) -> u8 {
    let format = match args.log_format {
        LogFormat::Text => Format::Text,
        LogFormat::Json => Format::Json,
    };
    let log = match logs::init(format, &args.log_level) {
        Ok(log) => log,
        Err(error @ (logs::InitError::Filter { .. } | logs::InitError::Level(_))) => {
            complain(&format!("--log-level: {error}"));
            return exit::USAGE;
        }
        Err(error) => return fail(&error.to_string()),
    };
    let results = match Outlet::stdout() {
        Ok(results) => results,
        Err(error) => return fail(&format!("standard output can't be used: {error}")),
    };
    // The default hook writes to stderr itself, and would wait for a reader that never comes.
    std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
    daemon::raise_descriptor_limit(&config);
    let counted = log.clone();
    let options = Options {
        sources: Sources::default(),
        seen: Seen::default(),
        remote: None,
        duration: None,
        output: Output::Text,
        results: results.clone(),
        greeting: None,
        live: None,
        log_lines_lost: Arc::new(move || counted.lost()),
        notify: Notify::new(|name| std::env::var_os(name), std::process::id()).unwrap_or_else(|error| {
            tracing::warn!(%error, "the service manager can't be told of us");
            Notify::default()
        }),
    };
    let ended = daemon::run(complete(options), config);
    let code = match ended {
        Ok(Ended::Stopped) => exit::OK,
        Ok(Ended::CutShort { signal }) => exit::SIGNALED + signal,
        Err(error) => {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                text = format!("{text}: {cause}");
                source = cause.source();
            }
            tracing::error!("{text}");
            exit::FAILED
        }
    };
    results.flush(RESULTS_PATIENCE);
    log.flush(FLUSH_PATIENCE);
    code
}

fn reject(rejected: &config::Rejected) -> u8 {
    complain(&rejected.to_string());
    exit::CONFIG
}

fn misuse(text: &str) -> u8 {
    complain(text);
    exit::USAGE
}

fn fail(text: &str) -> u8 {
    complain(text);
    exit::FAILED
}

fn complain(text: &str) {
    // Nobody is left to be told when stderr is gone.
    let _ = writeln!(std::io::stderr(), "{}", text.trim_end());
}

fn print(text: &str) -> u8 {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => exit::OK,
        Err(error) => fail(&format!("standard output: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_is_checked_as_it_is_run() {
        let overrides = |arguments: &[&str]| {
            let cli = Cli::try_parse_from(["hammerd"].iter().chain(arguments)).expect("arguments");
            match cli.command {
                Some(Command::Check(args)) => args.shard.overrides(),
                Some(Command::Run(args)) => args.shard.overrides(),
                _ => cli.run.shard.overrides(),
            }
        };
        let set = [("shard.index", "1"), ("shard.count", "3")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        for command in [&["check"][..], &["run"], &[]] {
            assert_eq!(overrides(&[command, &["--shard", "1/3"]].concat()), Ok(set.to_vec()), "{command:?}");
            assert_eq!(overrides(command), Ok(Vec::new()), "{command:?}");
            assert!(overrides(&[command, &["--shard", "1"]].concat()).is_err(), "{command:?}");
        }
    }
}
