//! One HTTP/3 connection (RFC 9114), shared by the requests that run on it.

mod frames;
mod streams;

use std::cell::Cell;
use std::fmt;
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use bytes::{Buf as _, Bytes};
use h3::client::{RequestStream, SendRequest};
use h3::error::{Code, ConnectionError, LocalError, StreamError};
use hyper::header::{CONTENT_LENGTH, HeaderMap};
use hyper::{Method, Request, StatusCode};

use self::frames::{Body, Violation};
use self::streams::{Backend, Both, Gate, Opener, Receiving, Sending};
use super::seats::{Seat, Seats};
use crate::clock;
use crate::config::HttpRequest;
use crate::net::{Fault, Line, Open, PoolPolicy, Quic, Tenure, quic_reason};
use crate::outcome::{Reason, Stage, Trace};
use crate::stats::CloseReason;

/// Largest head, as its names and values count (RFC 9114, 4.2.2).
const MAX_HEAD_BYTES: u64 = 400 << 10;
/// RFC 9114, 8.1.
const NO_ERROR: u32 = 0x100;

/// An open connection. It is closed when nothing holds it any more.
pub(super) struct Shared {
    sender: SendRequest<Opener, Bytes>,
    connection: quinn::Connection,
    gate: Rc<Gate>,
    line: Rc<Line>,
    tenure: Tenure,
    /// Requests that run on it.
    streams: Cell<usize>,
    /// Since when none does.
    idle_since_ns: Cell<u64>,
    /// Why it gets no more requests.
    end: Cell<Option<CloseReason>>,
    /// Why it ended, when neither side closed it.
    lost: Rc<Cell<Option<Reason>>>,
    /// Whether somebody waits for the peer to allow one more request.
    asking: Rc<Cell<bool>>,
    seats: Rc<Seats>,
    _seat: Seat,
}

/// One request's place on a connection.
pub(super) struct Stream {
    shared: Rc<Shared>,
    /// Until the request is sent.
    place: Option<Both>,
    received_before: u64,
    /// Whether the request came to its end, well or badly.
    over: bool,
}

/// Why a request came to nothing.
pub(super) struct Loss {
    /// What it counts as.
    pub(super) fault: Fault,
    /// Whether the peer never saw it.
    pub(super) never: bool,
    /// Whether the connection is of no use any more, and why.
    pub(super) end: Option<CloseReason>,
}

/// What can go wrong with a response.
enum Wrong {
    Http(StreamError),
    Ours(Fault),
}

impl From<StreamError> for Wrong {
    fn from(error: StreamError) -> Self {
        Self::Http(error)
    }
}

impl Shared {
    /// Speaks HTTP/3 on a new connection. Called inside the worker's `LocalSet`.
    pub(super) async fn open(quic: Quic, seat: Seat, seats: Rc<Seats>, now_ns: u64) -> Result<Rc<Self>, Fault> {
        let Quic { connection, line, open } = quic;
        let gate = Gate::new(connection.clone());
        let lost_early = |connection: &quinn::Connection, text: String| {
            let reason = connection.close_reason().map_or(Reason::Protocol, |error| quic_reason(&error));
            Fault::new(reason, text)
        };
        // Until it may be used, whoever opens it may be cut off.
        line.close_reason.set(CloseReason::Canceled);
        let mut builder = h3::client::builder();
        let built = builder.max_field_section_size(MAX_HEAD_BYTES).send_grease(false);
        let built = built.build::<_, Opener, Bytes>(Backend::new(Rc::clone(&gate))).await;
        line.close_reason.set(CloseReason::Peer);
        let (driver, sender) = built.map_err(|error| lost_early(&connection, error.to_string()))?;
        let lost = Rc::new(Cell::new(None));
        let (gone, waiting) = (Rc::clone(&lost), Rc::clone(&seats));
        tokio::task::spawn_local(drive(driver, connection.clone(), open, Rc::clone(&line), gone, waiting));
        let shared = Rc::new(Self {
            sender,
            connection,
            gate,
            line,
            tenure: Tenure::new(now_ns),
            streams: Cell::new(0),
            idle_since_ns: Cell::new(now_ns),
            end: Cell::new(Some(CloseReason::Canceled)),
            lost,
            asking: Rc::default(),
            seats,
            _seat: seat,
        });
        let room = shared.gate.room().await;
        shared.end.set(None);
        match room {
            Ok(()) => Ok(shared),
            Err(error) => Err(lost_early(&shared.connection, error.to_string())),
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "as other connections, some of which have none")]
    pub(super) fn address(&self) -> Option<IpAddr> {
        Some(self.line.address)
    }

    /// Why it gets no more requests, if it gets none.
    pub(super) fn unfit(&self, now_ns: u64, policy: &PoolPolicy) -> Option<CloseReason> {
        if self.gate.farewell().is_some() || self.connection.close_reason().is_some() {
            return Some(CloseReason::Peer);
        }
        let idle_ns = now_ns.saturating_sub(self.idle_since_ns.get());
        let idled = self.is_idle() && idle_ns > policy.idle_timeout.as_nanos() as u64;
        self.end.get().or_else(|| self.tenure.over(now_ns, policy)).or(idled.then_some(CloseReason::Idle))
    }

    pub(super) fn is_idle(&self) -> bool {
        self.streams.get() == 0
    }

    /// Gives it no more requests; those that run on it finish.
    pub(super) fn retire(&self, reason: CloseReason) {
        self.end.set(self.end.get().or(Some(reason)));
    }

    /// Tells those who wait for a connection when the peer allows one more request on this one.
    fn ask_for_room(&self) {
        if self.asking.replace(true) {
            return;
        }
        let (gate, asking, seats) = (Rc::clone(&self.gate), Rc::clone(&self.asking), Rc::clone(&self.seats));
        tokio::task::spawn_local(async move {
            // An end of the connection is told by its driver.
            let _ = gate.room().await;
            asking.set(false);
            seats.freed.notify_waiters();
        });
    }
}

/// Polls a connection to its end.
async fn drive(
    mut driver: h3::client::Connection<Backend, Bytes>,
    connection: quinn::Connection,
    open: Open,
    line: Rc<Line>,
    lost: Rc<Cell<Option<Reason>>>,
    seats: Rc<Seats>,
) {
    tokio::select! {
        biased;
        error = driver.wait_idle() => {
            if is_violation(&error) || matches!(connection.close_reason(), Some(quinn::ConnectionError::TransportError(_))) {
                line.close_reason.set(CloseReason::Failed);
            }
        }
        // The peer is gone, and with it what it knew of the connection: it can't say so itself.
        _ = line.unreachable() => {
            lost.set(Some(Reason::Reset));
            connection.close(NO_ERROR.into(), b"");
        }
    }
    drop(open);
    seats.freed.notify_waiters();
}

/// Whether the peer broke the protocol, as h3 sees it.
fn is_violation(error: &ConnectionError) -> bool {
    match error {
        ConnectionError::Local { error: LocalError::Application { code, .. }, .. } => *code != Code::H3_NO_ERROR,
        _ => false,
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // It holds the gate in its turn.
        self.gate.offer(None);
        if self.connection.close_reason().is_none() {
            self.line.close_reason.set(self.end.get().unwrap_or(CloseReason::Retired));
            self.connection.close(NO_ERROR.into(), b"");
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("line", &self.line).field("streams", &self.streams).finish_non_exhaustive()
    }
}

impl Stream {
    /// A place on a connection, if it has room.
    pub(super) fn on(shared: &Rc<Shared>) -> Option<Self> {
        let Some(place) = shared.gate.stream() else {
            shared.ask_for_room();
            return None;
        };
        shared.streams.set(shared.streams.get() + 1);
        shared.tenure.serve();
        Some(Self {
            received_before: shared.line.received_bytes(),
            shared: Rc::clone(shared),
            place: Some(place),
            over: false,
        })
    }

    /// Sends a request and reads its response to the end.
    pub(super) async fn exchange(
        &mut self,
        request: Request<()>,
        spec: &HttpRequest,
        trace: &Trace,
    ) -> Result<StatusCode, Loss> {
        let number = self.place.as_ref().map_or(u64::MAX, Both::number);
        let whole = self.place.as_ref().map(Both::whole).unwrap_or_default();
        // Its first poll takes what is offered, and nobody else runs before.
        self.shared.gate.offer(self.place.take());
        let sent = self.shared.sender.clone().send_request(request).await;
        // Still there when the connection had ended meanwhile.
        self.shared.gate.offer(None);
        let (up, down) = sent.map_err(|error| self.loss(&error, number, true))?.split();
        let mut sending = pin!(send(up, spec.body.clone()));
        let mut receiving = pin!(receive(down, &whole, spec, trace));
        let mut all_sent = false;
        let exchanged = poll_fn(|cx| {
            if let Poll::Ready(received) = receiving.as_mut().poll(cx) {
                return Poll::Ready(received);
            }
            if !all_sent && let Poll::Ready(sent) = sending.as_mut().poll(cx) {
                all_sent = true;
                match sent {
                    // It wants no more of the request and answers all the same (RFC 9114, 4.1.1).
                    Ok(()) | Err(StreamError::RemoteTerminate { code: Code::H3_NO_ERROR, .. }) => {}
                    Err(error) => return Poll::Ready(Err(error.into())),
                }
            }
            Poll::Pending
        })
        .await;
        let mut loss = match exchanged {
            Ok(status) => {
                trace.complete(clock::now_ns());
                return Ok(status);
            }
            Err(Wrong::Http(error)) => self.loss(&error, number, false),
            Err(Wrong::Ours(fault)) => Loss { fault, never: false, end: None },
        };
        if loss.fault.reason == Reason::TimeoutResponse && trace.stage() == Some(Stage::Receive) {
            loss.fault.reason = Reason::TimeoutBody;
        }
        Err(loss)
    }

    /// What an error means. `unwritten`: it came before the whole head of the request was sent.
    fn loss(&self, error: &StreamError, number: u64, unwritten: bool) -> Loss {
        let text = error.to_string();
        let lost = |reason, never, end| Loss { fault: Fault::new(reason, text.clone()), never, end };
        match error {
            // Before it was sent, the peer had said farewell.
            StreamError::RemoteClosing { .. } => lost(Reason::Eof, true, Some(CloseReason::Peer)),
            StreamError::RemoteTerminate { code, .. } => lost(Reason::Reset, *code == Code::H3_REQUEST_REJECTED, None),
            StreamError::ConnectionError { .. } => {
                let unserved = self.shared.gate.farewell().is_some_and(|first| number >= first);
                let never = unwritten || unserved;
                let reason = self.shared.lost.get().unwrap_or_else(|| match self.shared.connection.close_reason() {
                    // By h3, which saw a violation.
                    None | Some(quinn::ConnectionError::LocallyClosed) => Reason::Protocol,
                    Some(error) => quic_reason(&error),
                });
                lost(reason, never, Some(if never { CloseReason::Peer } else { CloseReason::Failed }))
            }
            StreamError::Undefined { 0: error, .. } if error.downcast_ref() == Some(&Violation::Short) => {
                lost(Reason::Eof, false, None)
            }
            _ => lost(Reason::Protocol, false, None),
        }
    }

    /// The request has come to its end, or there was none.
    pub(super) fn finish(mut self) {
        self.over = true;
    }

    /// The connection is of no use any more.
    pub(super) fn give_up(mut self, reason: CloseReason) {
        self.over = true;
        self.shared.retire(reason);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // Cut off while nothing at all came from the peer: the path may be dead, so others don't follow.
        if !self.over && self.shared.line.received_bytes() == self.received_before {
            self.shared.retire(CloseReason::Canceled);
        }
        if let Some(unused) = self.place.take() {
            self.shared.gate.offer(Some(unused));
        }
        self.shared.streams.set(self.shared.streams.get() - 1);
        self.shared.idle_since_ns.set(clock::now_ns());
        self.shared.seats.freed.notify_one();
    }
}

async fn send(mut up: RequestStream<Sending, Bytes>, body: Bytes) -> Result<(), StreamError> {
    if !body.is_empty() {
        up.send_data(body).await?;
    }
    up.finish().await
}

/// Reads a response to its end. `whole` tells what there is of its body once all has come.
async fn receive(
    mut down: RequestStream<Receiving, Bytes>,
    whole: &Cell<Option<Body>>,
    spec: &HttpRequest,
    trace: &Trace,
) -> Result<StatusCode, Wrong> {
    let head = loop {
        let head = down.recv_response().await?;
        if !head.status().is_informational() {
            break head;
        }
    };
    trace.enter(Stage::Receive, clock::now_ns());
    // h3 speaks of an end after trailers and an empty DATA frame too.
    let (mut received, mut ends) = (0, 0);
    loop {
        match down.recv_data().await? {
            Some(data) => received += data.remaining() as u64,
            None => ends += 1,
        }
        if whole.get().is_some_and(|body| received == body.bytes || ends > body.frames + 2) {
            break;
        }
        if received > spec.max_body {
            let text = format!("the body exceeds {} bytes", spec.max_body);
            return Err(Wrong::Ours(Fault::new(Reason::BodyTooLarge, text)));
        }
    }
    let bodiless =
        spec.method == Method::HEAD || [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&head.status());
    if bodiless || is_length(head.headers(), received) {
        return Ok(head.status());
    }
    // RFC 9114, 4.1.2; h3 lets it pass.
    let text = format!("the body has {received} bytes, which is not its Content-Length");
    Err(Wrong::Ours(Fault::new(Reason::Protocol, text)))
}

/// Whether a body of `bytes` is as long as its head says, if that says anything.
fn is_length(headers: &HeaderMap, bytes: u64) -> bool {
    let declared = headers.get(CONTENT_LENGTH);
    declared.is_none_or(|length| length.to_str().is_ok_and(|text| text.parse() == Ok(bytes)))
}
