//! The status page in a real browser, and the same as JSON: what they show is what `/metrics` says.

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::{Value, json};

use crate::support::browser::Browser;
use crate::support::dead::closed_port;
use crate::support::{Daemon, Origin, PATIENCE, Reply, free_port, let_pass, target, wait_for};

const DESK: (u32, u32) = (1440, 900);

fn open(daemon: &Daemon) -> Browser {
    Browser::open(&format!("http://{}/", daemon.address()), DESK)
}

fn status(daemon: &Daemon, query: &str) -> Value {
    let response = daemon.get(&format!("/api/v1/status{query}"));
    assert_eq!(response.status, 200, "{response:?}");
    serde_json::from_str(response.text()).expect("JSON")
}

/// Asks for the status until a part of it is as it should be.
fn status_when(daemon: &Daemon, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    wait_for(what, PATIENCE, || {
        let status = status(daemon, "");
        if holds(&status) { Ok(status) } else { Err(format!("{status:#}")) }
    })
}

/// An expression: the row of a target.
fn row(name: &str) -> String {
    format!("document.querySelector('tr[data-name=\"{name}\"]')")
}

/// An expression: the text of a cell of a target.
fn cell(name: &str, cell: &str) -> String {
    format!("{}?.querySelector('[data-cell=\"{cell}\"]').textContent", row(name))
}

/// An expression: what stands behind a term in a list.
fn term(list: &str, term: &str) -> String {
    format!(
        "[...{list}.querySelectorAll('dt')].find((dt) => dt.textContent === '{term}')?.nextElementSibling.textContent"
    )
}

/// An expression: the names of all rows in their order.
const NAMES: &str = "[...document.querySelectorAll('tr[data-name]')].map((row) => row.dataset.name).join(' ')";

/// Counts that stand still can be compared to the last digit.
#[test]
fn the_page_and_the_api_say_what_metrics_say() {
    let count = AtomicU64::new(0);
    let origin = Origin::start(move |_| {
        let number = count.fetch_add(1, Ordering::Relaxed);
        if number.is_multiple_of(5) { Reply::status(503) } else { Reply::ok("0123456789") }
    });
    let with_rate =
        |rate: &str| target("checkout", &origin.url("/"), rate, "labels = { team = \"pay\" }\nmax_in_flight = 7");
    let daemon = Daemon::start(&with_rate("50/s"));
    daemon.scrape_after("checkout", 60.0);
    assert!(daemon.reload_with(&with_rate("1/h")));
    let still = |status: &Value| {
        let target = &status["targets"][0];
        let noted: u64 =
            target["history"]["finished"].as_array().expect("counts").iter().filter_map(Value::as_u64).sum();
        target["asked_rate"].as_f64() < Some(0.001)
            && target["in_flight"] == json!(0)
            && target["finished"] == json!(noted)
    };
    let status = status_when(&daemon, "all that happened in the history", still);
    let scrape = daemon.scrape();
    let of = [("target", "checkout")];
    let value = |name: &str, labels: &[(&str, &str)]| scrape.value(name, &[&of, labels].concat());
    let told = &status["targets"][0];
    let number =
        |pointer: &str| told.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("no {pointer}"));
    for (pointer, metric, labels) in [
        ("/scheduled", "hammerd_requests_scheduled_total", &[][..]),
        ("/started", "hammerd_requests_started_total", &[]),
        ("/finished", "hammerd_requests_total", &[]),
        ("/canceled", "hammerd_requests_canceled_total", &[]),
        ("/in_flight_limit", "hammerd_in_flight_requests_limit", &[]),
        ("/responses/200", "hammerd_responses_total", &[("code", "200")]),
        ("/responses/503", "hammerd_responses_total", &[("code", "503")]),
        ("/failures/status", "hammerd_request_failures_total", &[("reason", "status")]),
        ("/dropped/late", "hammerd_requests_dropped_total", &[("reason", "late")]),
        ("/sent_bytes", "hammerd_sent_bytes_total", &[]),
        ("/received_bytes", "hammerd_received_bytes_total", &[]),
        ("/asked_rate", "hammerd_target_requests_per_second", &[]),
        ("/connections/opened", "hammerd_connections_opened_total", &[]),
    ] {
        assert_eq!(number(pointer), value(metric, labels), "{pointer}");
    }
    let outcomes = ["ok", "failed"].map(|outcome| {
        scrape.histogram("hammerd_request_latency_seconds", &[("target", "checkout"), ("outcome", outcome)])
    });
    assert_eq!(number("/latency/count"), outcomes.iter().map(|histogram| histogram.count).sum::<f64>());
    assert!((number("/latency/sum") - outcomes.iter().map(|histogram| histogram.sum).sum::<f64>()).abs() < 1e-9);
    let (failed, finished) = (number("/failures/status"), number("/finished"));
    // The reader of JSON may take the last digit for its neighbour.
    assert!((number("/recent/error_ratio") - failed / finished).abs() < 1e-12, "{told}");
    // All that ever happened is recent here; the strip's buckets are as fine as the ledger's, or finer than its bound.
    for quantile in ["p50", "p90", "p99"] {
        let ratio = number(&format!("/recent/latency/{quantile}")) / number(&format!("/latency/{quantile}"));
        assert!((0.9..1.1).contains(&ratio), "{quantile}: {ratio}");
    }
    assert_eq!((&told["state"], &told["last_failure"]["reason"]), (&json!("failing"), &json!("status")));
    assert_eq!(status["config"]["generation"], json!(2));

    let mut browser = open(&daemon);
    browser.wait("the target", &format!("{} === 'checkout'", cell("checkout", "name")));
    browser.evaluate(&format!("{}.querySelector('button').click()", row("checkout")));
    let list = format!("{}.nextElementSibling", row("checkout"));
    let shown = |browser: &mut Browser, name: &str| {
        // Without separators of thousands, and with plain spaces.
        browser.text(&term(&list, name)).replace("\u{a0}", " ").replace(',', "")
    };
    assert_eq!(shown(&mut browser, "Scheduled"), value("hammerd_requests_scheduled_total", &[]).to_string());
    assert_eq!(shown(&mut browser, "Started"), value("hammerd_requests_started_total", &[]).to_string());
    assert_eq!(shown(&mut browser, "Finished"), finished.to_string());
    assert_eq!(shown(&mut browser, "In flight"), "0 of at most 7");
    assert_eq!(shown(&mut browser, "Failures"), format!("{failed} × status"));
    assert_eq!(shown(&mut browser, "Responses"), format!("{} × 200 {failed} × 503", finished - failed));
    assert_eq!(browser.text(&cell("checkout", "state")), "failing");
    assert_eq!(browser.text(&cell("checkout", "asked_rate")), "1.00/h");
    assert_eq!(browser.text(&cell("checkout", "reason")), "status 503");
    assert_eq!(browser.text(&cell("checkout", "where")), format!("{}  team=pay", origin.address()));
    let percent = format!("{:.1} %", 100.0 * failed / finished);
    assert_eq!(browser.text(&cell("checkout", "error_ratio")), percent);
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn the_answer_is_as_its_schema_says() {
    let origin = Origin::start(|_| Reply::ok(""));
    let good = target("good", &origin.url("/"), "20/s", "labels = { team = \"pay\" }");
    let bad = target("bad", &format!("http://{}/", closed_port()), "20/s", "");
    let config = [good, bad, target("idle", &origin.url("/"), "1/h", "")].concat();
    let daemon = Daemon::start(&config);
    let early = status(&daemon, "");
    let late = status_when(&daemon, "a state of each kind", |status| status["fleet"]["states"]["failing"] == json!(1));
    assert!(!daemon.reload_with("nonsense"));
    let refused = status(&daemon, "?state=failing&sort=p99.9&order=descending");
    assert_eq!(refused["targets"][0]["name"], json!("bad"));
    assert_eq!(refused["config"]["last_reload"]["successful"], json!(false));
    let error = refused["config"]["last_reload"]["error"].as_str().expect("a text");
    assert!(error.contains("hammerd.toml:1"), "{error}");
    let mut wrong = late.clone();
    wrong["targets"][0]["surprise"] = json!(1);

    let schema = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/status-api.schema.json");
    for (name, answer, valid) in
        [("early", early, true), ("late", late, true), ("refused", refused, true), ("wrong", wrong, false)]
    {
        let path = daemon.path(name);
        fs::write(&path, answer.to_string()).expect("a file");
        let judged = Command::new("jsonschema").arg("-i").arg(&path).arg(schema).output().expect("jsonschema");
        assert_eq!(judged.status.success(), valid, "{name}: {}", String::from_utf8_lossy(&judged.stderr));
    }
}

#[test]
fn targets_are_searched_sorted_filtered_and_paged_by_keyboard() {
    let origin = Origin::start(|_| Reply::ok(""));
    let many: String = (0..120)
        .map(|number| target(&format!("t{number:03}"), &origin.url("/"), &format!("{}/h", number % 7 + 1), ""))
        .chain([target("broken", &format!("http://{}/", closed_port()), "20/s", "labels = { team = \"pay\" }")])
        .collect();
    let daemon = Daemon::start(&many);
    status_when(&daemon, "a failing target", |status| status["fleet"]["states"]["failing"] == json!(1));
    let mut browser = open(&daemon);
    browser.wait("a page of targets", &format!("{NAMES}.split(' ').length === 50"));
    assert!(browser.text(NAMES).starts_with("broken t000 t001"), "the failing one comes first");

    browser.tab_to("document.activeElement.id === 'search'");
    browser.type_text("T01");
    browser.wait("the matches", &format!("{NAMES} === 't010 t011 t012 t013 t014 t015 t016 t017 t018 t019'"));
    assert_eq!(browser.text("document.getElementById('matching').textContent"), "10 of 121 match");
    browser.evaluate("document.activeElement.select()");
    browser.type_text("team=pay");
    browser.wait("the match by label", &format!("{NAMES} === 'broken'"));
    browser.evaluate("document.activeElement.select()");
    browser.type_text("nothing");
    browser.wait("no match", "!document.getElementById('empty').hidden");
    assert_eq!(browser.text(NAMES), "");

    browser.navigate(&format!("http://{}/", daemon.address()));
    browser.wait("a page of targets", &format!("{NAMES}.split(' ').length === 50"));
    browser.tab_to("document.activeElement.name === 'state'");
    browser.press("ArrowRight");
    browser.wait("the failing ones", &format!("{NAMES} === 'broken'"));
    assert_eq!(browser.text("location.search"), "?state=failing&sort=state&order=ascending");
    browser.press("ArrowLeft");
    browser.wait("all of them again", &format!("{NAMES}.split(' ').length === 50"));

    browser.tab_to("document.activeElement.parentElement.dataset.key === 'asked_rate'");
    let sorted = "document.querySelector('[aria-sort]')";
    for order in ["descending", "ascending"] {
        browser.press("Enter");
        browser.wait("the order", &format!("{sorted}.getAttribute('aria-sort') === '{order}'"));
        assert_eq!(browser.text(&format!("{sorted}.dataset.key")), "asked_rate");
        let answer = status(&daemon, &format!("?sort=asked_rate&order={order}&limit=50"));
        let rates = answer["targets"].as_array().expect("targets").iter().filter_map(|t| t["asked_rate"].as_f64());
        let rising = if order == "ascending" { 1.0 } else { -1.0 };
        assert!(rates.map(|rate| rate * rising).is_sorted(), "{order}");
        let names: Vec<_> =
            answer["targets"].as_array().expect("targets").iter().filter_map(|t| t["name"].as_str()).collect();
        browser.wait("the rows in that order", &format!("{NAMES} === '{}'", names.join(" ")));
    }

    browser.tab_to("document.activeElement.id === 'next'");
    browser.press("Enter");
    browser.wait("the second page", "document.getElementById('page').textContent === '51 to 100 of 121'");
    browser.press("Enter");
    browser.wait("the last page", &format!("{NAMES}.split(' ').length === 21"));
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn a_failing_target_is_shown_with_its_reason_and_so_is_a_refused_reload() {
    let origin = Origin::start(|_| Reply::ok(""));
    let hostile = "labels = { note = \"<img src=x onerror=alert(1)>\" }";
    let good = target("good", &origin.url("/"), "20/s", hostile);
    let dead = closed_port();
    let config = [good, target("dead", &format!("http://{dead}/"), "20/s", "")].concat();
    let daemon = Daemon::start(&config);
    let mut browser = open(&daemon);
    browser.wait("the failure", &format!("{} === 'failing'", cell("dead", "state")));
    browser.wait("the other one", &format!("{} === 'good'", cell("good", "state")));
    assert_eq!(browser.text(&cell("dead", "reason")), "connect_refused");
    assert_eq!(browser.text(&cell("dead", "error_ratio")), "100 %");
    assert_eq!(browser.text("document.title"), "1 failing · hammerd");
    assert!(browser.text(NAMES).starts_with("dead"));
    assert_eq!(
        browser.text(&cell("good", "where")),
        format!("{}  note=<img src=x onerror=alert(1)>", origin.address())
    );
    assert_eq!(browser.evaluate("document.querySelectorAll('img').length"), json!(0));
    assert!(browser.evaluate("document.getElementById('reload').hidden").as_bool().expect("a truth"));

    assert!(!daemon.reload_with(&config.replace("20/s", "20/fortnight")));
    browser.wait("the refusal", "!document.getElementById('reload').hidden");
    assert!(
        browser
            .text("document.getElementById('reload-title').textContent")
            .contains("was refused; configuration 1 goes on")
    );
    let error = browser.text("document.getElementById('reload-error').textContent");
    assert!(error.contains("hammerd.toml:") && error.lines().count() == 2, "{error}");

    // Another one is there now, and all of the last minutes still tell of the old one: only what is new is good.
    let _healed = Origin::start_at(dead, |_| Reply::ok(""));
    assert!(daemon.reload_with(&config));
    browser.wait("the new configuration", "document.getElementById('reload').hidden");
    browser.wait("requests that succeed", &format!("parseFloat({}) < 100", cell("dead", "error_ratio")));
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn a_page_that_nobody_sees_is_silent_and_one_that_is_seen_says_when_hammerd_is_gone() {
    let origin = Origin::start(|_| Reply::ok(""));
    let (port, config) = (free_port(), target("a", &origin.url("/"), "20/s", ""));
    let daemon = Daemon::builder(&config).port(port).start();
    let mut browser = open(&daemon);
    browser.wait("the target", &format!("{NAMES} === 'a'"));
    let hide = |browser: &mut Browser, hidden: bool| {
        let set = format!("Object.defineProperty(document, 'hidden', {{ value: {hidden}, configurable: true }})");
        browser.evaluate(&format!("{set}; document.dispatchEvent(new Event('visibilitychange')); 0"));
    };
    hide(&mut browser, true);
    drop(daemon);
    // Longer than the page waits between two questions.
    let_pass(std::time::Duration::from_secs(6));
    let quiet = "document.getElementById('unreachable').hidden";
    assert_eq!(browser.evaluate(quiet), json!(true), "a page that nobody sees asks");
    hide(&mut browser, false);
    browser.wait("that it is gone", &format!("!{quiet}"));
    let said = browser.text("document.getElementById('unreachable').textContent");
    assert!(said.starts_with("hammerd can't be reached: ") && said.contains("What is shown is of "), "{said}");
    assert_eq!(browser.text(NAMES), "a", "what was seen last stays");

    let daemon = Daemon::builder(&config).port(port).start();
    browser.wait("that it is back", quiet);
    daemon.scrape_after("a", 20.0);
    browser.wait("its traffic", &format!("{} === 'good'", cell("a", "state")));
}

/// Failing targets come first, so that rows change their places while somebody is on one of them.
#[test]
fn who_is_on_a_target_stays_on_it_when_the_order_changes() {
    let fails = Arc::new(AtomicBool::new(false));
    let failing = Arc::clone(&fails);
    let origin = Origin::start(move |request| {
        let fails = request.path == "/beta" && failing.load(Ordering::Relaxed);
        if fails { Reply::status(503) } else { Reply::ok("") }
    });
    let config = ["alpha", "beta"].map(|name| target(name, &origin.url(&format!("/{name}")), "20/s", ""));
    let daemon = Daemon::start(&config.concat());
    let mut browser = open(&daemon);
    browser.wait("both good", &format!("{NAMES} === 'alpha beta' && {} === 'good'", cell("beta", "state")));
    let focused = "document.activeElement.closest('tr')?.dataset.name";
    browser.tab_to(&format!("{focused} === 'alpha'"));
    fails.store(true, Ordering::Relaxed);
    browser.wait("the failing one first", &format!("{NAMES} === 'beta alpha'"));
    assert_eq!(browser.text(focused), "alpha");
    browser.press("Enter");
    let open = |name: &str| format!("{}.querySelector('button').getAttribute('aria-expanded')", row(name));
    assert_eq!((browser.text(&open("alpha")), browser.text(&open("beta"))), ("true".to_owned(), "false".to_owned()));
    assert_eq!(browser.complaints(), [""; 0]);
}

/// What a person hears who does not see the page.
#[test]
fn a_screen_reader_is_told_what_everything_is() {
    let origin = Origin::start(|_| Reply::ok(""));
    let daemon = Daemon::start(&target("checkout", &origin.url("/"), "20/s", ""));
    let mut browser = open(&daemon);
    browser.wait("traffic", &format!("{} === 'good'", cell("checkout", "state")));
    for phone in [false, true] {
        browser.resize(if phone { (390, 844) } else { DESK }, phone);
        let nodes = browser.accessible();
        let text = |node: &Value, key: &str| node[key]["value"].as_str().unwrap_or_default().to_owned();
        let named = |role: &str| -> Vec<String> {
            nodes.iter().filter(|node| text(node, "role") == role).map(|node| text(node, "name")).collect()
        };
        for role in ["button", "searchbox", "radio", "link", "image", "columnheader", "combobox"] {
            let nameless = named(role).iter().filter(|name| name.trim().is_empty()).count();
            assert_eq!(nameless, 0, "a {role} without a name");
        }
        for (role, name) in [
            ("table", "Targets"),
            ("searchbox", "Search by name, host or label"),
            ("columnheader", "State"),
            ("columnheader", "p99.9"),
            ("cell", "good"),
        ] {
            assert!(named(role).iter().any(|found| found == name), "no {role} called {name} (phone: {phone})");
        }
        assert!(named("rowheader").iter().any(|name| name.starts_with("checkout")), "phone: {phone}");
        let strips = named("image");
        assert!(strips.iter().any(|name| name.starts_with("Latency: ")), "{strips:?}");
        assert!(
            strips.iter().any(|name| name.starts_with("Rate: finished ") && name.contains(" per second")),
            "{strips:?}"
        );
    }
}
