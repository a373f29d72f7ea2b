//! The runs themselves: one client at a time against a witness of its own.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use hammerd::clock::now_ns;
use tempfile::TempDir;

use crate::daemon::{Daemon, Plan, punctual, sum};
use crate::peers::{CONNECTIONS, Peer};
use crate::process::{Client, Cores, Neighbours, Result, Testimony, Witness, number};
use crate::sample::{Metric, Sample};

/// From a client's start to the beginning of its measurement.
pub(crate) const WARM_UP: Duration = Duration::from_secs(2);
/// From the end of a measurement to the end of the client.
pub(crate) const TAIL: Duration = Duration::from_millis(500);

/// A client and its settings.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Contestant {
    /// Our daemon, with `coalesce` in microseconds.
    Hammerd { coalesce_us: u64 },
    /// The raw floor, likewise.
    Floor { coalesce_us: u64 },
    /// Somebody else's.
    Peer(Peer),
}

impl Contestant {
    /// Its name in tables.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Hammerd { coalesce_us } => format!("hammerd {coalesce_us}us"),
            Self::Floor { coalesce_us } => format!("floor {coalesce_us}us"),
            Self::Peer(peer) => peer.name.to_owned(),
        }
    }
}

/// What every run needs.
pub(crate) struct Arena {
    /// Where things run.
    pub(crate) cores: Cores,
    /// For configurations, outputs and arrivals.
    pub(crate) dir: TempDir,
}

/// A moment of a run.
pub(crate) struct Moment {
    at_ns: u64,
    /// CPU time of the client up to then.
    pub(crate) cpu: Duration,
}

impl Moment {
    pub(crate) fn of(client: &Client) -> Result<Self> {
        Ok(Self { at_ns: now_ns(), cpu: client.cpu(|_| true)? })
    }
}

impl Arena {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn witness(&self, delay: Duration) -> Result<Witness> {
        Witness::start(Some(self.cores), self.path("arrivals"), delay)
    }

    pub(crate) fn client(&self, command: &mut Command, life: Duration) -> Result<Client> {
        Client::start(Some(self.cores), command, self.path("output"), life)
    }

    /// A command that starts the raw floor.
    fn floor(port: u16, rate: u64, seconds: u64, options: &[(&str, u64)]) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("floor").args([u64::from(port), rate, seconds].map(|number| number.to_string()));
        for (option, value) in options {
            command.args([format!("--{option}"), value.to_string()]);
        }
        Ok(command)
    }

    /// Precision (at `rate`) or the closed loop (without): CPU per request over the client's whole life, and evenness
    /// without its ends.
    pub(crate) fn steady(&self, sample: &mut Sample, who: Contestant, rate: Option<u64>, seconds: u64) -> Result<()> {
        let witness = self.witness(Duration::ZERO)?;
        let life = Duration::from_secs(seconds) + WARM_UP;
        let at_most = rate.unwrap_or_default();
        let mut command = match who {
            Contestant::Hammerd { coalesce_us } => {
                let (coalesce, url) = (format!("{coalesce_us}us"), witness.url());
                let plan = Plan {
                    coalesce: &coalesce,
                    targets: 1,
                    rate_per_second: at_most,
                    max_in_flight: CONNECTIONS,
                    url: &url,
                };
                Daemon::new(&plan, self.dir.path(), life)?.command
            }
            Contestant::Floor { coalesce_us } => {
                Self::floor(witness.port, at_most, life.as_secs(), &[("coalesce-us", coalesce_us)])?
            }
            Contestant::Peer(peer) => peer.command(rate, life.as_secs(), &witness.url(), self.dir.path())?,
        };
        let neighbours = Neighbours::watch()?;
        let ended = self.client(&mut command, life)?.finish()?;
        let testimony = witness.finish()?;
        sample.put(Metric::Neighbours, neighbours.percent_of_core()?);
        let requests = testimony.arrivals_ns.len() as f64;
        sample.put(Metric::CpuPerRequest, ended.cpu.as_secs_f64() * 1e6 / requests);
        match rate {
            Some(rate) => sample.judge(&testimony.arrivals_ns, rate as f64),
            None => sample.put(Metric::Achieved, requests / life.as_secs_f64()),
        }
        Ok(())
    }

    /// Whether a rate is held on one core: at least 99.9 % sent, and 99 % of that within a millisecond.
    pub(crate) fn holds(&self, who: Contestant, rate: u64, seconds: u64, connections: usize) -> Result<bool> {
        let witness = self.witness(Duration::ZERO)?;
        let life = Duration::from_secs(seconds + 1);
        match who {
            Contestant::Hammerd { coalesce_us } => {
                let (coalesce, url) = (format!("{coalesce_us}us"), witness.url());
                let plan = Plan {
                    coalesce: &coalesce,
                    targets: 1,
                    rate_per_second: rate,
                    max_in_flight: connections,
                    url: &url,
                };
                let mut daemon = Daemon::new(&plan, self.dir.path(), life + TAIL)?;
                let client = self.client(&mut daemon.command, life + TAIL)?;
                std::thread::sleep(Duration::from_secs(1));
                let (from, before) = (now_ns(), daemon.scrape()?);
                std::thread::sleep(Duration::from_secs(seconds));
                let after = daemon.scrape()?;
                let until = now_ns();
                client.finish()?;
                let sent = count_between(&witness.finish()?, from, until);
                let (punctual_before, lags_before) = punctual(&before);
                let (punctual_after, lags_after) = punctual(&after);
                let in_time = (punctual_after - punctual_before) / (lags_after - lags_before);
                let due = rate as f64 * (until - from) as f64 / 1e9;
                Ok(sent >= 0.999 * due && in_time >= 0.99)
            }
            Contestant::Floor { coalesce_us } => {
                let options = [("coalesce-us", coalesce_us), ("connections", connections as u64), ("warm-up", 1)];
                let mut command = Self::floor(witness.port, rate, life.as_secs(), &options)?;
                let ended = self.client(&mut command, life)?.finish()?;
                witness.finish()?;
                let told = serde_json::from_str(&ended.output)?;
                let sent = number(&told, "sent")? / number(&told, "scheduled")?;
                Ok(sent >= 0.999 && number(&told, "lag_p99_us")? < 1000.0)
            }
            Contestant::Peer(peer) => Err(format!("{} does not tell its lag", peer.name).into()),
        }
    }

    /// A daemon with `targets` targets that share `rate`: CPU per request, evenness of the sum, memory, and, when
    /// `scraped` once in that time, the cost of a line.
    pub(crate) fn fleet(
        &self,
        sample: &mut Sample,
        targets: usize,
        rate: u64,
        seconds: u64,
        scraped: Option<Duration>,
    ) -> Result<()> {
        let witness = self.witness(Duration::ZERO)?;
        let url = witness.url();
        let max_in_flight = if targets == 1 { CONNECTIONS } else { 10 };
        let rate_per_second = rate / targets as u64;
        let plan = Plan { coalesce: "250us", targets, rate_per_second, max_in_flight, url: &url };
        let life = WARM_UP + Duration::from_secs(seconds) + TAIL;
        let mut daemon = Daemon::new(&plan, self.dir.path(), life)?;
        let neighbours = Neighbours::watch()?;
        let client = self.client(&mut daemon.command, life)?;
        std::thread::sleep(WARM_UP);
        let before = Moment::of(&client)?;
        let window = Duration::from_secs(seconds);
        match scraped {
            Some(interval) => scrape_for(&daemon, &client, window, interval, sample)?,
            None => std::thread::sleep(window),
        }
        let after = Moment::of(&client)?;
        sample.put(Metric::Memory, client.memory_mb("VmRSS:")?);
        client.finish()?;
        let testimony = witness.finish()?;
        sample.put(Metric::Neighbours, neighbours.percent_of_core()?);
        put_window(sample, &testimony, &before, &after);
        sample.judge(&testimony.arrivals_ns, rate as f64);
        Ok(())
    }

    /// A daemon with one target at one request a second: what being there costs.
    pub(crate) fn at_rest(&self, sample: &mut Sample, seconds: u64) -> Result<()> {
        let witness = self.witness(Duration::ZERO)?;
        let url = witness.url();
        let plan = Plan { coalesce: "250us", targets: 1, rate_per_second: 1, max_in_flight: CONNECTIONS, url: &url };
        let life = WARM_UP + Duration::from_secs(seconds) + TAIL;
        let mut daemon = Daemon::new(&plan, self.dir.path(), life)?;
        let client = self.client(&mut daemon.command, life)?;
        std::thread::sleep(WARM_UP);
        let before = Moment::of(&client)?;
        std::thread::sleep(Duration::from_secs(seconds));
        let after = Moment::of(&client)?;
        sample.put(Metric::Memory, client.memory_mb("VmRSS:")?);
        client.finish()?;
        put_window(sample, &witness.finish()?, &before, &after);
        Ok(())
    }

    /// A daemon with `connections` requests in flight against a witness that takes two seconds for each.
    pub(crate) fn in_flight(&self, sample: &mut Sample, connections: usize, rest_mb: f64) -> Result<()> {
        const DELAY: Duration = Duration::from_secs(2);
        let witness = self.witness(DELAY)?;
        let url = witness.url();
        let rate_per_second = connections as u64 / DELAY.as_secs();
        let plan =
            Plan { coalesce: "250us", targets: 1, rate_per_second, max_in_flight: connections * 6 / 5, url: &url };
        let life = DELAY * 3;
        let mut daemon = Daemon::new(&plan, self.dir.path(), life + TAIL)?;
        let client = self.client(&mut daemon.command, life + TAIL + DELAY)?;
        std::thread::sleep(life);
        let memory_mb = client.memory_mb("VmRSS:")?;
        let metrics = daemon.scrape()?;
        sample.put(Metric::PeakMemory, client.memory_mb("VmHWM:")?);
        client.finish()?;
        let testimony = witness.finish()?;
        let (punctual, lags) = punctual(&metrics);
        sample.put(Metric::Memory, memory_mb);
        sample.put(Metric::PerConnection, (memory_mb - rest_mb) * 1e6 / 1024.0 / testimony.most_waiting);
        sample.put(Metric::InFlight, testimony.most_waiting);
        sample.put(Metric::Dropped, sum(&metrics, "hammerd_requests_dropped_total"));
        sample.put(Metric::LagWithinMs, punctual / lags * 100.0);
        sample.judge(&testimony.arrivals_ns, rate_per_second as f64);
        Ok(())
    }
}

/// Scrapes at an interval. The cost of a line is CPU time of the threads that are no workers: the time that a scrape
/// takes on a core that it shares with a worker says little.
pub(crate) fn scrape_for(
    daemon: &Daemon,
    client: &Client,
    window: Duration,
    interval: Duration,
    sample: &mut Sample,
) -> Result<()> {
    let end = Instant::now() + window;
    let control_cpu = || client.cpu(|thread| !thread.starts_with("worker"));
    let (before, mut lines, mut longest) = (control_cpu()?, 0, Duration::ZERO);
    while Instant::now() < end {
        let start = Instant::now();
        lines += daemon.scrape_aside()?;
        longest = longest.max(start.elapsed());
        // Not beyond the end: the daemon's life ends soon after, and its summary is not to be measured here.
        let pause = interval.saturating_sub(start.elapsed());
        std::thread::sleep(pause.min(end.saturating_duration_since(Instant::now())));
    }
    let cpu = control_cpu()?.saturating_sub(before);
    sample.put(Metric::ScrapePerLine, cpu.as_secs_f64() * 1e9 / lines.max(1) as f64);
    sample.put(Metric::ScrapeTime, longest.as_secs_f64() * 1e3);
    Ok(())
}

fn count_between(testimony: &Testimony, from_ns: u64, until_ns: u64) -> f64 {
    let before = |at_ns| testimony.arrivals_ns.partition_point(|&arrival| arrival < at_ns);
    (before(until_ns) - before(from_ns)) as f64
}

pub(crate) fn put_window(sample: &mut Sample, testimony: &Testimony, before: &Moment, after: &Moment) {
    let requests = count_between(testimony, before.at_ns, after.at_ns);
    let cpu_us = after.cpu.saturating_sub(before.cpu).as_secs_f64() * 1e6;
    sample.put(Metric::CpuPerRequest, cpu_us / requests);
    sample.put(Metric::CpuShare, cpu_us * 1e3 / (after.at_ns - before.at_ns) as f64 * 100.0);
}
