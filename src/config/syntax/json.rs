//! JSON, a level at a time: a raw value is a slice of the text, and so knows where it stands.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::super::node::{Node, Shape, Table};
use super::{Parser, Place};

pub(super) fn parse(text: &str, parser: &mut Parser<'_>) -> Table {
    if text.trim().is_empty() {
        return Table::new();
    }
    let parsed = serde_json::from_str::<&RawValue>(text);
    match parsed.map(|raw| node(raw, text, 0, parser)) {
        Ok(Some(Node { shape: Shape::Table(table), .. })) => table,
        Ok(Some(node)) => {
            parser.refuse(node.place, "not an object of sections");
            Table::new()
        }
        Ok(None) => Table::new(),
        Err(error) => {
            parser.refuse(Place { layer: parser.layer, line: error.line() }, told(&error));
            Table::new()
        }
    }
}

/// The error without its own position, which counts from the inner value.
fn told(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split_once(" at line ").map_or(text.as_str(), |(cause, _)| cause).to_owned()
}

fn node(raw: &RawValue, text: &str, depth: usize, parser: &mut Parser<'_>) -> Option<Node> {
    let json = raw.get();
    // `raw` borrows from `text`, so the difference of the addresses is its offset.
    let offset = (json.as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
    let place = parser.place(offset);
    if !parser.fits(depth, place) {
        return None;
    }
    let shape = match json.as_bytes().first() {
        Some(b'{') => serde_json::from_str(json).map(|Entries(entries)| {
            let mut table = Table::new();
            for (name, raw) in entries {
                if let Some(node) = node(raw, text, depth + 1, parser) {
                    parser.insert(&mut table, name, node);
                }
            }
            Shape::Table(table)
        }),
        Some(b'[') => serde_json::from_str::<Vec<&RawValue>>(json)
            .map(|items| Shape::List(items.iter().filter_map(|raw| node(raw, text, depth + 1, parser)).collect())),
        _ => serde_json::from_str(json).map(|value| Node::from_json(place, &value).shape),
    };
    match shape {
        Ok(shape) => Some(Node::new(place, shape)),
        Err(error) => {
            parser.refuse(place, told(&error));
            None
        }
    }
}

/// An object's entries in order, doubles included.
struct Entries<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Entries<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Entries<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}
