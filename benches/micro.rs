//! The pieces of the hot path and of a scrape, one by one.
//!
//!     cargo bench --bench micro            all
//!     cargo bench --bench micro -- record  those whose name contains "record"
//!
//! The goals (docs/performance.md): one outcome recorded in 40 ns, a scrape at 100 ns per sample line.

use std::sync::Arc;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use hammerd::export::{self, Exports, Format, Vitals};
use hammerd::outcome::{Outcome, Stage, Trace};
use hammerd::pace::{self, Phase, Process, Rate, Schedule, Stripe};
use hammerd::roster::{Roster, TargetInfo};
use hammerd::stats::{Histogram, HistogramSnapshot, LedgerWriter, Shape};
use prometheus::TextEncoder;

/// The pacer is nobody's business but the load path's, so the library keeps it to itself; here it is compiled once more.
#[allow(dead_code, unreachable_pub, unused_imports, reason = "the benches need only a part of it")]
#[path = "../src/load/pacer.rs"]
mod pacer;

const MS: u64 = 1_000_000;

fn main() {
    divan::main();
}

/// As configured by default.
fn shape() -> Shape {
    Shape::new(3, &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0])
}

/// Durations from 50 us to 4 ms, in no order that a branch predictor could learn.
struct Durations(u64);

impl Durations {
    fn next_ns(&mut self) -> u64 {
        // Xorshift (Marsaglia 2003): cheap, and the same in every run.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        50_000 + (self.0 & 0x003f_ffff)
    }
}

fn even(per_second: u64, index: u32) -> Schedule {
    Schedule::new(Rate::per_second(per_second), Process::Even, Phase::nth(index), 0, 0)
}

#[divan::bench]
fn schedule_due(bencher: Bencher<'_, '_>) {
    let schedule = even(7777, 0);
    let mut n = 0;
    bencher.bench_local(|| {
        n += 1;
        black_box(&schedule).due(n)
    });
}

#[divan::bench]
fn schedule_owed(bencher: Bencher<'_, '_>) {
    let schedule = even(7777, 0);
    let mut at_ns = 0;
    bencher.bench_local(|| {
        at_ns += 128_584;
        black_box(&schedule).owed(at_ns)
    });
}

/// Finds the next arrival of all targets, and puts its target's next one into the heap.
#[divan::bench(args = [1, 100, 10_000])]
fn heap_turn(bencher: Bencher<'_, '_>, targets: u32) {
    let mut pacer = pacer::Pacer::default();
    for index in 0..targets {
        let schedule = Arc::new(even(10_000 / u64::from(targets), index));
        pacer.add(pacer::Course::new(schedule, Stripe::WHOLE, 0));
    }
    bencher.bench_local(|| {
        let now_ns = pacer.next_due_ns();
        pacer.next(now_ns, 0)
    });
}

fn good_trace(at_ns: u64) -> Trace {
    let trace = Trace::new();
    trace.enter(Stage::Wait, at_ns);
    trace.enter(Stage::Receive, at_ns + MS);
    trace.complete(at_ns + MS + 10_000);
    trace
}

/// All that a good request adds to its ledger: started, finished, latency, duration, two phases.
#[divan::bench]
fn record_outcome(bencher: Bencher<'_, '_>) {
    let (writer, _ledger) = LedgerWriter::new(shape());
    let mut durations = Durations(88_172_645_463_325_252);
    let trace = good_trace(0);
    bencher.bench_local(|| {
        let took_ns = durations.next_ns();
        writer.start();
        writer.finish(Outcome::good(200), took_ns + 20_000, took_ns, black_box(&trace));
    });
}

#[divan::bench]
fn record_one_value(bencher: Bencher<'_, '_>) {
    let (histogram, shape) = (Histogram::default(), shape());
    let mut durations = Durations(88_172_645_463_325_252);
    bencher.bench_local(|| histogram.record(&shape, durations.next_ns()));
}

fn filled(shape: &Shape) -> HistogramSnapshot {
    let histogram = Histogram::default();
    let mut durations = Durations(88_172_645_463_325_252);
    for _ in 0..10_000 {
        histogram.record(shape, durations.next_ns());
    }
    histogram.snapshot(shape)
}

#[divan::bench]
fn histogram_merge(bencher: Bencher<'_, '_>) {
    let one = filled(&shape());
    let mut sum = one.clone();
    bencher.bench_local(|| sum.merge(black_box(&one)));
}

#[divan::bench]
fn histogram_p99(bencher: Bencher<'_, '_>) {
    let shape = shape();
    let one = filled(&shape);
    bencher.bench_local(|| black_box(&one).quantile(&shape, 0.99));
}

/// A roster of targets each of which has had some good requests. The writers keep the ledgers alive.
fn roster(targets: u32) -> (Arc<Roster>, Vec<LedgerWriter>) {
    let roster = Roster::new(shape(), Vec::new());
    let mut durations = Durations(88_172_645_463_325_252);
    let writers = (0..targets).map(|index| {
        let name: Arc<str> = format!("target-{index:05}").into();
        let info = TargetInfo {
            insecure: None,
            protocol: "http",
            authority: "shop.example:8080".to_owned(),
            labels: [("team".to_owned(), "checkout".to_owned())].into(),
            rate_per_second: 1.0,
            max_in_flight: 100,
            shape: shape(),
            since_ns: 0,
        };
        roster.describe(&name, info);
        let (writer, ledger) = LedgerWriter::new(shape());
        roster.enlist(&name, ledger);
        for _ in 0..20 {
            let took_ns = durations.next_ns();
            writer.start();
            writer.finish(Outcome::good(200), took_ns + 20_000, took_ns, &good_trace(0));
        }
        writer
    });
    let writers = writers.collect();
    (Arc::new(roster), writers)
}

fn exports(roster: &Arc<Roster>) -> Exports {
    Exports::new(Arc::clone(roster), Arc::new(Vitals::new(Arc::new(|| 0), Arc::default())))
        .expect("the catalogue is sound")
}

fn text(exports: &Exports) -> String {
    let text = exports.whole(Format::Text).expect("our own families are sound");
    String::from_utf8(text).expect("text")
}

fn sample_lines(text: &str) -> ItemsCount {
    ItemsCount::new(text.lines().filter(|line| !line.starts_with('#')).count())
}

/// Text out of metric families that are there already; items are sample lines.
#[divan::bench(args = [1, 100])]
fn encode_families(bencher: Bencher<'_, '_>, targets: u32) {
    let (roster, _writers) = roster(targets);
    let exports = exports(&roster);
    let families = exports.gather();
    bencher.counter(sample_lines(&text(&exports))).bench_local(|| export::text::encode(black_box(&families)));
}

/// All of a scrape but the network: ledgers read, text written piece by piece; items are sample lines.
#[divan::bench(args = [1, 100, 10_000], sample_count = 20)]
fn scrape(bencher: Bencher<'_, '_>, targets: u32) {
    scrape_as(bencher, targets, Format::Text);
}

/// The same scrape as OpenMetrics.
#[divan::bench(args = [1, 100, 10_000], sample_count = 20)]
fn scrape_openmetrics(bencher: Bencher<'_, '_>, targets: u32) {
    scrape_as(bencher, targets, Format::OpenMetrics);
}

/// The same scrape as protobuf messages, native histograms included; items are the sample lines that it has as text.
#[divan::bench(args = [1, 100, 10_000], sample_count = 20)]
fn scrape_protobuf(bencher: Bencher<'_, '_>, targets: u32) {
    scrape_as(bencher, targets, Format::Protobuf);
}

fn scrape_as(bencher: Bencher<'_, '_>, targets: u32, format: Format) {
    let (roster, _writers) = roster(targets);
    let exports = exports(&roster);
    bencher.counter(sample_lines(&text(&exports))).bench_local(|| {
        let mut exposition = exports.exposition(format, || ()).expect("our own families are sound");
        while let Some(piece) = exposition.next_piece(|| ()) {
            black_box(piece);
        }
    });
}

/// The same by way of the `prometheus` crate's families and its own encoder, for comparison.
#[divan::bench(args = [1, 100], sample_count = 20)]
fn scrape_by_families(bencher: Bencher<'_, '_>, targets: u32) {
    let (roster, _writers) = roster(targets);
    let exports = exports(&roster);
    bencher
        .counter(sample_lines(&text(&exports)))
        .bench_local(|| TextEncoder::new().encode_to_string(&exports.gather()));
}
