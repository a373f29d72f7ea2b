//! A network of a test's own.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::process::{Command, Stdio};

use rustix::thread::{LinkNameSpaceType, gettid, move_into_link_name_space};

use super::{is_root, skip};

/// Runs `test` on a thread in a network namespace of its own, in which only a loopback interface is up and `setup`
/// (lines of `ip`, without the word) has been done. Whatever the test starts lives there too and sees no other
/// network. Without root it is skipped, and says so.
pub(crate) fn in_private_network(name: &str, setup: &[&str], test: impl FnOnce() + Send) {
    if !is_root() {
        return skip(name, "needs root for a network namespace");
    }
    let namespace = new_namespace();
    on_thread_in(&namespace, || {
        for line in setup {
            ip(line);
        }
        test();
    });
}

/// Runs `act` on a thread in a network namespace.
fn on_thread_in<T: Send>(namespace: &File, act: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let run = scope.spawn(|| {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).expect("the namespace");
            act()
        });
        run.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The address of the test's own end of the link to the network [`beyond`](in_linked_networks).
pub(crate) const HERE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The address of its other end.
pub(crate) const THERE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);

/// Another network, at the far end of a link.
pub(crate) struct Beyond(File);

impl Beyond {
    /// Runs `act` on a thread in that network; sockets that it opens stay there.
    pub(crate) fn run<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        on_thread_in(&self.0, act)
    }

    /// Takes the far end of the link down, so that what is sent is lost without a word, or up again.
    pub(crate) fn set_link(&self, state: &str) {
        self.run(|| ip(&format!("link set there {state}")));
    }
}

/// As [`in_private_network`], with a link between [`HERE`] and [`THERE`] in a second network.
///
/// Each end knows the other's hardware address for good: a link that is down stays silent, and nobody finds out by
/// asking for the neighbour.
pub(crate) fn in_linked_networks(name: &str, test: impl FnOnce(&Beyond) + Send) {
    const HERE_MAC: &str = "02:00:00:00:00:01";
    const THERE_MAC: &str = "02:00:00:00:00:02";
    let set_up = |device: &str, own: Ipv4Addr, peer: Ipv4Addr, peer_mac: &str| {
        ip(&format!("addr add {own}/24 dev {device}"));
        ip(&format!("link set {device} up"));
        ip(&format!("neigh replace {peer} lladdr {peer_mac} dev {device} nud permanent"));
    };
    in_private_network(name, &[], || {
        let beyond = Beyond(new_namespace());
        let this_thread = gettid().as_raw_nonzero();
        beyond.run(|| {
            ip(&format!(
                "link add there address {THERE_MAC} type veth peer name here address {HERE_MAC} netns {this_thread}"
            ));
            set_up("there", THERE, HERE, HERE_MAC);
        });
        set_up("here", HERE, THERE, THERE_MAC);
        test(&beyond);
    });
}

/// A network with one link, to the private network that the calling thread is in.
pub(crate) struct Spur {
    namespace: File,
    /// The address of its end.
    pub(crate) address: Ipv4Addr,
}

impl Spur {
    /// Number `n` of the spurs of this network, at 10.99.n.2.
    pub(crate) fn new(n: u8) -> Self {
        let (near, far) = (Ipv4Addr::new(10, 99, n, 1), Ipv4Addr::new(10, 99, n, 2));
        let namespace = new_namespace();
        let this_thread = gettid().as_raw_nonzero();
        on_thread_in(&namespace, || {
            ip(&format!("link add end type veth peer name spur{n} netns {this_thread}"));
            ip(&format!("addr add {far}/24 dev end"));
            ip("link set end up");
            ip(&format!("route add default via {near}"));
        });
        ip(&format!("addr add {near}/24 dev spur{n}"));
        ip(&format!("link set spur{n} up"));
        Self { namespace, address: far }
    }

    /// Runs `act` on a thread in that network; what it starts stays there.
    pub(crate) fn run<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        on_thread_in(&self.namespace, act)
    }
}

/// Runs one `ip` command in the network that the calling thread is in.
pub(crate) fn ip(line: &str) {
    let output = Command::new("ip").args(line.split_whitespace()).output().expect("ip from iproute2");
    assert!(output.status.success(), "ip {line}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Makes a namespace by a process that holds it until it has been opened here.
fn new_namespace() -> File {
    let mut holder = Command::new("unshare")
        .args(["--net", "sh", "-c", "ip link set lo up && echo up && exec cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("unshare from util-linux");
    let mut line = String::new();
    BufReader::new(holder.stdout.take().expect("stdout")).read_line(&mut line).expect("a line from the namespace");
    assert_eq!(line.trim(), "up", "the loopback interface of a new namespace");
    let namespace = File::open(format!("/proc/{}/ns/net", holder.id())).expect("the namespace");
    holder.kill().and_then(|()| holder.wait()).expect("the end of the holder");
    namespace
}
