//! The raw floor: what a paced request costs when nothing but system calls is paid for.
//!
//! Open loop over a stack of connections that are idle, one timerfd, one epoll, no HTTP library, no metrics beyond its own
//! lag. It follows the pacing rule of hammerd: everything due is sent on any wake-up, and the timer is set to the next
//! arrival, but not earlier than `coalesce` from now.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use hammerd::clock::now_ns;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use serde_json::json;

use crate::stats::quantile;
use crate::sys::{self, Poll, Trigger};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n";
const NANOS_PER_SECOND: u64 = 1_000_000_000;
/// Arrivals released before responses get a turn.
const MAX_RELEASES_PER_TURN: usize = 64;
/// How long the last responses may take.
const LAST_CALL: Duration = Duration::from_millis(100);
const TIMER: u64 = u64::MAX;

/// How the floor is started.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Port of the server on the loopback address
    port: u16,
    /// Arrivals a second
    rate: u64,
    /// For how long
    seconds: u64,
    /// Connections to spread them over
    #[arg(long, default_value_t = 50)]
    connections: usize,
    /// How long an arrival may wait to share a wake-up
    #[arg(long, value_name = "US", default_value_t = 250)]
    coalesce_us: u64,
    /// Seconds at the beginning that are left out of the lag and the counts
    #[arg(long, default_value_t = 0)]
    warm_up: u64,
    /// The core to stay on
    #[arg(long)]
    core: Option<usize>,
}

struct Floor {
    poll: Poll,
    timer: OwnedFd,
    streams: Vec<TcpStream>,
    idle: Vec<usize>,
    /// For every read; clearing a new one each time would be no floor.
    buffer: Box<[u8]>,
    start_ns: u64,
    rate: u64,
    total: u64,
    next: u64,
    done: u64,
    /// Arrival to send in microseconds; `u32::MAX` for an arrival that found no idle connection.
    lags_us: Vec<u32>,
}

/// Sends what was asked for and prints what came of it as a line of JSON.
pub(crate) fn run(args: &Args) -> io::Result<()> {
    sys::raise_descriptor_limit()?;
    if let Some(core) = args.core {
        sys::pin(core)?;
    }
    let mut floor = Floor::new(args)?;
    floor.drive(args.coalesce_us * 1000)?;
    let measured = &floor.lags_us[((args.warm_up * args.rate) as usize).min(floor.lags_us.len())..];
    let mut sent: Vec<u32> = measured.iter().copied().filter(|&lag_us| lag_us != u32::MAX).collect();
    sent.sort_unstable();
    println!(
        "{}",
        json!({
            "scheduled": measured.len(),
            "sent": sent.len(),
            "dropped": measured.len() - sent.len(),
            "finished": floor.done,
            "lag_p50_us": quantile(&sent, 0.5),
            "lag_p99_us": quantile(&sent, 0.99),
            "lag_p999_us": quantile(&sent, 0.999),
            "lag_max_us": sent.last(),
        })
    );
    Ok(())
}

impl Floor {
    fn new(args: &Args) -> io::Result<Self> {
        let poll = Poll::new()?;
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        poll.add(&timer, TIMER, Trigger::Edge)?;
        let connect = |token| {
            let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, args.port))?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            poll.add(&stream, token as u64, Trigger::Edge)?;
            Ok(stream)
        };
        let streams = (0..args.connections).map(connect).collect::<io::Result<Vec<_>>>()?;
        let total = args.rate * args.seconds;
        Ok(Self {
            idle: (0..streams.len()).collect(),
            buffer: vec![0; 8192].into(),
            poll,
            timer,
            streams,
            start_ns: now_ns() + 1_000_000,
            rate: args.rate,
            total,
            next: 0,
            done: 0,
            lags_us: Vec::with_capacity(total as usize),
        })
    }

    fn due_ns(&self) -> u64 {
        self.start_ns + (u128::from(self.next) * u128::from(NANOS_PER_SECOND) / u128::from(self.rate)) as u64
    }

    fn drive(&mut self, coalesce_ns: u64) -> io::Result<()> {
        let mut tokens = Vec::new();
        while self.next < self.total || self.idle.len() < self.streams.len() {
            let now_ns = now_ns();
            let all_sent = self.release(now_ns);
            let timeout = if !all_sent {
                Some(Duration::ZERO)
            } else if self.next < self.total {
                self.arm(self.due_ns().max(now_ns + coalesce_ns))?;
                None
            } else {
                Some(LAST_CALL)
            };
            self.poll.wait(timeout, &mut tokens)?;
            if tokens.is_empty() && timeout == Some(LAST_CALL) {
                break;
            }
            for &token in &tokens {
                self.receive(token);
            }
        }
        Ok(())
    }

    /// Sends what is due, up to the bound of a turn; false when more may be due.
    fn release(&mut self, now_ns: u64) -> bool {
        for _ in 0..MAX_RELEASES_PER_TURN {
            let due_ns = self.due_ns();
            if self.next >= self.total || due_ns > now_ns {
                return true;
            }
            let sent = self.idle.pop().is_some_and(|index| self.streams[index].write(REQUEST).is_ok());
            self.lags_us.push(if sent { ((now_ns - due_ns) / 1000) as u32 } else { u32::MAX });
            self.next += 1;
        }
        false
    }

    fn receive(&mut self, token: u64) {
        if token == TIMER {
            return;
        }
        // The witness answers with one small segment: what was read is the whole response.
        if matches!(self.streams[token as usize].read(&mut self.buffer), Ok(count) if count > 0) {
            self.done += 1;
            self.idle.push(token as usize);
        }
    }

    fn arm(&self, at_ns: u64) -> io::Result<()> {
        let at = Timespec { tv_sec: (at_ns / NANOS_PER_SECOND) as i64, tv_nsec: (at_ns % NANOS_PER_SECOND) as i64 };
        let spec = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: at };
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &spec)?;
        Ok(())
    }
}
