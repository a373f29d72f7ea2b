//! Texts in TOML, YAML and JSON become [`Node`]s that know their line.

mod json;
mod toml;
mod yaml;

use std::collections::btree_map::Entry;
use std::path::Path;

use super::error::{Mistakes, Place, quote};
use super::node::Table;

/// Tables and lists inside each other; the deepest key there is needs four.
const MAX_DEPTH: usize = 16;
const TOO_DEEP: &str = "nested more than 16 deep";

/// The language of a configuration text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syntax {
    /// `.toml`, and whatever says nothing else.
    Toml,
    /// `.yaml`, `.yml`.
    Yaml,
    /// `.json`.
    Json,
}

impl Syntax {
    /// By extension; TOML when it says nothing else.
    pub(crate) fn of(path: &Path) -> Self {
        let extension = path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
        match extension.as_deref() {
            Some("yaml" | "yml") => Self::Yaml,
            Some("json") => Self::Json,
            _ => Self::Toml,
        }
    }

    /// By the type of an answer, as in `application/yaml; charset=utf-8`; none when it says nothing of a language.
    pub(crate) fn of_type(text: &str) -> Option<Self> {
        let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let (_, name) = essence.split_once('/')?;
        match name.rsplit('+').next().unwrap_or(name) {
            "toml" | "x-toml" => Some(Self::Toml),
            "yaml" | "x-yaml" | "vnd.yaml" => Some(Self::Yaml),
            "json" => Some(Self::Json),
            _ => None,
        }
    }

    /// Reads a whole text. Mistakes of syntax are noted; what comes back is then only part of it.
    pub(super) fn parse(self, text: &str, layer: usize, mistakes: &mut Mistakes) -> Table {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut parser = Parser { lines: Lines::new(text), layer, mistakes };
        let before = parser.mistakes.len();
        let table = match self {
            Self::Toml => toml::parse(text, &mut parser),
            Self::Yaml => yaml::parse(text, &mut parser),
            Self::Json => json::parse(text, &mut parser),
        };
        if table.is_empty() && parser.mistakes.len() == before {
            parser.mistakes.push(Place { layer, line: 0 }, "", "empty: it sets no key");
        }
        table
    }
}

/// What the three parsers share.
struct Parser<'a> {
    lines: Lines,
    layer: usize,
    mistakes: &'a mut Mistakes,
}

impl Parser<'_> {
    fn place(&self, offset: usize) -> Place {
        Place { layer: self.layer, line: self.lines.line(offset) }
    }

    fn refuse(&mut self, place: Place, text: impl Into<String>) {
        self.mistakes.push(place, "", text);
    }

    /// Notes nesting that is too deep to mean anything.
    fn fits(&mut self, depth: usize, place: Place) -> bool {
        if depth > MAX_DEPTH {
            self.refuse(place, TOO_DEEP);
        }
        depth <= MAX_DEPTH
    }

    /// Adds an entry to a table; a name may come once, and its text must be one.
    fn insert(&mut self, table: &mut Table, name: String, node: super::node::Node) {
        if name.chars().any(char::is_control) {
            self.refuse(node.place, format!("the name {} has control characters", quote(&name)));
            return;
        }
        match table.entry(name) {
            Entry::Occupied(entry) => self.refuse(node.place, format!("{} is set twice", quote(entry.key()))),
            Entry::Vacant(entry) => {
                entry.insert(node);
            }
        }
    }
}

/// Where lines begin.
struct Lines(Vec<usize>);

impl Lines {
    fn new(text: &str) -> Self {
        Self(std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect())
    }

    /// The line, from 1, that holds the byte at `offset`.
    fn line(&self, offset: usize) -> usize {
        self.0.partition_point(|start| *start <= offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_of_an_answer_may_tell_its_language() {
        for (text, want) in [
            ("application/toml", Some(Syntax::Toml)),
            ("Application/YAML; charset=utf-8", Some(Syntax::Yaml)),
            ("text/x-yaml", Some(Syntax::Yaml)),
            ("application/json;charset=utf-8", Some(Syntax::Json)),
            ("application/vnd.example+json", Some(Syntax::Json)),
            ("text/plain", None),
            ("binary/octet-stream", None),
            ("json", None),
            ("", None),
        ] {
            assert_eq!(Syntax::of_type(text), want, "{text}");
        }
    }
}
