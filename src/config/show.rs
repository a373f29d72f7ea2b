//! A configuration as people see it: the running one without its secrets, the plan, and what a reload can't change.

use std::fmt::{self, Write as _};

use http::header::HOST;

use super::futile::does_something;
use super::kind::{display_duration, display_size};
use super::rates::{display_total, total};
use super::{Config, HttpRequest, Limits, Metrics, Shard, Target, TargetName, url};
use crate::net::{Peer, Refresh};
use crate::pace::Process;

/// What stands in place of a secret.
const SECRET: &str = "<secret>";

/// What `hammerd check` prints: one line for each target, then the totals.
pub fn plan(config: &Config) -> String {
    let titles = ["TARGET", "RATE", "PROCESS", "METHOD", "URL", "TIMEOUT", "MAX IN FLIGHT"].map(str::to_owned);
    let rows = config.targets.iter().map(|(name, target)| {
        [
            name.to_string(),
            target.rate.to_string(),
            match target.process {
                Process::Even => "even".to_owned(),
                Process::Burst { size } => format!("burst of {size}"),
            },
            target.http.method.to_string(),
            target.http.shown_url(),
            display_duration(target.timeout),
            target.max_in_flight.to_string(),
        ]
    });
    let rows: Vec<_> = std::iter::once(titles).chain(rows).collect();
    let widths: Vec<_> =
        (0..7).map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or_default()).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    let in_flight = config.targets.values().map(|target| target.max_in_flight).fold(0, usize::saturating_add);
    let in_flight = in_flight.min(config.limits.max_total_in_flight);
    let count = config.targets.len();
    let targets = if count == 1 { "target" } else { "targets" };
    let rate = display_total(total(config.targets.values().map(|target| target.rate)));
    let whole = format!("\n{count} {targets}, {rate} in total, at most {in_flight} requests in flight\n");
    text + &whole + &part(config.shard.as_ref())
}

/// What of all that this process does, when it is not everything.
fn part(shard: Option<&Shard>) -> String {
    match shard {
        None => String::new(),
        Some(Shard::Fixed { stripe, .. }) => {
            let (index, count) = (stripe.index(), stripe.count());
            format!("of which this replica, number {index} of {count} counted from 0, sends 1/{count}\n")
        }
        Some(Shard::Members(members)) => {
            format!("of which this replica sends its part among the addresses of {}\n", members.name)
        }
    }
}

/// What differs between two configurations and can't change while the process runs: a message for each.
pub fn frozen_differences(running: &Config, next: &Config) -> Vec<String> {
    let frozen = |config: &Config| {
        [
            ("server.listen", listen(config)),
            ("server.lifecycle", config.server.lifecycle.to_string()),
            ("engine.workers", config.engine.workers.map_or_else(|| "auto".to_owned(), |count| count.to_string())),
            ("metrics.buckets", format!("{:?}", config.metrics.buckets)),
            ("metrics.native_schema", config.metrics.native_schema.to_string()),
            ("shard", sharing(config.shard.as_ref()).to_owned()),
        ]
    };
    let pairs = frozen(running).into_iter().zip(frozen(next));
    pairs
        .filter(|((_, was), (_, is))| was != is)
        .map(|((key, was), (_, is))| format!("{key}: can't change from {was} to {is} while running; restart hammerd"))
        .collect()
}

/// How the streams are shared.
fn sharing(shard: Option<&Shard>) -> &'static str {
    match shard {
        None => "none",
        Some(Shard::Fixed { .. }) => "index and count",
        Some(Shard::Members(_)) => "members",
    }
}

fn listen(config: &Config) -> String {
    config.server.listen.map_or_else(|| "off".to_owned(), |address| address.to_string())
}

// === impl HttpRequest ===

impl HttpRequest {
    /// The URL, unless it is a secret.
    pub fn shown_url(&self) -> String {
        if self.secret_url {
            return SECRET.to_owned();
        }
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}{}", self.authority(), self.path)
    }

    /// What the `host` header says when no other was asked for.
    fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == url::usual_port(self.tls.is_some()) { host } else { format!("{host}:{}", self.port) }
    }
}

impl fmt::Debug for HttpRequest {
    /// Without secrets: header values know whether they are one, a body is shown as its length.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpRequest")
            .field("method", &self.method)
            .field("url", &self.shown_url())
            .field("headers", &self.headers)
            .field("request_id_header", &self.request_id_header)
            .field("body_bytes", &self.body.len())
            .field("expect_status", &self.expect_status)
            .field("max_body", &self.max_body)
            .finish_non_exhaustive()
    }
}

/// A configuration in TOML, with every default, and without a secret or a key that does nothing beside others.
pub fn redacted(config: &Config) -> String {
    let mut toml = Toml::default();
    toml.section(&["config"]);
    toml.bare("watch", &config.following.watch);
    toml.text("refresh", &display_duration(config.following.refresh));
    toml.section(&["server"]);
    toml.text("listen", &listen(config));
    if config.server.listen.is_some() {
        toml.bare("lifecycle", &config.server.lifecycle);
    }
    toml.section(&["shutdown"]);
    toml.text("grace", &display_duration(config.shutdown.grace));
    if config.server.listen.is_some() {
        toml.text("linger", &display_duration(config.shutdown.linger));
    }
    toml.section(&["engine"]);
    match config.engine.workers {
        Some(workers) => toml.bare("workers", &workers),
        None => toml.text("workers", "auto"),
    }
    toml.text("coalesce", &display_duration(config.engine.coalesce));
    toml.text("late_after", &display_duration(config.engine.late_after));
    limits(&mut toml, &config.limits);
    toml.section(&["metrics"]);
    metrics(&mut toml, &config.metrics);
    if let Some(shard) = &config.shard {
        toml.section(&["shard"]);
        self::shard(&mut toml, shard);
    }
    for (name, value) in &config.targets {
        target(&mut toml, name, value, &config.metrics);
    }
    toml.0
}

fn shard(toml: &mut Toml, shard: &Shard) {
    match shard {
        Shard::Fixed { stripe, refresh } => {
            toml.bare("index", &stripe.index());
            toml.bare("count", &stripe.count());
            toml.text("refresh", &display_duration(*refresh));
        }
        Shard::Members(members) => {
            toml.text("members", &members.name);
            if let Some(address) = members.address {
                toml.text("address", &address.to_string());
            }
            toml.text("refresh", &display_duration(members.refresh));
        }
    }
}

fn limits(toml: &mut Toml, limits: &Limits) {
    toml.section(&["limits"]);
    toml.text("max_total_rate", &limits.max_total_rate.to_string());
    toml.bare("max_total_in_flight", &limits.max_total_in_flight);
    toml.bare("max_targets", &limits.max_targets);
    toml.text("max_body", &display_size(limits.max_body));
    toml.list("deny_networks", limits.deny_networks.iter().map(ToString::to_string));
    toml.list("allow_networks", limits.allow_networks.iter().map(ToString::to_string));
}

fn metrics(toml: &mut Toml, metrics: &Metrics) {
    toml.bare("buckets", &format_args!("{:?}", metrics.buckets));
    toml.bare("native_schema", &metrics.native_schema);
}

fn target(toml: &mut Toml, name: &TargetName, target: &Target, usual: &Metrics) {
    let http = &target.http;
    toml.section(&["targets", name.as_ref()]);
    toml.text("url", &http.shown_url());
    toml.text("rate", &target.rate.to_string());
    match target.process {
        Process::Even => toml.text("process", "even"),
        Process::Burst { size } => {
            toml.text("process", "burst");
            toml.bare("burst", &size);
        }
    }
    toml.text("method", http.method.as_str());
    if let Some(header) = &http.request_id_header {
        toml.text("request_id_header", header.as_str());
    }
    toml.text("traceparent", http.traceparent.label());
    if http.secret_body {
        toml.text("body", SECRET);
    } else if !http.body.is_empty() {
        toml.text("body", &String::from_utf8_lossy(&http.body));
    }
    toml.text("timeout", &display_duration(target.timeout));
    toml.bare("max_in_flight", &target.max_in_flight);
    toml.text("max_body", &display_size(http.max_body));
    toml.list("expect_status", http.expect_status.texts());
    if target.metrics != *usual {
        metrics(toml, &target.metrics);
    }
    connection(toml, name, target);
    toml.section(&["targets", name.as_ref(), "headers"]);
    for (header, value) in &http.headers {
        if header == HOST && *value == http.authority() {
            continue;
        }
        let shown = if value.is_sensitive() { SECRET.into() } else { String::from_utf8_lossy(value.as_bytes()) };
        toml.text(header.as_str(), &shown);
    }
    if !target.labels.is_empty() {
        toml.section(&["targets", name.as_ref(), "labels"]);
        for (label, value) in &target.labels {
            toml.text(label, value);
        }
    }
}

fn connection(toml: &mut Toml, name: &TargetName, target: &Target) {
    let (http, route) = (&target.http, &target.http.route);
    let shown = |text: &str| if http.secret_connection { SECRET.to_owned() } else { text.to_owned() };
    let url_peer = Peer::Tcp { host: http.host.clone(), port: http.port };
    if route.peer != url_peer {
        toml.text("connect_to", &shown(&route.peer.to_string()));
    }
    toml.text("http_version", http.version.label());
    if let Some(tls) = &http.tls {
        let tls = tls.spec();
        toml.section(&["targets", name.as_ref(), "tls"]);
        if tls.server_name != http.host {
            toml.text("server_name", &shown(&tls.server_name));
        }
        if let Some((file, _)) = tls.ca.as_ref().filter(|_| does_something(target, "tls.ca_file")) {
            toml.text("ca_file", &shown(&file.to_string_lossy()));
        }
        if let Some(identity) = &tls.identity {
            toml.text("cert_file", &shown(&identity.cert_file.to_string_lossy()));
            toml.text("key_file", &shown(&identity.key_file.to_string_lossy()));
        }
        toml.text("min_version", tls.min_version.label());
        toml.bare("insecure_skip_verify", &tls.insecure_skip_verify);
        toml.bare("resumption", &tls.resumption);
        if does_something(target, "tls.handshake_timeout") {
            toml.text("handshake_timeout", &display_duration(tls.handshake_timeout));
        }
    }
    if does_something(target, "dns") {
        toml.section(&["targets", name.as_ref(), "dns"]);
        match route.refresh {
            Refresh::Ttl => toml.text("refresh", "ttl"),
            Refresh::Once => toml.text("refresh", "once"),
            Refresh::Every(span) => toml.text("refresh", &display_duration(span)),
        }
        toml.text("family", route.family.label());
        toml.list("servers", route.servers.iter().map(ToString::to_string));
    }
    pool(toml, name, target);
}

fn pool(toml: &mut Toml, name: &TargetName, target: &Target) {
    let (pool, does) = (&target.http.pool, |key| does_something(target, key));
    toml.section(&["targets", name.as_ref(), "pool"]);
    if let Some(max) = pool.max_connections.filter(|_| does("pool.max_connections")) {
        toml.bare("max_connections", &max);
    }
    toml.bare("reuse", &pool.reuse);
    if does("pool.max_age") {
        toml.text("max_age", &display_duration(pool.max_age));
    }
    if let Some(max) = pool.max_requests.filter(|_| does("pool.max_requests")) {
        toml.bare("max_requests", &max);
    }
    if does("pool.idle_timeout") {
        toml.text("idle_timeout", &display_duration(pool.idle_timeout));
    }
    toml.bare("preconnect", &pool.preconnect);
    if does("pool.connect_timeout") {
        toml.text("connect_timeout", &display_duration(target.http.route.connect_timeout));
    }
}

/// A TOML text in the making.
#[derive(Default)]
struct Toml(String);

impl Toml {
    fn section(&mut self, path: &[&str]) {
        let path: Vec<_> = path.iter().map(|name| toml_key(name)).collect();
        let gap = if self.0.is_empty() { "" } else { "\n" };
        self.line(format_args!("{gap}[{}]", path.join(".")));
    }

    fn bare(&mut self, key: &str, value: &dyn fmt::Display) {
        self.line(format_args!("{} = {value}", toml_key(key)));
    }

    fn line(&mut self, line: fmt::Arguments<'_>) {
        // Writing to a String does not fail.
        let _ = writeln!(self.0, "{line}");
    }

    fn text(&mut self, key: &str, value: &str) {
        self.bare(key, &toml_text(value));
    }

    fn list(&mut self, key: &str, values: impl Iterator<Item = String>) {
        let values: Vec<_> = values.map(|value| toml_text(&value)).collect();
        self.bare(key, &format_args!("[{}]", values.join(", ")));
    }
}

fn toml_key(name: &str) -> String {
    let bare = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    if bare && !name.is_empty() { name.to_owned() } else { toml_text(name) }
}

/// A basic string. A `${` is written as it must be for the text to be read back as it is.
fn toml_text(value: &str) -> String {
    let mut text = String::with_capacity(value.len() + 2);
    text.push('"');
    for c in value.replace("${", "$${").chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            c if c.is_control() => text.extend(format!("\\u{:04X}", c as u32).chars()),
            c => text.push(c),
        }
    }
    text.push('"');
    text
}
