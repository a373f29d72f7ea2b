//! What TLS and HTTP/2 cost a request, and what a storm of handshakes does to a neighbour: against Debian's haproxy, behind
//! which the witness takes its time, so that a hundred requests are in flight at five thousand a second.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rcgen::{CertifiedKey, generate_simple_self_signed};

use crate::contest::{Arena, Moment, TAIL, WARM_UP, put_window};
use crate::daemon::{Daemon, punctual, sum};
use crate::process::{Guarded, Neighbours, Result, Witness};
use crate::sample::{Metric, Sample};
use crate::sys;

/// Requests a second of each way to speak.
const RATE: u64 = 5000;
/// Until the witness answers: with [`RATE`], a hundred requests are in flight.
const PAUSE: Duration = Duration::from_millis(20);
/// More than are in flight, and as many streams as haproxy allows on a connection.
const STREAMS: usize = 200;
/// New connections a second in a storm, and the rate of the target beside it.
const STORM: u64 = 500;
const NEIGHBOUR: u64 = 1000;
/// How long haproxy may take to listen.
const START: Duration = Duration::from_secs(5);

/// A way to speak to haproxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// HTTP/1.1.
    Plain,
    /// HTTP/1.1 over TLS, on connections that are kept.
    Tls,
    /// HTTP/2 by prior knowledge, on one connection.
    Http2,
    /// HTTP/2 over TLS, likewise.
    Http2Tls,
}

impl Way {
    /// In the order in which they run.
    pub(crate) const ALL: [Self; 4] = [Self::Plain, Self::Tls, Self::Http2, Self::Http2Tls];

    /// Its name in tables.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Plain => "http/1.1",
            Self::Tls => "http/1.1 tls",
            Self::Http2 => "http/2",
            Self::Http2Tls => "http/2 tls",
        }
    }

    const fn is_tls(self) -> bool {
        matches!(self, Self::Tls | Self::Http2Tls)
    }

    const fn is_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::Http2Tls)
    }

    /// What a target needs that speaks so.
    fn target(self, server: &Haproxy) -> String {
        let Haproxy { port, authority, .. } = server;
        let (scheme, tls) = match self.is_tls() {
            true => ("https", format!("tls.ca_file = \"{}\"\n", authority.display())),
            false => ("http", String::new()),
        };
        let version = if self.is_http2() { "2" } else { "1.1" };
        format!(
            "url = \"{scheme}://localhost:{port}/\"\nconnect_to = \"127.0.0.1:{port}\"\n\
             http_version = \"{version}\"\n{tls}"
        )
    }
}

/// A haproxy before a witness, on the same core.
struct Haproxy {
    _process: Guarded,
    port: u16,
    /// The certificate that makes it trusted.
    authority: PathBuf,
}

impl Haproxy {
    fn start(arena: &Arena, way: Way, witness: &Witness) -> Result<Self> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let dir = arena.dir.path();
        let file = dir.join("haproxy.cfg");
        fs::write(&file, configuration(dir, way, port, witness.port)?)?;
        sys::pin(arena.cores.server)?;
        let mut command = Command::new("haproxy");
        command.args(["-q", "-db", "-f"]).arg(&file).stdin(Stdio::null()).stdout(Stdio::null());
        let child: Child = command.spawn().map_err(|error| format!("haproxy (Debian: haproxy): {error}"))?;
        let process = Guarded(child);
        let deadline = Instant::now() + START;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            if Instant::now() > deadline {
                return Err("haproxy does not listen".into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(Self { _process: process, port, authority: dir.join("ca.pem") })
    }
}

fn configuration(dir: &Path, way: Way, port: u16, witness_port: u16) -> Result<String> {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()])?;
    let pem = dir.join("server.pem");
    fs::write(&pem, cert.pem() + &signing_key.serialize_pem())?;
    fs::write(dir.join("ca.pem"), cert.pem())?;
    let options = match way {
        Way::Plain => String::new(),
        Way::Tls => format!(" ssl crt {} alpn http/1.1", pem.display()),
        Way::Http2 => " proto h2".to_owned(),
        Way::Http2Tls => format!(" ssl crt {} alpn h2", pem.display()),
    };
    Ok(format!(
        "global\n nbthread 1\n maxconn 2000\n tune.h2.max-concurrent-streams {STREAMS}\n\
         defaults\n mode http\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n http-reuse always\n\
         listen answer\n bind 127.0.0.1:{port}{options}\n server witness 127.0.0.1:{witness_port}\n",
    ))
}

impl Arena {
    /// [`RATE`] requests a second in one of the ways: CPU of each.
    pub(crate) fn protocol(&self, sample: &mut Sample, way: Way, seconds: u64) -> Result<()> {
        let witness = self.witness(PAUSE)?;
        let server = Haproxy::start(self, way, &witness)?;
        let life = WARM_UP + Duration::from_secs(seconds) + TAIL;
        let mut targets = "[targets.measured]\n".to_owned() + &way.target(&server);
        let _ = writeln!(targets, "rate = \"{RATE}/s\"\nmax_in_flight = {STREAMS}");
        let mut daemon = Daemon::with_targets(&targets, self.dir.path(), life)?;
        let neighbours = Neighbours::watch()?;
        let client = self.client(&mut daemon.command, life)?;
        std::thread::sleep(WARM_UP);
        let (before, metrics_before) = (Moment::of(&client)?, daemon.scrape()?);
        std::thread::sleep(Duration::from_secs(seconds));
        let (after, metrics_after) = (Moment::of(&client)?, daemon.scrape()?);
        client.finish()?;
        drop(server);
        let testimony = witness.finish()?;
        let grown = |name: &str| sum(&metrics_after, name) - sum(&metrics_before, name);
        let lost = grown("hammerd_request_failures_total") + grown("hammerd_requests_dropped_total");
        if lost > 0.0 {
            return Err(format!("{}: {lost} requests failed or were dropped", way.name()).into());
        }
        put_window(sample, &testimony, &before, &after);
        sample.put(Metric::InFlight, testimony.most_waiting);
        sample.put(Metric::Connections, sum(&metrics_after, "hammerd_connections_open"));
        sample.put(Metric::Neighbours, neighbours.percent_of_core()?);
        Ok(())
    }

    /// A plain target on the witness, beside [`STORM`] full handshakes a second or alone: how punctual and how even.
    pub(crate) fn storm(&self, sample: &mut Sample, storm: bool, seconds: u64) -> Result<()> {
        let witness = self.witness(Duration::ZERO)?;
        let behind = Witness::start(Some(self.cores), self.path("behind"), Duration::ZERO)?;
        let server = Haproxy::start(self, Way::Tls, &behind)?;
        let life = WARM_UP + Duration::from_secs(seconds) + TAIL;
        let mut targets = format!("[targets.plain]\nurl = \"{}\"\nrate = \"{NEIGHBOUR}/s\"\n", witness.url());
        if storm {
            let _ = writeln!(
                targets,
                "[targets.storm]\n{}rate = \"{STORM}/s\"\npool.reuse = false\ntls.resumption = false",
                Way::Tls.target(&server),
            );
        }
        let mut daemon = Daemon::with_targets(&targets, self.dir.path(), life)?;
        let neighbours = Neighbours::watch()?;
        let client = self.client(&mut daemon.command, life)?;
        std::thread::sleep(WARM_UP);
        let before = daemon.scrape()?;
        std::thread::sleep(Duration::from_secs(seconds));
        let after = daemon.scrape()?;
        client.finish()?;
        let failed = sum(&after, "hammerd_request_failures_total");
        if failed > 0.0 {
            return Err(format!("{failed} requests failed in the storm").into());
        }
        let ((punctual_before, lags_before), (punctual_after, lags_after)) = (punctual(&before), punctual(&after));
        sample.put(Metric::LagWithinMs, (punctual_after - punctual_before) / (lags_after - lags_before) * 100.0);
        sample.put(Metric::Dropped, sum(&after, "hammerd_requests_dropped_total"));
        let opened = |metrics: &str| sum(metrics, "hammerd_connections_opened_total");
        sample.put(Metric::OpenedRate, (opened(&after) - opened(&before)) / seconds as f64);
        sample.judge(&witness.finish()?.arrivals_ns, NEIGHBOUR as f64);
        sample.put(Metric::Neighbours, neighbours.percent_of_core()?);
        Ok(())
    }
}
