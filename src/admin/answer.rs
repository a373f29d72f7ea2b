//! What an endpoint says, and the body that carries it out.

use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};

use super::Scraped;
use super::wire::Slot;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

/// What an endpoint says: a whole answer in memory.
pub(super) type Reply = Response<Vec<u8>>;

/// A plain text answer.
pub(super) fn text(status: StatusCode, text: impl Into<String>) -> Reply {
    typed(status, TEXT, text.into().into_bytes())
}

/// A page.
pub(super) fn html(page: String) -> Reply {
    let mut reply = typed(StatusCode::OK, HTML, page.into_bytes());
    // The page needs one inline style sheet; whatever else could ever slip into it shall not run.
    let policy = HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'");
    reply.headers_mut().insert(http::header::CONTENT_SECURITY_POLICY, policy);
    reply
}

/// The path exists, the method does not fit.
pub(super) fn method_not_allowed(allowed: &'static str) -> Reply {
    let mut reply = text(StatusCode::METHOD_NOT_ALLOWED, format!("method not allowed here; allowed: {allowed}\n"));
    reply.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    reply
}

/// Any answer; none may be cached, each is of the moment.
pub(super) fn typed(status: StatusCode, kind: HeaderValue, body: Vec<u8>) -> Reply {
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, kind);
    reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}

/// The body of an answer on its way out.
#[derive(Debug)]
pub(super) struct Outgoing {
    bytes: Option<Bytes>,
    slot: Rc<Slot>,
    scrape: Option<Scraped>,
}

impl Outgoing {
    /// A body that counts in `held_bytes` for as long as anybody holds a part of it.
    pub(super) fn new(body: Vec<u8>, scrape: Option<Scraped>, slot: Rc<Slot>, held_bytes: &Arc<AtomicUsize>) -> Self {
        slot.answering(body.len());
        let bytes = (!body.is_empty()).then(|| Bytes::from_owner(Held::new(body, Arc::clone(held_bytes))));
        Self { bytes, slot, scrape }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        // Only here and not at the start: the body of an answer to HEAD is never asked for.
        if let Some(began) = self.scrape.take() {
            self.slot.scrape(began);
        }
        Poll::Ready(self.bytes.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

/// The memory of one answer, and its entry in the sum of all.
struct Held {
    body: Vec<u8>,
    held_bytes: Arc<AtomicUsize>,
}

impl Held {
    fn new(body: Vec<u8>, held_bytes: Arc<AtomicUsize>) -> Self {
        held_bytes.fetch_add(body.len(), Ordering::Relaxed);
        Self { body, held_bytes }
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.held_bytes.fetch_sub(self.body.len(), Ordering::Relaxed);
    }
}
