//! Debian's nginx, a server that nobody here wrote, with an access log as a second ledger.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;

use rustix::process::{Pid, Signal};
use serde::Deserialize;
use tempfile::TempDir;

use super::process::{self, Process};
use super::{PATIENCE, client, free_port, is_root, wait_for};

/// Size of `/64k`.
pub(crate) const BIG_BODY: usize = 64 * 1024;

/// A running nginx. It serves `/` (200, `ok`), `/close` (200, and ends the connection), `/204`, `/500`, `/redirect`,
/// `/64k` and `/slow` (about two seconds).
pub(crate) struct Nginx {
    process: Process,
    address: SocketAddr,
    directory: TempDir,
    workers: Vec<Pid>,
}

/// One line of the access log, written when the request has ended.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct LogEntry {
    /// End of the request, seconds of the wall clock, millisecond resolution.
    pub(crate) end: f64,
    /// Number of the connection.
    pub(crate) connection: u64,
    /// Number of the request on its connection, from 1.
    pub(crate) request_on_connection: u64,
    /// The header `X-Request-Id`.
    pub(crate) request_id: String,
    /// Method, target and version as sent.
    pub(crate) request: String,
    /// Status of the answer.
    pub(crate) status: u16,
    /// First byte of the request to last byte of the answer, in seconds.
    pub(crate) seconds: f64,
}

impl Nginx {
    /// Starts it and waits until it answers.
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let prefix = directory.path();
        std::fs::write(prefix.join("64k"), vec![b'x'; BIG_BODY]).expect("a file to serve");
        std::fs::write(prefix.join("slow"), vec![b'y'; 3 * 1024]).expect("a file to serve");
        std::fs::write(prefix.join("nginx.conf"), conf(address)).expect("nginx.conf");

        let mut command = Command::new("nginx");
        command.arg("-p").arg(prefix).args(["-c", "nginx.conf", "-e", "error.log"]);
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        let mut process = Process::serve("nginx", &mut command);
        wait_for("answer of nginx", PATIENCE, || match client::get(address, "/up") {
            Ok(response) if response.status == 204 => Ok(()),
            _ => Err(process.check_alive()),
        });
        let workers = process::children_of(process.pid());
        Self { process, address, directory, workers }
    }

    /// URL of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// All requests that have ended so far.
    pub(crate) fn log_entries(&self) -> Vec<LogEntry> {
        let log = std::fs::read_to_string(self.log_path()).expect("the access log");
        let whole = log.rfind('\n').map_or("", |end| &log[..end]);
        let read = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        whole.lines().map(read).collect()
    }

    /// Waits until as many requests have ended, and returns the log.
    pub(crate) fn log_of(&self, count: usize) -> Vec<LogEntry> {
        wait_for(&format!("access log of {count} requests"), PATIENCE, || {
            let entries = self.log_entries();
            if entries.len() >= count { Ok(entries) } else { Err(format!("{} requests", entries.len())) }
        })
    }

    /// Stops all of its work, as a machine that hangs does: connections stay open, nothing is read.
    pub(crate) fn freeze(&self) {
        self.workers.iter().for_each(|&worker| process::signal(worker, Signal::STOP));
    }

    /// Goes on after [`Nginx::freeze`].
    pub(crate) fn thaw(&self) {
        self.workers.iter().for_each(|&worker| process::signal(worker, Signal::CONT));
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("access.log")
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // The master first: it would replace a worker that is killed. Without it the workers would live on.
        process::signal(self.process.pid(), Signal::KILL);
        self.workers.iter().for_each(|&worker| process::signal(worker, Signal::KILL));
    }
}

fn conf(address: SocketAddr) -> String {
    let user = if is_root() { "user root;" } else { "" };
    format!(
        r#"
daemon off;
{user}
worker_processes 1;
pid nginx.pid;
error_log error.log;
events {{ worker_connections 4096; }}
http {{
    client_body_temp_path body_temp;
    proxy_temp_path proxy_temp;
    fastcgi_temp_path fastcgi_temp;
    uwsgi_temp_path uwsgi_temp;
    scgi_temp_path scgi_temp;
    log_format ledger escape=json '{{"end":$msec,"connection":$connection,'
        '"request_on_connection":$connection_requests,"request_id":"$http_x_request_id",'
        '"request":"$request","status":$status,"seconds":$request_time}}';
    access_log access.log ledger;
    keepalive_requests 1000000;
    server {{
        listen {address} backlog=4096;
        root .;
        default_type text/plain;
        location / {{ return 200 "ok\n"; }}
        location = /up {{ access_log off; return 204; }}
        location = /close {{ keepalive_timeout 0; return 200 "bye\n"; }}
        location = /204 {{ return 204; }}
        location = /500 {{ return 500 "sorry\n"; }}
        location = /redirect {{ return 302 /; }}
        location = /64k {{ }}
        location = /slow {{ limit_rate 1k; }}
    }}
}}
"#
    )
}
