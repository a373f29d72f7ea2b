//! QUIC (RFC 9000) for HTTP/3: an address to a secured connection.
//!
//! Each connection has a socket of its own, connected to its peer, for reasons that docs/decisions/0012 gives. So the
//! kernel tells when nobody listens, and what is counted on a socket belongs to one connection.

use std::cell::Cell;
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{
    AsyncUdpSocket, ConnectionError, Endpoint, EndpointConfig, TokioRuntime, TransportConfig, UdpPoller, VarInt,
};
use rustix::io::Errno;
use rustls::AlertDescription;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::dial::{keep_spare_descriptors, reason_of as reason_of_io};
use super::{Fault, Tls, tls_reason};
use crate::clock;
use crate::outcome::Reason;
use crate::stats::{CloseReason, Ledger};

/// A peer that has been silent for this long is asked whether it is there.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// A connection on which nothing came for this long, although something was sent, is lost.
const MAX_SILENCE_MS: u32 = 15_000;
/// Streams of its own that a peer may have open: HTTP/3 has use for three.
const MAX_PEER_STREAMS: u32 = 8;
/// Bytes that a peer may send before they are read, on one stream. h3 looks at all that has come with every frame: this
/// bounds what many small frames cost.
const STREAM_WINDOW: u32 = 256 << 10;
/// The same on all streams together.
const RECEIVE_WINDOW: u32 = 8 << 20;

/// A connection to a peer that has answered, and is not secured yet.
pub struct Answered {
    connecting: quinn::Connecting,
    line: Rc<Line>,
    open: Open,
    handshake_timeout: Duration,
}

/// A secured connection.
pub struct Quic {
    /// To open streams on.
    pub connection: quinn::Connection,
    /// What is known about it beside.
    pub line: Rc<Line>,
    /// Counts it as open until it is dropped.
    pub open: Open,
}

/// What is known about a connection, shared by whoever uses it.
#[derive(Debug)]
pub struct Line {
    /// The address at its other end.
    pub address: IpAddr,
    /// Why it will have been closed, when it is; the peer's doing until somebody here decides otherwise.
    pub close_reason: Cell<CloseReason>,
    datagrams: Arc<Datagrams>,
}

/// A connection in its target's ledger.
pub struct Open {
    ledger: Arc<Ledger>,
    line: Rc<Line>,
}

/// A UDP socket that counts, and keeps what the network says about its peer.
struct Datagrams {
    io: UdpSocket,
    state: UdpSocketState,
    ledger: Arc<Ledger>,
    received_bytes: AtomicU64,
    /// That the peer can't be reached.
    unreachable: OnceLock<io::Error>,
    /// Told of the first datagram, and that the peer can't be reached.
    news: Notify,
}

/// Sends a first datagram to `address` and waits for an answer, of any kind. The caller is the one writer of `ledger`.
pub(super) async fn greet(address: SocketAddr, tls: &Tls, ledger: &Arc<Ledger>) -> Result<Answered, Fault> {
    let local = |error: io::Error| Fault::new(reason_of_io(&error), format!("{address}: {error}"));
    let datagrams = Arc::new(Datagrams::connect(address, Arc::clone(ledger)).map_err(local)?);
    let socket = Arc::clone(&datagrams) as Arc<dyn AsyncUdpSocket>;
    let endpoint = Endpoint::new_with_abstract_socket(EndpointConfig::default(), None, socket, Arc::new(TokioRuntime));
    let (config, name) = (client_config(tls)?, &tls.spec().server_name);
    // The endpoint goes when the connection has: nobody else needs it.
    let connecting = endpoint.map_err(local)?.connect_with(config, address, name);
    let mut connecting = connecting.map_err(|error| Fault::new(Reason::TlsProtocol, error))?;
    while datagrams.received_bytes() == 0 {
        if let Some(error) = datagrams.unreachable.get() {
            return Err(Fault::new(reason_of_io(error), format!("{address}: {error}")));
        }
        tokio::select! {
            biased;
            () = datagrams.news.notified() => {}
            // Without an answer it can only fail.
            ended = &mut connecting => {
                let cause = ended.err().map_or_else(|| "connected without an answer".to_owned(), |error| error.to_string());
                return Err(Fault::new(Reason::ConnectTimeout, format!("{address}: {cause}")));
            }
        }
    }
    // Until it is secured, whoever waits for that may be cut off.
    let close_reason = Cell::new(CloseReason::Canceled);
    let line = Rc::new(Line { address: address.ip(), close_reason, datagrams });
    let open = Open::new(Arc::clone(ledger), Rc::clone(&line));
    Ok(Answered { connecting, line, open, handshake_timeout: tls.spec().handshake_timeout })
}

/// Lets what has closed connections run on, which it does in tasks of its own, until their peers are told.
pub fn tell_peers(runtime: &tokio::runtime::Runtime) {
    /// In each there is time for dozens of tasks.
    const TURNS: usize = 100;
    runtime.block_on(async {
        for _ in 0..TURNS {
            tokio::task::yield_now().await;
        }
    });
}

impl Answered {
    /// Completes the handshake.
    pub async fn secure(self) -> Result<Quic, Fault> {
        let Self { connecting, line, open, handshake_timeout } = self;
        let secured = tokio::select! {
            biased;
            secured = timeout(handshake_timeout, connecting) => secured,
            error = line.unreachable() => {
                line.close_reason.set(CloseReason::Failed);
                return Err(Fault::new(Reason::Reset, error));
            }
        };
        line.close_reason.set(CloseReason::Failed);
        match secured {
            Ok(Ok(connection)) => {
                line.close_reason.set(CloseReason::Peer);
                Ok(Quic { connection, line, open })
            }
            Ok(Err(ConnectionError::TimedOut)) => Err(Fault::new(Reason::TlsTimeout, ConnectionError::TimedOut)),
            Ok(Err(error)) => Err(Fault::new(reason_of(&error), error)),
            Err(_) => {
                let text = format!("no TLS handshake within {handshake_timeout:?}");
                Err(Fault::new(Reason::TlsTimeout, text))
            }
        }
    }
}

impl Line {
    /// Bytes received on the connection.
    pub fn received_bytes(&self) -> u64 {
        self.datagrams.received_bytes()
    }

    /// Waits for the network to say that the peer can't be reached.
    pub async fn unreachable(&self) -> String {
        loop {
            if let Some(error) = self.datagrams.unreachable.get() {
                return format!("{}: {error}", self.address);
            }
            self.datagrams.news.notified().await;
        }
    }
}

impl Open {
    fn new(ledger: Arc<Ledger>, line: Rc<Line>) -> Self {
        ledger.wire.open();
        Self { ledger, line }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.ledger.wire.close(self.line.close_reason.get());
    }
}

fn client_config(tls: &Tls) -> Result<quinn::ClientConfig, Fault> {
    static TRANSPORT: LazyLock<Arc<TransportConfig>> = LazyLock::new(|| {
        let mut transport = TransportConfig::default();
        transport
            .keep_alive_interval(Some(PING_INTERVAL))
            .max_idle_timeout(Some(VarInt::from_u32(MAX_SILENCE_MS).into()))
            .max_concurrent_bidi_streams(VarInt::from_u32(0))
            .max_concurrent_uni_streams(VarInt::from_u32(MAX_PEER_STREAMS))
            .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
            .receive_window(VarInt::from_u32(RECEIVE_WINDOW))
            .datagram_receive_buffer_size(None);
        Arc::new(transport)
    });
    let crypto = QuicClientConfig::try_from(tls.config(clock::now_ns()));
    let crypto = crypto.map_err(|error| Fault::new(Reason::TlsProtocol, error))?;
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::clone(&TRANSPORT));
    Ok(config)
}

/// The reason behind the end of a connection.
pub fn reason_of(error: &ConnectionError) -> Reason {
    // RFC 9000, 20.1.
    const NO_ERROR: u64 = 0x0;
    const INTERNAL_ERROR: u64 = 0x1;
    const CONNECTION_REFUSED: u64 = 0x2;
    // RFC 8446, 6; RFC 9001, 4.8.
    const DECRYPT_ERROR: u64 = 0x100 + 51;
    // RFC 9114, 8.1.
    const H3_NO_ERROR: u64 = 0x100;
    const H3_INTERNAL_ERROR: u64 = 0x102;
    const H3_REQUEST_REJECTED: u64 = 0x10b;
    const H3_REQUEST_CANCELLED: u64 = 0x10c;
    match error {
        ConnectionError::VersionMismatch => Reason::TlsProtocol,
        ConnectionError::TransportError(error) => match error.code.into() {
            // By which rustls refuses a certificate whose issuer is another one of the same name.
            DECRYPT_ERROR => Reason::TlsCertificate,
            code => of_alert(code).unwrap_or(Reason::Protocol),
        },
        ConnectionError::ConnectionClosed(close) => match close.error_code.into() {
            NO_ERROR => Reason::Eof,
            INTERNAL_ERROR => Reason::Reset,
            CONNECTION_REFUSED => Reason::ConnectRefused,
            code => of_alert(code).unwrap_or(Reason::Protocol),
        },
        ConnectionError::ApplicationClosed(close) => match close.error_code.into_inner() {
            NO_ERROR | H3_NO_ERROR => Reason::Eof,
            H3_INTERNAL_ERROR | H3_REQUEST_REJECTED | H3_REQUEST_CANCELLED => Reason::Reset,
            _ => Reason::Protocol,
        },
        ConnectionError::Reset => Reason::Reset,
        ConnectionError::TimedOut => Reason::TimeoutResponse,
        ConnectionError::LocallyClosed | ConnectionError::CidsExhausted => Reason::Io,
    }
}

/// Of an error code that stands for an alert of TLS (RFC 9001, 4.8): what the alert means, whoever raised it.
fn of_alert(code: u64) -> Option<Reason> {
    let alert = code.checked_sub(0x100).and_then(|alert| u8::try_from(alert).ok())?;
    Some(tls_reason(&rustls::Error::AlertReceived(AlertDescription::from(alert))))
}

/// Errors by which the network says, now or of an earlier datagram, that the peer can't be reached.
fn is_unreachable(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(
            Errno::CONNREFUSED
                | Errno::NETUNREACH
                | Errno::HOSTUNREACH
                | Errno::NETDOWN
                | Errno::HOSTDOWN
                | Errno::ACCESS
                | Errno::PERM
        )
    )
}

impl Datagrams {
    fn connect(address: SocketAddr, ledger: Arc<Ledger>) -> io::Result<Self> {
        let any = if address.is_ipv4() { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = std::net::UdpSocket::bind((any, 0))?;
        keep_spare_descriptors(&socket)?;
        socket.connect(address)?;
        let state = UdpSocketState::new((&socket).into())?;
        Ok(Self {
            io: UdpSocket::from_std(socket)?,
            state,
            ledger,
            received_bytes: AtomicU64::new(0),
            unreachable: OnceLock::new(),
            news: Notify::new(),
        })
    }

    fn received_bytes(&self) -> u64 {
        self.received_bytes.load(Ordering::Relaxed)
    }

    /// Keeps that the peer can't be reached. Other errors are datagrams that the network has lost, which QUIC sees to.
    fn note(&self, error: io::Error) {
        if is_unreachable(&error) && self.unreachable.set(error).is_ok() {
            self.news.notify_one();
        }
    }

    fn count_received(&self, metas: &[RecvMeta]) {
        let bytes = metas.iter().map(|meta| meta.len as u64).sum();
        self.ledger.wire.received_bytes.add(bytes);
        if self.received_bytes.fetch_add(bytes, Ordering::Relaxed) == 0 {
            self.news.notify_one();
        }
    }
}

impl AsyncUdpSocket for Datagrams {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable(self))
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        match self.io.try_io(Interest::WRITABLE, || self.state.try_send((&self.io).into(), transmit)) {
            Ok(()) => self.ledger.wire.sent_bytes.add(transmit.contents.len() as u64),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
            Err(error) => self.note(error),
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.io.poll_recv_ready(cx))?;
            match self.io.try_io(Interest::READABLE, || self.state.recv((&self.io).into(), bufs, metas)) {
                Ok(count) => {
                    self.count_received(&metas[..count]);
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if is_unreachable(&error) => self.note(error),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.state.gro_segments()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }
}

/// Waits until a socket can take a datagram. The connection's driver is the only one that does.
#[derive(Debug)]
struct Writable(Arc<Datagrams>);

impl UdpPoller for Writable {
    fn poll_writable(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.io.poll_send_ready(cx)
    }
}

impl fmt::Debug for Datagrams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Datagrams").field("io", &self.io).finish_non_exhaustive()
    }
}
