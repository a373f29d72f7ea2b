//! What a configuration asks of the load path, in its words.

use std::sync::Arc;

use crate::config::{Config, Engine, Limits, Shard, Target};
use crate::hammer::http::HttpForge;
use crate::load::{Arm, Tempo, Tuning};
use crate::net::Guard;
use crate::pace::Stripe;

/// A target at a higher rate than this is striped over all workers; also what `auto` plans for one worker.
pub(super) const MAX_RATE_PER_WORKER: f64 = 25_000.0;

pub(super) fn guard(limits: &Limits) -> Arc<Guard> {
    Arc::new(Guard { deny: limits.deny_networks.clone(), allow: limits.allow_networks.clone() })
}

pub(super) fn tuning(engine: &Engine, limits: &Limits) -> Tuning {
    Tuning {
        // An arrival that waits to share a wake-up must not become late by that.
        coalesce_ns: engine.coalesce.min(engine.late_after / 2).as_nanos() as u64,
        late_after_ns: engine.late_after.as_nanos() as u64,
        max_total_in_flight: limits.max_total_in_flight,
    }
}

/// The bounds of lane `part` of `parts`; what does not divide evenly goes to the first.
pub(super) fn tempo(target: &Target, parts: usize, part: usize) -> Tempo {
    let max_in_flight = target.max_in_flight / parts + usize::from(part < target.max_in_flight % parts);
    Tempo { timeout: target.timeout, max_in_flight }
}

/// The hammer for a target: a new protocol is a new line here.
pub(super) fn arm(target: &Target) -> Arc<dyn Arm> {
    Arc::new(HttpForge { request: Arc::clone(&target.http), max_idle: target.max_in_flight })
}

pub(super) fn authority(target: &Target) -> String {
    let (host, port) = (&target.http.host, target.http.port);
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// As many workers as were asked for, or as the planned rate needs, at most one for each whole processor that the process
/// may use by its affinity and by the CPU quotas of its control groups (version 1 or 2), and at least one.
pub fn worker_count(config: &Config) -> usize {
    if let Some(workers) = config.engine.workers {
        return workers.get();
    }
    let planned: f64 = config.targets.values().map(|target| target.rate.as_per_second()).sum();
    // How many replicas a list of members has can change at any time, to one as well.
    let replicas = config.shard.as_ref().and_then(Shard::fixed_stripe).map_or(1, Stripe::count);
    let planned = planned / replicas as f64;
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    ((planned / MAX_RATE_PER_WORKER).ceil() as usize).clamp(1, processors)
}
