//! One connection as the admin face sees it: what it is busy with, since when, and until when it may be.
//!
//! The deadlines live at the socket, under hyper, because only there is it known what hyper can't tell: whether bytes
//! arrive between requests (idle) or in one (a half head), and when an answer has really left.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{Bounds, Scraped};

/// What a connection is busy with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// A request is awaited for the first time, or is arriving: its head, or the body that is thrown away.
    Request,
    /// Between requests.
    Idle,
    /// A request is complete and its answer is being made.
    Working,
    /// The answer is leaving.
    Answering,
}

/// What is known of one connection; shared by its socket, its handler and the accept loop.
#[derive(Debug)]
pub(super) struct Slot {
    stage: Cell<Stage>,
    /// When the stage began: deadlines count from here.
    since: Cell<Instant>,
    /// When bytes of an answer last left, or the connection came: evictions count from here, so that a trickle of
    /// header bytes does not make a connection look fresh.
    served: Cell<Instant>,
    /// The memory that the answer that is leaving takes.
    answer_bytes: Cell<usize>,
    /// Whether hyper has all of the answer that is leaving.
    handed_over: Cell<bool>,
    /// When the scrape that is leaving was gathered.
    scrape: Cell<Option<Scraped>>,
}

impl Slot {
    pub(super) fn new() -> Rc<Self> {
        let now = Instant::now();
        Rc::new(Self {
            stage: Cell::new(Stage::Request),
            since: Cell::new(now),
            served: Cell::new(now),
            answer_bytes: Cell::new(0),
            handed_over: Cell::new(false),
            scrape: Cell::new(None),
        })
    }

    pub(super) fn stage(&self) -> Stage {
        self.stage.get()
    }

    pub(super) fn served(&self) -> Instant {
        self.served.get()
    }

    pub(super) fn answer_bytes(&self) -> usize {
        self.answer_bytes.get()
    }

    /// Whether a newcomer may have this seat: not while a request is in work.
    pub(super) fn can_make_room(&self) -> bool {
        self.stage.get() != Stage::Working
    }

    fn enter(&self, stage: Stage) {
        self.stage.set(stage);
        self.since.set(Instant::now());
    }

    /// The request is complete.
    pub(super) fn working(&self) {
        self.enter(Stage::Working);
    }

    /// An answer that takes so much memory is about to leave.
    pub(super) fn answering(&self, bytes: usize) {
        self.enter(Stage::Answering);
        self.answer_bytes.set(bytes);
        self.handed_over.set(false);
    }

    /// The last of the body that is being handed to hyper is that of a scrape gathered at `began`.
    pub(super) fn scrape(&self, began: Scraped) {
        self.scrape.set(Some(began));
    }

    /// hyper has all of the answer: once that is flushed, it has left.
    pub(super) fn handed_over(&self) {
        self.handed_over.set(true);
    }

    fn received(&self) {
        if self.stage.get() == Stage::Idle {
            self.enter(Stage::Request);
        }
    }

    /// The whole answer has left. Returns the scrape that it was.
    fn answered(&self) -> Option<Scraped> {
        self.enter(Stage::Idle);
        self.answer_bytes.set(0);
        self.scrape.take()
    }

    fn deadline(&self, bounds: &Bounds) -> Option<Instant> {
        let patience = match self.stage.get() {
            Stage::Request => bounds.request,
            Stage::Idle => bounds.idle,
            Stage::Answering => bounds.answer,
            // Whoever works has a bound of its own.
            Stage::Working => return None,
        };
        Some(self.since.get() + patience)
    }
}

/// The socket of one connection: cuts it when its stage lasts too long, and tells when an answer has left.
#[derive(Debug)]
pub(super) struct Wire {
    io: TokioIo<TcpStream>,
    slot: Rc<Slot>,
    bounds: Bounds,
    alarm: Pin<Box<Sleep>>,
    scraped: watch::Sender<Option<Scraped>>,
}

impl Wire {
    pub(super) fn new(
        stream: TcpStream,
        slot: Rc<Slot>,
        bounds: Bounds,
        scraped: watch::Sender<Option<Scraped>>,
    ) -> Self {
        let alarm = Box::pin(sleep_until(slot.since.get() + bounds.request));
        Self { io: TokioIo::new(stream), slot, bounds, alarm, scraped }
    }

    /// Sees to it that hyper looks at this connection again when its stage has lasted too long. Ready if it has.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.slot.deadline(&self.bounds) else { return Poll::Pending };
        if self.alarm.deadline() != deadline {
            self.alarm.as_mut().reset(deadline);
        }
        self.alarm.as_mut().poll(cx)
    }

    /// Nothing can be read or written now; ends in an error once that has lasted too long.
    fn stalled<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        self.poll_deadline(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    fn written(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(result) => {
                self.slot.served.set(Instant::now());
                Poll::Ready(result)
            }
            Poll::Pending => self.stalled(cx),
        }
    }
}

impl Drop for Wire {
    /// An answer that was cut is taken back from the kernel too, which would go on offering it for minutes.
    fn drop(&mut self) {
        if self.slot.stage.get() == Stage::Answering {
            // A socket that is gone has nothing to take back.
            let _ = self.io.inner().set_zero_linger();
        }
    }
}

impl Read for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.io).poll_read(cx, buffer) {
            Poll::Ready(result) => {
                self.slot.received();
                Poll::Ready(result)
            }
            Poll::Pending => self.stalled(cx),
        }
    }
}

impl Write for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.written(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        // hyper flushes between the pieces of an answer, and reads no further request before the last one is flushed.
        if self.slot.stage() != Stage::Answering || !self.slot.handed_over.get() {
            return Poll::Ready(Ok(()));
        }
        let scrape = self.slot.answered();
        // hyper does not read on before it is woken, so the time between requests has to be started here. Should it
        // be over at once, the wake-up that the timer then causes ends in a read that says so.
        if self.poll_deadline(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        if let Some(began) = scrape {
            // Scrapes overlap: a slow one that began earlier must not take back what a later one has proved.
            self.scraped.send_if_modified(|latest| {
                let later = latest.is_none_or(|latest| latest < began);
                if later {
                    *latest = Some(began);
                }
                later
            });
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
