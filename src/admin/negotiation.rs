//! Which format and which content coding a client wants.

use http::HeaderMap;
use http::header::{ACCEPT, ACCEPT_ENCODING, HeaderName};

use crate::export::Format;

/// The format that a client likes best: RFC 9110, section 12.5.1.
///
/// A client that likes several alike gets the first of [`Format::ALL`], and so does one that accepts none: a scraper
/// that asks for something else reads the text, or says itself what it can't read.
pub(super) fn format(headers: &HeaderMap) -> Format {
    let ranges: Vec<_> = members(headers, ACCEPT).collect();
    let weight = |format: Format| {
        // The most specific range counts.
        let matching = ranges.iter().filter_map(|range| Some((rank(format, range)?, range.weight)));
        matching.max().map_or(0, |(_, weight)| weight)
    };
    let better = |best: Format, next: Format| if weight(next) > weight(best) { next } else { best };
    Format::ALL.into_iter().reduce(better).unwrap_or(Format::Text)
}

/// How specifically a media range speaks of a format; `None` when it speaks of something else.
fn rank(format: Format, range: &Member<'_>) -> Option<u8> {
    // What a client asks for by a parameter that is not here it may have: it can only be about how names are escaped,
    // and ours need no escaping in any scheme.
    let (name, required): (&str, &[(&str, &[&str])]) = match format {
        Format::Text => ("text/plain", &[("version", &["0.0.4"])]),
        // 0.0.1 is the draft with the same syntax; who knows only that reads ours.
        Format::OpenMetrics => ("application/openmetrics-text", &[("version", &["1.0.0", "0.0.1"])]),
        Format::Protobuf => (
            "application/vnd.google.protobuf",
            &[("proto", &["io.prometheus.client.MetricFamily"]), ("encoding", &["delimited"])],
        ),
    };
    if range.name == "*/*" {
        // Whatever: that is the text, which everybody reads.
        return (format == Format::Text).then_some(0);
    }
    if range.name.eq_ignore_ascii_case("text/*") {
        return (format == Format::Text).then_some(1);
    }
    if !range.name.eq_ignore_ascii_case(name) {
        return None;
    }
    let fits = |(parameter, values): &(&str, &[&str])| match range.parameter(parameter) {
        Some(asked) => values.iter().any(|value| asked.eq_ignore_ascii_case(value)),
        // Protobuf messages of an unknown kind are of no use to anybody.
        None => format != Format::Protobuf,
    };
    required.iter().all(fits).then_some(2)
}

/// Whether an answer should be gzipped: RFC 9110, section 12.5.3.
///
/// Yes if the client accepts gzip and does not like the plain answer better. A client that accepts neither gets the
/// plain answer: the RFC lets a server disregard the header, and a metrics page in a wrong coding beats none.
pub(super) fn wants_gzip(headers: &HeaderMap) -> bool {
    let (mut gzip, mut identity, mut any) = (None, None, None);
    for Member { name, weight, .. } in members(headers, ACCEPT_ENCODING) {
        if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") {
            gzip = Some(weight);
        } else if name.eq_ignore_ascii_case("identity") {
            identity = Some(weight);
        } else if name == "*" {
            any = Some(weight);
        }
    }
    let gzip = gzip.or(any).unwrap_or(0);
    // The star is for what is not named; a plain answer that is not named is acceptable, but no one's preference.
    gzip > 0 && gzip >= identity.unwrap_or(0)
}

/// One of the things that a client accepts.
struct Member<'a> {
    name: &'a str,
    /// All behind the name.
    parameters: &'a str,
    /// In thousandths.
    weight: u16,
}

impl<'a> Member<'a> {
    fn of(text: &'a str) -> Self {
        let (name, parameters) = text.split_once(';').unwrap_or((text, ""));
        let mut member = Self { name: name.trim(), parameters, weight: 1000 };
        if let Some(weight) = member.parameter("q") {
            // One that is malformed weighs nothing: nobody gets what nobody asked for.
            let weight = weight.parse::<f32>().ok().filter(|weight| (0.0..=1.0).contains(weight));
            member.weight = (weight.unwrap_or(0.0) * 1000.0).round() as u16;
        }
        member
    }

    /// The value of a parameter, without quotes.
    fn parameter(&self, wanted: &str) -> Option<&'a str> {
        let mut parameters = self.parameters.split(';').filter_map(|parameter| parameter.split_once('='));
        let (_, value) = parameters.find(|(name, _)| name.trim().eq_ignore_ascii_case(wanted))?;
        Some(value.trim().trim_matches('"'))
    }
}

/// The members of a list in all fields of this name.
fn members(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = Member<'_>> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(Member::of)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(name: &HeaderName, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn scrapers_get_what_they_like_best() {
        const PROTOBUF: &str =
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";
        // What Prometheus 2.42 sends, and with native histograms.
        let plain_2_42 = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
            text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let native_2_42 = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,\
            application/openmetrics-text;version=1.0.0;q=0.8,application/openmetrics-text;version=0.0.1;q=0.75,\
            text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        // What Prometheus 3 sends, and with native histograms.
        let plain_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
            application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
            text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        let native_3 = &format!("{PROTOBUF};q=0.7,{plain_3}");
        let rows: [(&[&str], Format); 20] = [
            (&[plain_2_42], Format::OpenMetrics),
            (&[native_2_42], Format::Protobuf),
            (&[plain_3], Format::OpenMetrics),
            (&[native_3], Format::Protobuf),
            (&[], Format::Text),
            (&[""], Format::Text),
            (&["*/*"], Format::Text),
            (&["text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"], Format::Text),
            (&["image/png"], Format::Text),
            (&["text/plain;version=1.0.0;escaping=values"], Format::Text),
            (&["application/openmetrics-text"], Format::OpenMetrics),
            (&["application/openmetrics-text;version=0.0.1"], Format::OpenMetrics),
            (&["application/openmetrics-text;version=2.0.0"], Format::Text),
            (&["application/openmetrics-text;q=0.1", "text/plain;q=0.2"], Format::Text),
            (&["application/openmetrics-text;q=0, */*"], Format::Text),
            (&["APPLICATION/OpenMetrics-Text; Version=\"1.0.0\" ; Q=0.5"], Format::OpenMetrics),
            (&["application/vnd.google.protobuf"], Format::Text),
            (&["application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=text"], Format::Text),
            (&["text/*, application/openmetrics-text;q=0.9"], Format::Text),
            (&["application/openmetrics-text;q=much, text/plain;q=0.1"], Format::Text),
        ];
        for (values, wanted) in rows {
            assert_eq!(format(&headers(&ACCEPT, values)), wanted, "{values:?}");
        }
    }

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
            assert_eq!(wants_gzip(&headers(&ACCEPT_ENCODING, values)), wanted, "{values:?}");
        }
    }
}
