//! The JSON Schema of a configuration file, from the same list of keys that reads it.

use serde_json::{Map, Value as Json, json};

use super::section::{Root, Section};

/// The JSON Schema (draft 2020-12) of a whole configuration.
///
/// One file of several may leave out what another has, so nothing is required in it.
pub fn schema() -> String {
    let mut schema = section::<Root>();
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("hammerd");
    format!("{schema:#}\n")
}

/// The schema of one section.
pub(super) fn section<S: Section>() -> Json {
    let mut properties = Map::new();
    for key in S::KEYS {
        let mut property = (key.schema)();
        property["description"] = json!(plain(key.help));
        if let Some(default) = key.default {
            property["default"] = default();
        }
        properties.insert(key.name.to_owned(), property);
    }
    json!({
        "description": plain(S::ABOUT),
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    })
}

/// A doc comment as plain text.
fn plain(doc: &str) -> String {
    doc.trim().replace('`', "")
}
