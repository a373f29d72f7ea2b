//! One worker: a thread with its own runtime, its own lanes, one heap and one timer.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use slab::Slab;
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;

use super::deadline::Deadlines;
use super::lane::{Arm, Lane, LaneId, LaneSpec, Tempo};
use super::pacer::{Course, Pacer, Release, Slot};
use super::wake::Wake;
use crate::clock;
use crate::net::Guard;
use crate::outcome::DropReason;
use crate::pace::Schedule;
use crate::stats::WorkerStats;

/// Arrivals released before connections get a turn.
const MAX_RELEASES_PER_TURN: usize = 64;
/// Commands that may wait for a worker.
const MAX_WAITING_COMMANDS: usize = 16;

/// What the control thread asks of a worker.
pub enum Command {
    /// Lanes come, change and go; answered when that is done.
    Apply {
        /// In this order.
        changes: Vec<LaneChange>,
        /// Told when all are applied.
        done: oneshot::Sender<()>,
    },
    /// Bounds of the whole worker.
    Tune(Tuning),
    /// A sign of life is asked for.
    Ping {
        /// Told at the loop's next turn.
        done: oneshot::Sender<()>,
    },
    /// No more arrivals; answered when no request is in flight.
    Drain {
        /// Told then.
        done: oneshot::Sender<()>,
    },
    /// The thread ends; what is in flight is cut off.
    Finish,
}

/// A change to one lane.
pub enum LaneChange {
    /// A new lane.
    Add(Box<LaneSpec>),
    /// A lane goes on, otherwise than before.
    Update {
        /// Which.
        id: LaneId,
        /// When its arrivals are due from now on, if that changes.
        turn: Option<Turn>,
        /// New bounds.
        tempo: Tempo,
        /// A new hammer, and who judges its addresses.
        arm: Option<(Arc<dyn Arm>, Arc<Guard>)>,
    },
    /// A lane ends with what is due at an instant, and leaves when its last request has finished.
    Retire {
        /// Which.
        id: LaneId,
        /// The instant; 0 for at once.
        at_ns: u64,
        /// After this, requests still in flight are cut off: the target is gone. `None` leaves them to their own
        /// deadlines: the target goes on in other lanes.
        grace: Option<Duration>,
    },
}

/// How the arrivals of a lane go on.
pub enum Turn {
    /// By a schedule that agrees with the one before on what was sent already.
    Schedule(Arc<Schedule>),
    /// By a course of its own for what is due after an instant.
    Course {
        /// The instant; now, when that has passed.
        at_ns: u64,
        /// Its arrivals.
        course: Course,
    },
}

/// Bounds of a worker, which a reload may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuning {
    /// How long an arrival may wait to share a wake-up.
    pub coalesce_ns: u64,
    /// An arrival later than this is dropped.
    pub late_after_ns: u64,
    /// Requests in flight over all workers.
    pub max_total_in_flight: usize,
}

/// The stats of all workers of the process.
pub type Peers = Arc<[Arc<WorkerStats>]>;

/// The control thread's end of a worker.
pub struct Worker {
    /// Takes its commands.
    pub commands: mpsc::Sender<Command>,
    thread: JoinHandle<()>,
}

impl Worker {
    /// Starts worker `index` of `peers`.
    pub fn spawn(index: usize, peers: Peers, tuning: Tuning) -> io::Result<Self> {
        let (commands, inbox) = mpsc::channel(MAX_WAITING_COMMANDS);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let wake = {
            let _inside = runtime.enter();
            Wake::new()?
        };
        let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
            let tasks = LocalSet::new();
            tasks.block_on(&runtime, Station::new(index, peers, tuning, wake).run(inbox));
            // What is still in flight is cut off, and counted, here.
            drop(tasks);
            #[cfg(feature = "http3")]
            crate::net::tell_peers(&runtime);
        })?;
        Ok(Self { commands, thread })
    }

    /// Whether the thread has ended.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the end of the thread; false when it panicked.
    pub fn join(self) -> bool {
        self.thread.join().is_ok()
    }
}

/// What all tasks of a worker share.
pub(super) struct Station {
    pub(super) stats: Arc<WorkerStats>,
    peers: Peers,
    tuning: Cell<Tuning>,
    pacer: RefCell<Pacer>,
    /// By the slot that the pacer knows them by.
    lanes: RefCell<Slab<Rc<Lane>>>,
    slots: RefCell<HashMap<LaneId, Slot>>,
    /// Requests in flight by target; see [`Lane::tally`].
    tallies: RefCell<HashMap<Arc<str>, Rc<Cell<usize>>>>,
    in_flight: Cell<usize>,
    /// Told when nothing is in flight any more.
    drained: RefCell<Option<oneshot::Sender<()>>>,
    pub(super) deadlines: Deadlines,
    wake: Wake,
}

impl Station {
    fn new(index: usize, peers: Peers, tuning: Tuning, wake: Wake) -> Rc<Self> {
        Rc::new(Self {
            stats: Arc::clone(&peers[index]),
            peers,
            tuning: Cell::new(tuning),
            pacer: RefCell::default(),
            lanes: RefCell::default(),
            slots: RefCell::default(),
            tallies: RefCell::default(),
            in_flight: Cell::new(0),
            drained: RefCell::new(None),
            deadlines: Deadlines::new(),
            wake,
        })
    }

    async fn run(self: Rc<Self>, mut inbox: mpsc::Receiver<Command>) {
        let mut more_is_due = false;
        loop {
            // Commands also get a turn while more is due than can be sent: a worker must always be able to stop.
            tokio::select! {
                biased;
                command = inbox.recv() => match command {
                    Some(Command::Finish) | None => return,
                    Some(command) => self.obey(command),
                },
                () = tokio::task::yield_now(), if more_is_due => {}
                () = self.wake.fired(), if !more_is_due => {}
            }
            let now_ns = clock::now_ns();
            self.deadlines.sweep(now_ns);
            more_is_due = self.release(now_ns);
            if !more_is_due {
                let next_ns = self.pacer.borrow().next_due_ns().min(self.deadlines.next_ns());
                self.wake.arm(next_ns.max(now_ns + self.tuning.get().coalesce_ns));
            }
        }
    }

    fn obey(self: &Rc<Self>, command: Command) {
        match command {
            Command::Apply { changes, done } => {
                for change in changes {
                    self.change(change);
                }
                // Nobody waits for it any more: fine.
                let _ = done.send(());
            }
            Command::Tune(tuning) => self.tuning.set(tuning),
            Command::Ping { done } => {
                let _ = done.send(());
            }
            Command::Drain { done } => {
                let now_ns = clock::now_ns();
                while self.release(now_ns) {}
                self.pacer.borrow_mut().stop();
                *self.drained.borrow_mut() = Some(done);
                self.tell_if_drained();
            }
            Command::Finish => {}
        }
    }

    fn change(self: &Rc<Self>, change: LaneChange) {
        match change {
            LaneChange::Add(spec) => {
                let id = spec.id;
                let slot = self.pacer.borrow().vacant_slot();
                let tally = Rc::clone(self.tallies.borrow_mut().entry(Arc::clone(&spec.target)).or_default());
                let (lane, course) = Lane::new(*spec, slot, tally);
                self.pacer.borrow_mut().add(course);
                let at = self.lanes.borrow_mut().insert(lane);
                debug_assert_eq!(at, slot, "both tables are filled and emptied together");
                self.slots.borrow_mut().insert(id, slot);
            }
            LaneChange::Update { id, turn, tempo, arm } => {
                let Some(lane) = self.lane(id) else { return };
                lane.tempo.set(tempo);
                if let Some((arm, guard)) = arm {
                    lane.rearm(&*arm, guard);
                }
                match turn {
                    None => {}
                    Some(Turn::Schedule(schedule)) => self.pacer.borrow_mut().reschedule(lane.slot, schedule),
                    Some(Turn::Course { at_ns, course }) => {
                        let at_ns = at_ns.max(clock::now_ns());
                        self.pacer.borrow_mut().follow(lane.slot, at_ns, course);
                    }
                }
            }
            LaneChange::Retire { id, at_ns, grace } => {
                let Some(lane) = self.lane(id) else { return };
                self.slots.borrow_mut().remove(&id);
                lane.retiring.set(true);
                if grace.is_some() {
                    self.close_tally(&lane);
                }
                self.pacer.borrow_mut().end_at(lane.slot, at_ns);
                if !self.bury_if_over(&lane)
                    && let Some(grace) = grace
                {
                    // The lane must not outlive its last request for this: it holds connections and a ledger.
                    let lane = Rc::downgrade(&lane);
                    tokio::task::spawn_local(async move {
                        tokio::time::sleep(grace).await;
                        if let Some(lane) = lane.upgrade() {
                            lane.cut_off();
                        }
                    });
                }
            }
        }
    }

    fn lane(&self, id: LaneId) -> Option<Rc<Lane>> {
        let slot = *self.slots.borrow().get(&id)?;
        self.lanes.borrow().get(slot).cloned()
    }

    /// Sends what is due at `now_ns`, up to the bound of a turn; true when more is due.
    fn release(self: &Rc<Self>, now_ns: u64) -> bool {
        let late_ns = now_ns.saturating_sub(self.tuning.get().late_after_ns);
        for _ in 0..MAX_RELEASES_PER_TURN {
            let Some(release) = self.pacer.borrow_mut().next(now_ns, late_ns) else { return false };
            let (Release::Due { slot, .. } | Release::Late { slot, .. }) = release;
            let Some(lane) = self.lanes.borrow().get(slot).cloned() else { continue };
            match release {
                Release::Due { due_ns, .. } => self.admit(&lane, due_ns, now_ns),
                Release::Late { count, .. } => lane.ledger.drop_arrivals(DropReason::Late, count),
            }
            if lane.retiring.get() {
                self.bury_if_over(&lane);
            }
        }
        true
    }

    /// Sends what is due, if anything is: called where a worker is awake anyway.
    pub(super) fn release_if_due(self: &Rc<Self>, now_ns: u64) {
        if self.pacer.borrow().next_due_ns() <= now_ns {
            self.release(now_ns);
        }
    }

    /// Launches an arrival if the ceilings allow one more request in flight.
    fn admit(self: &Rc<Self>, lane: &Rc<Lane>, due_ns: u64, now_ns: u64) {
        if lane.tally.get() >= lane.tempo.get().max_in_flight {
            lane.ledger.drop_arrivals(DropReason::InFlight, 1);
        } else if self.total_in_flight() >= self.tuning.get().max_total_in_flight {
            lane.ledger.drop_arrivals(DropReason::GlobalLimit, 1);
        } else {
            lane.launch(self, due_ns, now_ns);
        }
    }

    /// Requests in flight over all workers; the others' numbers may be a moment old.
    fn total_in_flight(&self) -> usize {
        if self.peers.len() == 1 {
            return self.in_flight.get();
        }
        self.peers.iter().map(|peer| peer.in_flight()).sum()
    }

    /// A request is in flight.
    pub(super) fn enter(&self) {
        self.set_in_flight(self.in_flight.get() + 1);
    }

    /// A request of `lane` is over.
    pub(super) fn leave(&self, lane: &Rc<Lane>) {
        self.set_in_flight(self.in_flight.get() - 1);
        if lane.retiring.get() {
            self.bury_if_over(lane);
        }
        self.tell_if_drained();
    }

    fn set_in_flight(&self, requests: usize) {
        self.in_flight.set(requests);
        self.stats.set_in_flight(requests);
    }

    /// Takes a retiring lane away once it has neither arrivals nor requests left.
    fn bury_if_over(&self, lane: &Rc<Lane>) -> bool {
        let over = lane.in_flight() == 0 && self.pacer.borrow().is_over(lane.slot);
        let buried = self.lanes.borrow().get(lane.slot).is_none_or(|at_slot| !Rc::ptr_eq(at_slot, lane));
        if over && !buried {
            self.pacer.borrow_mut().remove(lane.slot);
            self.lanes.borrow_mut().remove(lane.slot);
            // The table's and this lane's: no other lane of the target is left.
            if Rc::strong_count(&lane.tally) == 2 {
                self.close_tally(lane);
            }
        }
        over || buried
    }

    /// A lane that comes from now on under the name of this one's target is another target's.
    fn close_tally(&self, lane: &Lane) {
        let mut tallies = self.tallies.borrow_mut();
        if tallies.get(&lane.target).is_some_and(|tally| Rc::ptr_eq(tally, &lane.tally)) {
            tallies.remove(&lane.target);
        }
    }

    fn tell_if_drained(&self) {
        if self.in_flight.get() == 0
            && let Some(done) = self.drained.borrow_mut().take()
        {
            // Nobody waits for it any more: fine.
            let _ = done.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hammer::{Answer, Anvil, Forge, Hammer};
    use crate::net::{Fault, ResolverService};
    use crate::outcome::Trace;
    use crate::pace::{Phase, Process, Rate, Stripe};
    use crate::stats::{LedgerWriter, Shape};

    struct Idle;

    impl Hammer for Idle {
        async fn strike(&self, _: &Trace, _: u64) -> Result<Answer, Fault> {
            std::future::pending().await
        }
    }

    struct IdleForge;

    impl Forge for IdleForge {
        type Hammer = Idle;

        fn forge(&self, _: &Anvil, _: Option<&Rc<Idle>>) -> Rc<Idle> {
            Rc::new(Idle)
        }
    }

    /// A lane whose every arrival is dropped.
    fn closed_lane(id: u64, per_second: u64) -> LaneChange {
        let schedule = Schedule::new(Rate::per_second(per_second), Process::Even, Phase::default(), 0, clock::now_ns());
        LaneChange::Add(Box::new(LaneSpec {
            id: LaneId(id),
            target: "a".into(),
            ledger: LedgerWriter::new(Shape::new(3, &[])).0,
            course: Course::new(Arc::new(schedule), Stripe::WHOLE, 0),
            tempo: Tempo { timeout: Duration::from_secs(1), max_in_flight: 0 },
            arm: Arc::new(IdleForge),
            resolver: ResolverService::new().1,
            guard: Arc::default(),
        }))
    }

    #[tokio::test]
    async fn a_worker_that_can_not_keep_up_still_obeys() {
        const LANES: u64 = 30;
        let tuning = Tuning { coalesce_ns: 250_000, late_after_ns: 100_000_000, max_total_in_flight: 1 };
        let stats = Arc::new(WorkerStats::new(Shape::new(3, &[])));
        let worker = Worker::spawn(0, [stats].into(), tuning).expect("a worker");
        let changes = (0..LANES).map(|id| closed_lane(id, Rate::MAX_PER_SECOND)).collect();
        let (done, applied) = oneshot::channel();
        worker.commands.send(Command::Apply { changes, done }).await.expect("a worker at work");
        applied.await.expect("lanes");
        tokio::time::sleep(Duration::from_millis(200)).await;
        let (done, drained) = oneshot::channel();
        worker.commands.send(Command::Drain { done }).await.expect("a worker at work");
        let drained = tokio::time::timeout(Duration::from_secs(20), drained).await;
        assert!(drained.is_ok_and(|told| told.is_ok()), "no end of the arrivals");
        worker.commands.send(Command::Finish).await.expect("a worker at work");
        assert!(worker.join());
    }
}
