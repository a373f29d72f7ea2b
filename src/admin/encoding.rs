//! Which content coding a client wants.

use http::HeaderMap;
use http::header::ACCEPT_ENCODING;

/// Whether an answer should be gzipped: RFC 9110, section 12.5.3.
///
/// Yes if the client accepts gzip and does not like the plain answer better. A client that accepts neither gets the
/// plain answer: the RFC lets a server disregard the header, and a metrics page in a wrong coding beats none.
pub(super) fn wants_gzip(headers: &HeaderMap) -> bool {
    let mut gzip = None;
    let mut identity = None;
    let mut any = None;
    let values = headers.get_all(ACCEPT_ENCODING).into_iter().filter_map(|value| value.to_str().ok());
    for member in values.flat_map(|value| value.split(',')) {
        let mut parts = member.split(';').map(str::trim);
        let coding = parts.next().unwrap_or_default();
        let weight = parts.find_map(weight).unwrap_or(1000);
        if coding.eq_ignore_ascii_case("gzip") || coding.eq_ignore_ascii_case("x-gzip") {
            gzip = Some(weight);
        } else if coding.eq_ignore_ascii_case("identity") {
            identity = Some(weight);
        } else if coding == "*" {
            any = Some(weight);
        }
    }
    let gzip = gzip.or(any).unwrap_or(0);
    // The star is for what is not named; a plain answer that is not named is acceptable, but no one's preference.
    gzip > 0 && gzip >= identity.unwrap_or(0)
}

/// The weight of a `q=` parameter in thousandths. One that is malformed weighs nothing: no coding nobody asked for.
fn weight(parameter: &str) -> Option<u16> {
    let (name, value) = parameter.split_once('=')?;
    if !name.trim_end().eq_ignore_ascii_case("q") {
        return None;
    }
    let weight = value.trim().parse::<f32>().ok().filter(|weight| (0.0..=1.0).contains(weight));
    Some((weight.unwrap_or(0.0) * 1000.0).round() as u16)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn gzip_is_for_those_who_accept_it_and_do_not_like_plain_better() {
        let rows: [(&[&str], bool); 21] = [
            (&[], false),
            (&[""], false),
            (&["gzip"], true),
            (&["GZip"], true),
            (&["x-gzip"], true),
            (&["gzip, deflate, br"], true),
            (&["br", "gzip"], true),
            (&["deflate, br"], false),
            (&["gzip;q=0"], false),
            (&["gzip; q=0.000"], false),
            (&["gzip ; Q = 0"], false),
            (&["gzip;q=0.001"], true),
            (&["identity"], false),
            (&["identity, gzip;q=0.5"], false),
            (&["identity;q=0.5, gzip"], true),
            (&["identity, gzip"], true),
            (&["identity;q=0, gzip;q=0.1"], true),
            (&["*"], true),
            (&["*, gzip;q=0"], false),
            (&["*;q=0"], false),
            (&["gzip;q=many"], false),
        ];
        for (values, wanted) in rows {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(ACCEPT_ENCODING, HeaderValue::from_str(value).unwrap());
            }
            assert_eq!(wants_gzip(&headers), wanted, "{values:?}");
        }
    }
}
