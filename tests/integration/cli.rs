//! Commands, flags, exit codes, and where the config can come from.

use std::io::Write as _;
use std::net::TcpListener;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::faults::responses;
use crate::support::daemon::{Daemon, run, run_on_terminal};
use crate::support::dead::closed_port;
use crate::support::{Origin, Reply, target};

const REJECTED: Option<i32> = Some(78);

#[test]
fn wrong_usage_is_2_and_says_so_on_stderr() {
    for args in [&["--no-such-flag"][..], &["no-such-command"], &["hit"], &["run", "--log-format", "xml"]] {
        let end = run(args, &[], "");
        assert_eq!(end.code, Some(2), "{args:?}: {end:?}");
        assert!(end.stdout.is_empty() && end.stderr.contains("--help"), "{args:?}: {end:?}");
    }
    for (args, named) in [
        (&["hit", "ftp://x/"][..], "ftp"),
        (&["hit", "http://127.0.0.1:1/", "--rate", "0"], "--rate"),
        (&["hit", "http://127.0.0.1:1/", "--header", "nonsense"], "--header"),
        (&["demo", "--log-level", "inof"], "--log-level"),
    ] {
        let end = run(args, &[], "");
        assert_eq!(end.code, Some(2), "{args:?}: {end:?}");
        assert!(end.stderr.contains(named), "{args:?}: {end:?}");
    }
    let version = run(&["--version"], &[], "");
    assert_eq!((version.code, version.stdout.as_str()), (Some(0), concat!("hammerd ", env!("CARGO_PKG_VERSION"))));
}

/// Row 40.
#[test]
fn a_port_in_use_is_1_before_any_traffic() {
    let origin = Origin::start(|_| Reply::ok(""));
    let taken = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = taken.local_addr().expect("its address").port();
    let end = Daemon::builder(&target("a", &origin.url("/"), "1000/s", "")).port(port).run();
    assert_eq!(end.code, Some(1), "{end:?}");
    assert!(end.stderr.contains(&port.to_string()), "{end:?}");
    assert_eq!(origin.connections_opened(), 0);
}

#[test]
fn check_prints_the_plan() {
    let config =
        target("checkout", "http://shop.example/", "50/s", "") + &target("cart", "http://shop.example/", "3/min", "");
    let end = run(&["check", "--config", "-"], &[], &config);
    assert_eq!(end.code, Some(0), "{end:?}");
    for word in ["checkout", "cart", "50/s", "3/min", "50.05"] {
        assert!(end.stdout.contains(word), "{word} is not in the plan:\n{}", end.stdout);
    }
    let bad = run(&["check", "--config", "-"], &[], &config.replace("50/s", "fast"));
    assert_eq!(bad.code, REJECTED, "{bad:?}");
    assert!(bad.stdout.is_empty() && bad.stderr.contains("targets.checkout.rate"), "{bad:?}");
}

#[test]
fn schema_is_json_and_knows_the_keys() {
    let end = run(&["schema"], &[], "");
    assert_eq!(end.code, Some(0), "{end:?}");
    let schema: Value = serde_json::from_str(&end.stdout).expect("JSON");
    assert!(
        schema["$schema"].as_str().is_some_and(|dialect| dialect.contains("json-schema.org")),
        "{}",
        schema["$schema"]
    );
    for key in ["server", "shutdown", "engine", "limits", "metrics", "defaults", "targets"] {
        assert!(schema["properties"][key].is_object(), "{key} is not in the schema");
    }
}

#[test]
fn hit_sends_for_a_while_and_sums_up() {
    let origin = Origin::start(|_| Reply::ok("hello"));
    let url = origin.url("/hit");
    let flags = "--rate 50/s --duration 2s --method POST --header x-a:1 --body data --output json";
    let args: Vec<&str> = ["hit", url.as_str()].into_iter().chain(flags.split(' ')).collect();
    let end = run(&args, &[], "");
    assert_eq!(end.code, Some(0), "{end:?}");
    let summary: Value = serde_json::from_str(&end.stdout).expect("JSON");
    let targets = summary["targets"].as_object().expect("an object");
    assert_eq!(targets.len(), 1);
    let target = targets.values().next().expect("one target");
    let requests = origin.requests();
    assert_eq!(target["started"].as_u64(), Some(requests.len() as u64), "{target:#}");
    assert_eq!(target["responses"]["200"].as_u64(), Some(requests.len() as u64), "{target:#}");
    let scheduled = target["scheduled"].as_f64().expect("a number");
    assert!((99.0..=125.0).contains(&scheduled), "{target:#}");
    for key in ["p50", "p90", "p95", "p99", "p99.9", "max"] {
        let (latency, duration) = (&target["latency"][key], &target["duration"][key]);
        assert!(latency.as_f64().is_some() && duration.as_f64().is_some(), "{key}: {latency} {duration}");
    }
    let request = &requests[0];
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/hit"));
    assert_eq!((request.header("x-a"), request.body.as_slice()), (Some("1"), &b"data"[..]));
}

#[test]
fn hit_in_text_names_what_went_wrong() {
    let url = format!("http://{}/", closed_port());
    let end = run(&["hit", &url, "--rate", "20/s", "--duration", "1s"], &[], "");
    assert_eq!(end.code, Some(0), "stopped as asked: {end:?}");
    assert!(end.stdout.contains("connect_refused"), "{end:?}");
}

#[test]
fn hit_draws_one_line_on_a_terminal_and_the_summary_below_it() {
    let origin = Origin::start(|_| Reply::ok(""));
    let end = run_on_terminal(&["hit", &origin.url("/"), "--rate", "50/s", "--duration", "1500ms"], false);
    assert_eq!(end.code, Some(0), "{end:?}");
    let (drawn, summary) = end.stdout.split_once('\n').expect("two lines");
    assert!(drawn.starts_with("\r\u{1b}[K") && drawn.contains("sent 75 failed 0"), "{end:?}");
    assert!(summary.starts_with("hit (http "), "{end:?}");
}

/// What nobody could read is no success: a script would take the empty file for the answer.
#[test]
fn hit_whose_summary_can_t_be_written_says_so_and_fails() {
    let origin = Origin::start(|_| Reply::ok(""));
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
    let end = Command::new(env!("CARGO_BIN_EXE_hammerd"))
        .args(["hit", &origin.url("/"), "--rate", "10/s", "--duration", "200ms", "--output", "json"])
        .stdout(full)
        .output()
        .expect("hammerd");
    let said = String::from_utf8_lossy(&end.stderr);
    assert_eq!(end.status.code(), Some(1), "{said}");
    assert!(said.contains("standard output: the summary can't be written there"), "{said}");
}

/// In 80 columns what it is about is seen: how fast it is, and how slow the answers are.
#[test]
fn hit_keeps_rate_and_quantiles_in_few_columns() {
    let origin = Origin::start(|_| Reply::ok(""));
    let end = run_on_terminal(&["hit", &origin.url("/"), "--rate", "50/s", "--duration", "1500ms"], false);
    let drawn = end.stdout.lines().next().expect("a line");
    let last = drawn.rsplit("\u{1b}[K").next().expect("what was drawn last");
    let at = |word: &str| last.find(word).unwrap_or_else(|| panic!("no {word}: {last}"));
    assert!(at("/s") < at("p50") && at("p99") < 30 && at("p99") < at("sent"), "{last}");
}

/// Ctrl-S must not keep the traffic going.
#[test]
fn hit_ends_also_on_a_terminal_that_is_paused() {
    let origin = Origin::start(|_| Reply::ok(""));
    let end = run_on_terminal(&["hit", &origin.url("/"), "--rate", "50/s", "--duration", "1500ms"], true);
    assert_eq!((end.code, end.stdout.as_str()), (Some(0), ""));
    assert!((74..=77).contains(&origin.requests().len()), "{}", origin.requests().len());
}

/// Arguments, environment, and the rate that comes of them.
type Case<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], &'a str);

/// Defaults, files in order, environment, flags; from a file, from stdin, from a variable, inline.
#[test]
fn the_config_comes_from_where_it_is_put() {
    let base = target("a", "http://base.example/", "10/s", "timeout = \"3s\"");
    let directory = tempfile::tempdir().expect("a directory");
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path.to_str().expect("UTF-8").to_owned()
    };
    let (first, second) = (file("1.toml", &base), file("2.toml", "[targets.a]\nrate = \"20/s\"\n"));
    let json = file("3.json", r#"{"targets": {"a": {"rate": "30/s"}}}"#);
    let yaml = file("4.yaml", "targets:\n  a:\n    rate: 40/s\n");
    let env = ("HAMMERD__TARGETS__A__RATE", "50/s");
    let cases: [Case<'_>; 10] = [
        (&["--config", &first], &[], "10/s"),
        (&["--config", &first, "--config", &second], &[], "20/s"),
        (&["--config", &second, "--config", &first], &[], "10/s"),
        (&["--config", &first, "--config", &second, "--config", &json], &[], "30/s"),
        (&["--config", &first, "--config", &yaml], &[], "40/s"),
        (&["--config", &first], &[env], "50/s"),
        (&[], &[("HAMMERD_CONFIG", &first)], "10/s"),
        (&[], &[("HAMMERD_CONFIG_INLINE", &base), env], "50/s"),
        // What a template leaves empty is not there.
        (&[], &[("HAMMERD_CONFIG_INLINE", &base), ("HAMMERD_CONFIG", "")], "10/s"),
        (&[], &[("HAMMERD_CONFIG_INLINE", ""), ("HAMMERD_CONFIG", &first)], "10/s"),
    ];
    for (files, envs, rate) in cases {
        let end = run(&[&["check"], files].concat(), envs, "");
        assert_eq!(end.code, Some(0), "{files:?} {envs:?}: {end:?}");
        assert!(end.stdout.contains(rate) && end.stdout.contains("base.example"), "{files:?} {envs:?}: {end:?}");
    }
    for envs in [&[][..], &[("HAMMERD_CONFIG", "")], &[("HAMMERD_CONFIG_INLINE", "")]] {
        let none = run(&["check"], envs, "");
        assert_eq!(none.code, REJECTED, "{envs:?}: {none:?}");
    }
}

#[test]
fn the_environment_reaches_the_traffic() {
    let origin = Origin::start(|_| Reply::ok(""));
    let config = target("a", &origin.url("/${HAMMERD_TEST_PATH}"), "1/h", "");
    let daemon = Daemon::builder(&config)
        .env("HAMMERD_TEST_PATH", "expanded")
        .env("HAMMERD__TARGETS__A__RATE", "40/s")
        .env("HAMMERD__TARGETS__A__METHOD", "PUT")
        .start();
    let request = origin.wait_requests(3).pop().expect("a request");
    assert_eq!((request.method.as_str(), request.path.as_str()), ("PUT", "/expanded"));
    assert_eq!(daemon.scrape().value("hammerd_target_requests_per_second", &[("target", "a")]), 40.0);
}

/// Row 32: nobody reads the log, or nobody can.
#[test]
fn a_log_that_is_closed_or_full_stops_nothing() {
    let url = format!("http://{}/", closed_port());
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let (_unread, mut full) = std::io::pipe().expect("a pipe");
    let capacity = rustix::pipe::fcntl_getpipe_size(&full).expect("the size of a pipe");
    full.write_all(&vec![b'\n'; capacity]).expect("a pipe that is full now");
    let device = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
    // What a full pipe does not take may still be waiting; the others have lost it.
    let logs = [
        ("closed", Stdio::from(writer), 1.0),
        ("full", Stdio::from(full), 0.0),
        ("on a full disk", Stdio::from(device), 1.0),
    ];
    for (what, log, lost) in logs {
        let origin = Origin::start(|_| Reply::ok(""));
        let config = target("good", &origin.url("/"), "50/s", "") + &target("bad", &url, "50/s", "");
        let mut daemon = Daemon::builder(&config).arg("--log-level").arg("debug").stderr(log).start();
        daemon.scrape_after("bad", 50.0);
        let scrape = daemon.scrape_after("good", 50.0);
        assert_eq!(
            responses(&scrape, "good", "200"),
            scrape.value("hammerd_requests_total", &[("target", "good")]),
            "{what}"
        );
        assert!(scrape.value("hammerd_log_lines_lost_total", &[]) >= lost, "log {what}");
        let (status, summary) = daemon.stop();
        assert_eq!(status.code(), Some(0), "log {what}");
        assert_eq!(summary["targets"]["good"]["started"], origin.requests().len(), "log {what}");
    }
}

#[test]
fn a_duration_beyond_the_end_of_the_clock_never_ends() {
    let origin = Origin::start(|_| Reply::ok(""));
    let config = target("a", &origin.url("/"), "50/s", "");
    let mut daemon = Daemon::builder(&config).arg("--duration").arg("18446744073709551615s").start();
    daemon.scrape_after("a", 5.0);
    assert_eq!(daemon.stop().0.code(), Some(0));
}

/// One command, nothing else needed.
#[test]
fn demo_serves_itself() {
    let mut demo = crate::support::daemon::demo();
    let scrape = demo.scrape_when("traffic of the demo", |scrape| scrape.sum("hammerd_requests_total", &[]) >= 20.0);
    assert!(scrape.sum("hammerd_responses_total", &[("code", "200")]) > 0.0, "{}", scrape.summary());
    let printed = demo.stdout().join("\n");
    assert!(printed.contains(&format!("http://{}/metrics", demo.address())), "{printed}");
    demo.signal(rustix::process::Signal::TERM);
    // The scrape that a lingering daemon waits for.
    let _ = crate::support::client::get(demo.address(), "/metrics");
    assert_eq!(demo.wait_exit(crate::support::PATIENCE).code(), Some(0));
}
