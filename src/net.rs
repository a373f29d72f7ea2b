//! Connections: names to addresses, addresses to sockets, and idle sockets kept for the next request.
//!
//! What runs on top of a connection is a hammer's business.

mod dial;
mod pool;
#[cfg(feature = "http3")]
mod quic;
mod resolve;
mod route;
mod socket;
mod stream;
mod tls;

pub use dial::{Dialer, Guard};
pub use pool::{Pool, Pooled, Tenure};
#[cfg(feature = "http3")]
pub use quic::{Answered, Line, Open, Quic, reason_of as quic_reason, tell_peers};
pub use resolve::{Addresses, Manner, Question, Resolver, ResolverService, says_none};
pub use route::{Family, HttpVersion, Peer, PoolPolicy, Refresh, Route};
pub use socket::{Fate, Link, Socket};
pub use stream::Stream;
pub use tls::{IdentityFiles, SystemRoots, Tls, TlsError, TlsSpec, TlsVersion, reason_of as tls_reason};

use std::error::Error;

use crate::outcome::Reason;

/// A failure with its reason for the counters and its cause for the log.
#[derive(Debug)]
pub struct Fault {
    /// The label it is counted under.
    pub reason: Reason,
    /// What lies behind it, if anything is known.
    pub cause: Option<Box<dyn Error + Send + Sync>>,
}

impl Fault {
    /// A failure and the error behind it.
    pub fn new(reason: Reason, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { reason, cause: Some(cause.into()) }
    }
}

impl From<Reason> for Fault {
    fn from(reason: Reason) -> Self {
        Self { reason, cause: None }
    }
}

impl Fault {
    /// The whole chain of causes behind it, for the log; empty when the reason says all.
    pub fn cause_text(&self) -> String {
        let first = self.cause.as_deref().map(|cause| cause as &dyn Error);
        let chain = std::iter::successors(first, |&error| error.source()).map(ToString::to_string);
        chain.collect::<Vec<_>>().join(": ")
    }
}
