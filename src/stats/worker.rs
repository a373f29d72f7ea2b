//! What a worker tells of itself, apart from its targets.

use super::cell::{Counter, Cut};
use super::{Histogram, HistogramSnapshot, Shape};

/// A worker's own health; single writer.
#[derive(Debug)]
pub struct WorkerStats {
    shape: Shape,
    cut: Cut,
    lag: Histogram,
    in_flight: Counter,
}

impl WorkerStats {
    /// Nothing recorded yet.
    pub fn new(shape: Shape) -> Self {
        Self { shape, cut: Cut::default(), lag: Histogram::default(), in_flight: Counter::default() }
    }

    /// A request was sent `lag_ns` after it was due.
    pub fn record_lag(&self, lag_ns: u64) {
        self.cut.write(|| self.lag.record(&self.shape, lag_ns));
    }

    /// Arrival to send, for all requests of the worker.
    pub fn lag(&self) -> HistogramSnapshot {
        self.cut.read(|| self.lag.snapshot(&self.shape))
    }

    /// Publishes the requests in flight on this worker.
    pub fn set_in_flight(&self, requests: usize) {
        self.in_flight.set(requests as u64);
    }

    /// The requests in flight on this worker.
    pub fn in_flight(&self) -> usize {
        self.in_flight.get() as usize
    }
}
