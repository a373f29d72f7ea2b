//! A scripted HTTP/3 server for what honest servers don't do: QUIC is real (quinn's), and everything above it is bytes
//! that a test writes down, so that nothing it does wrong can come from the library under test.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Connection, Endpoint, RecvStream, SendStream, ServerConfig, TransportConfig, VarInt};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::oneshot;

use super::certificates::Certificate;

/// RFC 9114, 8.1.
pub(crate) const NO_ERROR: u32 = 0x100;
pub(crate) const INTERNAL_ERROR: u32 = 0x102;
pub(crate) const REQUEST_REJECTED: u32 = 0x10b;
pub(crate) const REQUEST_CANCELLED: u32 = 0x10c;

/// A request, as far as the script may want to know it.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// Number of the connection, from 0.
    pub(crate) connection: usize,
    /// Number of the request on its connection, from 0.
    pub(crate) index: u64,
    /// All that was sent on its stream; what was cut off is missing.
    pub(crate) bytes: Vec<u8>,
    /// The code with which the client cut its sending off, if it did.
    pub(crate) cut_off: Option<u64>,
}

/// One thing to do.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Bytes on the request's stream.
    Send(Vec<u8>),
    /// The same bytes again and again, with a pause between.
    Forever(Vec<u8>, Duration),
    /// Bytes on the control stream.
    Control(Vec<u8>),
    /// Nothing, for a while.
    Pause(Duration),
    /// The end of the response.
    Finish,
    /// The response is cut off with this code.
    Reset(u32),
    /// The client shall send no more of its request, with this code.
    Stop(u32),
    /// The end of the connection, with this code.
    Close(u32),
    /// Nothing more, and the stream stays open.
    Hang,
}

/// The answer to a request.
#[derive(Debug, Clone)]
pub(crate) struct Answer(Vec<Step>);

type Handler = dyn Fn(&Request) -> Answer + Send + Sync;

/// How it is to be started.
pub(crate) struct Builder {
    certificate: Certificate,
    protocol: Vec<u8>,
    max_requests_at_once: u32,
    reads_requests: bool,
    receive_window: Option<u32>,
}

/// A running server.
pub(crate) struct QuicOrigin {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    handler: Mutex<Arc<Handler>>,
    reads_requests: bool,
    slowly: bool,
    requests: Mutex<Vec<Request>>,
    connections: AtomicUsize,
    closes: Mutex<Vec<u64>>,
    most_running: AtomicUsize,
}

/// A frame of HTTP/3 (RFC 9114, 7.1), its length in four bytes.
pub(crate) fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32 | 0x8000_0000).to_be_bytes();
    [&[kind], length.as_slice(), payload].concat()
}

/// A DATA frame.
pub(crate) fn data(payload: &[u8]) -> Vec<u8> {
    frame(0x0, payload)
}

/// A HEADERS frame with this status, one of those that QPACK's static table has, and this Content-Length.
pub(crate) fn head(status: u16, content_length: Option<&str>) -> Vec<u8> {
    let (.., indexed) = [(103, 24), (200, 25), (304, 26), (404, 27), (503, 28)]
        .into_iter()
        .find(|(known, _)| *known == status)
        .expect("a status of the static table");
    let mut section = vec![0, 0, 0xc0 | indexed];
    if let Some(length) = content_length {
        // A literal with the name of entry 4.
        section.extend([0x54, length.len() as u8]);
        section.extend(length.as_bytes());
    }
    frame(0x1, &section)
}

/// A GOAWAY frame: requests from this one on, counted from 0, are not served.
pub(crate) fn farewell(first_unserved: u64) -> Vec<u8> {
    let stream = (first_unserved * 4) as u32 | 0x8000_0000;
    frame(0x7, &stream.to_be_bytes())
}

// === impl Answer ===

impl Answer {
    /// These steps.
    pub(crate) fn of(steps: impl IntoIterator<Item = Step>) -> Self {
        Self(steps.into_iter().collect())
    }

    /// 200 with this body.
    pub(crate) fn ok(body: &str) -> Self {
        Self::of([Step::Send([head(200, Some(&body.len().to_string())), data(body.as_bytes())].concat()), Step::Finish])
    }

    /// These bytes, and then this.
    pub(crate) fn raw(bytes: impl Into<Vec<u8>>, then: Step) -> Self {
        Self::of([Step::Send(bytes.into()), then])
    }
}

// === impl Builder ===

impl Builder {
    /// Allows as many requests at once.
    pub(crate) fn max_requests_at_once(mut self, count: u32) -> Self {
        self.max_requests_at_once = count;
        self
    }

    /// Speaks another protocol than HTTP/3, by its name in TLS.
    pub(crate) fn protocol(mut self, name: &str) -> Self {
        self.protocol = name.into();
        self
    }

    /// Answers without reading anything of a request.
    pub(crate) fn without_reading(mut self) -> Self {
        self.reads_requests = false;
        self
    }

    /// Takes little at once, and that slowly.
    pub(crate) fn receives_slowly(mut self) -> Self {
        self.receive_window = Some(4096);
        self
    }

    /// Starts it; each request is answered as `handler` says.
    pub(crate) fn start(self, handler: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> QuicOrigin {
        let shared = Arc::new(Shared {
            handler: Mutex::new(Arc::new(handler)),
            reads_requests: self.reads_requests,
            slowly: self.receive_window.is_some(),
            requests: Mutex::default(),
            connections: AtomicUsize::new(0),
            closes: Mutex::default(),
            most_running: AtomicUsize::new(0),
        });
        let (stop, stopped) = oneshot::channel();
        let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        let address = socket.local_addr().expect("its address");
        let config = self.config();
        let thread = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                runtime.block_on(async {
                    let runtime = Arc::new(quinn::TokioRuntime);
                    let endpoint = Endpoint::new(quinn::EndpointConfig::default(), Some(config), socket, runtime);
                    tokio::select! {
                        () = accept(endpoint.expect("an endpoint"), shared) => {}
                        _ = stopped => {}
                    }
                });
            }
        });
        QuicOrigin { address, shared, stop: Some(stop), thread: Some(thread) }
    }

    fn config(&self) -> ServerConfig {
        let chain = CertificateDer::pem_slice_iter(self.certificate.cert.as_bytes()).collect::<Result<Vec<_>, _>>();
        let key = PrivateKeyDer::from_pem_slice(self.certificate.key.as_bytes()).expect("a key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_no_client_auth()
            .with_single_cert(chain.expect("a chain"), key)
            .expect("a certificate and its key");
        tls.alpn_protocols = vec![self.protocol.clone()];
        let mut transport = TransportConfig::default();
        transport.max_concurrent_bidi_streams(VarInt::from_u32(self.max_requests_at_once));
        if let Some(bytes) = self.receive_window {
            transport.receive_window(VarInt::from_u32(bytes));
        }
        let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).expect("TLS for QUIC")));
        config.transport_config(Arc::new(transport));
        config
    }
}

// === impl QuicOrigin ===

impl QuicOrigin {
    /// One with this certificate, at a port of its own.
    pub(crate) fn builder(certificate: Certificate) -> Builder {
        Builder {
            certificate,
            protocol: b"h3".to_vec(),
            max_requests_at_once: 100,
            reads_requests: true,
            receive_window: None,
        }
    }

    /// URL of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.address)
    }

    /// Answers otherwise from the next request on.
    pub(crate) fn set_answer(&self, handler: impl Fn(&Request) -> Answer + Send + Sync + 'static) {
        *lock(&self.shared.handler) = Arc::new(handler);
    }

    /// All requests so far, in the order of their arrival.
    pub(crate) fn requests(&self) -> Vec<Request> {
        lock(&self.shared.requests).clone()
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// The code of each connection that the client has closed.
    pub(crate) fn closes(&self) -> Vec<u64> {
        lock(&self.shared.closes).clone()
    }

    /// The largest number of requests that ran at once on one connection.
    pub(crate) fn most_at_once(&self) -> usize {
        self.shared.most_running.load(Ordering::Relaxed)
    }
}

impl Drop for QuicOrigin {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the server panicked");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("a lock that nobody panicked under")
}

async fn accept(endpoint: Endpoint, shared: Arc<Shared>) {
    while let Some(incoming) = endpoint.accept().await {
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            // A client that turns away is not this server's concern.
            if let Ok(connection) = incoming.await {
                let number = shared.connections.fetch_add(1, Ordering::Relaxed);
                serve(connection, number, shared).await;
            }
        });
    }
}

async fn serve(connection: Connection, number: usize, shared: Arc<Shared>) {
    let Ok(mut control) = connection.open_uni().await else { return };
    // The stream's type, and SETTINGS without any.
    if control.write_all(&[&[0], frame(0x4, &[]).as_slice()].concat()).await.is_err() {
        return;
    }
    let control = Arc::new(tokio::sync::Mutex::new(control));
    let running = Arc::new(AtomicUsize::new(0));
    loop {
        let (up, down) = match connection.accept_bi().await {
            Ok(stream) => stream,
            Err(quinn::ConnectionError::ApplicationClosed(close)) => {
                lock(&shared.closes).push(close.error_code.into());
                return;
            }
            Err(_) => return,
        };
        let now = running.fetch_add(1, Ordering::Relaxed) + 1;
        shared.most_running.fetch_max(now, Ordering::Relaxed);
        let (connection, shared, control) = (connection.clone(), Arc::clone(&shared), Arc::clone(&control));
        let running = Arc::clone(&running);
        tokio::spawn(async move {
            answer(&connection, number, (up, down), &control, &shared).await;
            running.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

async fn answer(
    connection: &Connection,
    number: usize,
    (mut up, mut down): (SendStream, RecvStream),
    control: &tokio::sync::Mutex<SendStream>,
    shared: &Shared,
) {
    let index = u64::from(VarInt::from(down.id())) / 4;
    let mut request = Request { connection: number, index, bytes: Vec::new(), cut_off: None };
    loop {
        if !shared.reads_requests {
            break;
        }
        if shared.slowly {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        match down.read_chunk(usize::MAX, true).await {
            Ok(Some(chunk)) => request.bytes.extend(chunk.bytes),
            Ok(None) => break,
            Err(quinn::ReadError::Reset(code)) => {
                request.cut_off = Some(code.into());
                break;
            }
            Err(_) => return,
        }
    }
    let handler = Arc::clone(&lock(&shared.handler));
    let answer = handler(&request);
    lock(&shared.requests).push(request);
    for step in answer.0 {
        if act(step, connection, &mut up, &mut down, control).await.is_err() {
            return;
        }
    }
}

/// Takes a step; an error when there is nobody any more to take it towards.
async fn act(
    step: Step,
    connection: &Connection,
    up: &mut SendStream,
    down: &mut RecvStream,
    control: &tokio::sync::Mutex<SendStream>,
) -> Result<(), ()> {
    match step {
        Step::Send(bytes) => up.write_all(&bytes).await.map_err(|_| ()),
        Step::Forever(bytes, pause) => loop {
            up.write_all(&bytes).await.map_err(|_| ())?;
            tokio::time::sleep(pause).await;
        },
        Step::Control(bytes) => control.lock().await.write_all(&bytes).await.map_err(|_| ()),
        Step::Pause(pause) => {
            tokio::time::sleep(pause).await;
            Ok(())
        }
        Step::Finish => up.finish().map_err(|_| ()),
        Step::Reset(code) => up.reset(code.into()).map_err(|_| ()),
        Step::Stop(code) => down.stop(code.into()).map_err(|_| ()),
        Step::Close(code) => {
            connection.close(code.into(), b"");
            Ok(())
        }
        Step::Hang => {
            let _ = up.stopped().await;
            Err(())
        }
    }
}
