//! `hammerd` as a process with a config file, and its HTTP face.

use std::fs::{File, Permissions};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use serde_json::Value;
use tempfile::TempDir;

use super::client::{self, Response};
use super::process::{self, Lines, Process};
use super::{PATIENCE, Scrape, assert_ledger, free_port, wait_for, wait_until};

const BINARY: &str = env!("CARGO_BIN_EXE_hammerd");

/// A `[targets.NAME]` section; `rest` is further lines of TOML.
pub(crate) fn target(name: &str, url: &str, rate: &str, rest: &str) -> String {
    format!("[targets.{name}]\nurl = \"{url}\"\nrate = \"{rate}\"\n{rest}\n\n")
}

/// How a daemon is to be started.
pub(crate) struct Builder {
    config: String,
    args: Vec<String>,
    envs: Vec<(String, String)>,
    wrapper: Vec<String>,
    listen: Listen,
    stderr: Option<Stdio>,
}

enum Listen {
    /// A port that the kernel chooses, read from the log.
    Logged,
    /// A port chosen here, for a daemon whose log can't be read.
    Fixed(u16),
    /// As the config file says, read from the log.
    File,
}

/// A running daemon.
pub(crate) struct Daemon {
    process: Process,
    pid: Pid,
    address: SocketAddr,
    directory: TempDir,
}

/// A run that has ended.
#[derive(Debug)]
pub(crate) struct Finished {
    /// Exit code; `None` when a signal ended it.
    pub(crate) code: Option<i32>,
    /// All of stdout.
    pub(crate) stdout: String,
    /// All of stderr.
    pub(crate) stderr: String,
}

// === impl Builder ===

impl Builder {
    /// Adds an argument.
    pub(crate) fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    /// Adds an environment variable.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.envs.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Runs it under another command, which ends its own arguments before the daemon's: `prlimit --nofile=64`.
    pub(crate) fn wrapped(mut self, wrapper: &[&str]) -> Self {
        self.wrapper.extend(wrapper.iter().map(|&word| word.to_owned()));
        self
    }

    /// Runs it as process 1 of a PID namespace, as a container does. Root only.
    pub(crate) fn in_pid_namespace(self) -> Self {
        self.wrapped(&["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"])
    }

    /// Sends its log elsewhere than to the test.
    pub(crate) fn stderr(mut self, stderr: Stdio) -> Self {
        self.stderr = Some(stderr);
        self.listen = Listen::Fixed(free_port());
        self
    }

    /// Leaves the listen address to the config file.
    pub(crate) fn listen_from_file(mut self) -> Self {
        self.listen = Listen::File;
        self
    }

    /// Listens on this port.
    pub(crate) fn port(mut self, port: u16) -> Self {
        self.listen = Listen::Fixed(port);
        self
    }

    /// Starts it and waits until it is ready.
    pub(crate) fn start(self) -> Daemon {
        let daemon = self.start_unready();
        wait_for("readiness", PATIENCE, || match client::get(daemon.address, "/-/ready") {
            Ok(response) if response.status == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        });
        daemon
    }

    /// Starts it and waits until its HTTP face answers.
    pub(crate) fn start_unready(self) -> Daemon {
        let fixed = match self.listen {
            Listen::Fixed(port) => Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
            Listen::Logged | Listen::File => None,
        };
        let (mut process, directory) = self.spawn();
        let address = wait_for("listen address", PATIENCE, || {
            let found = fixed.filter(|&address| client::connect(address).is_ok());
            match found.or_else(|| listening(&process.stderr())) {
                Some(address) => Ok(address),
                None => Err(process.check_alive()),
            }
        });
        let pid = daemon_pid(process.pid());
        Daemon { process, pid, address, directory }
    }

    /// Starts it and waits for its end: for configs that are refused.
    pub(crate) fn run(self) -> Finished {
        let (mut process, _directory) = self.spawn();
        let status = process.wait_exit(PATIENCE);
        Finished { code: status.code(), stdout: process.stdout().join("\n"), stderr: process.stderr().join("\n") }
    }

    fn spawn(self) -> (Process, TempDir) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        // Readable also for a daemon that runs as nobody.
        std::fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).expect("permissions");
        let config = directory.path().join("hammerd.toml");
        std::fs::write(&config, self.config).expect("the config file");

        let mut words = self.wrapper;
        words.extend([BINARY, "--log-format", "json", "--config"].map(str::to_owned));
        words.push(config.to_str().expect("a path in UTF-8").to_owned());
        match self.listen {
            Listen::Logged => words.extend(["--listen".to_owned(), "127.0.0.1:0".to_owned()]),
            Listen::Fixed(port) => words.extend(["--listen".to_owned(), format!("127.0.0.1:{port}")]),
            Listen::File => {}
        }
        words.extend(self.args);
        let mut command = command(&words[0]);
        command.args(&words[1..]).envs(self.envs);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(self.stderr.unwrap_or_else(Stdio::piped));
        (Process::start("hammerd", &mut command), directory)
    }
}

// === impl Daemon ===

impl Daemon {
    /// A daemon with this config.
    pub(crate) fn builder(config: &str) -> Builder {
        Builder {
            config: config.to_owned(),
            args: Vec::new(),
            envs: Vec::new(),
            wrapper: Vec::new(),
            listen: Listen::Logged,
            stderr: None,
        }
    }

    /// Starts a daemon with this config and waits until it is ready.
    pub(crate) fn start(config: &str) -> Self {
        Self::builder(config).start()
    }

    /// Its HTTP face.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The id of the daemon itself, also under a wrapper that forks.
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Where its config file is, and whatever else a test puts beside it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// GET on its HTTP face.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Response {
        client::get(self.address, path).unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    /// Any request to its HTTP face.
    #[track_caller]
    pub(crate) fn request(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
        let answer = client::request(self.address, method, path, headers, b"");
        answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// One valid scrape in which the ledger holds.
    #[track_caller]
    pub(crate) fn scrape(&self) -> Scrape {
        let response = self.get("/metrics");
        assert_eq!(response.status, 200, "{response:?}");
        let scrape = Scrape::parse(response.text()).unwrap_or_else(|error| panic!("an invalid scrape: {error}"));
        assert_ledger(&scrape);
        scrape
    }

    /// Scrapes until the condition holds; the ledger is checked at every one.
    pub(crate) fn scrape_when(&self, what: &str, condition: impl Fn(&Scrape) -> bool) -> Scrape {
        wait_for(what, PATIENCE, || {
            let scrape = self.scrape();
            if condition(&scrape) { Ok(scrape) } else { Err(format!("\n{}", scrape.summary())) }
        })
    }

    /// Scrapes until at least `count` requests of the target have finished.
    pub(crate) fn scrape_after(&self, target: &str, count: f64) -> Scrape {
        self.scrape_when(&format!("{count} finished requests of {target}"), |scrape| {
            scrape.value("hammerd_requests_total", &[("target", target)]) >= count
        })
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        process::signal(self.pid, signal);
    }

    /// Replaces the config file, whole, as an operator's tool would.
    pub(crate) fn write_config(&self, config: &str) {
        let next = self.path("next.toml");
        std::fs::write(&next, config).expect("the config file");
        std::fs::rename(&next, self.path("hammerd.toml")).expect("the config file");
    }

    /// Replaces the config file, asks for a reload by SIGHUP, waits for its result and says whether it succeeded.
    pub(crate) fn reload_with(&self, config: &str) -> bool {
        self.write_config(config);
        self.reload()
    }

    /// Asks for a reload by SIGHUP, waits for its result and says whether it succeeded.
    pub(crate) fn reload(&self) -> bool {
        let reloads = |scrape: &Scrape| scrape.sum("hammerd_config_reloads_total", &[]);
        let before = reloads(&self.scrape());
        self.signal(Signal::HUP);
        let scrape = self.scrape_when("result of the reload", |scrape| reloads(scrape) > before);
        scrape.value("hammerd_config_last_reload_successful", &[]) > 0.0
    }

    /// Waits for its end.
    pub(crate) fn wait_exit(&mut self, timeout: Duration) -> ExitStatus {
        self.process.wait_exit(timeout)
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.process.exited().is_none()
    }

    /// Asks it to stop and returns its exit status and last summary.
    pub(crate) fn stop(&mut self) -> (ExitStatus, Value) {
        self.signal(Signal::TERM);
        let status = self.wait_exit(PATIENCE);
        (status, self.summaries().pop().expect("a summary on stdout"))
    }

    /// Lines of stdout so far.
    pub(crate) fn stdout(&self) -> Vec<String> {
        self.process.stdout()
    }

    /// The summaries printed so far, as JSON; one that is only half written is left out.
    pub(crate) fn summaries(&self) -> Vec<Value> {
        let text = self.stdout().join("\n");
        serde_json::Deserializer::from_str(&text).into_iter().map_while(Result::ok).collect()
    }

    /// Its log so far, one JSON object a line.
    pub(crate) fn log_lines(&self) -> Vec<Value> {
        let lines = self.process.stderr();
        lines.iter().map(|line| serde_json::from_str(line).unwrap_or_else(|_| Value::String(line.clone()))).collect()
    }

    /// Log lines that contain all of these words.
    pub(crate) fn log_with(&self, words: &[&str]) -> Vec<Value> {
        let lines = self.log_lines();
        lines.into_iter().filter(|line| words.iter().all(|word| line.to_string().contains(word))).collect()
    }

    /// Waits for as many log lines that contain all of these words; there must not be more.
    #[track_caller]
    pub(crate) fn wait_log(&self, words: &[&str], count: usize) {
        wait_until(&format!("{count} lines with {words:?}"), PATIENCE, || self.log_with(words).len() >= count);
        assert_eq!(self.log_with(words).len(), count, "lines with {words:?}: {:?}", self.log_lines());
    }

    /// Descriptors that it holds open.
    pub(crate) fn open_descriptors(&self) -> usize {
        let pid = self.pid.as_raw_nonzero();
        std::fs::read_dir(format!("/proc/{pid}/fd")).expect("descriptors of a running daemon").count()
    }

    /// Descriptors that it holds open beside its connections to targets: those come and go with what the targets take.
    pub(crate) fn own_descriptors(&self) -> f64 {
        let connections = self.scrape().sum("hammerd_connections_open", &[]);
        self.open_descriptors() as f64 - connections
    }

    /// Resident memory in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.memory_bytes("VmRSS:")
    }

    /// The most resident memory that it has had, in bytes.
    pub(crate) fn peak_resident_bytes(&self) -> u64 {
        self.memory_bytes("VmHWM:")
    }

    fn memory_bytes(&self, field: &str) -> u64 {
        let pid = self.pid.as_raw_nonzero();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("status of a running daemon");
        let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("a field of its status");
        let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("kB");
        kibibytes * 1024
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // A wrapper that forks does not always take the daemon with it. Once reaped its id may be somebody else's.
        if self.is_running() && self.pid != self.process.pid() {
            process::signal(self.pid, Signal::KILL);
        }
    }
}

/// Runs a command of the daemon's binary to its end, with `stdin` as its input.
pub(crate) fn run(args: &[&str], envs: &[(&str, &str)], stdin: &str) -> Finished {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let input = directory.path().join("stdin");
    std::fs::write(&input, stdin).expect("the input");
    let mut command = command(BINARY);
    command.args(args).envs(envs.iter().copied()).stdin(File::open(&input).expect("the input"));
    let mut process = Process::start("hammerd", command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    let status = process.wait_exit(PATIENCE);
    Finished { code: status.code(), stdout: process.stdout().join("\n"), stderr: process.stderr().join("\n") }
}

/// Runs a command with all its output on a terminal, which shows nothing and takes nothing while it is paused.
pub(crate) fn run_on_terminal(args: &[&str], paused: bool) -> Finished {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let screen = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&screen).and_then(|()| unlockpt(&screen)).expect("a terminal of ours");
    let name = ptsname(&screen, Vec::new()).expect("its name").into_string().expect("UTF-8");
    let terminal = File::options().read(true).write(true).open(name).expect("the terminal");
    if paused {
        rustix::termios::tcflow(&terminal, rustix::termios::Action::OOff).expect("a terminal that can be paused");
    }
    let lines = Lines::follow(File::from(screen));
    let mut command = command(BINARY);
    command.args(args).stdin(Stdio::null()).stderr(terminal.try_clone().expect("a descriptor")).stdout(terminal);
    let mut process = Process::start("hammerd", &mut command);
    // With the command goes the last of those who hold the terminal; that ends the lines.
    drop(command);
    let status = process.wait_exit(PATIENCE);
    wait_until("end of the terminal", PATIENCE, || lines.ended());
    Finished { code: status.code(), stdout: lines.all().join("\n"), stderr: String::new() }
}

/// A command without what the caller's environment may hold for a daemon.
fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_remove("RUST_LOG");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("HAMMERD_")) {
        command.env_remove(name);
    }
    command
}

/// Starts `hammerd demo` on a port that the kernel chooses.
pub(crate) fn demo() -> Daemon {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut command = command(BINARY);
    command.args(["demo", "--listen", "127.0.0.1:0", "--log-format", "json"]);
    let mut process = Process::serve("hammerd demo", &mut command);
    let address = wait_for("listen address", PATIENCE, || match listening(&process.stderr()) {
        Some(address) => Ok(address),
        None => Err(process.check_alive()),
    });
    let pid = process.pid();
    Daemon { process, pid, address, directory }
}

/// The address of the log line `listening`, whether its fields stand apart or flattened.
fn listening(log: &[String]) -> Option<SocketAddr> {
    log.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok()).find_map(|line| {
        let field = |name: &str| Some(line.get(name).or_else(|| line.get("fields")?.get(name))?.as_str()?.to_owned());
        if field("message")? == "listening" { field("address")?.parse().ok() } else { None }
    })
}

/// The daemon among a process and its descendants: wrappers either become it or have it as their child.
fn daemon_pid(started: Pid) -> Pid {
    let name = |pid: Pid| std::fs::read_to_string(format!("/proc/{}/comm", pid.as_raw_nonzero())).unwrap_or_default();
    wait_for("daemon behind its wrapper", PATIENCE, || {
        let mut pid = started;
        while name(pid).trim() != "hammerd" {
            pid = *process::children_of(pid).first().ok_or("no such process")?;
        }
        Ok(pid)
    })
}
