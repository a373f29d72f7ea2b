//! A socket that counts: bytes both ways, and its own opening and closing.

use std::cell::Cell;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::stats::{CloseReason, Ledger};

/// What is known about a connection beside its socket, shared by the socket and whoever uses it.
#[derive(Debug)]
pub struct Fate {
    /// The address that was dialled, if it has one.
    pub address: Option<IpAddr>,
    /// Why it will have been closed, when it is; the peer's doing until somebody here decides otherwise.
    pub close_reason: Cell<CloseReason>,
    /// Bytes received on this connection.
    pub received_bytes: Cell<u64>,
    /// With as many bytes received, nothing more is read until this is raised and the socket polled again.
    pub receive_limit: Cell<u64>,
}

/// A connected socket, of either kind.
#[derive(Debug)]
pub enum Link {
    /// Over the network.
    Tcp(TcpStream),
    /// On this machine.
    Unix(UnixStream),
}

/// Calls a method of whichever socket it is.
macro_rules! either {
    ($link:expr, $stream:ident => $call:expr) => {
        match $link {
            Link::Tcp($stream) => $call,
            Link::Unix($stream) => $call,
        }
    };
}

/// An open connection, counted in its target's ledger until it is dropped.
#[derive(Debug)]
pub struct Socket {
    link: Link,
    ledger: Arc<Ledger>,
    fate: Rc<Fate>,
}

impl Socket {
    /// Takes over a stream that is connected to `address`, as it was dialled: the kernel may call it otherwise, such as
    /// 127.0.0.1 for 0.0.0.0. The caller is the one writer of `ledger`.
    pub fn new(link: Link, address: Option<IpAddr>, ledger: Arc<Ledger>) -> Self {
        ledger.wire.open();
        let fate = Fate {
            address,
            close_reason: Cell::new(CloseReason::Peer),
            received_bytes: Cell::new(0),
            receive_limit: Cell::new(u64::MAX),
        };
        Self { link, ledger, fate: Rc::new(fate) }
    }

    /// What is known about the connection; outlives the socket.
    pub fn fate(&self) -> Rc<Fate> {
        Rc::clone(&self.fate)
    }

    fn count_sent(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = written {
            self.ledger.wire.sent_bytes.add(bytes as u64);
        }
        written
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.ledger.wire.close(self.fate.close_reason.get());
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.fate.received_bytes.get() >= self.fate.receive_limit.get() {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let read = either!(&mut self.link, stream => Pin::new(stream).poll_read(cx, buf));
        let bytes = (buf.filled().len() - before) as u64;
        self.ledger.wire.received_bytes.add(bytes);
        self.fate.received_bytes.set(self.fate.received_bytes.get() + bytes);
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = either!(&mut self.link, stream => Pin::new(stream).poll_write(cx, buf));
        self.count_sent(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = either!(&mut self.link, stream => Pin::new(stream).poll_write_vectored(cx, bufs));
        self.count_sent(written)
    }

    fn is_write_vectored(&self) -> bool {
        either!(&self.link, stream => stream.is_write_vectored())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(&mut self.link, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(&mut self.link, stream => Pin::new(stream).poll_shutdown(cx))
    }
}
