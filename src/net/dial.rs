//! A host and port to an open connection.

use std::cell::{Cell, RefCell};
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;

use ipnet::IpNet;
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Duration, timeout};

use super::{Fault, Resolver, Socket};
use crate::clock;
use crate::outcome::{Reason, Stage, Trace};
use crate::stats::Ledger;

/// How long one address may take to answer while others are left to try: this, or its share of the time that is left.
const ATTEMPT_BUDGET: Duration = Duration::from_millis(1500);

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
    /// Whether `address` may be dialled. An IPv4 address inside IPv6 is judged as IPv4.
    pub fn admits(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let within = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&address));
        !within(&self.deny) && (self.allow.is_empty() || within(&self.allow))
    }
}

/// Opens connections to one host and port, for one target on one worker.
#[derive(Debug)]
pub struct Dialer {
    host: Arc<str>,
    port: u16,
    guard: Arc<Guard>,
    resolver: Resolver,
    ledger: Arc<Ledger>,
    /// The latest addresses that a lookup gave; used when the resolver fails.
    last_good: RefCell<Option<Arc<[IpAddr]>>>,
    /// Counts dials: each begins with the next address in turn, the first one anywhere, so that a fleet of us does not
    /// begin with the same one.
    turn: Cell<usize>,
}

impl Dialer {
    /// A dialer for `host` (a name, or an address literal without brackets). The caller is the one writer of `ledger`.
    pub fn new(host: &str, port: u16, guard: Arc<Guard>, resolver: Resolver, ledger: Arc<Ledger>) -> Self {
        // Nothing that the ledger's last dialer had found is in use any more.
        ledger.wire.dns_addresses.set(0);
        Self {
            host: host.into(),
            port,
            guard,
            resolver,
            ledger,
            last_good: RefCell::new(None),
            turn: Cell::new(RandomState::new().hash_one(host) as usize),
        }
    }

    /// Who judges its addresses.
    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    /// Resolves and connects, before `deadline_ns` at best. All addresses are tried in turn; the last one's failure is
    /// the dial's.
    pub async fn dial(&self, trace: &Trace, deadline_ns: u64) -> Result<Socket, Fault> {
        let addresses = self.addresses(trace).await?;
        trace.enter(Stage::Connect, clock::now_ns());
        let turn = self.turn.replace(self.turn.get().wrapping_add(1));
        let admitted = self.admitted(&addresses);
        let mut last = Fault::new(Reason::Denied, "all its addresses lie in denied networks");
        for attempt in 0..admitted.len() {
            let address = SocketAddr::new(admitted[turn.wrapping_add(attempt) % admitted.len()], self.port);
            let others_left = admitted.len() - attempt - 1;
            match connect(address, others_left, deadline_ns).await {
                Ok(stream) => return Ok(Socket::new(stream, Arc::clone(&self.ledger))),
                Err(fault) => last = fault,
            }
        }
        Err(last)
    }

    fn admitted(&self, addresses: &[IpAddr]) -> Vec<IpAddr> {
        addresses.iter().copied().filter(|&address| self.guard.admits(address)).collect()
    }

    async fn addresses(&self, trace: &Trace) -> Result<Arc<[IpAddr]>, Fault> {
        if let Ok(literal) = self.host.parse::<IpAddr>() {
            return Ok(Arc::new([literal]));
        }
        trace.enter(Stage::Dns, clock::now_ns());
        match self.resolver.lookup(&self.host).await {
            Ok(addresses) => {
                self.ledger.wire.dns_addresses.set(addresses.len() as u64);
                *self.last_good.borrow_mut() = Some(Arc::clone(&addresses));
                Ok(addresses)
            }
            Err(fault) if fault.reason == Reason::DnsNotFound => Err(fault),
            Err(fault) => self.last_good.borrow().clone().ok_or(fault),
        }
    }
}

async fn connect(address: SocketAddr, others_left: usize, deadline_ns: u64) -> Result<TcpStream, Fault> {
    let connecting = async { socket_for(address)?.connect(address).await };
    let connected = if others_left > 0 {
        let too_slow = || Fault::new(Reason::ConnectTimeout, format!("{address} did not answer in time"));
        let left = Duration::from_nanos(deadline_ns.saturating_sub(clock::now_ns()));
        let share = left / u32::try_from(others_left + 1).unwrap_or(u32::MAX);
        timeout(share.min(ATTEMPT_BUDGET), connecting).await.map_err(|_| too_slow())?
    } else {
        connecting.await
    };
    let stream = connected.map_err(|error| Fault::new(reason_of(&error), format!("{address}: {error}")))?;
    // Refused only on a socket that is dead already, which the first write will tell better.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

/// A socket, unless it would be one of the last that may be open.
fn socket_for(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // The kernel gives the lowest number that is free: all below are in use.
    let in_use = u64::try_from(socket.as_raw_fd()).unwrap_or(0);
    match getrlimit(Resource::Nofile).current {
        Some(limit) if in_use >= limit - MAX_SPARE_DESCRIPTORS.min(limit / 4) => Err(Errno::MFILE.into()),
        _ => Ok(socket),
    }
}

fn reason_of(error: &io::Error) -> Reason {
    match Errno::from_io_error(error) {
        Some(Errno::CONNREFUSED) => Reason::ConnectRefused,
        Some(Errno::TIMEDOUT) => Reason::ConnectTimeout,
        Some(
            Errno::NETUNREACH | Errno::HOSTUNREACH | Errno::NETDOWN | Errno::HOSTDOWN | Errno::ACCESS | Errno::PERM,
        ) => Reason::ConnectUnreachable,
        Some(Errno::ADDRNOTAVAIL) => Reason::LocalPorts,
        Some(Errno::MFILE | Errno::NFILE) => Reason::LocalFds,
        Some(Errno::CONNRESET | Errno::CONNABORTED | Errno::PIPE) => Reason::Reset,
        // A blackhole route fails at once with EINVAL: nothing can be reached there.
        Some(Errno::INVAL | Errno::NODEV | Errno::AFNOSUPPORT) => Reason::ConnectUnreachable,
        _ => Reason::Io,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().expect("a network")).collect()
    }

    #[test]
    fn a_denied_network_is_denied_in_every_notation() {
        let guard = Guard { deny: networks(&["169.254.0.0/16", "fe80::/10"]), allow: vec![] };
        for (address, admitted) in [
            ("169.254.169.254", false),
            ("::ffff:169.254.169.254", false),
            ("fe80::1", false),
            ("10.0.0.1", true),
            ("::1", true),
        ] {
            assert_eq!(guard.admits(address.parse().expect("an address")), admitted, "{address}");
        }
    }

    #[test]
    fn a_list_of_allowed_networks_excludes_all_others_and_denial_wins() {
        let guard = Guard { deny: networks(&["10.9.0.0/16"]), allow: networks(&["10.0.0.0/8"]) };
        let admitted =
            ["10.1.1.1", "10.9.1.1", "192.0.2.1"].map(|address| guard.admits(address.parse().expect("an address")));
        assert_eq!(admitted, [true, false, false]);
    }
}
