//! The pictures: what precision costs, how arrivals lie, and how far the goals are.

use std::fs;
use std::path::Path;

use crate::claims::{self, Finding, Goal};
use crate::process::Result;
use crate::report::short;
use crate::sample::{Metric, Samples};
use crate::stats::Spread;
use crate::svg::{Anchor, Axis, Frame, Page, Scale};

const OURS: &str = "#0969da";
const FLOOR: &str = "#8c959f";
const GOOD: &str = "#1a7f37";
const BAD: &str = "#cf222e";
const INK: &str = "#24292f";
/// Clients that get a curve or a panel of their own; others come after them.
const LEADING: [&str; 4] = ["hammerd 250us", "floor 250us", "hammerd 1000us", "hammerd 100us"];
/// The last bar of a histogram stands for this many arrivals and more.
const MOST_SHOWN: usize = 60;

/// Writes every plot for which there are measurements.
pub(crate) fn write_all(samples: &Samples, dir: &Path) -> Result<()> {
    fs::create_dir_all(dir)?;
    for scenario in samples.scenarios().into_iter().filter(|scenario| scenario.ends_with("/s")) {
        let rate = scenario.trim_end_matches("/s");
        fs::write(dir.join(format!("frontier-{rate}.svg")), frontier(samples, scenario))?;
        fs::write(dir.join(format!("deviation-{rate}.svg")), deviation(samples, scenario))?;
        fs::write(dir.join(format!("arrivals-{rate}.svg")), arrivals(samples, scenario))?;
    }
    let findings: Vec<Finding> =
        claims::findings(samples).into_iter().filter(|finding| finding.goal.is_some()).collect();
    if !findings.is_empty() {
        fs::write(dir.join("goals.svg"), goals(&findings))?;
    }
    Ok(())
}

fn color(who: &str) -> &'static str {
    match who.split(' ').next().unwrap_or_default() {
        "hammerd" if who.ends_with(" 100us") => "#54aeff",
        "hammerd" if who.ends_with(" 1000us") => "#0a3069",
        "hammerd" => OURS,
        "floor" => FLOOR,
        "oha" => "#bc4c00",
        "hey" => "#8250df",
        "k6" => "#bf3989",
        "wrk2" => "#9a6700",
        _ => "#116329",
    }
}

fn is_peer(who: &str) -> bool {
    !who.starts_with("hammerd") && !who.starts_with("floor")
}

/// CPU per request against deviation: a line through the values of coalesce for hammerd and floor, a dot for each peer.
fn frontier(samples: &Samples, scenario: &'static str) -> String {
    let point = |who: &str| {
        let median = |metric| Some(samples.spread(scenario, who, metric)?.median);
        Some((median(Metric::CpuPerRequest)?, median(Metric::DeviationP99)?))
    };
    let points: Vec<(&str, (f64, f64))> =
        samples.clients(scenario).into_iter().filter_map(|who| Some((who, point(who)?))).collect();
    let mut page = Page::new(
        860.0,
        560.0,
        &format!("What precision costs at {scenario}"),
        "Down: closer to the ideal instants. Left: cheaper. Medians over rounds; one client core, one server core.",
    );
    let frame = Frame { left: 80.0, top: 76.0, width: 740.0, height: 416.0 };
    let ends = |values: Vec<f64>| {
        let spread = Spread::of(values).unwrap_or(Spread { median: 1.0, low: 1.0, high: 1.0 });
        (spread.low, spread.high)
    };
    let (cpu_low, cpu_high) = ends(points.iter().map(|(_, point)| point.0).collect());
    let (low, high) = ends(points.iter().map(|(_, point)| point.1).collect());
    let x = Axis {
        title: "CPU per request, user + system (µs)".to_owned(),
        scale: Scale::Log,
        from: cpu_low * 0.8,
        to: cpu_high * 1.4,
    };
    let y = Axis {
        title: "deviation from the ideal instant, p99 (µs)".to_owned(),
        scale: Scale::Log,
        from: low * 0.6,
        to: high * 1.7,
    };
    page.axes(frame, &x, &y);
    let at = |(cpu, deviation): (f64, f64)| {
        (frame.left + x.place(cpu) * frame.width, frame.top + (1.0 - y.place(deviation)) * frame.height)
    };
    for (family, side) in [("floor", -1.0), ("hammerd", 1.0)] {
        let line: Vec<_> = points.iter().filter(|(who, _)| who.starts_with(family)).collect();
        page.path(&line.iter().map(|(_, point)| at(*point)).collect::<Vec<_>>(), color(family), 2.0);
        let color = color(family);
        let anchor = if side > 0.0 { Anchor::Start } else { Anchor::End };
        for (index, (who, point)) in line.iter().enumerate() {
            let (left, top) = at(*point);
            page.dot((left, top), 5.0, color);
            let text = if index == 0 { (*who).to_owned() } else { who.replace(&format!("{family} "), "") };
            page.text(left + 9.0 * side, top + 4.0 - 8.0 * side, anchor, color, &text);
        }
    }
    for (who, point) in points.iter().filter(|(who, _)| is_peer(who)) {
        let (left, top) = at(*point);
        page.dot((left, top), 6.0, color(who));
        page.text(left, top - 11.0, Anchor::Middle, color(who), who);
    }
    page.finish()
}

/// The clients of the curves and panels: ours and the floor at the default, then the ends of the frontier, then peers.
fn shown<'a>(samples: &'a Samples, scenario: &str, leading: &[&str]) -> Vec<&'a str> {
    let clients = samples.clients(scenario);
    let first = leading.iter().filter_map(|lead| clients.iter().find(|who| who == &lead).copied());
    first.chain(clients.iter().copied().filter(|who| is_peer(who))).collect()
}

/// The distribution of the deviation.
fn deviation(samples: &Samples, scenario: &'static str) -> String {
    let mut page = Page::new(
        860.0,
        560.0,
        &format!("How far from the ideal instant requests arrive at {scenario}"),
        "Further left is more even. Curves: median over rounds of each quantile, taken at the server.",
    );
    let frame = Frame { left: 80.0, top: 76.0, width: 630.0, height: 416.0 };
    let x =
        Axis {
            title: "deviation from the ideal instant (µs)".to_owned(), scale: Scale::Log, from: 1.0, to: 100_000.0
        };
    let y = Axis { title: "share of requests (%)".to_owned(), scale: Scale::Linear, from: 0.0, to: 100.0 };
    page.axes(frame, &x, &y);
    for (index, who) in shown(samples, scenario, &LEADING).into_iter().enumerate() {
        let quantile = |percent: f64| {
            let runs = samples.of(scenario, who).filter_map(|sample| sample.evenness.as_ref());
            Some(Spread::of(runs.map(|evenness| evenness.deviation_us(percent / 100.0)))?.median)
        };
        let percents = (0..200).map(|step| f64::from(step) / 2.0).chain([99.7, 99.9]);
        let at = |percent: f64| {
            // What is beyond the axis is left out, not drawn at its end.
            let deviation_us = quantile(percent).filter(|&deviation_us| deviation_us <= x.to)?;
            Some((frame.left + x.place(deviation_us) * frame.width, frame.top + (1.0 - percent / 100.0) * frame.height))
        };
        let points: Vec<_> = percents.filter_map(at).collect();
        let (faint, width) = if who.starts_with("hammerd 250") { (color(who), 3.0) } else { (color(who), 1.6) };
        page.path(&points, faint, width);
        let row = frame.top + 16.0 + 38.0 * index as f64;
        page.line((726.0, row - 4.0), (744.0, row - 4.0), faint, width);
        page.text(750.0, row, Anchor::Start, INK, who);
        if let Some(p99) = quantile(99.0) {
            page.text(750.0, row + 15.0, Anchor::Start, color(who), &format!("p99 {} µs", short(p99)));
        }
    }
    page.finish()
}

/// How many milliseconds saw how many arrivals: one panel for each client.
fn arrivals(samples: &Samples, scenario: &'static str) -> String {
    let ideal = scenario.trim_end_matches("/s").parse::<f64>().unwrap_or_default() / 1000.0;
    let clients = shown(samples, scenario, &LEADING[..2]);
    let panels: Vec<(&str, Vec<f64>)> = clients.iter().map(|who| (*who, shares(samples, scenario, who))).collect();
    let rows = panels.len().div_ceil(2);
    let mut page = Page::new(
        860.0,
        90.0 + 190.0 * rows as f64,
        &format!("Requests that reach the server in one millisecond, at {scenario}"),
        &format!("Perfectly even is {ideal} in every millisecond: the red line."),
    );
    let most = panels.iter().map(|(_, shares)| shares.len()).max().unwrap_or(1).max(ideal as usize * 3);
    for (index, (who, shares)) in panels.iter().enumerate() {
        let (column, row) = ((index % 2) as f64, (index / 2) as f64);
        let frame = Frame { left: 80.0 + column * 410.0, top: 92.0 + row * 190.0, width: 340.0, height: 112.0 };
        panel(&mut page, frame, (who, shares), most, ideal);
    }
    page.finish()
}

fn shares(samples: &Samples, scenario: &str, who: &str) -> Vec<f64> {
    let mut counts = vec![0_u64; 1];
    for evenness in samples.of(scenario, who).filter_map(|sample| sample.evenness.as_ref()) {
        for (arrivals, milliseconds) in evenness.per_ms.iter().enumerate() {
            let arrivals = arrivals.min(MOST_SHOWN);
            counts.resize(counts.len().max(arrivals + 1), 0);
            counts[arrivals] += milliseconds;
        }
    }
    let total = counts.iter().sum::<u64>().max(1) as f64;
    counts.into_iter().map(|milliseconds| milliseconds as f64 / total * 100.0).collect()
}

fn panel(page: &mut Page, frame: Frame, (who, shares): (&str, &[f64]), most: usize, ideal: f64) {
    let highest = shares.iter().copied().fold(1.0, f64::max);
    let x = Axis {
        title: "requests in one millisecond".to_owned(),
        scale: Scale::Linear,
        from: -0.5,
        to: most as f64 + 0.5,
    };
    let y = Axis { title: "milliseconds (%)".to_owned(), scale: Scale::Linear, from: 0.0, to: highest * 1.1 };
    page.axes(frame, &x, &y);
    page.heading(frame.left, frame.top - 8.0, color(who), who);
    let width = frame.width / (most as f64 + 1.0);
    for (arrivals, share) in shares.iter().enumerate() {
        let height = y.place(*share) * frame.height;
        let left = frame.left + x.place(arrivals as f64 - 0.5) * frame.width;
        page.bar(
            Frame { left, top: frame.top + frame.height - height, width: (width - 0.6).max(0.8), height },
            color(who),
        );
    }
    let at = frame.left + x.place(ideal) * frame.width;
    page.line((at, frame.top), (at, frame.top + frame.height), BAD, 1.2);
}

/// Every goal: what was measured over what is allowed.
fn goals(findings: &[Finding]) -> String {
    let mut page = Page::new(
        1130.0,
        120.0 + 26.0 * findings.len() as f64,
        "Goals: what was measured, over what is allowed",
        "Left of the line is met. Dot: median over rounds; bar: their range.",
    );
    let frame = Frame { left: 520.0, top: 76.0, width: 400.0, height: 26.0 * findings.len() as f64 };
    let x = Axis { title: "measured / allowed".to_owned(), scale: Scale::Log, from: 0.05, to: 5.0 };
    for tick in x.ticks() {
        let at = frame.left + x.place(tick) * frame.width;
        page.line((at, frame.top), (at, frame.top + frame.height), "#d0d7de", 0.6);
        page.text(at, frame.top + frame.height + 17.0, Anchor::Middle, "#57606a", &tick.to_string());
    }
    page.text(frame.left + frame.width / 2.0, frame.top + frame.height + 36.0, Anchor::Middle, INK, &x.title);
    let limit = frame.left + x.place(1.0) * frame.width;
    page.line((limit, frame.top), (limit, frame.top + frame.height), INK, 1.4);
    for (index, finding) in findings.iter().enumerate() {
        let middle = frame.top + 26.0 * index as f64 + 13.0;
        let Some(goal) = finding.goal else { continue };
        let color = if goal.is_met(finding.spread.median) { GOOD } else { BAD };
        let at = |value: f64| frame.left + x.place(over_allowed(goal, value)) * frame.width;
        page.text(frame.left - 12.0, middle + 4.0, Anchor::End, INK, &finding.text);
        page.line((at(finding.spread.low), middle), (at(finding.spread.high), middle), color, 4.0);
        page.dot((at(finding.spread.median), middle), 6.0, color);
        let text = format!("{} (goal {})", short(finding.spread.median), finding.goal_text());
        page.text(frame.left + frame.width + 12.0, middle + 4.0, Anchor::Start, color, &text);
    }
    page.finish()
}

fn over_allowed(goal: Goal, value: f64) -> f64 {
    match goal {
        // Nothing is allowed: anything is too much.
        Goal::AtMost(0.0) => {
            if value > 0.0 {
                f64::MAX
            } else {
                0.0
            }
        }
        Goal::AtMost(bound) => value / bound,
        Goal::AtLeast(bound) => bound / value,
    }
}
