//! A strict reader of the text exposition format 0.0.4, and questions to ask of what it read.
//!
//! Stricter than Prometheus: what a server would forgive (a series twice, a family in two places, a bucket that
//! falls) is an error here, because nobody else would notice it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;

type Labels = BTreeMap<String, String>;

/// One scrape, read and found valid.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scrape {
    families: BTreeMap<String, Family>,
    samples: Vec<Sample>,
    /// Places in `samples` by name, and by name and target: a scrape can have tens of thousands.
    by_name: HashMap<String, Vec<usize>>,
    by_target: HashMap<String, HashMap<String, Vec<usize>>>,
}

#[derive(Debug, Clone, Default)]
struct Family {
    help: Option<String>,
    kind: Option<String>,
    has_samples: bool,
    ended: bool,
}

/// One line of values.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample {
    /// Name as written, with `_bucket`, `_sum` or `_count` for parts of a histogram.
    pub(crate) name: String,
    /// Labels, unescaped.
    pub(crate) labels: Labels,
    /// Value.
    pub(crate) value: f64,
}

/// The sum of all histograms that a question matched.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Histogram {
    /// Upper bound and cumulative count, rising, `+Inf` last.
    pub(crate) buckets: Vec<(f64, f64)>,
    /// Number of observations.
    pub(crate) count: f64,
    /// Sum of observations.
    pub(crate) sum: f64,
}

// === impl Histogram ===

impl Histogram {
    /// Observations at or below `bound`, which has to be a boundary of a bucket.
    #[track_caller]
    pub(crate) fn count_le(&self, bound: f64) -> f64 {
        let found = self.buckets.iter().find(|(le, _)| le.total_cmp(&bound).is_eq());
        found.unwrap_or_else(|| panic!("no bucket ends at {bound}: {:?}", self.buckets)).1
    }
}

// === impl Scrape ===

impl Scrape {
    /// Reads a whole answer of `/metrics`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut scrape = Self::default();
        if !text.ends_with('\n') {
            return Err("the last line does not end".to_owned());
        }
        let mut current = String::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            let read = match line.strip_prefix("# ") {
                Some(comment) => scrape.describe(comment),
                None => sample(line).and_then(|sample| scrape.add(sample)),
            };
            let family = read.and_then(|family| scrape.go_on_with(&family, &mut current));
            family.map_err(|error| format!("{error}: {line}"))?;
        }
        scrape.check_series()?;
        scrape.check_histograms()?;
        Ok(scrape)
    }

    /// Takes a HELP or TYPE line, and returns the name of its family.
    fn describe(&mut self, comment: &str) -> Result<String, String> {
        let mut words = comment.splitn(3, ' ');
        let (Some(keyword), Some(name)) = (words.next(), words.next()) else {
            return Err("neither HELP nor TYPE".to_owned());
        };
        let family = self.families.entry(name.to_owned()).or_default();
        let rest = words.next().unwrap_or_default().to_owned();
        let place = match keyword {
            "HELP" => &mut family.help,
            "TYPE" if ["counter", "gauge", "histogram", "summary"].contains(&rest.as_str()) => &mut family.kind,
            "TYPE" => return Err("unknown type".to_owned()),
            _ => return Err("neither HELP nor TYPE".to_owned()),
        };
        if place.replace(rest).is_some() {
            return Err(format!("a second {keyword}"));
        }
        if family.has_samples {
            return Err(format!("{keyword} after a sample"));
        }
        Ok(name.to_owned())
    }

    /// Takes a sample, and returns the name of its family.
    fn add(&mut self, sample: Sample) -> Result<String, String> {
        let name = self.family_of(&sample.name).ok_or("a sample without TYPE and HELP")?.to_owned();
        let family = self.families.get_mut(&name).expect("just found");
        family.has_samples = true;
        if family.kind.as_deref() == Some("counter") && (sample.value.is_nan() || sample.value < 0.0) {
            return Err("a counter that is negative or not a number".to_owned());
        }
        let place = self.samples.len();
        self.by_name.entry(sample.name.clone()).or_default().push(place);
        if let Some(target) = sample.labels.get("target") {
            let by_target = self.by_target.entry(sample.name.clone()).or_default();
            by_target.entry(target.clone()).or_default().push(place);
        }
        self.samples.push(sample);
        Ok(name)
    }

    /// A family stands in one place.
    fn go_on_with(&mut self, family: &str, current: &mut String) -> Result<(), String> {
        if current != family {
            if let Some(before) = self.families.get_mut(current) {
                before.ended = true;
            }
            if self.families[family].ended {
                return Err("a family in two places".to_owned());
            }
            family.clone_into(current);
        }
        Ok(())
    }

    /// The described family that a sample's name belongs to.
    fn family_of<'a>(&self, sample: &'a str) -> Option<&'a str> {
        let described = |name: &str, histogram: bool| {
            self.families.get(name).is_some_and(|family| {
                family.help.is_some() && family.kind.as_deref().is_some_and(|kind| (kind == "histogram") == histogram)
            })
        };
        if described(sample, false) {
            return Some(sample);
        }
        let parts = ["_bucket", "_sum", "_count"];
        parts.iter().filter_map(|part| sample.strip_suffix(part)).find(|base| described(base, true))
    }

    fn check_series(&self) -> Result<(), String> {
        let mut seen = HashSet::new();
        match self.samples.iter().find(|sample| !seen.insert((&sample.name, &sample.labels))) {
            Some(twice) => Err(format!("a series twice: {} {:?}", twice.name, twice.labels)),
            None => Ok(()),
        }
    }

    fn check_histograms(&self) -> Result<(), String> {
        let histograms = self.families.iter().filter(|(_, family)| family.kind.as_deref() == Some("histogram"));
        for (name, _) in histograms {
            let mut by_labels: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
            for sample in self.series(&format!("{name}_bucket")) {
                let mut labels = sample.labels.clone();
                let bound = labels.remove("le").ok_or_else(|| format!("{name}: a bucket without le"))?;
                let bound = number(&bound).ok_or_else(|| format!("{name}: le is not a number: {bound}"))?;
                by_labels.entry(labels).or_default().push((bound, sample.value));
            }
            let counts = self.series(&format!("{name}_count"));
            let sums: HashMap<_, _> =
                self.series(&format!("{name}_sum")).iter().map(|sum| (&sum.labels, sum.value)).collect();
            if counts.len() != by_labels.len() || sums.len() != by_labels.len() {
                return Err(format!("{name}: buckets, sums and counts are not of the same series"));
            }
            for count in counts {
                let buckets = by_labels.get(&count.labels).ok_or_else(|| format!("{name}: a count without buckets"))?;
                if sums.get(&count.labels).is_none_or(|sum| sum.is_nan()) {
                    return Err(format!("{name}: a sum that is missing or not a number"));
                }
                check_buckets(buckets, count.value).map_err(|error| format!("{name} {:?}: {error}", count.labels))?;
            }
        }
        Ok(())
    }

    /// The one sample of that name whose labels contain `labels`.
    #[track_caller]
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.try_value(name, labels).unwrap_or_else(|| panic!("no {name} {labels:?}; there is:\n{}", self.list(name)))
    }

    /// As [`Scrape::value`], when the sample may be missing; two that match are an error of the question.
    #[track_caller]
    pub(crate) fn try_value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut found = self.matching(name, labels);
        let value = found.next()?.value;
        assert!(found.next().is_none(), "several {name} {labels:?}:\n{}", self.list(name));
        Some(value)
    }

    /// The sum over all samples of that name whose labels contain `labels`; 0 when there are none.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).map(|sample| sample.value).sum()
    }

    /// All samples of that name.
    pub(crate) fn series(&self, name: &str) -> Vec<&Sample> {
        self.matching(name, &[]).collect()
    }

    /// The values that `label` takes among the samples of that name.
    pub(crate) fn label_values(&self, name: &str, label: &str) -> Vec<&str> {
        self.series(name).iter().filter_map(|sample| sample.labels.get(label)).map(String::as_str).collect()
    }

    /// The names of all families.
    pub(crate) fn family_names(&self) -> impl Iterator<Item = &str> {
        self.families.keys().map(String::as_str)
    }

    /// Type of a family.
    pub(crate) fn kind(&self, family: &str) -> Option<&str> {
        self.families.get(family)?.kind.as_deref()
    }

    /// The sum of the histograms of that name whose labels contain `labels`.
    #[track_caller]
    pub(crate) fn histogram(&self, name: &str, labels: &[(&str, &str)]) -> Histogram {
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for sample in self.matching(&format!("{name}_bucket"), labels) {
            let bound = number(&sample.labels["le"]).expect("checked when read");
            match buckets.iter_mut().find(|(le, _)| le.total_cmp(&bound).is_eq()) {
                Some((_, count)) => *count += sample.value,
                None => buckets.push((bound, sample.value)),
            }
        }
        assert!(!buckets.is_empty(), "no histogram {name} {labels:?}");
        let count = self.sum(&format!("{name}_count"), labels);
        Histogram { buckets, count, sum: self.sum(&format!("{name}_sum"), labels) }
    }

    /// All that is not zero and not part of a histogram's buckets, a line each: what a failed test wants to show.
    pub(crate) fn summary(&self) -> String {
        let shown = |sample: &&Sample| sample.value != 0.0 && !sample.name.ends_with("_bucket");
        self.samples.iter().filter(shown).fold(String::new(), |mut text, sample| {
            let _ = writeln!(text, "  {} {:?} {}", sample.name, sample.labels, sample.value);
            text
        })
    }

    fn matching(&self, name: &str, labels: &[(&str, &str)]) -> impl Iterator<Item = &Sample> {
        let places = match labels.iter().find(|(key, _)| *key == "target") {
            Some((_, target)) => self.by_target.get(name).and_then(|by_target| by_target.get(*target)),
            None => self.by_name.get(name),
        };
        places.into_iter().flatten().map(|&place| &self.samples[place]).filter(move |sample| {
            labels.iter().all(|(key, value)| sample.labels.get(*key).is_some_and(|found| found == value))
        })
    }

    fn list(&self, name: &str) -> String {
        self.series(name).iter().fold(String::new(), |mut text, sample| {
            let _ = writeln!(text, "  {:?} {}", sample.labels, sample.value);
            text
        })
    }
}

fn check_buckets(buckets: &[(f64, f64)], count: f64) -> Result<(), String> {
    let rising = buckets.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
    match buckets.last() {
        _ if !rising => Err(format!("buckets that do not rise: {buckets:?}")),
        Some((bound, last)) if *bound == f64::INFINITY && last.total_cmp(&count).is_eq() => Ok(()),
        _ => Err(format!("the +Inf bucket is missing or differs from the count {count}: {buckets:?}")),
    }
}

fn number(text: &str) -> Option<f64> {
    match text {
        "+Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        "NaN" => Some(f64::NAN),
        _ if text.starts_with(|c: char| c.is_ascii_digit() || c == '-') => text.parse().ok(),
        _ => None,
    }
}

fn sample(line: &str) -> Result<Sample, String> {
    let name_end = line.find(['{', ' ']).ok_or("no value")?;
    let name = &line[..name_end];
    if !is_name(name) {
        return Err("not a metric name".to_owned());
    }
    let (labels, rest) = match line[name_end..].strip_prefix('{') {
        Some(inside) => labels(inside)?,
        None => (Labels::new(), &line[name_end..]),
    };
    let value = rest.strip_prefix(' ').and_then(number).ok_or("not a single value after the name")?;
    Ok(Sample { name: name.to_owned(), labels, value })
}

/// Reads `a="b",c="d"}` and returns what follows the brace.
fn labels(mut rest: &str) -> Result<(Labels, &str), String> {
    let mut labels = Labels::new();
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            return Ok((labels, after));
        }
        let (name, quoted) = rest.split_once("=\"").ok_or("a label without a quoted value")?;
        if !is_name(name) || name.contains(':') {
            return Err(format!("not a label name: {name}"));
        }
        let (value, after) = unquote(quoted)?;
        if labels.insert(name.to_owned(), value).is_some() {
            return Err(format!("label {name} twice"));
        }
        rest = after.strip_prefix(',').unwrap_or(after);
    }
}

fn unquote(quoted: &str) -> Result<(String, &str), String> {
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((value, &quoted[at + 1..])),
            '\\' => value.push(match chars.next() {
                Some((_, 'n')) => '\n',
                Some((_, c @ ('\\' | '"'))) => c,
                _ => return Err("an unknown escape".to_owned()),
            }),
            _ => value.push(c),
        }
    }
    Err("a label value without an end".to_owned())
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == ':')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
}
