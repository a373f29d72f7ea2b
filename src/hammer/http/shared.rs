//! One HTTP/2 connection (RFC 9113), shared by the requests that run on it.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::fault;
use super::request::Payload;
use super::seats::{Seat, Seats};
use crate::clock;
use crate::net::{Fate, Fault, PoolPolicy, Stream as Link, Tenure};
use crate::outcome::Reason;
use crate::stats::CloseReason;

/// While requests run, a peer that has been silent for this long is asked whether it is there.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// How long it may take to answer; a new connection is answered by the peer's settings (RFC 9113, 3.4).
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// An open connection. Its socket is closed when nothing holds it any more.
#[derive(Debug)]
pub(super) struct Shared {
    sender: SendRequest<Payload>,
    fate: Rc<Fate>,
    tasks: Tasks,
    tenure: Tenure,
    /// Requests that run on it.
    streams: Cell<usize>,
    /// Requests that it was given, without those that the peer never looked at.
    taken: Cell<u64>,
    /// As many as ran when the peer refused one more: that is as many as it takes, whatever it says.
    full_at: Cell<usize>,
    /// Since when none does.
    idle_since_ns: Cell<u64>,
    told: Rc<Told>,
    /// Why it gets no more requests.
    end: Cell<Option<CloseReason>>,
    seats: Rc<Seats>,
    _seat: Seat,
}

/// What is heard of a connection while it is driven.
#[derive(Debug, Default)]
struct Told {
    /// As many requests as the peer allows at once.
    max_streams: Cell<usize>,
    /// A ping was not answered.
    dead: Cell<bool>,
}

/// One request's place on a connection.
pub(super) struct Stream {
    shared: Rc<Shared>,
    received_before: u64,
    /// Whether the request came to its end, well or badly.
    over: bool,
}

/// Runs what hyper spawns for a connection.
#[derive(Debug, Clone)]
struct Tasks(Rc<Reader>);

/// The first task of a connection: the one that owns the socket.
#[derive(Debug)]
struct Reader {
    fate: Rc<Fate>,
    task: RefCell<Option<AbortHandle>>,
    /// Told when it may have read how many requests the peer allows: hyper tells nobody.
    listener: RefCell<Option<Waker>>,
    /// Who drives the connection, to be told of its end.
    driver: RefCell<Option<Waker>>,
    /// Nothing is read any more, by no doing of ours.
    ended: Cell<bool>,
    /// Whoever drives the connection has seen why.
    explained: Cell<bool>,
}

impl Reader {
    fn of(fate: Rc<Fate>) -> Self {
        let (task, listener, driver) = Default::default();
        Self { fate, task, listener, driver, ended: Cell::new(false), explained: Cell::new(false) }
    }

    /// Called at the end, before the socket is closed, and counted: waits for the reason.
    async fn explain(&self) {
        /// In a few the driver has its turn, even among many tasks.
        const TURNS: usize = 100;
        self.ended.set(true);
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
        for _ in 0..TURNS {
            if self.explained.get() {
                return;
            }
            tokio::task::yield_now().await;
        }
        // Nothing was wrong with what came: too little did. A ping was not answered.
        self.fate.close_reason.set(CloseReason::Failed);
    }
}

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Tasks {
    fn execute(&self, task: F) {
        let mut first = self.0.task.borrow_mut();
        if first.is_some() {
            tokio::task::spawn_local(task);
            return;
        }
        let reader = Rc::clone(&self.0);
        let spawned = tokio::task::spawn_local(async move {
            let mut task = pin!(task);
            poll_fn(|cx| {
                let polled = task.as_mut().poll(cx);
                if let Some(listener) = reader.listener.take() {
                    listener.wake();
                }
                polled
            })
            .await;
            reader.explain().await;
        });
        *first = Some(spawned.abort_handle());
    }
}

impl Shared {
    /// Speaks HTTP/2 on a new connection. Called inside the worker's `LocalSet`.
    pub(super) async fn open(link: Link, seat: Seat, seats: Rc<Seats>, now_ns: u64) -> Result<Rc<Self>, Fault> {
        let fate = link.fate();
        let tasks = Tasks(Rc::new(Reader::of(Rc::clone(&fate))));
        let received_before = fate.received_bytes.get();
        let handshake = http2::Builder::new(tasks.clone())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            // None, until the peer says how many it allows.
            .initial_max_send_streams(0)
            .handshake(TokioIo::new(link))
            .await;
        let (sender, connection) = handshake.map_err(|error| fault::of_response(error, false))?;
        let told = Rc::<Told>::default();
        let (ready, greeted) = oneshot::channel();
        let reader = Rc::clone(&tasks.0);
        let driving = drive(connection, reader, Rc::clone(&told), Rc::clone(&fate), Rc::clone(&seats), ready);
        tokio::task::spawn_local(driving);
        let shared = Rc::new(Self {
            sender,
            fate,
            tasks,
            tenure: Tenure::new(now_ns),
            streams: Cell::new(0),
            taken: Cell::new(0),
            full_at: Cell::new(usize::MAX),
            idle_since_ns: Cell::new(now_ns),
            told,
            // Until it may be used, whoever opens it may be cut off.
            end: Cell::new(Some(CloseReason::Canceled)),
            seats,
            _seat: seat,
        });
        let greeted = timeout(PING_TIMEOUT, greeted).await;
        shared.end.set(Some(CloseReason::Failed));
        match greeted {
            Ok(Ok(Ok(()))) => {
                shared.end.set(None);
                Ok(shared)
            }
            Ok(Ok(Err(error))) => Err(fault::of_response(error, false)),
            Ok(Err(_)) => Err(Reason::Eof.into()),
            Err(_) => {
                let text = if shared.fate.received_bytes.get() == received_before {
                    format!("no HTTP/2 settings within {PING_TIMEOUT:?}")
                } else {
                    // hyper does not tell settings that allow nothing from none.
                    format!("no request allowed within {PING_TIMEOUT:?} (HTTP/2 SETTINGS_MAX_CONCURRENT_STREAMS = 0)")
                };
                Err(Fault::new(Reason::TimeoutResponse, text))
            }
        }
    }

    pub(super) fn address(&self) -> Option<IpAddr> {
        self.fate.address
    }

    /// Why it gets no more requests, if it gets none.
    pub(super) fn unfit(&self, now_ns: u64, policy: &PoolPolicy) -> Option<CloseReason> {
        if self.sender.is_closed() {
            return Some(CloseReason::Peer);
        }
        let idle_ns = now_ns.saturating_sub(self.idle_since_ns.get());
        let idled = self.is_idle() && idle_ns > policy.idle_timeout.as_nanos() as u64;
        self.end.get().or_else(|| self.tenure.over(now_ns, policy)).or(idled.then_some(CloseReason::Idle))
    }

    pub(super) fn is_idle(&self) -> bool {
        self.streams.get() == 0
    }

    /// One that has taken as many requests as a peer took before it said farewell gets no more at once: all but the first
    /// would have to go elsewhere.
    pub(super) fn has_room(&self) -> bool {
        let used_up = self.seats.quota.get().is_some_and(|quota| self.taken.get() >= quota);
        self.streams.get() < self.told.max_streams.get().min(self.full_at.get()) && (!used_up || self.is_idle())
    }

    /// Gives it no more requests; those that run on it finish.
    pub(super) fn retire(&self, reason: CloseReason) {
        self.end.set(self.end.get().or(Some(reason)));
    }
}

/// Polls a connection to its end. `ready` is told once when the peer has said how many requests it allows, or why it
/// never will.
async fn drive(
    connection: http2::Connection<TokioIo<Link>, Payload, Tasks>,
    reader: Rc<Reader>,
    told: Rc<Told>,
    fate: Rc<Fate>,
    seats: Rc<Seats>,
    ready: oneshot::Sender<Result<(), hyper::Error>>,
) {
    let (mut connection, mut ready) = (pin!(connection), Some(ready));
    let ended = poll_fn(|cx| {
        reader.driver.borrow_mut().get_or_insert_with(|| cx.waker().clone());
        let ended = connection.as_mut().poll(cx);
        let max = connection.current_max_send_streams();
        if told.max_streams.replace(max) < max {
            // Nobody waits for the connection any more: fine.
            ready.take().map(|ready| ready.send(Ok(())));
            seats.freed.notify_waiters();
        }
        if max == 0 {
            *reader.listener.borrow_mut() = Some(cx.waker().clone());
        }
        ended
    });
    if let Err(error) = ended.await {
        if fault::is_violation(&error) {
            fate.close_reason.set(CloseReason::Failed);
        }
        told.dead.set(error.is_timeout());
        ready.take().map(|ready| ready.send(Err(error)));
    }
    reader.explained.set(true);
    seats.freed.notify_waiters();
}

impl Drop for Shared {
    fn drop(&mut self) {
        if self.tasks.0.ended.get() {
            // Not by us.
            return;
        }
        self.fate.close_reason.set(self.end.get().unwrap_or(CloseReason::Retired));
        if let Some(task) = self.tasks.0.task.borrow_mut().take() {
            task.abort();
        }
    }
}

impl Stream {
    /// A place on a connection that has room.
    pub(super) fn on(shared: &Rc<Shared>) -> Self {
        shared.streams.set(shared.streams.get() + 1);
        shared.taken.set(shared.taken.get() + 1);
        shared.tenure.serve();
        Self { received_before: shared.fate.received_bytes.get(), shared: Rc::clone(shared), over: false }
    }

    /// Sends a request and waits for the head of its response.
    pub(super) async fn send(
        &mut self,
        request: Request<Payload>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Payload>>> {
        self.shared.sender.clone().try_send_request(request).await
    }

    /// Whether the connection, of which a response met the end, ended because the peer no longer answered.
    pub(super) async fn is_dead(&self) -> bool {
        // Who drives the connection learns the reason in its own turn.
        tokio::task::yield_now().await;
        self.shared.told.dead.get()
    }

    /// The request has come to its end, or there was none.
    pub(super) fn finish(mut self) {
        self.over = true;
        let quota = &self.shared.seats.quota;
        if quota.get().is_some_and(|quota| self.shared.taken.get() > quota) {
            // The peer takes more than it once did.
            quota.set(None);
            self.shared.seats.freed.notify_waiters();
        }
    }

    /// The connection is of no use any more.
    pub(super) fn give_up(mut self) {
        self.over = true;
        self.shared.retire(CloseReason::Failed);
    }

    /// The peer never looked at the request: it refused this one, or with `farewell` takes no more at all.
    pub(super) fn unseen(mut self, farewell: bool) {
        self.over = true;
        let (shared, others) = (&self.shared, self.shared.streams.get() - 1);
        shared.taken.set(shared.taken.get() - 1);
        if !farewell && others > 0 {
            shared.full_at.set(shared.full_at.get().min(others));
            return;
        }
        shared.retire(CloseReason::Peer);
        if farewell && shared.taken.get() > 0 {
            shared.seats.quota.set(Some(shared.taken.get()));
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // Cut off while nothing at all came from the peer: the path may be dead, so others don't follow.
        if !self.over && self.shared.fate.received_bytes.get() == self.received_before {
            self.shared.retire(CloseReason::Canceled);
        }
        self.shared.streams.set(self.shared.streams.get() - 1);
        self.shared.idle_since_ns.set(clock::now_ns());
        self.shared.seats.freed.notify_one();
    }
}
