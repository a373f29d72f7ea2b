//! Which targets run where: applies the difference between two configurations, and ends them all.
//!
//! Lives on the control thread. Every target is one lane on one worker, or, when it is too fast for that, one lane on each
//! worker, of which lane w of W sends the arrivals n with n mod W = w. Whatever changes, changes at one instant a little
//! ahead, from which on all lanes agree; so no arrival is lost or doubled between the old plan and the new one.
//!
//! With `[shard]` the process sends a stripe of every stream, and its lanes divide that ([`sharing`]).

mod plan;
mod sharing;

use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tracing::warn;

use crate::clock::{self, WallReading};
use crate::config::{Config, Metrics, Target, TargetName};
use crate::load::{Command, Course, LaneChange, LaneId, LaneSpec, Peers, Tuning, Turn, Worker};
use crate::net::{Guard, Resolver};
use crate::pace::{PhaseBook, Process, Rate, Schedule, Stripe, Timeline};
use crate::roster::{Roster, TargetInfo};
use crate::stats::{LedgerWriter, Shape, WorkerStats};
use plan::{MAX_RATE_PER_WORKER, arm, authority, guard, tempo, tuning};
use sharing::Sharing;

pub use plan::worker_count;

/// How far ahead a change takes effect, so that every worker knows of it by then.
const LEAD_NS: u64 = 5_000_000;
/// What making or ending a lane takes at most, for planning the first arrivals of a large fleet.
const LEAD_PER_LANE_NS: u64 = 20_000;

/// A worker's thread has ended although nobody asked it to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerLost;

impl std::fmt::Display for WorkerLost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a worker thread has ended unexpectedly")
    }
}

impl std::error::Error for WorkerLost {}

/// What a reload came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Difference {
    /// Targets that are new.
    pub added: usize,
    /// Targets that are gone.
    pub removed: usize,
    /// Targets that go on otherwise.
    pub changed: usize,
    /// Targets that were not touched.
    pub unchanged: usize,
}

/// All targets and the workers that they run on.
pub struct Fleet {
    workers: Vec<Worker>,
    roster: Arc<Roster>,
    resolver: Resolver,
    members: BTreeMap<TargetName, Member>,
    guard: Arc<Guard>,
    tuning: Tuning,
    phases: PhaseBook,
    /// Phases count from here.
    epoch_ns: u64,
    /// Our part of every stream; `None` when nobody shares them.
    sharing: Option<Sharing>,
    /// When the latest change takes effect. The next one comes later, or lanes that this one ends would still send what
    /// the next one gives to others.
    changed_ns: u64,
    next_lane: u64,
    /// Planned arrivals per second on each worker.
    planned: Vec<f64>,
}

/// Asks the workers for a sign of life, from anywhere.
#[derive(Clone)]
pub struct Pulse(Vec<mpsc::Sender<Command>>);

impl Pulse {
    /// Whether the loops of all workers have turned within this time.
    pub async fn beats(&self, within: Duration) -> bool {
        let all = async {
            let mut signs = Vec::with_capacity(self.0.len());
            for worker in &self.0 {
                let (done, sign) = oneshot::channel();
                worker.send(Command::Ping { done }).await.ok()?;
                signs.push(sign);
            }
            for sign in signs {
                sign.await.ok()?;
            }
            Some(())
        };
        timeout(within, all).await.is_ok_and(|all| all.is_some())
    }
}

/// A target at work.
struct Member {
    target: Target,
    schedule: Arc<Schedule>,
    /// Its place among equal targets, as long as it has the rate that it took it for.
    place: Option<Place>,
    lanes: Vec<(LaneId, usize)>,
}

/// A place in the [`PhaseBook`], and the group that it is in.
type Place = (Rate, Process, u32);

/// Changes for each worker, collected before they are sent.
struct Batch(Vec<Vec<LaneChange>>);

impl Batch {
    fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| Vec::new()).collect())
    }
}

impl Fleet {
    /// Starts the workers, and no target yet.
    pub fn start(config: &Config, resolver: Resolver) -> io::Result<Self> {
        let shape = Shape::new(config.metrics.native_schema, &config.metrics.buckets);
        let count = worker_count(config);
        let peers: Peers = (0..count).map(|_| Arc::new(WorkerStats::new(shape.clone()))).collect();
        let tuning = tuning(&config.engine, &config.limits);
        let workers =
            (0..count).map(|index| Worker::spawn(index, Arc::clone(&peers), tuning)).collect::<io::Result<_>>()?;
        Ok(Self {
            workers,
            roster: Arc::new(Roster::new(shape, peers.to_vec())),
            resolver,
            members: BTreeMap::new(),
            guard: guard(&config.limits),
            tuning,
            phases: PhaseBook::default(),
            epoch_ns: clock::now_ns(),
            sharing: config.shard.as_ref().map(|shard| {
                let timeline = Timeline::ahead_by(WallReading::take().ahead_by_ns);
                Sharing::new(timeline, shard.fixed_stripe())
            }),
            changed_ns: 0,
            next_lane: 0,
            planned: vec![0.0; count],
        })
    }

    /// The targets and their counts, for readers.
    pub fn roster(&self) -> &Arc<Roster> {
        &self.roster
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Whether all workers are at work.
    pub fn is_healthy(&self) -> bool {
        !self.workers.iter().any(Worker::is_finished)
    }

    /// For those who want to know whether the workers' loops turn.
    pub fn pulse(&self) -> Pulse {
        Pulse(self.workers.iter().map(|worker| worker.commands.clone()).collect())
    }

    /// Makes the fleet what `config` asks for, and leaves alone what is so already.
    pub async fn apply(&mut self, config: &Config) -> Result<Difference, WorkerLost> {
        let tuning = tuning(&config.engine, &config.limits);
        if tuning != self.tuning {
            self.tuning = tuning;
            for worker in &self.workers {
                worker.commands.send(Command::Tune(tuning)).await.map_err(|_| WorkerLost)?;
            }
        }
        let guard = guard(&config.limits);
        let guard_changed = guard != self.guard;
        self.guard = guard;

        let mut batch = Batch::new(self.workers.len());
        let mut difference = Difference::default();
        let gone: Vec<TargetName> =
            self.members.keys().filter(|name| !config.targets.contains_key(*name)).cloned().collect();
        for name in &gone {
            self.remove(name, config.shutdown.grace, &mut batch);
            difference.removed += 1;
        }
        let at_ns = self.instant_of_change(config.targets.len() + gone.len());
        for (name, target) in &config.targets {
            match self.members.get(name) {
                None => {
                    self.add(name, target, at_ns, &mut batch);
                    difference.added += 1;
                }
                Some(member) if member.target != *target || guard_changed => {
                    self.change(name, target, guard_changed, at_ns, &mut batch);
                    difference.changed += 1;
                }
                Some(_) => difference.unchanged += 1,
            }
        }
        self.send(batch).await?;
        Ok(difference)
    }

    /// When a change of so many targets takes effect.
    fn instant_of_change(&mut self, targets: usize) -> u64 {
        let lead_ns = LEAD_NS + LEAD_PER_LANE_NS * targets as u64;
        self.changed_ns = (clock::now_ns() + lead_ns).max(self.changed_ns + 1);
        self.changed_ns
    }

    /// Ends all arrivals, and waits until no request is in flight, at most for `grace`; true when that was enough.
    pub async fn drain(&mut self, grace: Duration) -> bool {
        let mut drained = Vec::new();
        for worker in &self.workers {
            let (done, told) = oneshot::channel();
            // A worker that is lost has nothing in flight.
            if worker.commands.send(Command::Drain { done }).await.is_ok() {
                drained.push(told);
            }
        }
        let all = async {
            for told in drained {
                let _ = told.await;
            }
        };
        timeout(grace, all).await.is_ok()
    }

    /// Ends the workers; requests in flight are cut off and counted. False when one had panicked.
    pub async fn finish(self) -> bool {
        for worker in &self.workers {
            let _ = worker.commands.send(Command::Finish).await;
        }
        let mut sound = true;
        for worker in self.workers {
            sound &= worker.join();
        }
        sound
    }

    fn add(&mut self, name: &TargetName, target: &Target, at_ns: u64, batch: &mut Batch) {
        let (schedule, place) = self.schedule(name, target, at_ns);
        self.describe(name, target);
        let member = Member { target: target.clone(), schedule, place, lanes: Vec::new() };
        self.enlane(name, member, 0, at_ns, batch);
    }

    /// The schedule of a target from `start_ns` on, and its place among equal ones, which only those have that are not
    /// shared: on a shared grid the name alone decides the phase.
    fn schedule(&mut self, name: &TargetName, target: &Target, start_ns: u64) -> (Arc<Schedule>, Option<Place>) {
        let (rate, process) = (target.rate, target.process);
        if let Some(sharing) = &self.sharing {
            return (Arc::new(sharing.schedule(name.as_str(), rate, process)), None);
        }
        let (index, phase) = self.phases.take(rate, process);
        (Arc::new(Schedule::new(rate, process, phase, self.epoch_ns, start_ns)), Some((rate, process, index)))
    }

    /// What lane `part` of `parts` sends: of a stream of our own what has number `first` or a higher one, of one that is
    /// shared what is due after `at_ns`.
    fn course(&self, schedule: &Arc<Schedule>, first: u64, at_ns: u64, part: usize, parts: usize) -> Course {
        let (part, parts) = (part as u64, NonZeroU64::new(parts as u64).unwrap_or(NonZeroU64::MIN));
        match &self.sharing {
            Some(sharing) => sharing.course(schedule, at_ns, part, parts),
            None => Course::new(Arc::clone(schedule), Stripe::WHOLE.part(part, parts), first),
        }
    }

    /// Gives a target its lanes; see [`course`](Self::course) for what they send.
    fn enlane(&mut self, name: &TargetName, mut member: Member, first: u64, at_ns: u64, batch: &mut Batch) {
        let label: Arc<str> = name.as_ref().into();
        let workers = self.placement(&member.target);
        for (part, &worker) in workers.iter().enumerate() {
            let (ledger, readable) = LedgerWriter::new(self.shape(&member.target.metrics));
            self.roster.enlist(&label, readable);
            let id = LaneId(self.next_lane);
            self.next_lane += 1;
            self.planned[worker] += self.own_rate(&member.target) / workers.len() as f64;
            member.lanes.push((id, worker));
            batch.0[worker].push(LaneChange::Add(Box::new(LaneSpec {
                id,
                target: Arc::clone(&label),
                ledger,
                course: self.course(&member.schedule, first, at_ns, part, workers.len()),
                tempo: tempo(&member.target, workers.len(), part),
                arm: arm(&member.target),
                resolver: self.resolver.clone(),
                guard: Arc::clone(&self.guard),
            })));
        }
        self.members.insert(name.clone(), member);
    }

    fn change(&mut self, name: &TargetName, target: &Target, guard_changed: bool, at_ns: u64, batch: &mut Batch) {
        let Some(mut member) = self.members.remove(name) else { return };
        let reshaped = member.target.metrics != target.metrics;
        if reshaped {
            // Histograms of different shapes can't go on in one series: all of the target's begin anew.
            self.roster.retire(name.as_ref());
        }
        self.describe(name, target);
        let (old, rate_changed) = (member.target.clone(), member.target.rate != target.rate);
        let process_changed = member.target.process != target.process;
        let stripes_change = self.stripes(target) != member.lanes.len();
        if rate_changed || process_changed {
            self.give_up_place(&mut member);
        }
        member.target = target.clone();
        let shared = self.sharing.is_some();
        if process_changed && !shared {
            self.retire_lanes(&mut member, &old, at_ns, None, batch);
            (member.schedule, member.place) = self.schedule(name, target, at_ns + 1);
            self.enlane(name, member, 0, at_ns, batch);
            return;
        }
        if shared && (rate_changed || process_changed) {
            (member.schedule, _) = self.schedule(name, target, at_ns);
        } else if rate_changed {
            member.schedule = Arc::new(member.schedule.with_rate_from(at_ns, target.rate));
        }
        if stripes_change || reshaped {
            // Both rates agree on everything up to here.
            let end = member.schedule.owed(at_ns);
            self.retire_lanes(&mut member, &old, at_ns, None, batch);
            self.enlane(name, member, end, at_ns, batch);
            return;
        }
        let rearmed = old.http != target.http || old.max_in_flight != target.max_in_flight || guard_changed;
        let parts = member.lanes.len();
        for (part, &(id, worker)) in member.lanes.iter().enumerate() {
            self.planned[worker] += (self.own_rate(target) - self.own_rate(&old)) / parts as f64;
            let turn = (rate_changed || process_changed).then(|| {
                if shared {
                    Turn::Course { at_ns, course: self.course(&member.schedule, 0, at_ns, part, parts) }
                } else {
                    Turn::Schedule(Arc::clone(&member.schedule))
                }
            });
            let arm = rearmed.then(|| (arm(target), Arc::clone(&self.guard)));
            batch.0[worker].push(LaneChange::Update { id, turn, tempo: tempo(target, parts, part), arm });
        }
        self.members.insert(name.clone(), member);
    }

    fn remove(&mut self, name: &TargetName, grace: Duration, batch: &mut Batch) {
        let Some(mut member) = self.members.remove(name) else { return };
        self.give_up_place(&mut member);
        let target = member.target.clone();
        self.retire_lanes(&mut member, &target, 0, Some(grace), batch);
        self.roster.retire(name.as_ref());
    }

    /// Ends the lanes with what is due at `at_ns`, or, with 0, at once; requests in flight have `grace` to finish, or until
    /// their own deadlines.
    fn retire_lanes(
        &mut self,
        member: &mut Member,
        target: &Target,
        at_ns: u64,
        grace: Option<Duration>,
        batch: &mut Batch,
    ) {
        let share = self.own_rate(target) / member.lanes.len() as f64;
        for (id, worker) in member.lanes.drain(..) {
            self.planned[worker] -= share;
            batch.0[worker].push(LaneChange::Retire { id, at_ns, grace });
        }
    }

    fn give_up_place(&mut self, member: &mut Member) {
        if let Some((rate, process, index)) = member.place.take() {
            self.phases.release(rate, process, index);
        }
    }

    fn describe(&self, name: &TargetName, target: &Target) {
        if target.http.tls.as_ref().is_some_and(|tls| tls.spec().insecure_skip_verify) {
            warn!(target = name.as_str(), "its certificate is not checked (insecure_skip_verify): it may be anybody's");
        }
        self.roster.describe(&name.as_ref().into(), self.info(target));
    }

    fn info(&self, target: &Target) -> TargetInfo {
        TargetInfo {
            protocol: if target.http.tls.is_some() { "https" } else { "http" },
            authority: authority(target),
            insecure: target.http.tls.as_ref().map(|tls| tls.spec().insecure_skip_verify),
            labels: target.labels.clone(),
            rate_per_second: self.stripe().map_or(0.0, |stripe| target.rate.as_per_second() / stripe.count() as f64),
            max_in_flight: target.max_in_flight,
            shape: self.shape(&target.metrics),
            since_ns: clock::now_ns(),
        }
    }

    /// What this process will send of a target's rate, per second; the whole, while nothing is ours.
    fn own_rate(&self, target: &Target) -> f64 {
        target.rate.as_per_second() / self.latest_stripe().map_or(1, Stripe::count) as f64
    }

    /// The shape of a target's histograms: one for all that have the usual one.
    fn shape(&self, metrics: &Metrics) -> Shape {
        let usual = self.roster.shape();
        if metrics.native_schema == usual.schema() && *metrics.buckets == *usual.bounds() {
            return usual.clone();
        }
        Shape::new(metrics.native_schema, &metrics.buckets)
    }

    /// How many lanes a target needs.
    fn stripes(&self, target: &Target) -> usize {
        let too_fast = self.own_rate(target) > MAX_RATE_PER_WORKER;
        if too_fast { self.workers.len().min(target.max_in_flight) } else { 1 }
    }

    /// The workers for a target's lanes: those with the least planned.
    fn placement(&self, target: &Target) -> Vec<usize> {
        let mut workers: Vec<usize> = (0..self.workers.len()).collect();
        workers.sort_by(|&a, &b| self.planned[a].total_cmp(&self.planned[b]));
        workers.truncate(self.stripes(target));
        workers
    }

    async fn send(&self, batch: Batch) -> Result<(), WorkerLost> {
        let mut applied = Vec::new();
        for (worker, changes) in self.workers.iter().zip(batch.0) {
            if !changes.is_empty() {
                let (done, told) = oneshot::channel();
                worker.commands.send(Command::Apply { changes, done }).await.map_err(|_| WorkerLost)?;
                applied.push(told);
            }
        }
        for told in applied {
            told.await.map_err(|_| WorkerLost)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::config::{self, Sources};
    use crate::net::ResolverService;

    /// Target `a` at `rate`, dropped for the most part, and as many idle `others`.
    fn config(rate: &str, others: usize) -> Config {
        let mut text = format!(
            "[engine]\nworkers = 2\nlate_after = \"10s\"\n[targets.a]\nurl = \"http://127.0.0.1:1/\"\nrate = \"{rate}\"\n\
             max_in_flight = 2\n"
        );
        for n in 0..others {
            let _ = writeln!(text, "[targets.n{n}]\nurl = \"http://127.0.0.1:1/\"\nrate = \"1/24h\"");
        }
        let sources = Sources { inline: Some(text), ..Sources::default() };
        config::load(&sources).unwrap_or_else(|rejected| panic!("{rejected}"))
    }

    /// A worker that hangs, and one that is gone, among others that turn.
    #[tokio::test]
    async fn one_worker_that_stands_still_stops_the_pulse() {
        let fleet = Fleet::start(&config("1/s", 0), ResolverService::new().1).expect("workers");
        let pulse = fleet.pulse();
        assert!(pulse.beats(Duration::from_secs(10)).await);
        let (stuck, _inbox) = mpsc::channel(1);
        let hangs = Pulse(pulse.0.iter().cloned().chain([stuck]).collect());
        for _ in 0..3 {
            assert!(!hangs.beats(Duration::from_millis(50)).await);
        }
        let (gone, inbox) = mpsc::channel(1);
        drop(inbox);
        assert!(!Pulse(pulse.0.iter().cloned().chain([gone]).collect()).beats(Duration::from_secs(10)).await);
        assert!(pulse.beats(Duration::from_secs(10)).await);
        assert!(fleet.finish().await);
        assert!(!pulse.beats(Duration::from_secs(10)).await);
    }

    #[tokio::test]
    async fn a_small_change_right_after_a_large_one_doubles_no_arrival() {
        let configs = [config("20000/s", 5000), config("40000/s", 0), config("20000/s", 0)];
        let mut fleet = Fleet::start(&configs[0], ResolverService::new().1).expect("workers");
        for config in &configs {
            fleet.apply(config).await.expect("workers at work");
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(fleet.drain(Duration::from_secs(10)).await);
        let owed = fleet.members.values().next().expect("target a").schedule.owed(clock::now_ns());
        let scheduled = fleet.roster.read().targets[0].counts.scheduled;
        // A machine that is busy otherwise may tell a worker of its change some milliseconds after the instant.
        assert!((1..=owed + 200).contains(&scheduled), "{scheduled} arrivals came due of {owed}");
        assert!(fleet.finish().await);
    }
}
