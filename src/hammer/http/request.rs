//! The request of a target, ready to be sent again and again.

use std::cell::Cell;
use std::convert::Infallible;
use std::hash::{BuildHasher as _, RandomState};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Uri};

use crate::config::HttpRequest;

/// Everything about a request that is the same each time.
#[derive(Debug)]
pub(super) struct Template {
    spec: Arc<HttpRequest>,
    uri: Uri,
    /// Whether it says that it has no body (RFC 9110, 8.6): hyper leaves that out, and some servers then answer 411.
    says_empty: bool,
    /// Whether the URI says what the host header would.
    host_in_uri: bool,
}

impl Template {
    /// As HTTP/1.1 has it: the path on the request line, the authority in a header.
    pub(super) fn http1(spec: Arc<HttpRequest>) -> Self {
        let uri = Uri::from(spec.path.clone());
        Self::new(spec, uri, false)
    }

    /// As HTTP/2 has it (RFC 9113, 8.3.1): scheme and authority are parts of the URI. `None` for an authority, as the
    /// configuration has it, that is none.
    pub(super) fn http2(spec: Arc<HttpRequest>) -> Option<Self> {
        let uri = Uri::builder()
            .scheme(if spec.tls.is_some() { "https" } else { "http" })
            .authority(spec.headers.get(HOST)?.as_bytes())
            .path_and_query(spec.path.clone());
        Some(Self::new(spec, uri.build().ok()?, true))
    }

    fn new(spec: Arc<HttpRequest>, uri: Uri, host_in_uri: bool) -> Self {
        let has_body = [Method::POST, Method::PUT, Method::PATCH].contains(&spec.method);
        Self { uri, says_empty: has_body && spec.body.is_empty(), host_in_uri, spec }
    }

    /// What it was made of.
    pub(super) fn spec(&self) -> &Arc<HttpRequest> {
        &self.spec
    }

    /// The request, with its id if it has one. `spare` is an old response's header map, emptied: hyper turns a request's map into its response's, so
    /// passing it back spares its allocations.
    pub(super) fn request(&self, spare: Option<HeaderMap>, id: Option<Id<'_>>) -> Request<Payload> {
        let mut headers = match spare {
            Some(mut headers) => {
                headers.extend(self.spec.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
                headers
            }
            None => self.spec.headers.clone(),
        };
        if self.host_in_uri {
            headers.remove(HOST);
        }
        if self.says_empty {
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        if let Some((name, value)) = id.and_then(Id::header) {
            headers.insert(name, value);
        }
        let mut request = Request::new(Payload((!self.spec.body.is_empty()).then(|| Arc::clone(&self.spec))));
        *request.method_mut() = self.spec.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = headers;
        request
    }
}

/// Gives every request of a hammer an id of its own.
#[derive(Debug)]
pub(super) struct Ids {
    header: HeaderName,
    /// Random: what tells them from those of other hammers, here, before a reload, and anywhere else.
    prefix: u64,
    drawn: Cell<u64>,
}

/// The id of one request, which it keeps however often it is sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Id<'a> {
    ids: &'a Ids,
    number: u64,
}

impl Ids {
    /// Those that a target asks for.
    pub(super) fn of(spec: &HttpRequest) -> Option<Self> {
        let header = spec.request_id_header.clone()?;
        Some(Self { header, prefix: RandomState::new().hash_one(()), drawn: Cell::new(0) })
    }

    /// The next one.
    pub(super) fn draw(&self) -> Id<'_> {
        Id { ids: self, number: self.drawn.replace(self.drawn.get().wrapping_add(1)) }
    }
}

impl Id<'_> {
    /// The header that carries it: prefix and number, 16 hexadecimal digits each.
    fn header(self) -> Option<(HeaderName, HeaderValue)> {
        let id = u128::from(self.ids.prefix) << 64 | u128::from(self.number);
        let digits: [u8; 32] =
            std::array::from_fn(|place| b"0123456789abcdef"[(id >> (124 - 4 * place)) as usize & 15]);
        Some((self.ids.header.clone(), HeaderValue::from_bytes(&digits).ok()?))
    }
}

/// A request body that is all there; `None` when there is none, or once it was taken. A pointer, not the bytes: hyper has
/// room for dozens of requests on each connection.
#[derive(Debug)]
pub(super) struct Payload(Option<Arc<HttpRequest>>);

impl Body for Payload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|spec| Ok(Frame::data(spec.body.clone()))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |spec| spec.body.len() as u64))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn ids() -> Ids {
        Ids {
            header: HeaderName::from_static("x-request-id"),
            prefix: RandomState::new().hash_one(()),
            drawn: Cell::new(0),
        }
    }

    fn text(id: Id<'_>) -> String {
        let (name, value) = id.header().expect("a header");
        assert_eq!(name, "x-request-id");
        value.to_str().expect("digits").to_owned()
    }

    #[test]
    fn an_id_is_prefix_and_number_in_hexadecimal_digits() {
        let ids = Ids { prefix: 0x0123_4567_89ab_cdef, drawn: Cell::new(0xfe), ..ids() };
        let texts = [0; 3].map(|_| text(ids.draw()));
        let numbers = ["00000000000000fe", "00000000000000ff", "0000000000000100"];
        assert_eq!(texts, numbers.map(|number| format!("0123456789abcdef{number}")));
    }

    #[test]
    fn an_id_stays_the_same_and_no_other_is_like_it() {
        let hammers: Vec<_> = (0..100).map(|_| ids()).collect();
        let all: Vec<_> = hammers.iter().flat_map(|ids| [ids.draw(), ids.draw(), ids.draw()]).collect();
        let texts: HashSet<_> = all.iter().map(|id| text(*id)).collect();
        assert_eq!(texts.len(), 300);
        assert!(all.iter().all(|id| texts.contains(&text(*id))), "an id that changes");
    }
}
