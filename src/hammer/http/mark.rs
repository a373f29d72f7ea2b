//! What tells each request from all others: an id for the target's log, and a trace context.

use std::cell::Cell;
use std::hash::{BuildHasher as _, RandomState};

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::config::{HttpRequest, Traceparent};

/// Marks every request of a hammer, in the ways that its target asks for.
#[derive(Debug)]
pub(super) struct Marks {
    id_header: Option<HeaderName>,
    traceparent: Traceparent,
    /// Random: what tells them from those of other hammers, here, before a reload, and anywhere else.
    seeds: [u64; 3],
    drawn: Cell<u64>,
}

/// The mark of one request, which it keeps however often it is sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark<'a> {
    marks: &'a Marks,
    number: u64,
}

impl Marks {
    /// Those that a target asks for, if it does.
    pub(super) fn of(spec: &HttpRequest) -> Option<Self> {
        let (id_header, traceparent) = (spec.request_id_header.clone(), spec.traceparent);
        (id_header.is_some() || traceparent != Traceparent::Off).then(|| Self::new(id_header, traceparent))
    }

    fn new(id_header: Option<HeaderName>, traceparent: Traceparent) -> Self {
        let random = RandomState::new();
        let seeds = std::array::from_fn(|index| random.hash_one(index));
        Self { id_header, traceparent, seeds, drawn: Cell::new(0) }
    }

    /// The next one.
    pub(super) fn draw(&self) -> Mark<'_> {
        Mark { marks: self, number: self.drawn.replace(self.drawn.get().wrapping_add(1)) }
    }
}

impl Mark<'_> {
    /// Adds the headers that carry it.
    pub(super) fn put(self, headers: &mut HeaderMap) {
        let mut insert = |name: HeaderName, value: &[u8]| {
            if let Ok(value) = HeaderValue::from_bytes(value) {
                headers.insert(name, value);
            }
        };
        if let Some(name) = &self.marks.id_header {
            // A random half and a number, 16 hexadecimal digits each.
            let mut id = [0; 32];
            digits(&mut id[..16], self.marks.seeds[0]);
            digits(&mut id[16..], self.number);
            insert(name.clone(), &id);
        }
        if let Some(trace_id) = self.trace_id() {
            insert(HeaderName::from_static("traceparent"), &self.context(trace_id));
        }
    }

    /// Its trace id, if it has a trace context.
    pub(super) fn trace_id(self) -> Option<u128> {
        let [high, low] = [1, 2].map(|seed| scatter(self.marks.seeds[seed].wrapping_add(self.number)));
        // Zero is no trace id.
        (self.marks.traceparent != Traceparent::Off).then_some(u128::from(high) << 64 | u128::from(low.max(1)))
    }

    /// The `traceparent` header of version 00: <https://www.w3.org/TR/trace-context/#traceparent-header>. There is no
    /// span of ours that anybody could look up, so the parent's id only has to be there.
    fn context(self, trace_id: u128) -> [u8; 55] {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        digits(&mut text[3..19], (trace_id >> 64) as u64);
        digits(&mut text[19..35], trace_id as u64);
        digits(&mut text[36..52], scatter(trace_id as u64).max(1));
        if self.marks.traceparent == Traceparent::Sampled {
            text[54] = b'1';
        }
        text
    }
}

/// Writes a number as hexadecimal digits.
fn digits(text: &mut [u8], number: u64) {
    for (place, digit) in text.iter_mut().rev().enumerate() {
        *digit = b"0123456789abcdef"[(number >> (4 * place)) as usize & 15];
    }
}

/// Makes random-looking numbers of consecutive ones, and different ones of different ones: the output function of
/// `SplitMix64` (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
fn scatter(number: u64) -> u64 {
    let number = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn ids() -> Marks {
        Marks::new(Some(HeaderName::from_static("x-request-id")), Traceparent::Off)
    }

    fn header(mark: Mark<'_>, name: &str) -> Option<String> {
        let mut headers = HeaderMap::new();
        mark.put(&mut headers);
        headers.get(name).map(|value| value.to_str().expect("digits").to_owned())
    }

    fn id(mark: Mark<'_>) -> String {
        header(mark, "x-request-id").expect("an id")
    }

    #[test]
    fn an_id_is_a_random_half_and_a_number_in_hexadecimal_digits() {
        let marks = Marks { seeds: [0x0123_4567_89ab_cdef, 0, 0], drawn: Cell::new(0xfe), ..ids() };
        let texts = [0; 3].map(|_| id(marks.draw()));
        let numbers = ["00000000000000fe", "00000000000000ff", "0000000000000100"];
        assert_eq!(texts, numbers.map(|number| format!("0123456789abcdef{number}")));
        assert_eq!(header(marks.draw(), "traceparent"), None);
        assert_eq!(marks.draw().trace_id(), None);
    }

    #[test]
    fn an_id_stays_the_same_and_no_other_is_like_it() {
        let hammers: Vec<_> = (0..100).map(|_| ids()).collect();
        let all: Vec<_> = hammers.iter().flat_map(|marks| [marks.draw(), marks.draw(), marks.draw()]).collect();
        let texts: HashSet<_> = all.iter().map(|mark| id(*mark)).collect();
        assert_eq!(texts.len(), 300);
        assert!(all.iter().all(|mark| texts.contains(&id(*mark))), "an id that changes");
    }

    #[test]
    fn a_trace_context_is_as_the_recommendation_has_it() {
        for (traceparent, flags) in [(Traceparent::Unsampled, "00"), (Traceparent::Sampled, "01")] {
            let marks = Marks::new(None, traceparent);
            let mut seen = HashSet::new();
            for _ in 0..1000 {
                let mark = marks.draw();
                let text = header(mark, "traceparent").expect("a trace context");
                let fields: Vec<_> = text.split('-').collect();
                let [version, trace_id, parent_id, found_flags] = fields[..] else { panic!("{text}") };
                assert_eq!((version, found_flags), ("00", flags), "{text}");
                assert_eq!((trace_id.len(), parent_id.len()), (32, 16), "{text}");
                assert!(text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-')), "{text}");
                assert!([trace_id, parent_id].iter().all(|id| id.bytes().any(|byte| byte != b'0')), "{text}");
                assert_eq!(u128::from_str_radix(trace_id, 16).ok(), mark.trace_id());
                assert_eq!(header(mark, "traceparent"), Some(text.clone()), "one that changes");
                assert!(seen.insert(text[3..35].to_owned()), "{text} twice");
            }
        }
    }

    /// Backends sample by the last digits: they must be spread evenly.
    #[test]
    fn trace_ids_are_spread() {
        let marks = Marks::new(None, Traceparent::Sampled);
        let mut counts = [0; 16];
        for _ in 0..16_000 {
            counts[marks.draw().trace_id().expect("an id") as usize % 16] += 1;
        }
        // Six standard deviations of a fair die.
        assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
    }
}
