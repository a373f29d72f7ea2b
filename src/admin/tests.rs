//! The face over real sockets: what each endpoint says.

mod hardening;
mod status;
mod streaming;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::AtomicBool;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntGauge, Opts, Registry, TextEncoder};

use super::*;
use crate::roster::{Roster, TargetInfo};
use crate::stats::Shape;

/// Long enough for any machine; never waited for when the code is right.
const PATIENCE: Duration = Duration::from_secs(60);

/// Longer than [`PATIENCE`]: a test whose end hangs on it fails.
const NEVER: Duration = Duration::from_secs(3_600);

/// Bounds that no test here runs into.
const WIDE: Bounds = Bounds {
    connections: 128,
    request: NEVER,
    idle: NEVER,
    answer: NEVER,
    answers_bytes: usize::MAX,
    reload: NEVER,
    close: NEVER,
};

/// A roster with targets that nothing happens to.
fn fleet_of(names: &[&str]) -> Arc<Roster> {
    let roster = Roster::new(Shape::new(3, &[1.0]), Vec::new());
    for &name in names {
        roster.describe(&name.into(), TargetInfo::plain());
    }
    Arc::new(roster)
}

/// A face over a registry with one gauge, whose help text can be made as long as an answer should be.
fn face_with_help(help: &str) -> Face {
    let registry = Registry::new();
    let gauge = IntGauge::with_opts(Opts::new("test_gauge", help)).unwrap();
    gauge.set(42);
    registry.register(Box::new(gauge)).unwrap();
    Face {
        exports: Exports::of_registry(registry),
        healthy: Arc::new(|| true),
        ready: Arc::new(|| true),
        config: Arc::new(|| "token = \"<secret>\"\n".to_owned()),
        status: Arc::new(Status::new(fleet_of(&["checkout"]))),
        lifecycle: None,
    }
}

fn face() -> Face {
    face_with_help("Help.")
}

fn serve(face: Face, bounds: Bounds) -> Admin {
    Bound::bind("127.0.0.1:0".parse().unwrap()).unwrap().with_bounds(bounds).serve(face).unwrap()
}

/// Waits for something that must come true.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "never came true: {what}");
        thread::yield_now();
    }
}

/// A client that says exactly what it is told, byte for byte.
struct Client(BufReader<TcpStream>);

/// What it heard.
#[derive(Debug)]
struct Heard {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Heard {
    /// The value of a header field, or an empty text.
    fn field(&self, name: &str) -> &str {
        let fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value).next().unwrap_or_default()
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl Client {
    fn of(admin: &Admin) -> Self {
        let stream = TcpStream::connect(admin.local_addr()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(stream))
    }

    fn say(&mut self, bytes: &str) -> io::Result<()> {
        self.0.get_mut().write_all(bytes.as_bytes())
    }

    fn hear_head(&mut self) -> io::Result<Heard> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.0.read_line(&mut head)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Ok(Heard { status, head, body: Vec::new() })
    }

    fn hear(&mut self) -> io::Result<Heard> {
        let mut heard = self.hear_head()?;
        if heard.field("transfer-encoding") == "chunked" {
            while let Some(piece) = self.hear_piece()? {
                heard.body.extend(piece);
            }
        } else {
            heard.body = vec![0; heard.field("content-length").parse().unwrap()];
            self.0.read_exact(&mut heard.body)?;
        }
        Ok(heard)
    }

    /// The next chunk of a body that comes in chunks; `None` at its end.
    fn hear_piece(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut size = String::new();
        self.0.read_line(&mut size)?;
        let size = usize::from_str_radix(size.trim_end(), 16).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let mut piece = vec![0; size + 2];
        self.0.read_exact(&mut piece)?;
        assert_eq!(piece.split_off(size), b"\r\n");
        Ok((size > 0).then_some(piece))
    }

    /// Whether the server ended the connection, with or without a reset, and said nothing before. Waits for it.
    fn was_cut(&mut self) -> bool {
        match self.0.read(&mut [0]) {
            Ok(read) => read == 0,
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }

    fn ask(&mut self, method: &str, path: &str, fields: &str) -> Heard {
        self.say(&format!("{method} {path} HTTP/1.1\r\nHost: test\r\n{fields}\r\n")).unwrap();
        if method == "HEAD" { self.hear_head() } else { self.hear() }.unwrap()
    }
}

fn ask(admin: &Admin, method: &str, path: &str) -> Heard {
    Client::of(admin).ask(method, path, "")
}

#[test]
fn every_path_has_its_status_type_and_text() {
    let admin = serve(face(), WIDE);
    let text = "text/plain; charset=utf-8";
    let metrics = "text/plain; version=0.0.4; charset=utf-8";
    let gauge = "# HELP test_gauge Help.\n# TYPE test_gauge gauge\ntest_gauge 42\n";
    for (method, path, status, kind, body) in [
        ("GET", "/metrics", 200, metrics, gauge),
        ("GET", "/metrics?target=http://elsewhere", 200, metrics, gauge),
        ("GET", "/-/healthy", 200, text, "healthy\n"),
        ("GET", "/-/ready", 200, text, "ready\n"),
        ("GET", "/config", 200, text, "token = \"<secret>\"\n"),
        ("GET", "/nowhere", 404, text, "not found; / links what there is\n"),
        ("GET", "/metrics/", 404, text, "not found; / links what there is\n"),
        ("POST", "/nowhere", 404, text, "not found; / links what there is\n"),
        ("POST", "/metrics", 405, text, "method not allowed here; allowed: GET, HEAD\n"),
        ("DELETE", "/", 405, text, "method not allowed here; allowed: GET, HEAD\n"),
        ("POST", "/page/main.js", 405, text, "method not allowed here; allowed: GET, HEAD\n"),
        ("GET", "/page/", 404, text, "not found; / links what there is\n"),
        ("GET", "/page/../config", 404, text, "not found; / links what there is\n"),
        ("PUT", "/api/v1/status", 405, text, "method not allowed here; allowed: GET, HEAD\n"),
        ("GET", "/api/v1/status?limit=no", 400, text, "query parameter limit: must be a whole number from 1 to 500\n"),
        ("GET", "/-/reload", 405, text, "method not allowed here; allowed: POST\n"),
        ("POST", "/-/reload", 403, text, "reloading by HTTP is off; server.lifecycle = true allows it\n"),
    ] {
        let heard = ask(&admin, method, path);
        let found = (heard.status, heard.field("content-type"), heard.text());
        assert_eq!(found, (status, kind, body), "{method} {path}");
        assert_eq!(heard.field("cache-control"), "no-store", "{method} {path}");
    }
}

#[test]
fn a_wrong_method_is_told_the_right_ones() {
    let admin = serve(face(), WIDE);
    assert_eq!(ask(&admin, "PUT", "/config").field("allow"), "GET, HEAD");
    assert_eq!(ask(&admin, "GET", "/-/reload").field("allow"), "POST");
}

#[test]
fn the_page_links_everything_and_runs_nothing_foreign() {
    let admin = serve(face(), WIDE);
    let heard = ask(&admin, "GET", "/?state=failing");
    assert_eq!((heard.status, heard.field("content-type")), (200, "text/html; charset=utf-8"));
    for part in ["metrics", "-/healthy", "-/ready", "config", "api/v1/status"] {
        assert!(heard.text().contains(&format!("<a href=\"{part}\">")), "{part}");
    }
    let policy = heard.field("content-security-policy");
    assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self';"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    for (path, kind) in [("/page/style.css", "text/css"), ("/page/main.js", "text/javascript")] {
        let heard = ask(&admin, "GET", path);
        assert_eq!((heard.status, heard.field("content-type")), (200, format!("{kind}; charset=utf-8").as_str()));
        assert_eq!(heard.field("x-content-type-options"), "nosniff");
    }
}

#[test]
fn head_is_get_without_the_body() {
    let admin = serve(face(), WIDE);
    let mut client = Client::of(&admin);
    for path in ["/metrics", "/", "/page/main.js", "/-/ready", "/config"] {
        let head = client.ask("HEAD", path, "");
        // The next answer would be garbled if a body had followed.
        let get = client.ask("GET", path, "");
        assert_eq!(head.status, 200, "{path}");
        for field in ["content-type", "content-length", "vary"] {
            assert_eq!(head.field(field), get.field(field), "{path} {field}");
        }
    }
}

#[test]
fn gzip_is_the_same_text_and_caches_are_told() {
    let admin = serve(face(), WIDE);
    let mut client = Client::of(&admin);
    let plain = client.ask("GET", "/metrics", "");
    let zipped = client.ask("GET", "/metrics", "Accept-Encoding: gzip\r\n");
    assert_eq!((plain.field("content-encoding"), plain.field("vary")), ("", "accept, accept-encoding"));
    assert_eq!((zipped.field("content-encoding"), zipped.field("vary")), ("gzip", "accept, accept-encoding"));
    assert_eq!(zipped.field("content-type"), plain.field("content-type"));
    let mut text = String::new();
    flate2::read::GzDecoder::new(zipped.body.as_slice()).read_to_string(&mut text).unwrap();
    assert_eq!(text, plain.text());
    assert_eq!(client.ask("GET", "/metrics", "Accept-Encoding: gzip;q=0\r\n").body, plain.body);
}

#[test]
fn probes_follow_what_they_ask() {
    let good = Arc::new(AtomicBool::new(false));
    let (ready, healthy) = (Arc::clone(&good), Arc::clone(&good));
    let admin = serve(
        Face {
            ready: Arc::new(move || ready.load(Ordering::Relaxed)),
            healthy: Arc::new(move || healthy.load(Ordering::Relaxed)),
            ..face()
        },
        WIDE,
    );
    for (path, word) in [("/-/ready", "ready\n"), ("/-/healthy", "healthy\n")] {
        good.store(false, Ordering::Relaxed);
        let heard = ask(&admin, "GET", path);
        assert_eq!((heard.status, heard.text()), (503, format!("not {word}").as_str()));
        good.store(true, Ordering::Relaxed);
        let heard = ask(&admin, "GET", path);
        assert_eq!((heard.status, heard.text()), (200, word));
    }
}

#[test]
fn a_reload_answers_with_what_came_of_it() {
    let (requests, mut inbox) = mpsc::channel(1);
    let admin = serve(Face { lifecycle: Some(requests), ..face() }, WIDE);
    for (outcome, status, text) in [
        (Some(Ok("2 added")), 200, "2 added\n"),
        (Some(Err("a.toml:3: bad rate")), 500, "a.toml:3: bad rate\n"),
        (None, 503, "not reloaded: hammerd is stopping\n"),
    ] {
        let mut client = Client::of(&admin);
        client.say("POST /-/reload HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\nany").unwrap();
        let ReloadRequest { reply } = inbox.blocking_recv().unwrap();
        if let Some(outcome) = outcome {
            reply.send(outcome.map(str::to_owned).map_err(str::to_owned)).unwrap();
        } else {
            drop(reply);
        }
        let heard = client.hear().unwrap();
        assert_eq!((heard.status, heard.text()), (status, text));
    }
    drop(inbox);
    assert_eq!(ask(&admin, "POST", "/-/reload").status, 503);
}

#[test]
fn a_reload_keeps_nobody_waiting_for_ever() {
    let (requests, _inbox) = mpsc::channel(1);
    let bounds = Bounds { reload: Duration::from_millis(1), ..WIDE };
    let admin = serve(Face { lifecycle: Some(requests), ..face() }, bounds);
    let late = ask(&admin, "POST", "/-/reload");
    assert_eq!((late.status, late.text()), (504, "the reload is taking long; the log will say how it ended\n"));
    // The first one was never taken out of the queue, which holds one.
    let full = ask(&admin, "POST", "/-/reload");
    assert_eq!((full.status, full.text()), (503, "too many reloads are waiting already\n"));
}

/// A collector that does what it is told.
struct Faulty(Vec<Desc>, fn() -> Vec<MetricFamily>);

impl Faulty {
    fn face(collect: fn() -> Vec<MetricFamily>) -> Face {
        let desc = Desc::new("faulty".into(), "Help.".into(), Vec::new(), std::collections::HashMap::new());
        let face = face();
        face.exports.registry().register(Box::new(Self(vec![desc.unwrap()], collect))).unwrap();
        face
    }
}

impl Collector for Faulty {
    fn desc(&self) -> Vec<&Desc> {
        self.0.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.1()
    }
}

#[test]
fn metrics_that_cannot_be_rendered_are_a_500_that_says_so() {
    let nameless = || {
        let mut families = IntGauge::new("faulty", "Help.").unwrap().collect();
        families[0].clear_name();
        families
    };
    let admin = serve(Faulty::face(nameless), WIDE);
    let heard = ask(&admin, "GET", "/metrics");
    assert_eq!(heard.status, 500);
    assert!(heard.text().starts_with("collecting the metrics failed: "), "{}", heard.text());
    assert!(heard.text().contains("no name"), "{}", heard.text());
    assert_eq!(*admin.scraped().borrow(), None);
}

#[test]
fn a_collector_that_panics_costs_one_scrape() {
    let admin = serve(Faulty::face(|| panic!("a test's own")), WIDE);
    let mut client = Client::of(&admin);
    let heard = client.ask("GET", "/metrics", "");
    assert_eq!((heard.status, heard.text()), (500, "collecting the metrics failed: a collector panicked\n"));
    assert_eq!(client.ask("GET", "/-/healthy", "").status, 200);
    let admin = serve(Face { config: Arc::new(|| panic!("a test's own")), ..face() }, WIDE);
    assert_eq!(ask(&admin, "GET", "/config").status, 500);
}

#[test]
fn requests_sent_at_once_are_answered_in_order() {
    let admin = serve(face(), WIDE);
    let mut client = Client::of(&admin);
    let request = |path| format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n");
    client.say(&(request("/metrics") + &request("/-/ready") + &request("/metrics"))).unwrap();
    let bodies = [(); 3].map(|()| client.hear().unwrap().body.len());
    let metrics = TextEncoder::new().encode_to_string(&face().exports.gather()).unwrap().len();
    assert_eq!(bodies, [metrics, "ready\n".len(), metrics]);
}

#[test]
fn a_port_in_use_is_known_before_anything_starts() {
    let held = Bound::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let error = Bound::bind(held.local_addr()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
}
