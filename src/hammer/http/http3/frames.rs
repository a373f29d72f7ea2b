//! Follows the frames (RFC 9114, 7.1) of a stream as its bytes come in.
//!
//! h3 0.0.8 keeps a whole frame in memory, however long the peer says that it is, takes a body that ends inside a frame,
//! and one with an empty frame, for a whole one, and keeps to itself which requests a GOAWAY leaves unserved. All of it is
//! seen here.

use std::fmt;

/// Largest frame other than DATA: heads, above all. hyper takes no larger one over HTTP/1.1 either.
const MAX_FRAME_BYTES: u64 = 400 << 10;
/// Such frames on one stream: an endless series of interim responses would take the whole worker. What is past this is
/// not looked at, and the deadline comes.
const MAX_FRAMES: u32 = 100;

const CONTROL_STREAM: u64 = 0x0;
const DATA: u64 = 0x0;
const HEADERS: u64 = 0x1;
const GOAWAY: u64 = 0x7;

/// See the module.
#[derive(Debug)]
pub(super) struct Frames {
    place: Place,
    /// Of the number that is being read.
    number: Number,
    kind: u64,
    is_request: bool,
    began: bool,
    /// Frames other than DATA.
    others: u32,
    body: Body,
    /// The first request that a GOAWAY leaves unserved.
    farewell: Option<u64>,
}

/// The DATA frames so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Body {
    /// How many.
    pub(super) frames: u64,
    /// Their bytes, also those that have not come yet.
    pub(super) bytes: u64,
}

/// What the next byte belongs to.
#[derive(Debug, Clone, Copy)]
enum Place {
    StreamType,
    Kind,
    Length,
    /// So many more bytes of a frame.
    Inside(u64),
    /// A stream without frames.
    Elsewhere,
}

/// A number of variable length (RFC 9000, 16), half read.
#[derive(Debug, Default)]
struct Number {
    value: u64,
    missing: Option<u8>,
}

/// What is wrong with a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Violation {
    /// A frame that nobody keeps in memory.
    Large(u64),
    /// It ended before its response did.
    Short,
    /// More frames than anybody needs came before the response.
    Endless,
}

impl Frames {
    /// Of a request.
    pub(super) fn of_request() -> Self {
        Self::new(Place::Kind, true)
    }

    /// Of a stream that the peer opened.
    pub(super) fn of_peer() -> Self {
        Self::new(Place::StreamType, false)
    }

    fn new(place: Place, is_request: bool) -> Self {
        let number = Number::default();
        Self { place, number, kind: 0, is_request, began: false, others: 0, body: Body::default(), farewell: None }
    }

    /// More bytes have come.
    pub(super) fn follow(&mut self, mut bytes: &[u8]) -> Result<(), Violation> {
        while let Some((&first, rest)) = bytes.split_first() {
            match self.place {
                Place::Elsewhere => return Ok(()),
                Place::Inside(left) if self.kind != GOAWAY => {
                    let taken = left.min(bytes.len() as u64);
                    bytes = &bytes[taken as usize..];
                    self.place = if taken == left { Place::Kind } else { Place::Inside(left - taken) };
                }
                _ => {
                    bytes = rest;
                    if let Some(value) = self.number.add(first) {
                        self.read(value)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// A number is complete.
    fn read(&mut self, value: u64) -> Result<(), Violation> {
        self.place = match self.place {
            Place::StreamType if value == CONTROL_STREAM => Place::Kind,
            Place::StreamType | Place::Elsewhere => Place::Elsewhere,
            Place::Kind => {
                self.kind = value;
                Place::Length
            }
            Place::Length => {
                self.began |= self.kind == HEADERS;
                if self.kind == DATA {
                    self.body.frames += 1;
                    self.body.bytes = self.body.bytes.saturating_add(value);
                } else {
                    self.check(value)?;
                }
                if value == 0 { Place::Kind } else { Place::Inside(value) }
            }
            // Of a GOAWAY, which is this number and nothing else.
            Place::Inside(_) => {
                self.farewell = Some(value);
                Place::Kind
            }
        };
        Ok(())
    }

    fn check(&mut self, bytes: u64) -> Result<(), Violation> {
        if bytes > MAX_FRAME_BYTES {
            return Err(Violation::Large(bytes));
        }
        self.others = self.others.saturating_add(1);
        if self.is_request && self.others > MAX_FRAMES { Err(Violation::Endless) } else { Ok(()) }
    }

    /// No more bytes will come.
    pub(super) fn end(&self) -> Result<(), Violation> {
        let whole = matches!(self.place, Place::Kind) && self.number.missing.is_none() && self.began;
        if self.is_request && !whole { Err(Violation::Short) } else { Ok(()) }
    }

    /// What there is of a body.
    pub(super) fn body(&self) -> Body {
        self.body
    }

    /// The first request that the peer will not serve, if it said farewell.
    pub(super) fn farewell(&self) -> Option<u64> {
        self.farewell
    }
}

impl Number {
    fn add(&mut self, byte: u8) -> Option<u64> {
        let missing = match self.missing {
            None => {
                self.value = u64::from(byte & 0x3f);
                (1_u8 << (byte >> 6)) - 1
            }
            Some(missing) => {
                self.value = self.value << 8 | u64::from(byte);
                missing - 1
            }
        };
        self.missing = (missing > 0).then_some(missing);
        (missing == 0).then_some(self.value)
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Large(bytes) => write!(f, "a frame of {bytes} bytes, other than DATA, is too large"),
            Self::Short => f.write_str("the stream ended before the response did"),
            Self::Endless => f.write_str("more and more frames come before the response"),
        }
    }
}

impl std::error::Error for Violation {}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &[u8] = b"\x01\x03\x00\x00\xd9";

    fn followed(mut frames: Frames, bytes: &[u8], at_once: usize) -> Result<Frames, Violation> {
        bytes.chunks(at_once).try_for_each(|chunk| frames.follow(chunk)).map(|()| frames)
    }

    #[test]
    fn a_response_is_whole_between_its_frames_and_short_inside_them_however_it_is_cut() {
        let response = [HEAD, b"\x00\x40\x03abc\x00\x00\x21\x02xx"].concat();
        // After the head; after the body; after an empty DATA frame; after a frame that nobody knows.
        let whole = [5, 11, 13, response.len()];
        for length in 0..=response.len() {
            for at_once in 1..=response.len() {
                let frames = followed(Frames::of_request(), &response[..length], at_once).expect("fine so far");
                let expected = if whole.contains(&length) { Ok(()) } else { Err(Violation::Short) };
                assert_eq!(frames.end(), expected, "{length} bytes, {at_once} at once");
            }
        }
        let frames = followed(Frames::of_request(), &response, 2).expect("no violation");
        assert_eq!(frames.body(), Body { frames: 2, bytes: 3 });
    }

    #[test]
    fn a_frame_that_must_be_kept_is_bounded_and_one_of_data_is_not() {
        let most = [0x80, 0x06, 0x40, 0x00];
        let large = |kind: &[u8]| followed(Frames::of_request(), &[kind, &[0xc0, 0, 0, 0, 0x40, 0, 0, 0]].concat(), 3);
        assert_eq!(large(b"\x01").map(|_| ()), Err(Violation::Large(1 << 30)));
        assert_eq!(large(b"\x21").map(|_| ()), Err(Violation::Large(1 << 30)));
        assert!(large(b"\x00").is_ok());
        assert!(followed(Frames::of_request(), &[b"\x01".as_slice(), &most].concat(), 9).is_ok());
    }

    #[test]
    fn interim_responses_without_end_are_noticed() {
        let mut frames = Frames::of_request();
        let ended = (0..200).find_map(|count| frames.follow(HEAD).err().map(|violation| (count, violation)));
        assert_eq!(ended, Some((100, Violation::Endless)));
    }

    #[test]
    fn a_farewell_is_found_on_the_control_stream_and_nowhere_else() {
        // Stream type, SETTINGS, GOAWAY with 0x40 as its number in two bytes, one frame more.
        let control = b"\x00\x04\x02\x06\x10\x07\x02\x40\x40\x21\x01x";
        for at_once in 1..=control.len() {
            let frames = followed(Frames::of_peer(), control, at_once).expect("no violation");
            assert_eq!(frames.farewell(), Some(0x40), "{at_once} at once");
        }
        let qpack = followed(Frames::of_peer(), b"\x02\x07\x01\x00", 1).expect("no violation");
        assert_eq!(qpack.farewell(), None);
    }
}
