//! Configurations that are no files: fetched at the start, followed while the daemon runs, and kept while their source is
//! away or says what is none.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::Signal;

use crate::support::certificates::Authority;
use crate::support::daemon::run;
use crate::support::dead::closed_port;
use crate::support::nginx::{LogEntry, Nginx};
use crate::support::origin::Request;
use crate::support::{Daemon, Origin, PATIENCE, Reply, Scrape, target, wait_until};

/// What stands in a file: nothing that matters.
pub(crate) const BESIDE: &str = "[shutdown]\nlinger = \"0s\"\n";
/// Asked once a second.
pub(crate) const FOLLOW: &str = "[config]\nrefresh = \"1s\"\n";

/// Reloads so far: those that were applied, those that were refused.
pub(crate) fn reloads(scrape: &Scrape) -> (f64, f64) {
    let count = |result| scrape.value("hammerd_config_reloads_total", &[("result", result)]);
    (count("success"), count("failure"))
}

/// Answers so far that brought a change, and those that brought none.
fn fetches(scrape: &Scrape) -> (f64, f64) {
    let count = |result| scrape.value("hammerd_config_source_fetches_total", &[("result", result)]);
    (count("changed"), count("unchanged"))
}

pub(crate) fn failures(scrape: &Scrape, reason: &str) -> f64 {
    scrape.value("hammerd_config_source_failures_total", &[("reason", reason)])
}

pub(crate) fn is_up(scrape: &Scrape) -> bool {
    scrape.value("hammerd_config_source_up", &[]) == 1.0
}

pub(crate) fn asked_rate(scrape: &Scrape) -> f64 {
    scrape.value("hammerd_target_requests_per_second", &[("target", "a")])
}

#[test]
fn a_url_is_asked_for_changes_and_each_is_a_reload() {
    let origin = Origin::start(|_| Reply::ok(""));
    let nginx = Nginx::start();
    // Each of another length, since the tag is made of that.
    let config = |rate: &str, rest: &str| format!("{FOLLOW}{}", target("a", &origin.url("/"), rate, rest));
    nginx.put("a.toml", Some(&config("20/s", "")));
    let url = nginx.url("/files/a.toml");
    let mut daemon = Daemon::builder(BESIDE).arg("--config").arg(&url).start();
    let answers = |status: u16| {
        let asked = |entry: &LogEntry| entry.request.starts_with("GET /files/a.toml ") && entry.status == status;
        nginx.log_entries().into_iter().filter(asked).count()
    };
    wait_until("answers that nothing has changed", PATIENCE, || answers(304) >= 3);
    let scrape = daemon.scrape_when("the same in the metrics", |scrape| fetches(scrape).1 >= 3.0);
    assert_eq!((answers(200), fetches(&scrape).0, reloads(&scrape)), (1, 0.0, (0.0, 0.0)));
    assert!(is_up(&scrape) && scrape.value("hammerd_config_source_last_success_timestamp_seconds", &[]) > 1.6e9);

    nginx.put("a.toml", Some(&config("30/s", "# another\n")));
    let scrape = daemon.scrape_when("the change", |scrape| reloads(scrape) == (1.0, 0.0));
    assert_eq!((asked_rate(&scrape), fetches(&scrape).0), (30.0, 1.0));
    // What is no configuration is refused, by its place, once.
    nginx.put("a.toml", Some(&config("many", "# no rate at all\n")));
    let scrape = daemon.scrape_when("the refusal", |scrape| reloads(scrape) == (1.0, 1.0));
    assert_eq!((asked_rate(&scrape), is_up(&scrape)), (30.0, true));
    daemon.wait_log(&["reload refused", &format!("{url}:5: targets.a.rate")], 1);
    let unchanged = fetches(&scrape).1;
    let scrape = daemon.scrape_when("further answers", |scrape| fetches(scrape).1 >= unchanged + 2.0);
    assert_eq!(reloads(&scrape), (1.0, 1.0));
    nginx.put("a.toml", Some(&config("40/s", "# good again\n")));
    daemon.scrape_when("a good one", |scrape| reloads(scrape) == (2.0, 1.0) && asked_rate(scrape) == 40.0);

    // It goes away: what it said stays, also through a reload that somebody asks for.
    nginx.put("a.toml", None);
    let scrape = daemon.scrape_when("failures", |scrape| failures(scrape, "status") >= 3.0);
    assert_eq!((is_up(&scrape), reloads(&scrape), asked_rate(&scrape)), (false, (2.0, 1.0), 40.0));
    assert!(daemon.reload(), "what it said last is good");
    daemon.wait_log(&["reloaded", "source_not_had", "status"], 1);
    daemon.wait_log(&["can't be had", &url, "404"], 1);
    nginx.put("a.toml", Some(&config("40/s", "# good again\n")));
    let scrape = daemon.scrape_when("its return", is_up);
    assert_eq!((reloads(&scrape), asked_rate(&scrape)), ((3.0, 1.0), 40.0), "it says what it said");
    daemon.wait_log(&["answers again"], 1);

    // A signal asks it, whatever the interval.
    nginx.put("a.toml", Some(&config("50/s", "# and at last\n").replace("\"1s\"", "\"1h\"")));
    daemon.scrape_when("an interval of an hour", |scrape| asked_rate(scrape) == 50.0);
    nginx.put("a.toml", Some(&config("60/s", "# another one, at once\n")));
    assert!(daemon.reload());
    assert_eq!(asked_rate(&daemon.scrape()), 60.0);
    let (status, summary) = daemon.stop();
    assert_eq!(status.code(), Some(0));
    assert_eq!(summary["targets"]["a"]["started"], origin.requests().len(), "each was sent once");
}

/// Two changes in one second have the same `Last-Modified`: a time that is that fresh is not relied on.
#[test]
fn a_second_change_in_one_second_is_not_missed() {
    let traffic = Origin::start(|_| Reply::ok(""));
    let config = |rate: &str| format!("{FOLLOW}{}", target("a", &traffic.url("/"), rate, ""));
    let answer = |rate: &str, date: &str| {
        let reply =
            Reply::ok(&config(rate)).header("Last-Modified", "Mon, 01 Sep 2025 10:00:00 GMT").header("Date", date);
        // As a server does that has only the time to go by.
        move |request: &Request| match request.header("if-modified-since") {
            None => reply.clone(),
            Some(_) => Reply::raw("HTTP/1.1 304 Not Modified\r\n\r\n"),
        }
    };
    let source = Origin::start(answer("20/s", "Mon, 01 Sep 2025 10:00:59 GMT"));
    let mut daemon = Daemon::builder(BESIDE).arg("--config").arg(&source.url("/a")).start();
    source.set_reply(answer("30/s", "Mon, 01 Sep 2025 10:00:59 GMT"));
    daemon.scrape_when("the second change", |scrape| asked_rate(scrape) == 30.0);
    let sent = || -> Vec<_> {
        source.requests().iter().filter_map(|request| request.header("if-modified-since").map(str::to_owned)).collect()
    };
    assert_eq!(sent(), [""; 0]);
    source.set_reply(answer("40/s", "Mon, 01 Sep 2025 10:01:00 GMT"));
    let scrape = daemon.scrape_when("a change that is old enough", |scrape| asked_rate(scrape) == 40.0);
    let unchanged = fetches(&scrape).1;
    daemon.scrape_when("that nothing has changed", |scrape| fetches(scrape).1 >= unchanged + 2.0);
    let times = sent();
    assert!(!times.is_empty() && times.iter().all(|time| time == "Mon, 01 Sep 2025 10:00:00 GMT"), "{times:?}");
    assert_eq!(daemon.stop().0.code(), Some(0));
}

/// A tag alone is sent where there is one: it says more than the time.
#[test]
fn a_tag_comes_before_a_time() {
    let text = target("a", "http://127.0.0.1:9/", "1/h", "");
    let source = Origin::start(move |_| {
        Reply::ok(&format!("{FOLLOW}{text}"))
            .header("Last-Modified", "Mon, 01 Sep 2025 10:00:00 GMT")
            .header("Date", "Tue, 02 Sep 2025 10:00:00 GMT")
            .header("ETag", "\"one\"")
    });
    let mut daemon = Daemon::builder(BESIDE).arg("--config").arg(&source.url("/a")).start();
    source.wait_requests(2);
    let second = &source.requests()[1];
    assert_eq!((second.header("if-none-match"), second.header("if-modified-since")), (Some("\"one\""), None));
    assert_eq!(daemon.stop().0.code(), Some(0));
}

/// While it runs: whatever the source does, the reason is counted and nothing else happens.
#[test]
fn a_source_that_misbehaves_is_counted_by_its_reason_and_changes_nothing() {
    let traffic = Origin::start(|_| Reply::ok(""));
    let good = format!("{FOLLOW}{}", target("a", &traffic.url("/"), "20/s", ""));
    let source = Origin::start({
        let good = good.clone();
        move |_| Reply::ok(&good)
    });
    let mut daemon = Daemon::builder(BESIDE).arg("--config").arg(&source.url("/a")).start();
    let far = "HTTP/1.1 200 OK\r\nContent-Length: 16777217\r\n\r\n";
    let endless = Reply::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        .forever([b"10000\r\n".as_slice(), &vec![b'#'; 0x10000], b"\r\n"].concat(), Duration::ZERO);
    let cases = [
        ("status", Reply::status(503)),
        ("redirect", Reply::status(302).header("Location", "/a")),
        ("too_large", Reply::raw(far).hang()),
        ("too_large", endless),
        ("protocol", Reply::raw("nonsense\r\n\r\n").close()),
        ("protocol", Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[targ").close()),
        // Half of a text, and nothing that tells so.
        ("protocol", Reply::raw("HTTP/1.1 200 OK\r\n\r\n[config]\n").close()),
        ("protocol", Reply::raw("HTTP/1.0 200 OK\r\n\r\n[config]\n").close()),
        ("protocol", Reply::ok("x").header("Content-Encoding", "gzip")),
        ("timeout", Reply::silence()),
    ];
    for (reason, reply) in cases {
        let before = daemon.scrape_when("a good answer", is_up);
        source.set_reply(move |_| reply.clone());
        let scrape = daemon.scrape_when(reason, |scrape| failures(scrape, reason) > failures(&before, reason));
        assert_eq!((reloads(&scrape), asked_rate(&scrape), is_up(&scrape)), ((0.0, 0.0), 20.0, false), "{reason}");
        let good = good.clone();
        source.set_reply(move |_| Reply::ok(&good));
    }
    let scrape = daemon.scrape_when("a good answer", is_up);
    assert_eq!(reloads(&scrape), (0.0, 0.0), "without a validator it is still the same text");
    let peak = daemon.peak_resident_bytes();
    assert!(peak < 128 << 20, "{peak} bytes for texts of at most 16 MiB");
    drop(source);
    let scrape = daemon.scrape_when("refused connections", |scrape| failures(scrape, "connect") >= 1.0);
    assert_eq!(asked_rate(&scrape), 20.0);
    let (status, summary) = daemon.stop();
    assert_eq!((status.code(), &summary["targets"]["a"]["started"]), (Some(0), &traffic.requests().len().into()));
}

/// At the start: 1 for what can't be had, 78 for what was had and is none, 2 for what names nothing.
#[test]
fn a_start_without_its_configuration_says_which_and_why() {
    let at_once = |reply: Reply, code: i32, words: &[&str]| {
        let source = Origin::start(move |_| reply.clone());
        let url = source.url("/a?signature=s3cret");
        let end = run(&["check", "--config", &url], &[], "");
        assert_eq!(end.code, Some(code), "{end:?}");
        let shown = source.url("/a");
        for word in words.iter().chain([&shown.as_str()]) {
            assert!(end.stderr.contains(word), "no {word} in {end:?}");
        }
        assert!(!end.stderr.contains("s3cret"), "{end:?}");
        let asked = source.requests();
        assert_eq!(asked.len(), 1, "it is not tried again: {asked:?}");
        assert_eq!(asked[0].path, "/a?signature=s3cret");
    };
    at_once(Reply::status(404), 1, &["404"]);
    at_once(Reply::status(403), 1, &["403"]);
    at_once(Reply::status(301).header("Location", "/a?signature=s3cret"), 1, &["301", "redirects are not followed"]);
    let elsewhere = Reply::status(302).header("Location", "https://me:s3cret@a.example/b?signature=s3cret");
    at_once(elsewhere, 1, &["https://a.example/b"]);
    at_once(Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n").hang(), 1, &["larger than 16777216"]);
    at_once(Reply::raw("HTTP/1.1 200 OK\r\n\r\n# half").close(), 1, &["Content-Length"]);
    at_once(Reply::ok("x").header("Content-Encoding", "br"), 1, &["encoded", "br"]);
    at_once(Reply::ok("<html>\n"), 78, &["/a:1"]);
    at_once(Reply::ok("[targets.a]\nurl = \"http://x/\"\nrate = \"0\"\n"), 78, &["/a:3: targets.a.rate"]);
    at_once(Reply::ok("").body(&[0xff]), 78, &["UTF-8"]);
    at_once(Reply::ok(""), 78, &["empty"]);
    for (name, word) in [
        ("ftp://a.example/x", "https://"),
        ("https://me:s3cret@a.example/", "HAMMERD_CONFIG_TOKEN"),
        ("https:/me:s3cret@a.example/x?sig=s3cret", "https:/a.example/x: a configuration is"),
    ] {
        let end = run(&["check"], &[("HAMMERD_CONFIG", name)], "");
        assert_eq!(end.code, Some(2), "{end:?}");
        assert!(end.stderr.contains(word) && !end.stderr.contains("s3cret"), "{end:?}");
    }
}

#[test]
fn a_start_waits_a_while_for_a_source_that_may_come() {
    let calls = AtomicUsize::new(0);
    let text = target("a", "http://shop.example/", "20/s", "");
    let source = Origin::start(move |_| match calls.fetch_add(1, Ordering::Relaxed) {
        0 => Reply::status(503),
        1 => Reply::raw("").close(),
        _ => Reply::ok(&text),
    });
    let silent = Origin::start(|_| Reply::silence());
    let closed = format!("http://{}/", closed_port());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let end = run(&["check"], &[("HAMMERD_CONFIG", &source.url("/x"))], "");
            assert_eq!(end.code, Some(0), "{end:?}");
            assert!(end.stdout.contains("20/s"), "{end:?}");
            assert_eq!(source.requests().len(), 3);
        });
        for (url, word) in [(silent.url("/never"), "no whole answer"), (closed, "connect_refused")] {
            scope.spawn(move || {
                let end = run(&["run", "--config", &url], &[], "");
                assert_eq!(end.code, Some(1), "{end:?}");
                assert!([&url, word, "tried for 15 seconds"].iter().all(|word| end.stderr.contains(*word)), "{end:?}");
            });
        }
        // Process 1 of a container has to stop when it is told to, also then.
        scope.spawn(|| {
            let end = Daemon::builder(BESIDE)
                .wrapped(&["timeout", "--preserve-status", "--signal=TERM", "2"])
                .arg("--config")
                .arg(&silent.url("/stopped"))
                .run();
            assert_eq!(end.code, Some(0), "{end:?}");
        });
    });
}

#[test]
fn the_answer_tells_its_language_and_a_token_says_who_asks() {
    let directory = tempfile::tempdir().expect("a directory");
    let token_file = directory.path().join("token");
    std::fs::write(&token_file, "from-a-file\n").expect("a file");
    let token_file = token_file.to_str().expect("UTF-8");
    let json = r#"{"targets": {"a": {"url": "http://shop.example/", "rate": "7/s"}}}"#;
    let yaml = "targets:\n  a:\n    url: http://shop.example/\n    rate: 7/s\n";
    let toml = target("a", "http://shop.example/", "7/s", "");
    for (path, kind, text) in [
        ("/x", "application/json", json),
        ("/x.json", "text/plain", json),
        ("/x", "application/yaml; charset=utf-8", yaml),
        ("/x.yml?version=3", "application/octet-stream", yaml),
        // What the answer says comes first.
        ("/x.json", "application/toml", toml.as_str()),
        ("/x", "text/plain", toml.as_str()),
    ] {
        let text = text.to_owned();
        let source = Origin::start(move |_| Reply::ok(&text).header("Content-Type", kind));
        for (envs, sent) in [
            (&[][..], None),
            (&[("HAMMERD_CONFIG_TOKEN", "s3cret")], Some("Bearer s3cret")),
            (&[("HAMMERD_CONFIG_TOKEN_FILE", token_file)], Some("Bearer from-a-file")),
        ] {
            let end = run(&["check", "--config", &source.url(path)], envs, "");
            assert_eq!(end.code, Some(0), "{path} {kind}: {end:?}");
            assert!(end.stdout.contains("7/s"), "{path} {kind}: {end:?}");
            let requests = source.requests();
            assert_eq!(requests.last().expect("a request").header("authorization"), sent);
        }
    }
    let source = Origin::start(|_| Reply::ok(""));
    let url = source.url("/x");
    for (variable, value, word) in [
        ("HAMMERD_CONFIG_TOKEN_FILE", "/nonexistent/token", "/nonexistent/token"),
        ("HAMMERD_CONFIG_TOKEN", "s3\u{7f}cret", "header"),
    ] {
        let end = run(&["check", "--config", &url], &[(variable, value)], "");
        assert_eq!(end.code, Some(1), "{end:?}");
        assert!(end.stderr.contains(variable) && end.stderr.contains(word), "{end:?}");
        assert!(!end.stderr.contains("cret"), "{end:?}");
    }
    assert_eq!(source.requests().len(), 0, "nobody is asked without the token");
}

#[test]
fn over_tls_the_source_has_to_be_who_it_should_be() {
    let authority = Authority::new("config");
    let nginx = Nginx::builder().certificate(authority.server(&["127.0.0.1"])).start();
    nginx.put("a.toml", Some(&target("a", "http://shop.example/", "20/s", "")));
    let directory = tempfile::tempdir().expect("a directory");
    let roots = directory.path().join("roots.pem");
    std::fs::write(&roots, authority.pem()).expect("a file");
    let roots = [("SSL_CERT_FILE", roots.to_str().expect("UTF-8"))];
    let url = nginx.https2_url("/files/a.toml");
    let trusted = run(&["check", "--config", &url], &roots, "");
    assert_eq!(trusted.code, Some(0), "{trusted:?}");
    let log = nginx.log_of(1);
    assert_eq!((log[0].status, log[0].protocol.as_str()), (200, "HTTP/1.1"));
    let stranger = run(&["check", "--config", &url], &[], "");
    assert_eq!(stranger.code, Some(1), "{stranger:?}");
    assert!([url.as_str(), "tls_certificate"].iter().all(|word| stranger.stderr.contains(word)), "{stranger:?}");
    let plain = run(&["check", "--config", &url.replace("https:", "http:")], &roots, "");
    assert_eq!(plain.code, Some(1), "{plain:?}");
}

/// Whoever asks for a reload is told that it is one of what the source said before.
#[test]
fn a_reload_says_that_the_source_could_not_be_had() {
    let traffic = Origin::start(|_| Reply::ok(""));
    let text = target("a", &traffic.url("/"), "20/s", "");
    let source = Origin::start(move |_| Reply::ok(&text));
    let config =
        |rate: &str| format!("{BESIDE}[server]\nlifecycle = true\n{}", target("b", &traffic.url("/"), rate, ""));
    let mut daemon = Daemon::builder(&config("1/s")).arg("--config").arg(&source.url("/a")).start();
    let reload = |daemon: &Daemon| {
        let answer = daemon.request("POST", "/-/reload", &[]);
        (answer.status, answer.text().to_owned())
    };
    let counts = "reloaded: 0 added, 0 removed, 0 changed, 2 unchanged";
    assert_eq!(reload(&daemon), (200, format!("{counts}\n")));
    for (reply, reason) in [
        (Reply::status(404), "status"),
        (Reply::status(302).header("Location", "/b"), "redirect"),
        (Reply::silence(), "timeout"),
    ] {
        source.set_reply(move |_| reply.clone());
        let stale = format!("{counts}; the source could not be had ({reason}), its last text was used\n");
        assert_eq!(reload(&daemon), (200, stale));
    }
    // What the file says is applied none the less.
    source.set_reply(|_| Reply::status(404));
    daemon.write_config(&config("2/s"));
    let (_, answer) = reload(&daemon);
    assert!(answer.contains("1 changed, 1 unchanged; the source could not be had (status)"), "{answer}");
    assert_eq!(daemon.stop().0.code(), Some(0));
}

/// A drain does not wait for a source that does not answer.
#[test]
fn a_signal_to_stop_comes_before_a_source_that_is_silent() {
    let traffic = Origin::start(|_| Reply::ok(""));
    let good = format!("{FOLLOW}{}", target("a", &traffic.url("/"), "20/s", ""));
    let source = Origin::start(move |_| Reply::ok(&good));
    let mut daemon = Daemon::builder(BESIDE).arg("--config").arg(&source.url("/a")).start();
    source.set_reply(|_| Reply::silence());
    let asked = source.requests().len();
    source.wait_requests(asked + 1);
    daemon.signal(Signal::HUP);
    assert_eq!(daemon.stop().0.code(), Some(0));
    assert_eq!(daemon.log_with(&["reload refused"]).len(), 0);
}
