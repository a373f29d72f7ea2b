//! The server that all clients are measured against: it answers at once and notes when each request arrived.
//!
//! It knows nothing of schedules, so what it saw is evidence about them. HTTP/1.1 with keep-alive, requests without a
//! body. It ends when its standard input does, which is also when the process that started it is gone.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use hammerd::clock::now_ns;
use serde_json::json;
use slab::Slab;

use crate::sys::{self, Poll, Trigger};

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Type: text/plain\r\n\r\nhello";
const END_OF_HEAD: &[u8] = b"\r\n\r\n";
/// A longer request head ends its connection.
const MAX_HEAD: usize = 16 << 10;
const LISTENER: u64 = u64::MAX;
const STDIN: u64 = u64::MAX - 1;
/// Arrivals there is room for without asking for memory in the middle of a measurement.
const ROOM: usize = 1 << 21;

/// How the witness is started.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Port on the loopback address; 0 takes a free one
    #[arg(default_value_t = 0)]
    port: u16,
    /// Receives the arrivals at the end: nanoseconds of `CLOCK_MONOTONIC` as little-endian u64
    #[arg(long)]
    out: Option<PathBuf>,
    /// How long an answer is kept back
    #[arg(long, value_name = "US", default_value_t = 0)]
    delay_us: u64,
    /// The core to stay on
    #[arg(long)]
    core: Option<usize>,
}

struct Connection {
    stream: TcpStream,
    /// The beginning of a head whose end has not come yet.
    partial: Vec<u8>,
    /// Tells this connection from a later one in the same place.
    serial: u64,
}

struct Witness {
    poll: Poll,
    listener: TcpListener,
    connections: Slab<Connection>,
    /// For every read; clearing a new one each time would cost as much as the rest.
    buffer: Box<[u8]>,
    accepted: u64,
    arrivals: Vec<u64>,
    delay_ns: u64,
    /// Answers that are kept back, in the order of their time: when, and on which connection.
    waiting: VecDeque<(u64, usize, u64)>,
    most_waiting: usize,
}

/// Serves until standard input ends; prints the port first and the counts last, each as a line of JSON.
pub(crate) fn run(args: &Args) -> io::Result<()> {
    sys::raise_descriptor_limit()?;
    if let Some(core) = args.core {
        sys::pin(core)?;
    }
    let mut witness = Witness::new(args)?;
    println!("{}", json!({ "port": witness.listener.local_addr()?.port() }));
    witness.serve()?;
    if let Some(path) = &args.out {
        let mut file = BufWriter::new(File::create(path)?);
        for arrival in &witness.arrivals {
            file.write_all(&arrival.to_le_bytes())?;
        }
        file.flush()?;
    }
    println!(
        "{}",
        json!({
            "requests": witness.arrivals.len(),
            "connections": witness.accepted,
            "most_waiting": witness.most_waiting,
        })
    );
    Ok(())
}

impl Witness {
    fn new(args: &Args) -> io::Result<Self> {
        let listener = listen(args.port)?;
        let poll = Poll::new()?;
        poll.add(&listener, LISTENER, Trigger::Level)?;
        poll.add(io::stdin().as_fd(), STDIN, Trigger::Level)?;
        Ok(Self {
            poll,
            listener,
            connections: Slab::new(),
            buffer: vec![0; MAX_HEAD].into(),
            accepted: 0,
            arrivals: Vec::with_capacity(ROOM),
            delay_ns: args.delay_us * 1000,
            waiting: VecDeque::new(),
            most_waiting: 0,
        })
    }

    fn serve(&mut self) -> io::Result<()> {
        let mut tokens = Vec::new();
        loop {
            let timeout = self.waiting.front().map(|&(due_ns, _, _)| {
                // In whole milliseconds, rounded up: older kernels know no finer ones.
                Duration::from_millis(due_ns.saturating_sub(now_ns()).div_ceil(1_000_000))
            });
            self.poll.wait(timeout, &mut tokens)?;
            for &token in &tokens {
                match token {
                    LISTENER => self.accept()?,
                    STDIN => {
                        if io::stdin().read(&mut [0; 64])? == 0 {
                            return Ok(());
                        }
                    }
                    key => self.read(key as usize),
                }
            }
            self.answer_waiting();
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            self.accepted += 1;
            let vacant = self.connections.vacant_entry();
            self.poll.add(&stream, vacant.key() as u64, Trigger::Level)?;
            vacant.insert(Connection { stream, partial: Vec::new(), serial: self.accepted });
        }
    }

    /// Reads once, notes every request that is complete now, and answers it or keeps the answer back.
    fn read(&mut self, key: usize) {
        // An event of a connection that was closed in the same turn.
        let Some(connection) = self.connections.get_mut(key) else { return };
        let count = match connection.stream.read(&mut self.buffer) {
            Ok(count) if count > 0 => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            _ => {
                self.connections.remove(key);
                return;
            }
        };
        let arrival_ns = now_ns();
        let heads = connection.take_heads(&self.buffer[..count]);
        for _ in 0..heads {
            self.arrivals.push(arrival_ns);
            if self.delay_ns == 0 {
                connection.answer();
            } else {
                self.waiting.push_back((arrival_ns + self.delay_ns, key, connection.serial));
            }
        }
        self.most_waiting = self.most_waiting.max(self.waiting.len());
        if connection.partial.len() > MAX_HEAD {
            self.connections.remove(key);
        }
    }

    fn answer_waiting(&mut self) {
        let now_ns = now_ns();
        while let Some(&(due_ns, key, serial)) = self.waiting.front()
            && due_ns <= now_ns
        {
            self.waiting.pop_front();
            if let Some(connection) = self.connections.get_mut(key)
                && connection.serial == serial
            {
                connection.answer();
            }
        }
    }
}

impl Connection {
    /// How many heads end in `chunk`, what was left over before included.
    fn take_heads(&mut self, chunk: &[u8]) -> usize {
        if self.partial.is_empty() && chunk.ends_with(END_OF_HEAD) {
            return count_heads(chunk).0;
        }
        self.partial.extend_from_slice(chunk);
        let (heads, rest) = count_heads(&self.partial);
        self.partial.drain(..rest);
        heads
    }

    fn answer(&mut self) {
        // The answer fits the socket's buffer; a peer that has gone is noticed at the next read.
        let _ = self.stream.write(RESPONSE);
    }
}

/// How many heads end in `bytes`, and where the rest begins.
fn count_heads(bytes: &[u8]) -> (usize, usize) {
    let (mut heads, mut from) = (0, 0);
    while let Some(at) = bytes[from..].windows(END_OF_HEAD.len()).position(|window| window == END_OF_HEAD) {
        heads += 1;
        from += at + END_OF_HEAD.len();
    }
    (heads, from)
}

/// Listens with a queue that takes ten thousand connections at once (the standard library's holds 128).
fn listen(port: u16) -> io::Result<TcpListener> {
    let address = std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::STREAM,
        rustix::net::SocketFlags::NONBLOCK | rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, 4096)?;
    Ok(TcpListener::from(socket))
}
