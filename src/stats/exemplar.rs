//! One request for each bucket of a histogram, by its trace id: from a slow bucket to the trace of why.

use super::Counter;

/// A request that fell into a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exemplar {
    /// Its trace id (W3C Trace Context).
    pub trace_id: u128,
    /// What was recorded of it, in nanoseconds.
    pub value_ns: u64,
    /// When it ended, in milliseconds since 1970.
    pub at_ms: u64,
}

impl Exemplar {
    /// What was recorded of it, in seconds.
    pub fn value_seconds(&self) -> f64 {
        self.value_ns as f64 / 1e9
    }
}

/// A place for one exemplar: single writer, read inside the cut in which it was written.
#[derive(Debug, Default)]
pub(super) struct Slot {
    trace_id: [Counter; 2],
    value_ns: Counter,
    /// 0 while there is none.
    at_ms: Counter,
}

impl Slot {
    /// How old an exemplar must be to be replaced: fresh ones are not worth more than quiet cells, and a scraper sees
    /// but the last one.
    const INTERVAL_MS: u64 = 1000;

    /// Keeps the exemplar, unless the one that is there is fresh.
    pub(super) fn offer(&self, exemplar: Exemplar) {
        // A wall clock that was set back must not stop it.
        if exemplar.at_ms.abs_diff(self.at_ms.get()) < Self::INTERVAL_MS {
            return;
        }
        self.trace_id[0].set((exemplar.trace_id >> 64) as u64);
        self.trace_id[1].set(exemplar.trace_id as u64);
        self.value_ns.set(exemplar.value_ns);
        self.at_ms.set(exemplar.at_ms);
    }

    /// The exemplar, if there is one.
    pub(super) fn get(&self) -> Option<Exemplar> {
        let at_ms = self.at_ms.get();
        let trace_id = u128::from(self.trace_id[0].get()) << 64 | u128::from(self.trace_id[1].get());
        (at_ms > 0).then(|| Exemplar { trace_id, value_ns: self.value_ns.get(), at_ms })
    }
}
