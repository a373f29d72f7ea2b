//! What is wrong with a configuration: every mistake, where it stands, and how it is told without telling a secret.

use std::fmt;

/// Mistakes told at once; a generated file can have tens of thousands.
const MAX_MESSAGES: usize = 100;
/// Characters of a value or a name that a message repeats.
const MAX_ECHO: usize = 60;

/// A configuration that was not accepted: one message for each mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    messages: Vec<String>,
}

/// Where a value was set. Ordered as the layers are, then by line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Place {
    /// Index into [`Origins`].
    pub(super) layer: usize,
    /// Line of a file (0: not known), or index of an environment variable or a flag.
    pub(super) line: usize,
}

/// What the layers are called in messages, in the order in which they are laid over each other.
#[derive(Debug, Default)]
pub(super) struct Origins(Vec<Origin>);

/// What one layer is called.
#[derive(Debug)]
pub(super) enum Origin {
    /// The values that hold when nobody says anything.
    BuiltIn,
    /// A file, or another text with lines.
    Text(String),
    /// Environment variables, by name.
    Environment(Vec<String>),
    /// Command line flags, as typed.
    Flags(Vec<String>),
}

/// The mistakes found so far.
#[derive(Debug, Default)]
pub(super) struct Mistakes {
    found: Vec<Mistake>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Mistake {
    place: Place,
    key: String,
    text: String,
}

// === impl Rejected ===

impl Rejected {
    /// A single mistake that belongs to no layer.
    pub(super) fn one(message: String) -> Self {
        Self { messages: vec![message] }
    }

    /// One message for each mistake, in the order of files and lines.
    pub fn messages(&self) -> &[String] {
        &self.messages
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.messages.join("\n"))
    }
}

impl std::error::Error for Rejected {}

// === impl Origins ===

impl Origins {
    /// Adds a layer above the others and returns its index.
    pub(super) fn push(&mut self, origin: Origin) -> usize {
        self.0.push(origin);
        self.0.len() - 1
    }

    /// Whether values of this layer came in as environment variables.
    pub(super) fn is_environment(&self, place: Place) -> bool {
        matches!(self.0.get(place.layer), Some(Origin::Environment(_)))
    }

    /// Whether nobody set the value.
    pub(super) fn is_built_in(&self, place: Place) -> bool {
        matches!(self.0.get(place.layer), Some(Origin::BuiltIn))
    }

    /// The last text with lines: where something that is missing would be written.
    pub(super) fn last_text(&self) -> Place {
        let layer = self.0.iter().rposition(|origin| matches!(origin, Origin::Text(_))).unwrap_or(0);
        Place { layer, line: 0 }
    }

    fn message(&self, mistake: &Mistake) -> String {
        let Mistake { place, key, text } = mistake;
        let keyed = if key.is_empty() { text.clone() } else { format!("{key}: {text}") };
        match self.0.get(place.layer) {
            Some(Origin::Text(name)) if place.line == 0 => format!("{name}: {keyed}"),
            Some(Origin::Text(name)) => format!("{name}:{}: {keyed}", place.line),
            Some(Origin::Environment(names)) => {
                format!("environment {}: {text}", names.get(place.line).map_or("", String::as_str))
            }
            Some(Origin::Flags(names)) => format!("{}: {text}", names.get(place.line).map_or("", String::as_str)),
            Some(Origin::BuiltIn) | None => keyed,
        }
    }
}

// === impl Mistakes ===

impl Mistakes {
    /// Adds one mistake.
    pub(super) fn push(&mut self, place: Place, key: impl Into<String>, text: impl Into<String>) {
        self.found.push(Mistake { place, key: key.into(), text: text.into() });
    }

    /// Adds the mistake of a key that nobody knows, with the nearest that somebody does.
    pub(super) fn unknown_key<'a>(
        &mut self,
        place: Place,
        parent: &str,
        name: &str,
        known: impl Iterator<Item = &'a str>,
    ) {
        let hint = nearest(name, known).map(|near| format!("; did you mean {}?", quote(near)));
        self.push(place, parent, format!("unknown key {}{}", quote(name), hint.unwrap_or_default()));
    }

    /// How many there are so far.
    pub(super) fn len(&self) -> usize {
        self.found.len()
    }

    /// Whether nothing is wrong so far.
    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Puts the mistakes into words, sorted by layer and line, each once.
    pub(super) fn into_rejected(mut self, origins: &Origins) -> Rejected {
        self.found.sort();
        self.found.dedup();
        let mut messages: Vec<_> =
            self.found.iter().take(MAX_MESSAGES).map(|mistake| origins.message(mistake)).collect();
        if self.found.len() > MAX_MESSAGES {
            messages.push(format!("and {} more mistakes", self.found.len() - MAX_MESSAGES));
        }
        Rejected { messages }
    }
}

/// The known name that a mistyped one most likely means.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    const ALIKE: f64 = 0.7;
    let name: String = name.chars().take(MAX_ECHO).flat_map(char::to_lowercase).collect();
    known
        .map(|candidate| (strsim::normalized_damerau_levenshtein(&name, candidate), candidate))
        .filter(|(alike, _)| *alike >= ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// A text as a message shows it: quoted, control characters escaped, long ones cut.
pub(super) fn quote(text: &str) -> String {
    match text.char_indices().nth(MAX_ECHO) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// The key of `name` inside `parent`, dotted; a name that TOML would want in quotes is quoted.
pub(super) fn join(parent: &str, name: &str) -> String {
    let bare = !name.is_empty()
        && name.len() <= MAX_ECHO + 4
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    let name = if bare { name.to_owned() } else { quote(name) };
    if parent.is_empty() { name } else { format!("{parent}.{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_name_is_offered_and_a_far_one_is_not() {
        let known = || ["timeout", "rate", "max_in_flight"].into_iter();
        for (name, near) in [
            ("tiemout", Some("timeout")),
            ("Timeout", Some("timeout")),
            ("max_inflight", Some("max_in_flight")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(name, known()), near, "{name}");
        }
    }

    #[test]
    fn a_quoted_text_is_escaped_and_cut() {
        assert_eq!(quote("a\u{1b}[2J\n"), r#""a\u{1b}[2J\n""#);
        assert_eq!(quote(&"x".repeat(1000)), format!("\"{}\"...", "x".repeat(60)));
        assert_eq!(join("targets", "a.b"), r#"targets."a.b""#);
    }

    #[test]
    fn mistakes_are_told_once_and_in_the_order_of_lines() {
        let mut origins = Origins::default();
        let layer = origins.push(Origin::Text("a.toml".to_owned()));
        let mut mistakes = Mistakes::default();
        mistakes.push(Place { layer, line: 9 }, "b", "late");
        mistakes.push(Place { layer, line: 2 }, "a", "early");
        mistakes.push(Place { layer, line: 9 }, "b", "late");
        assert_eq!(mistakes.into_rejected(&origins).to_string(), "a.toml:2: a: early\na.toml:9: b: late");
    }
}
