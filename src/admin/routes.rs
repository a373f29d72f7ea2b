//! The endpoints.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use http::header::{CONNECTION, CONTENT_ENCODING, VARY};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body;
use hyper::body::Incoming;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::answer::{self, Content, Outgoing, Reply};
use super::pieces::Pieces;
use super::room::Room;
use super::wire::Slot;
use super::{ReloadRequest, Scraped, negotiation, page, status};
use crate::export::Format;

/// How much of a request's body is read, and thrown away, so that the client gets to see the answer.
const REQUEST_BODY_BYTES_MAX: u64 = 64 << 10;

/// Answers one request.
pub(super) async fn answer(request: Request<Incoming>, room: &Room, slot: Rc<Slot>) -> Response<Outgoing> {
    let (head, body) = request.into_parts();
    let refused = drain(body).await;
    slot.working();
    let mut scrape = None;
    let reply = match (refused, head.uri.path()) {
        (Some(reply), _) => reply,
        (None, "/metrics") => get(&head.method, || metrics(room, &head.headers, &mut scrape)),
        (None, "/api/v1/status") => status::answer(&head, room).await,
        (None, path) => route(&head.method, path, room).await,
    };
    reply.map(|body| Outgoing::new(body, scrape, slot, &room.held_bytes))
}

async fn route(method: &Method, path: &str, room: &Room) -> Reply {
    let face = &room.face;
    match path {
        "/-/healthy" => get(method, || probe((face.healthy)(), "healthy")),
        "/-/ready" => get(method, || probe((face.ready)(), "ready")),
        "/config" => get(method, || answer::text(StatusCode::OK, (face.config)())),
        "/-/reload" if method != Method::POST => answer::method_not_allowed("POST"),
        "/-/reload" => reload(face.lifecycle.as_ref(), room.bounds.reload).await,
        _ => match page::file(path) {
            Some(file) => get(method, || file),
            None => answer::text(StatusCode::NOT_FOUND, "not found; / links what there is\n"),
        },
    }
}

/// The answer to GET, and to HEAD, whose body hyper leaves away. What the face's own code does wrong is an answer too.
fn get(method: &Method, reply: impl FnOnce() -> Reply) -> Reply {
    if method != Method::GET && method != Method::HEAD {
        return answer::method_not_allowed("GET, HEAD");
    }
    unpanicked(reply).unwrap_or_else(|Panicked| {
        answer::text(StatusCode::INTERNAL_SERVER_ERROR, "making this answer failed; the log says why\n")
    })
}

fn probe(good: bool, word: &str) -> Reply {
    if good {
        answer::text(StatusCode::OK, format!("{word}\n"))
    } else {
        answer::text(StatusCode::SERVICE_UNAVAILABLE, format!("not {word}\n"))
    }
}

/// The metrics; `scrape` is set to when they were gathered, if they were.
fn metrics(room: &Room, headers: &HeaderMap, scrape: &mut Option<Scraped>) -> Reply {
    room.make_space();
    let began = Scraped::now();
    let (format, zipped) = (negotiation::format(headers), negotiation::wants_gzip(headers));
    let content = match render(room, format, zipped) {
        Ok(content) => content,
        Err(why) => {
            room.complaints.say(|held_back| tracing::error!(error = why, held_back, "cannot render the metrics"));
            return answer::text(StatusCode::INTERNAL_SERVER_ERROR, format!("collecting the metrics failed: {why}\n"));
        }
    };
    *scrape = Some(began);
    let mut reply = answer::typed(StatusCode::OK, HeaderValue::from_static(format.content_type()), content);
    reply.headers_mut().insert(VARY, HeaderValue::from_static("accept, accept-encoding"));
    if zipped {
        reply.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    reply
}

/// All that can fail, or is other people's code, is in the first piece; a scrape that fits into it is whole.
fn render(room: &Room, format: Format, zipped: bool) -> Result<Content, String> {
    let render = || {
        let scrape = room.face.exports.exposition(format, || room.turns.pause()).map_err(|error| error.to_string())?;
        let mut more = Pieces::new(scrape, zipped, Rc::clone(&room.turns));
        let first = more.next_piece().map_err(|error| error.to_string())?.unwrap_or_default();
        Ok(Content { first, more: (!more.is_over()).then_some(more) })
    };
    unpanicked(render).unwrap_or_else(|Panicked| Err("a collector panicked".to_owned()))
}

/// Somebody else's code panicked; the hook has said so already.
struct Panicked;

/// Runs code that is not ours. Nothing of ours can be left half done by it: it is only read from.
fn unpanicked<T>(run: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|_| Panicked)
}

/// Asks for a reload and waits for what came of it.
async fn reload(lifecycle: Option<&mpsc::Sender<ReloadRequest>>, patience: Duration) -> Reply {
    let Some(lifecycle) = lifecycle else {
        return answer::text(StatusCode::FORBIDDEN, "reloading by HTTP is off; server.lifecycle = true allows it\n");
    };
    let (reply, outcome) = oneshot::channel();
    match lifecycle.try_send(ReloadRequest { reply }) {
        Ok(()) => {}
        Err(mpsc::error::TrySendError::Full(_)) => {
            return answer::text(StatusCode::SERVICE_UNAVAILABLE, "too many reloads are waiting already\n");
        }
        Err(mpsc::error::TrySendError::Closed(_)) => {
            return answer::text(StatusCode::SERVICE_UNAVAILABLE, "not reloaded: hammerd is stopping\n");
        }
    }
    match timeout(patience, outcome).await {
        Ok(Ok(Ok(done))) => answer::text(StatusCode::OK, line(done)),
        Ok(Ok(Err(why))) => answer::text(StatusCode::INTERNAL_SERVER_ERROR, line(why)),
        Ok(Err(_)) => answer::text(StatusCode::SERVICE_UNAVAILABLE, "not reloaded: hammerd is stopping\n"),
        Err(_) => {
            answer::text(StatusCode::GATEWAY_TIMEOUT, "the reload is taking long; the log will say how it ended\n")
        }
    }
}

/// The text with the end of its last line.
fn line(mut text: String) -> String {
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// Reads a request's body and forgets it. Returns the answer if it is too long or breaks off.
async fn drain(mut body: Incoming) -> Option<Reply> {
    let mut read_bytes = 0;
    loop {
        // Also before the first read: a client that waits for "100 Continue" then never sends what is too long.
        if read_bytes + body.size_hint().lower() > REQUEST_BODY_BYTES_MAX {
            return Some(last(answer::text(StatusCode::PAYLOAD_TOO_LARGE, "no request here needs a body\n")));
        }
        match poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            None => return None,
            Some(Ok(frame)) => read_bytes += frame.data_ref().map_or(0, |data| data.len() as u64),
            Some(Err(_)) => return Some(last(answer::text(StatusCode::BAD_REQUEST, "the request's body broke off\n"))),
        }
    }
}

/// The same answer as the last one on its connection.
fn last(mut reply: Reply) -> Reply {
    reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    reply
}
