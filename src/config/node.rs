//! A value with the place where it was set, and its way through the `config` crate's layering and back.
//!
//! The crate merges tables key by key and lets the later layer win; it carries an `origin` text with every value. That
//! text holds our [`Place`], so a mistake in the merged whole still knows its file and line. The crate forgets the
//! origin of a table, so each table carries a leaf of its own for each layer that speaks of it, see [`HERE`].

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use config::{ConfigError, Source, Value, ValueKind};

use super::error::{Mistakes, Place, join, quote};
use super::variables::{Variables, expand};

/// Begins the name of the leaf that keeps a table's place in one layer. No parser lets it through in a key.
const HERE: char = '\0';
/// What stands in a message in place of a secret.
pub(super) const HIDDEN: &str = "the value (not shown)";

/// A value and where it was set.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) shape: Shape,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Shape {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(Text),
    List(Vec<Node>),
    Table(Table),
    /// Already reported; says nothing more.
    Broken,
}

/// A table's values by name.
pub(super) type Table = BTreeMap<String, Node>;

/// A text and how it came to be.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Text {
    pub(super) content: String,
    /// Whether a variable was expanded in it: then it is never shown.
    pub(super) secret: bool,
    /// Whether it may stand for a number, a boolean or a list, because its source knows only texts.
    pub(super) loose: bool,
}

/// One layer of configuration, as a source of the `config` crate.
#[derive(Debug, Clone)]
pub(super) struct Layer(pub(super) Table);

// === impl Node ===

impl Node {
    pub(super) fn new(place: Place, shape: Shape) -> Self {
        Self { place, shape }
    }

    /// A text as it stands in a file.
    pub(super) fn text(place: Place, text: impl Into<String>) -> Self {
        Self::new(place, Shape::Text(Text { content: text.into(), secret: false, loose: false }))
    }

    /// A text from a source that knows nothing but texts.
    pub(super) fn loose(place: Place, text: impl Into<String>) -> Self {
        Self::new(place, Shape::Text(Text { content: text.into(), secret: false, loose: true }))
    }

    /// A JSON value, all of it at one place.
    pub(super) fn from_json(place: Place, json: &serde_json::Value) -> Self {
        use serde_json::Value as Json;
        let shape = match json {
            Json::Null => Shape::Null,
            Json::Bool(value) => Shape::Bool(*value),
            Json::Number(number) => {
                number.as_i64().map_or_else(|| Shape::Float(number.as_f64().unwrap_or(f64::NAN)), Shape::Integer)
            }
            Json::String(text) => return Self::text(place, text),
            Json::Array(items) => Shape::List(items.iter().map(|item| Self::from_json(place, item)).collect()),
            Json::Object(entries) => {
                Shape::Table(entries.iter().map(|(name, item)| (name.clone(), Self::from_json(place, item))).collect())
            }
        };
        Self::new(place, shape)
    }

    /// An integer, also one that a source of texts spells out.
    pub(super) fn integer(&self) -> Option<i64> {
        match &self.shape {
            Shape::Integer(value) => Some(*value),
            // What does not print as it was written, 0123 or +1, was not meant as the number that it parses to.
            Shape::Text(text) if text.loose => {
                text.content.parse().ok().filter(|value: &i64| value.to_string() == text.content)
            }
            _ => None,
        }
    }

    /// A list, also one that a source of texts writes with commas.
    pub(super) fn items(&self) -> Option<Vec<Node>> {
        match &self.shape {
            Shape::List(items) => Some(items.clone()),
            Shape::Text(text) if text.loose && text.content.trim().is_empty() => Some(Vec::new()),
            Shape::Text(text) if text.loose => {
                let item = |item: &str| Shape::Text(Text { content: item.trim().to_owned(), ..text.clone() });
                Some(text.content.split(',').map(|part| Node::new(self.place, item(part))).collect())
            }
            _ => None,
        }
    }

    /// The text, if it is one.
    pub(super) fn as_text(&self) -> Option<&str> {
        match &self.shape {
            Shape::Text(text) => Some(&text.content),
            _ => None,
        }
    }

    /// Whether a variable was expanded in it.
    pub(super) fn is_secret(&self) -> bool {
        matches!(&self.shape, Shape::Text(text) if text.secret)
    }

    fn into_value(self) -> Value {
        let origin = format!("{}:{}", self.place.layer, self.place.line);
        let kind = match self.shape {
            Shape::Null | Shape::Broken => ValueKind::Nil,
            Shape::Bool(value) => ValueKind::Boolean(value),
            Shape::Integer(value) => ValueKind::I64(value),
            Shape::Float(value) => ValueKind::Float(value),
            Shape::Text(text) => ValueKind::String(text.content),
            Shape::List(items) => ValueKind::Array(items.into_iter().map(Self::into_value).collect()),
            Shape::Table(table) => {
                let mut entries: HashMap<_, _> =
                    table.into_iter().map(|(name, node)| (name, node.into_value())).collect();
                let here = format!("{HERE}{}", self.place.layer);
                entries.insert(here, Value::new(Some(&origin), ValueKind::Nil));
                return Value::new(None, ValueKind::Table(entries));
            }
        };
        Value::new(Some(&origin), kind)
    }

    /// Reads a merged value, expanding variables on the way.
    pub(super) fn from_value(value: Value, key: &str, variables: &Variables<'_>, mistakes: &mut Mistakes) -> Self {
        let place = place_of(&value);
        let shape = match value.kind {
            ValueKind::Nil => Shape::Null,
            ValueKind::Boolean(value) => Shape::Bool(value),
            ValueKind::I64(value) => Shape::Integer(value),
            // The parsers of this module make none of the wider ones.
            ValueKind::I128(value) => Shape::Float(value as f64),
            ValueKind::U64(value) => Shape::Float(value as f64),
            ValueKind::U128(value) => Shape::Float(value as f64),
            ValueKind::Float(value) => Shape::Float(value),
            ValueKind::String(text) => expand(text, place, key, variables, mistakes),
            ValueKind::Array(items) => {
                Shape::List(items.into_iter().map(|item| Self::from_value(item, key, variables, mistakes)).collect())
            }
            ValueKind::Table(entries) => {
                let (mut table, mut places) = (Table::new(), Vec::new());
                for (name, value) in entries {
                    if name.starts_with(HERE) {
                        places.push(place_of(&value));
                    } else {
                        let node = Self::from_value(value, &join(key, &name), variables, mistakes);
                        table.insert(name, node);
                    }
                }
                // A table is where somebody first spoke of it.
                let place = places.into_iter().min().unwrap_or(place);
                return Self::new(place, Shape::Table(table));
            }
        };
        Self::new(place, shape)
    }
}

impl fmt::Display for Node {
    /// As messages show it: escaped, cut, and never a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.shape {
            Shape::Null | Shape::Broken => f.write_str("null"),
            Shape::Bool(value) => write!(f, "{value}"),
            Shape::Integer(value) => write!(f, "{value}"),
            Shape::Float(value) => write!(f, "{value:?}"),
            Shape::Text(text) if text.secret => f.write_str(HIDDEN),
            Shape::Text(text) => f.write_str(&quote(&text.content)),
            Shape::List(_) => f.write_str("a list"),
            Shape::Table(_) => f.write_str("a table"),
        }
    }
}

fn place_of(value: &Value) -> Place {
    let parts = value.origin().and_then(|origin| origin.split_once(':'));
    let parsed = parts.and_then(|(layer, line)| Some(Place { layer: layer.parse().ok()?, line: line.parse().ok()? }));
    parsed.unwrap_or_default()
}

// === impl Layer ===

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<HashMap<String, Value>, ConfigError> {
        Ok(self.0.iter().map(|(name, node)| (name.clone(), node.clone().into_value())).collect())
    }
}

/// Makes header names lower-case: they mean the same in any case, so layers must meet in one spelling.
pub(super) fn unify_header_names(table: &mut Table, mistakes: &mut Mistakes) {
    fn child<'a>(table: &'a mut Table, name: &str) -> Option<&'a mut Table> {
        match table.get_mut(name)?.shape {
            Shape::Table(ref mut inner) => Some(inner),
            _ => None,
        }
    }
    fn unify(target: &mut Table, parent: &str, mistakes: &mut Mistakes) {
        for section in ["headers", "headers_file"] {
            let Some(headers) = child(target, section) else { continue };
            let mut unified = Table::new();
            for (name, node) in std::mem::take(headers) {
                let (name, place) = (name.to_ascii_lowercase(), node.place);
                if unified.insert(name.clone(), node).is_some() {
                    mistakes.push(place, join(&join(parent, section), &name), "set twice, in two spellings");
                }
            }
            *headers = unified;
        }
    }
    if let Some(defaults) = child(table, "defaults") {
        unify(defaults, "defaults", mistakes);
    }
    let Some(targets) = child(table, "targets") else { return };
    for (name, target) in targets.iter_mut() {
        if let Shape::Table(target) = &mut target.shape {
            unify(target, &join("targets", name), mistakes);
        }
    }
}
