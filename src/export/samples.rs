//! What there is to say of each target: one table, read twice.
//!
//! First a scrape takes a target's numbers out of a copy of its counts into [columns](super::cut), then, when the family's
//! turn has come, it reads them back and writes them.

use super::catalogue::{self as c, Metric};
use super::column::{Column, Numbers};
use super::format::Format;
use super::sink::Sink;
use crate::outcome::{DropReason, Reason, Stage, Verdict};
use crate::roster::TargetInfo;
use crate::stats::{CloseReason, HistogramSnapshot, Snapshot};

/// The samples of one target in one family.
pub(super) enum Samples {
    /// One count.
    Count(fn(&Snapshot) -> u64),
    /// One count, for the targets where it is not 0.
    NonZero(fn(&Snapshot) -> u64),
    /// A count for each value of the second label, those never met included.
    Counts(&'static [&'static str], fn(&Snapshot) -> &[u64]),
    /// A histogram for each value of the second label.
    Histograms(&'static [&'static str], fn(&Snapshot) -> &[HistogramSnapshot]),
    /// A count for each status code seen.
    Responses,
    /// A number that no request changes.
    Known(fn(&TargetInfo) -> f64),
    /// A number that no request changes, for the targets that have it.
    MaybeKnown(fn(&TargetInfo) -> Option<f64>),
    /// 1, with what is known as labels.
    Info,
}

use Samples::{Count, Counts, Histograms, Info, Known, MaybeKnown, NonZero, Responses};

const DROPPED: &[&str] = &DropReason::LABELS;
const FAILURES: &[&str] = &Reason::LABELS;
const VERDICTS: &[&str] = &Verdict::LABELS;
const STAGES: &[&str] = &Stage::LABELS;
const CLOSED: &[&str] = &CloseReason::LABELS;

/// Every family that has samples of targets, in the order in which they are written.
pub(super) const PER_TARGET: &[(Metric, Samples)] = &[
    (c::SCHEDULED, Count(|counts| counts.scheduled)),
    (c::STARTED, Count(|counts| counts.started)),
    (c::FINISHED, Count(|counts| counts.finished)),
    (c::CANCELED, Count(|counts| counts.canceled)),
    (c::DROPPED, Counts(DROPPED, |counts| &counts.dropped)),
    (c::FAILURES, Counts(FAILURES, |counts| &counts.failures)),
    (c::RESPONSES, Responses),
    (c::LATENCY, Histograms(VERDICTS, |counts| &counts.latency)),
    (c::DURATION, Histograms(VERDICTS, |counts| &counts.duration)),
    (c::PHASE, Histograms(STAGES, |counts| &counts.stages)),
    (c::IN_FLIGHT, Count(|counts| counts.in_flight)),
    (c::IN_FLIGHT_LIMIT, Known(|info| info.max_in_flight as f64)),
    (c::ASKED_RATE, Known(|info| info.rate_per_second)),
    (c::TARGET_INFO, Info),
    (c::CONNECTIONS_OPEN, Count(|counts| counts.wire.open)),
    (c::CONNECTIONS_OPENED, Count(|counts| counts.wire.opened)),
    (c::CONNECTIONS_CLOSED, Counts(CLOSED, |counts| &counts.wire.closed)),
    (c::SENT_BYTES, Count(|counts| counts.wire.sent_bytes)),
    (c::RECEIVED_BYTES, Count(|counts| counts.wire.received_bytes)),
    (c::DNS_ADDRESSES, Count(|counts| counts.wire.dns_addresses)),
    (c::CERTIFICATE_NOT_AFTER, NonZero(|counts| counts.wire.certificate_not_after)),
    (c::INSECURE, MaybeKnown(|info| info.insecure.map(|insecure| f64::from(u8::from(insecure))))),
];

impl Samples {
    /// Puts a target's numbers at the end of the family's column.
    pub(super) fn pack(&self, counts: &Snapshot, format: Format, column: &mut Column) {
        match self {
            Count(count) | NonZero(count) => column.push(count(counts)),
            Counts(_, of) => of(counts).iter().for_each(|&count| column.push(count)),
            Histograms(_, of) => {
                for histogram in of(counts) {
                    column.push_histogram(histogram, format);
                }
            }
            Responses => {
                column.push(counts.responses.len() as u64);
                for &(status, count) in &counts.responses {
                    column.push(u64::from(status));
                    column.push(count);
                }
            }
            Known(_) | MaybeKnown(_) | Info => {}
        }
    }

    /// Writes the samples of a target whose numbers are the next of the family's column.
    pub(super) fn write(&self, (name, info): (&str, &TargetInfo), numbers: &mut Numbers<'_>, sink: &mut impl Sink) {
        match self {
            Count(_) => sink.value(&[name], numbers.next() as f64),
            Counts(labels, _) => labels.iter().for_each(|label| sink.value(&[name, label], numbers.next() as f64)),
            Histograms(labels, _) => {
                for label in *labels {
                    sink.histogram(&[name, label], &info.shape, numbers.next_histogram(&info.shape));
                }
            }
            Responses => write_responses(name, numbers, sink),
            NonZero(_) => {
                let number = numbers.next();
                if number > 0 {
                    sink.value(&[name], number as f64);
                }
            }
            MaybeKnown(number) => {
                if let Some(number) = number(info) {
                    sink.value(&[name], number);
                }
            }
            Known(number) => sink.value(&[name], number(info)),
            Info => sink.info(&[name, info.protocol, &info.authority], &info.labels),
        }
    }
}

fn write_responses(name: &str, numbers: &mut Numbers<'_>, sink: &mut impl Sink) {
    let codes = numbers.next();
    let mut seen_good = false;
    for _ in 0..codes {
        let (status, count) = (numbers.next(), numbers.next() as f64);
        seen_good |= status == 200;
        if status == u64::from(Snapshot::OTHER_STATUS) {
            sink.value(&[name, "other"], count);
        } else {
            sink.value(&[name, itoa::Buffer::new().format(status)], count);
        }
    }
    // A healthy target's series is there before its first response, and stays when another code comes first: a rate of what
    // begins anew lacks its beginning, and an alert on what is not there never fires.
    if !seen_good {
        sink.value(&[name, "200"], 0.0);
    }
}
