//! A histogram of durations whose cells are Prometheus native-histogram buckets.
//!
//! With schema s every power of two (of seconds) is cut into 2^s buckets at 2^(i/2^s), so the relative error is the same
//! everywhere: 9 % of the value wide at schema 3. Cells are allocated an octave at a time, when a value first falls
//! there. Classic buckets are counted beside them, at configured boundaries, since they can't be derived exactly.

use std::sync::{Arc, OnceLock};

use super::Counter;
use super::exemplar::{Exemplar, Slot};

/// What all histograms of the process share: resolution and classic boundaries.
#[derive(Debug, Clone, PartialEq)]
pub struct Shape {
    /// Buckets in an octave: 2^schema.
    schema: u8,
    /// 2^(j/2^schema) for each j below 2^schema: where the buckets of an octave begin.
    fractions: Arc<[f64]>,
    /// Upper bounds of the classic buckets in seconds, rising, `+Inf` left out.
    bounds: Arc<[f64]>,
    /// The same in nanoseconds.
    bounds_ns: Arc<[u64]>,
}

impl Shape {
    /// The finest resolution: 64 buckets in an octave.
    pub const MAX_SCHEMA: u8 = 6;
    /// 2^-20 s, just below a microsecond: values up to here are counted as zero.
    pub(super) const LOWEST_EXPONENT: i32 = -20;
    /// 2^12 s, over an hour: larger values fall in the last bucket.
    const HIGHEST_EXPONENT: i32 = 12;
    pub(super) const OCTAVES: usize = (Self::HIGHEST_EXPONENT - Self::LOWEST_EXPONENT) as usize;

    /// A shape of `2^schema` native buckets in an octave (schema at most [`Self::MAX_SCHEMA`]) and classic buckets with
    /// the upper bounds `bounds`, in seconds and rising.
    pub fn new(schema: u8, bounds: &[f64]) -> Self {
        let schema = schema.min(Self::MAX_SCHEMA);
        let per_octave = 1_u32 << schema;
        Self {
            schema,
            fractions: (0..per_octave).map(|j| (f64::from(j) / f64::from(per_octave)).exp2()).collect(),
            bounds: bounds.into(),
            bounds_ns: bounds.iter().map(|seconds| (seconds * 1e9).round() as u64).collect(),
        }
    }

    /// The native schema.
    pub fn schema(&self) -> u8 {
        self.schema
    }

    /// Upper bounds of the classic buckets, in seconds.
    pub fn bounds(&self) -> &[f64] {
        &self.bounds
    }

    /// Values up to this many seconds are counted in the zero bucket.
    pub fn zero_threshold(&self) -> f64 {
        f64::from(Self::LOWEST_EXPONENT).exp2()
    }

    /// Where a value is counted; `None` for the zero bucket.
    fn place(&self, seconds: f64) -> Option<Place> {
        if seconds <= self.zero_threshold() {
            return None;
        }
        let last = Place { octave: Self::OCTAVES - 1, slot: self.fractions.len() - 1 };
        if seconds >= f64::from(Self::HIGHEST_EXPONENT).exp2() {
            return Some(last);
        }
        // seconds = mantissa * 2^exponent with a mantissa in [1, 2); a bucket includes its upper bound.
        let bits = seconds.to_bits();
        let exponent = (bits >> 52) as i32 - 1023;
        let mantissa = f64::from_bits(bits & ((1 << 52) - 1) | 1023 << 52);
        let below = self.fractions.partition_point(|&fraction| fraction < mantissa);
        let octave = (exponent - Self::LOWEST_EXPONENT) as usize;
        Some(match below.checked_sub(1) {
            Some(slot) => Place { octave, slot },
            None => Place { octave: octave - 1, slot: last.slot },
        })
    }

    /// The native index of a place: bucket i holds values in (2^((i-1)/2^s), 2^(i/2^s)].
    fn native_index(&self, place: Place) -> i32 {
        let per_octave = self.fractions.len() as i32;
        (place.octave as i32 + Self::LOWEST_EXPONENT) * per_octave + place.slot as i32 + 1
    }

    /// The upper bound of native bucket `index`, in seconds.
    pub fn upper_bound(&self, index: i32) -> f64 {
        (f64::from(index) / self.fractions.len() as f64).exp2()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    octave: usize,
    slot: usize,
}

/// A histogram with one writer and any number of readers. Takes no memory beyond a pointer until something is recorded.
#[derive(Debug, Default)]
pub struct Histogram(OnceLock<Box<Cells>>);

#[derive(Debug)]
struct Cells {
    count: Counter,
    sum_seconds: Counter,
    max_ns: Counter,
    zero: Counter,
    classic: Box<[Counter]>,
    /// One for each classic bucket, `+Inf` included; there once a traced value was recorded.
    exemplars: OnceLock<Box<[Slot]>>,
    /// Octaves in groups, since the values of one target lie close together.
    groups: [OnceLock<Box<Group>>; Shape::OCTAVES / OCTAVES_PER_GROUP],
}

const OCTAVES_PER_GROUP: usize = 8;

/// The cells of some neighbouring octaves, each allocated when a value falls there.
type Group = [OnceLock<Box<[Counter]>>; OCTAVES_PER_GROUP];

fn counters(count: usize) -> Box<[Counter]> {
    (0..count).map(|_| Counter::default()).collect()
}

impl Histogram {
    /// Counts a duration. `shape` is the same at every call.
    pub fn record(&self, shape: &Shape, value_ns: u64) {
        self.count(shape, value_ns);
    }

    /// Counts a duration by which its bucket may be known from now on.
    pub fn record_traced(&self, shape: &Shape, exemplar: Exemplar) {
        let (cells, bucket) = self.count(shape, exemplar.value_ns);
        let slots = cells.exemplars.get_or_init(|| (0..=shape.bounds.len()).map(|_| Slot::default()).collect());
        slots[bucket].offer(exemplar);
    }

    /// Returns the cells, and the position of the classic bucket.
    fn count(&self, shape: &Shape, value_ns: u64) -> (&Cells, usize) {
        let cells = self.0.get_or_init(|| {
            Box::new(Cells {
                count: Counter::default(),
                sum_seconds: Counter::default(),
                max_ns: Counter::default(),
                zero: Counter::default(),
                classic: counters(shape.bounds.len()),
                exemplars: OnceLock::new(),
                groups: [const { OnceLock::new() }; Shape::OCTAVES / OCTAVES_PER_GROUP],
            })
        });
        let seconds = value_ns as f64 / 1e9;
        cells.count.add(1);
        cells.sum_seconds.add_f64(seconds);
        cells.max_ns.raise_to(value_ns);
        let bucket = shape.bounds_ns.partition_point(|&bound_ns| bound_ns < value_ns);
        if let Some(cell) = cells.classic.get(bucket) {
            cell.add(1);
        }
        match shape.place(seconds) {
            Some(Place { octave, slot }) => {
                let group = cells.groups[octave / OCTAVES_PER_GROUP].get_or_init(Box::default);
                group[octave % OCTAVES_PER_GROUP].get_or_init(|| counters(shape.fractions.len()))[slot].add(1);
            }
            None => cells.zero.add(1),
        }
        (cells, bucket)
    }

    /// A copy of the cells; consistent when taken inside the cut in which the writer records.
    pub fn snapshot(&self, shape: &Shape) -> HistogramSnapshot {
        let Some(cells) = self.0.get() else { return HistogramSnapshot::default() };
        let mut native = Vec::new();
        let octaves = cells.groups.iter().enumerate().filter_map(|(group, octaves)| Some((group, octaves.get()?)));
        let octaves = octaves.flat_map(|(group, octaves)| (group * OCTAVES_PER_GROUP..).zip(octaves.iter()));
        for (octave, octave_cells) in octaves {
            let Some(octave_cells) = octave_cells.get() else { continue };
            for (slot, cell) in octave_cells.iter().enumerate() {
                if cell.get() > 0 {
                    native.push((shape.native_index(Place { octave, slot }), cell.get()));
                }
            }
        }
        HistogramSnapshot {
            count: cells.count.get(),
            sum_seconds: cells.sum_seconds.get_f64(),
            max_ns: cells.max_ns.get(),
            zero: cells.zero.get(),
            classic: cells.classic.iter().map(Counter::get).collect(),
            native,
            exemplars: cells.exemplars(),
        }
    }
}

impl Cells {
    fn exemplars(&self) -> Vec<(usize, Exemplar)> {
        let slots = self.exemplars.get().into_iter().flatten().enumerate();
        slots.filter_map(|(bucket, slot)| Some((bucket, slot.get()?))).collect()
    }
}

/// A copy of a histogram. Snapshots of one shape merge exactly.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HistogramSnapshot {
    /// Values recorded.
    pub count: u64,
    /// Their sum, in seconds.
    pub sum_seconds: f64,
    /// The largest of them, in nanoseconds.
    pub max_ns: u64,
    /// Values in the zero bucket.
    pub zero: u64,
    /// Values in each classic bucket, not cumulated; empty when nothing was recorded.
    pub classic: Vec<u64>,
    /// Values in each native bucket that has any: index (see [`Shape::upper_bound`]) and count, rising.
    pub native: Vec<(i32, u64)>,
    /// A request for each classic bucket that has one: position (that of `+Inf` is behind all bounds), rising.
    pub exemplars: Vec<(usize, Exemplar)>,
}

impl HistogramSnapshot {
    /// Adds another histogram of the same shape.
    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.sum_seconds += other.sum_seconds;
        self.max_ns = self.max_ns.max(other.max_ns);
        self.zero += other.zero;
        self.classic.resize(self.classic.len().max(other.classic.len()), 0);
        for (total, part) in self.classic.iter_mut().zip(&other.classic) {
            *total += part;
        }
        for &(index, count) in &other.native {
            match self.native.binary_search_by_key(&index, |&(index, _)| index) {
                Ok(at) => self.native[at].1 += count,
                Err(at) => self.native.insert(at, (index, count)),
            }
        }
        for &(bucket, exemplar) in &other.exemplars {
            match self.exemplars.binary_search_by_key(&bucket, |&(bucket, _)| bucket) {
                Ok(at) if self.exemplars[at].1.at_ms >= exemplar.at_ms => {}
                Ok(at) => self.exemplars[at].1 = exemplar,
                Err(at) => self.exemplars.insert(at, (bucket, exemplar)),
            }
        }
    }

    /// The classic buckets: upper bound in seconds and the count of all values up to it, rising; `+Inf` left out.
    pub fn cumulative<'a>(&'a self, shape: &'a Shape) -> impl Iterator<Item = (f64, u64)> + 'a {
        // Empty when nothing was recorded.
        let counts = self.classic.iter().copied().chain(std::iter::repeat(0));
        shape.bounds().iter().zip(counts).scan(0, |cumulative, (&bound, count)| {
            *cumulative += count;
            Some((bound, *cumulative))
        })
    }

    /// An estimate of the `q`-quantile (0 to 1) in seconds: interpolated inside its native bucket on a logarithmic
    /// scale, never above the largest value; `None` when nothing was recorded.
    pub fn quantile(&self, shape: &Shape, q: f64) -> Option<f64> {
        if self.count == 0 {
            return None;
        }
        let max = self.max_ns as f64 / 1e9;
        if q >= 1.0 {
            return Some(max);
        }
        let rank = q.max(0.0) * self.count as f64;
        let mut below = self.zero as f64;
        if rank <= below {
            return Some(shape.zero_threshold().min(max));
        }
        for &(index, count) in &self.native {
            let inside = count as f64;
            if rank <= below + inside {
                let (low, high) = (shape.upper_bound(index - 1), shape.upper_bound(index));
                return Some((low * (high / low).powf((rank - below) / inside)).min(max));
            }
            below += inside;
        }
        Some(max)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn recorded(shape: &Shape, values_ns: &[u64]) -> HistogramSnapshot {
        let histogram = Histogram::default();
        for &value_ns in values_ns {
            histogram.record(shape, value_ns);
        }
        histogram.snapshot(shape)
    }

    #[test]
    fn a_boundary_belongs_to_the_bucket_below_it() {
        let shape = Shape::new(3, &[0.5, 1.0]);
        let one_second = 1_000_000_000;
        let snapshot = recorded(&shape, &[one_second / 2, one_second, one_second + 1, 2 * one_second]);
        assert_eq!(snapshot.native, [(-8, 1), (0, 1), (1, 1), (8, 1)]);
        assert_eq!(snapshot.classic, [1, 1]);
        assert_eq!((snapshot.count, snapshot.sum_seconds), (4, 4.500_000_001));
    }

    #[test]
    fn values_below_a_microsecond_and_above_an_hour_are_kept() {
        let shape = Shape::new(3, &[1.0]);
        let snapshot = recorded(&shape, &[0, 900, 5_000_000_000_000, u64::MAX]);
        assert_eq!((snapshot.zero, snapshot.native), (2, vec![(96, 2)]));
        assert_eq!(shape.upper_bound(96).to_bits(), 4096_f64.to_bits());
    }

    #[test]
    fn an_untouched_histogram_is_a_pointer() {
        assert!(size_of::<Histogram>() <= 16);
        assert_eq!(recorded(&Shape::new(3, &[1.0]), &[]), HistogramSnapshot::default());
    }

    #[test]
    fn a_bucket_is_known_by_a_recent_request() {
        let shape = Shape::new(3, &[0.001, 1.0]);
        let histogram = Histogram::default();
        let traced = |trace_id, value_ns, at_ms| {
            let exemplar = Exemplar { trace_id, value_ns, at_ms };
            histogram.record_traced(&shape, exemplar);
            exemplar
        };
        histogram.record(&shape, 1);
        assert_eq!(histogram.snapshot(&shape).exemplars, []);
        let first = traced(1 << 100 | 1, 1_000_000, 5000);
        traced(2, 900, 5999);
        let slow = traced(3, 3_000_000_000, 5500);
        assert_eq!(histogram.snapshot(&shape).exemplars, [(0, first), (2, slow)]);
        let next = traced(4, 900, 6000);
        let set_back = traced(5, 3_000_000_000, 100);
        let snapshot = histogram.snapshot(&shape);
        assert_eq!(snapshot.exemplars, [(0, next), (2, set_back)]);
        assert_eq!((snapshot.count, snapshot.classic), (6, vec![4, 0]));

        let mut merged = HistogramSnapshot { exemplars: vec![(0, first), (1, slow), (2, slow)], ..Default::default() };
        merged.merge(&HistogramSnapshot { exemplars: vec![(0, next), (2, set_back)], ..Default::default() });
        assert_eq!(merged.exemplars, [(0, next), (1, slow), (2, slow)]);
    }

    #[test]
    fn quantiles_are_within_a_bucket_of_the_truth() {
        let shape = Shape::new(3, &[]);
        let values: Vec<u64> = (1..=10_000).map(|value| value * 100_000).collect();
        let snapshot = recorded(&shape, &values);
        for q in [0.5, 0.9, 0.95, 0.99, 0.999] {
            let estimate = snapshot.quantile(&shape, q).expect("values");
            assert!((0.95..1.05).contains(&(estimate / q)), "p{q} is {estimate}");
        }
        assert_eq!(snapshot.quantile(&shape, 1.0), Some(1.0));
    }

    proptest! {
        #[test]
        fn every_value_lies_between_the_bounds_of_its_bucket(schema in 0..=Shape::MAX_SCHEMA, value in 1000..4_000_000_000_000_u64) {
            let shape = Shape::new(schema, &[]);
            let (index, count) = recorded(&shape, &[value]).native[0];
            let seconds = value as f64 / 1e9;
            prop_assert_eq!(count, 1);
            // A boundary that is no power of two is a rounded number itself: allow its last bit.
            prop_assert!(seconds <= shape.upper_bound(index) * (1.0 + f64::EPSILON));
            prop_assert!(seconds > shape.upper_bound(index - 1) * (1.0 - f64::EPSILON));
        }

        #[test]
        fn merging_is_recording_together(
            left in prop::collection::vec(0..20_000_000_000_u64, 0..50),
            right in prop::collection::vec(0..20_000_000_000_u64, 0..50),
        ) {
            let shape = Shape::new(3, &[0.001, 0.1, 10.0]);
            let mut merged = recorded(&shape, &left);
            merged.merge(&recorded(&shape, &right));
            let mut together = recorded(&shape, &[left, right].concat());
            prop_assert!((merged.sum_seconds - together.sum_seconds).abs() <= 1e-9 * together.sum_seconds);
            together.sum_seconds = merged.sum_seconds;
            prop_assert_eq!(merged, together);
        }
    }
}
