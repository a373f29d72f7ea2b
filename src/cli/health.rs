//! `hammerd health`: asks a running hammerd how it is, for probes that can only run a command.
//!
//! Plain sockets and one request: it runs every few seconds in containers with a small share of a processor, so it
//! starts no runtime and reads of the configuration only where the daemon listens.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::time::{Duration, Instant};

use super::{SourceArgs, environment, exit, fail};
use crate::config;

/// How long all of it may take: less than probes usually wait, so that the reason is told.
const PATIENCE: Duration = Duration::from_secs(4);
/// What is read of an answer: its head and a short body.
const MAX_ANSWER: u64 = 4096;

#[derive(clap::Args)]
pub(super) struct HealthArgs {
    /// Where hammerd listens; without it as the configuration says that `run` would use
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<String>,
    /// Ask whether it is ready, not only whether it works
    #[arg(long)]
    ready: bool,
    #[command(flatten)]
    sources: SourceArgs,
}

/// Exit code 0 when it is well, else 1 with the reason on stderr.
pub(super) fn health(args: HealthArgs) -> u8 {
    let path = if args.ready { "/-/ready" } else { "/-/healthy" };
    let (shown, addresses) = match addresses(args) {
        Ok(found) => found,
        Err(why) => return fail(&why),
    };
    let deadline = Instant::now() + PATIENCE;
    let mut failure = "it has no address".to_owned();
    for address in addresses {
        match ask(address, path, deadline) {
            Ok((200, _)) => return exit::OK,
            Ok((status, text)) => return fail(&format!("http://{shown}{path} answers {status}: {text}")),
            Err(error) => failure = error.to_string(),
        }
    }
    fail(&format!("http://{shown}{path} can't be asked: {failure}"))
}

/// Where to ask, in words and as addresses.
fn addresses(args: HealthArgs) -> Result<(String, Vec<SocketAddr>), String> {
    if let Some(shown) = args.address {
        let found = shown.to_socket_addrs();
        let found = found.map_err(|error| format!("--address {shown}: {error}; an address is as in 127.0.0.1:9955"))?;
        let addresses = found.map(reachable).collect();
        return Ok((shown, addresses));
    }
    let sources = args.sources.over(environment());
    let Some(address) = config::listen(&sources).map(reachable) else {
        return Err("the HTTP face is switched off (server.listen = \"off\"): nobody can be asked".to_owned());
    };
    Ok((address.to_string(), vec![address]))
}

/// Who listens on every address of the machine is reached by that of loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// The status of an answer, and the first line of its body.
fn ask(address: SocketAddr, path: &str, deadline: Instant) -> io::Result<(u16, String)> {
    let left = || {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::Error::from(io::ErrorKind::TimedOut)) } else { Ok(left) }
    };
    let mut stream = TcpStream::connect_timeout(&address, left()?)?;
    stream.set_write_timeout(Some(left()?))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    loop {
        stream.set_read_timeout(Some(left()?))?;
        let room = MAX_ANSWER - answer.len() as u64;
        let mut part = [0; 1024];
        let length = match (&stream).take(room).read(&mut part) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(io::ErrorKind::TimedOut.into()),
            Err(error) => return Err(error),
        };
        answer.extend_from_slice(&part[..length]);
    }
    read(&answer).ok_or_else(|| io::Error::other("what answers there speaks no HTTP"))
}

fn read(answer: &[u8]) -> Option<(u16, String)> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ").or_else(|| head.strip_prefix("HTTP/1.0 "))?.get(..3)?.parse().ok()?;
    let line: String = body.lines().next().unwrap_or_default().chars().filter(|c| !c.is_control()).collect();
    Some((status, line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_its_status_and_a_line() {
        for (answer, want) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok\n", Some((200, "ok"))),
            ("HTTP/1.1 503 Service Unavailable\r\n\r\nnot \u{1b}ready\nyet", Some((503, "not ready"))),
            ("HTTP/1.0 204 No Content\r\n\r\n", Some((204, ""))),
            ("HTTP/1.1 200 OK\r\ncontent-", None),
            ("SSH-2.0-OpenSSH\r\n\r\n", None),
            ("HTTP/1.1 2", None),
            ("", None),
        ] {
            let want = want.map(|(status, line)| (status, line.to_owned()));
            assert_eq!(read(answer.as_bytes()), want, "{answer:?}");
        }
    }

    #[test]
    fn every_address_means_loopback() {
        for (listen, ask) in [
            ("0.0.0.0:9955", "127.0.0.1:9955"),
            ("[::]:1", "[::1]:1"),
            ("10.0.0.7:80", "10.0.0.7:80"),
            ("[fd00::7]:80", "[fd00::7]:80"),
        ] {
            assert_eq!(reachable(listen.parse().expect("an address")).to_string(), ask);
        }
    }
}
