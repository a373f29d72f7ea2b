//! Sets of status codes.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use http::StatusCode;

/// The status codes that count as success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusSet {
    /// Rising, apart from each other.
    ranges: Arc<[(u16, u16)]>,
}

impl StatusSet {
    /// How a range is written, for messages.
    pub(super) const ACCEPTED: &'static str = "100 to 999, as in 204, \"200-399\" or \"2xx\"";

    /// The codes of all the ranges.
    pub fn new(ranges: impl IntoIterator<Item = RangeInclusive<u16>>) -> Self {
        let mut ranges: Vec<_> =
            ranges.into_iter().map(RangeInclusive::into_inner).filter(|(first, last)| first <= last).collect();
        ranges.sort_unstable();
        let mut apart: Vec<(u16, u16)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match apart.last_mut() {
                Some(previous) if first <= previous.1.saturating_add(1) => previous.1 = previous.1.max(last),
                _ => apart.push((first, last)),
            }
        }
        Self { ranges: apart.into() }
    }

    /// Whether a response with this code is a success.
    pub fn contains(&self, code: StatusCode) -> bool {
        self.ranges.iter().any(|(first, last)| (*first..=*last).contains(&code.as_u16()))
    }

    /// The ranges, as they are written.
    pub(super) fn texts(&self) -> impl Iterator<Item = String> {
        self.ranges.iter().map(|(first, last)| match last - first {
            0 => first.to_string(),
            99 if first.is_multiple_of(100) => format!("{}xx", first / 100),
            _ => format!("{first}-{last}"),
        })
    }

    /// Reads `204`, `200-399` or `2xx`.
    pub(super) fn parse_range(text: &str) -> Option<RangeInclusive<u16>> {
        let code = |text: &str| {
            let digits = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|code: &u16| digits && *code >= 100)
        };
        if let Some(class) = text.strip_suffix("xx") {
            return code(&format!("{class}00")).map(|first| first..=first + 99);
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Some(code(first.trim())?..=code(last.trim())?).filter(|range| !range.is_empty())
    }
}

impl fmt::Display for StatusSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.texts().collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_codes_spans_or_classes() {
        for (text, want) in [
            ("204", Some(204..=204)),
            ("200-399", Some(200..=399)),
            ("2xx", Some(200..=299)),
            ("9xx", Some(900..=999)),
            ("999", Some(999..=999)),
            ("", None),
            ("xx", None),
            ("0xx", None),
            ("20", None),
            ("099", None),
            ("1000", None),
            ("399-200", None),
            ("200-", None),
            ("+20", None),
            ("2XX", None),
        ] {
            assert_eq!(StatusSet::parse_range(text), want, "{text:?}");
        }
    }

    #[test]
    fn a_set_holds_its_codes_and_no_other() {
        let set = StatusSet::new([404..=404, 200..=299, 250..=310, 300..=305]);
        assert_eq!(set.to_string(), "200-310, 404");
        for (code, held) in [(199, false), (200, true), (310, true), (311, false), (404, true), (500, false)] {
            assert_eq!(set.contains(StatusCode::from_u16(code).unwrap()), held, "{code}");
        }
        assert_eq!(set, StatusSet::new([200..=310, 404..=404]));
        assert_eq!(StatusSet::new([200..=299]).to_string(), "2xx");
    }
}
