//! The accept loop and the seats: who may be connected, and who has to go.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use rustix::io::Errno;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use super::status::Desk;
use super::turns::Turns;
use super::wire::{Slot, Stage, Wire};
use super::{Bounds, Face, Scraped, routes};
use crate::logs::Throttle;

/// What hyper may buffer of a request: enough for any scraper's head.
const REQUEST_HEAD_BYTES_MAX: usize = 16 << 10;
/// How many header fields a request may have.
const REQUEST_FIELDS_MAX: usize = 64;
/// The pause after an accept that failed for want of descriptors or memory: trying again at once would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often the same complaint is logged.
const COMPLAINT_INTERVAL_NS: u64 = 30_000_000_000;

/// Everything that the connections share.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) face: Face,
    pub(super) bounds: Bounds,
    /// The bytes of all answers in memory.
    pub(super) held_bytes: Arc<AtomicUsize>,
    pub(super) complaints: Complaints,
    pub(super) turns: Rc<Turns>,
    pub(super) desk: Desk,
    scraped: watch::Sender<Option<Scraped>>,
    stopped: watch::Receiver<()>,
    seats: RefCell<BTreeMap<u64, Seat>>,
    seats_taken: Cell<u64>,
    /// Somebody left.
    left: Notify,
}

/// One connection, as seen by those who may end it.
#[derive(Debug)]
struct Seat {
    slot: Rc<Slot>,
    task: AbortHandle,
}

impl Room {
    pub(super) fn new(
        face: Face,
        bounds: Bounds,
        held_bytes: Arc<AtomicUsize>,
        scraped: watch::Sender<Option<Scraped>>,
        stopped: watch::Receiver<()>,
    ) -> Self {
        Self {
            face,
            bounds,
            held_bytes,
            complaints: Complaints::new(),
            turns: Rc::new(Turns::new()),
            desk: Desk::default(),
            scraped,
            stopped,
            seats: RefCell::default(),
            seats_taken: Cell::new(0),
            left: Notify::new(),
        }
    }

    /// Accepts until told to stop, then lets answers in progress leave for a bounded time.
    pub(super) async fn serve(self: Rc<Self>, listener: TcpListener) {
        let mut stopped = self.stopped.clone();
        loop {
            let accepted = tokio::select! {
                biased;
                _ = stopped.changed() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    self.seat(stream);
                    // In a flood of connections each gets its turn to be read before the next can push it out.
                    tokio::task::yield_now().await;
                }
                Err(error) if is_the_clients_own(&error) => {}
                // Descriptors are used up as seats can be: the same one goes.
                Err(error) if is_want_of_descriptors(&error) && self.evict(Slot::can_make_room) => {
                    tokio::task::yield_now().await;
                }
                Err(error) => {
                    self.complaints.say(|held_back| {
                        tracing::warn!(%error, held_back, "cannot accept a connection to the admin address");
                    });
                    tokio::select! {
                        biased;
                        _ = stopped.changed() => break,
                        () = sleep(ACCEPT_PAUSE) => {}
                    }
                }
            }
        }
        drop(listener);
        // Connections have seen the stop too and end by themselves; what is left after that falls with the thread.
        let _ = timeout(self.bounds.close, self.empty()).await;
    }

    async fn empty(&self) {
        while !self.seats.borrow().is_empty() {
            self.left.notified().await;
        }
    }

    /// Gives a connection a seat, somebody else's if need be.
    fn seat(self: &Rc<Self>, stream: TcpStream) {
        if self.seats.borrow().len() >= self.bounds.connections && !self.evict(Slot::can_make_room) {
            // Everybody's request is in work, which takes moments; the client may try again.
            return;
        }
        let number = self.seats_taken.get();
        self.seats_taken.set(number + 1);
        let slot = Slot::new();
        let guest = Guest { room: Rc::clone(self), number };
        let task = tokio::task::spawn_local(guest.stay(stream, Rc::clone(&slot)));
        self.seats.borrow_mut().insert(number, Seat { slot, task: task.abort_handle() });
    }

    /// Makes room in memory for another answer, at the cost of those that have waited longest to leave.
    pub(super) fn make_space(&self) {
        let leaving_bytes = || self.seats.borrow().values().map(|seat| seat.slot.answer_bytes()).sum::<usize>();
        while leaving_bytes() > self.bounds.answers_bytes {
            if !self.evict(|slot| slot.stage() == Stage::Answering) {
                return;
            }
        }
    }

    /// Ends the connection, of those that `may_go`, that nothing was served to for longest; those that are being
    /// answered only if there is no other. Returns whether there was one.
    fn evict(&self, may_go: impl Fn(&Slot) -> bool) -> bool {
        let mut seats = self.seats.borrow_mut();
        let victim = seats
            .iter()
            .filter(|(_, seat)| may_go(&seat.slot))
            .min_by_key(|(_, seat)| (seat.slot.stage() == Stage::Answering, seat.slot.served()))
            .map(|(&number, _)| number);
        let Some(seat) = victim.and_then(|number| seats.remove(&number)) else { return false };
        // The task is dropped, and the socket closed, at its next turn.
        seat.task.abort();
        true
    }
}

/// Whether an accept failed for a reason that went away with that one client.
fn is_the_clients_own(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

/// Whether an accept failed because no more files can be open.
fn is_want_of_descriptors(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

/// Holds a seat for as long as its connection lives, however that ends.
struct Guest {
    room: Rc<Room>,
    number: u64,
}

impl Guest {
    async fn stay(self, stream: TcpStream, slot: Rc<Slot>) {
        let room = &self.room;
        // Without this the last segment of an answer may wait for an acknowledgement.
        let _ = stream.set_nodelay(true);
        let wire = Wire::new(stream, Rc::clone(&slot), room.bounds, room.scraped.clone());
        let service = service_fn(|request| {
            let (room, slot) = (Rc::clone(room), Rc::clone(&slot));
            async move { Ok::<_, Infallible>(routes::answer(request, &room, slot).await) }
        });
        let connection = http1::Builder::new()
            // The wire keeps the time.
            .header_read_timeout(None)
            .max_buf_size(REQUEST_HEAD_BYTES_MAX)
            .max_headers(REQUEST_FIELDS_MAX)
            .serve_connection(wire, service);
        let mut connection = pin!(connection);
        let mut stopped = room.stopped.clone();
        // How a client went is the client's affair.
        tokio::select! {
            biased;
            _ = connection.as_mut() => return,
            _ = stopped.changed() => {}
        }
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.room.seats.borrow_mut().remove(&self.number);
        self.room.left.notify_one();
    }
}

/// What the admin thread complains of, at most one line in a while.
#[derive(Debug)]
pub(super) struct Complaints {
    throttle: RefCell<Throttle>,
    origin: std::time::Instant,
}

impl Complaints {
    fn new() -> Self {
        Self { throttle: RefCell::new(Throttle::new(COMPLAINT_INTERVAL_NS)), origin: std::time::Instant::now() }
    }

    /// Logs through `speak`, which is told how many complaints were held back, unless one was logged just now.
    pub(super) fn say(&self, speak: impl FnOnce(u64)) {
        let now_ns = u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let admitted = self.throttle.borrow_mut().admit(now_ns);
        if let Some(held_back) = admitted {
            speak(held_back);
        }
    }
}
