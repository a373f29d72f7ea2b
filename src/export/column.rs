//! Numbers kept small for the time that a scrape takes to leave.
//!
//! Most of a target's numbers are 0 or have a few digits, so each takes seven bits to a byte (LEB128, as in DWARF), and a
//! histogram without a value takes one byte: 10,000 targets are some megabytes and not some tens of them.

use crate::stats::{HistogramSnapshot, Shape};

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

    /// What the classic form of a histogram needs.
    pub(super) fn push_histogram(&mut self, histogram: &HistogramSnapshot) {
        self.push(histogram.count);
        if histogram.count > 0 {
            self.0.extend(histogram.sum_seconds.to_le_bytes());
            histogram.classic.iter().for_each(|&count| self.push(count));
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
    pub(super) fn numbers(&self, read: usize) -> Numbers<'_> {
        Numbers { column: &self.0, read, histogram: HistogramSnapshot::default() }
    }
}

/// Reads a [`Column`].
#[derive(Debug)]
pub(super) struct Numbers<'a> {
    column: &'a [u8],
    read: usize,
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

    /// The next histogram, without what its classic form does not need.
    pub(super) fn next_histogram(&mut self, shape: &Shape) -> &HistogramSnapshot {
        let count = self.next();
        self.histogram.count = count;
        self.histogram.sum_seconds = 0.0;
        self.histogram.classic.clear();
        if count > 0 {
            let (sum, end) = (self.read, self.read + size_of::<f64>());
            self.histogram.sum_seconds = self.column[sum..end].try_into().map_or(0.0, f64::from_le_bytes);
            self.read = end;
            for _ in shape.bounds() {
                let count = self.next();
                self.histogram.classic.push(count);
            }
        }
        &self.histogram
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
            numbers in prop::collection::vec(prop_oneof![0..300_u64, any::<u64>()], 0..50),
            values_ns in prop::collection::vec(0..4_000_000_000_u64, 0..50),
        ) {
            let shape = Shape::new(3, &[0.001, 0.1, 1.0]);
            let histogram = Histogram::default();
            for value_ns in values_ns {
                histogram.record(&shape, value_ns);
            }
            let snapshot = histogram.snapshot(&shape);
            let mut column = Column::default();
            column.push_histogram(&snapshot);
            for &number in &numbers {
                column.push(number);
            }
            column.push_histogram(&snapshot);

            let classic = HistogramSnapshot { max_ns: 0, zero: 0, native: Vec::new(), ..snapshot };
            let mut left = column.numbers(0);
            prop_assert_eq!(left.next_histogram(&shape), &classic);
            let mut left = column.numbers(left.read());
            for number in numbers {
                prop_assert_eq!(left.next(), number);
            }
            prop_assert_eq!(left.next_histogram(&shape), &classic);
            prop_assert_eq!(left.read(), column.0.len());
        }
    }
}
