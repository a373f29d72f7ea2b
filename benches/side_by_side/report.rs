//! The results for people and for machines.

use std::fmt::Write as _;
use std::fs;
use std::time::SystemTime;

use serde_json::{Map, Value, json};

use crate::claims::Finding;
use crate::peers::PEERS;
use crate::sample::{Metric, Sample, Samples};
use crate::stats::Spread;

/// Points of a deviation's distribution that are kept for the record.
const QUANTILES: [f64; 7] = [0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999];

/// All tables.
pub(crate) fn tables(samples: &Samples, findings: &[Finding]) -> String {
    let mut text = String::new();
    for scenario in samples.scenarios() {
        text += &scenario_table(samples, scenario);
    }
    let rows = findings.iter().map(|finding| {
        let Spread { median, low, high } = finding.spread;
        let range = format!("{} .. {}", short(low), short(high));
        vec![finding.text.clone(), short(median), range, finding.goal_text(), finding.verdict().to_owned()]
    });
    let head = ["comparison (ratios are taken round by round)", "median", "range", "goal", ""].map(str::to_owned);
    text += "\ncomparisons\n";
    text += &table(&std::iter::once(head.to_vec()).chain(rows).collect::<Vec<_>>());
    text
}

fn scenario_table(samples: &Samples, scenario: &str) -> String {
    let clients = samples.clients(scenario);
    let mut metrics: Vec<Metric> = Vec::new();
    for sample in samples.0.iter().filter(|sample| sample.scenario == scenario) {
        metrics.extend(sample.figures.keys());
    }
    metrics.sort_unstable();
    metrics.dedup();
    let head = std::iter::once("").chain(metrics.iter().map(|metric| metric.name())).map(str::to_owned).collect();
    let mut rows: Vec<Vec<String>> = vec![head];
    for who in clients {
        let cell = |&metric: &Metric| match samples.spread(scenario, who, metric) {
            Some(Spread { median, low, high }) if low < high => {
                format!("{} ({}..{})", short(median), short(low), short(high))
            }
            Some(Spread { median, .. }) => short(median),
            None => "-".to_owned(),
        };
        rows.push(std::iter::once(who.to_owned()).chain(metrics.iter().map(cell)).collect());
    }
    format!("\n{scenario}\n{}", table(&rows))
}

/// Columns as wide as they need; the first is text, the others are numbers.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            // Writing to a String can't fail.
            let _ = if column == 0 { write!(text, "  {cell:<width$}") } else { write!(text, "  {cell:>width$}") };
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

/// Three digits or so.
pub(crate) fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || size == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// Everything as JSON, for the record and for other plots than ours: one run or finding on a line, so that two records
/// can be compared line by line.
pub(crate) fn record(samples: &Samples, findings: &[Finding], arguments: &[String]) -> String {
    let all = json(samples, findings, arguments);
    let entries = all.as_object().into_iter().flatten().map(|(key, value)| match value {
        Value::Array(items) if key != "arguments" => {
            let items: Vec<String> = items.iter().map(|item| format!("    {item}")).collect();
            format!("  \"{key}\": [\n{}\n  ]", items.join(",\n"))
        }
        value => format!("  \"{key}\": {value}"),
    });
    format!("{{\n{}\n}}\n", entries.collect::<Vec<_>>().join(",\n"))
}

fn json(samples: &Samples, findings: &[Finding], arguments: &[String]) -> Value {
    json!({
        "date": humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        "arguments": arguments,
        "version": env!("CARGO_PKG_VERSION"),
        "machine": machine(),
        "peers": PEERS.map(|peer| json!({ "name": peer.name, "installed": peer.path().is_some() })),
        "findings": findings.iter().map(Finding::json).collect::<Vec<_>>(),
        "runs": samples.0.iter().map(run).collect::<Vec<_>>(),
    })
}

fn run(sample: &Sample) -> Value {
    let figures: Map<String, Value> =
        sample.figures.iter().map(|(metric, value)| (metric.name().to_owned(), json!(value))).collect();
    let evenness = sample.evenness.as_ref().map(|evenness| {
        let deviations: Map<String, Value> =
            QUANTILES.iter().map(|&q| (q.to_string(), json!(evenness.deviation_us(q)))).collect();
        json!({ "deviation_us": deviations, "milliseconds_by_arrivals": evenness.per_ms })
    });
    json!({
        "scenario": sample.scenario,
        "client": sample.who,
        "round": sample.round,
        "figures": figures,
        "evenness": evenness,
    })
}

/// The processor and the kernel, by name.
pub(crate) fn machine() -> Value {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':')).map(|(_, name)| name);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    json!({
        "processor": model.unwrap_or("unknown").trim(),
        "cores": cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
        "kernel": kernel.trim(),
    })
}
