//! A host and port to an open connection.

use std::cell::{Cell, RefCell};
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;

use ipnet::IpNet;
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::time::{Duration, timeout};

#[cfg(feature = "http3")]
use super::Answered;
use super::{Addresses, Fault, Link, Manner, Peer, Question, Refresh, Resolver, Route, Socket};
use crate::clock;
use crate::outcome::{Reason, Stage, Trace};
use crate::stats::Ledger;

/// How long one address may take to answer while others are left to try, or its share of the time that is left.
const ATTEMPT_BUDGET: Duration = Duration::from_millis(1500);
/// How long a lookup may take while there are addresses that worked before. One dial waits for it, but over HTTP/2 every
/// request may be waiting for that one; an answer that comes later is used by the next dial.
const STALE_LOOKUP_BUDGET: Duration = Duration::from_millis(250);
/// How long a resolver that failed is not asked again while there are such addresses.
const SPARED_NS: u64 = 5_000_000_000;
/// How long connections that are kept rely on an answer, however soon its records expire.
const MIN_TTL_NS: u64 = 5_000_000_000;
/// How long an address that failed comes last.
const DEAD_NS: u64 = 10_000_000_000;
/// An address that was silent for this long is taken for dead: the SYN or its answer would have crossed any ocean.
const SILENCE: Duration = Duration::from_millis(250);

/// Descriptors that no connection of a target takes, so that scrapes and reloads find some: a quarter of them all, at
/// most this many.
const MAX_SPARE_DESCRIPTORS: u64 = 64;

/// Which addresses may be dialled, judged after the name was resolved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Guard {
    /// Never these.
    pub deny: Vec<IpNet>,
    /// When not empty, only these.
    pub allow: Vec<IpNet>,
}

impl Guard {
    /// Whether `address` may be dialled. An IPv4 address inside IPv6 is judged as IPv4, and the unspecified address as what
    /// it leads to: this machine.
    pub fn admits(&self, address: IpAddr) -> bool {
        let address = match address.to_canonical() {
            IpAddr::V4(address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(address) if address.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            address => address,
        };
        let within = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&address));
        !within(&self.deny) && (self.allow.is_empty() || within(&self.allow))
    }
}

/// Addresses, when they were looked up and when their records expire.
#[derive(Debug, Clone)]
struct Known {
    addresses: Arc<[IpAddr]>,
    since_ns: u64,
    until_ns: u64,
}

/// Opens connections along one route, for one target on one worker.
#[derive(Debug)]
pub struct Dialer {
    peer: Peer,
    /// The peer's host, ready to be asked for; see [`question`](Self::question).
    question: Question,
    refresh: Cell<Refresh>,
    connect_timeout: Cell<Duration>,
    guard: Arc<Guard>,
    resolver: Resolver,
    ledger: Arc<Ledger>,
    /// The latest addresses that a lookup gave; used when the resolver fails.
    last_good: RefCell<Option<Known>>,
    /// Whether it gave others than before, and nobody has asked yet.
    changed: Cell<bool>,
    /// Until when the resolver, which failed, is not asked as long as there are addresses.
    spared_until_ns: Cell<u64>,
    /// Until when the name is not looked up again for connections that are kept, since a lookup failed.
    retry_ns: Cell<u64>,
    /// Whether a dial waits for a lookup although there are addresses.
    asking: Cell<bool>,
    /// Addresses that failed, and until when others go first.
    dead: RefCell<Vec<(IpAddr, u64)>>,
    /// Counts dials: each begins with the next address in turn, the first one anywhere, so that a fleet of us does not
    /// begin with the same one.
    turn: Cell<usize>,
}

impl Dialer {
    /// A dialer for `route`. The caller is the one writer of `ledger`.
    pub fn new(route: Route, guard: Arc<Guard>, resolver: Resolver, ledger: Arc<Ledger>) -> Self {
        // Nothing that the ledger's last dialer had found is in use any more.
        ledger.wire.dns_addresses.set(0);
        let Route { peer, family, refresh, servers, connect_timeout } = route;
        let host: Arc<str> = match &peer {
            Peer::Tcp { host, .. } => host.as_str().into(),
            Peer::Unix(_) => "".into(),
        };
        let manner = Manner { family, servers: servers.into(), cached: refresh == Refresh::Ttl };
        Self {
            turn: Cell::new(RandomState::new().hash_one(&host) as usize),
            peer,
            question: Question { host, manner },
            refresh: Cell::new(refresh),
            connect_timeout: Cell::new(connect_timeout),
            guard,
            resolver,
            ledger,
            last_good: RefCell::new(None),
            changed: Cell::new(false),
            spared_until_ns: Cell::new(0),
            retry_ns: Cell::new(0),
            asking: Cell::new(false),
            dead: RefCell::default(),
        }
    }

    /// Whether it leads where `route` does.
    pub fn follows(&self, route: &Route) -> bool {
        // How often a name is looked up and how long connecting may take are no part of where it leads.
        let Route { peer, family, servers, refresh: _, connect_timeout: _ } = route;
        let manner = &self.question.manner;
        self.peer == *peer && manner.family == *family && *manner.servers == **servers
    }

    /// Takes over how often `route`, which leads to the same place, has the name looked up, and how long connecting may
    /// take; true when the former has changed.
    pub fn adapt(&self, route: &Route) -> bool {
        self.connect_timeout.set(route.connect_timeout);
        self.refresh.replace(route.refresh) != route.refresh
    }

    /// How long opening a connection may take, all addresses together.
    pub fn connect_timeout(&self) -> Duration {
        self.connect_timeout.get()
    }

    /// Who judges its addresses.
    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    /// Whether connections to `address` may still be used: the name leads there, as far as is known.
    pub fn knows(&self, address: Option<IpAddr>) -> bool {
        let last_good = self.last_good.borrow();
        match (address, &*last_good) {
            (Some(address), Some(known)) => known.addresses.contains(&address),
            _ => true,
        }
    }

    /// Whether the addresses have changed since this was last asked.
    pub fn take_change(&self) -> bool {
        self.changed.take()
    }

    /// When connections that are kept need the name looked up again, on the clock of [`crate::clock`]; `None` for never.
    pub fn due_ns(&self) -> Option<u64> {
        let last_good = self.last_good.borrow();
        let known = last_good.as_ref()?;
        let due_ns = match self.refresh.get() {
            Refresh::Ttl => known.until_ns.max(known.since_ns + MIN_TTL_NS),
            Refresh::Every(interval) => known.since_ns + interval.as_nanos() as u64,
            Refresh::Once => return None,
        };
        Some(due_ns.max(self.retry_ns.get()))
    }

    /// What is asked, and how at present.
    fn question(&self) -> Question {
        let mut question = self.question.clone();
        question.manner.cached = self.refresh.get() == Refresh::Ttl;
        question
    }

    /// Looks the name up, and holds on to nothing meanwhile; the answer is for [`learn`](Self::learn).
    pub fn inquire(&self) -> impl Future<Output = Result<Addresses, Fault>> + use<> {
        let (resolver, question) = (self.resolver.clone(), self.question());
        async move { resolver.lookup(&question).await }
    }

    /// Takes up what a lookup that began at `asked_ns` came to, and returns the addresses to use. Those that are known
    /// stay in use while the resolver fails.
    pub fn learn(&self, answer: Result<Addresses, Fault>, asked_ns: u64) -> Result<Arc<[IpAddr]>, Fault> {
        let mut last_good = self.last_good.borrow_mut();
        let fault = match answer {
            Ok(Addresses { list: addresses, until_ns }) => {
                self.ledger.wire.dns_addresses.set(addresses.len() as u64);
                if last_good.as_ref().is_some_and(|before| before.addresses != addresses) {
                    self.changed.set(true);
                }
                *last_good = Some(Known { addresses: Arc::clone(&addresses), since_ns: asked_ns, until_ns });
                return Ok(addresses);
            }
            Err(fault) => fault,
        };
        let retry_ns = clock::now_ns() + SPARED_NS;
        self.retry_ns.set(retry_ns);
        match &*last_good {
            Some(known) if fault.reason != Reason::DnsNotFound => {
                self.spared_until_ns.set(retry_ns);
                Ok(Arc::clone(&known.addresses))
            }
            _ => Err(fault),
        }
    }

    /// Resolves and connects, before `deadline_ns` at best. All addresses are tried in turn; the last one's failure is
    /// the dial's.
    pub async fn dial(&self, trace: &Trace, deadline_ns: u64) -> Result<Socket, Fault> {
        let (link, address) = match &self.peer {
            Peer::Tcp { port, .. } => {
                let (stream, address) = self.try_each(*port, trace, deadline_ns, connect).await?;
                (Link::Tcp(stream), Some(address))
            }
            Peer::Unix(path) => {
                trace.enter(Stage::Connect, clock::now_ns());
                (Link::Unix(connect_unix(path, self.connect_timeout.get()).await?), None)
            }
        };
        Ok(Socket::new(link, address, Arc::clone(&self.ledger)))
    }

    /// As [`dial`](Self::dial), over QUIC: to the first answer, by which the peer shows that it is there.
    #[cfg(feature = "http3")]
    pub async fn dial_quic(&self, tls: &super::Tls, trace: &Trace, deadline_ns: u64) -> Result<Answered, Fault> {
        let Peer::Tcp { port, .. } = self.peer else {
            return Err(Fault::new(Reason::ConnectUnreachable, "QUIC can't be spoken over a Unix domain socket"));
        };
        self.try_each(port, trace, deadline_ns, |address| super::quic::greet(address, tls, &self.ledger)).await
    }

    async fn try_each<T>(
        &self,
        port: u16,
        trace: &Trace,
        deadline_ns: u64,
        connect: impl AsyncFn(SocketAddr) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let addresses = self.addresses(trace, deadline_ns).await?;
        let now_ns = clock::now_ns();
        trace.enter(Stage::Connect, now_ns);
        let deadline_ns = deadline_ns.min(now_ns.saturating_add(self.connect_timeout.get().as_nanos() as u64));
        let turn = self.turn.replace(self.turn.get().wrapping_add(1));
        let admitted = self.in_order(self.admitted(&addresses), turn, now_ns);
        let mut last = Fault::new(Reason::Denied, "all its addresses lie in denied networks");
        for attempt in 0..admitted.len() {
            let address = SocketAddr::new(admitted[attempt], port);
            let left = Duration::from_nanos(deadline_ns.saturating_sub(clock::now_ns()));
            let budget = budget(left, admitted.len() - attempt - 1);
            let connected = timeout(budget, connect(address)).await;
            let too_slow = |_| Err(Fault::new(Reason::ConnectTimeout, format!("{address} did not answer in time")));
            match connected.unwrap_or_else(too_slow) {
                Ok(connection) => {
                    self.dead.borrow_mut().retain(|(dead, _)| *dead != address.ip());
                    return Ok(connection);
                }
                Err(fault) => {
                    if self.is_to_blame(fault.reason, budget, admitted.len()) {
                        self.note_failure(address.ip());
                    }
                    last = fault;
                }
            }
        }
        Err(last)
    }

    fn admitted(&self, addresses: &[IpAddr]) -> Vec<IpAddr> {
        addresses.iter().copied().filter(|&address| self.guard.admits(address)).collect()
    }

    /// In turn, but those that failed lately come last.
    fn in_order(&self, mut addresses: Vec<IpAddr>, turn: usize, now_ns: u64) -> Vec<IpAddr> {
        if addresses.len() > 1 {
            let first = turn % addresses.len();
            addresses.rotate_left(first);
            let dead = self.dead.borrow();
            addresses.sort_by_key(|address| dead.iter().any(|(dead, until_ns)| dead == address && now_ns < *until_ns));
        }
        addresses
    }

    /// Whether a failed attempt speaks against its address, one of `count`. Silence does only if the attempt had time for
    /// an answer, or half of its share where shares are shorter: the request may have come with hardly any left.
    fn is_to_blame(&self, reason: Reason, budget: Duration, count: usize) -> bool {
        match reason {
            Reason::ConnectRefused | Reason::ConnectUnreachable => true,
            Reason::ConnectTimeout => {
                let share = self.connect_timeout.get() / u32::try_from(count.max(1)).unwrap_or(u32::MAX);
                budget >= SILENCE.min(share / 2)
            }
            _ => false,
        }
    }

    fn note_failure(&self, address: IpAddr) {
        let now_ns = clock::now_ns();
        let mut dead = self.dead.borrow_mut();
        dead.retain(|(other, until_ns)| *other != address && now_ns < *until_ns);
        dead.push((address, now_ns + DEAD_NS));
    }

    async fn addresses(&self, trace: &Trace, deadline_ns: u64) -> Result<Arc<[IpAddr]>, Fault> {
        if let Ok(literal) = self.question.host.parse::<IpAddr>() {
            return Ok(Arc::new([literal]));
        }
        let now_ns = clock::now_ns();
        let known = self.last_good.borrow().clone();
        if let Some(known) = &known
            && (self.is_current(known, now_ns) || now_ns < self.spared_until_ns.get())
        {
            return Ok(Arc::clone(&known.addresses));
        }
        let Some(known) = known else {
            trace.enter(Stage::Dns, now_ns);
            return self.learn(self.resolver.lookup(&self.question()).await, now_ns);
        };
        // One waits for the answer; others take what is known, or a resolver that is dead would hold them all up.
        let Some(_asking) = Asking::alone(&self.asking) else { return Ok(known.addresses) };
        trace.enter(Stage::Dns, now_ns);
        // Of a request that may take less than that, half of its time is left for the address that is known.
        let left = Duration::from_nanos(deadline_ns.saturating_sub(now_ns));
        let in_time = timeout(STALE_LOOKUP_BUDGET.min(left / 2), self.resolver.lookup(&self.question())).await;
        if let Ok(answer) = in_time {
            return self.learn(answer, now_ns);
        }
        self.spared_until_ns.set(clock::now_ns() + SPARED_NS);
        Ok(known.addresses)
    }

    /// Whether addresses are used without asking again. Those with a TTL are kept by the resolver, which knows it.
    fn is_current(&self, known: &Known, now_ns: u64) -> bool {
        match self.refresh.get() {
            Refresh::Ttl => false,
            Refresh::Every(interval) => now_ns.saturating_sub(known.since_ns) < interval.as_nanos() as u64,
            Refresh::Once => true,
        }
    }
}

/// The one dial that waits for a lookup, until it is dropped.
struct Asking<'a>(&'a Cell<bool>);

impl<'a> Asking<'a> {
    /// `None` while another one does.
    fn alone(asking: &'a Cell<bool>) -> Option<Self> {
        (!asking.replace(true)).then(|| Self(asking))
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

/// How long one attempt may take of the time that is left, when so many other addresses are.
fn budget(left: Duration, others_left: usize) -> Duration {
    match u32::try_from(others_left) {
        Ok(0) => left,
        others_left => (left / others_left.map_or(u32::MAX, |others| others + 1)).min(ATTEMPT_BUDGET),
    }
}

async fn connect(address: SocketAddr) -> Result<(TcpStream, IpAddr), Fault> {
    let connected = async { socket_for(address)?.connect(address).await }.await;
    let stream = connected.map_err(|error| Fault::new(reason_of(&error), format!("{address}: {error}")))?;
    // Refused only on a socket that is dead already, which the first write will tell better.
    let _ = stream.set_nodelay(true);
    Ok((stream, address.ip()))
}

async fn connect_unix(path: &Path, budget: Duration) -> Result<UnixStream, Fault> {
    let fault = |error: io::Error| {
        // Like a port: a path that is not there, or that nobody listens on.
        let reason = match Errno::from_io_error(&error) {
            Some(Errno::NOENT) => Reason::ConnectRefused,
            // Its queue is full: nobody accepts.
            Some(Errno::AGAIN) => Reason::ConnectTimeout,
            _ => reason_of(&error),
        };
        Fault::new(reason, format!("{}: {error}", path.display()))
    };
    match timeout(budget, UnixStream::connect(path)).await {
        Ok(connected) => {
            let spare = |stream: UnixStream| keep_spare_descriptors(&stream).map(|()| stream);
            connected.and_then(spare).map_err(fault)
        }
        Err(_) => Err(Fault::new(Reason::ConnectTimeout, format!("{} did not answer in time", path.display()))),
    }
}

fn socket_for(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    keep_spare_descriptors(&socket)?;
    Ok(socket)
}

/// Refuses a socket that is one of the last descriptors that may be open.
pub(super) fn keep_spare_descriptors(socket: &impl AsRawFd) -> io::Result<()> {
    // The kernel gives the lowest number that is free: all below are in use.
    let in_use = u64::try_from(socket.as_raw_fd()).unwrap_or(0);
    match getrlimit(Resource::Nofile).current {
        Some(limit) if in_use >= limit - MAX_SPARE_DESCRIPTORS.min(limit / 4) => Err(Errno::MFILE.into()),
        _ => Ok(()),
    }
}

pub(super) fn reason_of(error: &io::Error) -> Reason {
    match Errno::from_io_error(error) {
        Some(Errno::CONNREFUSED) => Reason::ConnectRefused,
        Some(Errno::TIMEDOUT) => Reason::ConnectTimeout,
        Some(
            Errno::NETUNREACH | Errno::HOSTUNREACH | Errno::NETDOWN | Errno::HOSTDOWN | Errno::ACCESS | Errno::PERM,
        ) => Reason::ConnectUnreachable,
        // The one of a TCP socket, the other of a UDP socket.
        Some(Errno::ADDRNOTAVAIL | Errno::ADDRINUSE) => Reason::LocalPorts,
        Some(Errno::MFILE | Errno::NFILE) => Reason::LocalFds,
        Some(Errno::CONNRESET | Errno::CONNABORTED | Errno::PIPE) => Reason::Reset,
        // A blackhole route fails at once with EINVAL: nothing can be reached there.
        Some(Errno::INVAL | Errno::NODEV | Errno::AFNOSUPPORT) => Reason::ConnectUnreachable,
        _ => Reason::Io,
    }
}

#[cfg(test)]
mod tests;
