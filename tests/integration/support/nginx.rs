//! Debian's nginx, a server that nobody here wrote, with an access log as a second ledger.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Signal};
use serde::Deserialize;
use tempfile::TempDir;

use super::certificates::{Authority, Certificate};
use super::process::{self, Process};
use super::{PATIENCE, client, free_port, is_root, read_log, wait_for, wait_log};

/// Size of `/64k`.
pub(crate) const BIG_BODY: usize = 64 * 1024;

/// Name of its Unix domain socket.
const SOCKET: &str = "nginx.sock";

/// A running nginx. It serves `/` (200, `ok`), `/close` (200, and ends the connection), `/204`, `/500`, `/redirect`,
/// `/64k`, `/slow` (about two seconds) and what is [put](Nginx::put) below `/files/`.
pub(crate) struct Nginx {
    process: Process,
    ports: Ports,
    directory: TempDir,
    workers: Vec<Pid>,
}

/// Where it listens, each port for one way to speak.
#[derive(Debug, Clone, Copy)]
struct Ports {
    /// The address of all.
    host: Ipv4Addr,
    /// HTTP/1.1.
    plain: u16,
    /// HTTP/2 by prior knowledge.
    h2c: u16,
    /// TLS with HTTP/1.1 alone.
    https1: u16,
    /// TLS with HTTP/2 and HTTP/1.1.
    https2: u16,
    /// TLS that asks for a client certificate, with HTTP/2 and HTTP/1.1.
    mutual: u16,
}

/// How it is to be started.
#[derive(Default)]
pub(crate) struct Builder {
    directives: String,
    certificate: Option<Certificate>,
    client_ca: Option<String>,
    host: Option<Ipv4Addr>,
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
    /// The header `traceparent`.
    pub(crate) traceparent: String,
    /// Port that it came in by; empty for the Unix domain socket.
    pub(crate) port: String,
    /// Version of HTTP.
    pub(crate) protocol: String,
    /// The header `Host`, or the authority in HTTP/2.
    pub(crate) host: String,
    /// The name that was asked for in TLS.
    pub(crate) server_name: String,
    /// Whether the TLS session was resumed: `r`, `.`, or nothing without TLS.
    pub(crate) resumed: String,
    /// Subject of the client's certificate.
    pub(crate) client: String,
    /// Method, target and version as sent.
    pub(crate) request: String,
    /// Status of the answer.
    pub(crate) status: u16,
    /// First byte of the request to last byte of the answer, in seconds.
    pub(crate) seconds: f64,
}

impl Builder {
    /// Adds a directive to all its servers, without the semicolon.
    pub(crate) fn directive(mut self, directive: &str) -> Self {
        self.directives.push_str(directive);
        self.directives.push_str("; ");
        self
    }

    /// Speaks TLS with this certificate.
    pub(crate) fn certificate(mut self, certificate: Certificate) -> Self {
        self.certificate = Some(certificate);
        self
    }

    /// Asks for a client certificate of this authority, on a port for that.
    pub(crate) fn client_ca(mut self, authority: &Authority) -> Self {
        self.client_ca = Some(authority.pem().to_owned());
        self
    }

    /// Listens on another address than that of loopback.
    pub(crate) fn host(mut self, host: Ipv4Addr) -> Self {
        self.host = Some(host);
        self
    }

    /// Starts it and waits until it answers.
    pub(crate) fn start(self) -> Nginx {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let [plain, h2c, https1, https2, mutual] = std::array::from_fn(|_| free_port());
        let host = self.host.unwrap_or(Ipv4Addr::LOCALHOST);
        let ports = Ports { host, plain, h2c, https1, https2, mutual };
        let write = |name: &str, content: &[u8]| {
            std::fs::write(directory.path().join(name), content).unwrap_or_else(|error| panic!("{name}: {error}"));
        };
        write("64k", &vec![b'x'; BIG_BODY]);
        write("slow", &[b'y'; 3 * 1024]);
        std::fs::create_dir(directory.path().join("files")).expect("a directory");
        if let Some(certificate) = &self.certificate {
            write("cert.pem", certificate.cert.as_bytes());
            write("key.pem", certificate.key.as_bytes());
        }
        if let Some(client_ca) = &self.client_ca {
            write("client_ca.pem", client_ca.as_bytes());
        }
        write("nginx.conf", self.conf(directory.path(), ports).as_bytes());

        let mut command = Command::new("nginx");
        command.arg("-p").arg(directory.path()).args(["-c", "nginx.conf", "-e", "error.log"]);
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        let mut process = Process::serve("nginx", &mut command);
        wait_for("answer of nginx", PATIENCE, || match client::get(ports.at(ports.plain), "/up") {
            Ok(response) if response.status == 204 => Ok(()),
            _ => Err(process.check_alive()),
        });
        let workers = process::children_of(process.pid());
        Nginx { process, ports, directory, workers }
    }

    fn conf(&self, directory: &Path, ports: Ports) -> String {
        let user = if is_root() { "user root;" } else { "" };
        let mut servers = String::new();
        let mut serve = |listeners: &str, more: &str| {
            servers += &["server { ", listeners, " ", more, " ", &self.directives, " ", LOCATIONS, " }\n"].concat();
        };
        let listen = |port: u16, how: &str| format!("listen {}:{port} {how} backlog=4096;", ports.host);
        let socket = format!("listen unix:{};", directory.join(SOCKET).display());
        serve(&[listen(ports.plain, ""), listen(ports.h2c, "http2"), socket].concat(), "");
        if self.certificate.is_some() {
            let tls = "ssl_certificate cert.pem; ssl_certificate_key key.pem;";
            serve(&[listen(ports.https1, "ssl"), listen(ports.https2, "ssl http2")].concat(), tls);
            if self.client_ca.is_some() {
                let mutual = format!("{tls} ssl_verify_client on; ssl_client_certificate client_ca.pem;");
                serve(&listen(ports.mutual, "ssl http2"), &mutual);
            }
        }
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
        '"request_on_connection":$connection_requests,"request_id":"$http_x_request_id","traceparent":"$http_traceparent",'
        '"port":"$server_port","protocol":"$server_protocol","host":"$http_host",'
        '"server_name":"$ssl_server_name","resumed":"$ssl_session_reused","client":"$ssl_client_s_dn",'
        '"request":"$request","status":$status,"seconds":$request_time}}';
    access_log access.log ledger;
    keepalive_requests 1000000;
    {servers}
}}
"#
        )
    }
}

const LOCATIONS: &str = r#"
        root .;
        default_type text/plain;
        location / { return 200 "ok\n"; }
        location = /up { access_log off; return 204; }
        location = /close { keepalive_timeout 0; return 200 "bye\n"; }
        location = /204 { return 204; }
        location = /500 { return 500 "sorry\n"; }
        location = /redirect { return 302 /; }
        location = /64k { }
        location = /slow { limit_rate 1k; }
        location /files/ { }
"#;

impl Nginx {
    /// Starts it and waits until it answers.
    pub(crate) fn start() -> Self {
        Self::builder().start()
    }

    /// One that differs from the usual.
    pub(crate) fn builder() -> Builder {
        Builder::default()
    }

    /// URL of a path over HTTP/1.1.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address())
    }

    /// URL of a path where HTTP/2 is spoken by prior knowledge.
    pub(crate) fn h2c_url(&self, path: &str) -> String {
        format!("http://{}{path}", self.ports.at(self.ports.h2c))
    }

    /// URL of a path where TLS is spoken, but not HTTP/2.
    pub(crate) fn https1_url(&self, path: &str) -> String {
        format!("https://{}{path}", self.ports.at(self.ports.https1))
    }

    /// URL of a path where TLS and HTTP/2 are spoken.
    pub(crate) fn https2_url(&self, path: &str) -> String {
        format!("https://{}{path}", self.https2_address())
    }

    /// URL of a path where a client certificate is asked for.
    pub(crate) fn mutual_url(&self, path: &str) -> String {
        format!("https://{}{path}", self.ports.at(self.ports.mutual))
    }

    /// Serves this text below `/files/`, or nothing any more. Its `ETag` is made of its time in seconds and its size.
    pub(crate) fn put(&self, name: &str, text: Option<&str>) {
        let path = self.directory.path().join("files").join(name);
        let Some(text) = text else { return std::fs::remove_file(path).expect("a file") };
        let next = self.directory.path().join("next");
        std::fs::write(&next, text).and_then(|()| std::fs::rename(next, path)).expect("a file");
    }

    /// Where it listens for HTTP/1.1.
    pub(crate) fn address(&self) -> SocketAddr {
        self.ports.at(self.ports.plain)
    }

    /// Where it listens for TLS with HTTP/2.
    pub(crate) fn https2_address(&self) -> SocketAddr {
        self.ports.at(self.ports.https2)
    }

    /// The Unix domain socket that it listens on.
    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join(SOCKET)
    }

    /// All requests that have ended so far.
    pub(crate) fn log_entries(&self) -> Vec<LogEntry> {
        read_log(&self.log_path())
    }

    /// Waits until as many requests have ended, and returns the log.
    pub(crate) fn log_of(&self, count: usize) -> Vec<LogEntry> {
        wait_log(count, || self.log_entries())
    }

    /// Stops all of its work, as a machine that hangs does: connections stay open, nothing is read.
    pub(crate) fn freeze(&self) {
        self.workers.iter().for_each(|&worker| process::signal(worker, Signal::STOP));
    }

    /// Shows another certificate from now on, by a reload of its own.
    pub(crate) fn replace_certificate(&mut self, certificate: &Certificate) {
        std::fs::write(self.directory.path().join("cert.pem"), &certificate.cert).expect("the certificate");
        std::fs::write(self.directory.path().join("key.pem"), &certificate.key).expect("its key");
        let old = std::mem::take(&mut self.workers);
        process::signal(self.process.pid(), Signal::HUP);
        self.workers = wait_for("new workers of nginx", PATIENCE, || {
            let workers = process::children_of(self.process.pid());
            let renewed = !workers.is_empty() && workers.iter().all(|worker| !old.contains(worker));
            if renewed { Ok(workers) } else { Err(format!("{workers:?}")) }
        });
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

impl Ports {
    fn at(self, port: u16) -> SocketAddr {
        SocketAddr::from((self.host, port))
    }
}
