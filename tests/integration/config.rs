//! What is refused, and how well it is explained: file, line, key, what would be right, and never a secret.

use crate::support::daemon::{Daemon, Finished, run};
use crate::support::{Origin, Reply, target};

const REJECTED: Option<i32> = Some(78);

/// Checks a config kept in a file called `bad.toml`.
fn check(text: &str) -> Finished {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("bad.toml");
    std::fs::write(&path, text).expect("a file");
    run(&["check", "--config", path.to_str().expect("UTF-8")], &[], "")
}

/// A config whose target `a` has, on line 4, this line.
fn with_line(line: &str) -> String {
    format!("[targets.a]\nurl = \"http://shop.example/\"\nrate = \"1/s\"\n{line}\n")
}

/// Rows 35, 36 and 37: a line that is wrong (line 4 of its file), and words of the message.
#[test]
fn every_mistake_is_told_with_its_line_its_key_and_what_would_be_right() {
    let cases: [(&str, &[&str]); 22] = [
        ("rtae = \"1/s\"", &["unknown key", "rtae", "rate"]),
        ("timeuot = \"1s\"", &["timeuot", "timeout"]),
        ("timeout = \"0s\"", &["targets.a.timeout"]),
        ("timeout = \"-1s\"", &["targets.a.timeout"]),
        ("timeout = \"soon\"", &["targets.a.timeout"]),
        ("timeout = true", &["targets.a.timeout"]),
        ("max_in_flight = 0", &["targets.a.max_in_flight", "1"]),
        ("max_in_flight = -3", &["targets.a.max_in_flight"]),
        ("max_in_flight = 1.5", &["targets.a.max_in_flight"]),
        ("method = \"G E T\"", &["targets.a.method"]),
        ("headers = { \"bad name\" = \"x\" }", &["targets.a.headers"]),
        ("headers = { x-a = \"v4lue\\r\\nx-b: 1\" }", &["targets.a.headers.x-a"]),
        ("headers = { x-a = \"v4lue\\u0000\" }", &["targets.a.headers.x-a"]),
        ("headers = { content-length = \"4\" }", &["targets.a.headers.content-length"]),
        ("headers = { Transfer-Encoding = \"chunked\" }", &["targets.a.headers"]),
        ("headers = { connection = \"close\" }", &["targets.a.headers.connection"]),
        ("labels = { \"bad-name\" = \"x\" }", &["targets.a.labels"]),
        ("labels = { target = \"x\" }", &["targets.a.labels", "target"]),
        ("body = 5", &["targets.a.body"]),
        ("body_file = \"/nonexistent/body\"", &["targets.a.body_file", "/nonexistent/body"]),
        ("body = \"${HAMMERD_TEST_UNSET}\"", &["targets.a.body", "HAMMERD_TEST_UNSET"]),
        ("rate = \"2/s\"", &["rate"]),
    ];
    for (line, words) in cases {
        let end = check(&with_line(line));
        assert_eq!(end.code, REJECTED, "{line}: {end:?}");
        assert!(end.stderr.contains("bad.toml:4"), "{line}: no place in {end:?}");
        for word in words {
            assert!(end.stderr.contains(word), "{line}: no {word} in {end:?}");
        }
        assert!(!end.stderr.contains("v4lue"), "{line}: the value is shown in {end:?}");
    }
}

/// Row 36.
#[test]
fn a_rate_or_url_that_makes_no_sense_is_refused() {
    for rate in ["\"0\"", "0", "-5", "\"-5/s\"", "nan", "\"NaN\"", "1e18", "\"1e18\"", "\"5/fortnight\"", "\"\"", "inf"]
    {
        let end = check(&format!("[targets.a]\nurl = \"http://shop.example/\"\nrate = {rate}\n"));
        assert_eq!(end.code, REJECTED, "{rate}: {end:?}");
        assert!(end.stderr.contains("bad.toml:3") && end.stderr.contains("targets.a.rate"), "{rate}: {end:?}");
    }
    for url in [
        "",
        "shop.example",
        "/path",
        "ftp://shop.example/",
        "https://",
        "http://",
        "http://a b/",
        "http://shop.example:99999/",
    ] {
        let end = check(&format!("[targets.a]\nurl = \"{url}\"\nrate = \"1/s\"\n"));
        assert_eq!(end.code, REJECTED, "{url}: {end:?}");
        assert!(end.stderr.contains("bad.toml:2") && end.stderr.contains("targets.a.url"), "{url}: {end:?}");
    }
}

/// Row 37: a path with a line break would smuggle a header, and may hold a secret.
#[test]
fn control_characters_in_a_url_are_refused_and_not_echoed() {
    for escape in ["\\r\\n", "\\u0000", "\\u0007"] {
        let end = check(&format!("[targets.a]\nurl = \"http://shop.example/s3cret{escape}x\"\nrate = \"1/s\"\n"));
        assert_eq!(end.code, REJECTED, "{escape}: {end:?}");
        assert!(end.stderr.contains("targets.a.url") && !end.stderr.contains("s3cret"), "{escape}: {end:?}");
    }
}

#[test]
fn all_mistakes_are_told_at_once() {
    let text = "[server]\nlisten = \"nowhere\"\n[targets.a]\nurl = \"x\"\nrate = \"0/s\"\n[targets.Bad_Name]\nurl = \"http://b/\"\nrate = 1\nwat = 1\n";
    let end = check(text);
    assert_eq!(end.code, REJECTED, "{end:?}");
    for place in
        ["bad.toml:2: server.listen", "bad.toml:4: targets.a.url", "bad.toml:5: targets.a.rate", "Bad_Name", "wat"]
    {
        assert!(end.stderr.contains(place), "no {place} in {end:?}");
    }
}

/// Row 34.
#[test]
fn a_config_that_is_not_there_or_nothing_is_refused_with_its_path() {
    let directory = tempfile::tempdir().expect("a directory");
    let missing = directory.path().join("missing.toml");
    let empty = directory.path().join("empty.toml");
    std::fs::write(&empty, "").expect("a file");
    for path in [missing.as_path(), directory.path(), empty.as_path()] {
        let path = path.to_str().expect("UTF-8");
        for command in ["check", "run"] {
            let end = run(&[command, "--config", path], &[], "");
            assert_eq!(end.code, REJECTED, "{command} {path}: {end:?}");
            assert!(end.stderr.contains(path), "{command} {path}: {end:?}");
        }
    }
}

/// Row 35: what a language of its own reports.
#[test]
fn broken_syntax_and_duplicates_are_refused_in_every_format() {
    let cases = [
        ("bad.toml", "[targets.a]\nurl = \"http://b/\"\nrate = \"1/s\"\n[targets.a]\nrate = 1\n", 4),
        ("bad.toml", "[targets.a]\nurl = \"http://b/\nrate = \"1/s\"\n", 2),
        ("bad.json", "{\"targets\": {\"a\": {\n\"url\": \"http://b/\"\n\"rate\": 1}}}", 3),
        ("bad.yaml", "targets:\n  a:\n    url: http://b/\n    rate: [1\n", 4),
    ];
    for (name, text, line) in cases {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(name);
        std::fs::write(&path, text).expect("a file");
        let end = run(&["check", "--config", path.to_str().expect("UTF-8")], &[], "");
        assert_eq!(end.code, REJECTED, "{text}: {end:?}");
        // Some parsers notice at the start of what follows.
        let place = [line, line + 1].iter().any(|line| end.stderr.contains(&format!("{name}:{line}")));
        assert!(place, "{text}: no place in {end:?}");
    }
}

/// Row 43.
#[test]
fn ceilings_are_enforced_by_name_before_anything_starts() {
    let many = |count: usize, rate: &str| -> String {
        (0..count).map(|n| target(&format!("t{n}"), "http://shop.example/", rate, "")).collect()
    };
    let over = [
        (format!("[limits]\nmax_targets = 3\n{}", many(4, "1/s")), "limits.max_targets"),
        (format!("[limits]\nmax_total_rate = \"10/s\"\n{}", many(11, "1/s")), "limits.max_total_rate"),
        (many(10_001, "1/h"), "limits.max_targets"),
    ];
    for (config, name) in over {
        let end = check(&config);
        assert_eq!(end.code, REJECTED, "{name}: {}", end.stderr);
        assert!(end.stderr.contains(name), "{name}: {}", end.stderr);
    }
    let just = format!("[limits]\nmax_total_rate = \"10/s\"\nmax_targets = 10\n{}", many(10, "1/s"));
    assert_eq!(check(&just).code, Some(0));
}

/// Row 43.
#[test]
fn a_thousand_targets_work() {
    let origin = Origin::start(|_| Reply::ok(""));
    let config: String = (0..1000).map(|n| target(&format!("t{n}"), &origin.url("/"), "1/5s", "")).collect();
    let daemon = Daemon::start(&config);
    let scrape = daemon.scrape_when("an answer of each", |scrape| {
        scrape.series("hammerd_requests_total").iter().all(|sample| sample.value >= 1.0)
    });
    assert_eq!(scrape.series("hammerd_target_info").len(), 1000);
    assert_eq!(scrape.sum("hammerd_request_failures_total", &[]), 0.0);
    assert_eq!(scrape.sum("hammerd_target_requests_per_second", &[]).round(), 200.0);
}

#[test]
fn headers_that_belong_to_the_user_are_allowed() {
    let origin = Origin::start(|_| Reply::ok(""));
    let rest = "headers = { host = \"virtual.example\", user-agent = \"mine/1\", X-Team = \"pay\" }";
    let daemon = Daemon::start(&target("a", &origin.url("/"), "20/s", rest));
    let request = origin.wait_requests(1).remove(0);
    let hosts = request.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("host")).count();
    assert_eq!((hosts, request.header("host")), (1, Some("virtual.example")));
    assert_eq!((request.header("user-agent"), request.header("x-team")), (Some("mine/1"), Some("pay")));
    daemon.scrape_after("a", 3.0);
}

/// RFC 9110, 8.6: servers may insist on a length where a body is usual.
#[test]
fn a_method_that_usually_has_a_body_says_when_it_has_none() {
    let origin = Origin::start(|_| Reply::ok(""));
    let config: String = ["GET", "DELETE", "POST", "PUT"]
        .map(|method| target(&method.to_lowercase(), &origin.url("/"), "20/s", &format!("method = \"{method}\"")))
        .concat();
    let daemon = Daemon::start(&config);
    for (method, length) in [("GET", None), ("DELETE", None), ("POST", Some("0")), ("PUT", Some("0"))] {
        daemon.scrape_after(&method.to_lowercase(), 3.0);
        let requests = origin.requests();
        let of_method: Vec<_> = requests.iter().filter(|request| request.method == method).collect();
        assert!(of_method.iter().all(|request| request.header("content-length") == length), "{of_method:?}");
    }
}
