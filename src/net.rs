//! Connections: names to addresses, addresses to sockets, and idle sockets kept for the next request.
//!
//! What runs on top of a connection is a hammer's business.

mod dial;
mod pool;
mod resolve;
mod socket;

pub use dial::{Dialer, Guard};
pub use pool::{Pool, Pooled};
pub use resolve::{Resolver, ResolverService};
pub use socket::{Fate, Socket};

use std::error::Error;
use std::fmt;

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

impl fmt::Display for Fault {
    /// The reason, and the whole chain of causes behind it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason.label())?;
        let mut cause = self.cause.as_deref().map(|cause| cause as &dyn Error);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
