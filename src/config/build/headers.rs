//! The headers of a target's requests: laid over each other, read from files, and those that hammerd fills in.

use http::header::{HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::super::error::{join, quote};
use super::super::kind::header_value;
use super::super::section;
use super::super::url::Endpoint;
use super::super::{TargetName, Traceparent};
use super::Build;

/// The header of a trace context.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

impl Build<'_> {
    /// Lays a section's headers over those that are there.
    pub(super) fn overlay_headers(&mut self, headers: &mut HeaderMap, raw: &section::Target, path: &str) {
        let (none, no_file) = (HeaderMap::default(), HeaderMap::default());
        let inline = raw.headers.value().unwrap_or(&none);
        let files = raw.headers_file.value().unwrap_or(&no_file);
        for (name, file) in files {
            let key = join(&join(path, "headers_file"), name.as_str());
            match inline.get(name) {
                Some(inline) if inline.place.layer > file.place.layer => continue,
                Some(inline) if inline.place.layer == file.place.layer => {
                    self.mistakes.push(file.place, key, "set in headers too; leave one out");
                    continue;
                }
                _ => {}
            }
            let Some(text) = self.secret_text(file, &key) else { continue };
            match header_value(&text) {
                Ok(mut value) => {
                    value.set_sensitive(true);
                    headers.insert(name.clone(), value);
                }
                Err(why) => {
                    let text = format!("its content (not shown) is not accepted: {why}");
                    self.mistakes.push(file.place, key, text);
                }
            }
        }
        for (name, found) in inline {
            if files.get(name).is_some_and(|file| file.place.layer >= found.place.layer) {
                continue;
            }
            let mut value = found.value.clone();
            let environment = self.origins.is_environment(found.place);
            value.set_sensitive(found.secret || environment || is_secret_header(name.as_str()));
            headers.insert(name.clone(), value);
        }
    }

    /// The header of the requests' ids: one that has no value of its own.
    pub(super) fn request_id_header(
        &mut self,
        own: &section::Target,
        name: &TargetName,
        headers: &HeaderMap,
        path: &str,
    ) -> Option<HeaderName> {
        let path = if own.request_id_header.is_absent() { "defaults" } else { path };
        let header = own.request_id_header.or(&self.defaults.request_id_header).found()?;
        if headers.contains_key(&header.value) {
            let shown = quote(header.value.as_str());
            let text = format!("{shown} is in the headers of {name} too: leave it out there, or take another name");
            self.mistakes.push(header.place, join(path, "request_id_header"), text);
        }
        Some(header.value.clone())
    }

    /// Whether a trace context goes with the requests: in a header that has no value of its own and no id.
    pub(super) fn traceparent(
        &mut self,
        own: &section::Target,
        name: &TargetName,
        headers: &HeaderMap,
        id_header: Option<&HeaderName>,
        path: &str,
    ) -> Option<Traceparent> {
        let path = if own.traceparent.is_absent() { "defaults" } else { path };
        let word = own.traceparent.or(&self.defaults.traceparent).found()?;
        let also = match id_header {
            Some(header) if *header == TRACEPARENT => Some("the request_id_header"),
            _ => headers.contains_key(TRACEPARENT).then_some("in the headers"),
        };
        if let (Some(also), true) = (also, word.value != Traceparent::Off) {
            let text = format!("traceparent is {also} of {name} too: leave it out there, or traceparent = \"off\"");
            self.mistakes.push(word.place, join(path, "traceparent"), text);
        }
        Some(word.value)
    }
}

/// The headers as they are sent: `host` first.
pub(super) fn header_map(headers: HeaderMap, endpoint: &Endpoint, secret_url: bool) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(headers.len() + 2);
    let mut authority = endpoint.authority.clone();
    authority.set_sensitive(secret_url);
    map.insert(HOST, authority);
    map.insert(USER_AGENT, HeaderValue::from_static(concat!("hammerd/", env!("CARGO_PKG_VERSION"))));
    map.extend(headers);
    map
}

/// Whether a header of this name holds a secret by custom.
fn is_secret_header(name: &str) -> bool {
    const PARTS: [&str; 9] =
        ["auth", "cookie", "token", "secret", "password", "api-key", "apikey", "credential", "signature"];
    PARTS.iter().any(|part| name.contains(part))
}
