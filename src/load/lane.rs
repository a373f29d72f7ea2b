//! One target on one worker.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use slab::Slab;
use tokio::task::JoinHandle;

use super::pacer::{Course, Slot};
use super::strike::Strike;
use super::worker::Station;
use crate::hammer::{Anvil, Forge, Hammer};
use crate::logs::Throttle;
use crate::net::{Guard, Resolver};
use crate::outcome::Reason;
use crate::stats::LedgerWriter;

/// Between two lines in the log for one target and one reason.
const FAULT_INTERVAL_NS: u64 = 30_000_000_000;

/// Names a lane between the control thread and its worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LaneId(pub u64);

/// Bounds of a lane's requests, which a reload may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tempo {
    /// How long a request may take, from being sent to its last byte.
    pub timeout: Duration,
    /// Requests in flight at once.
    pub max_in_flight: usize,
}

/// All that a worker needs to run a lane.
pub struct LaneSpec {
    /// Its name in commands.
    pub id: LaneId,
    /// The target's name, for the log.
    pub target: Arc<str>,
    /// Where it counts.
    pub ledger: LedgerWriter,
    /// What it sends.
    pub course: Course,
    /// Its bounds.
    pub tempo: Tempo,
    /// Makes its hammer.
    pub arm: Arc<dyn Arm>,
    /// Answers its lookups.
    pub resolver: Resolver,
    /// Judges its addresses.
    pub guard: Arc<Guard>,
}

/// A [`Forge`] without the type of its hammer.
pub trait Arm: Send + Sync + 'static {
    /// Makes a hammer for the worker; see [`Forge::forge`].
    fn arm(&self, anvil: &Anvil, before: Option<&Armed>) -> Armed;
}

impl<F: Forge> Arm for F {
    fn arm(&self, anvil: &Anvil, before: Option<&Armed>) -> Armed {
        let before = before.and_then(|before| Rc::clone(&before.as_any).downcast::<F::Hammer>().ok());
        let hammer = self.forge(anvil, before.as_ref());
        Armed { as_any: Rc::clone(&hammer) as Rc<dyn Any>, launch: hammer }
    }
}

/// A hammer without its type.
#[derive(Clone)]
pub struct Armed {
    as_any: Rc<dyn Any>,
    launch: Rc<dyn Launch>,
}

/// Starts a strike as a task of its own.
trait Launch {
    fn launch(self: Rc<Self>, strike: Strike) -> JoinHandle<()>;
}

impl<H: Hammer> Launch for H {
    fn launch(self: Rc<Self>, strike: Strike) -> JoinHandle<()> {
        // Boxed: a task moves its future several times, and this one is over a kilobyte.
        tokio::task::spawn_local(Box::pin(async move { strike.run(&*self).await }))
    }
}

/// One target on one worker, at work.
pub(super) struct Lane {
    pub(super) target: Arc<str>,
    pub(super) slot: Slot,
    pub(super) ledger: LedgerWriter,
    pub(super) tempo: Cell<Tempo>,
    anvil: RefCell<Anvil>,
    armed: RefCell<Armed>,
    /// Set when it only lives on until its last request is over.
    pub(super) retiring: Cell<bool>,
    /// The requests in flight.
    strikes: RefCell<Slab<JoinHandle<()>>>,
    /// How many the target has in flight on this worker: shared with lanes of it that are ending, so that a target
    /// which changes again and again stays below its ceiling.
    pub(super) tally: Rc<Cell<usize>>,
    /// A throttle for each reason that was met, so that a new kind of failure is told at once.
    throttles: RefCell<Vec<(Reason, Throttle)>>,
}

impl Lane {
    /// A lane in `slot`, and the course that it follows. `tally` is the one of all lanes of its target.
    pub(super) fn new(spec: LaneSpec, slot: Slot, tally: Rc<Cell<usize>>) -> (Rc<Self>, Course) {
        let anvil = Anvil { ledger: Arc::clone(spec.ledger.ledger()), resolver: spec.resolver, guard: spec.guard };
        let armed = spec.arm.arm(&anvil, None);
        let lane = Self {
            target: spec.target,
            slot,
            ledger: spec.ledger,
            tempo: Cell::new(spec.tempo),
            anvil: RefCell::new(anvil),
            armed: RefCell::new(armed),
            retiring: Cell::new(false),
            strikes: RefCell::default(),
            tally,
            throttles: RefCell::default(),
        };
        (Rc::new(lane), spec.course)
    }

    /// Replaces the hammer; requests in flight finish with the old one.
    pub(super) fn rearm(&self, arm: &dyn Arm, guard: Arc<Guard>) {
        self.anvil.borrow_mut().guard = guard;
        let armed = arm.arm(&self.anvil.borrow(), Some(&self.armed.borrow()));
        *self.armed.borrow_mut() = armed;
    }

    /// Requests in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.strikes.borrow().len()
    }

    /// Sends, at `now_ns`, the arrival that was due at `due_ns`.
    pub(super) fn launch(self: &Rc<Self>, station: &Rc<Station>, due_ns: u64, now_ns: u64) {
        self.ledger.start();
        self.tally.set(self.tally.get() + 1);
        let mut strikes = self.strikes.borrow_mut();
        let entry = strikes.vacant_entry();
        let strike = Strike::new(Rc::clone(station), Rc::clone(self), entry.key(), due_ns, now_ns);
        let hammer = Rc::clone(&self.armed.borrow().launch);
        entry.insert(hammer.launch(strike));
    }

    /// Whether a failure may be told in the log; then how many like it were held back.
    pub(super) fn admit_fault(&self, reason: Reason, now_ns: u64) -> Option<u64> {
        let mut throttles = self.throttles.borrow_mut();
        if let Some((_, throttle)) = throttles.iter_mut().find(|(of, _)| *of == reason) {
            return throttle.admit(now_ns);
        }
        let mut throttle = Throttle::new(FAULT_INTERVAL_NS);
        let admitted = throttle.admit(now_ns);
        throttles.push((reason, throttle));
        admitted
    }

    /// A strike is over.
    pub(super) fn forget(&self, key: usize) {
        self.strikes.borrow_mut().try_remove(key);
        self.tally.set(self.tally.get() - 1);
    }

    /// Cuts off all requests in flight.
    pub(super) fn cut_off(&self) {
        for (_, strike) in self.strikes.borrow().iter() {
            strike.abort();
        }
    }
}
