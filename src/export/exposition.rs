//! The text of a scrape in pieces, so that nobody needs the memory for all of it.

use super::cut::FleetCut;
use super::text::Text;

/// Pieces are about as long as this, and longer by one target's part of a family at most; except for the last one, which
/// is as long as what the registry's collectors have to say.
const PIECE_BYTES: usize = 64 << 10;
/// Room behind that for what one target says in a family, so that the piece need not be moved.
const ROOM_BYTES: usize = 16 << 10;

/// A scrape whose values are gathered and whose text is written as it is asked for.
///
/// The pieces, one after the other, are the text. However late they are asked for, they tell of the moment of
/// [`Exports::exposition`](super::Exports::exposition).
pub struct Exposition {
    fleet: Option<FleetCut>,
    text: Text,
    /// What comes behind the fleet.
    rest: String,
}

impl Exposition {
    pub(super) fn new(fleet: Option<FleetCut>, mut rest: String) -> Self {
        rest.shrink_to_fit();
        Self { fleet, text: Text::default(), rest }
    }

    /// The next piece, never empty; `None` when there is no more.
    pub fn next_piece(&mut self) -> Option<String> {
        if let Some(fleet) = &mut self.fleet {
            self.text.out = String::with_capacity(PIECE_BYTES + ROOM_BYTES);
            if fleet.write_on(&mut self.text, |text| text.out.len() >= PIECE_BYTES) {
                self.fleet = None;
            }
        }
        if self.fleet.is_none() && self.text.out.len() + self.rest.len() <= PIECE_BYTES {
            self.text.out.push_str(&std::mem::take(&mut self.rest));
        }
        let source = if self.text.out.is_empty() { &mut self.rest } else { &mut self.text.out };
        let piece = std::mem::take(source);
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
            roster.describe(&name, TargetInfo::plain());
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

    fn pieces(mut exposition: Exposition) -> Vec<String> {
        std::iter::from_fn(|| exposition.next_piece()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn the_pieces_are_the_text_cut_behind_lines(targets in 0..120_usize, name in 0..300_usize, rest in 0..200_000_usize) {
            let (fleet, _writers) = fleet(targets, name);
            let whole = text::encode(&fleet.collect()).expect("text") + &"x\n".repeat(rest / 2);
            let mut exposition = Exposition::new(Some(fleet.cut(|| ())), "x\n".repeat(rest / 2));
            let mut together = String::new();
            while !exposition.is_over() {
                let piece = exposition.next_piece().expect("it is not over");
                prop_assert!(piece.ends_with('\n'));
                let is_the_rest = exposition.is_over() && piece.len() == rest / 2 * 2;
                prop_assert!(is_the_rest || piece.len() < PIECE_BYTES + ROOM_BYTES + TARGET_LINES * 3 * name);
                together += &piece;
            }
            prop_assert_eq!(exposition.next_piece(), None);
            prop_assert!(together == whole);
        }
    }

    #[test]
    fn all_pieces_tell_of_one_moment() {
        let (fleet, writers) = fleet(200, 10);
        let whole = text::encode(&fleet.collect()).expect("text");
        let mut exposition = Exposition::new(Some(fleet.cut(|| ())), String::new());
        let mut late = exposition.next_piece().expect("a piece");
        for writer in &writers {
            strike(writer, 1);
        }
        let rest = pieces(exposition);
        assert!(rest.len() > 5);
        late.extend(rest);
        assert!(late == whole, "a request that came later shows");
    }

    #[test]
    fn what_waits_to_be_written_is_small() {
        let (fleet, _writers) = fleet(500, 0);
        let exposition = Exposition::new(Some(fleet.cut(|| ())), String::new());
        let held_bytes = exposition.held_bytes();
        let text_bytes: usize = pieces(exposition).iter().map(String::len).sum();
        assert!((1..text_bytes / 20).contains(&held_bytes), "{held_bytes} bytes held for {text_bytes}");
    }

    #[test]
    fn nothing_to_say_is_no_piece() {
        let exposition = Exposition::new(None, String::new());
        assert!(exposition.is_over());
        assert_eq!(pieces(exposition), [""; 0]);
    }
}
