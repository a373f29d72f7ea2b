//! Which client runs when: round after round, each after the other.

use std::error::Error;
use std::time::Duration;

use crate::contest::{Arena, Contestant};
use crate::observed::Look;
use crate::peers::PEERS;
use crate::process::{Cores, Result};
use crate::protocols::Way;
use crate::sample::{Metric, Sample, Samples};
use crate::stats::largest_held;
use crate::{BenchArgs, Scenario, report, sys};

const COALESCE_US: [u64; 4] = [100, 250, 500, 1000];
/// A millisecond of coalescing can't keep the lag below a millisecond.
const CAPACITY_COALESCE_US: [u64; 2] = [250, 500];
/// How closely the largest rate is searched.
const CAPACITY_PRECISION: f64 = 0.04;
/// Where that search begins and where it gives up.
const CAPACITY_FROM: f64 = 40_000.0;
const CAPACITY_TO: f64 = 1_000_000.0;
/// Connections at the largest rates: a millisecond of answers may be under way.
const CAPACITY_CONNECTIONS: usize = 500;
/// Targets of the fleet, and its rate, and requests in flight of the connection scenario.
const MANY: usize = 10_000;
/// Between two scrapes of the fleet.
const SCRAPE_INTERVAL: Duration = Duration::from_secs(2);

/// All that is to be run, and what came of it.
pub(crate) struct Session<'a> {
    args: &'a BenchArgs,
    arena: Arena,
    /// What was measured so far.
    pub(crate) samples: Samples,
}

impl<'a> Session<'a> {
    /// Says where and against whom things will be measured.
    pub(crate) fn new(args: &'a BenchArgs, cores: Cores) -> Result<Self> {
        sys::raise_descriptor_limit()?;
        sys::pin(cores.server)?;
        println!("machine: {}, witness on core {}, clients on core {}", report::machine(), cores.server, cores.client);
        for peer in PEERS {
            if peer.path().is_none() {
                println!("absent: {} ({})", peer.name, peer.install);
            }
        }
        Ok(Self { args, arena: Arena { cores, dir: tempfile::tempdir()? }, samples: Samples::default() })
    }

    /// Runs every scenario that was asked for.
    pub(crate) fn run(&mut self) -> Result<()> {
        let (args, quick) = (self.args, self.args.quick);
        let rounds = if quick { 1 } else { args.rounds.max(1) };
        let seconds = if quick { 3 } else { args.seconds.max(1) };
        let wanted = |scenario| args.scenario.is_empty() || args.scenario.contains(&scenario);
        if wanted(Scenario::Precision) {
            for &rate in &args.rate {
                self.precision(rate, rounds, seconds)?;
            }
        }
        if wanted(Scenario::Saturated) {
            self.saturated(rounds, seconds)?;
        }
        if wanted(Scenario::Capacity) {
            self.capacity(rounds, if quick { 1 } else { 3 })?;
        }
        if wanted(Scenario::Targets) {
            self.targets(rounds, seconds)?;
        }
        if wanted(Scenario::Rest) || wanted(Scenario::Connections) {
            self.rest_and_connections(rounds, if quick { 5 } else { args.rest_seconds.max(1) })?;
        }
        if wanted(Scenario::Protocols) {
            self.protocols(rounds, seconds)?;
        }
        if wanted(Scenario::Storm) {
            self.storm(rounds, seconds)?;
        }
        if wanted(Scenario::Observed) {
            self.observed(rounds, seconds)?;
        }
        Ok(())
    }

    fn wants(&self, name: &str) -> bool {
        self.args.only.is_empty() || self.args.only.iter().any(|only| only == name)
    }

    /// hammerd and floor at each of `coalesce_us`, side by side.
    fn own(&self, coalesce_us: &[u64]) -> Vec<Contestant> {
        let both = |&coalesce_us| [Contestant::Hammerd { coalesce_us }, Contestant::Floor { coalesce_us }];
        let wanted = |contestant: &Contestant| {
            let kind = if matches!(contestant, Contestant::Hammerd { .. }) { "hammerd" } else { "floor" };
            self.wants(kind) || self.wants(&contestant.name())
        };
        coalesce_us.iter().flat_map(both).filter(wanted).collect()
    }

    fn peers(&self) -> impl Iterator<Item = crate::peers::Peer> {
        PEERS.into_iter().filter(|peer| self.wants(peer.name) && peer.path().is_some())
    }

    fn precision(&mut self, rate: u64, rounds: usize, seconds: u64) -> Result<()> {
        let scenario: &'static str = match rate {
            1000 => "1000/s",
            10_000 => "10000/s",
            other => String::leak(format!("{other}/s")),
        };
        let mut contestants = self.own(&COALESCE_US);
        contestants.extend(self.peers().filter(|peer| peer.has_rate).map(Contestant::Peer));
        for round in 0..rounds {
            for &who in &contestants {
                let mut sample = Sample::new(scenario, &who.name(), round);
                self.arena.steady(&mut sample, who, Some(rate), seconds)?;
                self.keep(sample);
            }
        }
        Ok(())
    }

    fn saturated(&mut self, rounds: usize, seconds: u64) -> Result<()> {
        let peers: Vec<_> = self.peers().filter(|peer| peer.name != "wrk2").map(Contestant::Peer).collect();
        for round in 0..rounds {
            for &who in &peers {
                let mut sample = Sample::new("closed loop", &who.name(), round);
                self.arena.steady(&mut sample, who, None, seconds)?;
                self.keep(sample);
            }
        }
        Ok(())
    }

    fn capacity(&mut self, rounds: usize, seconds: u64) -> Result<()> {
        let mut contestants: Vec<_> =
            self.own(&CAPACITY_COALESCE_US).into_iter().map(|who| (who, CAPACITY_FROM, 2.0)).collect();
        for round in 0..rounds {
            for (who, start, step) in &mut contestants {
                let held = largest_held(*start, *step, CAPACITY_TO, CAPACITY_PRECISION, |rate| {
                    let holds = || self.arena.holds(*who, rate as u64, seconds, CAPACITY_CONNECTIONS);
                    // A neighbour's moment must not decide: what fails may try again.
                    Ok::<_, Box<dyn Error>>(holds()? || holds()?)
                })?;
                if held > 0.0 {
                    // The next round's search begins near this one's end, and goes in smaller steps.
                    (*start, *step) = (held * 0.95, 1.15);
                }
                let mut sample = Sample::new("capacity", &who.name(), round);
                sample.put(Metric::HeldRate, held);
                self.keep(sample);
            }
        }
        Ok(())
    }

    fn targets(&mut self, rounds: usize, seconds: u64) -> Result<()> {
        if !self.wants("hammerd") {
            return Ok(());
        }
        let kinds = [
            ("1 target", 1, None),
            ("10000 targets", MANY, None),
            ("10000 targets, scraped", MANY, Some(SCRAPE_INTERVAL)),
        ];
        for round in 0..rounds {
            for (who, targets, scraped) in kinds {
                let mut sample = Sample::new("targets", who, round);
                self.arena.fleet(&mut sample, targets, MANY as u64, seconds, scraped)?;
                self.keep(sample);
            }
        }
        Ok(())
    }

    /// Together, since the memory of a connection is what is above that at rest.
    fn rest_and_connections(&mut self, rounds: usize, seconds: u64) -> Result<()> {
        if !self.wants("hammerd") {
            return Ok(());
        }
        for round in 0..rounds {
            let mut rest = Sample::new("rest", "hammerd 1/s", round);
            self.arena.at_rest(&mut rest, seconds)?;
            let rest_mb = rest.figures.get(&Metric::Memory).copied().unwrap_or_default();
            self.keep(rest);
            let mut sample = Sample::new("connections", "hammerd", round);
            self.arena.in_flight(&mut sample, MANY, rest_mb)?;
            self.keep(sample);
        }
        Ok(())
    }

    fn protocols(&mut self, rounds: usize, seconds: u64) -> Result<()> {
        for round in 0..if self.wants("hammerd") { rounds } else { 0 } {
            for way in Way::ALL {
                let mut sample = Sample::new("protocols", way.name(), round);
                self.arena.protocol(&mut sample, way, seconds)?;
                self.keep(sample);
            }
        }
        Ok(())
    }

    fn storm(&mut self, rounds: usize, seconds: u64) -> Result<()> {
        for round in 0..if self.wants("hammerd") { rounds } else { 0 } {
            for (who, storm) in [("alone", false), ("beside handshakes", true)] {
                let mut sample = Sample::new("storm", who, round);
                self.arena.storm(&mut sample, storm, seconds)?;
                self.keep(sample);
            }
        }
        Ok(())
    }

    fn observed(&mut self, rounds: usize, seconds: u64) -> Result<()> {
        for round in 0..if self.wants("hammerd") { rounds } else { 0 } {
            for look in Look::ALL {
                let mut sample = Sample::new("observed", look.name(), round);
                self.arena.observed(&mut sample, look, seconds)?;
                self.keep(sample);
            }
        }
        Ok(())
    }

    /// Notes a run, and says so: the whole takes a while.
    fn keep(&mut self, sample: Sample) {
        let figures =
            sample.figures.iter().map(|(metric, value)| format!("{}={}", metric.name(), report::short(*value)));
        let figures: Vec<String> = figures.collect();
        println!("{} {} round {}: {}", sample.scenario, sample.who, sample.round + 1, figures.join(" "));
        self.samples.0.push(sample);
    }
}
