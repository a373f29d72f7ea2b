//! A scripted HTTP/1.x server for what honest servers don't do, in plain threads, so that nothing it does wrong can
//! come from the library under test.
//!
//! A handler is asked for each request's head and answers with a [`Reply`]: a list of steps on the raw connection.
//! A request with `Connection: close` is the last of its connection, whatever the script.
//! Every request is recorded with the instant at which its head was complete.

mod reply;
mod request;

use std::collections::HashMap;
use std::io::{BufReader, Read as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub(crate) use reply::Reply;
pub(crate) use request::Request;

use super::{PATIENCE, wait_for};
use reply::{Step, Then};

type Handler = dyn Fn(&Request) -> Reply + Send + Sync;

/// A running origin; all of its connections are cut when it goes out of scope.
pub(crate) struct Origin {
    address: SocketAddr,
    shared: Arc<Shared>,
    listener: Arc<TcpListener>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    handler: Arc<Handler>,
    requests: Vec<Request>,
    opened: u64,
    open: HashMap<u64, Weak<TcpStream>>,
    frozen_until: Option<Instant>,
    stopping: bool,
}

// === impl Origin ===

impl Origin {
    /// Starts an origin on a port of its own that answers every request as `handler` says.
    pub(crate) fn start(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), handler)
    }

    /// As [`Origin::start`], at a given address.
    pub(crate) fn start_at(address: SocketAddr, handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = Arc::new(TcpListener::bind(address).expect("a listener"));
        let address = listener.local_addr().expect("its address");
        let state = State {
            handler: Arc::new(handler),
            requests: Vec::new(),
            opened: 0,
            open: HashMap::new(),
            frozen_until: None,
            stopping: false,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let acceptor = std::thread::spawn({
            let (listener, shared) = (Arc::clone(&listener), Arc::clone(&shared));
            move || accept(&listener, &shared)
        });
        Self { address, shared, listener, acceptor: Some(acceptor) }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// URL of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Answers otherwise from the next request on.
    pub(crate) fn set_reply(&self, handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) {
        self.shared.lock().handler = Arc::new(handler);
    }

    /// Answers nothing for this long; requests are read and recorded meanwhile.
    pub(crate) fn freeze(&self, duration: Duration) {
        self.shared.lock().frozen_until = Some(Instant::now() + duration);
    }

    /// All requests so far, in the order of their arrival.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.shared.lock().requests.clone()
    }

    /// Waits until as many requests have arrived, and returns them.
    pub(crate) fn wait_requests(&self, count: usize) -> Vec<Request> {
        wait_for(&format!("{count} requests at the origin"), PATIENCE, || {
            let requests = self.requests();
            if requests.len() >= count { Ok(requests) } else { Err(format!("{} requests", requests.len())) }
        })
    }

    /// Connections accepted so far.
    pub(crate) fn connections_opened(&self) -> u64 {
        self.shared.lock().opened
    }

    /// Connections that neither side has closed.
    pub(crate) fn connections_open(&self) -> usize {
        self.shared.lock().open.len()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.stopping = true;
        for stream in state.open.values().filter_map(Weak::upgrade) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        drop(state);
        self.shared.changed.notify_all();
        // Wakes the acceptor on Linux; a connection to ourselves might come from another network namespace.
        let _ = rustix::net::shutdown(&*self.listener, rustix::net::Shutdown::Both);
        let _ = self.acceptor.take().map(JoinHandle::join);
    }
}

// === impl Shared ===

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("an origin whose threads have not panicked")
    }

    /// Waits for a while, or until the origin stops.
    fn pause(&self, duration: Duration) {
        let state = self.lock();
        let _ = self.changed.wait_timeout_while(state, duration, |state| !state.stopping);
    }

    fn wait_for_thaw(&self) {
        let until = self.lock().frozen_until;
        if let Some(left) = until.and_then(|until| until.checked_duration_since(Instant::now())) {
            self.pause(left);
        }
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
            serve(&stream, number, &shared);
            // Closed before it counts as closed.
            drop(stream);
            shared.lock().open.remove(&number);
        });
    }
}

fn serve(stream: &TcpStream, connection: u64, shared: &Shared) {
    let mut reader = BufReader::new(stream);
    for index in 0.. {
        let Some(mut request) = Request::read_head(&mut reader, connection, index) else { return };
        let handler = Arc::clone(&shared.lock().handler);
        let reply = handler(&request);
        if reply.reads_body && request.read_body(&mut reader).is_none() {
            return;
        }
        let last = request.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        shared.lock().requests.push(request);
        shared.wait_for_thaw();
        for step in reply.steps.iter().chain(last.then_some(&Step::Close)) {
            match step.play(stream, |duration| shared.pause(duration)) {
                Ok(Then::Continue) => {}
                Ok(Then::AwaitPeer) => return discard(reader),
                Ok(Then::Close) | Err(_) => return,
            }
        }
    }
}

/// Reads until the peer closes, so that closing here does not turn into a reset.
fn discard(mut reader: BufReader<&TcpStream>) {
    let mut buffer = [0; 4096];
    while matches!(reader.read(&mut buffer), Ok(length) if length > 0) {}
}
