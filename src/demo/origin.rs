//! A small HTTP origin with a character per path, so that a demo has something to show without a network.
//!
//! | path | answers |
//! | --- | --- |
//! | `/fast` | 200 at once |
//! | `/slow` | 200 after 20 to 200 ms, most often around 55, with a long tail |
//! | `/flaky` | 200, and 503 to two requests in a hundred |
//! | `/echo` | to POST: 200 with the request's own body, or 413 if that is over 64 KiB |
//!
//! Promised: loopback only, on a port that the kernel picks; the same sequence of latencies and failures after each
//! start; bounds on connections and bodies. Left out: everything that makes a real server, deadlines first of all: the
//! only client is the process that it runs in.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::sleep;

/// Open connections; more are closed at once.
const CONNECTIONS_MAX: usize = 1_024;
/// What `/echo` gives back.
const ECHO_BYTES_MAX: usize = 64 << 10;
/// The pause after an accept that failed for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// One in this many requests to `/flaky` fails.
const FLAKY_PERIOD: u64 = 50;

const SLOW_MEDIAN_MS: f64 = 55.0;
/// The spread of the logarithm: one in six is slower than 1.8 times the median.
const SLOW_SIGMA: f64 = 0.6;
const SLOW_RANGE_MS: (f64, f64) = (20.0, 200.0);

/// A running origin; dropping it ends it.
#[derive(Debug)]
pub struct Origin {
    addr: SocketAddr,
    stop: Option<watch::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Origin {
    /// Starts an origin on a loopback port of the kernel's choice and a thread of its own.
    pub fn start() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
        let addr = listener.local_addr()?;
        let (stop, stopped) = watch::channel(());
        let thread = thread::Builder::new()
            .name("origin".to_owned())
            .spawn(move || LocalSet::new().block_on(&runtime, serve(listener, stopped)))?;
        Ok(Self { addr, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there was printed there, and ends with the origin.
            let _ = thread.join();
        }
    }
}

/// What the connections share: how many requests each unsteady path has had.
#[derive(Debug, Default)]
struct Character {
    open: Cell<usize>,
    slow: Cell<u64>,
    flaky: Cell<u64>,
}

/// Accepts until told to stop; the connections fall with the thread.
async fn serve(listener: TcpListener, mut stopped: watch::Receiver<()>) {
    let character = Rc::new(Character::default());
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stopped.changed() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) if character.open.get() < CONNECTIONS_MAX => {
                character.open.set(character.open.get() + 1);
                spawn_local(converse(stream, Rc::clone(&character)));
            }
            Ok(_) => {}
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn converse(stream: TcpStream, character: Rc<Character>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| {
        let character = Rc::clone(&character);
        async move { Ok::<_, Infallible>(answer(request, &character).await) }
    });
    // How a client went is the client's affair.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    character.open.set(character.open.get() - 1);
}

async fn answer(request: Request<Incoming>, character: &Character) -> Response<Whole> {
    match request.uri().path() {
        "/fast" => reply(StatusCode::OK, "fast\n"),
        "/slow" => {
            sleep(slow_latency(next(&character.slow))).await;
            reply(StatusCode::OK, "slow\n")
        }
        "/flaky" if is_down(next(&character.flaky)) => reply(StatusCode::SERVICE_UNAVAILABLE, "down\n"),
        "/flaky" => reply(StatusCode::OK, "up\n"),
        "/echo" if request.method() != Method::POST => {
            let mut refusal = reply(StatusCode::METHOD_NOT_ALLOWED, "POST something\n");
            refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
            refusal
        }
        "/echo" => echo(request.into_body()).await,
        _ => reply(StatusCode::NOT_FOUND, "there are /fast, /slow, /flaky and /echo\n"),
    }
}

async fn echo(mut body: Incoming) -> Response<Whole> {
    let mut heard = Vec::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let Ok(frame) = frame else { return reply(StatusCode::BAD_REQUEST, "the body broke off\n") };
        let Some(data) = frame.data_ref() else { continue };
        if heard.len() + data.len() > ECHO_BYTES_MAX {
            return reply(StatusCode::PAYLOAD_TOO_LARGE, "at most 64 KiB\n");
        }
        heard.extend_from_slice(data);
    }
    reply(StatusCode::OK, heard)
}

/// The number of this request on its path, from 0.
fn next(count: &Cell<u64>) -> u64 {
    count.replace(count.get() + 1)
}

/// Whether request `n` to `/flaky` fails.
const fn is_down(n: u64) -> bool {
    n % FLAKY_PERIOD == FLAKY_PERIOD - 1
}

/// How long request `n` to `/slow` takes: log-normal, cut at both ends, and the same in every run.
fn slow_latency(n: u64) -> Duration {
    // Twelve uniform numbers less their mean are close to normal (Irwin-Hall), and their variance is one.
    let normal = (0..12).map(|k| uniform(12 * n + k)).sum::<f64>() - 6.0;
    let latency_ms = SLOW_MEDIAN_MS * (SLOW_SIGMA * normal).exp();
    Duration::from_secs_f64(latency_ms.clamp(SLOW_RANGE_MS.0, SLOW_RANGE_MS.1) / 1_000.0)
}

/// The n-th of a fixed sequence of numbers in [0, 1): the finalizer of `SplitMix64` (Steele, Lea and Flood, 2014).
fn uniform(n: u64) -> f64 {
    let mut z = n.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

fn reply(status: StatusCode, body: impl Into<Bytes>) -> Response<Whole> {
    let mut response = Response::new(Whole(Some(body.into())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// A body in one piece.
#[derive(Debug)]
struct Whole(Option<Bytes>);

impl Body for Whole {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(Bytes::is_empty)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};

    use super::*;

    struct Client(BufReader<std::net::TcpStream>);

    impl Client {
        fn of(origin: &Origin) -> Self {
            let stream = std::net::TcpStream::connect(origin.addr()).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            Self(BufReader::new(stream))
        }

        fn ask(&mut self, method: &str, path: &str, body: &str) -> (u16, String) {
            let length = body.len();
            let request = format!("{method} {path} HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n\r\n{body}");
            self.0.get_mut().write_all(request.as_bytes()).unwrap();
            let (mut status, mut length, mut line) = (0, 0, String::new());
            while line != "\r\n" {
                line.clear();
                self.0.read_line(&mut line).unwrap();
                if let Some(rest) = line.strip_prefix("HTTP/1.1 ") {
                    status = rest[..3].parse().unwrap();
                } else if let Some(value) = line.strip_prefix("content-length: ") {
                    length = value.trim().parse().unwrap();
                }
            }
            let mut text = vec![0; length];
            self.0.read_exact(&mut text).unwrap();
            (status, String::from_utf8(text).unwrap())
        }
    }

    #[test]
    fn each_path_answers_by_its_character_on_one_connection() {
        let origin = Origin::start().unwrap();
        assert!(origin.addr().ip().is_loopback());
        let mut client = Client::of(&origin);
        assert_eq!(client.ask("GET", "/fast", ""), (200, "fast\n".to_owned()));
        assert_eq!(client.ask("GET", "/slow?any", ""), (200, "slow\n".to_owned()));
        assert_eq!(client.ask("POST", "/echo", "say it"), (200, "say it".to_owned()));
        assert_eq!(client.ask("POST", "/echo", ""), (200, String::new()));
        assert_eq!(client.ask("GET", "/echo", "").0, 405);
        assert_eq!(client.ask("GET", "/", "").0, 404);
    }

    #[test]
    fn two_of_a_hundred_flaky_requests_fail_whoever_sends_them() {
        let origin = Origin::start().unwrap();
        let mut clients = [Client::of(&origin), Client::of(&origin)];
        let statuses: Vec<_> = (0..100).map(|n: usize| clients[n % 2].ask("GET", "/flaky", "").0).collect();
        let failed: Vec<_> = (0..100).filter(|&n| statuses[n] == 503).collect();
        assert_eq!(failed, [49, 99]);
        assert_eq!(statuses.iter().filter(|&&status| status == 200).count(), 98);
    }

    #[test]
    fn an_echo_is_whole_up_to_its_bound() {
        let origin = Origin::start().unwrap();
        let most = "x".repeat(ECHO_BYTES_MAX);
        assert_eq!(Client::of(&origin).ask("POST", "/echo", &most), (200, most.clone()));
        assert_eq!(Client::of(&origin).ask("POST", "/echo", &(most + "x")).0, 413);
    }

    #[test]
    fn slow_latencies_have_a_middle_a_tail_and_ends() {
        let mut latencies: Vec<_> = (0..10_000).map(slow_latency).collect();
        assert_eq!(latencies[7], slow_latency(7));
        latencies.sort_unstable();
        let ms = |index: usize| latencies[index].as_millis();
        assert_eq!((ms(0), ms(9_999)), (20, 200));
        assert!((53..57).contains(&ms(5_000)), "median {}", ms(5_000));
        // exp(0.6) and exp(-0.6) times the median, at one standard deviation.
        assert!((96..105).contains(&ms(8_413)), "84th percentile {}", ms(8_413));
        assert!((28..32).contains(&ms(1_587)), "16th percentile {}", ms(1_587));
    }

    #[test]
    fn a_dropped_origin_is_gone() {
        let origin = Origin::start().unwrap();
        let mut client = Client::of(&origin);
        client.ask("GET", "/fast", "");
        let addr = origin.addr();
        drop(origin);
        // Only the read end tells: no answer, whatever way the connection ended.
        assert!(!matches!(client.0.read(&mut [0]), Ok(1)));
        assert_eq!(std::net::TcpStream::connect(addr).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
