//! The daemon as its users meet it: a process with a config file, real servers to talk to, signals, scrapes.
//!
//! `support` holds the parts; each other module tests one side of the daemon. Numbers in the doc comments of tests
//! are rows of the table of faults. What needs root (private networks, PID namespaces) says SKIPPED without it.

#![expect(clippy::float_cmp, reason = "samples are f64, and those compared are whole numbers, which it holds exactly")]

mod support;

mod addresses;
mod admin;
mod balancer;
mod buckets;
mod cli;
mod config;
mod crowd;
mod dashboards;
mod drain;
mod encodings;
mod faults;
mod harness;
mod health;
mod http2;
#[cfg(feature = "http3")]
mod http3;
#[cfg(feature = "http3")]
mod http3_faults;
mod links;
mod names;
mod network;
mod notify;
mod observability;
mod overload;
mod page;
mod peers;
mod platform;
mod pool;
mod reload;
mod resolver;
mod rules;
mod scale;
mod screenshots;
mod soak;
mod sockets;
mod sources;
mod streams;
mod tls;
mod traffic;
mod trust;
mod watch;
