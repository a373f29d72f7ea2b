//! The way to a server: connections of one target on one worker, opened, kept and shared as the target's policy has it.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use super::connection::Connection;
#[cfg(feature = "http3")]
use super::http3;
use super::seats::{Seat, Seats, Turn};
use super::shared::{Shared, Stream as SharedStream};
use crate::clock;
use crate::config::HttpRequest;
use crate::hammer::Anvil;
use crate::net::{Dialer, Fault, HttpVersion, Pool, Pooled as _, Stream, Tls};
use crate::outcome::{Reason, Stage, Trace};
use crate::stats::{CloseReason, Ledger};

/// Whoever tends connections looks this often at least whether they are still there: a target may be gone.
const MAX_PAUSE: Duration = Duration::from_secs(30);

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
    tls: RefCell<Option<Arc<Tls>>>,
    ledger: Arc<Ledger>,
    idle: Pool<Box<Connection>>,
    shared: RefCell<Vec<Joint>>,
    version: HttpVersion,
    speaks: Cell<Speaks>,
    /// Connections that are open or being opened.
    seats: Rc<Seats>,
    /// Where requests are that wait for one of them: nowhere yet, but those that give up had no connection.
    seatless: Rc<Cell<Stage>>,
    /// The attempt that all wait for whose requests fit on one connection.
    attempt: RefCell<Weak<Attempt>>,
    /// Whether connections that are kept are being swept.
    sweeping: Cell<bool>,
    /// Who sees to it that their addresses are looked up again.
    renewing: RefCell<Option<AbortHandle>>,
    /// Whether a request has used one of them since that was done.
    used: Cell<bool>,
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
    fn way(&self) -> Option<Way> {
        match self {
            Self::Http2(connection) => connection.has_room().then(|| Way::Beside(SharedStream::on(connection))),
            #[cfg(feature = "http3")]
            Self::Http3(connection) => http3::Stream::on(connection).map(|it| Way::OverQuic(Box::new(it))),
        }
    }
}

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
        // Whatever was shown on another road is not in use on this one.
        ledger.wire.certificate_not_after.set(0);
        let speaks = match (spec.version, &spec.tls) {
            (HttpVersion::Http2 | HttpVersion::Http3, _) => Speaks::Multiplexed,
            (HttpVersion::Http1, _) | (HttpVersion::Auto, None) => Speaks::Http1,
            (HttpVersion::Auto, Some(_)) => Speaks::Unknown,
        };
        let road = Rc::new(Self {
            dialer,
            tls: RefCell::new(spec.tls.clone()),
            ledger,
            idle: Pool::new(max_idle, spec.pool),
            shared: RefCell::default(),
            version: spec.version,
            speaks: Cell::new(speaks),
            seats: Rc::default(),
            seatless: Rc::new(Cell::new(Stage::Connect)),
            attempt: RefCell::default(),
            sweeping: Cell::new(false),
            renewing: RefCell::default(),
            used: Cell::new(false),
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
        let same_trust = match (&*self.tls.borrow(), &spec.tls) {
            (Some(tls), Some(next)) => tls.secures_as(next),
            (None, None) => true,
            _ => false,
        };
        (&spec.host, spec.port, spec.version) == (&was.host, was.port, was.version)
            && same_trust
            && self.dialer.follows(&spec.route)
            && *self.dialer.guard() == *anvil.guard
    }

    /// Takes over from `spec`, to which this road leads, what holds for connections from now on.
    pub(super) fn adapt(&self, spec: &HttpRequest, max_idle: usize) {
        if self.dialer.adapt(&spec.route)
            && let Some(waiting) = self.renewing.take()
        {
            // For the time that was right before. The next request has somebody take its place.
            waiting.abort();
        }
        let mut tls = self.tls.borrow_mut();
        if *tls != spec.tls {
            tls.clone_from(&spec.tls);
        }
        self.idle.adapt(max_idle, spec.pool);
        self.seats.freed.notify_waiters();
    }

    /// A connection for a request; `fresh` asks for a new one, if there may be one more. Waits while the target has as many
    /// connections as it may; first come, first served.
    pub(super) async fn way(&self, trace: &Trace, deadline_ns: u64, fresh: bool) -> Result<Way, Fault> {
        let (mut turn, mut until_ns, mut disappointed) = (None, None, false);
        loop {
            let now_ns = clock::now_ns();
            if turn.is_none() && self.seats.someone_waits() {
                let until_ns = *until_ns.get_or_insert_with(|| self.patience(now_ns, deadline_ns));
                self.wait(&mut turn, trace, now_ns, until_ns).await?;
                continue;
            }
            if (!fresh || self.is_full())
                && let Some(way) = self.at_hand(now_ns)
            {
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
                        Some((reason, cause)) if disappointed => return Err(Fault::new(reason, cause)),
                        // It may have failed just after this request came, with the time that others had given it: only
                        // of the next one does this request see all.
                        Some(_) => disappointed = true,
                        None => {}
                    }
                    continue;
                }
            }
            let Some(seat) = self.seat() else {
                let until_ns = *until_ns.get_or_insert_with(|| self.patience(now_ns, deadline_ns));
                self.wait(&mut turn, trace, now_ns, until_ns).await?;
                continue;
            };
            drop(turn);
            return self.open(seat, trace, deadline_ns).await;
        }
    }

    /// Until when a request waits for a connection: as long as opening one may take, and no longer than half of its time.
    /// One that got a connection at the last moment would be cut off on it, and the next one after it, and so on: under a
    /// slight overload none would be answered.
    fn patience(&self, now_ns: u64, deadline_ns: u64) -> u64 {
        let half_ns = deadline_ns.saturating_sub(now_ns) / 2;
        now_ns.saturating_add(half_ns.min(self.dialer.connect_timeout().as_nanos() as u64))
    }

    /// Waits for its turn, or, with that, until a connection may have come free, at most until `until_ns`. Takes part in no
    /// phase meanwhile: it is not the target that takes its time.
    async fn wait<'a>(
        &'a self,
        turn: &mut Option<Turn<'a>>,
        trace: &Trace,
        now_ns: u64,
        until_ns: u64,
    ) -> Result<(), Fault> {
        trace.complete(now_ns);
        trace.follow(&self.seatless);
        let waiting = async {
            match turn {
                None => *turn = Some(self.seats.turn().await),
                Some(_) => self.seats.freed.notified().await,
            }
        };
        let waited = timeout(Duration::from_nanos(until_ns.saturating_sub(now_ns)), waiting).await;
        trace.part();
        waited.map_err(|_| Fault::new(Reason::ConnectTimeout, "no connection came free in time (pool.max_connections)"))
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
        shared.iter().find_map(Joint::way)
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

    /// Whether there are as many connections as there may be.
    fn is_full(&self) -> bool {
        self.idle.policy().max_connections.is_some_and(|max| self.seats.taken() >= max)
    }

    fn seat(&self) -> Option<Seat> {
        (!self.is_full()).then(|| Seat::take(&self.seats))
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

    fn tls(&self) -> Option<Arc<Tls>> {
        self.tls.borrow().clone()
    }

    async fn establish(&self, seat: Seat, trace: &Trace, deadline_ns: u64) -> Result<Way, Fault> {
        #[cfg(feature = "http3")]
        if self.version == HttpVersion::Http3
            && let Some(tls) = self.tls()
        {
            // Boxed: it is larger than all else that a request needs.
            return Box::pin(self.establish_quic(&tls, seat, trace, deadline_ns)).await;
        }
        let stream = self.stream(trace, deadline_ns).await?;
        let now_ns = clock::now_ns();
        trace.enter(Stage::Wait, now_ns);
        if self.version == HttpVersion::Http2 || stream.alpn() == Some(b"h2") {
            self.speaks.set(Speaks::Multiplexed);
            let shared = Shared::open(stream, seat, Rc::clone(&self.seats), now_ns).await?;
            let stream = SharedStream::on(&shared);
            self.shared.borrow_mut().push(Joint::Http2(shared));
            return Ok(Way::Beside(stream));
        }
        self.speaks.set(Speaks::Http1);
        Ok(Way::Alone(Connection::open(stream, seat, now_ns).await?, false))
    }

    #[cfg(feature = "http3")]
    async fn establish_quic(&self, tls: &Tls, seat: Seat, trace: &Trace, deadline_ns: u64) -> Result<Way, Fault> {
        let dialled = self.dialer.dial_quic(tls, trace, deadline_ns).await;
        self.heed_change();
        let answered = dialled?;
        trace.enter(Stage::Tls, clock::now_ns());
        let secured = answered.secure().await;
        // Also of one that was refused.
        self.ledger.wire.certificate_not_after.set(tls.peer_not_after());
        let quic = secured?;
        let now_ns = clock::now_ns();
        trace.enter(Stage::Wait, now_ns);
        let shared = http3::Shared::open(quic, seat, Rc::clone(&self.seats), now_ns).await?;
        let stream = http3::Stream::on(&shared);
        self.shared.borrow_mut().push(Joint::Http3(shared));
        let stream = stream.ok_or_else(|| Fault::new(Reason::Eof, "the peer closed the connection at once"))?;
        Ok(Way::OverQuic(Box::new(stream)))
    }

    async fn stream(&self, trace: &Trace, deadline_ns: u64) -> Result<Stream, Fault> {
        let dialled = self.dialer.dial(trace, deadline_ns).await;
        self.heed_change();
        let socket = dialled?;
        let Some(tls) = self.tls() else { return Ok(Stream::Plain(socket)) };
        trace.enter(Stage::Tls, clock::now_ns());
        let secured = tls.handshake(socket).await;
        // Also of one that was refused.
        self.ledger.wire.certificate_not_after.set(tls.peer_not_after());
        Ok(Stream::Secure(Box::new(secured?)))
    }

    /// Takes back a connection that could serve another request.
    pub(super) fn put(self: &Rc<Self>, connection: Box<Connection>, now_ns: u64) {
        if self.idle.policy().max_connections.is_some_and(|max| self.seats.taken() > max) {
            // A reload allows fewer than there are. Its seat tells those who wait.
            connection.close(CloseReason::Retired);
            return;
        }
        self.idle.put(connection, now_ns);
        self.seats.freed.notify_one();
        self.keep_swept();
    }

    /// A request is over, and its connection may be kept: it is closed in time, and its address looked up again.
    pub(super) fn keep_swept(self: &Rc<Self>) {
        self.used.set(true);
        if !self.sweeping.replace(true) {
            tokio::task::spawn_local(sweep(Rc::downgrade(self)));
        }
        let mut renewing = self.renewing.borrow_mut();
        if renewing.is_none() {
            *renewing = Some(tokio::task::spawn_local(renew(Rc::downgrade(self))).abort_handle());
        }
    }

    /// Closes what is kept and whose time has come, or whose address is gone; true when something is left.
    fn sweep(&self, now_ns: u64) -> bool {
        let idle_left = self.idle.sweep(now_ns, |connection| self.dialer.knows(connection.address()));
        self.retire_unfit(now_ns) || idle_left
    }

    /// Closes at once what is kept to addresses that the name has just turned out not to lead to any more.
    fn heed_change(&self) {
        if self.dialer.take_change() {
            self.sweep(clock::now_ns());
        }
    }
}

/// Closes idle connections whose time has come, for as long as there are some.
async fn sweep(road: Weak<Road>) {
    while let Some(pause) = road.upgrade().map(|road| road.idle.pause(clock::now_ns())) {
        sleep(pause.min(MAX_PAUSE)).await;
        let Some(road) = road.upgrade() else { return };
        if !road.sweep(clock::now_ns()) {
            road.sweeping.set(false);
            return;
        }
    }
}

/// Looks the name up again whenever its addresses are due, for as long as requests use the connections that are kept.
/// Only those that are opened would learn of a change otherwise, and there may be none for a long time.
async fn renew(road: Weak<Road>) {
    // Without end where nothing will ever be due: nobody comes again.
    while let Some((road_now, due_ns)) = road.upgrade().and_then(|road| road.dialer.due_ns().map(|due| (road, due))) {
        let now_ns = clock::now_ns();
        if now_ns < due_ns {
            drop(road_now);
            sleep(Duration::from_nanos(due_ns - now_ns).min(MAX_PAUSE)).await;
            continue;
        }
        if !road_now.used.replace(false) {
            road_now.renewing.take();
            return;
        }
        let inquiry = road_now.dialer.inquire();
        drop(road_now);
        let answer = inquiry.await;
        let Some(road) = road.upgrade() else { return };
        // A failure changes nothing for connections that are open; those who dial tell of it.
        let _ = road.dialer.learn(answer, now_ns);
        road.heed_change();
    }
}

/// Opens connections before they are needed. The first failure ends it: requests will tell.
async fn preconnect(road: Weak<Road>, count: usize) {
    for _ in 0..count {
        let Some(road) = road.upgrade() else { return };
        let Some(seat) = road.seat() else { return };
        // No request's deadline is over it, and requests may come to wait for it.
        let budget = road.dialer.connect_timeout();
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

#[cfg(test)]
mod tests;
