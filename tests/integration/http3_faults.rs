//! What a server can do wrong in HTTP/3, and what it can ask for: one exact reason each, and no request lost that it
//! never took.

use std::collections::HashMap;
use std::time::Duration;

use crate::faults::{assert_logged_sparingly, assert_only_failure, failures, responses};
use crate::http3::{Trust, assert_same_count, closed, closed_for, open, opened};
use crate::support::quic::{
    Answer, INTERNAL_ERROR, NO_ERROR, QuicOrigin, REQUEST_CANCELLED, REQUEST_REJECTED, Request, Step, data, farewell,
    frame, head,
};
use crate::support::{Daemon, PATIENCE, target, wait_until};

const TICK: Duration = Duration::from_millis(20);

fn origin(trust: &Trust, handler: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> QuicOrigin {
    QuicOrigin::builder(trust.authority.server(&["127.0.0.1"])).start(handler)
}

/// A HEADERS frame that says to be this long, and a little of it.
fn half_head(length: u32) -> Vec<u8> {
    [&[0x1], (length | 0x8000_0000).to_be_bytes().as_slice(), &[0, 0, 0xd9]].concat()
}

/// The reason, and what the server does.
fn broken_answers() -> Vec<(&'static str, &'static str, Answer)> {
    let ok = || head(200, None);
    let forever = |bytes: Vec<u8>, pause| Answer::of([Step::Send(ok()), Step::Forever(bytes, pause)]);
    vec![
        // 15
        ("silent", "timeout_response", Answer::of([Step::Hang])),
        ("half-head", "timeout_response", Answer::raw(half_head(9), Step::Hang)),
        ("head-trickle", "timeout_response", Answer::of([Step::Send(half_head(9999)), Step::Forever(vec![0], TICK)])),
        ("endless-1xx", "timeout_response", Answer::of([Step::Forever(head(103, None), TICK)])),
        ("flood-1xx", "timeout_response", Answer::of([Step::Forever(head(103, None).repeat(5000), Duration::ZERO)])),
        // 16
        ("body-trickle", "timeout_body", forever(data(b"x"), TICK)),
        ("body-stalled", "timeout_body", Answer::raw([ok(), data(b"half")].concat(), Step::Hang)),
        // 17
        ("endless-body", "body_too_large", forever(data(&[b'x'; 8192]), Duration::ZERO)),
        (
            "endless-frame",
            "body_too_large",
            Answer::of([
                Step::Send([ok(), vec![0, 0xbf, 0xff, 0xff, 0xff]].concat()),
                Step::Forever(vec![b'x'; 8192], Duration::ZERO),
            ]),
        ),
        // 18
        ("reset", "reset", Answer::of([Step::Reset(INTERNAL_ERROR)])),
        (
            "reset-in-body",
            "reset",
            Answer::of([Step::Send([ok(), data(b"half")].concat()), Step::Pause(TICK), Step::Reset(REQUEST_CANCELLED)]),
        ),
        ("crash", "reset", Answer::of([Step::Close(INTERNAL_ERROR)])),
        // 19
        ("no-answer", "eof", Answer::of([Step::Finish])),
        ("short-head", "eof", Answer::raw(half_head(9), Step::Finish)),
        (
            "short-frame",
            "eof",
            Answer::of([Step::Send([ok(), vec![0, 9, b'h']].concat()), Step::Pause(TICK), Step::Finish]),
        ),
        ("closed", "eof", Answer::of([Step::Close(NO_ERROR)])),
        (
            "closed-in-body",
            "eof",
            Answer::of([Step::Send([ok(), data(b"half")].concat()), Step::Pause(TICK), Step::Close(NO_ERROR)]),
        ),
        // 22
        // A PING of HTTP/2.
        ("http2", "protocol", Answer::raw([&[0x6, 8], [0; 8].as_slice()].concat(), Step::Finish)),
        ("no-head", "protocol", Answer::raw(data(b"ok"), Step::Finish)),
        ("no-status", "protocol", Answer::raw(frame(0x1, &[0, 0]), Step::Finish)),
        ("bad-qpack", "protocol", Answer::raw(frame(0x1, &[0xff; 9]), Step::Finish)),
        ("huge-head", "protocol", Answer::raw(half_head(1 << 29), Step::Hang)),
        ("huge-unknown", "protocol", Answer::raw([&[0x21][..], &half_head(1 << 29)[1..]].concat(), Step::Hang)),
        ("settings", "protocol", Answer::raw([ok(), frame(0x4, &[])].concat(), Step::Finish)),
        ("too-short", "protocol", Answer::raw([head(200, Some("9")), data(b"half")].concat(), Step::Finish)),
        ("too-long", "protocol", Answer::raw([head(200, Some("2")), data(b"half")].concat(), Step::Finish)),
        ("bad-length", "protocol", Answer::raw(head(200, Some("-1")), Step::Finish)),
        ("two-settings", "protocol", Answer::of([Step::Control(frame(0x4, &[])), Step::Hang])),
    ]
}

/// Rows 15 to 19 and 22.
#[test]
fn every_broken_answer_has_its_one_reason_and_the_next_good_one_is_good() {
    let (trust, cases) = (Trust::new(), broken_answers());
    let mut config = "[limits]\nmax_body = \"256KiB\"\n".to_owned();
    let mut origins = Vec::new();
    for (name, reason, answer) in &cases {
        let answer = answer.clone();
        let origin = origin(&trust, move |_| answer.clone());
        let timeout = if reason.starts_with("timeout") { "1s" } else { "20s" };
        // One at a time: the end of a connection has one reason for the request that brought it about.
        let rest = format!("{}timeout = \"{timeout}\"\nmax_in_flight = 1\n", trust.lines());
        config.push_str(&target(name, &origin.url("/"), "10/s", &rest));
        origins.push(origin);
    }
    let daemon = Daemon::start(&config);
    let failed = daemon.scrape_when("eight failures of every target", |scrape| {
        cases.iter().all(|(name, ..)| scrape.value("hammerd_requests_total", &[("target", name)]) >= 8.0)
    });
    let wrong: Vec<_> = cases
        .iter()
        .map(|(name, reason, _)| (name, reason, failures(&failed, name)))
        .filter(|(_, reason, failures)| failures.len() != 1 || !failures.contains_key(**reason))
        .collect();
    assert!(wrong.is_empty(), "target, expected reason, failures by reason: {wrong:#?}");
    for (name, reason, _) in &cases {
        assert_logged_sparingly(&daemon, &failed, name, reason);
    }
    for origin in &origins {
        origin.set_answer(|_| Answer::ok("well again"));
    }
    daemon.scrape_when("good answers of every target", |scrape| {
        cases.iter().all(|(name, ..)| responses(scrape, name, "200") >= 3.0)
    });
}

/// What an honest server may do, and h3 or a hasty reader would stumble over.
#[test]
fn an_unusual_answer_is_a_good_one() {
    let ok = || head(200, Some("4"));
    let unusual = [
        ("interim", [head(103, None), head(103, None), ok(), data(b"body")].concat()),
        ("empty-frames", [ok(), data(b""), data(b"bo"), data(b""), data(b""), data(b"dy"), data(b"")].concat()),
        ("trailers", [ok(), data(b"body"), frame(0x1, &[0, 0, 0x54, 1, b'4'])].concat()),
        ("grease", [frame(0x21, b"any"), ok(), frame(0x21, b"thing"), data(b"body"), frame(0x40, b"")].concat()),
        ("no-length", [head(200, None), data(b"body")].concat()),
        ("byte-by-byte", [ok(), data(b"b"), data(b"o"), data(b"d"), data(b"y")].concat()),
    ];
    let trust = Trust::new();
    let (mut config, mut origins) = (String::new(), Vec::new());
    for (name, bytes) in &unusual {
        let steps: Vec<Step> = match *name {
            "byte-by-byte" => {
                bytes.iter().flat_map(|&byte| [Step::Send(vec![byte]), Step::Pause(Duration::from_millis(1))]).collect()
            }
            _ => vec![Step::Send(bytes.clone())],
        };
        let origin = origin(&trust, move |_| Answer::of(steps.iter().cloned().chain([Step::Finish])));
        config.push_str(&target(name, &origin.url("/"), "10/s", &trust.lines()));
        origins.push(origin);
    }
    let daemon = Daemon::start(&config);
    for (name, _) in &unusual {
        let scrape = daemon.scrape_after(name, 10.0);
        assert_eq!(failures(&scrape, name), HashMap::new(), "{name}");
        assert_eq!(scrape.value("hammerd_connections_opened_total", &[("target", name)]), 1.0, "{name}");
    }
}

/// Row 17: memory does not grow with what a server says or sends.
#[test]
fn endless_heads_and_bodies_cost_no_memory() {
    let trust = Trust::new();
    let body = origin(&trust, |_| {
        Answer::of([Step::Send(head(200, None)), Step::Forever(data(&[b'x'; 8192]), Duration::ZERO)])
    });
    let heads = origin(&trust, |_| Answer::of([Step::Forever(head(103, None).repeat(5000), Duration::ZERO)]));
    let rest = format!("{}timeout = \"1s\"\n", trust.lines());
    let config = format!("[limits]\nmax_body = \"4MiB\"\n{}", target("a", &body.url("/"), "5/s", &rest))
        + &target("heads", &heads.url("/"), "5/s", &rest);
    let daemon = Daemon::start(&config);
    daemon.scrape_after("a", 10.0);
    let before = daemon.resident_bytes();
    let scrape = daemon.scrape_after("a", 40.0);
    assert_only_failure(&scrape, "heads", "timeout_response");
    let grown = daemon.resident_bytes().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes grown over thirty bodies of 4 MiB");
}

/// No version of the protocol in common.
#[test]
fn a_server_that_speaks_something_else_is_tls_protocol() {
    let trust = Trust::new();
    let certificate = trust.authority.server(&["127.0.0.1"]);
    let origin = QuicOrigin::builder(certificate).protocol("doq").start(|_| Answer::ok(""));
    let daemon = Daemon::start(&target("a", &origin.url("/"), "20/s", &trust.lines()));
    let scrape = daemon.scrape_after("a", 10.0);
    assert_only_failure(&scrape, "a", "tls_protocol");
    assert!(origin.requests().is_empty());
}

/// Row 28: what a server says that it never looked at is sent again, elsewhere when it has to be.
#[test]
fn rejected_requests_are_sent_again_and_none_is_lost() {
    let trust = Trust::new();
    // Every third request of a connection is rejected.
    let origin = origin(&trust, |request| match request.index % 3 {
        2 => Answer::of([Step::Reset(REQUEST_REJECTED)]),
        _ => Answer::ok("ok"),
    });
    let mut daemon = Daemon::start(&target("a", &origin.url("/"), "50/s", &trust.lines()));
    let scrape = daemon.scrape_after("a", 100.0);
    assert_eq!(failures(&scrape, "a"), HashMap::new());
    assert_eq!(opened(&scrape), 1.0);
    assert_same_count(&mut daemon, || origin.requests().iter().filter(|request| request.index % 3 != 2).count());
    assert!(origin.requests().iter().any(|request| request.index % 3 == 2));
}

/// Row 28: a server that takes nothing at all is told so in the end.
#[test]
fn a_server_that_rejects_everything_is_a_failure_and_no_endless_search() {
    let trust = Trust::new();
    let origin = origin(&trust, |_| Answer::of([Step::Reset(REQUEST_REJECTED)]));
    let daemon = Daemon::start(&target("a", &origin.url("/"), "10/s", &trust.lines()));
    let scrape = daemon.scrape_after("a", 10.0);
    assert_only_failure(&scrape, "a", "reset");
    let finished = scrape.value("hammerd_requests_total", &[("target", "a")]);
    assert!(origin.requests().len() as f64 <= (finished + 10.0) * 4.0, "{} sent", origin.requests().len());
}

/// Row 28: a farewell every five requests. What it had is answered, what comes later goes elsewhere.
#[test]
fn a_server_that_says_farewell_every_few_requests_costs_none() {
    let trust = Trust::new();
    let origin = origin(&trust, |request| {
        let answer = [Step::Send([head(200, None), data(b"ok")].concat()), Step::Finish];
        match request.index {
            0..4 => Answer::of(answer),
            4 => Answer::of([Step::Control(farewell(5))].into_iter().chain(answer)),
            _ => Answer::of([Step::Reset(REQUEST_REJECTED)]),
        }
    });
    let rest = format!("{}process = \"burst\"\nburst = 4\n", trust.lines());
    let mut daemon = Daemon::start(&target("a", &origin.url("/"), "60/s", &rest));
    let scrape = daemon.scrape_after("a", 200.0);
    assert_eq!(failures(&scrape, "a"), HashMap::new());
    assert!(opened(&scrape) >= 39.0 && closed(&scrape, "peer") >= 35.0, "{}", scrape.summary());
    assert!(open(&scrape) <= 10.0, "{}", scrape.summary());
    assert_same_count(&mut daemon, || origin.requests().iter().filter(|request| request.index < 5).count());
}

/// Row 28: requests that a farewell left unserved, on a connection that then ends, were never looked at.
#[test]
fn requests_that_a_farewell_leaves_unserved_are_sent_elsewhere() {
    let trust = Trust::new();
    // On the first connection the first request is the last that is served, and of the others nothing is heard.
    let origin = origin(&trust, |request| match (request.connection, request.index) {
        (0, 0) => Answer::of([
            Step::Pause(Duration::from_millis(1500)),
            Step::Control(farewell(1)),
            Step::Send([head(200, None), data(b"ok")].concat()),
            Step::Finish,
            Step::Pause(Duration::from_millis(200)),
            Step::Close(NO_ERROR),
        ]),
        (0, _) => Answer::of([Step::Hang]),
        _ => Answer::ok("ok"),
    });
    let mut daemon = Daemon::start(&target("a", &origin.url("/"), "20/s", &trust.lines()));
    let scrape = daemon.scrape_after("a", 40.0);
    assert_eq!(failures(&scrape, "a"), HashMap::new());
    assert_eq!((opened(&scrape), closed(&scrape, "peer")), (2.0, 1.0), "{}", scrape.summary());
    let unserved = origin.requests().iter().filter(|request| request.connection == 0 && request.index > 0).count();
    assert!(unserved >= 5, "{unserved} requests were left unserved");
    assert_same_count(&mut daemon, || origin.requests().len() - unserved);
}

/// Row 28.
#[test]
fn a_server_that_allows_few_requests_at_once_gets_more_connections_and_every_request() {
    let trust = Trust::new();
    let slow = |_: &Request| {
        Answer::of([Step::Pause(Duration::from_millis(500)), Step::Send(head(200, Some("0"))), Step::Finish])
    };
    let few =
        |count| QuicOrigin::builder(trust.authority.server(&["127.0.0.1"])).max_requests_at_once(count).start(slow);
    let origin = few(2);
    let mut daemon = Daemon::start(&target("a", &origin.url("/"), "20/s", &trust.lines()));
    let scrape = daemon.scrape_after("a", 40.0);
    assert_eq!(failures(&scrape, "a"), HashMap::new());
    assert!(opened(&scrape) >= 5.0 && origin.most_at_once() <= 2, "{}", scrape.summary());
    assert_eq!(opened(&scrape) as usize, origin.connections());
    assert_same_count(&mut daemon, || origin.requests().len());

    // With one connection and no more, requests wait for their turn.
    let origin = few(2);
    let rest = format!("{}pool.max_connections = 1\n", trust.lines());
    let mut daemon = Daemon::start(&target("a", &origin.url("/"), "3/s", &rest));
    let scrape = daemon.scrape_after("a", 12.0);
    assert_eq!(failures(&scrape, "a"), HashMap::new());
    assert_eq!(opened(&scrape), 1.0);
    assert_same_count(&mut daemon, || origin.requests().len());
}

/// A connection on which no request was allowed is cut off with the request that it was opened for.
#[test]
fn a_server_that_allows_no_request_is_timeout_response_and_its_connections_are_cut_off() {
    let trust = Trust::new();
    let certificate = trust.authority.server(&["127.0.0.1"]);
    let origin = QuicOrigin::builder(certificate).max_requests_at_once(0).start(|_| Answer::ok("ok"));
    let daemon = Daemon::start(&target("a", &origin.url("/"), "10/s", &format!("{}timeout = \"1s\"\n", trust.lines())));
    let scrape = daemon.scrape_after("a", 10.0);
    assert_only_failure(&scrape, "a", "timeout_response");
    assert_eq!(closed_for(&scrape, "a"), ["canceled"], "{}", scrape.summary());
    assert!(origin.requests().is_empty());
}

/// A request that is given up is called off, and the server told so, in both directions; its connection stays.
#[test]
fn a_request_past_its_deadline_is_called_off_on_its_stream_alone() {
    let trust = Trust::new();
    let origin = origin(&trust, |request| match request.index {
        3 => Answer::of([Step::Send(head(200, None)), Step::Forever(data(b"x"), TICK)]),
        _ => Answer::ok("ok"),
    });
    let rest = format!("{}timeout = \"2s\"\n", trust.lines());
    let daemon = Daemon::start(&target("a", &origin.url("/"), "20/s", &rest));
    daemon.scrape_when("a failure", |scrape| !failures(scrape, "a").is_empty());
    let scrape = daemon.scrape_after("a", 50.0);
    assert_eq!(failures(&scrape, "a"), HashMap::from([("timeout_body".to_owned(), 1)]));
    assert_eq!((opened(&scrape), open(&scrape)), (1.0, 1.0));
}

/// A body that can't be sent in time is cut off as such: a server must not take it for a whole one.
#[test]
fn a_body_that_is_cut_off_is_not_taken_for_a_whole_one() {
    let trust = Trust::new();
    let origin =
        QuicOrigin::builder(trust.authority.server(&["127.0.0.1"])).receives_slowly().start(|_| Answer::ok("ok"));
    let body = "x".repeat(4 << 20);
    let rest = format!("{}method = \"POST\"\nbody = \"{body}\"\ntimeout = \"2s\"\n", trust.lines());
    let daemon = Daemon::start(&target("a", &origin.url("/"), "5/s", &rest));
    assert_only_failure(&daemon.scrape_after("a", 3.0), "a", "timeout_response");
    wait_until("a request at the server", PATIENCE, || !origin.requests().is_empty());
    let requests = origin.requests();
    assert!(requests.iter().all(|request| request.cut_off == Some(u64::from(REQUEST_CANCELLED))));
    assert!(requests.iter().all(|request| request.bytes.len() < 4 << 20));
}

/// Row 27: the answer comes before the body has been sent, and nobody reads the rest.
#[test]
fn an_early_answer_to_a_large_post_is_counted() {
    let trust = Trust::new();
    let early = || [Step::Send([head(503, None), data(b"no room")].concat()), Step::Finish];
    let body = "x".repeat(8 << 20);
    let rest = format!("{}method = \"POST\"\nbody = \"{body}\"\n", trust.lines());
    for asks_to_stop in [false, true] {
        let origin = QuicOrigin::builder(trust.authority.server(&["127.0.0.1"])).without_reading().start(move |_| {
            let stop = asks_to_stop.then_some(Step::Stop(NO_ERROR));
            Answer::of(early().into_iter().chain(stop).chain([Step::Hang]))
        });
        let daemon = Daemon::start(&target("a", &origin.url("/"), "10/s", &rest));
        let scrape = daemon.scrape_after("a", 20.0);
        assert_only_failure(&scrape, "a", "status");
        assert_eq!(responses(&scrape, "a", "503"), scrape.value("hammerd_requests_total", &[("target", "a")]));
        assert_eq!(opened(&scrape), 1.0, "{}", scrape.summary());
    }
}

/// As a socket's end is over TCP.
#[test]
fn a_server_is_told_when_its_connection_is_closed_and_when_the_daemon_ends() {
    let trust = Trust::new();
    let origin = origin(&trust, |_| Answer::ok("ok"));
    let rest = format!("{}pool.max_requests = 10\n", trust.lines());
    let mut daemon = Daemon::start(&target("a", &origin.url("/"), "50/s", &rest));
    daemon.scrape_after("a", 25.0);
    assert_same_count(&mut daemon, || origin.requests().len());
    wait_until("the end of each connection", PATIENCE, || origin.closes().len() == origin.connections());
    assert!(origin.closes().iter().all(|&code| code == u64::from(NO_ERROR)), "{:?}", origin.closes());
}
