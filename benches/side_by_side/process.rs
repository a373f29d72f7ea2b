//! Processes that are measured: started on a core, ended for certain, their time counted.

use std::error::Error;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use serde_json::Value;

use crate::sys;

/// Whatever goes wrong is told to the person who runs the bench.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// How long a process may outlive its time before it is killed.
const PATIENCE: Duration = Duration::from_secs(15);
/// Between two looks whether it has ended; only after its time.
const POLL: Duration = Duration::from_millis(10);

/// Where things run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cores {
    /// The witness, and this process.
    pub(crate) server: usize,
    /// Every client.
    pub(crate) client: usize,
}

/// Starts `command` on the clients' core, or anywhere. A process inherits the core of the thread that starts it.
fn spawn(cores: Option<Cores>, command: &mut Command) -> Result<Child> {
    if let Some(cores) = cores {
        sys::pin(cores.client)?;
    }
    let child = command.spawn();
    if let Some(cores) = cores {
        sys::pin(cores.server)?;
    }
    Ok(child.map_err(|error| format!("{}: {error}", command.get_program().display()))?)
}

/// A child that does not outlive its owner.
pub(crate) struct Guarded(pub(crate) Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        // Both fail when it has ended already, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A client that is running.
pub(crate) struct Client {
    child: Guarded,
    name: String,
    output: PathBuf,
    ends_at: Instant,
    /// CPU time of all children that had ended before this one was started.
    before: Duration,
}

/// What a client came to.
pub(crate) struct Ended {
    /// User and system time over its whole life.
    pub(crate) cpu: Duration,
    /// What it printed on both outputs.
    pub(crate) output: String,
}

impl Client {
    /// Starts a client that ends by itself after `life`. What it prints goes to the file `output`.
    pub(crate) fn start(cores: Option<Cores>, command: &mut Command, output: PathBuf, life: Duration) -> Result<Self> {
        let file = File::create(&output)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let before = reaped_cpu()?;
        let child = Guarded(spawn(cores, command)?);
        let name = command.get_program().display().to_string();
        Ok(Self { child, name, output, ends_at: Instant::now() + life, before })
    }

    /// CPU time so far, to the nanosecond, of all its threads whose names `counts`.
    pub(crate) fn cpu(&self, counts: impl Fn(&str) -> bool) -> Result<Duration> {
        let mut total_ns = 0;
        for thread in fs::read_dir(format!("/proc/{}/task", self.child.0.id()))? {
            let thread = thread?.path();
            if counts(fs::read_to_string(thread.join("comm"))?.trim_end()) {
                let text = fs::read_to_string(thread.join("schedstat"))?;
                total_ns += text.split_whitespace().next().unwrap_or_default().parse::<u64>()?;
            }
        }
        Ok(Duration::from_nanos(total_ns))
    }

    /// Resident memory in megabytes: now (`VmRSS`) or at its highest (`VmHWM`).
    pub(crate) fn memory_mb(&self, field: &str) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.0.id()))?;
        let line =
            status.lines().find_map(|line| line.strip_prefix(field)).ok_or("no such field of /proc/PID/status")?;
        let kib: f64 = line.trim_matches(|c: char| !c.is_ascii_digit()).parse()?;
        Ok(kib * 1024.0 / 1e6)
    }

    /// Waits for its end, which must be a success.
    pub(crate) fn finish(mut self) -> Result<Ended> {
        std::thread::sleep(self.ends_at.saturating_duration_since(Instant::now()));
        let status = loop {
            if let Some(status) = self.child.0.try_wait()? {
                break status;
            }
            if self.ends_at.elapsed() > PATIENCE {
                return Err(format!("{} did not end in its time", self.name).into());
            }
            std::thread::sleep(POLL);
        };
        let cpu = reaped_cpu()?.saturating_sub(self.before);
        let output = String::from_utf8_lossy(&fs::read(&self.output)?).into_owned();
        if !status.success() {
            return Err(format!("{} ended with {status}: {}", self.name, output.trim_end()).into());
        }
        Ok(Ended { cpu, output })
    }
}

/// User and system time of all children that were waited for, theirs included (what `wait4` reports, summed).
fn reaped_cpu() -> Result<Duration> {
    cpu_of(UsageWho::RUSAGE_CHILDREN)
}

fn cpu_of(who: UsageWho) -> Result<Duration> {
    let usage = getrusage(who)?;
    let micros = |time: nix::sys::time::TimeVal| (time.tv_sec() * 1_000_000 + time.tv_usec()) as u64;
    Ok(Duration::from_micros(micros(usage.user_time()) + micros(usage.system_time())))
}

/// A witness that is running; see [`crate::witness`].
pub(crate) struct Witness {
    child: Guarded,
    /// Closing it ends the witness.
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    arrivals: PathBuf,
    /// Where it listens on the loopback address.
    pub(crate) port: u16,
}

/// What the witness saw.
pub(crate) struct Testimony {
    /// When each request arrived, in order.
    pub(crate) arrivals_ns: Vec<u64>,
    /// Answers kept back at the same time, at most.
    pub(crate) most_waiting: f64,
}

impl Witness {
    /// Starts one that keeps its answers back for `delay`. `arrivals` is the file for what it sees.
    pub(crate) fn start(cores: Option<Cores>, arrivals: PathBuf, delay: Duration) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["witness", "--delay-us", &delay.as_micros().to_string()]);
        command.args(cores.map(|cores| format!("--core={}", cores.server)));
        command.arg("--out").arg(&arrivals).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = Guarded(command.spawn()?);
        let stdin = child.0.stdin.take();
        let mut stdout = BufReader::new(child.0.stdout.take().ok_or("the witness has no output")?);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        let port = number(&serde_json::from_str(&line)?, "port")? as u16;
        Ok(Self { child, stdin, stdout, arrivals, port })
    }

    /// Where to send requests.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }

    /// Ends it and hears it.
    pub(crate) fn finish(mut self) -> Result<Testimony> {
        drop(self.stdin.take());
        let mut text = String::new();
        self.stdout.read_to_string(&mut text)?;
        let status = self.child.0.wait()?;
        if !status.success() {
            return Err(format!("the witness ended with {status}").into());
        }
        let counts: Value = serde_json::from_str(&text)?;
        let bytes = fs::read(&self.arrivals)?;
        let mut arrivals_ns: Vec<u64> = bytes.as_chunks().0.iter().map(|chunk| u64::from_le_bytes(*chunk)).collect();
        arrivals_ns.sort_unstable();
        Ok(Testimony { arrivals_ns, most_waiting: number(&counts, "most_waiting")? })
    }
}

/// A number out of a JSON object.
pub(crate) fn number(object: &Value, key: &str) -> Result<f64> {
    object[key].as_f64().ok_or_else(|| format!("no number {key:?} in {object}").into())
}

/// Who else is using the machine: a run beside a busy neighbour says nothing.
pub(crate) struct Neighbours {
    since: Instant,
    busy: Duration,
    ours: Duration,
}

impl Neighbours {
    /// From now on.
    pub(crate) fn watch() -> Result<Self> {
        Ok(Self { since: Instant::now(), busy: busy_or_stolen()?, ours: our_cpu()? })
    }

    /// What they (and the hypervisor) used since then, in percent of one core. Our clients and witnesses must have ended.
    pub(crate) fn percent_of_core(&self) -> Result<f64> {
        let busy = busy_or_stolen()?.saturating_sub(self.busy);
        let ours = our_cpu()?.saturating_sub(self.ours);
        Ok(busy.saturating_sub(ours).as_secs_f64() / self.since.elapsed().as_secs_f64() * 100.0)
    }
}

fn our_cpu() -> Result<Duration> {
    Ok(reaped_cpu()? + cpu_of(UsageWho::RUSAGE_SELF)?)
}

/// Time of all processes on all cores since boot, and time that the hypervisor took. Interrupts belong to nobody.
fn busy_or_stolen() -> Result<Duration> {
    const TICK_MS: u64 = 10;
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = line.split_whitespace().skip(1).filter_map(|ticks| ticks.parse().ok()).collect();
    let [user, nice, system, _idle, _iowait, _irq, _softirq, stolen, ..] = ticks[..] else {
        return Err("/proc/stat does not begin as expected".into());
    };
    Ok(Duration::from_millis((user + nice + system + stolen) * TICK_MS))
}
