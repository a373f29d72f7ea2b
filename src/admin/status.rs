//! `GET /api/v1/status`, and the notes that it is made from.
//!
//! All of it runs bit by bit between the scrapes, on the same thread.

use std::cell::Cell;
use std::io::{self, Write};
use std::rc::Rc;

use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{CONTENT_ENCODING, RETRY_AFTER, VARY};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};
use tokio::task::yield_now;
use tokio::time::{Duration, Instant, MissedTickBehavior, interval_at};

use super::answer::{self, Reply};
use super::negotiation;
use super::room::Room;
use crate::status::{INTERVAL, Query, Round, Status, Survey};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// The first interval is short, so that a page that was opened at once need not wait.
const FIRST_INTERVAL: Duration = Duration::from_secs(1);
/// How many answers may be in the making: one is some milliseconds of work for 10,000 targets, and while it goes on its
/// connection can't make room for another.
const ANSWERS_MAX: usize = 4;
/// How many targets are written in one go.
const BIT: usize = 16;

/// How many answers are in the making.
#[derive(Debug, Default)]
pub(super) struct Desk(Cell<usize>);

/// A place at the desk.
pub(super) struct Place<'a>(&'a Cell<usize>);

impl Desk {
    /// A place, if there is one; given back when it is dropped.
    pub(super) fn take(&self) -> Option<Place<'_>> {
        let free = self.0.get() < ANSWERS_MAX;
        free.then(|| {
            self.0.set(self.0.get() + 1);
            Place(&self.0)
        })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Notes for ever what happened.
pub(super) async fn note(room: Rc<Room>) {
    let mut ticks = interval_at(Instant::now() + FIRST_INTERVAL, INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let mut round = Round::default();
        while !room.face.status.note_some(&mut round, || room.turns.pause()) {
            yield_now().await;
        }
    }
}

/// The answer, or why there is none.
pub(super) async fn answer(head: &Parts, room: &Room) -> Reply {
    if head.method != Method::GET && head.method != Method::HEAD {
        return answer::method_not_allowed("GET, HEAD");
    }
    let query = match Query::parse(head.uri.query().unwrap_or_default()) {
        Ok(query) => query,
        Err(error) => return answer::text(StatusCode::BAD_REQUEST, format!("{error}\n")),
    };
    let Some(_place) = room.desk.take() else {
        let mut reply = answer::text(StatusCode::SERVICE_UNAVAILABLE, "too many ask for the status at once\n");
        reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        return reply;
    };
    let zipped = negotiation::wants_gzip(&head.headers);
    match write(&room.face.status, query, room, Body::new(zipped)).await {
        Ok(body) => {
            room.make_space();
            let mut reply = answer::typed(StatusCode::OK, JSON, body);
            reply.headers_mut().insert(VARY, HeaderValue::from_static("accept-encoding"));
            if zipped {
                reply.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            }
            reply
        }
        Err(error) => answer::text(StatusCode::INTERNAL_SERVER_ERROR, format!("making the status failed: {error}\n")),
    }
}

async fn write(status: &Status, query: Query, room: &Room, mut body: Body) -> io::Result<Vec<u8>> {
    let pause = || room.turns.pause();
    let mut survey = Survey::new(query);
    while !survey.go_on(status, pause) {
        yield_now().await;
    }
    let families = room.face.exports.registry().gather();
    let head = serde_json::to_string(&status.head(&survey, &families, (room.face.healthy)()))?;
    // The head is an object with entries: the targets become the last one.
    body.write_all(head.strip_suffix('}').unwrap_or(&head).as_bytes())?;
    body.write_all(b",\"targets\":[")?;
    let mut written = 0;
    for name in survey.names() {
        // One that has gone since it was found is left out.
        let Some(target) = status.target(name) else { continue };
        if written > 0 {
            body.write_all(b",")?;
        }
        serde_json::to_writer(&mut body, &target)?;
        written += 1;
        pause();
        if written % BIT == 0 {
            yield_now().await;
        }
    }
    body.write_all(b"]}\n")?;
    body.finish()
}

/// A body that grows, in the coding that the client wants.
enum Body {
    Plain(Vec<u8>),
    Zipped(GzEncoder<Vec<u8>>),
}

impl Body {
    fn new(zipped: bool) -> Self {
        if zipped { Self::Zipped(GzEncoder::new(Vec::new(), Compression::fast())) } else { Self::Plain(Vec::new()) }
    }

    fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Plain(bytes) => Ok(bytes),
            Self::Zipped(encoder) => encoder.finish(),
        }
    }
}

impl Write for Body {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(body) => body.write(bytes),
            Self::Zipped(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
