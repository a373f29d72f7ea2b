//! Numbers at seven bits to a byte (LEB128, as in DWARF), to be read in the order in which they came.

/// Appends a number.
pub(super) fn push(packed: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        packed.push(number as u8 | 0x80);
        number >>= 7;
    }
    packed.push(number as u8);
}

/// The next number. Only those may be asked for that were put in.
pub(super) fn take(packed: &mut &[u8]) -> u64 {
    let mut number = 0;
    for shift in (0..).step_by(7) {
        let Some((&byte, rest)) = packed.split_first() else { break };
        *packed = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    number
}

/// Appends with little room to spare: there are thousands of these.
pub(super) fn append(bytes: &mut Vec<u8>, parts: &[&[u8]]) {
    /// Room for a few intervals more, so that not each of them moves the whole.
    const SPARE: usize = 48;
    let length = parts.iter().map(|part| part.len()).sum::<usize>();
    if bytes.capacity() - bytes.len() < length {
        bytes.reserve_exact(length + SPARE);
    }
    for part in parts {
        bytes.extend_from_slice(part);
    }
}

/// Packs slots and counts: each slot as its distance from the one before, with a bit that says whether the count follows.
/// Most counts in an interval are 1, and those don't.
#[derive(Debug, Default)]
pub(super) struct Pairs {
    pub(super) packed: Vec<u8>,
    last: u32,
}

impl Pairs {
    /// Adds a slot behind the last one, and its count of at least 1.
    pub(super) fn push(&mut self, slot: u32, count: u64) {
        let several = count > 1;
        push(&mut self.packed, u64::from(slot - self.last) << 1 | u64::from(several));
        if several {
            push(&mut self.packed, count);
        }
        self.last = slot;
    }
}

/// Reads what [`Pairs`] packed.
pub(super) fn pairs(mut packed: &[u8]) -> impl Iterator<Item = (u32, u64)> {
    let mut slot = 0;
    std::iter::from_fn(move || {
        if packed.is_empty() {
            return None;
        }
        let head = take(&mut packed);
        slot += (head >> 1) as u32;
        Some((slot, if head & 1 == 1 { take(&mut packed) } else { 1 }))
    })
}
