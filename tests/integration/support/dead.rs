//! Addresses at which no conversation comes about.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use super::free_port;

/// An address of this machine that refuses connections.
pub(crate) fn closed_port() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()))
}

/// An address that neither accepts nor refuses: a listener whose queue is full, so that the kernel ignores every
/// further SYN.
pub(crate) struct Blackhole {
    address: SocketAddr,
    _listener: TcpListener,
    _queued: Vec<TcpStream>,
}

impl Blackhole {
    /// One at a port of its own.
    pub(crate) fn start() -> Self {
        Self::start_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
    }

    /// Fills the queue until one connection attempt goes unanswered.
    pub(crate) fn start_at(address: SocketAddr) -> Self {
        const UNANSWERED: Duration = Duration::from_millis(300);
        const QUEUE_LIMIT: usize = 64;
        let listener = TcpListener::bind(address).expect("a listener");
        let address = listener.local_addr().expect("its address");
        rustix::net::listen(&listener, 0).expect("a shorter queue");
        let mut queued = Vec::new();
        while queued.len() < QUEUE_LIMIT {
            match TcpStream::connect_timeout(&address, UNANSWERED) {
                Ok(stream) => queued.push(stream),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    return Self { address, _listener: listener, _queued: queued };
                }
                Err(error) => panic!("a connection to a full queue failed otherwise: {error}"),
            }
        }
        panic!("a queue of length 0 took {QUEUE_LIMIT} connections");
    }

    /// Where it is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }
}
