//! The answer as JSON; `docs/status-api.md` and `docs/status-api.schema.json` describe it.

use std::sync::atomic::Ordering;

use prometheus::proto::{MetricFamily, MetricType};
use serde_json::{Map, Value, json};

use super::{INTERVAL, Own, Status, Survey, lock, unix_s};
use crate::clock;
use crate::report;
use crate::roster::{Entry, TargetView};
use crate::stats::{HistogramSnapshot, History, Interval, Shape, Tally};

/// The upper bounds of all bands of a latency strip but the last: 2^-12 s to 2^2 s.
const BAND_EXPONENTS: std::ops::RangeInclusive<i32> = -12..=2;

/// The Unix time of an instant on the clock of [`crate::clock`].
struct Calendar {
    now_s: f64,
    now_ns: u64,
}

impl Calendar {
    fn new() -> Self {
        Self { now_s: unix_s(), now_ns: clock::now_ns() }
    }

    fn unix_s(&self, at_ns: u64) -> f64 {
        self.now_s - self.now_ns.saturating_sub(at_ns) as f64 / 1e9
    }
}

impl Status {
    /// All of the answer but its targets. `families` are those of the registry, for what is known of the process.
    pub fn head(&self, survey: &Survey, families: &[MetricFamily], healthy: bool) -> Map<String, Value> {
        let calendar = Calendar::new();
        let bands: Vec<f64> = BAND_EXPONENTS.map(|exponent| f64::from(exponent).exp2()).collect();
        let entries = [
            ("now", json!(calendar.now_s)),
            ("hammerd", self.own_json(&calendar, families, healthy)),
            ("config", self.config_json()),
            ("fleet", survey.fleet(self)),
            (
                "history",
                json!({
                    "interval_seconds": INTERVAL.as_secs(),
                    "intervals": History::INTERVALS,
                    "latency_bounds_seconds": bands,
                }),
            ),
            ("query", survey.query.json(survey.matching())),
        ];
        entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }

    fn own_json(&self, calendar: &Calendar, families: &[MetricFamily], healthy: bool) -> Value {
        let own = lock(&self.own);
        let state = match (self.draining.load(Ordering::Relaxed), self.running.load(Ordering::Relaxed)) {
            (true, _) => "draining",
            (false, true) => "running",
            (false, false) => "starting",
        };
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "revision": env!("HAMMERD_REVISION"),
            "state": state,
            "healthy": healthy,
            "started": value(families, "process_start_time_seconds"),
            "uptime_seconds": calendar.now_ns.saturating_sub(self.began_ns) as f64 / 1e9,
            "workers": self.roster.workers().len(),
            "threads": value(families, "process_threads"),
            "cpu_seconds": value(families, "process_cpu_seconds_total"),
            "resident_memory_bytes": value(families, "process_resident_memory_bytes"),
            "open_fds": value(families, "process_open_fds"),
            "max_fds": value(families, "process_max_fds"),
            "log_lines_lost": value(families, "hammerd_log_lines_lost_total"),
            "lag": report::seconds_json(&self.lag(), self.roster.shape()),
            "recent": self.own_recent(&own),
            "history": strip(&own.history, "lag", &self.shape, calendar),
        })
    }

    fn own_recent(&self, own: &Own) -> Value {
        let values = own.history.values(History::RECENT, &self.shape);
        let mut recent = rates(&own.history.tally(History::RECENT));
        recent.insert("cpu_ratio".to_owned(), json!(own.cpu_ratio()));
        recent.insert("lag".to_owned(), json!(quantiles(&values, &self.shape)));
        Value::Object(recent)
    }

    fn config_json(&self) -> Value {
        let reloads = lock(&self.reloads);
        let last = reloads
            .last
            .as_ref()
            .map(|reload| json!({ "at": reload.at_s, "successful": reload.error.is_none(), "error": reload.error }));
        json!({ "generation": reloads.generation, "loaded": reloads.loaded_s, "last_reload": last })
    }

    /// One target of the answer. `None` when it is gone.
    pub fn target(&self, name: &str) -> Option<Value> {
        self.roster.look(name, |target| Value::Object(self.target_json(name, target)))
    }

    fn target_json(&self, name: &str, target: &Entry) -> Map<String, Value> {
        let (calendar, info, history) = (Calendar::new(), target.info(), target.history());
        let view = TargetView { name: name.into(), info: info.clone(), counts: target.counts() };
        let failure = target.last_failure().get().map(|failure| {
            json!({ "reason": failure.reason.label(), "status": failure.status, "at": calendar.unix_s(failure.at_ns) })
        });
        let intervals = History::recent_of(info.rate_per_second);
        let mut recent = rates(&history.tally(intervals));
        let shape = self.shape_of(target);
        recent.insert("latency".to_owned(), json!(quantiles(&history.values(intervals, &shape), &shape)));
        let entries = [
            ("name", json!(name)),
            ("state", json!(self.state(target).label())),
            ("protocol", json!(info.protocol)),
            ("authority", json!(info.authority)),
            ("labels", json!(info.labels)),
            ("since", json!(calendar.unix_s(info.since_ns))),
            ("in_flight_limit", json!(info.max_in_flight)),
            ("connections", json!({ "open": view.counts.wire.open, "opened": view.counts.wire.opened })),
            ("last_failure", json!(failure)),
            ("recent", Value::Object(recent)),
            ("history", strip(history, "latency", &shape, &calendar)),
        ];
        let mut json = report::target_json(&view, calendar.now_ns);
        json.extend(entries.into_iter().map(|(key, value)| (key.to_owned(), value)));
        json
    }
}

/// What happened lately, a second.
fn rates(tally: &Tally) -> Map<String, Value> {
    let entries = [
        ("seconds", json!(tally.span_ms as f64 / 1e3)),
        ("scheduled_rate", json!(tally.per_second(tally.scheduled))),
        ("started_rate", json!(tally.per_second(tally.started()))),
        ("finished_rate", json!(tally.per_second(tally.finished))),
        ("error_ratio", json!(tally.error_ratio())),
        ("dropped_ratio", json!(tally.dropped_ratio())),
    ];
    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// As [`report::seconds_json`], without the sum: a history keeps none.
fn quantiles(values: &HistogramSnapshot, shape: &Shape) -> Map<String, Value> {
    let mut quantiles = report::seconds_json(values, shape);
    quantiles.remove("sum");
    quantiles
}

/// All intervals that are kept, in columns.
fn strip(history: &History, values: &str, shape: &Shape, calendar: &Calendar) -> Value {
    let intervals: Vec<Interval<'_>> = history.intervals(History::INTERVALS).collect();
    let column =
        |number: fn(&Tally) -> u64| intervals.iter().map(|interval| number(&interval.tally)).collect::<Vec<_>>();
    let seconds: Vec<f64> = intervals.iter().map(|interval| interval.tally.span_ms as f64 / 1e3).collect();
    let bands: Vec<Vec<u64>> = intervals.iter().map(|interval| bands(interval, shape)).collect();
    json!({
        "ended": calendar.unix_s(history.noted_ns()),
        "seconds": seconds,
        "scheduled": column(|tally| tally.scheduled),
        "dropped": column(|tally| tally.dropped),
        "finished": column(|tally| tally.finished),
        "failed": column(|tally| tally.failed),
        values: bands,
    })
}

/// Band and count, band and count: how many values of an interval fell in which band.
fn bands(interval: &Interval<'_>, shape: &Shape) -> Vec<u64> {
    let (mut bands, last) = (Vec::new(), BAND_EXPONENTS.count() as u64);
    for (slot, count) in interval.values() {
        let above = History::slot_exponent(slot, shape) - BAND_EXPONENTS.start();
        let band = (above.max(0) as u64).min(last);
        match bands.last_chunk_mut() {
            Some([latest, sum]) if *latest == band => *sum += count,
            _ => bands.extend([band, count]),
        }
    }
    bands
}

/// A number of the registry that has no labels; none when it can't be had.
fn value(families: &[MetricFamily], name: &str) -> Option<f64> {
    let family = families.iter().find(|family| family.name() == name)?;
    let metric = family.get_metric().first()?;
    match family.get_field_type() {
        MetricType::COUNTER => Some(metric.get_counter().get_value()),
        MetricType::GAUGE => Some(metric.get_gauge().get_value()),
        _ => None,
    }
}
