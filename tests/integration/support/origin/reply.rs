//! What the origin does with a request.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

/// A script for one request: steps in order, after which the connection waits for the next request.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(super) steps: Vec<Step>,
    pub(super) reads_body: bool,
}

/// One thing to do on the connection.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// A well-formed answer with a Content-Length.
    Respond { status: u16, headers: Vec<(String, String)>, body: Vec<u8> },
    /// Bytes as they are.
    Send(Vec<u8>),
    /// Nothing, for a while.
    Pause(Duration),
    /// Bytes one at a time.
    Drip(Vec<u8>, Duration),
    /// The same bytes again and again, until the peer is gone.
    Forever(Vec<u8>, Duration),
    /// Nothing more, until the peer closes.
    Hang,
    /// RST.
    Reset,
    /// FIN, then waiting for the peer's.
    Close,
}

/// What comes after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// The next step.
    Continue,
    /// Reading until the peer closes.
    AwaitPeer,
    /// Closing at once.
    Close,
}

// === impl Reply ===

impl Reply {
    /// 200 with this body.
    pub(crate) fn ok(body: &str) -> Self {
        Self::status(200).body(body.as_bytes())
    }

    /// An answer with this status and an empty body.
    pub(crate) fn status(status: u16) -> Self {
        Self::of(vec![Step::Respond { status, headers: Vec::new(), body: Vec::new() }])
    }

    /// These bytes in place of an answer.
    pub(crate) fn raw(bytes: impl AsRef<[u8]>) -> Self {
        Self::of(vec![Step::Send(bytes.as_ref().to_vec())])
    }

    /// No answer at all.
    pub(crate) fn silence() -> Self {
        Self::of(vec![Step::Hang])
    }

    fn of(steps: Vec<Step>) -> Self {
        Self { steps, reads_body: true }
    }

    /// Adds a header to a well-formed answer.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        if let Some(Step::Respond { headers, .. }) = self.steps.first_mut() {
            headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    /// Sets the body of a well-formed answer.
    pub(crate) fn body(mut self, bytes: &[u8]) -> Self {
        if let Some(Step::Respond { body, .. }) = self.steps.first_mut() {
            *body = bytes.to_vec();
        }
        self
    }

    /// Waits before the first step.
    pub(crate) fn delayed(mut self, delay: Duration) -> Self {
        self.steps.insert(0, Step::Pause(delay));
        self
    }

    /// Answers without reading the request's body.
    pub(crate) fn without_reading_the_body(mut self) -> Self {
        self.reads_body = false;
        self
    }

    /// Then sends these bytes.
    pub(crate) fn send(self, bytes: impl AsRef<[u8]>) -> Self {
        self.then(Step::Send(bytes.as_ref().to_vec()))
    }

    /// Then waits.
    pub(crate) fn pause(self, duration: Duration) -> Self {
        self.then(Step::Pause(duration))
    }

    /// Then sends these bytes one at a time.
    pub(crate) fn drip(self, bytes: impl AsRef<[u8]>, every: Duration) -> Self {
        self.then(Step::Drip(bytes.as_ref().to_vec(), every))
    }

    /// Then sends these bytes again and again until the peer is gone.
    pub(crate) fn forever(self, bytes: impl AsRef<[u8]>, every: Duration) -> Self {
        self.then(Step::Forever(bytes.as_ref().to_vec(), every))
    }

    /// Then does nothing until the peer closes.
    pub(crate) fn hang(self) -> Self {
        self.then(Step::Hang)
    }

    /// Then resets the connection.
    pub(crate) fn reset(self) -> Self {
        self.then(Step::Reset)
    }

    /// Then closes the connection in an orderly way.
    pub(crate) fn close(self) -> Self {
        self.then(Step::Close)
    }

    fn then(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }
}

// === impl Step ===

impl Step {
    pub(super) fn play(&self, mut stream: &TcpStream, pause: impl Fn(Duration)) -> io::Result<Then> {
        match self {
            Self::Respond { status, headers, body } => {
                let mut head = format!("HTTP/1.1 {status} Reason\r\nContent-Length: {}\r\n", body.len());
                for (name, value) in headers {
                    let _ = write!(head, "{name}: {value}\r\n");
                }
                head.push_str("\r\n");
                stream.write_all(&[head.as_bytes(), body].concat())?;
            }
            Self::Send(bytes) => stream.write_all(bytes)?,
            Self::Pause(duration) => pause(*duration),
            Self::Drip(bytes, every) => {
                for byte in bytes {
                    stream.write_all(std::slice::from_ref(byte))?;
                    pause(*every);
                }
            }
            Self::Forever(bytes, every) => loop {
                stream.write_all(bytes)?;
                pause(*every);
            },
            Self::Hang => return Ok(Then::AwaitPeer),
            Self::Reset => {
                rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO))?;
                return Ok(Then::Close);
            }
            Self::Close => {
                stream.shutdown(Shutdown::Write)?;
                return Ok(Then::AwaitPeer);
            }
        }
        Ok(Then::Continue)
    }
}
