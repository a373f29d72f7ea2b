//! What a service manager hears: a socket of the test's own is where `NOTIFY_SOCKET` leads.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use rustix::time::{ClockId, clock_gettime};

use crate::support::{Daemon, Origin, PATIENCE, Reply, let_pass, target};

/// A service manager's end of the socket.
struct Manager {
    socket: UnixDatagram,
}

impl Manager {
    fn at(path: &Path) -> Self {
        Self::of(UnixDatagram::bind(path).expect("a socket"))
    }

    fn abstract_name(name: &str) -> Self {
        let address = SocketAddr::from_abstract_name(name).expect("a name");
        Self::of(UnixDatagram::bind_addr(&address).expect("a socket"))
    }

    fn of(socket: UnixDatagram) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
        Self { socket }
    }

    /// The next message, as lines.
    #[track_caller]
    fn next(&self) -> Vec<String> {
        let mut message = [0; 4096];
        let length = self.socket.recv(&mut message).expect("a message in time");
        let text = std::str::from_utf8(&message[..length]).expect("text");
        text.lines().map(str::to_owned).collect()
    }

    /// All messages up to one that begins with this line, that one included.
    #[track_caller]
    fn until(&self, first_line: &str) -> Vec<Vec<String>> {
        let mut messages = vec![self.next()];
        while messages.last().is_none_or(|message| message[0] != first_line) {
            messages.push(self.next());
        }
        messages
    }

    /// How many messages have come by now and were not read; reads them.
    fn waiting(&self) -> usize {
        self.socket.set_nonblocking(true).expect("a socket");
        let count = std::iter::from_fn(|| self.socket.recv(&mut [0; 4096]).ok()).count();
        self.socket.set_nonblocking(false).expect("a socket");
        count
    }
}

fn monotonic_us() -> i64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec * 1_000_000 + now.tv_nsec / 1000
}

#[test]
fn a_service_manager_is_told_of_the_start_each_reload_and_the_end() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("notify");
    let manager = Manager::at(&path);
    let origin = Origin::start(|_| Reply::ok(""));
    let config = |rate: &str| target("a", &origin.url("/"), rate, "");
    let mut daemon =
        Daemon::builder(&config("20/s")).env("NOTIFY_SOCKET", path.to_str().expect("UTF-8")).start_unready();
    assert_eq!(manager.next(), ["READY=1", "STATUS=1 target, 20.00 requests a second"]);
    assert_eq!(daemon.get("/-/ready").status, 200, "it is said when it is so");

    let reload = |config: &str| {
        let before = monotonic_us();
        let done = daemon.reload_with(config);
        let reloading = manager.next();
        assert_eq!((reloading[0].as_str(), reloading.len()), ("RELOADING=1", 3), "{reloading:?}");
        let stamp = reloading[1].strip_prefix("MONOTONIC_USEC=").expect("a stamp").parse().expect("a number");
        assert!((before..=monotonic_us()).contains(&stamp), "{stamp} is not between {before} and now");
        (done, manager.next())
    };
    assert_eq!(
        reload(&config("30/s")),
        (true, vec!["READY=1".to_owned(), "STATUS=1 target, 30.00 requests a second".to_owned()])
    );
    let (done, ready) = reload("nonsense");
    assert!(!done);
    assert_eq!(ready[0], "READY=1", "it goes on as before");
    assert_eq!(ready[1], "STATUS=1 target, 30.00 requests a second; the last reload was refused, see the log");

    assert_eq!(daemon.stop().0.code(), Some(0));
    let stopping = manager.next();
    assert_eq!(stopping[0], "STOPPING=1");
    assert!(stopping[1].starts_with("STATUS=draining"), "{stopping:?}");
    assert_eq!(manager.waiting(), 0, "nobody asked for a watchdog");
}

/// While it works, while it reads a file that hangs, and while it drains; but not while it stands still.
#[test]
fn the_watchdog_hears_of_us_as_long_as_we_work() {
    const WATCHDOG: &str = "WATCHDOG=1";
    let name = format!("hammerd-test-{}", std::process::id());
    let manager = Manager::abstract_name(&name);
    let origin = Origin::start(|_| Reply::silence());
    let rest = "timeout = \"30s\"\nmax_in_flight = 5\n[shutdown]\ngrace = \"6s\"";
    let mut daemon = Daemon::builder(&target("a", &origin.url("/"), "10/s", rest))
        .env("NOTIFY_SOCKET", &format!("@{name}"))
        .env("WATCHDOG_USEC", "2000000")
        .start();
    manager.until("READY=1");
    let begun = Instant::now();
    (0..6).for_each(|_| assert_eq!(manager.next(), [WATCHDOG]));
    let took = begun.elapsed();
    // Some of them may have waited for a test that was late.
    assert!(took > Duration::from_millis(3500), "six in {took:?} are more than two in each two seconds");

    daemon.signal(Signal::STOP);
    let_pass(Duration::from_millis(100));
    manager.waiting();
    let_pass(Duration::from_millis(2500));
    assert_eq!(manager.waiting(), 0, "while it is stopped");
    daemon.signal(Signal::CONT);
    assert_eq!(manager.next(), [WATCHDOG]);

    std::fs::remove_file(daemon.path("hammerd.toml")).expect("the config file");
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, daemon.path("hammerd.toml"), fifo, 0o600.into(), 0).expect("a pipe");
    daemon.signal(Signal::HUP);
    manager.until("RELOADING=1");
    let meanwhile = manager.until("READY=1");
    // Ten seconds of reading, with a stall or two.
    assert!(meanwhile.len() > 7, "{meanwhile:?}");

    daemon.signal(Signal::TERM);
    manager.until("STOPPING=1");
    daemon.wait_exit(PATIENCE);
    let drained = manager.waiting();
    assert!(drained >= 4, "{drained} in a drain of six seconds");
}

#[test]
fn a_manager_that_is_not_there_or_not_meant_stops_nothing() {
    let origin = Origin::start(|_| Reply::ok(""));
    let config = target("a", &origin.url("/"), "20/s", "");
    let own = tempfile::tempdir().expect("a directory");
    let path = own.path().join("nobody");
    for (socket, logged) in [(path.to_str().expect("UTF-8"), 1), ("not/a/socket", 1), ("", 0)] {
        let mut daemon = Daemon::builder(&config).env("NOTIFY_SOCKET", socket).env("WATCHDOG_USEC", "200000").start();
        daemon.scrape_after("a", 20.0);
        assert!(daemon.reload());
        daemon.wait_log(&["service manager"], logged);
        assert_eq!(daemon.stop().0.code(), Some(0));
    }
}
