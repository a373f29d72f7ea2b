//! The request of a target, ready to be sent again and again.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{CONTENT_LENGTH, HOST, HeaderMap, HeaderValue};
use hyper::{Method, Request, Uri};

use super::mark::Mark;
use crate::config::{self, HttpRequest};

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
            .authority(spec.headers.get(HOST).and_then(config::authority)?)
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

    /// The request, with what tells it from others if it has that. `spare` is an old response's header map, emptied: hyper
    /// turns a request's map into its response's, so passing it back spares its allocations.
    pub(super) fn request(&self, spare: Option<HeaderMap>, mark: Option<Mark<'_>>) -> Request<Payload> {
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
        if let Some(mark) = mark {
            mark.put(&mut headers);
        }
        let mut request = Request::new(Payload((!self.spec.body.is_empty()).then(|| Arc::clone(&self.spec))));
        *request.method_mut() = self.spec.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = headers;
        request
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
