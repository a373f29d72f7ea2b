//! Where connections of a target go, and how long they are kept: plain values, as the configuration has them.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::outcome::labels;

/// The way to a server, below TLS. Two targets or two configurations with equal routes may share what they know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Who is dialled.
    pub peer: Peer,
    /// Which of its addresses count.
    pub family: Family,
    /// How often its name is looked up.
    pub refresh: Refresh,
    /// Whom to ask for its addresses; none for those that the system asks.
    pub servers: Vec<SocketAddr>,
    /// How long opening a connection may take, all addresses together.
    pub connect_timeout: Duration,
}

/// Who is dialled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// A TCP port, or for HTTP/3 a UDP port.
    Tcp {
        /// A name, or an address literal without brackets.
        host: String,
        /// Its port.
        port: u16,
    },
    /// A Unix domain socket.
    Unix(PathBuf),
}

labels! {
    /// Which addresses of a name count.
    Family {
        /// All.
        Any => "any",
        /// IPv4 alone.
        V4 => "ipv4",
        /// IPv6 alone.
        V6 => "ipv6",
    }
}

impl Family {
    /// Whether this address does.
    pub fn counts(self, address: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::V4 => address.is_ipv4(),
            Self::V6 => address.is_ipv6(),
        }
    }
}

/// How often a name is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refresh {
    /// When its records expire.
    Ttl,
    /// When this long has passed, whatever the records say.
    Every(Duration),
    /// For the first connection; the answer holds until the target changes.
    Once,
}

/// How many connections are kept, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolPolicy {
    /// Connections open at once; `None` leaves it to the requests in flight.
    pub max_connections: Option<usize>,
    /// Whether a connection may serve more than one request.
    pub reuse: bool,
    /// A connection older than this, give or take a tenth, takes no more requests.
    pub max_age: Duration,
    /// A connection takes no more requests than this; `None` for any number.
    pub max_requests: Option<u64>,
    /// A connection that has idled for this long, or a tenth longer, is closed.
    pub idle_timeout: Duration,
    /// Connections opened before the first arrival.
    pub preconnect: usize,
}

labels! {
    /// Which HTTP is spoken.
    HttpVersion {
        /// What the server chooses over TLS, HTTP/1.1 without.
        Auto => "auto",
        /// HTTP/1.1.
        Http1 => "1.1",
        /// HTTP/2; without TLS by prior knowledge.
        Http2 => "2",
        /// HTTP/3, over QUIC.
        Http3 => "3",
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
