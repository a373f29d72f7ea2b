//! One HTTP/1.1 connection: hyper's two halves, and an end that is counted.

use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;

use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::HeaderMap;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::task::JoinHandle;

use super::fault;
use super::request::Payload;
use super::seats::Seat;
use crate::net::{Fate, Fault, PoolPolicy, Pooled, Stream, Tenure};
use crate::stats::CloseReason;

/// Bytes read while a response's head is awaited. hyper bounds a head by itself, but not how many interim responses
/// may come before it: an endless stream of them would take the whole worker. What is past this waits in the kernel for
/// the deadline.
const MAX_BYTES_BEFORE_HEAD: u64 = 1 << 20;

/// An open connection. Dropping it closes the socket, even while hyper still has something to write (hyper#4176).
#[derive(Debug)]
pub(super) struct Connection {
    sender: SendRequest<Payload>,
    /// Reads and writes the socket, and owns it.
    driver: JoinHandle<()>,
    fate: Rc<Fate>,
    tenure: Tenure,
    _seat: Seat,
    received_before: u64,
    /// What a drop is counted as: a request that was cut off, unless [`close`](Pooled::close) says otherwise.
    end: CloseReason,
    /// The last response's header map, emptied, to be used again.
    spare_headers: Option<HeaderMap>,
}

impl Connection {
    /// Speaks HTTP/1.1 on a new connection. Called inside the worker's `LocalSet`. Boxed: a pool has room for
    /// several, and a strike moves it a few times.
    pub(super) async fn open(stream: Stream, seat: Seat, now_ns: u64) -> Result<Box<Self>, Fault> {
        let fate = stream.fate();
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (sender, mut connection) = handshake.map_err(|error| fault::of_response(error, false))?;
        let driver = tokio::task::spawn_local({
            let fate = Rc::clone(&fate);
            // Not an async block, which would have room for the connection twice.
            std::future::poll_fn(move |cx| {
                // Its error also reaches whoever waits for a response; on an idle connection it means bytes that
                // nobody asked for, or a reset.
                Pin::new(&mut connection).poll(cx).map(|end| {
                    if end.is_err_and(|error| fault::is_violation(&error)) {
                        fate.close_reason.set(CloseReason::Failed);
                    }
                })
            })
        });
        let tenure = Tenure::new(now_ns);
        let end = CloseReason::Canceled;
        let received_before = 0;
        Ok(Box::new(Self { sender, driver, fate, tenure, _seat: seat, received_before, end, spare_headers: None }))
    }

    /// Sends a request and waits for the head of its response.
    pub(super) async fn send(
        &mut self,
        request: Request<Payload>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Payload>>> {
        self.tenure.serve();
        self.received_before = self.fate.received_bytes.get();
        self.fate.receive_limit.set(self.received_before + MAX_BYTES_BEFORE_HEAD);
        let response = self.sender.try_send_request(request).await;
        self.fate.receive_limit.set(u64::MAX);
        response
    }

    /// Keeps a header map for the next request. Its values go now: they are slices of hyper's read buffer, and would hold
    /// all of it for as long as the connection idles.
    pub(super) fn keep_headers(&mut self, mut headers: HeaderMap) {
        headers.clear();
        self.spare_headers = Some(headers);
    }

    /// The header map that was kept.
    pub(super) fn take_headers(&mut self) -> Option<HeaderMap> {
        self.spare_headers.take()
    }

    /// Whether nothing has been received since the last request was sent.
    pub(super) fn is_silent(&self) -> bool {
        self.fate.received_bytes.get() == self.received_before
    }

    /// When it is new, or after a complete response: waits until it shows whether the connection can take another request. It can't while a
    /// part of the last one is still unsent, or when the peer asked for its end.
    pub(super) async fn settle(&self) {
        if !self.sender.is_ready() && !self.sender.is_closed() {
            // The driver notices the end of the response in its own turn.
            tokio::task::yield_now().await;
        }
    }

    /// The address at its other end, if it has one.
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.fate.address
    }
}

impl Pooled for Box<Connection> {
    fn unfit(&self, now_ns: u64, policy: &PoolPolicy) -> Option<CloseReason> {
        if self.sender.is_ready() { self.tenure.over(now_ns, policy) } else { Some(CloseReason::Peer) }
    }

    fn close(mut self, reason: CloseReason) {
        self.end = reason;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Does nothing to a connection that the driver has closed, and counted, already.
        self.fate.close_reason.set(self.end);
        self.driver.abort();
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use hyper::header::{HeaderValue, SERVER};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::LocalSet;

    use super::*;
    use crate::net::{Link, Socket};
    use crate::stats::{LedgerWriter, Shape};

    #[tokio::test]
    async fn an_idle_connection_keeps_no_byte_of_its_last_response() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let stream = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("a connection");
        let (_writer, ledger) = LedgerWriter::new(Shape::new(3, &[]));
        let opened = {
            let stream = Stream::Plain(Socket::new(Link::Tcp(stream), None, ledger));
            let seats = Rc::default();
            LocalSet::new().run_until(Connection::open(stream, Seat::take(&seats), 0)).await
        };
        let mut connection = opened.expect("a connection");
        let read_buffer = Bytes::from(b"nginx".to_vec());
        let mut headers = HeaderMap::new();
        headers.insert(SERVER, HeaderValue::from_maybe_shared(read_buffer.clone()).expect("a value"));
        let room = headers.capacity();
        connection.keep_headers(headers);
        assert!(read_buffer.is_unique());
        assert_eq!(connection.take_headers().map(|headers| headers.capacity()), Some(room));
    }
}
