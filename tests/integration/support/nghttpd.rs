//! nghttpd, the HTTP/2 server of nghttp2, without TLS.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;

use super::process::{self, Process};
use super::{PATIENCE, client, free_port, wait_for, wait_until};

/// A running nghttpd. It serves `/` and `/small`, and logs every frame.
pub(crate) struct Nghttpd {
    process: Process,
    address: SocketAddr,
    args: Vec<String>,
    directory: TempDir,
}

impl Nghttpd {
    /// Starts it with further arguments and waits until it listens.
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::start_with(SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())), args)
    }

    /// Starts it at a given address.
    pub(crate) fn start_at(address: SocketAddr) -> Self {
        Self::start_with(address, &[])
    }

    fn start_with(address: SocketAddr, args: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        for name in ["index.html", "small"] {
            std::fs::write(directory.path().join(name), "ok\n").expect("a file to serve");
        }
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        let process = serve(&directory, address, &args);
        Self { process, address, args, directory }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// URL of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Ends it at once, with all its connections.
    pub(crate) fn kill(&mut self) {
        process::signal(self.process.pid(), Signal::KILL);
        self.process.wait_exit(PATIENCE);
    }

    /// Starts it again at the same address.
    pub(crate) fn restart(&mut self) {
        self.process = serve(&self.directory, self.address, &self.args);
    }

    /// The number of the connection of each request that it has seen since it was started.
    pub(crate) fn requests(&self) -> Vec<u64> {
        let number = |line: &str| line.strip_prefix("[id=")?.split_once(']')?.0.parse().ok();
        let lines = self.process.stdout();
        let requests = lines.iter().filter(|line| line.contains(" recv (stream_id=") && line.contains(") :path: "));
        requests.filter_map(|line| number(line)).collect()
    }
}

fn serve(directory: &TempDir, address: SocketAddr, args: &[String]) -> Process {
    let mut command = Command::new("nghttpd");
    command.args(["--no-tls", "--verbose", "--address"]).arg(address.ip().to_string()).arg("--htdocs");
    command.arg(directory.path()).args(args).arg(address.port().to_string());
    let mut process = Process::serve("nghttpd", &mut command);
    wait_for("listener of nghttpd", PATIENCE, || match client::connect(address) {
        Ok(_) => Ok(()),
        Err(_) => Err(process.check_alive()),
    });
    wait_until("its first lines", PATIENCE, || !process.stdout().is_empty());
    process
}
