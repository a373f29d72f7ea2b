//! When requests are due.
//!
//! Pure: no clock, no I/O; time comes in as nanoseconds of one monotonic clock.
//! Two ideas compose. An arrival [`Process`] places arrivals on an axis of *operational time*, on which one unit passes
//! for each arrival that is asked for. A rate [`Curve`] maps operational time to nanoseconds. The n-th arrival of a
//! [`Schedule`] is due where the curve reaches the n-th operational time, so that every process works with every curve,
//! and a change of rate is a change of curve that carries the fraction of an arrival already accumulated.
//!
//! Replicas that share a stream number its arrivals alike: their schedules are anchored to 1970 on a [`Timeline`] that
//! follows the wall clock, and each sends a [`Stripe`] of the numbers.
//!
//! All of it is integer arithmetic: nothing is accumulated, so nothing drifts (`due` after a year is as exact as the
//! first). What it leaves out: who sends what is due, and what happens when nobody could.

mod curve;
mod phase;
mod position;
mod process;
mod rate;
mod schedule;
mod stripe;
mod timeline;

pub use curve::Curve;
pub use phase::{Phase, PhaseBook};
pub use position::Position;
pub use process::Process;
pub use rate::{Rate, RateError};
pub use schedule::Schedule;
pub use stripe::Stripe;
pub use timeline::Timeline;
