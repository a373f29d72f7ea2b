//! What a person sees: how each target does, how hammerd itself does, and the last minutes of both.
//!
//! For the status page and for scripts that want the same as JSON. [`Status`] stands beside the roster: it notes every few
//! seconds what happened ([`Round`]), is told of reloads and of the drain, and answers a [`Query`] with those targets that
//! were asked for ([`Survey`]). `docs/status-api.md` describes the answer.
//!
//! Promised: nothing here takes long in one go. Rounds and surveys go on bit by bit, so that a scrape is answered between
//! the bits, and pause after every target, so that a worker on the same core can be on time. What is kept is bounded: some
//! [hundred bytes a target](crate::stats::History), nothing a request.
//!
//! Left out: HTTP, and everything that is older than some minutes. That is what Prometheus is for.

mod answer;
mod query;
mod survey;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

pub use query::{Order, Query, QueryError, Sort};
pub use survey::Survey;

use crate::clock;
use crate::roster::{Entry, Roster};
use crate::stats::{Brief, HistogramSnapshot, History, Shape, Tally};

/// How often what happened is noted.
pub const INTERVAL: Duration = Duration::from_secs(5);
/// How many targets are dealt with in one go.
const BIT: usize = 64;
/// How much is kept of why a reload was refused.
const REFUSAL_BYTES_MAX: usize = 4_096;

/// See the module.
#[derive(Debug)]
pub struct Status {
    roster: Arc<Roster>,
    /// The shape of the values in the process's history, and in those of most targets.
    shape: Shape,
    began_ns: u64,
    running: AtomicBool,
    draining: AtomicBool,
    reloads: Mutex<Reloads>,
    own: Mutex<Own>,
}

/// What became of the configuration.
#[derive(Debug)]
struct Reloads {
    /// How many configurations have run, this one included.
    generation: u64,
    /// When it was loaded, in Unix time.
    loaded_s: f64,
    last: Option<Reload>,
}

/// What a reload came to.
#[derive(Debug, Clone)]
struct Reload {
    /// In Unix time.
    at_s: f64,
    /// Why it was refused.
    error: Option<String>,
}

/// The last minutes of the process.
#[derive(Debug)]
struct Own {
    /// All intervals of all targets together, with the lag as values.
    counts: Brief,
    history: History,
    /// The clock, and the processor time used by then, at the ends of the last intervals.
    cpu: VecDeque<(u64, f64)>,
}

/// Where a round through all targets has got to.
#[derive(Debug, Default)]
pub struct Round {
    after: Option<Arc<str>>,
    tally: Tally,
}

impl Status {
    /// Of a process that starts now and whose targets stand in `roster`.
    pub fn new(roster: Arc<Roster>) -> Self {
        let now_ns = clock::now_ns();
        let own = Own {
            counts: Brief::default(),
            history: History::new(now_ns),
            cpu: VecDeque::from([(now_ns, cpu_seconds())]),
        };
        Self {
            shape: History::shape_of(roster.shape()),
            roster,
            began_ns: now_ns,
            running: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            reloads: Mutex::new(Reloads { generation: 1, loaded_s: unix_s(), last: None }),
            own: Mutex::new(own),
        }
    }

    /// Every target is on its schedule.
    pub fn runs(&self) {
        self.running.store(true, Ordering::Relaxed);
    }

    /// Arrivals have ended for good.
    pub fn drains(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// A reload was applied.
    pub fn reload_succeeded(&self) {
        let mut reloads = lock(&self.reloads);
        let at_s = unix_s();
        *reloads =
            Reloads { generation: reloads.generation + 1, loaded_s: at_s, last: Some(Reload { at_s, error: None }) };
    }

    /// A reload was refused, and why.
    pub fn reload_failed(&self, why: &str) {
        let error = Some(shortened(why.trim_end()));
        lock(&self.reloads).last = Some(Reload { at_s: unix_s(), error });
    }

    /// Notes what happened to the next few targets of a round. Returns whether the round is over. Calls `pause` after every
    /// target.
    pub fn note_some(&self, round: &mut Round, pause: impl Fn()) -> bool {
        let tally = &mut round.tally;
        let last = self.roster.walk(round.after.as_deref(), BIT, |_, target| {
            tally.add(target.note(clock::now_ns()));
            pause();
        });
        let over = last.is_none();
        if over {
            self.note_own(round.tally);
        }
        round.after = last;
        over
    }

    /// The shape of the values in a target's history.
    fn shape_of(&self, target: &Entry) -> Cow<'_, Shape> {
        let shape = &target.info().shape;
        if shape.schema().min(History::MAX_SCHEMA) == self.shape.schema() {
            return Cow::Borrowed(&self.shape);
        }
        Cow::Owned(History::shape_of(shape))
    }

    fn note_own(&self, tally: Tally) {
        let mut own = lock(&self.own);
        let counts = &mut own.counts;
        counts.scheduled += tally.scheduled;
        counts.dropped += tally.dropped;
        counts.finished += tally.finished;
        counts.failed += tally.failed;
        counts.values = self.lag();
        let (counts, now_ns) = (counts.clone(), clock::now_ns());
        own.history.note(now_ns, &counts, self.roster.shape(), History::RECENT);
        own.cpu.push_back((now_ns, cpu_seconds()));
        // One more than there are intervals between them.
        if own.cpu.len() > History::RECENT + 1 {
            own.cpu.pop_front();
        }
    }

    /// Of all workers together, since they started.
    fn lag(&self) -> HistogramSnapshot {
        let mut lag = HistogramSnapshot::default();
        self.roster.workers().iter().for_each(|worker| lag.merge(&worker.lag()));
        lag
    }
}

impl Own {
    /// The share of a core that was used lately.
    fn cpu_ratio(&self) -> Option<f64> {
        let ((began_ns, used_before), (now_ns, used_now)) = (self.cpu.front()?, self.cpu.back()?);
        let seconds = now_ns.saturating_sub(*began_ns) as f64 / 1e9;
        (seconds > 0.0).then(|| (used_now - used_before) / seconds)
    }
}

/// A text that is not too long: as many whole lines as there is room for.
fn shortened(text: &str) -> String {
    if text.len() <= REFUSAL_BYTES_MAX {
        return text.to_owned();
    }
    let mut kept = String::new();
    for line in text.lines() {
        if kept.len() + line.len() >= REFUSAL_BYTES_MAX {
            break;
        }
        kept.push_str(line);
        kept.push('\n');
    }
    kept.push_str("and more; the log has all of it");
    kept
}

fn cpu_seconds() -> f64 {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    used.tv_sec as f64 + used.tv_nsec as f64 / 1e9
}

/// Now, in seconds since 1970.
fn unix_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whoever panicked with it left numbers, and each of them is one.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
