//! The request of a target, ready to be sent again and again.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{CONTENT_LENGTH, HOST, HeaderMap, HeaderValue};
use hyper::{Method, Request, Uri};

use crate::config::HttpRequest;

/// Everything about a request that is the same each time.
#[derive(Debug)]
pub(super) struct Template {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

impl Template {
    /// As HTTP/1.1 has it: the path on the request line, the authority in a header.
    pub(super) fn http1(spec: &HttpRequest) -> Self {
        Self::new(spec, Uri::from(spec.path.clone()), spec.headers.clone())
    }

    /// As HTTP/2 has it (RFC 9113, 8.3.1): scheme and authority are parts of the URI. `None` for an authority, as the
    /// configuration has it, that is none.
    pub(super) fn http2(spec: &HttpRequest) -> Option<Self> {
        let mut headers = spec.headers.clone();
        let authority = headers.remove(HOST)?;
        let uri = Uri::builder()
            .scheme(if spec.tls.is_some() { "https" } else { "http" })
            .authority(authority.as_bytes())
            .path_and_query(spec.path.clone());
        Some(Self::new(spec, uri.build().ok()?, headers))
    }

    fn new(spec: &HttpRequest, uri: Uri, mut headers: HeaderMap) -> Self {
        if spec.body.is_empty() && [Method::POST, Method::PUT, Method::PATCH].contains(&spec.method) {
            // RFC 9110, 8.6; hyper leaves it out, and some servers then answer 411.
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        Self { method: spec.method.clone(), uri, headers, body: spec.body.clone() }
    }

    /// The request. `spare` is an old response's header map: hyper turns a request's map into its response's, so passing
    /// it back spares its allocations.
    pub(super) fn request(&self, spare: Option<HeaderMap>) -> Request<Payload> {
        let headers = match spare {
            Some(mut headers) => {
                headers.clear();
                headers.extend(self.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
                headers
            }
            None => self.headers.clone(),
        };
        let mut request = Request::new(Payload(Some(self.body.clone()).filter(|body| !body.is_empty())));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = headers;
        request
    }
}

/// A request body that is all there.
#[derive(Debug)]
pub(super) struct Payload(Option<Bytes>);

impl Body for Payload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |data| data.len() as u64))
    }
}
