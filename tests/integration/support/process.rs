//! A process of a test's own: its output kept line by line, its end bounded, killed by its id on drop.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::{PATIENCE, wait_for, wait_until};

/// Lines that a process has written so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    lines: Vec<String>,
    ended: bool,
}

/// A running (or ended) process.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    stdout: Lines,
    stderr: Lines,
    status: Option<ExitStatus>,
}

// === impl Lines ===

impl Lines {
    /// Reads to the end on a thread of its own.
    pub(crate) fn follow(stream: impl Read + Send + 'static) -> Self {
        let lines = Self::default();
        let kept = lines.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stream).split(b'\n') {
                let Ok(line) = line else { break };
                kept.0.lock().expect("lines").lines.push(String::from_utf8_lossy(&line).into_owned());
            }
            kept.0.lock().expect("lines").ended = true;
        });
        lines
    }

    fn none() -> Self {
        let lines = Self::default();
        lines.0.lock().expect("lines").ended = true;
        lines
    }

    /// All so far.
    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().expect("lines").lines.clone()
    }

    /// Whether there are no more to come.
    pub(crate) fn ended(&self) -> bool {
        self.0.lock().expect("lines").ended
    }
}

// === impl Process ===

impl Process {
    /// Starts a command; streams that the caller has not directed elsewhere are kept.
    pub(crate) fn start(name: &str, command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        let stdout = child.stdout.take().map_or_else(Lines::none, Lines::follow);
        let stderr = child.stderr.take().map_or_else(Lines::none, Lines::follow);
        Self { name: name.to_owned(), child, stdout, stderr, status: None }
    }

    /// Starts a server: no input, all output kept.
    pub(crate) fn serve(name: &str, command: &mut Command) -> Self {
        Self::start(name, command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()))
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// What it has written to stdout.
    pub(crate) fn stdout(&self) -> Vec<String> {
        self.stdout.all()
    }

    /// What it has written to stderr.
    pub(crate) fn stderr(&self) -> Vec<String> {
        self.stderr.all()
    }

    /// Its exit status, once it has ended.
    pub(crate) fn exited(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("a child of ours");
        }
        self.status
    }

    /// Waits for its end and for the last of its output.
    pub(crate) fn wait_exit(&mut self, timeout: Duration) -> ExitStatus {
        let what = format!("exit of {}", self.name);
        let status = wait_for(&what, timeout, || self.exited().ok_or_else(|| "still running".to_owned()));
        wait_until("end of its output", PATIENCE, || self.stdout.ended() && self.stderr.ended());
        status
    }

    /// Fails at once, with its output, when a server has ended although it should be starting.
    pub(crate) fn check_alive(&mut self) -> String {
        if let Some(status) = self.exited() {
            panic!("{} ended early, {status}:\n{}", self.name, self.stderr().join("\n"));
        }
        "not up yet".to_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {} stdout", self.name);
            self.stdout.print_end();
            eprintln!("--- {} stderr", self.name);
            self.stderr.print_end();
        }
    }
}

impl Lines {
    /// The last lines: enough to see what happened, not so many that the failure drowns in them.
    fn print_end(&self) {
        const SHOWN: usize = 60;
        let lines = self.all();
        for line in &lines[lines.len().saturating_sub(SHOWN)..] {
            eprintln!("{line}");
        }
    }
}

/// Sends a signal to a process that may be gone already.
pub(crate) fn signal(pid: Pid, signal: Signal) {
    let _ = kill_process(pid, signal);
}

/// The ids of a process's direct children.
pub(crate) fn children_of(pid: Pid) -> Vec<Pid> {
    let pid = pid.as_raw_nonzero();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    children.split_whitespace().filter_map(|id| Pid::from_raw(id.parse().ok()?)).collect()
}
