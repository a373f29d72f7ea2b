//! The equations that hold at every scrape.

use std::collections::{BTreeMap, HashSet};

use serde_json::Value;

use super::Scrape;

/// Checks the ledger of every target in the scrape.
///
/// A difference shows all numbers of the target, because the one that is wrong is seldom the one that is missing.
#[track_caller]
pub(crate) fn assert_ledger(scrape: &Scrape) {
    let targets = scrape.label_values("hammerd_requests_scheduled_total", "target");
    assert!(!targets.is_empty(), "a scrape without targets:\n{}", scrape.summary());
    for target in targets {
        if let Err(difference) = ledger_of(scrape, target) {
            panic!("the ledger of {target} does not add up: {difference}\n{}", scrape.summary());
        }
    }
}

/// The equations for one target, the first that fails as text with its numbers.
#[track_caller]
pub(crate) fn ledger_of(scrape: &Scrape, target: &str) -> Result<(), String> {
    let labels = [("target", target)];
    let value = |name: &str| scrape.value(&format!("hammerd_{name}"), &labels);
    let sum = |name: &str| scrape.sum(&format!("hammerd_{name}"), &labels);

    let (started, finished) = (value("requests_started_total"), value("requests_total"));
    let incomplete = sum("request_failures_total")
        - scrape.sum("hammerd_request_failures_total", &[("target", target), ("reason", "status")]);
    let equations = [
        ("scheduled = started + dropped", value("requests_scheduled_total"), started + sum("requests_dropped_total")),
        (
            "started = finished + canceled + in flight",
            started,
            finished + value("requests_canceled_total") + value("in_flight_requests"),
        ),
        ("finished = latencies", finished, sum("request_latency_seconds_count")),
        ("finished = durations", finished, sum("request_duration_seconds_count")),
        ("finished = responses + failures without one", finished, sum("responses_total") + incomplete),
        (
            "failed latencies = failures",
            scrape.sum("hammerd_request_latency_seconds_count", &[("target", target), ("outcome", "failed")]),
            sum("request_failures_total"),
        ),
    ];
    match equations.iter().find(|(_, left, right)| left.total_cmp(right).is_ne()) {
        Some((equation, left, right)) => Err(format!("{equation}: {left} is not {right}")),
        None => Ok(()),
    }
}

/// Checks a server's log against the last summary of a target whose requests carry ids and all went well: each started
/// request is in the log once, and nothing else is. `log` has the id and the status of each line.
#[track_caller]
pub(crate) fn assert_each_once<'a>(log: impl IntoIterator<Item = (&'a str, u16)>, summary: &Value) {
    let (mut ids, mut statuses, mut lines) = (HashSet::new(), BTreeMap::<String, u64>::new(), 0);
    let mut numbers: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for (id, status) in log {
        assert!(id.len() == 32 && ids.insert(id), "no id, or one that was there before: {id:?}");
        let (prefix, number) = id.split_at(16);
        numbers.entry(prefix).or_default().push(u64::from_str_radix(number, 16).expect("hexadecimal digits"));
        *statuses.entry(status.to_string()).or_default() += 1;
        lines += 1;
    }
    for (prefix, numbers) in &mut numbers {
        numbers.sort_unstable();
        assert!(numbers.iter().copied().eq(0..numbers.len() as u64), "{prefix}: numbers are missing: {numbers:?}");
    }
    let counted = ["started", "finished", "canceled", "responses"].map(|key| &summary[key]);
    let seen = [lines.into(), lines.into(), 0.into(), serde_json::to_value(statuses).expect("counts by status")];
    assert_eq!(counted, seen.each_ref(), "{lines} in the log: {summary:#}");
}
