//! Envoy: HTTP/2 with limits on how much a connection may carry, and for how long.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::certificates::Certificate;
use super::process::Process;
use super::{PATIENCE, client, installed, read_log, wait_for};

/// A running Envoy. It answers everything by itself: 200, `ok`.
pub(crate) struct Envoy {
    _process: Process,
    directory: TempDir,
}

/// What one connection may carry. When it has, the farewell is a GOAWAY, and another one a little later.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Requests at once.
    pub(crate) streams: u32,
    /// Requests in all.
    pub(crate) requests: u32,
    /// Milliseconds.
    pub(crate) age_ms: u32,
}

/// One line of the access log, written when the request has ended.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct LogEntry {
    /// The header `X-Request-Id`.
    pub(crate) request_id: String,
    /// Number of the connection.
    pub(crate) connection: u64,
    /// The address that it came in by.
    pub(crate) address: SocketAddr,
    /// Version of HTTP.
    pub(crate) protocol: String,
    /// The authority that was asked for.
    pub(crate) authority: String,
    /// Path and query.
    pub(crate) path: String,
    /// The name that was asked for in TLS; none without.
    pub(crate) server_name: Option<String>,
    /// Status of the answer.
    pub(crate) status: u16,
}

impl Limits {
    /// So high that no test meets them.
    pub(crate) const NONE: Self = Self { streams: 100, requests: 1_000_000, age_ms: 3_600_000 };
}

impl Envoy {
    /// Starts it and waits until it listens at all these addresses: over TLS with HTTP/2 alone where there is a
    /// certificate, with HTTP/2 by prior knowledge elsewhere.
    pub(crate) fn start(listeners: &[(SocketAddr, Option<&Certificate>)], limits: Limits) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let log = directory.path().join("access.log");
        std::fs::write(&log, "").expect("the access log");
        let listeners_conf: Vec<_> =
            listeners.iter().map(|(address, certificate)| listener(*address, *certificate, limits, &log)).collect();
        let conf = json!({ "static_resources": { "listeners": listeners_conf } });
        let conf_path = directory.path().join("envoy.json");
        std::fs::write(&conf_path, conf.to_string()).expect("the config of Envoy");

        let mut command = Command::new(installed("envoy"));
        command.arg("--config-path").arg(conf_path).args(["--concurrency", "1", "--disable-hot-restart"]);
        command.args(["--file-flush-interval-msec", "50", "--log-level", "warning"]);
        let mut process = Process::serve("envoy", &mut command);
        wait_for("listeners of Envoy", PATIENCE, || {
            let all = listeners.iter().all(|(address, _)| client::connect(*address).is_ok());
            if all { Ok(()) } else { Err(process.check_alive()) }
        });
        Self { _process: process, directory }
    }

    /// All requests that have ended so far.
    pub(crate) fn log_entries(&self) -> Vec<LogEntry> {
        read_log(&self.directory.path().join("access.log"))
    }
}

fn listener(address: SocketAddr, certificate: Option<&Certificate>, limits: Limits, log: &PathBuf) -> Value {
    let mut chain = json!({ "filters": [{ "name": "http", "typed_config": manager(limits, log) }] });
    if let Some(Certificate { cert, key }) = certificate {
        let shown = json!({ "certificate_chain": { "inline_string": cert }, "private_key": { "inline_string": key } });
        chain["transport_socket"] = json!({ "name": "tls", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": { "alpn_protocols": ["h2"], "tls_certificates": [shown] },
        } });
    }
    let socket = json!({ "address": address.ip().to_string(), "port_value": address.port() });
    // Reads the name that is asked for in TLS, for the log.
    let inspector = json!({ "name": "name", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
    } });
    json!({
        "name": address.to_string(),
        "address": { "socket_address": socket },
        "listener_filters": if certificate.is_some() { vec![inspector] } else { vec![] },
        "filter_chains": [chain],
    })
}

/// The part of a listener that speaks HTTP.
fn manager(limits: Limits, log: &PathBuf) -> Value {
    let line = json!({
        "request_id": "%REQ(X-REQUEST-ID)%",
        "connection": "%CONNECTION_ID%",
        "address": "%DOWNSTREAM_LOCAL_ADDRESS%",
        "protocol": "%PROTOCOL%",
        "authority": "%REQ(:AUTHORITY)%",
        "path": "%REQ(:PATH)%",
        "server_name": "%REQUESTED_SERVER_NAME%",
        "status": "%RESPONSE_CODE%",
    });
    let answer = json!({ "status": 200, "body": { "inline_string": "ok\n" } });
    json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "http",
        "codec_type": "HTTP2",
        "generate_request_id": false,
        "http2_protocol_options": { "max_concurrent_streams": limits.streams },
        "common_http_protocol_options": {
            "max_requests_per_connection": limits.requests,
            "max_connection_duration": format!("{}s", f64::from(limits.age_ms) / 1e3),
        },
        "drain_timeout": "0.2s",
        "access_log": [{ "name": "log", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": log,
            "log_format": { "json_format": line },
        } }],
        "route_config": { "virtual_hosts": [{
            "name": "all",
            "domains": ["*"],
            "routes": [{ "match": { "prefix": "/" }, "direct_response": answer }],
        }] },
        "http_filters": [{ "name": "router", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
        } }],
    })
}
