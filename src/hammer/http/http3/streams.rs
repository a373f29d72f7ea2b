//! QUIC's streams as h3 wants them.
//!
//! In place of h3-quinn, which can't say whether a connection has room for another request, panics when a read that
//! waits is called off, and tells a peer that a request is complete when it is cut off.

use std::cell::{Cell, RefCell};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes};
use h3::error::Code;
use h3::quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId, WriteBuf};
use quinn::{ConnectionError, ReadError, VarInt, WriteError};

use super::frames::{Body, Frames, Violation};

type Pair = (quinn::SendStream, quinn::RecvStream);
type Opening<T> = Pin<Box<dyn Future<Output = Result<T, ConnectionError>>>>;

/// What the streams of a connection share.
pub(super) struct Gate {
    connection: quinn::Connection,
    /// A stream that is open, and that no request has.
    spare: RefCell<Option<Pair>>,
    /// The stream that h3 sends its next request on, or one that a request had no use for.
    offered: RefCell<Option<Both>>,
    /// From this one on the peer serves no requests.
    farewell: Cell<Option<u64>>,
}

/// The connection, for h3 to live on.
pub(super) struct Backend {
    gate: Rc<Gate>,
    accepting: Option<Opening<quinn::RecvStream>>,
    opening: Opener,
}

/// Opens streams.
pub(super) struct Opener {
    gate: Rc<Gate>,
    request: Option<Opening<Pair>>,
    own: Option<Opening<quinn::SendStream>>,
}

/// A request's stream.
pub(super) struct Both {
    up: Sending,
    down: Receiving,
}

/// Towards the peer. A peer is told when it is cut off.
pub(super) struct Sending {
    stream: quinn::SendStream,
    writing: Option<WriteBuf<Bytes>>,
    over: bool,
}

/// From the peer. A peer is told when no more is wanted.
pub(super) struct Receiving {
    stream: quinn::RecvStream,
    gate: Rc<Gate>,
    frames: Frames,
    /// Its body, once all has come.
    whole: Rc<Cell<Option<Body>>>,
    /// Nothing more is read: see [`Violation::Endless`].
    deaf: bool,
}

impl Gate {
    pub(super) fn new(connection: quinn::Connection) -> Rc<Self> {
        let (spare, offered) = (RefCell::default(), RefCell::default());
        Rc::new(Self { connection, spare, offered, farewell: Cell::default() })
    }

    /// A stream for a request, if the peer allows one more now.
    pub(super) fn stream(self: &Rc<Self>) -> Option<Both> {
        let offered = self.offered.borrow_mut().take();
        if offered.is_some() {
            return offered;
        }
        let spare = self.spare.borrow_mut().take();
        let pair = spare.or_else(|| {
            let mut cx = Context::from_waker(Waker::noop());
            match pin!(self.connection.open_bi()).poll(&mut cx) {
                Poll::Ready(opened) => opened.ok(),
                Poll::Pending => None,
            }
        });
        pair.map(|(up, down)| Both::new(up, down, Rc::clone(self)))
    }

    /// Waits until the peer allows one more request.
    pub(super) async fn room(&self) -> Result<(), ConnectionError> {
        let pair = self.connection.open_bi().await?;
        *self.spare.borrow_mut() = Some(pair);
        Ok(())
    }

    /// Has h3 send its next request on this stream.
    pub(super) fn offer(&self, stream: Option<Both>) {
        *self.offered.borrow_mut() = stream;
    }

    /// The first request that the peer leaves unserved, if it said farewell.
    pub(super) fn farewell(&self) -> Option<u64> {
        self.farewell.get()
    }
}

impl Backend {
    pub(super) fn new(gate: Rc<Gate>) -> Self {
        Self { opening: Opener { gate: Rc::clone(&gate), request: None, own: None }, gate, accepting: None }
    }
}

impl quic::Connection<Bytes> for Backend {
    type RecvStream = Receiving;
    type OpenStreams = Opener;

    fn poll_accept_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Receiving, ConnectionErrorIncoming>> {
        let gate = &self.gate;
        let accepting = self.accepting.get_or_insert_with(|| {
            let connection = gate.connection.clone();
            Box::pin(async move { connection.accept_uni().await })
        });
        let accepted = ready!(accepting.as_mut().poll(cx));
        self.accepting = None;
        let receiving = |stream| Receiving::new(stream, Rc::clone(&self.gate), Frames::of_peer());
        Poll::Ready(accepted.map(receiving).map_err(of_connection))
    }

    fn poll_accept_bidi(&mut self, _: &mut Context<'_>) -> Poll<Result<Both, ConnectionErrorIncoming>> {
        // The transport allows none.
        Poll::Pending
    }

    fn opener(&self) -> Opener {
        self.opening.clone()
    }
}

impl quic::OpenStreams<Bytes> for Backend {
    type BidiStream = Both;
    type SendStream = Sending;

    fn poll_open_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<Both, StreamErrorIncoming>> {
        self.opening.poll_open_bidi(cx)
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<Sending, StreamErrorIncoming>> {
        self.opening.poll_open_send(cx)
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.opening.close(code, reason);
    }
}

impl quic::OpenStreams<Bytes> for Opener {
    type BidiStream = Both;
    type SendStream = Sending;

    fn poll_open_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<Both, StreamErrorIncoming>> {
        if let Some(offered) = self.gate.offered.borrow_mut().take() {
            return Poll::Ready(Ok(offered));
        }
        let gate = &self.gate;
        let opening = self.request.get_or_insert_with(|| {
            let connection = gate.connection.clone();
            Box::pin(async move { connection.open_bi().await })
        });
        let opened = ready!(opening.as_mut().poll(cx));
        self.request = None;
        let both = |(up, down)| Both::new(up, down, Rc::clone(&self.gate));
        Poll::Ready(opened.map(both).map_err(of_stream))
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<Sending, StreamErrorIncoming>> {
        let gate = &self.gate;
        let opening = self.own.get_or_insert_with(|| {
            let connection = gate.connection.clone();
            Box::pin(async move { connection.open_uni().await })
        });
        let opened = ready!(opening.as_mut().poll(cx));
        self.own = None;
        Poll::Ready(opened.map(Sending::new).map_err(of_stream))
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.gate.connection.close(varint(code.value()), reason);
    }
}

impl Clone for Opener {
    fn clone(&self) -> Self {
        Self { gate: Rc::clone(&self.gate), request: None, own: None }
    }
}

impl Both {
    fn new(up: quinn::SendStream, down: quinn::RecvStream, gate: Rc<Gate>) -> Self {
        Self { up: Sending::new(up), down: Receiving::new(down, gate, Frames::of_request()) }
    }

    /// Its number, as a GOAWAY has it.
    pub(super) fn number(&self) -> u64 {
        VarInt::from(self.up.stream.id()).into_inner()
    }

    /// Tells the whole of the response's body once all has come.
    pub(super) fn whole(&self) -> Rc<Cell<Option<Body>>> {
        Rc::clone(&self.down.whole)
    }
}

impl quic::BidiStream<Bytes> for Both {
    type SendStream = Sending;
    type RecvStream = Receiving;

    fn split(self) -> (Sending, Receiving) {
        (self.up, self.down)
    }
}

impl quic::SendStream<Bytes> for Both {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.up.poll_ready(cx)
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.up.send_data(data)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.up.poll_finish(cx)
    }

    fn reset(&mut self, code: u64) {
        self.up.reset(code);
    }

    fn send_id(&self) -> StreamId {
        self.up.send_id()
    }
}

impl quic::RecvStream for Both {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        self.down.poll_data(cx)
    }

    fn stop_sending(&mut self, code: u64) {
        self.down.stop_sending(code);
    }

    fn recv_id(&self) -> StreamId {
        self.down.recv_id()
    }
}

impl Sending {
    fn new(stream: quinn::SendStream) -> Self {
        Self { stream, writing: None, over: false }
    }
}

impl quic::SendStream<Bytes> for Sending {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        while let Some(data) = self.writing.as_mut().filter(|data| Buf::has_remaining(*data)) {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, data.chunk())).map_err(of_write)?;
            data.advance(written);
        }
        self.writing = None;
        Poll::Ready(Ok(()))
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.writing = Some(data.into());
        Ok(())
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.over = true;
        Poll::Ready(self.stream.finish().map_err(|error| StreamErrorIncoming::Unknown(Box::new(error))))
    }

    fn reset(&mut self, code: u64) {
        self.over = true;
        // Over already: fine.
        let _ = self.stream.reset(varint(code));
    }

    fn send_id(&self) -> StreamId {
        stream_id(self.stream.id())
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if !self.over {
            quic::SendStream::reset(self, Code::H3_REQUEST_CANCELLED.value());
        }
    }
}

impl Receiving {
    fn new(stream: quinn::RecvStream, gate: Rc<Gate>, frames: Frames) -> Self {
        Self { stream, gate, frames, whole: Rc::default(), deaf: false }
    }

    fn follow(&mut self, chunk: Option<&[u8]>) -> Result<(), Violation> {
        let Some(bytes) = chunk else {
            self.whole.set(Some(self.frames.body()));
            return self.frames.end();
        };
        self.frames.follow(bytes)?;
        if let Some(first) = self.frames.farewell() {
            self.gate.farewell.set(Some(first));
        }
        Ok(())
    }
}

impl quic::RecvStream for Receiving {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        if self.deaf {
            return Poll::Pending;
        }
        // The connection keeps the waker: nothing is lost with the future.
        let chunk = ready!(pin!(self.stream.read_chunk(usize::MAX, true)).poll(cx));
        let chunk = chunk.map_err(of_read)?.map(|chunk| chunk.bytes);
        match self.follow(chunk.as_deref()) {
            Ok(()) => Poll::Ready(Ok(chunk)),
            Err(Violation::Endless) => {
                self.deaf = true;
                Poll::Pending
            }
            Err(violation) => Poll::Ready(Err(StreamErrorIncoming::Unknown(Box::new(violation)))),
        }
    }

    fn stop_sending(&mut self, code: u64) {
        // Over already: fine.
        let _ = self.stream.stop(varint(code));
    }

    fn recv_id(&self) -> StreamId {
        stream_id(self.stream.id())
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        if self.whole.get().is_none() {
            quic::RecvStream::stop_sending(self, Code::H3_REQUEST_CANCELLED.value());
        }
    }
}

fn varint(code: u64) -> VarInt {
    VarInt::from_u64(code).unwrap_or(VarInt::MAX)
}

fn stream_id(id: quinn::StreamId) -> StreamId {
    VarInt::from(id).into_inner().try_into().expect("both have 62 bits")
}

fn of_connection(error: ConnectionError) -> ConnectionErrorIncoming {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            ConnectionErrorIncoming::ApplicationClose { error_code: close.error_code.into_inner() }
        }
        ConnectionError::TimedOut => ConnectionErrorIncoming::Timeout,
        error => ConnectionErrorIncoming::Undefined(Arc::new(error)),
    }
}

fn of_stream(error: ConnectionError) -> StreamErrorIncoming {
    StreamErrorIncoming::ConnectionErrorIncoming { connection_error: of_connection(error) }
}

fn of_read(error: ReadError) -> StreamErrorIncoming {
    match error {
        ReadError::Reset(code) => StreamErrorIncoming::StreamTerminated { error_code: code.into_inner() },
        ReadError::ConnectionLost(error) => of_stream(error),
        error => StreamErrorIncoming::Unknown(Box::new(error)),
    }
}

fn of_write(error: WriteError) -> StreamErrorIncoming {
    match error {
        WriteError::Stopped(code) => StreamErrorIncoming::StreamTerminated { error_code: code.into_inner() },
        WriteError::ConnectionLost(error) => of_stream(error),
        error => StreamErrorIncoming::Unknown(Box::new(error)),
    }
}
