//! Numbers kept small for the time that a scrape takes to leave.
//!
//! Most of a target's numbers are 0 or have a few digits, so each takes seven bits to a byte (LEB128, as in DWARF), and a
//! histogram without a value takes one byte: 10,000 targets are some megabytes and not some tens of them.

use super::format::Format;
use crate::stats::{Exemplar, HistogramSnapshot, Shape};

/// Numbers, to be read in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Column(Vec<u8>);

impl Column {
    pub(super) fn push(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    /// What a histogram needs in this format.
    pub(super) fn push_histogram(&mut self, histogram: &HistogramSnapshot, format: Format) {
        self.push(histogram.count);
        if histogram.count == 0 {
            return;
        }
        self.0.extend(histogram.sum_seconds.to_le_bytes());
        histogram.classic.iter().for_each(|&count| self.push(count));
        if format.has_native() {
            self.push(histogram.zero);
            self.push(histogram.native.len() as u64);
            for &(index, count) in &histogram.native {
                self.0.extend(index.to_le_bytes());
                self.push(count);
            }
        }
        if format.has_exemplars() {
            self.push(histogram.exemplars.len() as u64);
            for &(bucket, Exemplar { trace_id, value_ns, at_ms }) in &histogram.exemplars {
                self.0.extend(trace_id.to_le_bytes());
                for number in [bucket as u64, value_ns, at_ms] {
                    self.push(number);
                }
            }
        }
    }

    /// The memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        self.0.capacity()
    }

    /// Gives back the memory that nothing was put into.
    pub(super) fn shrink(&mut self) {
        self.0.shrink_to_fit();
    }

    /// What is left to read behind the first `read` bytes.
    pub(super) fn numbers(&self, read: usize, format: Format) -> Numbers<'_> {
        Numbers { column: &self.0, read, format, histogram: HistogramSnapshot::default() }
    }
}

/// Reads a [`Column`].
#[derive(Debug)]
pub(super) struct Numbers<'a> {
    column: &'a [u8],
    read: usize,
    format: Format,
    histogram: HistogramSnapshot,
}

impl Numbers<'_> {
    /// How many bytes of the column have been read.
    pub(super) fn read(&self) -> usize {
        self.read
    }

    /// The next number. Only those may be asked for that were put in.
    pub(super) fn next(&mut self) -> u64 {
        let mut number = 0;
        for shift in (0..).step_by(7) {
            let byte = self.column[self.read];
            self.read += 1;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        number
    }

    /// The next bytes as they were put in.
    fn next_bytes<const LENGTH: usize>(&mut self) -> [u8; LENGTH] {
        let bytes = self.column[self.read..].first_chunk().copied();
        self.read += LENGTH;
        bytes.unwrap_or([0; LENGTH])
    }

    /// The next histogram, without what the format does not need.
    pub(super) fn next_histogram(&mut self, shape: &Shape) -> &HistogramSnapshot {
        // Taken out and put back, so that its lists keep their memory.
        let mut histogram = std::mem::take(&mut self.histogram);
        (histogram.count, histogram.sum_seconds, histogram.zero) = (self.next(), 0.0, 0);
        histogram.classic.clear();
        histogram.native.clear();
        histogram.exemplars.clear();
        if histogram.count > 0 {
            histogram.sum_seconds = f64::from_le_bytes(self.next_bytes());
            histogram.classic.extend(shape.bounds().iter().map(|_| self.next()));
            if self.format.has_native() {
                histogram.zero = self.next();
                let cells = self.next();
                histogram.native.extend((0..cells).map(|_| (i32::from_le_bytes(self.next_bytes()), self.next())));
            }
            if self.format.has_exemplars() {
                let exemplars = self.next();
                histogram.exemplars.extend((0..exemplars).map(|_| self.next_exemplar()));
            }
        }
        self.histogram = histogram;
        &self.histogram
    }

    fn next_exemplar(&mut self) -> (usize, Exemplar) {
        let trace_id = u128::from_le_bytes(self.next_bytes());
        let (bucket, value_ns, at_ms) = (self.next(), self.next(), self.next());
        (bucket as usize, Exemplar { trace_id, value_ns, at_ms })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::stats::Histogram;

    proptest! {
        #[test]
        fn what_comes_out_is_what_was_put_in(
            format in prop::sample::select(&Format::ALL),
            numbers in prop::collection::vec(prop_oneof![0..300_u64, any::<u64>()], 0..50),
            values_ns in prop::collection::vec((0..4_000_000_000_u64, any::<Option<(u128, u64)>>()), 0..50),
        ) {
            let shape = Shape::new(3, &[0.001, 0.1, 1.0]);
            let histogram = Histogram::default();
            for (value_ns, traced) in values_ns {
                match traced {
                    Some((trace_id, at_ms)) => histogram.record_traced(&shape, Exemplar { trace_id, value_ns, at_ms }),
                    None => histogram.record(&shape, value_ns),
                }
            }
            let mut snapshot = histogram.snapshot(&shape);
            let mut column = Column::default();
            column.push_histogram(&snapshot, format);
            for &number in &numbers {
                column.push(number);
            }
            column.push_histogram(&snapshot, format);

            snapshot.max_ns = 0;
            if !format.has_native() {
                (snapshot.zero, snapshot.native) = (0, Vec::new());
            }
            if !format.has_exemplars() {
                snapshot.exemplars = Vec::new();
            }
            let mut left = column.numbers(0, format);
            prop_assert_eq!(left.next_histogram(&shape), &snapshot);
            let mut left = column.numbers(left.read(), format);
            for number in numbers {
                prop_assert_eq!(left.next(), number);
            }
            prop_assert_eq!(left.next_histogram(&shape), &snapshot);
            prop_assert_eq!(left.read(), column.0.len());
        }
    }
}
