//! Durations, counts and sizes, with their ranges in the type.

use std::time::Duration;

use serde_json::{Value as Json, json};

use super::super::node::{Node, Shape};
use super::{Refusal, Scalar, or_variable, pattern};

/// A duration, accepted from `MIN` to `MAX` microseconds.
pub(in super::super) struct Span<const MIN: u64, const MAX: u64>;

impl<const MIN: u64, const MAX: u64> Scalar for Span<MIN, MAX> {
    type Value = Duration;

    fn parse(node: &Node) -> Result<Duration, Refusal> {
        let (min, max) = (Duration::from_micros(MIN), Duration::from_micros(MAX));
        let accepted = || {
            let (min, max) = (display_duration(min), display_duration(max));
            Refusal::Shown(format!("a duration here is {min} to {max}, with its unit, as in 250us, 10s or 5m"))
        };
        node.as_text().and_then(parse_duration).filter(|duration| (min..=max).contains(duration)).ok_or_else(accepted)
    }

    fn schema() -> Json {
        pattern(r"\s*([0-9]+\s*(ns|us|ms|s|m|min|h)\s*)+")
    }
}

/// Reads `250us`, `10s`, `1h30m`: whole numbers, each with a unit.
fn parse_duration(text: &str) -> Option<Duration> {
    const UNITS: [&str; 7] = ["ns", "us", "ms", "s", "m", "min", "h"];
    let mut words = text.split(|c: char| c.is_ascii_digit() || c.is_ascii_whitespace()).filter(|word| !word.is_empty());
    // The crate knows more: fractions, years, a zero without a unit. What the schema promises is what is read.
    let known = words.clone().next().is_some() && words.all(|word| UNITS.contains(&word));
    humantime::parse_duration(text.trim()).ok().filter(|_| known)
}

/// The shortest text that reads back as the same duration.
pub(in super::super) fn display_duration(duration: Duration) -> String {
    let text = humantime::format_duration(duration).to_string();
    text.replace("day", "d").replace(' ', "")
}

/// A whole number, accepted from `MIN` to `MAX`.
pub(in super::super) struct Count<const MIN: u64, const MAX: u64>;

impl<const MIN: u64, const MAX: u64> Scalar for Count<MIN, MAX> {
    type Value = u64;

    fn parse(node: &Node) -> Result<u64, Refusal> {
        node.integer()
            .and_then(|count| u64::try_from(count).ok())
            .filter(|count| (MIN..=MAX).contains(count))
            .ok_or_else(|| Refusal::Shown(format!("it is a whole number from {MIN} to {MAX}")))
    }

    fn schema() -> Json {
        or_variable(&json!({ "type": "integer", "minimum": MIN, "maximum": MAX }))
    }
}

/// A number of bytes, up to a gibibyte.
pub(in super::super) struct Size;

/// The largest [`Size`].
pub(in super::super) const MAX_SIZE: u64 = 1 << 30;
const UNITS: [(&str, u64); 8] = [
    ("", 1),
    ("B", 1),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

impl Scalar for Size {
    type Value = u64;

    fn parse(node: &Node) -> Result<u64, Refusal> {
        let size = match &node.shape {
            Shape::Integer(bytes) => u64::try_from(*bytes).ok(),
            Shape::Text(text) => parse_size(&text.content),
            _ => None,
        };
        let accepted = "a size is 0 to 1GiB, as in 65536, 64KiB or 1MB";
        size.filter(|size| *size <= MAX_SIZE).ok_or_else(|| Refusal::Shown(accepted.to_owned()))
    }

    fn schema() -> Json {
        let bytes = json!({ "type": "integer", "minimum": 0, "maximum": MAX_SIZE });
        json!({ "anyOf": [bytes, pattern(r"[0-9]+ ?(B|kB|KB|MB|KiB|MiB|GiB)?")] })
    }
}

/// Reads `64KiB`, `1MB`, `512 B` or `512`.
fn parse_size(text: &str) -> Option<u64> {
    let end = text.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = if unit == " " { return None } else { unit.strip_prefix(' ').unwrap_or(unit) };
    let (_, bytes) = UNITS.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*bytes)
}

/// The shortest text that reads back as the same size.
pub(in super::super) fn display_size(bytes: u64) -> String {
    let largest = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)]
        .into_iter()
        .find(|(_, unit)| bytes > 0 && bytes.is_multiple_of(*unit));
    largest.map_or_else(|| format!("{bytes}B"), |(name, unit)| format!("{}{name}", bytes / unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_whole_numbers_with_units() {
        let micros = Duration::from_micros;
        for (text, want) in [
            ("250us", Some(micros(250))),
            ("10s", Some(micros(10_000_000))),
            ("5m", Some(micros(300_000_000))),
            ("5min", Some(micros(300_000_000))),
            ("1h 30m", Some(micros(5_400_000_000))),
            ("0s", Some(micros(0))),
            ("", None),
            ("0", None),
            ("10", None),
            ("-1s", None),
            ("1.5s", None),
            ("1y", None),
            ("ten s", None),
            ("99999999999999999999h", None),
        ] {
            assert_eq!(parse_duration(text), want, "{text:?}");
            let again = want.map(display_duration);
            assert_eq!(again.as_deref().and_then(parse_duration), want, "{text:?} printed as {again:?} reads back");
        }
    }

    #[test]
    fn sizes_are_whole_numbers_of_bytes() {
        for (text, want) in [
            ("64KiB", Some(65_536)),
            ("1MiB", Some(1_048_576)),
            ("1MB", Some(1_000_000)),
            ("10 kB", Some(10_000)),
            ("512", Some(512)),
            ("0", Some(0)),
            ("", None),
            ("512 ", None),
            ("MiB", None),
            ("1.5MiB", None),
            ("1mib", None),
            ("-1", None),
            ("99999999999999999999GiB", None),
            ("18446744073709551615GiB", None),
        ] {
            assert_eq!(parse_size(text), want, "{text:?}");
            let again = want.map(display_size);
            assert_eq!(again.as_deref().and_then(parse_size), want, "{text:?} printed as {again:?} reads back");
        }
    }
}
