//! What the operator asked for, validated: after this module nothing is checked twice.
//!
//! [`load`] reads [`Sources`] and gives a [`Config`] or every mistake at once. The way of a value: `source` collects
//! texts, `syntax` turns each into a tree of `node`s that know their line, `source` lays them over each other with the
//! `config` crate, `section` is the one list of keys and reads each by its `kind`, `build` puts targets together,
//! `show` prints them without their secrets, `schema` describes the keys to editors.
//!
//! Promises: a value is accepted or named in a message with its file, line and key; a secret is in no message and no
//! output; loading again reads every file again. Left out: where sources come from (`cli`), and what a change of
//! configuration does to running targets (`fleet`).

mod build;
mod error;
mod files;
mod futile;
mod kind;
mod node;
mod rates;
mod schema;
mod section;
mod show;
mod source;
mod status;
mod syntax;
mod url;
mod variables;

#[cfg(test)]
mod tests;

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ipnet::IpNet;

use crate::net::{HttpVersion, PoolPolicy, Route, Tls};
use crate::outcome::labels;
use crate::pace::{Process, Rate, Stripe};

pub use error::Rejected;
pub(crate) use files::MAX_TEXT;
pub use files::{Seen, Stamp};
pub use schema::schema;
pub use show::{frozen_differences, plan, redacted};
pub use source::{Fetched, Reading, Sources, listen, load, read};
pub(crate) use source::{is_remote, shown as shown_source, without_secrets};
pub use status::StatusSet;
pub use syntax::Syntax;
pub use url::authority;
pub(crate) use url::{Endpoint, UrlError};

/// A whole, valid configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// How it is followed itself.
    pub following: Following,
    /// The HTTP face.
    pub server: Server,
    /// How the process ends.
    pub shutdown: Shutdown,
    /// The load path.
    pub engine: Engine,
    /// Ceilings.
    pub limits: Limits,
    /// The shape of the histograms.
    pub metrics: Metrics,
    /// Who shares the streams; `None` when nobody does.
    pub shard: Option<Shard>,
    /// The streams of requests, by name.
    pub targets: BTreeMap<TargetName, Target>,
}

/// How the configuration itself is followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Following {
    /// Whether its files, and those that it names, are watched.
    pub watch: bool,
    /// How often sources that are no files are asked for a change.
    pub refresh: Duration,
}

/// The HTTP face.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Where it listens; `None` when switched off.
    pub listen: Option<SocketAddr>,
    /// Whether `POST /-/reload` is allowed.
    pub lifecycle: bool,
}

/// How the process ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shutdown {
    /// How long requests in flight may take to finish.
    pub grace: Duration,
    /// How long `/metrics` waits for one more scrape afterwards.
    pub linger: Duration,
}

/// The load path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Engine {
    /// Worker threads; `None` means chosen from the planned rate, the processors and the CPU quota.
    pub workers: Option<NonZeroUsize>,
    /// How long an arrival may wait to share a wake-up.
    pub coalesce: Duration,
    /// An arrival later than this is dropped instead of sent.
    pub late_after: Duration,
}

/// Ceilings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Largest sum of all targets' rates.
    pub max_total_rate: Rate,
    /// Largest number of requests in flight at once, over all targets.
    pub max_total_in_flight: usize,
    /// Largest number of targets.
    pub max_targets: usize,
    /// Largest request or response body, in bytes.
    pub max_body: u64,
    /// Addresses that are never dialled, checked after resolution.
    pub deny_networks: Vec<IpNet>,
    /// When not empty, the only addresses that may be dialled.
    pub allow_networks: Vec<IpNet>,
}

/// The shape of the histograms.
#[derive(Debug, Clone, PartialEq)]
pub struct Metrics {
    /// Upper bounds of the classic buckets in seconds, rising, without `+Inf`.
    pub buckets: Arc<[f64]>,
    /// Resolution of the native buckets: 2^schema of them in each power of two.
    pub native_schema: u8,
}

/// Which part of every stream this process sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shard {
    /// Always this one.
    Fixed {
        /// Which.
        stripe: Stripe,
        /// One that a reload brings holds from a multiple of this on.
        refresh: Duration,
    },
    /// By its place among the replicas.
    Members(Members),
}

/// The replicas that share the streams, by a name's records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members {
    /// The name.
    pub name: String,
    /// Our own address in the list; `None`: one of the machine's.
    pub address: Option<IpAddr>,
    /// How often the list is read.
    pub refresh: Duration,
}

labels! {
    /// Whether requests carry a `traceparent` header (W3C Trace Context), and what it asks of the target.
    Traceparent {
        /// They carry none.
        Off => "off",
        /// They do, and leave it to the target whether it records them.
        Unsampled => "unsampled",
        /// They do, and ask to be recorded.
        Sampled => "sampled",
    }
}

/// A target's name: `[a-z0-9][a-z0-9_-]{0,62}`, without `__`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetName(Arc<str>);

/// One named stream of requests.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// How often.
    pub rate: Rate,
    /// How arrivals lie in time.
    pub process: Process,
    /// How long a request may take, from being sent to its last byte.
    pub timeout: Duration,
    /// Largest number of this target's requests in flight at once.
    pub max_in_flight: usize,
    /// Labels of `hammerd_target_info`.
    pub labels: BTreeMap<String, String>,
    /// The shape of its histograms: their classic buckets reach up to its timeout.
    pub metrics: Metrics,
    /// What to send, and what counts as a good answer.
    pub http: Arc<HttpRequest>,
}

/// An HTTP request, ready to be sent again and again.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpRequest {
    /// The URL's host name or address literal, without brackets.
    pub host: String,
    /// The URL's port.
    pub port: u16,
    /// Who is dialled for it, and how.
    pub route: Route,
    /// How connections are secured; `None` for plain HTTP.
    pub tls: Option<Arc<Tls>>,
    /// Which HTTP is spoken.
    pub version: HttpVersion,
    /// How connections are kept.
    pub pool: PoolPolicy,
    /// Path and query as they stand on the request line.
    pub path: http::uri::PathAndQuery,
    /// Method.
    pub method: http::Method,
    /// Headers as sent, `host` and `user-agent` included; one that holds a secret is marked sensitive.
    pub headers: http::HeaderMap,
    /// The header that carries an id of its own in every request; `None` for none.
    pub request_id_header: Option<http::HeaderName>,
    /// Whether a trace context goes with every request.
    pub traceparent: Traceparent,
    /// Body; empty for none.
    pub body: Bytes,
    /// Status codes that count as success.
    pub expect_status: StatusSet,
    /// Largest response body, in bytes.
    pub max_body: u64,
    /// Whether the URL holds a secret and is never shown.
    pub secret_url: bool,
    /// Whether what is dialled, the server's name in TLS or a certificate's path is a secret and never shown.
    pub secret_connection: bool,
    /// Whether the body holds a secret and is never shown.
    pub secret_body: bool,
}

// === impl Shard ===

impl Shard {
    /// The stripe, if it can't change by itself.
    pub fn fixed_stripe(&self) -> Option<Stripe> {
        match self {
            Self::Fixed { stripe, .. } => Some(*stripe),
            Self::Members(_) => None,
        }
    }
}

// === impl TargetName ===

impl TargetName {
    /// What a name may be, for messages.
    const ACCEPTED: &'static str = "1 to 63 of a-z, 0-9, - and _, a letter or digit first, without two _ in a row";
    /// The same as a pattern.
    const PATTERN: &'static str = "^(?!.*__)[a-z0-9][a-z0-9_-]{0,62}$";
    const MAX_BYTES: usize = 63;

    /// A name, if the text may be one.
    pub fn parse(text: &str) -> Option<Self> {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-';
        let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        let valid = first && text.len() <= Self::MAX_BYTES && text.bytes().all(inner) && !text.contains("__");
        valid.then(|| Self(text.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TargetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl AsRef<str> for TargetName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for TargetName {
    fn borrow(&self) -> &str {
        &self.0
    }
}
