use serde_json::{Value, json};

use super::*;
use crate::outcome::{DropReason, Outcome, Reason, Trace};
use crate::roster::TargetInfo;
use crate::stats::{LedgerWriter, WorkerStats};

/// How long ago targets came: without any time there is no rate.
const AGE_NS: u64 = 5_000_000_000;

/// A fleet whose targets do what a test tells them to.
struct Fleet {
    status: Status,
    writers: Vec<LedgerWriter>,
}

impl Fleet {
    /// Targets of these names and asked rates.
    fn new(targets: &[(&str, f64)]) -> Self {
        let shape = Shape::new(3, &[1.0]);
        let worker = Arc::new(WorkerStats::new(shape.clone()));
        worker.record_lag(70_000);
        worker.set_in_flight(2);
        let roster = Arc::new(Roster::new(shape.clone(), vec![worker]));
        let join = |&(name, rate_per_second): &(&str, f64)| {
            let labels = [("dc".to_owned(), format!("DC-{}", &name[..1]))].into();
            let since_ns = clock::now_ns() - AGE_NS;
            let info = TargetInfo { labels, rate_per_second, since_ns, ..TargetInfo::plain() };
            roster.describe(&name.into(), info);
            let (writer, ledger) = LedgerWriter::new(shape.clone());
            roster.enlist(name, ledger);
            writer
        };
        let writers = targets.iter().map(join).collect();
        Self { status: Status::new(roster), writers }
    }

    /// Requests of target number `at` that finish, so many of them badly, and arrivals that are dropped.
    fn strike(&self, at: usize, good: u64, bad: u64, dropped: u64) {
        let writer = &self.writers[at];
        for n in 0..good + bad {
            writer.start();
            let outcome = if n < good { Outcome::good(200) } else { Outcome::bad_status(503) };
            writer.finish(outcome, 3_000_000 << at, 2_000_000 << at, &Trace::new());
        }
        if bad > 0 {
            writer.note_failure(Reason::Status, Some(503), clock::now_ns());
        }
        writer.drop_arrivals(DropReason::InFlight, dropped);
    }

    fn note(&self) {
        let mut round = Round::default();
        while !self.status.note_some(&mut round, || ()) {}
    }

    fn survey(&self, query: &str) -> Survey {
        let mut survey = Survey::new(Query::parse(query).expect("a query"));
        while !survey.go_on(&self.status, || ()) {}
        survey
    }

    fn names(&self, query: &str) -> Vec<String> {
        self.survey(query).names().map(ToString::to_string).collect()
    }

    fn head(&self, query: &str) -> Value {
        Value::Object(self.status.head(&self.survey(query), &[], true))
    }
}

#[test]
fn targets_are_found_filtered_sorted_and_cut_into_pages() {
    let fleet = Fleet::new(&[("apple", 5.0), ("bean", 1.0), ("corn", 9.0), ("date", 7.0)]);
    fleet.strike(0, 100, 0, 0);
    fleet.strike(1, 10, 10, 0);
    fleet.strike(2, 80, 0, 10);
    fleet.note();
    for (query, names) in [
        ("", "apple bean corn date"),
        ("order=descending", "date corn bean apple"),
        ("sort=state", "bean corn date apple"),
        ("sort=state&order=descending", "apple date corn bean"),
        ("sort=asked_rate", "bean apple date corn"),
        ("sort=finished_rate&order=descending", "apple corn bean date"),
        ("sort=scheduled_rate&order=descending&limit=2", "apple corn"),
        ("sort=error_ratio&order=descending", "bean apple corn date"),
        ("sort=error_ratio", "apple corn bean date"),
        ("sort=p99", "apple bean corn date"),
        ("sort=max&order=descending", "corn bean apple date"),
        ("sort=last_failure", "bean apple corn date"),
        ("state=failing", "bean"),
        ("state=dropping", "corn"),
        ("state=waiting", "date"),
        ("state=good", "apple"),
        ("state=draining", ""),
        ("search=E", "apple bean date"),
        ("search=dc%3Ddc-c", "corn"),
        ("search=a%3A80&offset=1&limit=2", "bean corn"),
        ("search=nothing", ""),
        ("offset=4", ""),
    ] {
        assert_eq!(fleet.names(query).join(" "), names, "{query}");
    }
}

#[test]
fn rounds_and_surveys_miss_no_target() {
    let names: Vec<String> = (0..=3 * BIT).map(|number| format!("t{number:03}")).collect();
    let targets: Vec<_> = names.iter().map(|name| (name.as_str(), 1.0)).collect();
    let fleet = Fleet::new(&targets);
    fleet.writers.iter().for_each(|writer| writer.drop_arrivals(DropReason::Late, 1));
    let (mut round, mut bits, pauses) = (Round::default(), 1, std::cell::Cell::new(0));
    while !fleet.status.note_some(&mut round, || pauses.set(pauses.get() + 1)) {
        bits += 1;
    }
    assert_eq!((bits, pauses.get()), (5, targets.len()));
    let head = fleet.head("limit=1");
    assert_eq!(head["fleet"]["targets"], json!(targets.len()));
    assert_eq!(head["fleet"]["states"]["dropping"], json!(targets.len()));
    assert_eq!(head["hammerd"]["history"]["dropped"], json!([targets.len()]));
    assert_eq!(head["query"]["matching"], json!(targets.len()));
}

#[test]
fn a_target_is_told_in_counts_rates_and_intervals() {
    let fleet = Fleet::new(&[("apple", 5.0)]);
    fleet.strike(0, 30, 10, 2);
    fleet.writers[0].start();
    fleet.note();
    fleet.strike(0, 5, 0, 0);
    fleet.note();
    let target = fleet.status.target("apple").expect("a target");
    for (pointer, value) in [
        ("/name", json!("apple")),
        ("/state", json!("failing")),
        ("/labels/dc", json!("DC-a")),
        ("/scheduled", json!(48)),
        ("/started", json!(46)),
        ("/finished", json!(45)),
        ("/in_flight", json!(1)),
        ("/dropped/in_flight", json!(2)),
        ("/responses", json!({ "200": 35, "503": 10 })),
        ("/failures/status", json!(10)),
        ("/latency/count", json!(45)),
        ("/last_failure/reason", json!("status")),
        ("/last_failure/status", json!(503)),
        ("/recent/error_ratio", json!(10.0 / 45.0)),
        ("/recent/dropped_ratio", json!(2.0 / 48.0)),
        ("/recent/latency/count", json!(45)),
        ("/recent/latency/max", json!(0.003)),
        ("/history/scheduled", json!([43, 5])),
        ("/history/dropped", json!([2, 0])),
        ("/history/finished", json!([40, 5])),
        ("/history/failed", json!([10, 0])),
        // 3 ms lie between 2^-9 and 2^-8 seconds.
        ("/history/latency", json!([[4, 40], [4, 5]])),
    ] {
        assert_eq!(target.pointer(pointer), Some(&value), "{pointer} in {target:#}");
    }
    assert_eq!(target["recent"]["latency"]["p50"], target["latency"]["p50"], "all that there was is recent");
    let late = target["last_failure"]["at"].as_f64().map(|at| unix_s() - at);
    assert!(late.is_some_and(|late| (0.0..60.0).contains(&late)), "{late:?}");
    assert_eq!(fleet.status.target("pear"), None);
}

#[test]
fn the_process_is_told_with_its_lag_its_reloads_and_its_drain() {
    let fleet = Fleet::new(&[("apple", 5.0), ("bean", 1.0)]);
    let head = fleet.head("");
    assert_eq!((&head["hammerd"]["state"], &head["config"]["last_reload"]), (&json!("starting"), &Value::Null));
    assert_eq!(head["hammerd"]["recent"]["lag"]["p50"], Value::Null);
    fleet.status.runs();
    fleet.strike(0, 3, 0, 0);
    fleet.strike(1, 0, 1, 0);
    fleet.note();
    fleet.status.reload_failed("a.toml:1: bad rate\na.toml:2: bad url\n");
    let head = fleet.head("");
    for (pointer, value) in [
        ("/hammerd/state", json!("running")),
        ("/hammerd/workers", json!(1)),
        ("/hammerd/lag/count", json!(1)),
        ("/hammerd/lag/max", json!(0.000_07)),
        ("/hammerd/recent/lag/max", json!(0.000_07)),
        ("/hammerd/recent/error_ratio", json!(0.25)),
        ("/hammerd/history/finished", json!([4])),
        ("/hammerd/history/lag", json!([[0, 1]])),
        ("/hammerd/resident_memory_bytes", Value::Null),
        ("/config/generation", json!(1)),
        ("/config/last_reload/successful", json!(false)),
        ("/config/last_reload/error", json!("a.toml:1: bad rate\na.toml:2: bad url")),
        ("/fleet/asked_rate", json!(6.0)),
        ("/fleet/in_flight", json!(2)),
    ] {
        assert_eq!(head.pointer(pointer), Some(&value), "{pointer} in {head:#}");
    }
    fleet.status.reload_succeeded();
    fleet.status.drains();
    let head = fleet.head("");
    assert_eq!(head["config"]["generation"], json!(2));
    assert_eq!(head["config"]["last_reload"]["error"], Value::Null);
    assert_eq!((&head["hammerd"]["state"], &head["fleet"]["states"]["draining"]), (&json!("draining"), &json!(2)));
    assert_eq!(fleet.status.target("apple").expect("a target")["state"], json!("draining"));
}

#[test]
fn a_target_that_came_back_has_no_past() {
    let fleet = Fleet::new(&[("apple", 5.0)]);
    fleet.strike(0, 0, 1, 0);
    fleet.note();
    fleet.status.roster.retire("apple");
    assert_eq!(fleet.names(""), [""; 0]);
    let info = TargetInfo { since_ns: clock::now_ns(), ..TargetInfo::plain() };
    fleet.status.roster.describe(&"apple".into(), info);
    fleet.note();
    let target = fleet.status.target("apple").expect("a target");
    assert_eq!((&target["state"], &target["last_failure"]), (&json!("waiting"), &Value::Null));
    assert_eq!(target["history"]["finished"], json!([0]));
}

#[test]
fn a_long_refusal_is_cut_between_its_lines() {
    let line = "x".repeat(999);
    let kept = shortened(&[line.as_str(); 10].join("\n"));
    assert_eq!(kept, format!("{}and more; the log has all of it", format!("{line}\n").repeat(4)));
    assert_eq!(shortened("short\nand sweet"), "short\nand sweet");
    assert_eq!(shortened(&"x".repeat(5_000)), "and more; the log has all of it");
}
