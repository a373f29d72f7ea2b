//! Caddy: TLS with HTTP/2 and HTTP/1.1, and reloads through its own command.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;

use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;

use super::certificates::Certificate;
use super::process::Process;
use super::{PATIENCE, client, free_port, installed, read_log, wait_for};

/// A running Caddy. It answers everything by itself, with 200.
pub(crate) struct Caddy {
    _process: Process,
    address: SocketAddr,
    admin: SocketAddr,
    directory: TempDir,
}

/// One line of the access log, written when the request has ended.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct LogEntry {
    /// What was asked.
    pub(crate) request: Request,
    /// Bytes of the answer's body.
    pub(crate) size: usize,
    /// Status of the answer.
    pub(crate) status: u16,
}

/// What was asked, as the log has it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Request {
    /// Version of HTTP.
    pub(crate) proto: String,
    /// Host as asked for.
    pub(crate) host: String,
    /// All headers.
    headers: Value,
}

impl Request {
    /// The header `X-Request-Id`.
    pub(crate) fn id(&self) -> &str {
        self.headers["X-Request-Id"][0].as_str().unwrap_or_default()
    }
}

impl Caddy {
    /// Starts it with this certificate at this address, with an answer to everything, and waits until it listens.
    pub(crate) fn start(address: SocketAddr, certificate: &Certificate, answer: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let put = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).expect("a file of Caddy");
        put("cert.pem", &certificate.cert);
        put("key.pem", &certificate.key);
        put("access.log", "");
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        put("Caddyfile", &conf(directory.path(), address, admin, answer));
        let mut process = Process::serve("caddy", &mut command(directory.path(), "run"));
        wait_for("listener of Caddy", PATIENCE, || match client::connect(address) {
            Ok(_) => Ok(()),
            Err(_) => Err(process.check_alive()),
        });
        Self { _process: process, address, admin, directory }
    }

    /// Goes on with another answer, by `caddy reload`, which returns when the old configuration is out of use.
    pub(crate) fn reload(&self, answer: &str) {
        let path = self.directory.path();
        std::fs::write(path.join("Caddyfile"), conf(path, self.address, self.admin, answer)).expect("its config");
        let mut reload = command(path, "reload");
        let output = reload.arg("--address").arg(self.admin.to_string()).output().expect("caddy reload");
        assert!(output.status.success(), "caddy reload: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// All requests that have ended so far.
    pub(crate) fn log_entries(&self) -> Vec<LogEntry> {
        read_log(&self.directory.path().join("access.log"))
    }
}

/// A command of Caddy that writes nowhere but to its directory.
fn command(directory: &Path, name: &str) -> Command {
    let mut command = Command::new(installed("caddy"));
    command.args([name, "--config", "Caddyfile", "--adapter", "caddyfile"]).current_dir(directory);
    command.envs(["HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"].map(|home| (home, directory)));
    command
}

fn conf(directory: &Path, address: SocketAddr, admin: SocketAddr, answer: &str) -> String {
    let (host, port, directory) = (address.ip(), address.port(), directory.display());
    format!(
        r#"{{
    admin {admin}
    auto_https off
    persist_config off
}}
https://:{port} {{
    bind {host}
    tls {directory}/cert.pem {directory}/key.pem
    log {{
        output file {directory}/access.log
    }}
    respond "{answer}" 200
}}
"#
    )
}
