//! The status page at `/`: files of ours, which a browser gets as they are, and the policy that nothing else runs in it.

use http::header::{CONTENT_SECURITY_POLICY, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, StatusCode};

use super::answer::{self, Reply};

/// Only what comes from here may run, be shown or be asked, and nobody may frame it. Names of targets reach the page as text
/// of nodes; should one ever slip in as markup, it can do nothing.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Path, type and text of each file.
const FILES: [(&str, &str, &str); 7] = [
    ("/", "text/html; charset=utf-8", include_str!("page/index.html")),
    ("/page/style.css", "text/css; charset=utf-8", include_str!("page/style.css")),
    ("/page/icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
    ("/page/main.js", SCRIPT, include_str!("page/main.js")),
    ("/page/table.js", SCRIPT, include_str!("page/table.js")),
    ("/page/draw.js", SCRIPT, include_str!("page/draw.js")),
    ("/page/text.js", SCRIPT, include_str!("page/text.js")),
];

/// The file at `path`, if there is one.
pub(super) fn file(path: &str) -> Option<Reply> {
    let &(_, kind, text) = FILES.iter().find(|(known, ..)| *known == path)?;
    let mut reply = answer::typed(StatusCode::OK, HeaderValue::from_static(kind), text.as_bytes().to_vec());
    reply.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    reply.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Some(reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where a file names another one of ours.
    fn references(text: &str) -> Vec<String> {
        let of = |mark: &str, base: &str| {
            let after = text.split(mark).skip(1);
            after.filter_map(|rest| Some(format!("{base}{}", rest.split_once('"')?.0))).collect::<Vec<_>>()
        };
        [of("href=\"page/", "/page/"), of("src=\"page/", "/page/"), of("from \"./", "/page/")].concat()
    }

    #[test]
    fn the_page_needs_nothing_that_is_not_ours() {
        let mut named = 0;
        for (path, _, text) in FILES {
            for outside in ["http:", "https:", "@import", "url(", "//cdn", "innerHTML", "style=\"", "onclick"] {
                // The name of a format is no address.
                let text = text.replace("http://www.w3.org/2000/svg", "");
                assert!(!text.contains(outside), "{outside} in {path}");
            }
            for reference in references(text) {
                assert!(file(&reference).is_some(), "{path} names {reference}");
                named += 1;
            }
        }
        assert!(named >= FILES.len() - 1, "not all files were found to be named");
    }

    #[test]
    fn every_file_is_short() {
        for (path, _, text) in FILES {
            assert!(text.lines().count() < 500, "{path}");
        }
    }
}
