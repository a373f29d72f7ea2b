//! Hammers: one protocol's way of striking a target each.
//!
//! A hammer knows nothing of rates, schedules or metrics: it is asked to strike once, and says what came of it. The load
//! path sees to deadlines, ceilings and counting. A new protocol is a file here and a line in [`crate::fleet`].

pub mod http;

use std::rc::Rc;
use std::sync::Arc;

use crate::net::{Fault, Guard, Resolver};
use crate::outcome::Trace;
use crate::stats::Ledger;

/// One protocol's way of striking a target.
pub trait Hammer: 'static {
    /// Strikes once, and tells `trace` each phase as it enters it.
    ///
    /// The future is dropped when the deadline passes, at `deadline_ns` on the clock of [`crate::clock`], or when the
    /// target is removed; it then leaves nothing behind.
    fn strike(&self, trace: &Trace, deadline_ns: u64) -> impl Future<Output = Result<Answer, Fault>>;
}

/// A complete response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Its status code.
    pub status: u16,
    /// Whether the target is expected to answer so.
    pub expected: bool,
}

/// What a hammer needs of the worker that it lives on.
#[derive(Debug, Clone)]
pub struct Anvil {
    /// For its connections and bytes. The hammer's thread is the one writer.
    pub ledger: Arc<Ledger>,
    /// Answers lookups away from this thread.
    pub resolver: Resolver,
    /// Judges addresses before they are dialled.
    pub guard: Arc<Guard>,
}

/// Makes hammers: travels to the worker, where the hammer then stays.
pub trait Forge: Send + Sync + 'static {
    /// What it makes.
    type Hammer: Hammer;

    /// A hammer on this worker. `before` is the one that it replaces, if that was of the same kind: what still fits, its
    /// connections above all, may be taken over.
    fn forge(&self, anvil: &Anvil, before: Option<&Rc<Self::Hammer>>) -> Rc<Self::Hammer>;
}
