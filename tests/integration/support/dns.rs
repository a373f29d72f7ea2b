//! Name servers, inside a private network where port 53 of a loopback address is free.

use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::process::Process;
use super::{PATIENCE, wait_for};

/// The address of the name server in a private network.
pub(crate) const NAME_SERVER: &str = "127.0.0.53";

/// A resolver configuration and, unless it is to be silent, dnsmasq behind it.
pub(crate) struct Dns {
    directory: TempDir,
    server: Option<Process>,
}

impl Dns {
    /// dnsmasq with these further options, such as `--address=/shop.test/127.0.0.1`; it asks no other server, and
    /// answers NXDOMAIN for what it does not know in `.test`.
    pub(crate) fn start(options: &[&str]) -> Self {
        let mut dns = Self { directory: tempfile::tempdir().expect("a temporary directory"), server: None };
        dns.write_resolv_conf();
        dns.restart(options);
        dns
    }

    /// A socket that takes queries and never answers.
    pub(crate) fn silent() -> (Self, UdpSocket) {
        let dns = Self { directory: tempfile::tempdir().expect("a temporary directory"), server: None };
        dns.write_resolv_conf();
        (dns, UdpSocket::bind((NAME_SERVER, 53)).expect("port 53 of a private network"))
    }

    /// Ends the server and starts it with other options.
    pub(crate) fn restart(&mut self, options: &[&str]) {
        self.server = None;
        let mut command = Command::new("dnsmasq");
        command.args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
            "--log-facility=-",
        ]);
        command.args(["--user=root", "--bind-interfaces", "--local=/test/", "--pid-file"]);
        command.arg(format!("--listen-address={NAME_SERVER}")).args(options);
        let mut server = Process::serve("dnsmasq", &mut command);
        wait_for("name server", PATIENCE, || match UdpSocket::bind((NAME_SERVER, 53)) {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Ok(()),
            _ => server.check_alive(),
        });
        self.server = Some(server);
    }

    /// The words that run a command with this resolver configuration in place of the machine's.
    pub(crate) fn wrapper(&self) -> Vec<String> {
        let script = format!(
            "mount --bind {} /etc/resolv.conf && mount --bind {} /etc/hosts && exec \"$@\"",
            self.resolv_conf().display(),
            self.directory.path().join("hosts").display()
        );
        ["unshare", "--mount", "sh", "-c", &script, "sh"].map(str::to_owned).to_vec()
    }

    fn resolv_conf(&self) -> PathBuf {
        self.directory.path().join("resolv.conf")
    }

    fn write_resolv_conf(&self) {
        let text = format!("nameserver {NAME_SERVER}\noptions timeout:1 attempts:1\n");
        std::fs::write(self.resolv_conf(), text).expect("resolv.conf");
        std::fs::write(self.directory.path().join("hosts"), "127.0.0.1 localhost\n").expect("hosts");
    }
}
