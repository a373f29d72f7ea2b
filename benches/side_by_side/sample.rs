//! What one run of one client came to.

use std::collections::BTreeMap;

use crate::stats::{Evenness, Spread};

/// A figure: what is measured, and in which unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Metric {
    Achieved,
    CpuPerRequest,
    CpuShare,
    DeviationP50,
    DeviationP99,
    DeviationP999,
    MostPerMs,
    GapCv,
    HeldRate,
    LagWithinMs,
    Memory,
    PeakMemory,
    PerConnection,
    InFlight,
    Dropped,
    Connections,
    OpenedRate,
    ScrapePerLine,
    ScrapeTime,
    Neighbours,
}

impl Metric {
    /// Its name as a column and in JSON, unit last.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Achieved => "requests_per_s",
            Self::CpuPerRequest => "cpu_us_per_request",
            Self::CpuShare => "cpu_percent_of_core",
            Self::DeviationP50 => "deviation_p50_us",
            Self::DeviationP99 => "deviation_p99_us",
            Self::DeviationP999 => "deviation_p999_us",
            Self::MostPerMs => "most_in_1_ms",
            Self::GapCv => "gap_cv",
            Self::HeldRate => "held_per_s",
            Self::LagWithinMs => "lag_within_1_ms_percent",
            Self::Memory => "rss_mb",
            Self::PeakMemory => "peak_rss_mb",
            Self::PerConnection => "kib_per_connection",
            Self::InFlight => "most_in_flight",
            Self::Dropped => "dropped",
            Self::Connections => "connections",
            Self::OpenedRate => "opened_per_s",
            Self::ScrapePerLine => "scrape_cpu_ns_per_line",
            Self::ScrapeTime => "longest_scrape_ms",
            Self::Neighbours => "others_percent_of_core",
        }
    }
}

/// One run.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    /// Of which scenario.
    pub(crate) scenario: &'static str,
    /// Of which client, with its settings.
    pub(crate) who: String,
    /// In which round, from 0.
    pub(crate) round: usize,
    /// Its figures.
    pub(crate) figures: BTreeMap<Metric, f64>,
    /// How even its arrivals were, where that was asked.
    pub(crate) evenness: Option<Evenness>,
}

impl Sample {
    /// Nothing measured yet.
    pub(crate) fn new(scenario: &'static str, who: &str, round: usize) -> Self {
        Self { scenario, who: who.to_owned(), round, figures: BTreeMap::new(), evenness: None }
    }

    /// Adds a figure.
    pub(crate) fn put(&mut self, metric: Metric, value: f64) {
        self.figures.insert(metric, value);
    }

    /// Judges the arrivals against an even stream of `rate` a second.
    pub(crate) fn judge(&mut self, arrivals_ns: &[u64], rate: f64) {
        let Some(evenness) = Evenness::of(arrivals_ns, rate) else { return };
        self.put(Metric::Achieved, evenness.achieved);
        self.put(Metric::DeviationP50, evenness.deviation_us(0.5));
        self.put(Metric::DeviationP99, evenness.deviation_us(0.99));
        self.put(Metric::DeviationP999, evenness.deviation_us(0.999));
        self.put(Metric::MostPerMs, evenness.most_per_ms() as f64);
        self.put(Metric::GapCv, evenness.gap_cv);
        self.evenness = Some(evenness);
    }
}

/// All runs.
#[derive(Debug, Default)]
pub(crate) struct Samples(pub(crate) Vec<Sample>);

impl Samples {
    /// The scenarios in the order in which they ran.
    pub(crate) fn scenarios(&self) -> Vec<&'static str> {
        distinct(self.0.iter().map(|sample| sample.scenario))
    }

    /// The clients of a scenario in the order in which they ran.
    pub(crate) fn clients(&self, scenario: &str) -> Vec<&str> {
        distinct(self.0.iter().filter(|sample| sample.scenario == scenario).map(|sample| sample.who.as_str()))
    }

    /// The runs of one client in one scenario.
    pub(crate) fn of(&self, scenario: &str, who: &str) -> impl Iterator<Item = &Sample> {
        self.0.iter().filter(move |sample| sample.scenario == scenario && sample.who == who)
    }

    /// A figure over all rounds.
    pub(crate) fn spread(&self, scenario: &str, who: &str, metric: Metric) -> Option<Spread> {
        Spread::of(self.of(scenario, who).filter_map(|sample| sample.figures.get(&metric).copied()))
    }

    /// The ratio of two clients' figures, taken round by round: what one round's noise did to both cancels out.
    pub(crate) fn ratio(&self, scenario: &str, metric: Metric, who: &str, against: &str) -> Option<Spread> {
        let ratio = |sample: &Sample| {
            let other = self.of(scenario, against).find(|other| other.round == sample.round)?;
            Some(sample.figures.get(&metric)? / other.figures.get(&metric)?)
        };
        Spread::of(self.of(scenario, who).filter_map(ratio))
    }
}

fn distinct<T: PartialEq>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut seen = Vec::new();
    for item in items {
        if !seen.contains(&item) {
            seen.push(item);
        }
    }
    seen
}
