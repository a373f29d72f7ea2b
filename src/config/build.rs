//! From what was written to what holds: defaults applied, files read, keys that depend on each other compared.

mod connection;
mod headers;
mod shard;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;

use self::headers::header_map;
use super::error::{Mistakes, Origins, Place, join, quote};
use super::files::Files;
use super::futile;
use super::kind::{MAX_SIZE, ProcessWord, display_size};
use super::node::HIDDEN;
use super::rates::{display_total, total};
use super::section::{self, Found, Root, Slot};
use super::url::Endpoint;
use super::{Config, Engine, Following, HttpRequest, Limits, Metrics, Server, Shutdown, Target, TargetName};
use crate::net::SystemRoots;
use crate::pace::Process;

/// Largest file of a header's value or a URL, in bytes.
const MAX_SECRET: u64 = 64 << 10;

/// Puts everything together. `None` only when mistakes were noted.
pub(super) fn config(root: &Root, files: &mut Files, origins: &Origins, mistakes: &mut Mistakes) -> Option<Config> {
    let targets = targets(root, files, origins, mistakes);
    check_ceilings(root, origins, mistakes);
    check_networks(root, mistakes);
    check_unheard(root, origins, mistakes);
    let shard = shard::shard(root.shard.value()?, mistakes);
    Some(Config {
        following: following(root.config.value()?)?,
        server: server(root.server.value()?)?,
        shutdown: shutdown(root.shutdown.value()?)?,
        engine: engine(root.engine.value()?)?,
        limits: limits(root.limits.value()?)?,
        metrics: metrics(root.metrics.value()?)?,
        shard: shard.ok()?,
        targets: targets?,
    })
}

fn following(raw: &section::Following) -> Option<Following> {
    Some(Following { watch: *raw.watch.value()?, refresh: *raw.refresh.value()? })
}

fn server(raw: &section::Server) -> Option<Server> {
    Some(Server { listen: *raw.listen.value()?, lifecycle: *raw.lifecycle.value()? })
}

fn shutdown(raw: &section::Shutdown) -> Option<Shutdown> {
    Some(Shutdown { grace: *raw.grace.value()?, linger: *raw.linger.value()? })
}

fn engine(raw: &section::Engine) -> Option<Engine> {
    Some(Engine {
        workers: *raw.workers.value()?,
        coalesce: *raw.coalesce.value()?,
        late_after: *raw.late_after.value()?,
    })
}

fn limits(raw: &section::Limits) -> Option<Limits> {
    Some(Limits {
        max_total_rate: *raw.max_total_rate.value()?,
        max_total_in_flight: *raw.max_total_in_flight.value()? as usize,
        max_targets: *raw.max_targets.value()? as usize,
        max_body: *raw.max_body.value()?,
        deny_networks: raw.deny_networks.value()?.clone(),
        allow_networks: raw.allow_networks.value()?.clone(),
    })
}

fn metrics(raw: &section::Metrics) -> Option<Metrics> {
    Some(Metrics { buckets: raw.buckets.value()?.as_slice().into(), native_schema: *raw.native_schema.value()? as u8 })
}

fn targets(
    root: &Root,
    files: &mut Files,
    origins: &Origins,
    mistakes: &mut Mistakes,
) -> Option<BTreeMap<TargetName, Target>> {
    if root.targets.is_absent() || root.targets.value().is_some_and(BTreeMap::is_empty) {
        let text = "there is none; at least one is needed, as in [targets.checkout]";
        mistakes.push(origins.last_text(), "targets", text);
    }
    let raw = root.targets.value()?;
    // A ceiling that was refused holds nobody back: its own mistake is enough.
    let limits = root.limits.value();
    let max_body = limits.and_then(|limits| limits.max_body.value()).copied().unwrap_or(MAX_SIZE);
    let max_total_in_flight = limits.and_then(|limits| limits.max_total_in_flight.value()).copied().unwrap_or(u64::MAX);
    let mut shared = Build {
        defaults: root.defaults.value()?,
        metrics: root.metrics.value().and_then(metrics),
        origins,
        mistakes,
        files,
        system_roots: SystemRoots::default(),
        headers: HeaderMap::new(),
        max_body,
        max_total_in_flight,
    };
    let mut headers = HeaderMap::new();
    shared.overlay_headers(&mut headers, shared.defaults, "defaults");
    shared.headers = headers;
    // Every target is looked at, also when one is refused.
    let all: Vec<_> = raw.iter().map(|(name, found)| Some((name.clone(), shared.target(name, found)?))).collect();
    all.into_iter().collect()
}

/// Compares the sums over all targets with their ceilings.
fn check_ceilings(root: &Root, origins: &Origins, mistakes: &mut Mistakes) -> Option<()> {
    // A ceiling is broken where it is set, or, when nobody set it, in the file.
    let blame = |place| if origins.is_built_in(place) { origins.last_text() } else { place };
    let (limits, targets) = (root.limits.value()?, root.targets.value()?);
    if let Some(max) = limits.max_targets.found()
        && targets.len() as u64 > max.value
    {
        let text = format!("{} targets are too many: at most {} are accepted", targets.len(), max.value);
        mistakes.push(blame(max.place), "limits.max_targets", text);
    }
    let default_rate = &root.defaults.value()?.rate;
    let rates = targets.iter().filter_map(|(name, raw)| Some((name, *raw.value.rate.or(default_rate).value()?)));
    let sum = total(rates.clone().map(|(_, rate)| rate));
    let max = limits.max_total_rate.found()?;
    if sum > total([max.value]) {
        let (name, largest) = rates.max_by(|(_, a), (_, b)| a.as_per_second().total_cmp(&b.as_per_second()))?;
        let text = format!(
            "the targets' rates add up to {}, above {} (the largest is {name} with {largest})",
            display_total(sum),
            max.value,
        );
        mistakes.push(blame(max.place), "limits.max_total_rate", text);
    }
    Some(())
}

/// A denial wins: where it holds all that is allowed, nothing is left.
fn check_networks(root: &Root, mistakes: &mut Mistakes) -> Option<()> {
    let limits = root.limits.value()?;
    let (allow, deny) = (limits.allow_networks.found()?, limits.deny_networks.value()?);
    let denied = |network| deny.iter().any(|denied| denied.contains(network));
    if !allow.value.is_empty() && allow.value.iter().all(denied) {
        let text = "leaves nothing to dial: all of it lies in limits.deny_networks";
        mistakes.push(allow.place, "limits.allow_networks", text);
    }
    Some(())
}

/// Without the HTTP face, some keys have nobody whom they could serve.
fn check_unheard(root: &Root, origins: &Origins, mistakes: &mut Mistakes) -> Option<()> {
    let listen = root.server.key(|server| &server.listen)?.found().filter(|listen| listen.value.is_none())?;
    let lifecycle = root.server.key(|server| &server.lifecycle)?.found().filter(|lifecycle| lifecycle.value);
    let linger = root.shutdown.key(|shutdown| &shutdown.linger)?.found();
    for (place, key, nobody) in [
        (lifecycle.map(|found| found.place), "server.lifecycle", "asks for a reload over HTTP"),
        (linger.map(|found| found.place), "shutdown.linger", "scrapes"),
    ] {
        // Who switches it off in a later layer may leave the rest as it is.
        let futile = |place: &Place| !origins.is_built_in(*place) && listen.place.layer <= place.layer;
        if let Some(place) = place.filter(futile) {
            mistakes.push(place, key, format!("set, but server.listen is \"off\": nobody {nobody}"));
        }
    }
    Some(())
}

/// What is shared while targets are built.
struct Build<'a> {
    defaults: &'a section::Target,
    /// The shape of the histograms of targets that say nothing of theirs; `None` when it was refused.
    metrics: Option<Metrics>,
    origins: &'a Origins,
    mistakes: &'a mut Mistakes,
    files: &'a mut Files,
    system_roots: SystemRoots,
    /// The headers that every target has.
    headers: HeaderMap,
    max_body: u64,
    max_total_in_flight: u64,
}

/// Which of a key and its `_file` twin counts.
enum Twin<'a, T> {
    Neither,
    Refused,
    Inline(&'a Found<T>),
    File(&'a Found<PathBuf>),
}

impl<'a> Build<'a> {
    fn target(&mut self, name: &TargetName, raw: &'a Found<section::Target>) -> Option<Target> {
        let path = join("targets", name.as_ref());
        let (own, defaults) = (&raw.value, self.defaults);
        let endpoint = self.endpoint(own, raw.place, &path);
        let body = self.body(own, &path);
        let mut headers = self.headers.clone();
        self.overlay_headers(&mut headers, own, &path);
        let request_id_header = self.request_id_header(own, name, &headers, &path);
        let traceparent = self.traceparent(own, name, &headers, request_id_header.as_ref(), &path);
        let rate = own.rate.or(&defaults.rate);
        if rate.is_absent() {
            self.mistakes.push(raw.place, &path, "rate is not set, nor in [defaults]");
        }
        let process = self.process(own, raw.place, &path);
        let max_body = self.max_body(own, &path);
        let max_in_flight = self.max_in_flight(own, &path);
        let mut labels = defaults.labels.value().cloned().unwrap_or_default();
        labels.extend(own.labels.value().cloned().unwrap_or_default());

        let timeout = *own.timeout.or(&defaults.timeout).value()?;
        let (endpoint, secret_url) = endpoint?;
        let headers = header_map(headers, &endpoint, secret_url);
        let connection = self.connection(own, raw.place, &path, &endpoint, &headers);
        let (body, secret_body) = body?;
        let connection = connection?;
        let target = Target {
            rate: *rate.value()?,
            process: process?,
            timeout,
            max_in_flight: max_in_flight?,
            labels,
            metrics: self.metrics(own, timeout)?,
            http: Arc::new(HttpRequest {
                method: own.method.or(&defaults.method).value()?.clone(),
                headers,
                request_id_header,
                traceparent: traceparent?,
                host: endpoint.host,
                port: endpoint.port,
                path: endpoint.path,
                route: connection.route,
                tls: connection.tls,
                version: connection.version,
                pool: connection.pool,
                secret_connection: connection.secret,
                body,
                expect_status: own.expect_status.or(&defaults.expect_status).value()?.clone(),
                max_body: max_body?,
                secret_url,
                secret_body,
            }),
        };
        futile::refuse(&target, (own, &path), defaults, self.origins, self.mistakes);
        Some(target)
    }

    fn endpoint(&mut self, own: &'a section::Target, place: Place, path: &str) -> Option<(Endpoint, bool)> {
        let own_url = !own.url.is_absent() || !own.url_file.is_absent();
        let (target, path) = (path, if own_url { path } else { "defaults" });
        let raw = if own_url { own } else { self.defaults };
        match self.twin(&raw.url, &raw.url_file, path, "url") {
            Twin::Inline(url) => Some((url.value.clone(), url.secret)),
            Twin::File(file) => {
                let text = self.secret_text(file, &join(path, "url_file"))?;
                match Endpoint::parse(&text) {
                    Ok(endpoint) => Some((endpoint, true)),
                    Err(error) => {
                        let text = format!("its content (not shown) is not accepted: {error}");
                        self.mistakes.push(file.place, join(path, "url_file"), text);
                        None
                    }
                }
            }
            Twin::Refused => None,
            Twin::Neither => {
                self.mistakes.push(place, target, "neither url nor url_file is set, nor in [defaults]");
                None
            }
        }
    }

    fn body(&mut self, own: &'a section::Target, path: &str) -> Option<(Bytes, bool)> {
        let own_body = !own.body.is_absent() || !own.body_file.is_absent();
        let (raw, path) = if own_body { (own, path) } else { (self.defaults, "defaults") };
        match self.twin(&raw.body, &raw.body_file, path, "body") {
            Twin::Inline(body) if body.value.len() as u64 > self.max_body => {
                let text =
                    format!("{} bytes are above limits.max_body, {}", body.value.len(), display_size(self.max_body));
                self.mistakes.push(body.place, join(path, "body"), text);
                None
            }
            Twin::Inline(body) => Some((body.value.clone(), body.secret || self.origins.is_environment(body.place))),
            Twin::File(file) => Some((self.read(file, &join(path, "body_file"), self.max_body)?, true)),
            Twin::Refused => None,
            Twin::Neither => Some((Bytes::new(), false)),
        }
    }

    /// A key and its twin exclude each other inside a layer; across layers the later one wins.
    fn twin<T>(&mut self, inline: &'a Slot<T>, file: &'a Slot<PathBuf>, path: &str, name: &str) -> Twin<'a, T> {
        match (inline, file) {
            (Slot::Absent, Slot::Absent) => Twin::Neither,
            (Slot::Found(inline), Slot::Absent) => Twin::Inline(inline),
            (Slot::Absent, Slot::Found(file)) => Twin::File(file),
            (Slot::Found(inline), Slot::Found(file)) if inline.place.layer > file.place.layer => Twin::Inline(inline),
            (Slot::Found(inline), Slot::Found(file)) if inline.place.layer < file.place.layer => Twin::File(file),
            (Slot::Found(inline), Slot::Found(file)) => {
                let text = format!("{name} and {name}_file are both set; leave one out");
                self.mistakes.push(inline.place.max(file.place), path, text);
                Twin::Refused
            }
            _ => Twin::Refused,
        }
    }

    fn process(&mut self, own: &section::Target, place: Place, path: &str) -> Option<Process> {
        let word = own.process.or(&self.defaults.process).found()?;
        match word.value {
            ProcessWord::Even => {
                // A later layer that goes back to even takes the burst of an earlier one away.
                if let Some(burst) = own.burst.found().filter(|burst| burst.place.layer >= word.place.layer) {
                    let text = "set without process = \"burst\"";
                    self.mistakes.push(burst.place, join(path, "burst"), text);
                }
                Some(Process::Even)
            }
            ProcessWord::Burst => {
                let size = own.burst.or(&self.defaults.burst);
                if size.is_absent() {
                    let text = "process = \"burst\" needs burst, the number of requests at once";
                    self.mistakes.push(place, path, text);
                }
                Some(Process::Burst { size: *size.value()? as u32 })
            }
        }
    }

    fn max_body(&mut self, own: &section::Target, path: &str) -> Option<u64> {
        let path = if own.max_body.is_absent() { "defaults" } else { path };
        match own.max_body.or(&self.defaults.max_body) {
            Slot::Absent => Some(self.max_body),
            Slot::Refused => None,
            Slot::Found(max) if max.value > self.max_body => {
                let (max_body, limit) = (display_size(max.value), display_size(self.max_body));
                let text = format!("{max_body} is above limits.max_body, {limit}");
                self.mistakes.push(max.place, join(path, "max_body"), text);
                None
            }
            Slot::Found(max) => Some(max.value),
        }
    }

    /// Buckets that end below the timeout would hide how long the slow requests took.
    fn metrics(&self, own: &section::Target, timeout: Duration) -> Option<Metrics> {
        let mut metrics = self.metrics.clone()?;
        match own.buckets.or(&self.defaults.buckets) {
            Slot::Absent => {}
            Slot::Refused => return None,
            Slot::Found(buckets) => metrics.buckets = buckets.value.as_slice().into(),
        }
        match own.native_schema.or(&self.defaults.native_schema) {
            Slot::Absent => {}
            Slot::Refused => return None,
            Slot::Found(schema) => metrics.native_schema = schema.value as u8,
        }
        let timeout_s = timeout.as_secs_f64();
        if metrics.buckets.last().is_none_or(|last| *last < timeout_s) {
            metrics.buckets = metrics.buckets.iter().copied().chain([timeout_s]).collect();
        }
        Some(metrics)
    }

    fn max_in_flight(&mut self, own: &section::Target, path: &str) -> Option<usize> {
        let path = if own.max_in_flight.is_absent() { "defaults" } else { path };
        let max = own.max_in_flight.or(&self.defaults.max_in_flight).found()?;
        if max.value > self.max_total_in_flight && !self.origins.is_built_in(max.place) {
            let text = format!("{} is above limits.max_total_in_flight, {}", max.value, self.max_total_in_flight);
            self.mistakes.push(max.place, join(path, "max_in_flight"), text);
        }
        Some(max.value.min(self.max_total_in_flight) as usize)
    }

    /// The text of a file without the line break at its end. An empty one is a secret that got lost.
    fn secret_text(&mut self, file: &Found<PathBuf>, key: &str) -> Option<String> {
        let bytes = self.read(file, key, MAX_SECRET)?;
        let text = std::str::from_utf8(&bytes).map(|text| text.trim_end_matches(['\r', '\n']));
        match text {
            Ok("") => self.refuse_file(file, key, "it is empty"),
            Ok(text) => return Some(text.to_owned()),
            Err(_) => self.refuse_file(file, key, "it is not UTF-8 text"),
        }
        None
    }

    fn read(&mut self, file: &Found<PathBuf>, key: &str, max_bytes: u64) -> Option<Bytes> {
        match self.files.read(&file.value, max_bytes) {
            Ok(bytes) => Some(bytes),
            Err(why) => {
                self.refuse_file(file, key, &why);
                None
            }
        }
    }

    fn refuse_file(&mut self, file: &Found<PathBuf>, key: &str, why: &str) {
        let path = if file.secret { HIDDEN.to_owned() } else { quote(&file.value.to_string_lossy()) };
        self.mistakes.push(file.place, key, format!("{path} can't be used: {why}"));
    }
}
