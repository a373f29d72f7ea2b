//! Debian's haproxy: TLS in front of other servers, and reloads that hand its sockets on.

use std::net::SocketAddr;
use std::process::Command;

use rustix::process::{Pid, Signal};
use serde::Deserialize;
use tempfile::TempDir;

use super::certificates::Certificate;
use super::process::{self, Process};
use super::{PATIENCE, client, read_log_line, wait_for};

/// A running haproxy: a master process, and a worker for each configuration that still has connections.
pub(crate) struct Haproxy {
    process: Process,
    directory: TempDir,
}

/// An address where it speaks TLS with HTTP/2 and HTTP/1.1, and the one server behind it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frontend {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Whom it passes requests on to, in plain HTTP/1.1.
    pub(crate) server: SocketAddr,
}

/// One line of its log, written when a request has ended.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct LogEntry {
    /// End of the request, milliseconds of the wall clock.
    pub(crate) end_ms: u64,
    /// Process id of the worker.
    pub(crate) worker: u32,
    /// The header `X-Request-Id`.
    pub(crate) request_id: String,
    /// Address of the frontend.
    pub(crate) address: SocketAddr,
    /// Version of HTTP.
    pub(crate) protocol: String,
    /// Path and query, or all of a URL where the client sent one.
    pub(crate) uri: String,
    /// Status of the answer.
    pub(crate) status: u16,
    /// Who ended the session, and when: `--` for an orderly end.
    pub(crate) termination: String,
    /// Whether the TLS session was resumed, `1` or `0`.
    pub(crate) resumed: String,
    /// The name that was asked for in TLS.
    pub(crate) server_name: String,
}

/// An operator who wants reloads to cost nothing sets `idle-close-on-response`: without it haproxy closes idle
/// connections when it is reloaded, and whoever is just sending on one is cut off. One thread: of two that log at the same
/// time to a pipe, one drops its line.
const CONF: &str = r#"
global
    log stdout format raw local0
    nbthread 1
    tune.h2.max-concurrent-streams 2
defaults
    mode http
    log global
    option idle-close-on-response
    timeout connect 5s
    timeout client 1m
    timeout server 10s
    log-format '{"end_ms":%[date(0,ms)],"worker":%pid,"request_id":"%[capture.req.hdr(0)]","address":"%fi:%fp","protocol":"%HV","uri":"%[capture.req.uri]","status":%ST,"termination":"%ts","resumed":"%[ssl_fc_is_resumed]","server_name":"%[ssl_fc_sni]"}'
"#;

impl Haproxy {
    /// Starts it with these frontends, which show this certificate, and waits until all listen.
    pub(crate) fn start(certificate: &Certificate, frontends: &[Frontend]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        write(&directory, certificate, frontends);
        let mut command = Command::new("haproxy");
        command.args(["-W", "-f", "haproxy.cfg"]).current_dir(directory.path());
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        let mut process = Process::serve("haproxy", &mut command);
        wait_for("listeners of haproxy", PATIENCE, || {
            let all = frontends.iter().all(|frontend| client::connect(frontend.address).is_ok());
            if all { Ok(()) } else { Err(process.check_alive()) }
        });
        Self { process, directory }
    }

    /// Goes on with another certificate or other frontends, by a reload: a new worker takes the listeners over, the old
    /// one finishes what it has.
    pub(crate) fn reload(&self, certificate: &Certificate, frontends: &[Frontend]) {
        write(&self.directory, certificate, frontends);
        let old = self.workers();
        process::signal(self.process.pid(), Signal::USR2);
        wait_for("a new worker of haproxy", PATIENCE, || {
            let workers = self.workers();
            let renewed = workers.iter().any(|worker| !old.contains(worker));
            if renewed { Ok(()) } else { Err(self.process.stderr().join("\n")) }
        });
    }

    /// All requests that have ended so far.
    pub(crate) fn log_entries(&self) -> Vec<LogEntry> {
        let lines = self.process.stdout();
        lines.iter().filter(|line| line.starts_with('{')).map(|line| read_log_line(line)).collect()
    }

    fn workers(&self) -> Vec<Pid> {
        process::children_of(self.process.pid())
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        // The master first, so that it does not think about its workers' ends.
        let workers = self.workers();
        process::signal(self.process.pid(), Signal::KILL);
        for worker in workers {
            process::signal(worker, Signal::KILL);
        }
    }
}

fn write(directory: &TempDir, certificate: &Certificate, frontends: &[Frontend]) {
    let put = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).expect("a file of haproxy");
    put("site.pem", &format!("{}{}", certificate.cert, certificate.key));
    put("haproxy.cfg", &frontends.iter().fold(CONF.to_owned(), |conf, frontend| conf + &frontend.conf()));
}

impl Frontend {
    /// One at `address`, with `server` behind it.
    pub(crate) fn new(address: SocketAddr, server: SocketAddr) -> Self {
        Self { address, server }
    }

    fn conf(&self) -> String {
        let Self { address, server } = self;
        format!(
            "frontend {address}
    bind {address} ssl crt site.pem alpn h2,http/1.1
    http-request capture req.hdr(x-request-id) len 64
    default_backend {address}
backend {address}
    server behind {server}
"
        )
    }
}
