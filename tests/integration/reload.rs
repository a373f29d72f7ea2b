//! A reload touches what has changed and nothing else; a bad one touches nothing at all.

use std::collections::HashMap;
use std::time::Duration;

use rustix::process::Signal;

use crate::faults::{failures, responses};
use crate::overload::assert_rate_holds;
use crate::support::origin::Request;
use crate::support::{Daemon, Origin, PATIENCE, Reply, Scrape, let_pass, target, wait_until};
use crate::traffic::{distance, phase};

fn finished(scrape: &Scrape, target: &str) -> f64 {
    scrape.value("hammerd_requests_total", &[("target", target)])
}

fn asked_rate(scrape: &Scrape, target: &str) -> Option<f64> {
    scrape.try_value("hammerd_target_requests_per_second", &[("target", target)])
}

/// Connections of a target that have been closed.
fn closed(scrape: &Scrape, target: &str) -> f64 {
    scrape.sum("hammerd_connections_closed_total", &[("target", target)])
}

/// Row 39 and promise 6: remove, add, change and rename at once.
#[test]
fn a_reload_touches_only_what_has_changed() {
    let origin = Origin::start(|_| Reply::ok(""));
    let one = |name: &str, rate: &str| target(name, &origin.url(&format!("/{name}")), rate, "");
    let daemon =
        Daemon::start(&[one("kept", "20/s"), one("gone", "40/s"), one("changed", "10/s"), one("old", "5/s")].concat());
    daemon.scrape_after("kept", 20.0);
    let before = daemon.scrape_after("old", 3.0);
    let next = [one("kept", "20/s"), one("changed", "50/s"), one("new", "5/s"), one("added", "30/s")].concat();
    assert!(daemon.reload_with(&next));
    daemon.scrape_after("added", 10.0);
    daemon.scrape_after("new", 3.0);
    let after = daemon.scrape_after("kept", finished(&before, "kept") + 20.0);

    for name in ["gone", "old"] {
        assert_eq!(asked_rate(&after, name), None);
        for metric in ["hammerd_requests_total", "hammerd_requests_scheduled_total", "hammerd_target_info"] {
            assert_eq!(after.try_value(metric, &[("target", name)]), None, "{metric} of a removed target");
        }
        assert_eq!(after.sum("hammerd_request_latency_seconds_count", &[("target", name)]), 0.0);
    }
    assert_eq!(asked_rate(&after, "changed"), Some(50.0));
    assert!(finished(&after, "changed") >= finished(&before, "changed"), "a changed rate keeps the counts");
    for name in ["kept", "changed"] {
        assert_eq!(closed(&after, name), 0.0, "{name} keeps its connections");
    }
    let path_count = |path: &str| origin.requests().iter().filter(|request| request.path == path).count() as f64;
    let retired = after.value("hammerd_retired_requests_total", &[("stage", "finished")]);
    assert_eq!(retired, path_count("/gone") + path_count("/old"), "what is removed stays in the sum");
    assert_eq!(daemon.scrape().sum("hammerd_requests_dropped_total", &[("reason", "in_flight")]), 0.0);
}

/// Promise 6: an unchanged target keeps its place in time, whatever happens around it.
#[test]
fn an_unchanged_target_keeps_its_phase() {
    const PERIOD: Duration = Duration::from_millis(100);
    let origin = Origin::start(|_| Reply::ok(""));
    let config = |others: usize| {
        let others = (0..others).map(|n| target(&format!("n{n}"), &origin.url("/other"), "7/s", ""));
        target("kept", &origin.url("/kept"), "10/s", "") + &others.collect::<String>()
    };
    let daemon = Daemon::start(&config(1));
    let kept = |count: usize| {
        daemon.scrape_after("kept", count as f64);
        let requests = origin.requests();
        let start = requests[0].at;
        (requests.into_iter().filter(|request| request.path == "/kept").collect::<Vec<Request>>(), start)
    };
    let (requests, start) = kept(15);
    let before = phase(&requests, start, PERIOD);
    for others in [4, 2, 6] {
        let count = kept(0).0.len();
        assert!(daemon.reload_with(&config(others)));
        // The first ones may have been sent before the reload took effect.
        let after = phase(&kept(count + 18).0[count + 3..], start, PERIOD);
        let distance = distance(before, after);
        assert!(distance < 0.2, "the phase has moved by {distance} of a period");
    }
    assert_rate_holds(&daemon, "kept", 10.0, Duration::from_secs(1));
}

/// Rows 34 and 35 at a reload, and done-when 2.
#[test]
fn a_bad_reload_changes_nothing() {
    let origin = Origin::start(|_| Reply::ok(""));
    let good = target("a", &origin.url("/a"), "20/s", "");
    let daemon = Daemon::start(&good);
    let before = daemon.scrape_after("a", 5.0);
    let bad = [
        String::new(),
        "[targets.a\n".to_owned(),
        format!("{good}[targets.b]\nurl = \"{}\"\nrate = \"-1/s\"\n", origin.url("/b")),
        format!("{good}[targets.b]\nurl = \"{}\"\nrate = \"1/s\"\nretries = 5\n", origin.url("/b")),
        format!("{}[limits]\nmax_total_rate = \"10/s\"\n", good.replace("/a", "/changed")),
    ];
    for (n, config) in bad.iter().enumerate() {
        assert!(!daemon.reload_with(config), "accepted: {config}");
        let scrape = daemon.scrape();
        assert_eq!(scrape.sum("hammerd_config_reloads_total", &[]), (n + 1) as f64);
        assert_eq!(asked_rate(&scrape, "a"), Some(20.0));
    }
    std::fs::remove_file(daemon.path("hammerd.toml")).expect("the config file");
    assert!(!daemon.reload(), "no file");
    std::fs::create_dir(daemon.path("hammerd.toml")).expect("a directory");
    assert!(!daemon.reload(), "a directory");
    std::fs::remove_dir(daemon.path("hammerd.toml")).expect("the directory");

    let after = daemon.scrape_after("a", finished(&before, "a") + 10.0);
    assert_eq!(closed(&after, "a"), 0.0);
    let succeeded = "hammerd_config_last_reload_success_timestamp_seconds";
    assert_eq!(after.value(succeeded, &[]), before.value(succeeded, &[]), "the last success was the start");
    assert!(origin.requests().iter().all(|request| request.path == "/a"), "nothing of a bad file is used");
    assert!(daemon.reload_with(&good), "and a good file is accepted again");
}

/// Row 39.
#[test]
fn a_listen_address_that_changes_is_refused_by_name() {
    let origin = Origin::start(|_| Reply::ok(""));
    let config =
        |listen: &str| format!("[server]\nlisten = \"{listen}\"\n{}", target("a", &origin.url("/"), "10/s", ""));
    let daemon = Daemon::builder(&config("127.0.0.1:0")).listen_from_file().start();
    assert!(!daemon.reload_with(&config("127.0.0.1:1")));
    assert!(!daemon.log_with(&["server.listen"]).is_empty(), "{:?}", daemon.log_lines());
    assert!(daemon.reload_with(&config("127.0.0.1:0")));
}

/// A removed target's idle connections go with its last request, not with the grace that this one might have used.
#[test]
fn a_removed_target_leaves_no_connection_behind() {
    let origin = Origin::start(|request| match request.path.as_str() {
        "/slow" => Reply::ok("").delayed(Duration::from_secs(1)),
        _ => Reply::ok(""),
    });
    let kept = target("kept", &origin.url("/"), "1/s", "");
    let grace = "[shutdown]\ngrace = \"60s\"\n";
    let daemon = Daemon::start(&format!("{grace}{kept}{}", target("gone", &origin.url("/slow"), "10/s", "")));
    daemon.scrape_after("gone", 10.0);
    assert!(daemon.reload_with(&format!("{grace}{kept}")));
    wait_until("end of the removed target's connections", PATIENCE, || origin.connections_open() == 1);
}

/// A target that goes on otherwise has its requests cut off by nothing but their own deadlines.
#[test]
fn a_change_of_process_cancels_nothing() {
    let origin = Origin::start(|_| Reply::silence());
    let config = |rest: &str| target("a", &origin.url("/"), "10/s", rest);
    let daemon = Daemon::start(&config("timeout = \"3s\""));
    origin.wait_requests(10);
    assert!(daemon.reload_with(&config("timeout = \"100ms\"")));
    assert!(daemon.reload_with(&config("timeout = \"100ms\"\nprocess = \"burst\"\nburst = 2")));
    let scrape = daemon.scrape_when("timeouts of the first requests", |scrape| {
        scrape.histogram("hammerd_request_duration_seconds", &[("target", "a")]).count_le(2.5)
            <= finished(scrape, "a") - 10.0
            || scrape.value("hammerd_requests_canceled_total", &[("target", "a")]) > 0.0
    });
    assert_eq!(scrape.value("hammerd_requests_canceled_total", &[("target", "a")]), 0.0, "{}", scrape.summary());
}

/// Other buckets are other series, which count anew; the arrivals go on in step, and none is lost or doubled.
#[test]
fn a_target_with_other_buckets_counts_anew_and_goes_on_in_step() {
    const PERIOD: Duration = Duration::from_millis(100);
    let origin = Origin::start(|_| Reply::ok(""));
    let config = |rest: &str| target("a", &origin.url("/"), "10/s", rest);
    let mut daemon = Daemon::start(&config("buckets = [0.5]"));
    let bounds = |scrape: &Scrape| -> Vec<f64> {
        let latency = scrape.histogram("hammerd_request_latency_seconds", &[("target", "a")]);
        latency.buckets.into_iter().map(|(bound, _)| bound).collect()
    };
    assert_eq!(bounds(&daemon.scrape_after("a", 15.0)), [0.5, 10.0, f64::INFINITY]);
    assert!(daemon.reload_with(&config("buckets = [0.25, 7.5]\ntimeout = \"5s\"\nnative_schema = 0")));
    let scrape = daemon.scrape_after("a", 15.0);
    assert_eq!(bounds(&scrape), [0.25, 7.5, f64::INFINITY]);
    let retired = scrape.value("hammerd_retired_requests_total", &[("stage", "finished")]);

    let (_, summary) = daemon.stop();
    let finished_anew = summary["targets"]["a"]["finished"].as_f64().expect("a count");
    let requests = origin.requests();
    assert_eq!(retired + finished_anew, requests.len() as f64);
    let (before, after) = requests.split_at(retired as usize);
    let start = requests[0].at;
    let distance = distance(phase(before, start, PERIOD), phase(after, start, PERIOD));
    assert!(distance < 0.2, "the phase has moved by {distance} of a period");
}

/// Promise 9: however often a target changes, its requests stay below its ceiling.
#[test]
fn a_target_that_changes_again_and_again_stays_below_its_ceiling() {
    let origin = Origin::start(|_| Reply::silence());
    let process = ["process = \"even\"", "process = \"burst\"\nburst = 2"];
    let config = |n: usize| target("a", &origin.url("/"), "100/s", &format!("max_in_flight = 5\n{}", process[n % 2]));
    let daemon = Daemon::start(&config(0));
    let dropped = |scrape: &Scrape| scrape.sum("hammerd_requests_dropped_total", &[("reason", "in_flight")]);
    for n in 1..5 {
        let before = dropped(&daemon.scrape());
        let scrape = daemon.scrape_when("arrivals above the ceiling", |scrape| dropped(scrape) >= before + 5.0);
        let in_flight = scrape.value("hammerd_in_flight_requests", &[("target", "a")]);
        assert_eq!(in_flight, 5.0, "after {} changes", n - 1);
        assert!(daemon.reload_with(&config(n)));
    }
    assert_eq!(origin.requests().len(), 5);
}

/// Row 45: body file, header file and environment are read again.
#[test]
fn a_rotated_file_is_used_after_the_next_reload() {
    let origin = Origin::start(|_| Reply::ok(""));
    let directory = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).expect("a file");
    write("body", "first body");
    write("token", "Bearer first\n");
    let path = |name: &str| directory.path().join(name).display().to_string();
    let rest = format!(
        "method = \"POST\"\nbody_file = \"{}\"\nheaders_file = {{ authorization = \"{}\" }}",
        path("body"),
        path("token")
    );
    let config = target("a", &origin.url("/"), "20/s", &rest);
    let daemon = Daemon::start(&config);
    let before = origin.wait_requests(3);
    assert!(before.iter().all(|request| request.body == b"first body"));
    assert!(before.iter().all(|request| request.header("authorization") == Some("Bearer first")));

    write("body", "second");
    write("token", "Bearer second\n");
    assert!(daemon.reload());
    let count = origin.requests().len();
    let after = origin.wait_requests(count + 3);
    let after = &after[count + 1..];
    assert!(after.iter().all(|request| request.body == b"second"), "{after:?}");
    assert!(after.iter().all(|request| request.header("authorization") == Some("Bearer second")), "{after:?}");
    assert!(after.iter().all(|request| request.header("content-length") == Some("6")));
    let secret_lines = daemon.log_with(&["Bearer"]);
    assert!(secret_lines.is_empty(), "{secret_lines:?}");
}

/// Row 38.
#[test]
fn a_thousand_reloads_leak_nothing() {
    let origin = Origin::start(|_| Reply::ok(""));
    let config = |n: usize| {
        let name = format!("t{n}");
        "[server]\nlifecycle = true\n".to_owned()
            + &target("kept", &origin.url("/kept"), "20/s", "")
            + &target(&name, &origin.url("/other"), "20/s", "")
    };
    let daemon = Daemon::start(&config(0));
    let reload = |n: usize| {
        daemon.write_config(&config(n % 3));
        let answer = daemon.request("POST", "/-/reload", &[]);
        assert_eq!(answer.status, 200, "{answer:?}");
    };
    (1..=200).for_each(reload);
    daemon.scrape();
    let (descriptors, memory) = (daemon.own_descriptors(), daemon.resident_bytes());
    (201..=1200).for_each(reload);
    let scrape = daemon.scrape();
    wait_until("descriptors as before", PATIENCE, || daemon.own_descriptors() <= descriptors + 2.0);
    let grown = daemon.resident_bytes().saturating_sub(memory);
    assert!(grown < 3 << 20, "{grown} bytes grown over a thousand reloads");
    assert_eq!(scrape.sum("hammerd_config_reloads_total", &[]), 1200.0);
    assert_eq!(scrape.series("hammerd_target_info").len(), 2);
    assert_eq!(failures(&scrape, "kept"), HashMap::new());
    assert_eq!(closed(&scrape, "kept"), 0.0);
}

/// Row 38: a storm is coalesced, and its last file is the one that counts.
#[test]
fn a_storm_of_signals_ends_with_the_last_file() {
    let origin = Origin::start(|_| Reply::ok(""));
    let config = |rate: usize| target("a", &origin.url("/"), &format!("{rate}/s"), "");
    let daemon = Daemon::start(&config(10));
    for rate in 11..=60 {
        daemon.write_config(&config(rate));
        daemon.signal(Signal::HUP);
    }
    let scrape = daemon.scrape_when("the last rate", |scrape| asked_rate(scrape, "a") == Some(60.0));
    let reloads = scrape.sum("hammerd_config_reloads_total", &[]);
    assert!((1.0..=50.0).contains(&reloads), "{reloads} reloads for 50 signals");
    daemon.scrape_when("good answers", |scrape| responses(scrape, "a", "200") >= 20.0);
}

/// A file that can't be read to its end, a pipe here, neither keeps the daemon alive nor anybody waiting.
#[test]
fn a_reload_that_hangs_gives_way_to_the_end() {
    let origin = Origin::start(|_| Reply::ok(""));
    let mut daemon =
        Daemon::start(&("[server]\nlifecycle = true\n".to_owned() + &target("a", &origin.url("/"), "20/s", "")));
    let file = daemon.path("hammerd.toml");
    std::fs::remove_file(&file).expect("the config file");
    let mode = rustix::fs::Mode::RUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &file, rustix::fs::FileType::Fifo, mode, 0).expect("a pipe");
    let answers = std::thread::scope(|scope| {
        // The first is read for, the second waits behind it.
        let asking = [(), ()].map(|()| {
            let asking = scope.spawn(|| daemon.request("POST", "/-/reload", &[]));
            let_pass(Duration::from_millis(300));
            asking
        });
        daemon.signal(Signal::HUP);
        daemon.signal(Signal::TERM);
        asking.map(|asking| asking.join().expect("an answer"))
    });
    assert_eq!(answers.map(|answer| answer.status), [503, 503]);
    let scrape = daemon.scrape();
    assert_eq!(scrape.sum("hammerd_config_reloads_total", &[]), 0.0);
    assert_eq!(daemon.wait_exit(PATIENCE).code(), Some(0));
}

#[test]
fn a_reload_that_hangs_is_refused_in_the_end_and_the_next_one_works() {
    let origin = Origin::start(|_| Reply::ok(""));
    let config = |rate: &str| target("a", &origin.url("/"), rate, "");
    let daemon = Daemon::start(&config("20/s"));
    let file = daemon.path("hammerd.toml");
    std::fs::remove_file(&file).expect("the config file");
    let mode = rustix::fs::Mode::RUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &file, rustix::fs::FileType::Fifo, mode, 0).expect("a pipe");
    assert!(!daemon.reload(), "nothing was read");
    assert_eq!(daemon.get("/-/healthy").status, 200);
    assert!(daemon.reload_with(&config("30/s")));
    daemon.scrape_when("the new rate", |scrape| asked_rate(scrape, "a") == Some(30.0));
}

/// Row 38: drain wins.
#[test]
fn a_reload_during_the_drain_is_ignored() {
    let origin = Origin::start(|_| Reply::ok("").delayed(Duration::from_secs(1)));
    let config = |name: &str| "[shutdown]\nlinger = \"0s\"\n".to_owned() + &target(name, &origin.url("/"), "20/s", "");
    let mut daemon = Daemon::start(&config("a"));
    origin.wait_requests(5);
    daemon.signal(Signal::TERM);
    wait_until("start of the drain", PATIENCE, || daemon.get("/-/ready").status == 503);
    daemon.write_config(&config("b"));
    daemon.signal(Signal::HUP);
    let status = daemon.wait_exit(PATIENCE);
    assert_eq!(status.code(), Some(0));
    let summary = daemon.summaries().pop().expect("a summary");
    assert_eq!(summary["targets"]["b"], serde_json::Value::Null);
    assert_eq!(summary["targets"]["a"]["started"], origin.requests().len());
}

/// As SIGHUP, with the result as the answer, and only when allowed.
#[test]
fn a_reload_over_http_answers_with_its_result() {
    let origin = Origin::start(|_| Reply::ok(""));
    let config = |lifecycle: bool, rate: &str| {
        format!("[server]\nlifecycle = {lifecycle}\n{}", target("a", &origin.url("/"), rate, ""))
    };
    let closed = Daemon::start(&config(false, "10/s"));
    closed.write_config(&config(false, "30/s"));
    assert_eq!(closed.request("POST", "/-/reload", &[]).status, 403);
    assert_eq!(asked_rate(&closed.scrape(), "a"), Some(10.0));

    let open = Daemon::start(&config(true, "10/s"));
    open.write_config(&config(true, "30/s"));
    assert_eq!(open.request("POST", "/-/reload", &[]).status, 200);
    assert_eq!(asked_rate(&open.scrape(), "a"), Some(30.0));
    open.write_config(&config(true, "0/s"));
    let refused = open.request("POST", "/-/reload", &[]);
    assert!(refused.status >= 400 && refused.text().contains("targets.a.rate"), "{refused:?}");
    assert_eq!(asked_rate(&open.scrape(), "a"), Some(30.0));
    assert!(matches!(open.get("/-/reload").status, 404 | 405), "a GET reloads nothing");
}
