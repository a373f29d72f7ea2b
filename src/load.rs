//! The load path on one worker thread: wake up, see what is due, hand it to hammers, count what came of it.
//!
//! Everything here belongs to one thread and is shared by `Rc` and `Cell`; nothing locks and nothing waits for another
//! thread. The control thread speaks to a worker through its command channel, and reads its ledgers.

mod deadline;
mod lane;
mod pacer;
mod strike;
mod wake;
mod worker;

pub use lane::{Arm, Armed, LaneId, LaneSpec, Tempo};
pub use pacer::Course;
pub use worker::{Command, LaneChange, Peers, Tuning, Turn, Worker};
