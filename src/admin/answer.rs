//! What an endpoint says, and the body that carries it out.

use std::io;
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
use super::pieces::Pieces;
use super::wire::Slot;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// What an endpoint says.
pub(super) type Reply = Response<Content>;

/// The body of an answer: all of it, or its beginning and what makes the rest.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) first: Vec<u8>,
    pub(super) more: Option<Pieces>,
}

impl From<Vec<u8>> for Content {
    fn from(whole: Vec<u8>) -> Self {
        Self { first: whole, more: None }
    }
}

/// A plain text answer.
pub(super) fn text(status: StatusCode, text: impl Into<String>) -> Reply {
    typed(status, TEXT, text.into().into_bytes())
}

/// The path exists, the method does not fit.
pub(super) fn method_not_allowed(allowed: &'static str) -> Reply {
    let mut reply = text(StatusCode::METHOD_NOT_ALLOWED, format!("method not allowed here; allowed: {allowed}\n"));
    reply.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    reply
}

/// Any answer; none may be cached, each is of the moment.
pub(super) fn typed(status: StatusCode, kind: HeaderValue, content: impl Into<Content>) -> Reply {
    let mut reply = Response::new(content.into());
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, kind);
    reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}

/// The body of an answer on its way out. Only one piece at a time is in memory, beside what the others are made of.
#[derive(Debug)]
pub(super) struct Outgoing {
    next: Option<Bytes>,
    more: Option<(Pieces, Share)>,
    slot: Rc<Slot>,
    scrape: Option<Scraped>,
    held_bytes: Arc<AtomicUsize>,
}

impl Outgoing {
    /// A body that counts in `held_bytes` for as long as anybody holds a part of it.
    pub(super) fn new(
        content: Content,
        scrape: Option<Scraped>,
        slot: Rc<Slot>,
        held_bytes: &Arc<AtomicUsize>,
    ) -> Self {
        let Content { first, more } = content;
        let more = more.map(|more| {
            let share = Share::new(more.held_bytes(), held_bytes);
            (more, share)
        });
        slot.answering(first.capacity() + more.as_ref().map_or(0, |(_, share)| share.bytes));
        let next = (!first.is_empty()).then(|| Held::bytes(first, held_bytes));
        Self { next, more, slot, scrape, held_bytes: Arc::clone(held_bytes) }
    }

    fn next(&mut self) -> io::Result<Option<Bytes>> {
        if let Some(first) = self.next.take() {
            return Ok(Some(first));
        }
        let Some((more, _)) = &mut self.more else { return Ok(None) };
        let piece = more.next_piece()?;
        if more.is_over() {
            self.more = None;
        }
        Ok(piece.map(|piece| Held::bytes(piece, &self.held_bytes)))
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let next = self.next();
        // Only at the end: the body of an answer to HEAD is never asked for, and another may break off.
        if next.is_ok()
            && self.is_end_stream()
            && let Some(began) = self.scrape.take()
        {
            self.slot.scrape(began);
        }
        Poll::Ready(next.transpose().map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.next.is_none() && self.more.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.next, &self.more) {
            (next, None) => SizeHint::with_exact(next.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            (_, Some(_)) => SizeHint::default(),
        }
    }
}

impl Drop for Outgoing {
    /// hyper has what it wants of it: all, or of an answer to HEAD nothing. (Or the connection is lost.)
    fn drop(&mut self) {
        self.slot.handed_over();
    }
}

/// An entry in the sum of all memory that answers take.
#[derive(Debug)]
struct Share {
    bytes: usize,
    held_bytes: Arc<AtomicUsize>,
}

impl Share {
    fn new(bytes: usize, held_bytes: &Arc<AtomicUsize>) -> Self {
        held_bytes.fetch_add(bytes, Ordering::Relaxed);
        Self { bytes, held_bytes: Arc::clone(held_bytes) }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.held_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The memory of a piece and its entry in the sum.
struct Held {
    piece: Vec<u8>,
    _share: Share,
}

impl Held {
    fn bytes(piece: Vec<u8>, held_bytes: &Arc<AtomicUsize>) -> Bytes {
        let share = Share::new(piece.capacity(), held_bytes);
        Bytes::from_owner(Self { piece, _share: share })
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.piece
    }
}
