//! The page at `/`: what this is, and where to go from here.

use std::fmt::Write;

const STYLE: &str = "\
:root{color-scheme:light dark}\
body{font:16px/1.5 system-ui,sans-serif;max-width:44rem;margin:3rem auto;padding:0 1rem}\
h1{font-size:1.5rem;margin-bottom:0}\
h2{font-size:1.1rem;margin-top:2rem}\
small{opacity:.7}\
dt{font-family:ui-monospace,monospace}\
dd{margin:0 0 .6rem}\
ul{columns:14rem;padding-left:1.2rem;overflow-wrap:anywhere}";

/// How many target names the page shows; the rest is a number.
const TARGETS_SHOWN_MAX: usize = 200;

/// The page, without anything that a browser would have to fetch.
pub(super) fn index(version: &str, ready: bool, lifecycle: bool, targets: &[String]) -> String {
    let mut page = String::with_capacity(4096);
    let state = if ready { "ready" } else { "not ready" };
    let reload = if lifecycle {
        "reads the configuration again; POST only, for example with <code>curl -X POST</code>"
    } else {
        "is switched off (<code>server.lifecycle</code>); a SIGHUP reloads in any case"
    };
    page.push_str("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    page.push_str("<meta name=\"viewport\" content=\"width=device-width\">\n<title>hammerd</title>\n");
    let _ = writeln!(page, "<style>{STYLE}</style>\n</head>\n<body>");
    let _ = writeln!(page, "<h1>hammerd <small>{}</small></h1>", Escaped(version));
    let _ = writeln!(page, "<p>Steady requests, honest metrics. This instance is <b>{state}</b>.</p>\n<dl>");
    for (path, text) in [
        ("/metrics", "what happened so far, for Prometheus"),
        ("/-/healthy", "whether the process works"),
        ("/-/ready", "whether every target is on its schedule"),
        ("/config", "the running configuration, secrets left out"),
    ] {
        let _ = writeln!(page, "<dt><a href=\"{path}\">{path}</a></dt><dd>{text}</dd>");
    }
    let _ = writeln!(page, "<dt>/-/reload</dt><dd>{reload}</dd>\n</dl>");
    let _ = writeln!(page, "<h2>Targets ({})</h2>\n<ul>", targets.len());
    for target in targets.iter().take(TARGETS_SHOWN_MAX) {
        let _ = writeln!(page, "<li>{}</li>", Escaped(target));
    }
    page.push_str("</ul>\n");
    if targets.len() > TARGETS_SHOWN_MAX {
        let _ = writeln!(page, "<p>and {} more</p>", targets.len() - TARGETS_SHOWN_MAX);
    }
    page.push_str("</body>\n</html>\n");
    page
}

/// Text that stays text inside a page.
struct Escaped<'a>(&'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for letter in self.0.chars() {
            match letter {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                _ => f.write_char(letter)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_version_state_and_targets() {
        let page = index("1.2.3", true, false, &["checkout".to_owned(), "search".to_owned()]);
        for part in ["<small>1.2.3</small>", "<b>ready</b>", "Targets (2)", "<li>checkout</li>", "<li>search</li>"] {
            assert!(page.contains(part), "{part} not in {page}");
        }
        assert!(index("1", false, false, &[]).contains("<b>not ready</b>"));
    }

    #[test]
    fn a_name_cannot_break_out_of_the_page() {
        let page = index("<v>", true, true, &["a<script>\"'&".to_owned()]);
        assert!(page.contains("<li>a&lt;script&gt;&quot;&#39;&amp;</li>"), "{page}");
        assert!(page.contains("<small>&lt;v&gt;</small>"), "{page}");
    }

    #[test]
    fn the_page_is_bounded_and_fetches_nothing() {
        let targets: Vec<_> = (0..10_000).map(|n| format!("target-{n}")).collect();
        let page = index("1", true, true, &targets);
        assert_eq!(page.matches("<li>").count(), TARGETS_SHOWN_MAX);
        assert!(page.contains("and 9800 more"));
        for reference in ["src=", "http:", "https:", "@import", "url("] {
            assert!(!page.contains(reference), "{reference}");
        }
    }
}
