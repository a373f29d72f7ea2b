//! A scrape in pieces, so that nobody needs the memory for all of it.

use prometheus::proto::MetricFamily;

use super::cut::FleetCut;
use super::format::{EncodeError, Format};
use super::protobuf::Protobuf;
use super::text::{Dialect, Text};

/// Pieces are about as long as this, and longer by one target's part of a family at most; except for the last one, which
/// is as long as what the registry's collectors have to say.
const PIECE_BYTES: usize = 64 << 10;
/// Room behind that for what one target says in a family, so that the piece need not be moved.
const ROOM_BYTES: usize = 16 << 10;

/// A scrape whose values are gathered and which is written as it is asked for.
///
/// The pieces, one after the other, are the answer. However late they are asked for, they tell of the moment of
/// [`Exports::exposition`](super::Exports::exposition).
pub struct Exposition {
    fleet: Option<FleetCut>,
    encoder: Encoder,
    /// What comes behind the fleet.
    rest: Vec<u8>,
}

/// What writes the fleet.
enum Encoder {
    Text(Text),
    Protobuf(Protobuf),
}

impl Exposition {
    /// The fleet, copied for this format, and behind it what other collectors gathered.
    pub(super) fn new(fleet: Option<FleetCut>, format: Format, gathered: &[MetricFamily]) -> Result<Self, EncodeError> {
        let mut encoder = Encoder::of(format);
        let mut rest = encoder.gathered(gathered)?;
        rest.shrink_to_fit();
        Ok(Self { fleet, encoder, rest })
    }

    /// The next piece, never empty; `None` when there is no more. Calls `pause` now and then, so that others may use
    /// the processor.
    pub fn next_piece(&mut self, pause: impl Fn()) -> Option<Vec<u8>> {
        let mut piece = Vec::new();
        if let Some(fleet) = &mut self.fleet {
            let is_over;
            (piece, is_over) = self.encoder.write_on(fleet, pause);
            if is_over {
                self.fleet = None;
            }
        }
        if piece.is_empty() {
            piece = std::mem::take(&mut self.rest);
        } else if self.fleet.is_none() && piece.len() + self.rest.len() <= PIECE_BYTES {
            piece.append(&mut self.rest);
        }
        (!piece.is_empty()).then_some(piece)
    }

    /// Whether there are no more pieces.
    pub fn is_over(&self) -> bool {
        self.fleet.is_none() && self.rest.is_empty()
    }

    /// The memory that it takes until it is over, beside the pieces.
    pub fn held_bytes(&self) -> usize {
        self.fleet.as_ref().map_or(0, FleetCut::bytes) + self.rest.len()
    }
}

impl Encoder {
    fn of(format: Format) -> Self {
        match format {
            Format::Text => Self::Text(Text::new(Dialect::Prometheus)),
            Format::OpenMetrics => Self::Text(Text::new(Dialect::OpenMetrics)),
            Format::Protobuf => Self::Protobuf(Protobuf::new()),
        }
    }

    /// Everything that others gathered, and the end of the whole.
    fn gathered(&mut self, families: &[MetricFamily]) -> Result<Vec<u8>, EncodeError> {
        match self {
            Self::Text(text) => {
                text.append(families)?;
                text.out.push_str(text.end());
                Ok(std::mem::take(&mut text.out).into_bytes())
            }
            Self::Protobuf(protobuf) => {
                protobuf.append(families)?;
                Ok(std::mem::take(&mut protobuf.out))
            }
        }
    }

    /// The next piece of the fleet, and whether it is the last one.
    fn write_on(&mut self, fleet: &mut FleetCut, pause: impl Fn()) -> (Vec<u8>, bool) {
        match self {
            Self::Text(text) => {
                text.out = String::with_capacity(PIECE_BYTES + ROOM_BYTES);
                let is_over = fleet.write_on(text, |text| text.out.len() >= PIECE_BYTES, pause);
                (std::mem::take(&mut text.out).into_bytes(), is_over)
            }
            Self::Protobuf(protobuf) => {
                protobuf.out = Vec::with_capacity(PIECE_BYTES + ROOM_BYTES);
                let is_over = fleet.write_on(protobuf, |protobuf| protobuf.out.len() >= PIECE_BYTES, pause);
                protobuf.close();
                (std::mem::take(&mut protobuf.out), is_over)
            }
        }
    }
}

impl std::fmt::Debug for Exposition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exposition").field("held_bytes", &self.held_bytes()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::export::{FleetCollector, text};
    use crate::outcome::{Outcome, Reason, Trace};
    use crate::roster::{Roster, TargetInfo};
    use crate::stats::{LedgerWriter, Shape};
    use prometheus::core::Collector as _;

    /// Lines of one target in its longest family, the phases: three buckets, +Inf, sum and count of five.
    const TARGET_LINES: usize = 5 * 6;

    fn fleet(targets: usize, help: usize) -> (FleetCollector, Vec<LedgerWriter>) {
        let shape = Shape::new(3, &[0.001, 0.01, 1.0]);
        let roster = Roster::new(shape.clone(), Vec::new());
        let join = |number| {
            let name: Arc<str> = format!("{number:05}{}", "\"x".repeat(help)).into();
            roster.describe(&name, TargetInfo { shape: shape.clone(), ..TargetInfo::plain() });
            let (writer, ledger) = LedgerWriter::new(shape.clone());
            roster.enlist(&name, ledger);
            (0..number % 5).for_each(|round| strike(&writer, round as u64));
            writer
        };
        let writers = (0..targets).map(join).collect();
        (FleetCollector::new(Arc::new(roster)).expect("distinct metrics"), writers)
    }

    fn strike(writer: &LedgerWriter, round: u64) {
        writer.start();
        let outcome = if round.is_multiple_of(2) { Outcome::good(200) } else { Outcome::failed(Reason::Eof) };
        writer.finish(outcome, round * 3_000_000, round * 2_000_000, &Trace::new());
    }

    fn pieces(mut exposition: Exposition) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| exposition.next_piece(|| ())).collect()
    }

    fn exposition(fleet: &FleetCollector, format: Format, gathered: &[MetricFamily]) -> Exposition {
        Exposition::new(Some(fleet.cut(format, || ())), format, gathered).expect("sound families")
    }

    /// What a collector of somebody else's gathered.
    fn others(samples: usize) -> Vec<MetricFamily> {
        let opts = prometheus::Opts::new("others", "What others gathered.");
        let family = prometheus::GaugeVec::new(opts, &["number"]).expect("a sound family");
        (0..samples).for_each(|number| family.with_label_values(&[&number.to_string()]).set(1.5));
        family.collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn the_pieces_are_the_text_cut_behind_lines(targets in 0..120_usize, name in 0..300_usize, rest in 1..10_000_usize) {
            let (fleet, _writers) = fleet(targets, name);
            let others = others(rest);
            let whole = text::encode(&[fleet.collect(), others.clone()].concat()).expect("text");
            let rest_bytes = text::encode(&others).expect("text").len();
            let mut exposition = exposition(&fleet, Format::Text, &others);
            let mut together = Vec::new();
            while !exposition.is_over() {
                let piece = exposition.next_piece(|| ()).expect("it is not over");
                prop_assert!(piece.ends_with(b"\n"));
                let is_the_rest = exposition.is_over() && piece.len() == rest_bytes;
                prop_assert!(is_the_rest || piece.len() < PIECE_BYTES + ROOM_BYTES + TARGET_LINES * 3 * name);
                together.extend(piece);
            }
            prop_assert_eq!(exposition.next_piece(|| ()), None);
            prop_assert!(together == whole.as_bytes());
        }
    }

    #[test]
    fn all_pieces_tell_of_one_moment() {
        for format in Format::ALL {
            let (fleet, writers) = fleet(300, 30);
            let whole = pieces(exposition(&fleet, format, &[])).concat();
            let mut exposition = exposition(&fleet, format, &[]);
            let mut late = exposition.next_piece(|| ()).expect("a piece");
            for writer in &writers {
                strike(writer, 1);
            }
            let rest = pieces(exposition);
            assert!(rest.len() > 4, "{format:?}: {} pieces", rest.len());
            late.extend(rest.concat());
            assert!(late == whole, "{format:?}: a request that came later shows");
        }
    }

    #[test]
    fn what_waits_to_be_written_is_small() {
        let (fleet, _writers) = fleet(500, 0);
        let exposition = exposition(&fleet, Format::Text, &[]);
        let held_bytes = exposition.held_bytes();
        let text_bytes: usize = pieces(exposition).iter().map(Vec::len).sum();
        assert!((1..text_bytes / 20).contains(&held_bytes), "{held_bytes} bytes held for {text_bytes}");
    }

    #[test]
    fn nothing_to_say_is_the_end_of_the_format() {
        for (format, end) in [(Format::Text, ""), (Format::OpenMetrics, "# EOF\n"), (Format::Protobuf, "")] {
            let exposition = Exposition::new(None, format, &[]).expect("no family");
            assert_eq!(exposition.is_over(), end.is_empty());
            assert_eq!(pieces(exposition).concat(), end.as_bytes());
        }
    }
}
