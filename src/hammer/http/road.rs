//! The way to a server: connections of one target on one worker, opened, kept and shared as the target's policy has it.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use tokio::sync::Notify;
use tokio::time::timeout;

use super::connection::Connection;
#[cfg(feature = "http3")]
use super::http3;
use super::shared::{Shared, Stream as SharedStream};
use crate::clock;
use crate::config::HttpRequest;
use crate::hammer::Anvil;
use crate::net::{Dialer, Fault, HttpVersion, Pool, PoolPolicy, Pooled as _, Stream, Tls};
use crate::outcome::{Reason, Stage, Trace};
use crate::stats::{CloseReason, Ledger};

/// Which HTTP the server speaks, as far as that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speaks {
    /// What the first connection tells.
    Unknown,
    Http1,
    /// HTTP/2 or HTTP/3: requests run beside each other.
    Multiplexed,
}

/// The way to a server, which a changed request to the same server keeps.
#[derive(Debug)]
pub(super) struct Road {
    pub(super) dialer: Dialer,
    tls: Option<Arc<Tls>>,
    ledger: Arc<Ledger>,
    idle: Pool<Box<Connection>>,
    shared: RefCell<Vec<Joint>>,
    version: HttpVersion,
    speaks: Cell<Speaks>,
    /// Connections that are open or being opened.
    seats: Rc<Seats>,
    /// The attempt that all wait for whose requests fit on one connection.
    attempt: RefCell<Weak<Attempt>>,
    sweeping: Cell<bool>,
}

/// A connection for one request.
pub(super) enum Way {
    /// For this request alone, and whether it served others before.
    Alone(Box<Connection>, bool),
    /// Beside others.
    Beside(SharedStream),
    /// Beside others, over HTTP/3.
    #[cfg(feature = "http3")]
    OverQuic(Box<http3::Stream>),
}

/// A connection that requests share.
#[derive(Debug)]
enum Joint {
    Http2(Rc<Shared>),
    #[cfg(feature = "http3")]
    Http3(Rc<http3::Shared>),
}

/// Calls a method of whichever connection it is.
macro_rules! either {
    ($joint:expr, $connection:ident => $call:expr) => {
        match $joint {
            Joint::Http2($connection) => $call,
            #[cfg(feature = "http3")]
            Joint::Http3($connection) => $call,
        }
    };
}

impl Joint {
    /// A place for a request, if there is room.
    fn way(&self, seats: &Rc<Seats>) -> Option<Way> {
        match self {
            Self::Http2(connection) => connection.has_room().then(|| Way::Beside(SharedStream::on(connection, seats))),
            #[cfg(feature = "http3")]
            Self::Http3(connection) => http3::Stream::on(connection, seats).map(|it| Way::OverQuic(Box::new(it))),
        }
    }
}

/// How many connections there are.
#[derive(Debug, Default)]
pub(super) struct Seats {
    taken: Cell<usize>,
    /// Told when one is given back, or an idle connection comes in, or a shared one has room.
    pub(super) freed: Notify,
}

/// Counts as a connection until it is dropped.
#[derive(Debug)]
pub(super) struct Seat(Rc<Seats>);

/// An attempt to connect that others wait for.
#[derive(Debug)]
struct Attempt {
    /// Where it has got to.
    reached: Rc<Cell<Stage>>,
    /// Why it failed.
    failure: RefCell<Option<(Reason, String)>>,
    over: Notify,
}

impl Road {
    pub(super) fn new(spec: &HttpRequest, anvil: &Anvil, max_idle: usize) -> Rc<Self> {
        let (guard, ledger) = (Arc::clone(&anvil.guard), Arc::clone(&anvil.ledger));
        let dialer = Dialer::new(spec.route.clone(), guard, anvil.resolver.clone(), Arc::clone(&ledger));
        let speaks = match (spec.version, &spec.tls) {
            (HttpVersion::Http2 | HttpVersion::Http3, _) => Speaks::Multiplexed,
            (HttpVersion::Http1, _) | (HttpVersion::Auto, None) => Speaks::Http1,
            (HttpVersion::Auto, Some(_)) => Speaks::Unknown,
        };
        let road = Rc::new(Self {
            dialer,
            tls: spec.tls.clone(),
            ledger,
            idle: Pool::new(max_idle, spec.pool),
            shared: RefCell::default(),
            version: spec.version,
            speaks: Cell::new(speaks),
            seats: Rc::default(),
            attempt: RefCell::default(),
            sweeping: Cell::new(false),
        });
        if spec.pool.preconnect > 0 {
            let (road, count) = (Rc::downgrade(&road), spec.pool.preconnect);
            tokio::task::spawn_local(preconnect(road, count));
        }
        road
    }

    /// Whether this is the way that `spec` asks for. A connection is open to an address that the guard of its time
    /// admitted: another guard, another road.
    pub(super) fn leads_to(&self, spec: &HttpRequest, was: &HttpRequest, anvil: &Anvil) -> bool {
        (&spec.host, spec.port, spec.version, &spec.tls) == (&was.host, was.port, was.version, &was.tls)
            && *self.dialer.route() == spec.route
            && *self.dialer.guard() == *anvil.guard
    }

    pub(super) fn adapt(&self, max_idle: usize, policy: PoolPolicy) {
        self.idle.adapt(max_idle, policy);
        self.seats.freed.notify_waiters();
    }

    /// A connection for a request; `fresh` asks for a new one. Waits while the target has as many connections as it may.
    pub(super) async fn way(&self, trace: &Trace, deadline_ns: u64, fresh: bool) -> Result<Way, Fault> {
        loop {
            let now_ns = clock::now_ns();
            if !fresh && let Some(way) = self.at_hand(now_ns) {
                trace.enter(Stage::Wait, now_ns);
                return Ok(way);
            }
            if self.speaks.get() != Speaks::Http1 {
                // Bound first: in the condition, the borrow would last over the wait.
                let attempt = self.attempt.borrow().upgrade();
                if let Some(attempt) = attempt {
                    trace.enter(Stage::Connect, now_ns);
                    trace.follow(&attempt.reached);
                    attempt.over.notified().await;
                    trace.part();
                    let failure = attempt.failure.borrow().clone();
                    match failure {
                        Some((reason, cause)) => return Err(Fault::new(reason, cause)),
                        None => continue,
                    }
                }
            }
            let Some(seat) = self.seat() else {
                trace.enter(Stage::Connect, now_ns);
                self.seats.freed.notified().await;
                continue;
            };
            return self.open(seat, trace, deadline_ns).await;
        }
    }

    /// An open connection with room for a request.
    fn at_hand(&self, now_ns: u64) -> Option<Way> {
        if self.speaks.get() == Speaks::Http1 {
            loop {
                let connection = self.idle.take(now_ns)?;
                if self.dialer.knows(connection.address()) {
                    return Some(Way::Alone(connection, true));
                }
                connection.close(CloseReason::AddressGone);
            }
        }
        self.retire_unfit(now_ns);
        let shared = self.shared.borrow();
        shared.iter().find_map(|connection| connection.way(&self.seats))
    }

    /// Lets go of shared connections that get no more requests; true when some are left.
    fn retire_unfit(&self, now_ns: u64) -> bool {
        let policy = self.idle.policy();
        let (mut shared, mut idle) = (self.shared.borrow_mut(), 0);
        shared.retain(|joint| {
            either!(joint, connection => {
                let gone = (!self.dialer.knows(connection.address())).then_some(CloseReason::AddressGone);
                idle += usize::from(connection.is_idle());
                let too_many = (connection.is_idle() && idle > self.idle.max_idle()).then_some(CloseReason::Idle);
                let unfit = connection.unfit(now_ns, &policy).or(gone).or(too_many);
                if let Some(reason) = unfit {
                    connection.retire(reason);
                }
                unfit.is_none()
            })
        });
        !shared.is_empty()
    }

    fn seat(&self) -> Option<Seat> {
        let max = self.idle.policy().max_connections.unwrap_or(usize::MAX);
        (self.seats.taken.get() < max).then(|| Seat::take(&self.seats))
    }

    /// A new connection.
    async fn open(&self, seat: Seat, trace: &Trace, deadline_ns: u64) -> Result<Way, Fault> {
        let attempt = Rc::new(Attempt {
            reached: Rc::new(Cell::new(Stage::Connect)),
            failure: RefCell::default(),
            over: Notify::new(),
        });
        trace.lead(&attempt.reached);
        if self.speaks.get() != Speaks::Http1 {
            *self.attempt.borrow_mut() = Rc::downgrade(&attempt);
        }
        // Whatever becomes of this, also when it is cut off: those who wait go on.
        let ended = Ended { road: self, attempt: &attempt };
        let opened = self.establish(seat, trace, deadline_ns).await;
        trace.part();
        if let Err(fault) = &opened {
            *attempt.failure.borrow_mut() = Some((fault.reason, fault.cause_text()));
        }
        drop(ended);
        opened
    }

    async fn establish(&self, seat: Seat, trace: &Trace, deadline_ns: u64) -> Result<Way, Fault> {
        #[cfg(feature = "http3")]
        if let (HttpVersion::Http3, Some(tls)) = (self.version, &self.tls) {
            // Boxed: it is larger than all else that a request needs.
            return Box::pin(self.establish_quic(tls, seat, trace, deadline_ns)).await;
        }
        let stream = self.stream(trace, deadline_ns).await?;
        let now_ns = clock::now_ns();
        trace.enter(Stage::Wait, now_ns);
        if self.version == HttpVersion::Http2 || stream.alpn() == Some(b"h2") {
            self.speaks.set(Speaks::Multiplexed);
            let shared = Shared::open(stream, seat, Rc::clone(&self.seats), now_ns).await?;
            let stream = SharedStream::on(&shared, &self.seats);
            self.shared.borrow_mut().push(Joint::Http2(shared));
            return Ok(Way::Beside(stream));
        }
        self.speaks.set(Speaks::Http1);
        Ok(Way::Alone(Connection::open(stream, seat, now_ns).await?, false))
    }

    #[cfg(feature = "http3")]
    async fn establish_quic(&self, tls: &Tls, seat: Seat, trace: &Trace, deadline_ns: u64) -> Result<Way, Fault> {
        let answered = self.dialer.dial_quic(tls, trace, deadline_ns).await?;
        trace.enter(Stage::Tls, clock::now_ns());
        let secured = answered.secure().await;
        // Also of one that was refused.
        self.ledger.wire.certificate_not_after.set(tls.peer_not_after());
        let quic = secured?;
        let now_ns = clock::now_ns();
        trace.enter(Stage::Wait, now_ns);
        let shared = http3::Shared::open(quic, seat, Rc::clone(&self.seats), now_ns).await?;
        let stream = http3::Stream::on(&shared, &self.seats);
        self.shared.borrow_mut().push(Joint::Http3(shared));
        let stream = stream.ok_or_else(|| Fault::new(Reason::Eof, "the peer closed the connection at once"))?;
        Ok(Way::OverQuic(Box::new(stream)))
    }

    async fn stream(&self, trace: &Trace, deadline_ns: u64) -> Result<Stream, Fault> {
        let socket = self.dialer.dial(trace, deadline_ns).await?;
        let Some(tls) = &self.tls else { return Ok(Stream::Plain(socket)) };
        trace.enter(Stage::Tls, clock::now_ns());
        let fate = socket.fate();
        fate.close_reason.set(CloseReason::Failed);
        let secured = tls.handshake(socket).await;
        // Also of one that was refused.
        self.ledger.wire.certificate_not_after.set(tls.peer_not_after());
        let stream = secured?;
        fate.close_reason.set(CloseReason::Peer);
        Ok(Stream::Secure(Box::new(stream)))
    }

    /// Takes back a connection that could serve another request.
    pub(super) fn put(self: &Rc<Self>, connection: Box<Connection>, now_ns: u64) {
        self.idle.put(connection, now_ns);
        self.seats.freed.notify_one();
        self.keep_swept();
    }

    /// A request that ran beside others is over.
    pub(super) fn keep_swept(self: &Rc<Self>) {
        if !self.sweeping.replace(true) {
            tokio::task::spawn_local(sweep(Rc::downgrade(self)));
        }
    }
}

/// Closes idle connections whose time has come, for as long as there are some.
async fn sweep(road: Weak<Road>) {
    while let Some(pause) = road.upgrade().map(|road| road.idle.policy().idle_timeout) {
        tokio::time::sleep(pause).await;
        let Some(road) = road.upgrade() else { return };
        let now_ns = clock::now_ns();
        if !road.idle.sweep(now_ns) & !road.retire_unfit(now_ns) {
            road.sweeping.set(false);
            return;
        }
    }
}

/// Opens connections before they are needed. The first failure ends it: requests will tell.
async fn preconnect(road: Weak<Road>, count: usize) {
    for _ in 0..count {
        let Some(road) = road.upgrade() else { return };
        let Some(seat) = road.seat() else { return };
        // No request's deadline is over it, and requests may come to wait for it.
        let budget = road.dialer.route().connect_timeout;
        let (trace, deadline_ns) = (Trace::new(), clock::now_ns().saturating_add(budget.as_nanos() as u64));
        match timeout(budget, road.open(seat, &trace, deadline_ns)).await {
            Ok(Ok(Way::Alone(connection, _))) => {
                // Nothing has run on it yet, which would look like its end.
                connection.settle().await;
                road.put(connection, clock::now_ns());
            }
            Ok(Ok(Way::Beside(stream))) => {
                stream.finish();
                road.keep_swept();
            }
            #[cfg(feature = "http3")]
            Ok(Ok(Way::OverQuic(stream))) => {
                stream.finish();
                road.keep_swept();
            }
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

/// Tells those who wait for an attempt that it is over.
struct Ended<'a> {
    road: &'a Road,
    attempt: &'a Rc<Attempt>,
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        // Those who wait hold it: without this, they would find it again and wait for ever.
        let mut current = self.road.attempt.borrow_mut();
        if current.ptr_eq(&Rc::downgrade(self.attempt)) {
            *current = Weak::new();
        }
        self.attempt.over.notify_waiters();
    }
}

impl Seat {
    pub(super) fn take(seats: &Rc<Seats>) -> Self {
        seats.taken.set(seats.taken.get() + 1);
        Self(Rc::clone(seats))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.taken.set(self.0.taken.get() - 1);
        self.0.freed.notify_one();
    }
}
