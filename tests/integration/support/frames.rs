//! A scripted HTTP/2 server (RFC 9113) without TLS that writes its frames byte by byte, for what honest servers don't do,
//! so that nothing it does wrong can come from the library under test.
//!
//! It greets with its settings, then asks a handler for each request and plays the [`Script`] that it gets. It can't read
//! what was asked for: a server that behaves in several ways is several servers.

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

/// The code `REFUSED_STREAM`.
pub(crate) const REFUSED: u32 = 7;

type Handler = dyn Fn(Request) -> Script + Send + Sync;

/// A running server; all of its connections are cut when it goes out of scope.
pub(crate) struct Frames {
    address: SocketAddr,
    shared: Arc<Shared>,
    listener: Arc<TcpListener>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    max_streams: u32,
}

struct State {
    handler: Arc<Handler>,
    requests: Vec<Request>,
    answered: usize,
    opened: u64,
    open: HashMap<u64, Weak<TcpStream>>,
    stopping: bool,
}

/// One request as it arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request {
    /// Number of its connection, from 1.
    pub(crate) connection: u64,
    /// Number of the request on its connection, from 0.
    pub(crate) index: u64,
    /// Number of its stream.
    pub(crate) stream: u32,
}

/// What is done after a request: steps in order, while which nothing is read from its connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Script(Vec<Step>);

#[derive(Debug, Clone)]
enum Step {
    Send(Vec<u8>),
    /// As `Send`, and a request is answered by it.
    Answer(Vec<u8>),
    Pause(Duration),
    /// FIN, then waiting for the peer's.
    Close,
    /// RST.
    Cut,
    /// Neither reads nor writes any more.
    Hang,
}

// === impl Frames ===

impl Frames {
    /// Starts a server that allows as many requests at once on a connection as anybody wants.
    pub(crate) fn start(handler: impl Fn(Request) -> Script + Send + Sync + 'static) -> Self {
        Self::allowing(1000, handler)
    }

    /// Starts a server that allows so many requests at once on a connection.
    pub(crate) fn allowing(max_streams: u32, handler: impl Fn(Request) -> Script + Send + Sync + 'static) -> Self {
        let listener = Arc::new(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a listener"));
        let address = listener.local_addr().expect("its address");
        let state = State {
            handler: Arc::new(handler),
            requests: Vec::new(),
            answered: 0,
            opened: 0,
            open: HashMap::new(),
            stopping: false,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new(), max_streams });
        let acceptor = std::thread::spawn({
            let (listener, shared) = (Arc::clone(&listener), Arc::clone(&shared));
            move || accept(&listener, &shared)
        });
        Self { address, shared, listener, acceptor: Some(acceptor) }
    }

    /// Its URL.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Does otherwise from the next request on.
    pub(crate) fn set_script(&self, handler: impl Fn(Request) -> Script + Send + Sync + 'static) {
        self.shared.lock().handler = Arc::new(handler);
    }

    /// Ends all connections in good order.
    pub(crate) fn hang_up(&self) {
        for stream in self.shared.lock().open.values().filter_map(Weak::upgrade) {
            let _ = stream.shutdown(Shutdown::Write);
        }
    }

    /// All requests so far, in the order of their arrival.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.shared.lock().requests.clone()
    }

    /// How many have had an answer.
    pub(crate) fn answered(&self) -> usize {
        self.shared.lock().answered
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.stopping = true;
        for stream in state.open.values().filter_map(Weak::upgrade) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        drop(state);
        self.shared.changed.notify_all();
        let _ = rustix::net::shutdown(&*self.listener, rustix::net::Shutdown::Both);
        let _ = self.acceptor.take().map(JoinHandle::join);
    }
}

// === impl Script ===

impl Script {
    /// Reads on and says nothing.
    pub(crate) fn nothing() -> Self {
        Self::default()
    }

    /// 200 without a body, for this stream.
    pub(crate) fn answer(self, stream: u32) -> Self {
        self.then(Step::Answer(frame(HEADERS, END_STREAM | END_HEADERS, stream, &[STATUS_200])))
    }

    /// The head of a 200 whose body follows, and more fields as they are coded (RFC 7541).
    pub(crate) fn head(self, stream: u32, fields: &[u8]) -> Self {
        self.send(&frame(HEADERS, END_HEADERS, stream, &[&[STATUS_200], fields].concat()))
    }

    /// As many bytes of a body.
    pub(crate) fn data(self, stream: u32, length: usize) -> Self {
        self.send(&frame(DATA, 0, stream, &vec![b'x'; length]))
    }

    /// The last bytes of a body.
    pub(crate) fn last_data(self, stream: u32, length: usize) -> Self {
        self.send(&frame(DATA, END_STREAM, stream, &vec![b'x'; length]))
    }

    /// 103, one of any number of heads before the head.
    pub(crate) fn early_hints(self, stream: u32) -> Self {
        self.send(&frame(HEADERS, END_HEADERS, stream, b"\x08\x03103"))
    }

    /// The end of this stream, with a code: `RST_STREAM`.
    pub(crate) fn reset(self, stream: u32, code: u32) -> Self {
        self.send(&frame(RST_STREAM, 0, stream, &code.to_be_bytes()))
    }

    /// GOAWAY: of what came after the stream `last`, nothing has been looked at.
    pub(crate) fn farewell(self, last: u32, code: u32) -> Self {
        self.send(&frame(GOAWAY, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat()))
    }

    /// Bytes as they are.
    pub(crate) fn send(self, bytes: &[u8]) -> Self {
        self.then(Step::Send(bytes.to_vec()))
    }

    /// Nothing, for a while.
    pub(crate) fn pause(self, duration: Duration) -> Self {
        self.then(Step::Pause(duration))
    }

    /// Ends the connection in good order.
    pub(crate) fn close(self) -> Self {
        self.then(Step::Close)
    }

    /// Resets the connection.
    pub(crate) fn cut(self) -> Self {
        self.then(Step::Cut)
    }

    /// Leaves the connection as it is for good: not even a ping is answered.
    pub(crate) fn hang(self) -> Self {
        self.then(Step::Hang)
    }

    fn then(mut self, step: Step) -> Self {
        self.0.push(step);
        self
    }
}

/// The stream of the request with this number on its connection: clients count in twos from 1.
pub(crate) fn stream_of(index: u64) -> u32 {
    2 * index as u32 + 1
}

// === impl Shared ===

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("a server whose threads have not panicked")
    }

    /// Waits for a while, or until the server stops.
    fn pause(&self, duration: Duration) {
        let state = self.lock();
        let _ = self.changed.wait_timeout_while(state, duration, |state| !state.stopping);
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept() {
        let stream = Arc::new(stream);
        let mut state = shared.lock();
        if state.stopping {
            return;
        }
        state.opened += 1;
        let number = state.opened;
        state.open.insert(number, Arc::downgrade(&stream));
        drop(state);
        let shared = Arc::clone(shared);
        std::thread::spawn(move || {
            let _ = stream.set_nodelay(true);
            // However it ends: the peer may be gone.
            let _ = serve(&stream, number, &shared);
            shared.lock().open.remove(&number);
        });
    }
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

const MAX_CONCURRENT_STREAMS: u16 = 3;
/// The field `:status: 200`, as it stands in the static table of RFC 7541.
const STATUS_200: u8 = 0x88;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = &(payload.len() as u32).to_be_bytes()[1..];
    [length, &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn serve(mut stream: &TcpStream, connection: u64, shared: &Shared) -> io::Result<()> {
    let settings = [&MAX_CONCURRENT_STREAMS.to_be_bytes()[..], &shared.max_streams.to_be_bytes()].concat();
    stream.write_all(&frame(SETTINGS, 0, 0, &settings))?;
    let mut preface = [0; PREFACE.len()];
    stream.read_exact(&mut preface)?;
    assert_eq!(preface, PREFACE, "the first words of a client");
    let mut index = 0;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head)?;
        let [l0, l1, l2, kind, flags, stream_number @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, l0, l1, l2]) as usize];
        stream.read_exact(&mut payload)?;
        match kind {
            SETTINGS if flags & ACK == 0 => stream.write_all(&frame(SETTINGS, ACK, 0, &[]))?,
            PING if flags & ACK == 0 => stream.write_all(&frame(PING, ACK, 0, &payload))?,
            HEADERS => {
                let request = Request { connection, index, stream: u32::from_be_bytes(stream_number) };
                index += 1;
                let mut state = shared.lock();
                state.requests.push(request);
                let handler = Arc::clone(&state.handler);
                drop(state);
                for step in handler(request).0 {
                    step.play(stream, shared)?;
                }
            }
            _ => {}
        }
    }
}

impl Step {
    /// An error ends the connection.
    fn play(self, mut stream: &TcpStream, shared: &Shared) -> io::Result<()> {
        match self {
            Self::Send(bytes) => stream.write_all(&bytes),
            Self::Answer(bytes) => {
                shared.lock().answered += 1;
                stream.write_all(&bytes)
            }
            Self::Pause(duration) => {
                shared.pause(duration);
                Ok(())
            }
            Self::Close => {
                stream.shutdown(Shutdown::Write)?;
                // Reads until the peer closes, so that closing here does not turn into a reset.
                io::copy(&mut stream, &mut io::sink())?;
                Err(io::ErrorKind::ConnectionAborted.into())
            }
            Self::Cut => {
                rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO))?;
                Err(io::ErrorKind::ConnectionAborted.into())
            }
            Self::Hang => {
                shared.pause(Duration::MAX);
                Err(io::ErrorKind::ConnectionAborted.into())
            }
        }
    }
}
