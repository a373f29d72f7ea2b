//! How a target is reached: route, TLS, HTTP version, pool.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use http::header::HOST;

use super::super::error::{Place, join};
use super::super::section::{self, Found, Slot};
use super::super::url::{self, Endpoint};
use super::{Build, MAX_SECRET};
use crate::net::{HttpVersion, IdentityFiles, Peer, PoolPolicy, Route, Tls, TlsError, TlsSpec};

/// What [`Build::connection`] puts together.
pub(super) struct Connection {
    pub(super) route: Route,
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) version: HttpVersion,
    pub(super) pool: PoolPolicy,
    /// Whether a variable was expanded in what is shown of it.
    pub(super) secret: bool,
}

/// Mistakes were noted.
struct Noted;

/// A key of a target's inner section, and the path of the target or of the defaults that set it.
struct Pick<'a, T> {
    found: &'a Found<T>,
    path: &'a str,
}

/// The target's own key, or that of the defaults.
fn pick<'a, S, T>(
    (own, path): (&'a Slot<S>, &'a str),
    defaults: &'a Slot<S>,
    key: impl Fn(&S) -> &Slot<T>,
) -> Option<Pick<'a, T>> {
    match own.key(&key) {
        Some(Slot::Found(found)) => Some(Pick { found, path }),
        Some(Slot::Refused) => None,
        Some(Slot::Absent) | None => defaults.key(&key)?.found().map(|found| Pick { found, path: "defaults" }),
    }
}

/// What a version of HTTP depends on.
#[expect(clippy::struct_excessive_bools, reason = "each is a condition by itself")]
struct Circumstances<'a> {
    /// Whether HTTP/3 is built in.
    http3: bool,
    secure: bool,
    peer: Option<&'a Peer>,
    reuse: bool,
    /// Whether the host header can be an authority.
    authority: bool,
}

/// Why a version of HTTP can't be had.
fn refusals(version: HttpVersion, circumstances: &Circumstances<'_>) -> Vec<&'static str> {
    let Circumstances { http3, secure, peer, reuse, authority } = *circumstances;
    let (is2, is3) = (version == HttpVersion::Http2, version == HttpVersion::Http3);
    let if_so = |holds: bool, text| holds.then_some(text);
    [
        if_so(is3 && !http3, "this hammerd was built without HTTP/3; one that has it is built with --features http3"),
        if_so(is3 && !secure, "HTTP/3 is always over TLS: it needs a URL that begins with https://"),
        if_so(
            is3 && matches!(peer, Some(Peer::Unix(_))),
            "HTTP/3 goes over UDP: connect_to can be a host and port, and no Unix domain socket",
        ),
        if_so(is2 && !reuse, "HTTP/2 is many requests on one connection: it can't be had with pool.reuse = false"),
        if_so(is3 && !reuse, "HTTP/3 is many requests on one connection: it can't be had with pool.reuse = false"),
        if_so(
            (is2 || is3) && !authority,
            "HTTP/2 and HTTP/3 send the host header as the authority, which is a host and port: it can't be this one",
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn has_secret(tls: &section::Tls) -> bool {
    let secret = |file: &Slot<PathBuf>| file.found().is_some_and(|found| found.secret);
    [&tls.ca_file, &tls.cert_file, &tls.key_file].into_iter().any(secret)
        || tls.server_name.found().is_some_and(|found| found.secret)
}

impl<'a> Build<'a> {
    /// `None` only when mistakes were noted.
    pub(super) fn connection<'b>(
        &mut self,
        own: &'b section::Target,
        place: Place,
        path: &'b str,
        endpoint: &Endpoint,
        headers: &HeaderMap,
    ) -> Option<Connection>
    where
        'a: 'b,
    {
        let pool = self.pool(own, path);
        let authority = headers.get(HOST).and_then(url::authority).is_some();
        let version = own.http_version.or(&self.defaults.http_version).found();
        let route = self.route(own, path, endpoint);
        if let Some(version) = version {
            let circumstances = Circumstances {
                http3: cfg!(feature = "http3"),
                secure: endpoint.secure,
                peer: route.as_ref().map(|route| &route.peer),
                reuse: pool.is_none_or(|pool| pool.reuse),
                authority,
            };
            for text in refusals(version.value, &circumstances) {
                self.mistakes.push(version.place, join(path, "http_version"), text);
            }
        }
        let alpn: &[&'static [u8]] = match version.map(|version| version.value) {
            Some(HttpVersion::Http3) => &[b"h3"],
            Some(HttpVersion::Http2) => &[b"h2"],
            Some(HttpVersion::Auto) if authority && pool.is_some_and(|pool| pool.reuse) => &[b"h2", b"http/1.1"],
            _ => &[b"http/1.1"],
        };
        let tls = self.tls(own, place, path, endpoint, alpn);
        let secret = own.connect_to.or(&self.defaults.connect_to).found().is_some_and(|found| found.secret)
            || [&own.tls, &self.defaults.tls].into_iter().filter_map(Slot::value).any(has_secret);
        Some(Connection { route: route?, tls: tls.ok()?, version: version?.value, pool: pool?, secret })
    }

    fn route<'b>(&mut self, own: &'b section::Target, path: &'b str, endpoint: &Endpoint) -> Option<Route>
    where
        'a: 'b,
    {
        let dns = (&own.dns, path);
        let defaults = self.defaults;
        let refresh = pick(dns, &defaults.dns, |dns| &dns.refresh);
        let family = pick(dns, &defaults.dns, |dns| &dns.family);
        let servers = pick(dns, &defaults.dns, |dns| &dns.servers);
        let connect_timeout = pick((&own.pool, path), &defaults.pool, |pool| &pool.connect_timeout);
        let peer = match own.connect_to.or(&defaults.connect_to) {
            Slot::Absent => Peer::Tcp { host: endpoint.host.clone(), port: endpoint.port },
            Slot::Refused => return None,
            Slot::Found(peer) => peer.value.clone(),
        };
        if let (Peer::Tcp { host, .. }, Some(family)) = (&peer, &family)
            && host.parse().is_ok_and(|literal| !family.found.value.counts(literal))
        {
            let (of, place) = (family.found.value.label(), family.found.place);
            let text = format!("{of:?} leaves nothing to dial: the address of {path} is a literal of the other family");
            self.mistakes.push(place, join(&join(family.path, "dns"), "family"), text);
        }
        Some(Route {
            peer,
            family: family?.found.value,
            refresh: refresh?.found.value,
            servers: servers?.found.value.clone(),
            connect_timeout: connect_timeout?.found.value,
        })
    }

    fn pool<'b>(&mut self, own: &'b section::Target, path: &'b str) -> Option<PoolPolicy>
    where
        'a: 'b,
    {
        let (pool, defaults) = ((&own.pool, path), &self.defaults.pool);
        let max_connections = pick(pool, defaults, |pool| &pool.max_connections);
        let max_requests = pick(pool, defaults, |pool| &pool.max_requests);
        let preconnect = pick(pool, defaults, |pool| &pool.preconnect);
        let policy = PoolPolicy {
            max_connections: max_connections.map(|max| max.found.value as usize),
            reuse: pick(pool, defaults, |pool| &pool.reuse)?.found.value,
            max_age: pick(pool, defaults, |pool| &pool.max_age)?.found.value,
            max_requests: max_requests.map(|max| max.found.value),
            idle_timeout: pick(pool, defaults, |pool| &pool.idle_timeout)?.found.value,
            preconnect: preconnect.as_ref()?.found.value as usize,
        };
        let max_in_flight = own.max_in_flight.or(&self.defaults.max_in_flight).value().copied();
        let most = policy.max_connections.unwrap_or(usize::MAX).min(max_in_flight.unwrap_or(u64::MAX) as usize);
        if let Some(preconnect) = preconnect.filter(|preconnect| preconnect.found.value as usize > most) {
            let text = format!("{} connections are more than are ever in use, {most}", preconnect.found.value);
            self.mistakes.push(preconnect.found.place, join(&join(preconnect.path, "pool"), "preconnect"), text);
        }
        Some(policy)
    }

    /// `None` for plain HTTP.
    fn tls<'b>(
        &mut self,
        own: &'b section::Target,
        place: Place,
        path: &'b str,
        endpoint: &Endpoint,
        alpn: &[&'static [u8]],
    ) -> Result<Option<Arc<Tls>>, Noted>
    where
        'a: 'b,
    {
        if !endpoint.secure {
            if let Some(tls) = own.tls.found() {
                let text = "set, but the URL begins with http://: there is no TLS";
                self.mistakes.push(tls.place, join(path, "tls"), text);
            }
            return Ok(None);
        }
        let (tls, defaults) = ((&own.tls, path), &self.defaults.tls);
        let ca_file = pick(tls, defaults, |tls| &tls.ca_file);
        let cert_file = pick(tls, defaults, |tls| &tls.cert_file);
        let key_file = pick(tls, defaults, |tls| &tls.key_file);
        let server_name = pick(tls, defaults, |tls| &tls.server_name).map(|name| name.found.value.clone());
        let ca = ca_file.as_ref().map(|file| self.pem(file, "ca_file"));
        let identity = self.identity(cert_file.as_ref(), key_file.as_ref());
        let spec = TlsSpec {
            server_name: server_name.unwrap_or_else(|| endpoint.host.trim_end_matches('.').to_owned()),
            ca: match (&ca_file, ca) {
                (Some(file), Some(pem)) => Some((file.found.value.clone(), pem.ok_or(Noted)?)),
                _ => None,
            },
            identity: identity?,
            min_version: pick(tls, defaults, |tls| &tls.min_version).ok_or(Noted)?.found.value,
            insecure_skip_verify: pick(tls, defaults, |tls| &tls.insecure_skip_verify).ok_or(Noted)?.found.value,
            resumption: pick(tls, defaults, |tls| &tls.resumption).ok_or(Noted)?.found.value,
            handshake_timeout: pick(tls, defaults, |tls| &tls.handshake_timeout).ok_or(Noted)?.found.value,
            alpn: alpn.to_vec(),
        };
        let error = match Tls::new(spec, &self.system_roots) {
            Ok(tls) => return Ok(Some(Arc::new(tls))),
            Err(error) => error,
        };
        let blamed = match &error {
            TlsError::Ca(_) => ca_file.map(|file| (file, "ca_file")),
            TlsError::Cert(_) => cert_file.map(|file| (file, "cert_file")),
            TlsError::Key(_) => key_file.map(|file| (file, "key_file")),
            TlsError::ServerName(_) => None,
        };
        if let Some((file, key)) = blamed {
            self.refuse_file(file.found, &join(&join(file.path, "tls"), key), &error.to_string());
        } else {
            let text =
                format!("the URL's host can't be the name in a certificate, and server_name is not set: {error}");
            self.mistakes.push(place, join(path, "tls"), text);
        }
        Err(Noted)
    }

    /// `None` for no client certificate.
    fn identity(
        &mut self,
        cert_file: Option<&Pick<'_, PathBuf>>,
        key_file: Option<&Pick<'_, PathBuf>>,
    ) -> Result<Option<IdentityFiles>, Noted> {
        let (cert_file, key_file) = match (cert_file, key_file) {
            (None, None) => return Ok(None),
            (Some(cert_file), Some(key_file)) => (cert_file, key_file),
            (Some(lone), None) => {
                let text = "set without tls.key_file: a client certificate needs its key";
                self.mistakes.push(lone.found.place, join(&join(lone.path, "tls"), "cert_file"), text);
                return Err(Noted);
            }
            (None, Some(lone)) => {
                let text = "set without tls.cert_file: a key needs its certificate";
                self.mistakes.push(lone.found.place, join(&join(lone.path, "tls"), "key_file"), text);
                return Err(Noted);
            }
        };
        let (cert, key) = (self.pem(cert_file, "cert_file"), self.pem(key_file, "key_file"));
        Ok(Some(IdentityFiles {
            cert_file: cert_file.found.value.clone(),
            key_file: key_file.found.value.clone(),
            cert: cert.ok_or(Noted)?,
            key: key.ok_or(Noted)?,
        }))
    }

    fn pem(&mut self, file: &Pick<'_, PathBuf>, key: &str) -> Option<Bytes> {
        self.read(file.found, &join(&join(file.path, "tls"), key), MAX_PEM)
    }
}

/// Largest file of certificates or of a key, in bytes: the Mozilla list takes a quarter of it.
const MAX_PEM: u64 = 16 * MAX_SECRET;

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever the tests were built with.
    #[test]
    fn a_version_is_refused_for_each_reason_by_itself_and_for_all_at_once() {
        let (port, socket) = (Peer::Tcp { host: "h".to_owned(), port: 1 }, Peer::Unix("/s".into()));
        let (version2, version3) = (HttpVersion::Http2, HttpVersion::Http3);
        let good = || Circumstances { http3: true, secure: true, peer: Some(&port), reuse: true, authority: true };
        let none = Circumstances { http3: false, secure: false, peer: Some(&socket), reuse: false, authority: false };
        assert!(refusals(version3, &good()).is_empty());
        for (version, circumstances, words) in [
            (version3, Circumstances { http3: false, ..good() }, "built with --features http3"),
            (version3, Circumstances { secure: false, ..good() }, "begins with https://"),
            (version3, Circumstances { peer: Some(&socket), ..good() }, "no Unix domain socket"),
            (version3, Circumstances { reuse: false, ..good() }, "HTTP/3 is many requests"),
            (version3, Circumstances { authority: false, ..good() }, "send the host header"),
            (version2, Circumstances { authority: true, ..none }, "HTTP/2 is many requests"),
            (version2, Circumstances { reuse: true, ..none }, "send the host header"),
        ] {
            let refused = refusals(version, &circumstances);
            assert!(refused.len() == 1 && refused[0].contains(words), "{words}: {refused:?}");
        }
        assert_eq!(refusals(version3, &none).len(), 5);
        for version in [HttpVersion::Auto, HttpVersion::Http1] {
            assert!(refusals(version, &none).is_empty(), "{version:?}");
        }
    }
}
