//! The pure parts of the bench as a test crate of their own: known inputs, known figures.

#![allow(dead_code, reason = "the tests need only a part of what the bench needs")]

mod claims;
mod sample;
mod stats;
mod svg;

use claims::Goal;
use sample::{Metric, Sample, Samples};
use stats::{Evenness, Spread, largest_held, quantile};
use svg::{Axis, Scale};

const SECOND: u64 = 1_000_000_000;

fn close(left: f64, right: f64) -> bool {
    (left - right).abs() <= 1e-6 * right.abs().max(1.0)
}

#[test]
fn a_quantile_is_the_value_at_its_rank() {
    let values: Vec<u32> = (1..=100).collect();
    assert_eq!([0.0, 0.5, 0.99, 1.0].map(|q| quantile(&values, q)), [1, 51, 100, 100]);
    assert_eq!(quantile::<u32>(&[], 0.5), 0);
}

#[test]
fn a_median_lies_between_the_two_in_the_middle() {
    assert_eq!(Spread::of([3.0, 1.0, 2.0]), Some(Spread { median: 2.0, low: 1.0, high: 3.0 }));
    assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]).map(|spread| spread.median), Some(2.5));
    assert_eq!(Spread::of([f64::NAN, 7.0]).map(|spread| spread.median), Some(7.0));
    assert_eq!(Spread::of([]), None);
}

#[test]
fn an_even_stream_has_no_deviation_and_one_rate() {
    let arrivals: Vec<u64> = (0..10_000).map(|n| 5 * SECOND + n * SECOND / 1000).collect();
    let evenness = Evenness::of(&arrivals, 1000.0).expect("arrivals");
    assert!(close(evenness.achieved, 1000.0), "{}", evenness.achieved);
    assert!(evenness.gap_cv < 1e-9 && evenness.deviation_us(1.0) < 1e-6);
    // 10 s without 2 s at the beginning and half a second at the end.
    assert_eq!((evenness.deviations_us.len(), evenness.most_per_ms()), (7500, 1));
    assert_eq!(evenness.per_ms, [0, 7500]);
}

#[test]
fn bursts_of_ten_deviate_by_up_to_half_a_burst() {
    // Ten at the beginning of each millisecond: against 100 us apart they are 450, 350, .. 50 us off, both ways.
    let arrivals: Vec<u64> = (0..100_000).map(|n| SECOND + n / 10 * 1_000_000).collect();
    let evenness = Evenness::of(&arrivals, 10_000.0).expect("arrivals");
    assert!((evenness.deviation_us(0.5) - 250.0).abs() < 60.0, "{}", evenness.deviation_us(0.5));
    assert!((evenness.deviation_us(1.0) - 450.0).abs() < 1.0, "{}", evenness.deviation_us(1.0));
    assert_eq!((evenness.most_per_ms(), evenness.per_ms[10]), (10, 7500));
    assert!((evenness.gap_cv - 3.0).abs() < 0.01, "{}", evenness.gap_cv);
}

#[test]
fn a_slow_drift_is_a_matter_of_the_rate_and_not_of_evenness() {
    let arrivals: Vec<u64> = (0..10_000).map(|n| n * 1_000_100).collect();
    let evenness = Evenness::of(&arrivals, 1000.0).expect("arrivals");
    assert!((evenness.achieved - 999.9).abs() < 0.01);
    assert!(evenness.deviation_us(1.0) < 0.01, "{}", evenness.deviation_us(1.0));
}

#[test]
fn milliseconds_without_arrivals_are_counted() {
    let arrivals = [0, 100_000, 3_000_000, 5_500_000];
    let evenness = Evenness::of(&arrivals, 1_000_000.0).expect("arrivals");
    assert_eq!(evenness.per_ms, [3, 2, 1]);
    assert_eq!(Evenness::of(&[7], 1.0), None);
}

#[test]
fn the_largest_rate_is_found_from_above_and_from_below() {
    for start in [1000.0, 60_000.0, 900_000.0] {
        let found = largest_held(start, 2.0, 1_000_000.0, 0.04, |rate| Ok::<_, ()>(rate <= 70_000.0));
        let found = found.expect("no error");
        assert!((70_000.0 / 1.04..=70_000.0).contains(&found), "from {start}: {found}");
    }
    assert_eq!(largest_held(1000.0, 2.0, 8000.0, 0.04, |_| Ok::<_, ()>(true)), Ok(8000.0));
    assert_eq!(largest_held(1000.0, 2.0, 8000.0, 0.04, |_| Ok::<_, ()>(false)), Ok(0.0));
    assert_eq!(largest_held(1000.0, 2.0, 8000.0, 0.04, |_| Err("broken")), Err("broken"));
}

fn run(who: &str, round: usize, cpu_us: f64) -> Sample {
    let mut sample = Sample::new("10000/s", who, round);
    sample.put(Metric::CpuPerRequest, cpu_us);
    sample
}

#[test]
fn ratios_are_taken_inside_a_round() {
    // The second round is twice as slow for both: the ratio is the same.
    let runs = vec![run("a", 0, 10.0), run("b", 0, 5.0), run("a", 1, 20.0), run("b", 1, 10.0), run("a", 2, 99.0)];
    let samples = Samples(runs);
    let ratio = samples.ratio("10000/s", Metric::CpuPerRequest, "a", "b");
    assert_eq!(ratio, Some(Spread { median: 2.0, low: 2.0, high: 2.0 }));
    assert_eq!(samples.ratio("10000/s", Metric::CpuPerRequest, "a", "absent"), None);
    assert_eq!((samples.scenarios(), samples.clients("10000/s")), (vec!["10000/s"], vec!["a", "b"]));
}

#[test]
fn a_goal_is_judged_by_the_median() {
    let mut runs = Vec::new();
    for (round, cpu_us) in [11.0, 12.0, 30.0].into_iter().enumerate() {
        runs.extend([run("hammerd 250us", round, cpu_us), run("floor 250us", round, 10.0)]);
    }
    let findings = claims::findings(&Samples(runs));
    let [finding] = findings.as_slice() else { panic!("one comparison, not {findings:?}") };
    assert_eq!((finding.verdict(), finding.goal), ("met", Some(Goal::AtMost(1.25))));
    assert!(close(finding.spread.median, 1.2) && close(finding.spread.high, 3.0));
    assert!(!Goal::AtLeast(0.65).is_met(0.6));
}

#[test]
fn axes_have_round_marks() {
    let axis = |scale, from, to| Axis { title: String::new(), scale, from, to };
    assert_eq!(axis(Scale::Linear, 0.0, 100.0).ticks(), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
    assert_eq!(axis(Scale::Log, 8.0, 120.0).ticks(), [10.0, 20.0, 50.0, 100.0]);
    assert!(close(axis(Scale::Log, 1.0, 100.0).place(10.0), 0.5));
    assert!(close(axis(Scale::Linear, 0.0, 8.0).place(9.0), 1.0));
}
