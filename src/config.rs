//! What the operator asked for, validated: after this module nothing is checked twice.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ipnet::IpNet;

use crate::pace::{Process, Rate};

/// A whole, valid configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
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
    /// The streams of requests, by name.
    pub targets: BTreeMap<TargetName, Target>,
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
    /// Worker threads; `None` means chosen from the planned rate.
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
    /// What to send, and what counts as a good answer.
    pub http: HttpRequest,
}

/// An HTTP request, ready to be sent again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpRequest {
    /// Host name or address literal (without brackets) to dial.
    pub host: String,
    /// Port to dial.
    pub port: u16,
    /// Path and query as they stand on the request line.
    pub path: http::uri::PathAndQuery,
    /// Method.
    pub method: http::Method,
    /// Headers as sent, `host` and `user-agent` included.
    pub headers: http::HeaderMap,
    /// Body; empty for none.
    pub body: Bytes,
    /// Status codes that count as success.
    pub expect_status: StatusSet,
    /// Largest response body, in bytes.
    pub max_body: u64,
}

/// stub
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusSet(Vec<(u16, u16)>);
impl StatusSet {
    /// stub
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|&(low, high)| (low..=high).contains(&status))
    }
}
impl AsRef<str> for TargetName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}
