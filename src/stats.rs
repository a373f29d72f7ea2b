//! What happened, in cells that one worker writes and anyone reads.
//!
//! Pure: no clock, no I/O. A worker adds to plain atomic cells that nobody else writes, without a lock or a
//! read-modify-write instruction; a reader copies them out as a consistent cut (see [`Ledger::snapshot`]).

mod cell;
mod exemplar;
mod histogram;
mod history;
mod ledger;
mod packed;
mod snapshot;
mod tally;
mod wire;
mod worker;

pub use cell::Counter;
pub use exemplar::Exemplar;
pub use histogram::{Histogram, HistogramSnapshot, Shape};
pub use history::{History, Interval};
pub use ledger::{Failure, LastFailure, Ledger, LedgerWriter};
pub use snapshot::Snapshot;
pub use tally::{BAD_SHARE, Brief, State, Tally};
pub use wire::{CloseReason, Wire, WireSnapshot};
pub use worker::WorkerStats;
