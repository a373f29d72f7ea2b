//! hammerd sends steady HTTP traffic to the targets of a config file for as long as it lives, and exports what came of
//! every single request to Prometheus.
//!
//! # The life of one request
//!
//! It begins as a line of configuration. [`config`] lays files, environment and flags over each other and validates the
//! whole; what comes out is a target: a rate, a process, a request. The [`fleet`] gives the target a place among its
//! equals (a [phase](pace::Phase)), a [schedule](pace::Schedule) and a lane on one of the worker threads.
//!
//! The [schedule](pace) is a pure function: arrival number n is due at this nanosecond, whatever the server does. On its
//! worker, the [load path](load) keeps one heap of next arrivals and one timer. The timer fires, or an answer to another
//! request wakes the worker; everything due by now is released. An arrival that is far too late (the machine was frozen)
//! is dropped and counted; one that finds too many of its kind in flight, too; nothing is ever queued.
//!
//! An arrival that goes on is now a [strike](hammer): a task of its own under one deadline. Its hammer takes the most
//! recently used idle connection, or resolves and dials ([`net`]), sends the request, reads the response to its end, and
//! puts the connection back. (Over HTTP/2, and over HTTP/3 when it is built in by the feature `http3`, requests share
//! connections instead.) What came of it is an [`outcome`]: a complete response, or exactly one reason why not, and how
//! long each phase took.
//!
//! The outcome is added to the target's [ledger](stats): plain cells that only this worker writes. There the request stays,
//! as one in `scheduled`, `started` and `requests_total`, and as one value in the latency histogram, which counts from the
//! instant at which the request was due, not from when we got round to sending it.
//!
//! When Prometheus asks, on the [admin] thread, [`export`] reads all ledgers through the [`roster`], each as a consistent
//! cut, and renders them. When a person looks, [`status`] has the last minutes of every target. The [`daemon`] holds all this
//! together: it turns [`signals`] into reloads and a drain, after which the last scrape and the printed [summary](report)
//! tell the same numbers.
//!
//! # Rooms
//!
//! In the order in which a request passes: [`config`], [`fleet`], [`pace`], [`load`], [`hammer`], [`net`], [`outcome`],
//! [`stats`], [`roster`], [`export`], [`status`], [`admin`]. Around them: [`daemon`] (the composition root and the control
//! loop), [`shard`] (which part of the streams is ours), [`signals`], [`watch`], [`remote`], [`notify`], [`report`], [`logs`],
//! [`clock`], [`cli`], [`demo`]. `pace`, `outcome` and `stats` are pure: they know no clock, no I/O and no runtime. Imports
//! never go in a circle.

pub mod admin;
pub mod cli;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod demo;
pub mod export;
mod fd;
pub mod fleet;
pub mod hammer;
pub mod load;
pub mod logs;
pub mod net;
pub mod notify;
pub mod outcome;
pub mod pace;
pub mod remote;
pub mod report;
pub mod roster;
pub mod shard;
pub mod signals;
pub mod stats;
pub mod status;
pub mod watch;
