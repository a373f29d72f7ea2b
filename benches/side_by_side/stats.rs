//! Pure statistics: how even arrivals were, and what rounds come to.

const MS: u64 = 1_000_000;

/// What is left out of a measurement at its ends, in seconds: the start of the client, and its end.
const WARM_UP_S: f64 = 2.0;
const TAIL_S: f64 = 0.5;

/// The `q`-quantile of sorted values, as the value at that rank; the default of an empty list.
pub(crate) fn quantile<T: Copy + Default>(sorted: &[T], q: f64) -> T {
    let rank = (q * sorted.len() as f64) as usize;
    sorted.get(rank.min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

/// Median and range of some rounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    /// The value in the middle, or between the two in the middle.
    pub(crate) median: f64,
    /// The smallest.
    pub(crate) low: f64,
    /// The largest.
    pub(crate) high: f64,
}

impl Spread {
    /// `None` for no values.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        values.sort_unstable_by(f64::total_cmp);
        let (&low, &high) = (values.first()?, values.last()?);
        let median = f64::midpoint(values[(values.len() - 1) / 2], values[values.len() / 2]);
        Some(Self { median, low, high })
    }
}

/// How even a stream of arrivals was at the server.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Evenness {
    /// Arrivals a second.
    pub(crate) achieved: f64,
    /// Standard deviation of the gaps over their mean: 0 is perfectly even, 1 is random.
    pub(crate) gap_cv: f64,
    /// |arrival - ideal instant| in microseconds, sorted.
    pub(crate) deviations_us: Vec<f64>,
    /// How many milliseconds saw 0, 1, 2, ... arrivals.
    pub(crate) per_ms: Vec<u64>,
}

impl Evenness {
    /// Judges arrivals (sorted nanoseconds) against an evenly spaced stream of `rate` a second.
    ///
    /// The ideal stream is the best-fitting one: its start, and a slow drift of the rate, are taken from the arrivals
    /// themselves. `None` when nothing is left after the ends are cut off.
    pub(crate) fn of(arrivals_ns: &[u64], rate: f64) -> Option<Self> {
        let kept = without_ends(arrivals_ns, rate);
        let (&first, &last) = (kept.first()?, kept.last()?);
        if last <= first {
            return None;
        }
        let gaps: Vec<f64> = kept.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
        let mean_gap = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean_gap).powi(2)).sum::<f64>() / gaps.len() as f64;
        Some(Self {
            achieved: gaps.len() as f64 / ((last - first) as f64 / 1e9),
            gap_cv: variance.sqrt() / mean_gap,
            deviations_us: deviations(kept, rate),
            per_ms: per_ms(kept),
        })
    }

    /// A quantile of the deviation in microseconds.
    pub(crate) fn deviation_us(&self, q: f64) -> f64 {
        quantile(&self.deviations_us, q)
    }

    /// The largest number of arrivals in one millisecond.
    pub(crate) fn most_per_ms(&self) -> u64 {
        self.per_ms.len().saturating_sub(1) as u64
    }
}

fn without_ends(arrivals_ns: &[u64], rate: f64) -> &[u64] {
    let (skip, tail) = ((rate * WARM_UP_S) as usize, (rate * TAIL_S) as usize);
    if arrivals_ns.len() > skip * 2 { &arrivals_ns[skip..arrivals_ns.len() - tail] } else { arrivals_ns }
}

/// Distances from the straight line that fits the residuals best (least squares).
fn deviations(arrivals_ns: &[u64], rate: f64) -> Vec<f64> {
    let residual = |(index, &at): (usize, &u64)| (at - arrivals_ns[0]) as f64 / 1e3 - index as f64 * 1e6 / rate;
    let residuals: Vec<f64> = arrivals_ns.iter().enumerate().map(residual).collect();
    let count = residuals.len() as f64;
    let (middle, mean) = ((count - 1.0) / 2.0, residuals.iter().sum::<f64>() / count);
    let (mut covariance, mut variance) = (0.0, 0.0);
    for (index, residual) in residuals.iter().enumerate() {
        let x = index as f64 - middle;
        covariance += x * (residual - mean);
        variance += x * x;
    }
    let slope = if variance > 0.0 { covariance / variance } else { 0.0 };
    let off = |(index, residual): (usize, &f64)| (residual - mean - slope * (index as f64 - middle)).abs();
    let mut deviations: Vec<f64> = residuals.iter().enumerate().map(off).collect();
    deviations.sort_unstable_by(f64::total_cmp);
    deviations
}

/// Milliseconds by the number of arrivals in them, those without any included.
fn per_ms(arrivals_ns: &[u64]) -> Vec<u64> {
    let mut histogram: Vec<u64> = Vec::new();
    let mut note = |arrivals: usize, milliseconds: u64| {
        if histogram.len() <= arrivals {
            histogram.resize(arrivals + 1, 0);
        }
        histogram[arrivals] += milliseconds;
    };
    let (mut at, mut arrivals) = (arrivals_ns[0] / MS, 0);
    for arrival in arrivals_ns {
        let millisecond = arrival / MS;
        if millisecond != at {
            note(arrivals, 1);
            note(0, millisecond - at - 1);
            (at, arrivals) = (millisecond, 0);
        }
        arrivals += 1;
    }
    note(arrivals, 1);
    histogram
}

/// The largest rate up to `high` that `holds` says yes to, to within `precision` (0.05 is five percent); 0 when it says
/// no to everything. From `start` it goes by factors of `step`, then halves the gap on a logarithmic scale.
pub(crate) fn largest_held<E>(
    start: f64,
    step: f64,
    high: f64,
    precision: f64,
    mut holds: impl FnMut(f64) -> Result<bool, E>,
) -> Result<f64, E> {
    let (mut held, mut failed) = (0.0, f64::INFINITY);
    let mut rate = start.min(high);
    loop {
        if holds(rate)? {
            held = rate;
        } else {
            failed = rate;
        }
        rate = match (held > 0.0, failed.is_finite()) {
            (true, true) if failed / held <= 1.0 + precision => return Ok(held),
            (true, true) => (held * failed).sqrt(),
            (true, false) if held >= high => return Ok(held),
            (true, false) => (held * step).min(high),
            (false, _) if failed < start / 64.0 => return Ok(0.0),
            (false, _) => failed / step,
        };
    }
}
