//! The HTTP face: metrics, status, health, the running configuration, reload.
//!
//! For Prometheus, for a kubelet's probes and for a person with a browser. It runs on a thread of its own, so that
//! neither load nor a reload can keep a scrape waiting and no scrape can delay an arrival.
//!
//! Promised: nothing that a client does, or leaves undone, keeps a normal scraper out or makes memory grow. Open
//! connections, the time a request may take to arrive, the time an answer may take to leave and the memory of all
//! answers together are [bounded](Bounds); when the connections are used up, the one that has been without a complete
//! request longest makes room. No request parameter selects where anything goes; only `/api/v1/status` has any, for what is shown. And hammerd can wait for its last scrape:
//! [`Admin::scraped`] tells when a scrape was gathered that has completely left.
//!
//! Left out: TLS and authentication (the default address is loopback; a proxy adds both), and anything that directs
//! traffic.
//!
//! [`Bound`] holds the port before anything else starts, [`Bound::serve`] opens it, [`Admin::shutdown`] closes it.

mod answer;
mod negotiation;
mod page;
mod pieces;
mod room;
mod routes;
mod status;
#[cfg(test)]
mod tests;
mod turns;
mod wire;

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::LocalSet;

use room::Room;

use crate::export::Exports;
use crate::status::Status;

/// How many connections may wait to be accepted; the kernel caps it by its own limit.
const ACCEPT_QUEUE: i32 = 1_024;

/// When the values of a scrape were gathered, on the monotonic clock.
pub type Scraped = std::time::Instant;

/// A yes or no that somebody else knows; asked at every request, so it must not block.
pub type Probe = Arc<dyn Fn() -> bool + Send + Sync>;

/// A reload that a client asked for and waits for.
#[derive(Debug)]
pub struct ReloadRequest {
    /// Takes what came of it: a text for the client, or why nothing was changed.
    pub reply: oneshot::Sender<Result<String, String>>,
}

/// What the endpoints show. The closures are asked at every request, on the admin thread: they must not block.
#[derive(Clone)]
pub struct Face {
    /// What `/metrics` shows.
    pub exports: Exports,
    /// Whether `/-/healthy` answers 200.
    pub healthy: Probe,
    /// Whether `/-/ready` answers 200.
    pub ready: Probe,
    /// The running configuration for `/config`, secrets already taken out.
    pub config: Arc<dyn Fn() -> String + Send + Sync>,
    /// What the status page shows. Its notes are made on the admin thread.
    pub status: Arc<Status>,
    /// Where `POST /-/reload` goes; `None` forbids it. Its capacity bounds how many reloads may wait.
    pub lifecycle: Option<mpsc::Sender<ReloadRequest>>,
}

impl fmt::Debug for Face {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Face").field("lifecycle", &self.lifecycle.is_some()).finish_non_exhaustive()
    }
}

/// What a client may take of us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Open connections.
    pub connections: usize,
    /// How long a request, head and body, may take to arrive.
    pub request: Duration,
    /// How long a connection may be silent between requests. More than the usual scrape intervals.
    pub idle: Duration,
    /// How long an answer may take to leave.
    pub answer: Duration,
    /// Bytes of all answers that are leaving; one more answer than this may be in memory.
    pub answers_bytes: usize,
    /// How long a client is kept waiting for the result of a reload.
    pub reload: Duration,
    /// How long answers in progress may hold up a shutdown.
    pub close: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: 128,
            request: Duration::from_secs(5),
            idle: Duration::from_secs(150),
            answer: Duration::from_secs(30),
            answers_bytes: 64 << 20,
            reload: Duration::from_secs(30),
            close: Duration::from_secs(1),
        }
    }
}

/// A port that is ours and not yet served.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    local_addr: SocketAddr,
    bounds: Bounds,
}

impl Bound {
    /// Takes the port. Clients may connect from here on; they are answered once [`serve`](Self::serve) is called.
    pub fn bind(addr: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(addr)?;
        listener.set_nonblocking(true)?;
        // Linux takes a second call as a new length; the standard library's queue is short for a flood, and a
        // connection that finds it full is only tried again after a second.
        rustix::net::listen(&listener, ACCEPT_QUEUE)?;
        let local_addr = listener.local_addr()?;
        Ok(Self { listener, local_addr, bounds: Bounds::default() })
    }

    /// The same port under other bounds.
    #[must_use]
    pub fn with_bounds(mut self, bounds: Bounds) -> Self {
        self.bounds = bounds;
        self
    }

    /// Where it listens: the real port when 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Serves `face` on a thread of its own. Fails if neither a thread nor an event queue can be had.
    pub fn serve(self, face: Face) -> io::Result<Admin> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _entered = runtime.enter();
            tokio::net::TcpListener::from_std(self.listener)?
        };
        let (stop, stopped) = watch::channel(());
        let (latest, scraped) = watch::channel(None);
        let held_bytes = Arc::default();
        let held = Arc::clone(&held_bytes);
        let bounds = self.bounds;
        let thread = thread::Builder::new().name("admin".to_owned()).spawn(move || {
            let room = Rc::new(Room::new(face, bounds, held, latest, stopped));
            let local = LocalSet::new();
            local.spawn_local(status::note(Rc::clone(&room)));
            local.block_on(&runtime, room.serve(listener));
        })?;
        Ok(Admin { local_addr: self.local_addr, scraped, held_bytes, stop: Some(stop), thread: Some(thread) })
    }
}

/// The running face. Dropping it is [`shutdown`](Self::shutdown).
#[derive(Debug)]
pub struct Admin {
    local_addr: SocketAddr,
    scraped: watch::Receiver<Option<Scraped>>,
    held_bytes: Arc<AtomicUsize>,
    stop: Option<watch::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Admin {
    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// When the latest scrape began to be gathered of those whose whole answer was handed to the kernel. `None`
    /// before the first. HEAD requests, failed scrapes and answers cut short do not count.
    pub fn scraped(&self) -> watch::Receiver<Option<Scraped>> {
        self.scraped.clone()
    }

    /// How many bytes of answers are in memory now.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes.load(Ordering::Relaxed)
    }

    /// Frees the port, lets answers in progress leave for at most [`Bounds::close`], closes every connection, and
    /// waits for the thread. Blocks for that long.
    pub fn shutdown(self) {
        drop(self);
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the admin thread had panicked");
        }
    }
}
