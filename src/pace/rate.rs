//! How often: an exact ratio of arrivals to nanoseconds.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

const NANOS_PER_SECOND: u64 = 1_000_000_000;
const NANOS_PER_DAY: u64 = 86_400 * NANOS_PER_SECOND;

/// An exact rate: `count` arrivals every `period_ns` nanoseconds, in lowest terms.
///
/// Written `50`, `50/s`, `2.5/s`, `3/min`, `100/h`, `1/5s` or `7/250ms`: a count, and the time that it is spread over
/// (one second unless said).
/// The ratio is never rounded, so `3/min` and `7777/s` hold their rate for as long as the process lives.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rate {
    count: u64,
    period_ns: u64,
}

/// Why a text or a ratio is not a usable rate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RateError {
    /// The text does not have the form of a rate.
    Syntax,
    /// Below one arrival a day, zero and negative included, or above a million a second.
    OutOfRange,
    /// More digits than the exact arithmetic carries.
    TooPrecise,
}

impl Rate {
    /// What a rate may be, for error messages and documentation.
    pub const ACCEPTED: &'static str = "1/24h to 1000000/s, as in 50, 50/s, 3/min, 100/h or 1/5s";
    /// The largest rate: a million a second.
    pub const MAX_PER_SECOND: u64 = 1_000_000;
    /// The largest numerator in lowest terms; with it a century of arrivals stays inside `u128`.
    const MAX_COUNT: u64 = u32::MAX as u64;

    /// `count` arrivals every `period`.
    pub fn new(count: u64, period: Duration) -> Result<Self, RateError> {
        Self::from_ratio(u128::from(count), period.as_nanos())
    }

    /// `count` arrivals every second.
    ///
    /// # Panics
    /// In a constant or a test only: if `count` is zero or above [`Rate::MAX_PER_SECOND`].
    pub const fn per_second(count: u64) -> Self {
        assert!(count > 0 && count <= Self::MAX_PER_SECOND, "rate out of range");
        let divisor = gcd(count as u128, NANOS_PER_SECOND as u128) as u64;
        Self { count: count / divisor, period_ns: NANOS_PER_SECOND / divisor }
    }

    fn from_ratio(count: u128, period_ns: u128) -> Result<Self, RateError> {
        if count == 0 || period_ns == 0 {
            return Err(RateError::OutOfRange);
        }
        let divisor = gcd(count, period_ns);
        let (count, period_ns) = (count / divisor, period_ns / divisor);
        let too_fast = count.saturating_mul(u128::from(NANOS_PER_SECOND))
            > period_ns.saturating_mul(u128::from(Self::MAX_PER_SECOND));
        let too_slow = period_ns > count.saturating_mul(u128::from(NANOS_PER_DAY));
        if too_fast || too_slow {
            return Err(RateError::OutOfRange);
        }
        if count > u128::from(Self::MAX_COUNT) {
            return Err(RateError::TooPrecise);
        }
        // At most MAX_COUNT days: fits 64 bits only when checked, since the count may be large.
        let period_ns = u64::try_from(period_ns).map_err(|_| RateError::TooPrecise)?;
        Ok(Self { count: count as u64, period_ns })
    }

    /// Arrivals in each [`period_ns`](Self::period_ns).
    pub const fn count(self) -> u64 {
        self.count
    }

    /// Nanoseconds in which [`count`](Self::count) arrivals lie.
    pub const fn period_ns(self) -> u64 {
        self.period_ns
    }

    /// Arrivals per second, for gauges and people; the schedule never uses it.
    pub fn as_per_second(self) -> f64 {
        self.count as f64 * NANOS_PER_SECOND as f64 / self.period_ns as f64
    }
}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let (count, period) = match text.split_once('/') {
            Some((count, period)) => (count.trim(), period.trim()),
            None => (text.trim(), "1s"),
        };
        let (count, scale) = parse_decimal(count)?;
        let period = if period.starts_with(|c: char| c.is_ascii_digit()) {
            humantime::parse_duration(period)
        } else {
            humantime::parse_duration(&format!("1{period}"))
        };
        let period = period.map_err(|_| RateError::Syntax)?;
        Self::from_ratio(count, period.as_nanos().saturating_mul(scale))
    }
}

/// Reads `12` or `0.25` as an integer and the power of ten that divides it.
fn parse_decimal(text: &str) -> Result<(u128, u128), RateError> {
    if let Some(positive) = text.strip_prefix('-') {
        return Err(parse_decimal(positive).map_or_else(|error| error, |_| RateError::OutOfRange));
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || (fraction.is_empty() && text.contains('.')) {
        return Err(RateError::Syntax);
    }
    if whole.len() > 20 {
        return Err(RateError::OutOfRange);
    }
    if fraction.len() > 9 {
        return Err(RateError::TooPrecise);
    }
    let value = format!("{whole}{fraction}").parse().map_err(|_| RateError::Syntax)?;
    Ok((value, 10_u128.pow(fraction.len() as u32)))
}

impl fmt::Display for Rate {
    /// The shortest text that reads back as the same rate.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 3] =
            [(NANOS_PER_SECOND, "s"), (60 * NANOS_PER_SECOND, "min"), (3600 * NANOS_PER_SECOND, "h")];
        for (unit_ns, unit) in UNITS {
            let scaled = u128::from(self.count) * u128::from(unit_ns);
            if scaled.is_multiple_of(u128::from(self.period_ns)) {
                return write!(f, "{}/{unit}", scaled / u128::from(self.period_ns));
            }
        }
        let period = humantime::format_duration(Duration::from_nanos(self.period_ns)).to_string();
        write!(f, "{}/{}", self.count, period.replace(' ', ""))
    }
}

impl fmt::Debug for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for RateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Syntax => "not a rate",
            Self::OutOfRange => "rate out of range",
            Self::TooPrecise => "rate has more digits than can be kept exactly",
        })
    }
}

impl std::error::Error for RateError {}

const fn gcd(mut a: u128, mut b: u128) -> u128 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_read_as_exact_ratios() {
        for (text, count, period_ns) in [
            ("50", 1, 20_000_000),
            ("50/s", 1, 20_000_000),
            ("7777/s", 7777, 1_000_000_000),
            ("2.5/s", 1, 400_000_000),
            ("3/min", 1, 20_000_000_000),
            ("100/h", 1, 36_000_000_000),
            ("1/5s", 1, 5_000_000_000),
            ("7/250ms", 7, 250_000_000),
            ("2/1m30s", 1, 45_000_000_000),
            ("1/24h", 1, 86_400_000_000_000),
            (" 1000000 / s ", 1, 1_000),
        ] {
            let rate: Rate = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((rate.count(), rate.period_ns()), (count, period_ns), "{text}");
            assert_eq!(rate.to_string().parse(), Ok(rate), "{text} printed as {rate} reads back");
        }
    }

    #[test]
    fn what_is_no_rate_says_why() {
        use RateError::{OutOfRange, Syntax, TooPrecise};
        for (text, why) in [
            ("", Syntax),
            ("fast", Syntax),
            ("NaN", Syntax),
            ("inf", Syntax),
            ("1e18", Syntax),
            ("1/", Syntax),
            ("1/parsec", Syntax),
            ("1./s", Syntax),
            ("+1", Syntax),
            ("0", OutOfRange),
            ("-1", OutOfRange),
            ("-x", Syntax),
            ("1/0s", OutOfRange),
            ("1000001/s", OutOfRange),
            ("1000000000000000000", OutOfRange),
            ("999999999999999999999999999999999999999999", OutOfRange),
            ("1/25h", OutOfRange),
            ("1.0000000001", TooPrecise),
            ("99999.99999999/s", TooPrecise),
        ] {
            assert_eq!(text.parse::<Rate>(), Err(why), "{text:?}");
        }
    }
}
