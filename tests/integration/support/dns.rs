//! Name servers, inside a private network where port 53 of a loopback address is free.

mod scripted;

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;

pub(crate) use scripted::{Kind, Say};

use self::scripted::Scripted;
use super::process::{self, Process};
use super::{PATIENCE, wait_for};

/// The address of the name server in a private network.
pub(crate) const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 53);

/// A resolver configuration and the name server behind it.
pub(crate) struct Dns {
    directory: TempDir,
    address: SocketAddr,
    options: Vec<String>,
    server: Server,
}

enum Server {
    None,
    /// Ends when it goes out of scope.
    Dnsmasq {
        process: Process,
    },
    /// Ends when it goes out of scope.
    Scripted {
        _server: Scripted,
    },
}

impl Dns {
    /// dnsmasq with these further options, such as `--address=/shop.test/127.0.0.1`; it asks no other server, and
    /// answers NXDOMAIN for what it does not know in `.test`.
    pub(crate) fn start(options: &[&str]) -> Self {
        Self::start_at(SocketAddr::from((NAME_SERVER, 53)), options)
    }

    /// As [`Dns::start`], at a given address.
    pub(crate) fn start_at(address: SocketAddr, options: &[&str]) -> Self {
        let mut dns = Self { address, ..Self::configured() };
        dns.restart(options);
        dns
    }

    /// As [`Dns::start`], with the lines of a hosts file, which may change while it runs.
    pub(crate) fn with_hosts(hosts: &str, options: &[&str]) -> Self {
        let mut dns = Self::configured();
        dns.serve_hosts(hosts, options);
        dns
    }

    fn serve_hosts(&mut self, hosts: &str, options: &[&str]) {
        std::fs::write(self.records(), hosts).expect("a hosts file");
        let file = format!("--addn-hosts={}", self.records().display());
        self.restart(&[&[file.as_str()], options].concat());
    }

    /// As [`Dns::with_hosts`], at an address that other networks reach.
    pub(crate) fn with_hosts_at(address: Ipv4Addr, hosts: &str, options: &[&str]) -> Self {
        let mut dns = Self { address: (address, 53).into(), ..Self::configured() };
        let text = format!("nameserver {address}\noptions timeout:1 attempts:1\n");
        std::fs::write(dns.resolv_conf(), text).expect("resolv.conf");
        dns.serve_hosts(hosts, options);
        dns
    }

    /// Answers from these lines of a hosts file from now on, without a gap.
    pub(crate) fn set_hosts(&self, hosts: &str) {
        std::fs::write(self.records(), hosts).expect("a hosts file");
        self.signal(Signal::HUP);
    }

    /// Ends the server: its port is closed.
    pub(crate) fn kill(&mut self) {
        self.server = Server::None;
    }

    /// Takes queries and answers none.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Goes on after [`Dns::freeze`].
    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// How often it was asked for the IPv4 addresses of a name since it was started.
    pub(crate) fn queries(&self, host: &str) -> usize {
        let Server::Dnsmasq { process } = &self.server else { return 0 };
        let query = format!("query[A] {host} ");
        process.stderr().iter().filter(|line| line.contains(&query)).count()
    }

    fn signal(&self, signal: Signal) {
        if let Server::Dnsmasq { process } = &self.server {
            process::signal(process.pid(), signal);
        }
    }

    fn records(&self) -> PathBuf {
        self.directory.path().join("records")
    }

    /// A server that answers every query with this response code and no record.
    pub(crate) fn without_records(response_code: u8) -> Self {
        Self::scripted(move |_| Say::Code(response_code))
    }

    /// A server that says this of every name.
    pub(crate) fn scripted(script: impl Fn(Kind) -> Say + Send + 'static) -> Self {
        let mut dns = Self::configured();
        let socket = UdpSocket::bind((NAME_SERVER, 53)).expect("port 53 of a private network");
        dns.server = Server::Scripted { _server: Scripted::start(socket, script) };
        dns
    }

    /// A socket that takes queries and never answers.
    pub(crate) fn silent() -> (Self, UdpSocket) {
        (Self::configured(), UdpSocket::bind((NAME_SERVER, 53)).expect("port 53 of a private network"))
    }

    /// Ends the server and starts it with other options.
    pub(crate) fn restart(&mut self, options: &[&str]) {
        self.options = options.iter().map(|&option| option.to_owned()).collect();
        self.revive();
    }

    /// Starts the server again as it was, with what the hosts file says now.
    pub(crate) fn revive(&mut self) {
        self.server = Server::None;
        let mut command = Command::new("dnsmasq");
        command.args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
            "--log-facility=-",
        ]);
        command.args(["--user=root", "--bind-interfaces", "--local=/test/", "--pid-file", "--log-queries"]);
        command.arg(format!("--listen-address={}", self.address.ip())).arg(format!("--port={}", self.address.port()));
        command.args(&self.options);
        let mut server = Process::serve("dnsmasq", &mut command);
        wait_for("name server", PATIENCE, || match UdpSocket::bind(self.address) {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Ok(()),
            _ => Err(server.check_alive()),
        });
        self.server = Server::Dnsmasq { process: server };
    }

    /// The words that run a command with this resolver configuration in place of the machine's.
    pub(crate) fn wrapper(&self) -> Vec<String> {
        let script = format!(
            "mount --bind {} /etc/resolv.conf && mount --bind {} /etc/hosts && exec \"$@\"",
            self.resolv_conf().display(),
            self.hosts().display()
        );
        ["unshare", "--mount", "sh", "-c", &script, "sh"].map(str::to_owned).to_vec()
    }

    /// As [`Dns::wrapper`], with nothing but these files in `/etc`, so that they may be missing or others take their place.
    pub(crate) fn wrapper_of_etc(&self) -> Vec<String> {
        let script = format!("mount --bind {} /etc && exec \"$@\"", self.directory.path().display());
        ["unshare", "--mount", "sh", "-c", &script, "sh"].map(str::to_owned).to_vec()
    }

    /// The machine's resolver configuration, which a test may change.
    pub(crate) fn resolv_conf(&self) -> PathBuf {
        self.directory.path().join("resolv.conf")
    }

    /// The machine's hosts file, which a test may change.
    pub(crate) fn hosts(&self) -> PathBuf {
        self.directory.path().join("hosts")
    }

    fn configured() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let address = SocketAddr::from((NAME_SERVER, 53));
        let dns = Self { directory, address, options: Vec::new(), server: Server::None };
        let text = format!("nameserver {NAME_SERVER}\noptions timeout:1 attempts:1\n");
        std::fs::write(dns.resolv_conf(), text).expect("resolv.conf");
        std::fs::write(dns.hosts(), "127.0.0.1 localhost\n").expect("hosts");
        dns
    }
}
