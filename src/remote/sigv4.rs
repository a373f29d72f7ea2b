//! AWS Signature Version 4, for a GET without a body.
//!
//! As in "Create a signed AWS API request" of the IAM user guide. Pure: time comes in as an argument.

use std::fmt::Write as _;

use aws_lc_rs::{digest, hmac};
use x509_cert::der::DateTime;

use super::credentials::Credentials;

/// SHA-256 of nothing: what is sent has no body.
pub(super) const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// Whom a signature is for.
pub(super) struct Scope<'a> {
    pub(super) region: &'a str,
    pub(super) service: &'a str,
    /// As [`timestamp`] writes it.
    pub(super) at: &'a str,
}

/// The header `authorization` of a GET for this path, encoded, without a query. `headers` are all that are signed, with
/// lower-case names in their order; `body` is the hash of nothing, or what stands for it.
pub(super) fn authorization(
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
    scope: &Scope<'_>,
    credentials: &Credentials,
) -> String {
    let Scope { region, service, at } = scope;
    let day = at.get(..8).unwrap_or_default();
    let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
    let mut lines = String::new();
    for (name, value) in headers {
        // Writing to a String does not fail.
        let _ = writeln!(lines, "{name}:{}", value.trim());
    }
    let canonical = format!("GET\n{path}\n\n{lines}\n{names}\n{body}");
    let range = format!("{day}/{region}/{service}/aws4_request");
    let hashed = hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
    let to_sign = format!("AWS4-HMAC-SHA256\n{at}\n{range}\n{hashed}");
    let mut key = mac(format!("AWS4{}", credentials.secret).as_bytes(), day);
    for part in [region, service, "aws4_request"] {
        key = mac(key.as_ref(), part);
    }
    let signature = hex(mac(key.as_ref(), &to_sign).as_ref());
    format!("AWS4-HMAC-SHA256 Credential={}/{range}, SignedHeaders={names}, Signature={signature}", credentials.id)
}

/// A time, in milliseconds since 1970, as `20150830T123600Z`.
pub(super) fn timestamp(unix_ms: u64) -> String {
    // Until the year 9999.
    let time = DateTime::from_unix_duration(std::time::Duration::from_millis(unix_ms)).unwrap_or(DateTime::INFINITY);
    format!(
        "{:04}{:02}{:02}T{:02}{:02}{:02}Z",
        time.year(),
        time.month(),
        time.day(),
        time.hour(),
        time.minutes(),
        time.seconds()
    )
}

/// A part of a path with everything encoded but what RFC 3986 leaves alone, and slashes.
pub(super) fn encode_path(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

fn mac(key: &[u8], text: &str) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes())
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(id: &str, secret: &str) -> Credentials {
        Credentials { id: id.to_owned(), secret: secret.to_owned(), token: None }
    }

    /// Of AWS's Signature Version 4 test suite: `get-vanilla`, `get-utf8`, `get-unreserved`.
    #[test]
    fn signatures_are_those_of_the_published_test_suite() {
        let credentials = credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY");
        let scope = Scope { region: "us-east-1", service: "service", at: "20150830T123600Z" };
        let headers = [("host", "example.amazonaws.com"), ("x-amz-date", "20150830T123600Z")];
        for (path, signature) in [
            ("/", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
            ("/\u{1234}", "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85"),
            (
                "/-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
                "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f",
            ),
        ] {
            let header = authorization(&encode_path(path), &headers, EMPTY, &scope, &credentials);
            let want = format!(
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
                 SignedHeaders=host;x-amz-date, Signature={signature}"
            );
            assert_eq!(header, want, "{path}");
        }
    }

    /// "GET Object" among the examples of the S3 API reference.
    #[test]
    fn the_signature_of_a_get_from_s3_is_that_of_its_reference() {
        let credentials = credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY");
        let scope = Scope { region: "us-east-1", service: "s3", at: "20130524T000000Z" };
        let headers = [
            ("host", "examplebucket.s3.amazonaws.com"),
            ("range", "bytes=0-9"),
            ("x-amz-content-sha256", EMPTY),
            ("x-amz-date", "20130524T000000Z"),
        ];
        let header = authorization("/test.txt", &headers, EMPTY, &scope, &credentials);
        let signature = "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41";
        assert!(header.ends_with(&format!("Signature={signature}")), "{header}");
    }

    #[test]
    fn times_and_paths_are_written_as_signatures_want_them() {
        assert_eq!(timestamp(0), "19700101T000000Z");
        assert_eq!(timestamp(1_440_938_160_999), "20150830T123600Z");
        assert_eq!(timestamp(951_782_400_000), "20000229T000000Z");
        assert_eq!(timestamp(u64::MAX).len(), 16);
        assert_eq!(encode_path("a b/ü+c=d.toml"), "a%20b/%C3%BC%2Bc%3Dd.toml");
    }
}
