//! Sums of rates.

use crate::pace::Rate;

/// The fraction bits of a sum.
const FRACTION_BITS: u32 = 64;

/// The sum of rates in arrivals per second, as a fixed-point number with 64 fraction bits, each rate rounded down.
///
/// Of 100,000 rates that is below the exact sum by at most 10^-14 a second, one arrival in three million years; a sum
/// that just fits under a ceiling is never above it.
pub(super) fn total(rates: impl IntoIterator<Item = Rate>) -> u128 {
    // Counts fit 32 bits and a second 30, so the shifted product fits 126.
    let fixed =
        |rate: Rate| ((u128::from(rate.count()) * 1_000_000_000) << FRACTION_BITS) / u128::from(rate.period_ns());
    rates.into_iter().map(fixed).fold(0, u128::saturating_add)
}

/// A sum as people read it, to six digits after the point: the smallest rate, 1/24h, has two of them.
pub(super) fn display_total(sum: u128) -> String {
    let (whole, fraction) = (sum >> FRACTION_BITS, sum & ((1 << FRACTION_BITS) - 1));
    let micro = whole * 1_000_000 + ((fraction * 1_000_000 + (1 << (FRACTION_BITS - 1))) >> FRACTION_BITS);
    let text = format!("{}.{:06}", micro / 1_000_000, micro % 1_000_000);
    format!("{}/s", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates<'a>(texts: impl IntoIterator<Item = &'a str>) -> Vec<Rate> {
        texts.into_iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_sum_that_just_fits_is_not_above_its_ceiling() {
        let ceiling = total(rates(["1/s"]));
        assert!(total(rates(["1/3s"; 3])) <= ceiling);
        assert!(total(rates(["1/7s"; 7])) <= ceiling);
        assert!(total(rates(["1/3s", "1/3s", "1/3s", "1/24h"])) > ceiling);
        assert!(total(rates(["1/s", "1/24h"])) > ceiling);
    }

    #[test]
    fn sums_are_shown_to_six_digits() {
        for (texts, want) in [
            (vec!["50/s", "3/min"], "50.05/s"),
            (vec!["1/3s"; 3], "1/s"),
            (vec!["1/3s"], "0.333333/s"),
            (vec!["1000000/s"; 2], "2000000/s"),
            (vec!["1/24h"], "0.000012/s"),
            (vec![], "0/s"),
        ] {
            assert_eq!(display_total(total(rates(texts.clone()))), want, "{texts:?}");
        }
    }
}
