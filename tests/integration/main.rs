//! The daemon as its users meet it: a process with a config file, real servers to talk to, signals, scrapes.
//!
//! `support` holds the parts; each other module tests one side of the daemon. Numbers in the doc comments of tests
//! are rows of the table of faults. What needs root (private networks, PID namespaces) says SKIPPED without it.

#![expect(clippy::float_cmp, reason = "samples are f64, and those compared are whole numbers, which it holds exactly")]

mod support;

mod addresses;
mod admin;
mod cli;
mod config;
mod crowd;
mod drain;
mod faults;
mod harness;
mod http2;
mod names;
mod network;
mod overload;
mod page;
mod platform;
mod pool;
mod reload;
mod screenshots;
mod soak;
mod sockets;
mod tls;
mod traffic;
