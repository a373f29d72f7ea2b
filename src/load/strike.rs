//! One request, from being handed to its hammer to being counted.

use std::pin::pin;
use std::rc::Rc;

use tracing::warn;

use super::lane::Lane;
use super::worker::Station;
use crate::clock;
use crate::hammer::{Answer, Hammer};
use crate::net::Fault;
use crate::outcome::{Outcome, Reason, Stage, Trace};

/// A request in flight. When it is dropped before it finished, it was cut off, and is counted so.
pub(super) struct Strike {
    station: Rc<Station>,
    lane: Rc<Lane>,
    key: usize,
    due_ns: u64,
    deadline_ns: u64,
    /// Its place in the table of deadlines.
    watched: usize,
    finished: bool,
}

impl Strike {
    /// The request for the arrival due at `due_ns` and sent at `now_ns`, which the lane knows by `key`.
    pub(super) fn new(station: Rc<Station>, lane: Rc<Lane>, key: usize, due_ns: u64, now_ns: u64) -> Self {
        station.enter();
        let deadline_ns = now_ns.saturating_add(lane.tempo.get().timeout.as_nanos() as u64);
        let watched = station.deadlines.enter(deadline_ns);
        Self { station, lane, key, due_ns, deadline_ns, watched, finished: false }
    }

    /// Strikes, under the one deadline that covers everything from here to the last byte.
    pub(super) async fn run<H: Hammer>(mut self, hammer: &H) {
        let sent_ns = clock::now_ns();
        self.station.stats.record_lag(sent_ns.saturating_sub(self.due_ns));
        let trace = Trace::new();
        let striking = pin!(hammer.strike(&trace, self.deadline_ns));
        let result =
            self.station.deadlines.watch(self.watched, striking).await.unwrap_or_else(|| {
                Err(Fault::from(trace.stage().map_or(Reason::TimeoutResponse, Stage::timeout_reason)))
            });
        let end_ns = clock::now_ns();
        self.finish(&result, &trace, sent_ns, end_ns);
        let station = Rc::clone(&self.station);
        // Gives its place back before the next arrival asks for one.
        drop(self);
        station.release_if_due(end_ns);
    }

    fn finish(&mut self, result: &Result<Answer, Fault>, trace: &Trace, sent_ns: u64, end_ns: u64) {
        let outcome = match result {
            Ok(Answer { status, expected: true }) => Outcome::good(*status),
            Ok(Answer { status, expected: false }) => Outcome::bad_status(*status),
            Err(fault) => Outcome::failed(fault.reason),
        };
        let traced = trace.trace_id().map(|trace_id| (trace_id, clock::unix_ms()));
        self.lane.ledger.finish_traced(outcome, end_ns - self.due_ns, end_ns - sent_ns, trace, traced);
        self.finished = true;
        if let Some(reason) = outcome.failure {
            self.lane.ledger.note_failure(reason, outcome.status, end_ns);
            self.log(reason, result, trace, end_ns);
        }
    }

    /// One line for a fault, and then one at times for all that are like it.
    #[cold]
    fn log(&self, reason: Reason, result: &Result<Answer, Fault>, trace: &Trace, now_ns: u64) {
        let Some(held_back) = self.lane.admit_fault(reason, now_ns) else { return };
        let (target, reason) = (&*self.lane.target, reason.label());
        match result {
            Ok(Answer { status, .. }) => warn!(target, reason, status, held_back, "unexpected status"),
            Err(fault) => {
                let phase = trace.stage().map_or("send", Stage::label);
                warn!(target, reason, phase, cause = fault.cause_text(), held_back, "request failed");
            }
        }
    }
}

impl Drop for Strike {
    fn drop(&mut self) {
        if !self.finished {
            self.lane.ledger.cancel();
        }
        self.station.deadlines.leave(self.watched);
        self.lane.forget(self.key);
        self.station.leave(&self.lane);
    }
}
