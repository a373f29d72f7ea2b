//! HTTP/2 servers that do what honest ones seldom do: refuse, say farewell in the middle, fall silent, break the rules.
//! Each request is answered once, or has failed once, for one reason.

use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Barrier;
use std::time::Duration;

use serde_json::Value;

use crate::faults::{assert_logged_sparingly, assert_only_failure, assert_recover, failures, responses};
use crate::pool::closed;
use crate::support::frames::{Frames, REFUSED, Request, Script, stream_of};
use crate::support::{Daemon, PATIENCE, Scrape, target, wait_for};

const H2: &str = "http_version = \"2\"\n";
/// Ten requests at once, every second.
const TENS: &str = "process = \"burst\"\nburst = 10\n";

fn answer(request: Request) -> Script {
    Script::nothing().answer(request.stream)
}

fn opened(scrape: &Scrape) -> f64 {
    scrape.value("hammerd_connections_opened_total", &[("target", "a")])
}

/// Stops the daemon; checks that each request had the one answer that the server gave, and returns the summary.
#[track_caller]
fn assert_answered_once(daemon: &mut Daemon, server: &Frames) -> Value {
    let (status, summary) = daemon.stop();
    assert_eq!(status.code(), Some(0));
    let of_target = summary["targets"]["a"].clone();
    assert_eq!(of_target["responses"]["200"], server.answered(), "{of_target}");
    assert_eq!(of_target["started"], of_target["finished"], "{of_target}");
    of_target
}

/// Row 28: refused streams go to another connection, and nobody notices.
#[test]
fn a_request_that_is_refused_goes_to_another_connection() {
    let server = Frames::start(|request| match request.index {
        0 => answer(request),
        _ => Script::nothing().reset(request.stream, REFUSED),
    });
    // Never two at once, so that the connection is idle when it refuses.
    let mut daemon = Daemon::start(&target("a", &server.url(), "20/s", &format!("{H2}max_in_flight = 1")));
    let scrape = daemon.scrape_after("a", 30.0);
    assert_eq!(failures(&scrape, "a"), HashMap::new());
    assert_eq!(closed(&scrape, "a").into_keys().collect::<Vec<_>>(), ["peer"], "{}", scrape.summary());
    let summary = assert_answered_once(&mut daemon, &server);
    assert_eq!(summary["started"], server.answered());
    // It is not asked a second time.
    assert!(server.requests().iter().all(|request| request.index <= 1), "{:?}", server.requests());
}

/// Row 28: a server that takes fewer requests at once than it says gets no more than it takes.
#[test]
fn a_connection_that_refuses_one_of_many_gets_as_many_as_it_takes() {
    /// Three are taken; they are answered once the others have been refused.
    fn three_of_ten(request: Request) -> Script {
        match request.index {
            0..3 => Script::nothing(),
            9 => {
                let refusal = Script::nothing().reset(request.stream, REFUSED);
                (0..3).fold(refusal, |script, index| script.answer(stream_of(index)))
            }
            10.. => answer(request),
            _ => Script::nothing().reset(request.stream, REFUSED),
        }
    }
    let server = Frames::start(|request| if request.connection == 1 { three_of_ten(request) } else { answer(request) });
    // The first ten go to the first connection, and seven of them elsewhere.
    let mut daemon = Daemon::start(&target("a", &server.url(), "10/s", &format!("{H2}{TENS}")));
    let scrape = daemon.scrape_after("a", 10.0);
    assert_eq!(failures(&scrape, "a"), HashMap::new());
    assert_eq!((opened(&scrape), closed(&scrape, "a")), (2.0, HashMap::new()), "{}", scrape.summary());
    let summary = assert_answered_once(&mut daemon, &server);
    assert_eq!(summary["started"], server.answered());
}

/// Row 28: who refuses everything on every connection is to blame, after a few tries.
#[test]
fn a_server_that_refuses_everything_is_reset_until_it_does_not() {
    let server = Frames::start(|request| Script::nothing().reset(request.stream, REFUSED));
    let mut daemon = Daemon::start(&target("a", &server.url(), "20/s", H2));
    let failed = daemon.scrape_after("a", 10.0);
    assert_only_failure(&failed, "a", "reset");
    assert_logged_sparingly(&daemon, &failed, "a", "reset");
    let seen = server.requests().len() as f64;
    let started = daemon.scrape().value("hammerd_requests_started_total", &[("target", "a")]);
    assert!(seen <= 4.0 * started, "{seen} tries for {started} requests");

    server.set_script(answer);
    let healed = assert_recover(&daemon, &["a"], 20.0, Duration::ZERO);
    assert_only_failure(&healed, "a", "reset");
    assert_answered_once(&mut daemon, &server);
}

/// Row 28: those that the server has not looked at go elsewhere; the others it answers where they are.
#[test]
fn a_farewell_below_streams_in_flight_loses_none_and_repeats_none() {
    let server = Frames::start(|request| match (request.connection, request.index) {
        (1, 0..9) => Script::nothing(),
        (1, _) => {
            let farewell = Script::nothing().farewell(stream_of(4), 0).pause(Duration::from_millis(200));
            (0..5).fold(farewell, |script, index| script.answer(stream_of(index)))
        }
        _ => answer(request),
    });
    let mut daemon = Daemon::start(&target("a", &server.url(), "10/s", &format!("{H2}{TENS}")));
    let scrape = daemon.scrape_after("a", 30.0);
    assert_eq!(failures(&scrape, "a"), HashMap::new());
    let summary = assert_answered_once(&mut daemon, &server);
    assert_eq!(summary["started"], server.answered());
    let requests = server.requests();
    assert_eq!(requests.len(), server.answered() + 5, "five were sent twice: {requests:?}");
    let of_first = requests.iter().filter(|request| request.connection == 1).count();
    assert_eq!(of_first, 10, "the connection got nothing more: {requests:?}");
}

/// Rows 19 and 28: what a server may have looked at before it went is never sent again.
#[test]
fn what_a_farewell_covers_and_an_end_cuts_off_has_failed() {
    let server = Frames::start(|request| match (request.connection, request.index) {
        (1, 0..9) => Script::nothing(),
        (1, _) => Script::nothing().farewell(stream_of(4), 0).close(),
        _ => answer(request),
    });
    let mut daemon = Daemon::start(&target("a", &server.url(), "10/s", &format!("{H2}{TENS}")));
    let scrape = daemon.scrape_after("a", 20.0);
    assert_eq!(failures(&scrape, "a"), HashMap::from([("eof".to_owned(), 5)]), "{}", scrape.summary());
    let summary = assert_answered_once(&mut daemon, &server);
    assert_eq!(server.requests().len(), server.answered() + 10, "ten were sent in vain, five of them for good");
    assert_eq!(summary["failures"]["eof"], 5);
    assert_eq!(summary["started"], server.answered() + 5);
}

/// Connections that the server has closed are forgotten all at once, and not found out one by one, by requests that are
/// given to them and must go elsewhere.
#[test]
fn connections_that_were_closed_while_idle_are_given_no_request() {
    let server = ten_connections();
    let config = |rate: &str| target("a", &server.url(), rate, H2);
    let daemon = Daemon::start(&config("50/s"));
    let scrape = daemon.scrape_after("a", 10.0);
    assert_eq!(opened(&scrape), 10.0, "{}", scrape.summary());
    // Long enough between two requests for all of them to end.
    assert!(daemon.reload_with(&config("1/10s")));
    server.hang_up();
    let gone = daemon.scrape_when("end of all ten", |scrape| closed(scrape, "a").get("peer") == Some(&10));
    assert!(daemon.reload_with(&config("20/s")));
    let finished = gone.value("hammerd_requests_total", &[("target", "a")]);
    let scrape = daemon.scrape_after("a", finished + 10.0);
    assert_eq!(opened(&scrape), 11.0, "{}", scrape.summary());
    assert_eq!(failures(&scrape, "a"), HashMap::new());
}

/// As many are kept as may be in use at once.
#[test]
fn idle_connections_above_the_largest_number_in_flight_are_closed() {
    let server = ten_connections();
    let config = |rest: &str| target("a", &server.url(), "50/s", &format!("{H2}{rest}"));
    let daemon = Daemon::start(&config(""));
    let scrape = daemon.scrape_after("a", 10.0);
    assert_eq!((opened(&scrape), closed(&scrape, "a")), (10.0, HashMap::new()), "{}", scrape.summary());
    assert!(daemon.reload_with(&config("max_in_flight = 2")));
    let finished = daemon.scrape().value("hammerd_requests_total", &[("target", "a")]);
    let scrape = daemon.scrape_after("a", finished + 20.0);
    assert_eq!(closed(&scrape, "a"), HashMap::from([("idle".to_owned(), 8)]), "{}", scrape.summary());
    assert_eq!(opened(&scrape), 10.0);
    assert_eq!(failures(&scrape, "a"), HashMap::new());
}

/// One request at a time on each connection, and the first ten wait for each other.
fn ten_connections() -> Frames {
    let all_ten = Barrier::new(10);
    Frames::allowing(1, move |request| {
        if request.connection <= 10 && request.index == 0 {
            all_ten.wait();
        }
        answer(request)
    })
}

/// Name of a target, the reason it fails for, and what its server does with each request.
type Broken = (&'static str, &'static str, fn(Request) -> Script);

fn broken_answers() -> [Broken; 15] {
    /// `content-length: 9`.
    const NINE: &[u8] = b"\x0f\x0d\x019";
    const INTERNAL_ERROR: u32 = 2;
    const PROTOCOL_ERROR: u32 = 1;
    const CANCEL: u32 = 8;
    const ENHANCE_YOUR_CALM: u32 = 11;
    [
        // 15
        ("silent", "timeout_response", |_| Script::nothing()),
        ("hints", "timeout_response", |request| {
            (0..100).fold(Script::nothing(), |script, _| script.early_hints(request.stream))
        }),
        // 16
        ("stalled", "timeout_body", |request| Script::nothing().head(request.stream, &[]).data(request.stream, 1)),
        // 17
        ("long", "body_too_large", |request| {
            let head = Script::nothing().head(request.stream, &[]);
            (0..40).fold(head, |script, _| script.data(request.stream, 8192))
        }),
        // 18
        ("reset", "reset", |request| Script::nothing().reset(request.stream, INTERNAL_ERROR)),
        ("reset-in-body", "reset", |request| {
            Script::nothing().head(request.stream, &[]).data(request.stream, 3).reset(request.stream, CANCEL)
        }),
        ("cut", "reset", |_| Script::nothing().cut()),
        ("cut-in-body", "reset", |request| {
            let begun = Script::nothing().head(request.stream, NINE).data(request.stream, 3);
            begun.pause(Duration::from_millis(20)).cut()
        }),
        // 19
        ("ended", "eof", |_| Script::nothing().close()),
        ("ended-in-body", "eof", |request| {
            Script::nothing().head(request.stream, NINE).data(request.stream, 3).close()
        }),
        // 22
        ("short", "protocol", |request| Script::nothing().head(request.stream, NINE).last_data(request.stream, 3)),
        ("headless", "protocol", |request| Script::nothing().last_data(request.stream, 3)),
        ("garbage", "protocol", |_| Script::nothing().send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")),
        ("blamed", "protocol", |request| Script::nothing().reset(request.stream, PROTOCOL_ERROR)),
        ("calmed", "protocol", |_| Script::nothing().farewell(0, ENHANCE_YOUR_CALM).close()),
    ]
}

/// Rows 15 to 19 and 22, over HTTP/2.
#[test]
fn every_broken_answer_over_http2_has_its_one_reason_until_it_is_whole() {
    const TIMEOUT: Duration = Duration::from_secs(1);
    let cases: Vec<_> =
        broken_answers().into_iter().map(|(name, reason, script)| (name, reason, Frames::start(script))).collect();
    let mut config = "[limits]\nmax_body = \"256KiB\"\n".to_owned();
    for (name, reason, server) in &cases {
        let timeout = if reason.starts_with("timeout") { "1s" } else { "20s" };
        config.push_str(&target(name, &server.url(), "10/s", &format!("{H2}timeout = \"{timeout}\"")));
    }
    let daemon = Daemon::start(&config);
    let failed = daemon.scrape_when("ten failures of every target", |scrape| {
        cases.iter().all(|(name, ..)| scrape.value("hammerd_requests_total", &[("target", name)]) >= 10.0)
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
    // Who ends it, and whether for a fault of the peer's.
    for (name, end) in [("garbage", "failed"), ("calmed", "peer"), ("ended", "peer"), ("cut", "peer")] {
        assert_eq!(closed(&failed, name).into_keys().collect::<Vec<_>>(), [end], "{name}");
    }
    // What goes wrong with one request costs nobody else his.
    for name in ["long", "reset", "reset-in-body", "short", "blamed"] {
        assert_eq!(closed(&failed, name), HashMap::new(), "{name}");
    }

    for (_, _, server) in &cases {
        server.set_script(answer);
    }
    let names: Vec<_> = cases.iter().map(|(name, ..)| *name).collect();
    let healed = assert_recover(&daemon, &names, 10.0, TIMEOUT);
    for (name, reason, _) in &cases {
        assert_only_failure(&healed, name, reason);
    }
}

/// Row 28: a path that has died while an answer was under way, and one on which no word ever came. Nobody waits for either
/// as long as for an answer.
#[test]
fn a_dead_path_is_found_out_inside_a_body_and_before_the_first_word() {
    /// Ten seconds of silence, five more for the answer to a ping, and what a busy machine takes.
    const FOUND_OUT_WITHIN: Duration = Duration::from_secs(40);
    let in_body = Frames::start(|request| Script::nothing().head(request.stream, &[]).data(request.stream, 1).hang());
    let greeting = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a listener");
    let rest = format!("{H2}timeout = \"2m\"");
    let silent = format!("http://{}/", greeting.local_addr().expect("its address"));
    let config =
        |silent: &str| target("body", &in_body.url(), "2/s", &rest) + &target("greeting", silent, "2/s", &rest);
    let daemon = Daemon::start(&config(&silent));
    let reasons = [("body", "timeout_body"), ("greeting", "timeout_response")];
    let failed = wait_for("failures of both", FOUND_OUT_WITHIN, || {
        let scrape = daemon.scrape();
        let all = reasons.iter().all(|(name, reason)| failures(&scrape, name).contains_key(*reason));
        if all { Ok(scrape) } else { Err(scrape.summary()) }
    });
    // The others that ran on the dead connection had not begun to be answered.
    let of_body: HashSet<String> = failures(&failed, "body").into_keys().collect();
    assert!(of_body.contains("timeout_body"), "{of_body:?}");
    assert!(
        of_body.iter().all(|reason| ["timeout_body", "timeout_response"].contains(&reason.as_str())),
        "{of_body:?}"
    );
    assert_only_failure(&failed, "greeting", "timeout_response");
    for (name, _) in reasons {
        let latency = failed.histogram("hammerd_request_latency_seconds", &[("target", name), ("outcome", "failed")]);
        assert!(latency.sum / latency.count < 30.0, "{name}: {latency:?}: not the request's own timeout");
    }
    for (name, _) in reasons {
        let ends: Vec<String> = closed(&failed, name).into_keys().collect();
        assert_eq!(ends, ["failed"], "{name}: {}", failed.summary());
    }
    assert_eq!(daemon.log_with(&["greeting", "no HTTP/2 settings within 5s"]).len(), 1, "{:?}", daemon.log_lines());

    let healed = Frames::start(answer);
    in_body.set_script(answer);
    assert!(daemon.reload_with(&config(&healed.url())));
    wait_for("good answers of both", FOUND_OUT_WITHIN, || {
        let scrape = daemon.scrape();
        let all = reasons.iter().all(|(name, _)| responses(&scrape, name, "200") >= 5.0);
        if all { Ok(()) } else { Err(scrape.summary()) }
    });
}

/// Row 28: who allows no request is told from who says nothing.
#[test]
fn a_server_that_allows_no_request_is_timeout_response_until_it_allows_some() {
    let server = Frames::allowing(0, answer);
    let config = |server: &Frames| target("a", &server.url(), "5/s", &format!("{H2}timeout = \"1m\""));
    let daemon = Daemon::start(&config(&server));
    let failed = daemon.scrape_when("a failure", |scrape| !failures(scrape, "a").is_empty());
    assert_only_failure(&failed, "a", "timeout_response");
    let cause = "no request allowed within 5s (HTTP/2 SETTINGS_MAX_CONCURRENT_STREAMS = 0)";
    wait_for("its cause in the log", PATIENCE, || match daemon.log_with(&["timeout_response", cause]).len() {
        1.. => Ok(()),
        0 => Err(format!("{:?}", daemon.log_lines())),
    });
    assert_eq!(closed(&failed, "a").into_keys().collect::<Vec<_>>(), ["failed"], "{}", failed.summary());
    assert_eq!(server.requests(), []);

    let generous = Frames::start(answer);
    assert!(daemon.reload_with(&config(&generous)));
    let healed = daemon.scrape_when("good answers", |scrape| responses(scrape, "a", "200") >= 5.0);
    assert_only_failure(&healed, "a", "timeout_response");
}
