//! What is compared with what, and the goal where there is one.

use serde_json::{Value, json};

use crate::sample::{Metric, Samples};
use crate::stats::Spread;

/// A bound on the median.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Goal {
    /// Met at this or less.
    AtMost(f64),
    /// Met at this or more.
    AtLeast(f64),
}

impl Goal {
    /// Whether `median` meets it.
    pub(crate) fn is_met(self, median: f64) -> bool {
        match self {
            Self::AtMost(bound) => median <= bound,
            Self::AtLeast(bound) => median >= bound,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtMost(bound) => format!("<= {bound}"),
            Self::AtLeast(bound) => format!(">= {bound}"),
        }
    }
}

/// A figure, or the ratio of one client's to another's.
#[derive(Debug, Clone)]
struct Claim {
    scenario: &'static str,
    metric: Metric,
    who: String,
    against: Option<String>,
    goal: Option<Goal>,
}

/// A claim with what was measured.
#[derive(Debug, Clone)]
pub(crate) struct Finding {
    /// What is compared.
    pub(crate) text: String,
    /// The ratios (or figures) of the rounds.
    pub(crate) spread: Spread,
    /// What they should be.
    pub(crate) goal: Option<Goal>,
}

impl Finding {
    /// `met`, `NOT met`, or nothing when there is no goal.
    pub(crate) fn verdict(&self) -> &'static str {
        match self.goal.map(|goal| goal.is_met(self.spread.median)) {
            Some(true) => "met",
            Some(false) => "NOT met",
            None => "",
        }
    }

    /// The bound as text.
    pub(crate) fn goal_text(&self) -> String {
        self.goal.map(Goal::text).unwrap_or_default()
    }

    /// For the record.
    pub(crate) fn json(&self) -> Value {
        let Spread { median, low, high } = self.spread;
        let met = self.goal.map(|goal| goal.is_met(median));
        json!({ "what": self.text, "median": median, "low": low, "high": high, "goal": self.goal_text(), "met": met })
    }
}

/// All comparisons for which there are measurements.
pub(crate) fn findings(samples: &Samples) -> Vec<Finding> {
    let mut claims = against_floor();
    claims.extend(against_peers());
    claims.extend(alone());
    claims.iter().filter_map(|claim| claim.find(samples)).collect()
}

impl Claim {
    fn ratio(scenario: &'static str, metric: Metric, who: &str, against: &str, goal: Option<Goal>) -> Self {
        Self { scenario, metric, who: who.to_owned(), against: Some(against.to_owned()), goal }
    }

    fn find(&self, samples: &Samples) -> Option<Finding> {
        let (spread, against) = match &self.against {
            Some(against) => {
                let spread = samples.ratio(self.scenario, self.metric, &self.who, against)?;
                (spread, format!(" / {against}"))
            }
            None => (samples.spread(self.scenario, &self.who, self.metric)?, String::new()),
        };
        let text = format!("{}: {} of {}{against}", self.scenario, self.metric.name(), self.who);
        Some(Finding { text, spread, goal: self.goal })
    }
}

fn against_floor() -> Vec<Claim> {
    use Goal::{AtLeast, AtMost};
    let mut claims = Vec::new();
    for (coalesce, goal) in [("100us", Some(1.3)), ("250us", Some(1.25)), ("500us", None), ("1000us", None)] {
        let (who, against) = (format!("hammerd {coalesce}"), format!("floor {coalesce}"));
        let ratio = |scenario, metric, goal| Claim::ratio(scenario, metric, &who, &against, goal);
        claims.push(ratio("10000/s", Metric::CpuPerRequest, goal.map(AtMost)));
        claims.push(ratio("10000/s", Metric::DeviationP99, None));
        claims.push(ratio("1000/s", Metric::CpuPerRequest, None));
        let at_default = (coalesce == "250us").then_some(AtMost(1.5));
        claims.push(ratio("1000/s", Metric::DeviationP50, at_default));
        claims.push(ratio("capacity", Metric::HeldRate, (coalesce == "250us").then_some(AtLeast(0.65))));
    }
    claims
}

fn against_peers() -> Vec<Claim> {
    let goals: [(&str, Option<f64>, Option<f64>); 5] = [
        ("wrk2", Some(1.0), Some(0.15)),
        ("oha", Some(0.65), Some(0.35)),
        ("k6", Some(0.15), Some(0.02)),
        ("hey", None, None),
        ("h2load", None, None),
    ];
    let of = |(peer, cpu, deviation): (&str, Option<f64>, Option<f64>)| {
        let at_most = |bound: Option<f64>| bound.map(Goal::AtMost);
        [
            Claim::ratio("10000/s", Metric::CpuPerRequest, "hammerd 1000us", peer, at_most(cpu)),
            Claim::ratio("10000/s", Metric::DeviationP99, "hammerd 250us", peer, at_most(deviation)),
            Claim::ratio("1000/s", Metric::DeviationP50, "hammerd 250us", peer, None),
        ]
    };
    goals.into_iter().flat_map(of).collect()
}

/// Figures that are goals by themselves, and hammerd against hammerd.
fn alone() -> Vec<Claim> {
    use Goal::{AtLeast, AtMost};
    let (one, many, scraped) = ("1 target", "10000 targets", "10000 targets, scraped");
    let figure = |scenario, metric, who: &str, goal| Claim {
        scenario,
        metric,
        who: who.to_owned(),
        against: None,
        goal: Some(goal),
    };
    vec![
        Claim::ratio("targets", Metric::CpuPerRequest, many, one, Some(AtMost(1.5))),
        Claim::ratio("targets", Metric::DeviationP99, many, one, Some(AtMost(1.5))),
        figure("targets", Metric::Memory, many, AtMost(150.0)),
        Claim::ratio("targets", Metric::DeviationP99, scraped, many, Some(AtMost(1.1))),
        figure("targets", Metric::ScrapePerLine, scraped, AtMost(100.0)),
        figure("rest", Metric::CpuShare, "hammerd 1/s", AtMost(0.1)),
        figure("rest", Metric::Memory, "hammerd 1/s", AtMost(10.0)),
        figure("connections", Metric::PerConnection, "hammerd", AtMost(12.0)),
        figure("connections", Metric::Dropped, "hammerd", AtMost(0.0)),
        Claim::ratio("protocols", Metric::CpuPerRequest, "http/1.1 tls", "http/1.1", Some(AtMost(1.5))),
        Claim::ratio("protocols", Metric::CpuPerRequest, "http/2", "http/1.1", Some(AtMost(1.0))),
        Claim::ratio("protocols", Metric::CpuPerRequest, "http/2 tls", "http/1.1 tls", Some(AtMost(1.0))),
        figure("storm", Metric::LagWithinMs, "beside handshakes", AtLeast(99.0)),
        Claim::ratio("storm", Metric::DeviationP99, "beside handshakes", "alone", None),
        Claim::ratio("observed", Metric::CpuPerRequest, "traced", "unseen", Some(AtMost(1.03))),
        Claim::ratio("observed", Metric::DeviationP99, "traced", "unseen", None),
        Claim::ratio("observed", Metric::DeviationP99, "scraped at 10 Hz", "unseen", Some(AtMost(1.1))),
    ]
}
