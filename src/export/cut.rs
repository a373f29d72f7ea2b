//! What a scrape shows of the fleet: copied at once, written bit by bit.

use std::sync::Arc;

use super::catalogue as c;
use super::column::Column;
use super::format::Format;
use super::protobuf::Protobuf;
use super::samples::PER_TARGET;
use super::sink::Sink;
use crate::roster::{RetiredTotals, Roster, TargetInfo};
use crate::stats::{HistogramSnapshot, Shape};

/// Every target's numbers of one moment, in the order in which they will be written: family by family, as the formats
/// want it. In each target the ledger's equations hold, however long the writing takes.
#[derive(Debug)]
pub(super) struct FleetCut {
    /// For which the numbers were copied.
    format: Format,
    /// Of the workers' histograms.
    shape: Shape,
    targets: Vec<(Arc<str>, Arc<TargetInfo>)>,
    /// One for each family of [`PER_TARGET`].
    columns: [Column; PER_TARGET.len()],
    lag: HistogramSnapshot,
    retired: RetiredTotals,
    workers: usize,
    /// Where the writing goes on: the family, the target in it, and what has been read of the column.
    family: usize,
    target: usize,
    read: usize,
}

impl FleetCut {
    /// Copies what is there now and has a place in the format. Calls `pause` after every target.
    pub(super) fn new(roster: &Roster, format: Format, pause: impl Fn()) -> Self {
        let mut targets = Vec::with_capacity(roster.len());
        let mut columns: [Column; PER_TARGET.len()] = std::array::from_fn(|_| Column::default());
        let retired = roster.visit(|target| {
            for ((_, samples), column) in PER_TARGET.iter().zip(&mut columns) {
                samples.pack(&target.counts, format, column);
            }
            targets.push((target.name, target.info));
            pause();
        });
        columns.iter_mut().for_each(Column::shrink);
        let mut lag = HistogramSnapshot::default();
        for worker in roster.workers() {
            lag.merge(&worker.lag());
        }
        let (shape, workers) = (roster.shape().clone(), roster.workers().len());
        Self { format, shape, targets, columns, lag, retired, workers, family: 0, target: 0, read: 0 }
    }

    /// The memory that it takes, roughly.
    pub(super) fn bytes(&self) -> usize {
        let targets = self.targets.capacity() * size_of::<(Arc<str>, Arc<TargetInfo>)>();
        self.columns.iter().map(Column::bytes).sum::<usize>() + targets
    }

    /// Writes on from where it stopped, until `sink` has `enough`, which is asked before every target. Returns whether
    /// all is written; then it is over. Calls `pause` after every target that it only looks at.
    pub(super) fn write_on<S: Sink>(&mut self, sink: &mut S, enough: impl Fn(&S) -> bool, pause: impl Fn()) -> bool {
        while let Some((metric, samples)) = PER_TARGET.get(self.family) {
            let mut numbers = self.columns[self.family].numbers(self.read, self.format);
            while let Some((name, info)) = self.targets.get(self.target) {
                if enough(sink) {
                    self.read = numbers.read();
                    return false;
                }
                if self.target == 0 {
                    sink.sized_family(*metric, || self.message_bytes(self.family, &pause));
                }
                samples.write((name, info), &mut numbers, sink);
                self.target += 1;
            }
            (self.family, self.target, self.read) = (self.family + 1, 0, 0);
        }
        self.write_process(sink);
        true
    }

    /// How many bytes a family's samples take as protobuf messages.
    fn message_bytes(&self, family: usize, pause: impl Fn()) -> usize {
        let (metric, samples) = &PER_TARGET[family];
        let mut numbers = self.columns[family].numbers(0, self.format);
        let mut scratch = Protobuf::samples_only(*metric);
        let message_bytes = |(name, info): &(Arc<str>, Arc<TargetInfo>)| {
            scratch.out.clear();
            samples.write((name, info), &mut numbers, &mut scratch);
            pause();
            scratch.out.len()
        };
        self.targets.iter().map(message_bytes).sum()
    }

    /// What belongs to no target.
    fn write_process(&self, sink: &mut impl Sink) {
        sink.family(c::LAG);
        sink.histogram(&[], &self.shape, &self.lag);
        sink.family(c::RETIRED);
        let retired = &self.retired;
        for (stage, count) in [
            ("scheduled", retired.scheduled),
            ("dropped", retired.dropped),
            ("started", retired.started),
            ("finished", retired.finished),
            ("canceled", retired.canceled),
        ] {
            sink.value(&[stage], count as f64);
        }
        sink.family(c::WORKERS);
        sink.value(&[], self.workers as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn others_may_run_after_each_target() {
        let roster = Roster::new(Shape::new(3, &[1.0]), Vec::new());
        for name in ["a", "b", "c"] {
            roster.describe(&name.into(), TargetInfo::plain());
        }
        let pauses = Cell::new(0);
        FleetCut::new(&roster, Format::Text, || pauses.set(pauses.get() + 1));
        assert_eq!(pauses.get(), 3);
    }
}
