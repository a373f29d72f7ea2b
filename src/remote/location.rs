//! Where a source is, as it is written.

use std::path::{Path, PathBuf};

use super::s3::Object;
use crate::config::{Endpoint, Syntax, UrlError, shown_source};

/// A source that is no file.
#[derive(Debug)]
pub(super) struct Location {
    /// As it is named among the files.
    pub(super) path: PathBuf,
    /// As messages show it: a query may be a signature.
    pub(super) shown: String,
    pub(super) place: Place,
}

/// How it is asked.
#[derive(Debug)]
pub(super) enum Place {
    /// By its URL.
    Http(Endpoint),
    /// As an object of S3.
    S3(Object),
}

impl Location {
    /// Reads `https://host/path` or `s3://bucket/key`, or says what is wrong with it.
    pub(super) fn parse(path: &Path) -> Result<Self, String> {
        let shown = shown_source(path);
        let text = path.to_str().ok_or_else(|| format!("{shown}: it is not UTF-8 text"))?;
        let place = match text.split_once("://") {
            Some((scheme, _)) if scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https") => {
                let endpoint = Endpoint::parse(text);
                Place::Http(endpoint.map_err(|error| match error {
                    UrlError::Userinfo => {
                        format!(
                            "{shown}: a URL holds no user and password; HAMMERD_CONFIG_TOKEN is sent as a bearer token"
                        )
                    }
                    error => format!("{shown}: {error}"),
                })?)
            }
            Some(("s3", rest)) => Place::S3(
                Object::parse(rest)
                    .ok_or_else(|| format!("{shown}: an object is as in s3://bucket/path/hammerd.toml"))?,
            ),
            _ => {
                return Err(format!(
                    "{shown}: a configuration is a file, - for stdin, https://, http:// or s3://bucket/key"
                ));
            }
        };
        Ok(Self { path: path.to_owned(), shown, place })
    }

    /// The language of its text, when the answer does not say.
    pub(super) fn syntax(&self) -> Syntax {
        match &self.place {
            Place::Http(endpoint) => Syntax::of(Path::new(endpoint.path.path())),
            Place::S3(object) => Syntax::of(Path::new(&object.key)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_no_source_says_why_and_keeps_its_secrets() {
        for (text, words) in [
            ("ftp://a.example/x", ["ftp://a.example/x", "https://"]),
            ("https://", ["https://", "host"]),
            ("s3://bucket", ["s3://bucket", "s3://bucket/path/hammerd.toml"]),
            ("s3://Bucket/x", ["s3://Bucket/x", "s3://bucket/path/hammerd.toml"]),
            ("https://me:s3cret@a.example/x", ["a.example/x", "HAMMERD_CONFIG_TOKEN"]),
            ("https:/me:s3cret@a.example/x?sig=s3cret", ["https:/a.example/x", "https://"]),
            ("s3:bucket/x?s3cret", ["s3:bucket/x", "s3://bucket/key"]),
            ("https://a.example/x#s3cret", ["https://a.example/x", "fragment"]),
            ("https://a.example:99999/x?sig=s3cret", ["https://a.example:99999/x", "65535"]),
        ] {
            let why = Location::parse(Path::new(text)).expect_err(text);
            assert!(words.iter().all(|word| why.contains(word)) && !why.contains("s3cret"), "{text}: {why}");
        }
    }

    #[test]
    fn the_extension_tells_the_language_and_the_query_is_not_shown() {
        for (text, shown, syntax) in [
            ("https://a.example/x.yaml?X-Amz-Signature=s3cret", "https://a.example/x.yaml", Syntax::Yaml),
            ("HTTP://a.example/x.json", "HTTP://a.example/x.json", Syntax::Json),
            ("s3://bucket/a/x.yml", "s3://bucket/a/x.yml", Syntax::Yaml),
            ("http://a.example/x?y.json", "http://a.example/x", Syntax::Toml),
        ] {
            let location = Location::parse(Path::new(text)).expect(text);
            assert_eq!((location.shown.as_str(), location.syntax()), (shown, syntax));
        }
    }
}
