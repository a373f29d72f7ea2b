//! The summary: what came of each target, for people and for machines.
//!
//! Made from the same copy of the ledgers as a scrape, so the one after a drain equals the last scrape.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::outcome::{DropReason, Reason, Verdict};
use crate::roster::{RosterView, TargetView};
use crate::stats::{HistogramSnapshot, Shape, Snapshot};

/// How a summary looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Output {
    /// Aligned text.
    #[default]
    Text,
    /// One JSON object on one line.
    Json,
}

/// The quantiles of a summary and their names.
const QUANTILES: [(&str, f64); 6] =
    [("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

/// The summary of `view`. `now_ns` is when arrivals ended, or now while they go on.
pub fn summary(view: &RosterView, now_ns: u64, output: Output) -> String {
    match output {
        Output::Text => text(view, now_ns),
        Output::Json => {
            let one = |target: &TargetView| (target.name.to_string(), json!(target_json(target, now_ns)));
            let targets = view.targets.iter().map(one);
            let retired = json!({
                "scheduled": view.retired.scheduled,
                "dropped": view.retired.dropped,
                "started": view.retired.started,
                "finished": view.retired.finished,
                "canceled": view.retired.canceled,
            });
            let mut line = json!({ "targets": targets.collect::<Map<_, _>>(), "retired": retired }).to_string();
            line.push('\n');
            line
        }
    }
}

/// All outcomes together: a failed request took its time as well.
fn merged(histograms: &[HistogramSnapshot; Verdict::COUNT]) -> HistogramSnapshot {
    let mut all = HistogramSnapshot::default();
    for histogram in histograms {
        all.merge(histogram);
    }
    all
}

fn achieved_per_second(target: &TargetView, now_ns: u64) -> f64 {
    let seconds = now_ns.saturating_sub(target.info.since_ns) as f64 / 1e9;
    if seconds > 0.0 { target.counts.started as f64 / seconds } else { 0.0 }
}

fn code(status: u16) -> String {
    if status == Snapshot::OTHER_STATUS { "other".to_owned() } else { status.to_string() }
}

/// The counts of a target as JSON.
pub(crate) fn target_json(target: &TargetView, now_ns: u64) -> Map<String, Value> {
    let counts = &target.counts;
    let labelled = |labels: &[&str], counts: &[u64]| {
        labels.iter().zip(counts).map(|(label, count)| ((*label).to_owned(), json!(count))).collect::<Map<_, _>>()
    };
    let responses: Map<_, _> = counts.responses.iter().map(|&(status, count)| (code(status), json!(count))).collect();
    let entries = [
        ("scheduled", json!(counts.scheduled)),
        ("started", json!(counts.started)),
        ("finished", json!(counts.finished)),
        ("canceled", json!(counts.canceled)),
        ("in_flight", json!(counts.in_flight)),
        ("dropped", json!(labelled(&DropReason::LABELS, &counts.dropped))),
        ("responses", json!(responses)),
        ("failures", json!(labelled(&Reason::LABELS, &counts.failures))),
        ("asked_rate", json!(target.info.rate_per_second)),
        ("achieved_rate", json!(achieved_per_second(target, now_ns))),
        ("latency", json!(seconds_json(&merged(&counts.latency), &target.info.shape))),
        ("duration", json!(seconds_json(&merged(&counts.duration), &target.info.shape))),
        ("sent_bytes", json!(counts.wire.sent_bytes)),
        ("received_bytes", json!(counts.wire.received_bytes)),
    ];
    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// Count, sum and quantiles of a histogram as JSON.
pub(crate) fn seconds_json(histogram: &HistogramSnapshot, shape: &Shape) -> Map<String, Value> {
    let head = [("count", json!(histogram.count)), ("sum", json!(histogram.sum_seconds))];
    let quantiles = QUANTILES.iter().map(|&(name, q)| (name, json!(histogram.quantile(shape, q))));
    head.into_iter().chain(quantiles).map(|(key, value)| (key.to_owned(), value)).collect()
}

fn text(view: &RosterView, now_ns: u64) -> String {
    let mut text = String::new();
    for target in &view.targets {
        let counts = &target.counts;
        let achieved = achieved_per_second(target, now_ns);
        let lines = [
            ("scheduled", format!("{} ({} asked)", counts.scheduled, per_second(target.info.rate_per_second))),
            ("started", format!("{} ({} achieved)", counts.started, per_second(achieved))),
            ("finished", format!("{}, {} canceled, {} in flight", counts.finished, counts.canceled, counts.in_flight)),
            ("dropped", listed(DropReason::ALL.map(DropReason::label).into_iter().zip(counts.dropped))),
            ("responses", listed(counts.responses.iter().map(|&(status, count)| (code(status), count)))),
            ("failures", listed(Reason::ALL.map(Reason::label).into_iter().zip(counts.failures))),
            ("latency", quantiles(&merged(&counts.latency), &target.info.shape)),
            ("duration", quantiles(&merged(&counts.duration), &target.info.shape)),
            (
                "bytes",
                format!("{} sent, {} received", bytes(counts.wire.sent_bytes), bytes(counts.wire.received_bytes)),
            ),
        ];
        // Writing to a String can't fail.
        let _ = writeln!(text, "{} ({} {})", target.name, target.info.protocol, target.info.authority);
        for (name, value) in lines {
            let _ = writeln!(text, "  {name:<10} {value}");
        }
        // Of many targets it would hide the rest.
        if view.targets.len() == 1 {
            text += &chart(&merged(&counts.latency), &target.info.shape);
        }
    }
    text
}

/// What there is of something, by name.
fn listed<N: std::fmt::Display>(counts: impl IntoIterator<Item = (N, u64)>) -> String {
    let seen = counts.into_iter().filter(|(_, count)| *count > 0).map(|(name, count)| format!("{count} {name}"));
    let seen: Vec<_> = seen.collect();
    if seen.is_empty() { "none".to_owned() } else { seen.join(", ") }
}

fn quantiles(histogram: &HistogramSnapshot, shape: &Shape) -> String {
    let values =
        QUANTILES.iter().filter_map(|(name, q)| Some(format!("{name} {}", duration(histogram.quantile(shape, *q)?))));
    let values: Vec<_> = values.collect();
    if values.is_empty() { "none".to_owned() } else { values.join(" ") }
}

/// Rows of a chart at most, and how long the longest bar is: with labels and counts, 80 columns are enough.
const CHART_ROWS: usize = 16;
const CHART_WIDTH: u64 = 40;

/// The histogram as bars, one under the other: how many requests took up to so long, and longer than the row before.
fn chart(histogram: &HistogramSnapshot, shape: &Shape) -> String {
    let (Some((first, _)), Some((last, _))) = (histogram.native.first(), histogram.native.last()) else {
        return String::new();
    };
    // Neighbouring buckets together, as many as it takes: rows of equal ratio.
    let per_row = ((last - first + 1) as usize).div_ceil(CHART_ROWS) as i32;
    let mut rows = vec![0; ((last - first) / per_row + 1) as usize];
    for &(index, count) in &histogram.native {
        rows[((index - first) / per_row) as usize] += count;
    }
    rows[0] += histogram.zero;
    let most = rows.iter().copied().max().unwrap_or(1);
    let mut text = String::from("\n  latency up to\n");
    for (row, count) in (0..).zip(rows) {
        let bound = shape.upper_bound(first + (row + 1) * per_row - 1);
        // What is there shows, however little it is.
        let bar = "#".repeat((count * CHART_WIDTH).div_ceil(most) as usize);
        let percent = count as f64 / histogram.count as f64 * 100.0;
        // Writing to a String can't fail.
        let _ = writeln!(
            text,
            "  {:>10}  {bar:<width$}  {count} ({percent:.1} %)",
            duration(bound),
            width = CHART_WIDTH as usize
        );
    }
    text
}

/// A rate with as many digits as tell something.
pub fn per_second(rate: f64) -> String {
    match rate {
        rate if rate >= 100.0 => format!("{rate:.0}/s"),
        rate if rate >= 1.0 => format!("{rate:.2}/s"),
        rate => format!("{rate:.4}/s"),
    }
}

/// Seconds in a unit with three digits.
pub fn duration(seconds: f64) -> String {
    let (value, unit) = match seconds {
        seconds if seconds >= 0.9995 => (seconds, "s"),
        seconds if seconds >= 0.000_999_5 => (seconds * 1e3, "ms"),
        seconds => return format!("{:.0}us", seconds * 1e6),
    };
    match value {
        value if value >= 99.95 => format!("{value:.0}{unit}"),
        value if value >= 9.995 => format!("{value:.1}{unit}"),
        value => format!("{value:.2}{unit}"),
    }
}

fn bytes(count: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|&(unit, _)| count >= unit) {
        Some((unit, name)) => format!("{:.1} {name}", count as f64 / unit as f64),
        None => format!("{count} B"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::outcome::{Outcome, Trace};
    use crate::roster::{RetiredTotals, TargetInfo};
    use crate::stats::LedgerWriter;

    fn view(shape: &Shape) -> RosterView {
        let (writer, ledger) = LedgerWriter::new(shape.clone());
        for n in 1..=100 {
            writer.start();
            let outcome = if n % 10 == 0 { Outcome::bad_status(503) } else { Outcome::good(200) };
            writer.finish(outcome, n * 1_000_000, n * 900_000, &Trace::new());
        }
        writer.start();
        writer.finish(Outcome::failed(Reason::TimeoutResponse), 2_000_000_000, 2_000_000_000, &Trace::new());
        writer.drop_arrivals(DropReason::InFlight, 4);
        writer.start();
        writer.cancel();
        ledger.wire.sent_bytes.add(2048);
        let info = TargetInfo {
            insecure: None,
            protocol: "http",
            authority: "shop.example:80".to_owned(),
            labels: BTreeMap::new(),
            rate_per_second: 10.0,
            max_in_flight: 5,
            shape: shape.clone(),
            since_ns: 1_000_000_000,
        };
        let target = TargetView { name: "checkout".into(), info: info.into(), counts: ledger.snapshot() };
        RosterView { targets: vec![target], retired: RetiredTotals::default() }
    }

    #[test]
    fn the_json_summary_has_every_count() {
        let shape = Shape::new(3, &[1.0]);
        let line = summary(&view(&shape), 11_200_000_000, Output::Json);
        let json: Value = serde_json::from_str(&line).expect("one JSON object");
        let target = &json["targets"]["checkout"];
        for (pointer, value) in [
            ("/scheduled", json!(106)),
            ("/started", json!(102)),
            ("/finished", json!(101)),
            ("/canceled", json!(1)),
            ("/in_flight", json!(0)),
            ("/dropped/in_flight", json!(4)),
            ("/dropped/late", json!(0)),
            ("/responses/200", json!(90)),
            ("/responses/503", json!(10)),
            ("/failures/status", json!(10)),
            ("/failures/timeout_response", json!(1)),
            ("/latency/count", json!(101)),
            ("/latency/max", json!(2.0)),
            ("/achieved_rate", json!(10.0)),
            ("/sent_bytes", json!(2048)),
        ] {
            assert_eq!(target.pointer(pointer), Some(&value), "{pointer}");
        }
        let p50 = target["latency"]["p50"].as_f64().expect("a number");
        assert!((0.046..0.056).contains(&p50), "{p50}");
    }

    #[test]
    fn the_text_summary_reads_well() {
        let shape = Shape::new(3, &[1.0]);
        let text = summary(&view(&shape), 11_200_000_000, Output::Text);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "checkout (http shop.example:80)");
        assert_eq!(lines[1], "  scheduled  106 (10.00/s asked)");
        assert_eq!(lines[2], "  started    102 (10.00/s achieved)");
        assert_eq!(lines[3], "  finished   101, 1 canceled, 0 in flight");
        assert_eq!(lines[4], "  dropped    4 in_flight");
        assert_eq!(lines[5], "  responses  90 200, 10 503");
        assert_eq!(lines[6], "  failures   1 timeout_response, 10 status");
        assert!(lines[7].starts_with("  latency    p50 ") && lines[7].ends_with("max 2.00s"), "{}", lines[7]);
        assert_eq!(lines[9], "  bytes      2.0 KiB sent, 0 B received");
        assert!(lines.iter().all(|line| line.len() <= 80), "{text}");
    }

    #[test]
    fn durations_have_three_digits() {
        for (seconds, text) in [
            (0.0, "0us"),
            (0.000_123_4, "123us"),
            (0.000_999_6, "1.00ms"),
            (0.009_996, "10.0ms"),
            (0.123_4, "123ms"),
            (0.999_6, "1.00s"),
            (12.34, "12.3s"),
            (3600.0, "3600s"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn the_chart_has_every_request_in_one_row() {
        let shape = Shape::new(3, &[1.0]);
        let mut view = view(&shape);
        let text = summary(&view, 11_200_000_000, Output::Text);
        let rows: Vec<&str> = text.lines().skip_while(|line| *line != "  latency up to").skip(1).collect();
        assert!((8..=CHART_ROWS).contains(&rows.len()), "{text}");
        let count = |row: &str| row.split_whitespace().rev().nth(2).and_then(|count| count.parse::<u64>().ok());
        assert_eq!(rows.iter().map(|row| count(row).expect("a count")).sum::<u64>(), 101);
        let bar = |row: &str| row.matches('#').count() as u64;
        let longest = rows.iter().max_by_key(|row| count(row)).expect("rows");
        assert_eq!(bar(longest), CHART_WIDTH);
        assert!(rows.iter().all(|row| (bar(row) > 0) == (count(row) != Some(0))), "{text}");
        let (bounds, last): (Vec<_>, _) = (rows.iter().map(|row| row.split_whitespace().next()).collect(), rows.last());
        assert!(bounds.windows(2).all(|pair| pair[0] != pair[1]), "{bounds:?}");
        assert!(last.is_some_and(|row| row.trim_start().starts_with("2.") && count(row) == Some(1)), "{text}");

        view.targets.push(view.targets[0].clone());
        assert!(!summary(&view, 11_200_000_000, Output::Text).contains('#'));
    }

    #[test]
    fn a_chart_of_nothing_or_of_one_value_is_short() {
        let shape = Shape::new(3, &[1.0]);
        assert_eq!(chart(&HistogramSnapshot::default(), &shape), "");
        let histogram = crate::stats::Histogram::default();
        histogram.record(&shape, 1_000_000);
        assert_eq!(chart(&histogram.snapshot(&shape), &shape).lines().count(), 3);
    }
}
