//! Caddy from `PyPI`, a server that nobody here wrote, speaking HTTP/3, with an access log as a second ledger.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use serde::Deserialize;
use tempfile::TempDir;

use super::certificates::{Authority, Certificate};
use super::process::{self, Process};
use super::{PATIENCE, client, free_port, wait_for};

/// Size of `/64k`.
pub(crate) const BIG_BODY: usize = 64 * 1024;

/// A running Caddy. It serves everything with 200 and `ok`, but for `/404`, `/64k`, and `/behind/`, which it hands to
/// another server.
pub(crate) struct CaddyHttp3 {
    process: Process,
    address: SocketAddr,
    directory: TempDir,
}

/// One line of the access log, written when the request has ended.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct LogEntry {
    /// What was asked.
    pub(crate) request: Request,
    /// Status of the answer.
    pub(crate) status: u16,
    /// Bytes of its body.
    pub(crate) size: usize,
}

/// What was asked, by whom and how.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Request {
    /// The client's port, which tells its connections apart.
    pub(crate) remote_port: String,
    /// Version of HTTP.
    pub(crate) proto: String,
    /// The authority.
    pub(crate) host: String,
    /// Path and query.
    pub(crate) uri: String,
    /// The secured connection.
    pub(crate) tls: Tls,
}

/// What the log says of a secured connection.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Tls {
    /// Whether its session was resumed.
    pub(crate) resumed: bool,
    /// The name that was asked for.
    pub(crate) server_name: String,
    /// Common name of the client's certificate.
    #[serde(default)]
    pub(crate) client_common_name: String,
}

/// How it is to be started.
pub(crate) struct Builder {
    certificate: Certificate,
    client_ca: Option<String>,
    behind: Option<SocketAddr>,
}

impl Builder {
    /// Asks for a client certificate of this authority.
    pub(crate) fn client_ca(mut self, authority: &Authority) -> Self {
        self.client_ca = Some(authority.pem().to_owned());
        self
    }

    /// Hands `/behind/` to this server.
    pub(crate) fn behind(mut self, address: SocketAddr) -> Self {
        self.behind = Some(address);
        self
    }

    /// Starts it and waits until it listens.
    pub(crate) fn start(self) -> CaddyHttp3 {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let put = |name: &str, content: &[u8]| std::fs::write(directory.path().join(name), content).expect("a file");
        put("cert.pem", self.certificate.cert.as_bytes());
        put("key.pem", self.certificate.key.as_bytes());
        put("64k", &vec![b'x'; BIG_BODY]);
        put("access.log", b"");
        if let Some(client_ca) = &self.client_ca {
            put("client_ca.pem", client_ca.as_bytes());
        }
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        put("Caddyfile", self.conf(directory.path(), address).as_bytes());
        CaddyHttp3 { process: serve(directory.path(), address), address, directory }
    }

    fn conf(&self, directory: &Path, address: SocketAddr) -> String {
        let (host, port, directory) = (address.ip(), address.port(), directory.display());
        let client_auth = self
            .client_ca
            .as_ref()
            .map(|_| format!("client_auth {{\nmode require_and_verify\ntrust_pool file {directory}/client_ca.pem\n}}"));
        let behind = self.behind.map(|address| format!("reverse_proxy /behind/* {address}"));
        format!(
            r#"{{
    admin off
    auto_https off
    persist_config off
    grace_period 1s
}}
https://:{port} {{
    bind {host}
    tls {directory}/cert.pem {directory}/key.pem {{
        {}
    }}
    log {{
        output file {directory}/access.log
    }}
    root {directory}
    route {{
        file_server /64k
        respond /404 404
        {}
        respond "ok"
    }}
}}
"#,
            client_auth.unwrap_or_default(),
            behind.unwrap_or_default()
        )
    }
}

impl CaddyHttp3 {
    /// One that shows this certificate.
    pub(crate) fn builder(certificate: Certificate) -> Builder {
        Builder { certificate, client_ca: None, behind: None }
    }

    /// Starts it and waits until it listens.
    pub(crate) fn start(certificate: Certificate) -> Self {
        Self::builder(certificate).start()
    }

    /// URL of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.address)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// All requests that have ended so far.
    pub(crate) fn log_entries(&self) -> Vec<LogEntry> {
        let log = std::fs::read_to_string(self.directory.path().join("access.log")).expect("the access log");
        let whole = log.rfind('\n').map_or("", |end| &log[..end]);
        let read = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        whole.lines().map(read).collect()
    }

    /// Ends it at once, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        self.end(Signal::KILL);
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn stop(&mut self) {
        self.end(Signal::TERM);
    }

    fn end(&mut self, signal: Signal) {
        process::signal(self.process.pid(), signal);
        self.process.wait_exit(PATIENCE);
    }

    /// Starts it again at the same address.
    pub(crate) fn restart(&mut self) {
        self.process = serve(self.directory.path(), self.address);
    }

    /// Stops all of its work, as a machine that hangs does.
    pub(crate) fn freeze(&self) {
        process::signal(self.process.pid(), Signal::STOP);
    }

    /// Goes on after [`CaddyHttp3::freeze`].
    pub(crate) fn thaw(&self) {
        process::signal(self.process.pid(), Signal::CONT);
    }
}

/// How many requests there were on each connection.
pub(crate) fn by_connection(log: &[LogEntry]) -> HashMap<&str, usize> {
    let mut connections = HashMap::new();
    for entry in log {
        *connections.entry(entry.request.remote_port.as_str()).or_default() += 1;
    }
    connections
}

fn serve(directory: &Path, address: SocketAddr) -> Process {
    let mut command = Command::new(installed("caddy"));
    command.args(["run", "--config", "Caddyfile", "--adapter", "caddyfile"]).current_dir(directory);
    command.envs(["HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"].map(|home| (home, directory)));
    let mut process = Process::serve("caddy", &mut command);
    // It listens on the UDP port before it says so.
    wait_for("listener of Caddy", PATIENCE, || {
        let ready = process.stderr().iter().any(|line| line.contains("serving initial configuration"));
        match client::connect(address) {
            Ok(_) if ready => Ok(()),
            _ => Err(process.check_alive()),
        }
    });
    process
}

/// A server that is no Debian package: `tests/run` installs it beside what cargo builds.
fn installed(name: &str) -> PathBuf {
    let beside = Path::new(env!("CARGO_BIN_EXE_hammerd")).ancestors().map(|up| up.join("peers/bin").join(name));
    let found = beside.into_iter().find(|path| path.exists());
    found.unwrap_or_else(|| panic!("{name} is not installed: tests/run does that, once"))
}
