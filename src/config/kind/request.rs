//! The parts of a request: URL, method, headers, body; and the labels.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value as Json, json};

use super::super::error::{Mistakes, join, quote};
use super::super::node::{HIDDEN, Node, Shape, Table};
use super::super::section::{Found, Slot, slot};
use super::super::url::Endpoint;
use super::{FilePath, Kind, Refusal, Scalar, pattern};

/// Headers that say how the connection is used, which is not for a target to say.
const RESERVED: [&str; 8] =
    ["connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"];
const SETS_ITSELF: &str = "the connection sets it itself";
/// Headers a section may have.
const MAX_HEADERS: usize = 100;
/// Labels that `hammerd_target_info` has anyway.
const TAKEN_LABELS: [&str; 3] = ["target", "protocol", "authority"];
/// Labels a target may have, and bytes that one's value may have.
const MAX_LABELS: usize = 32;
const MAX_LABEL_BYTES: usize = 256;

/// Where requests go.
pub(in super::super) struct Url;

impl Scalar for Url {
    type Value = Endpoint;

    fn parse(node: &Node) -> Result<Endpoint, Refusal> {
        let accepted = || Refusal::Shown("a URL is as in https://host:8443/path?query".to_owned());
        let text = node.as_text().ok_or_else(accepted)?;
        // Whatever else is wrong with it, there may be a password before the @.
        let refusal = if text.contains('@') { Refusal::Hidden } else { Refusal::Clean };
        Endpoint::parse(text).map_err(|error| refusal(error.to_string()))
    }

    fn schema() -> Json {
        pattern("[hH][tT][tT][pP][sS]?://[^/?#@]+[^#]*")
    }
}

/// A request method.
pub(in super::super) struct Method;

impl Scalar for Method {
    type Value = http::Method;

    fn parse(node: &Node) -> Result<http::Method, Refusal> {
        let text =
            node.as_text().filter(|text| text.len() <= 32 && !text.bytes().any(|byte| byte.is_ascii_lowercase()));
        text.and_then(|text| http::Method::from_bytes(text.as_bytes()).ok())
            .filter(|method| method != http::Method::CONNECT)
            .ok_or_else(|| Refusal::Shown("a method is in capitals, as in GET or POST, and not CONNECT".to_owned()))
    }

    fn schema() -> Json {
        pattern("[!#$%&'*+.^_`|~0-9A-Z-]{1,32}")
    }
}

/// A request body.
pub(in super::super) struct Body;

impl Scalar for Body {
    type Value = Bytes;

    fn parse(node: &Node) -> Result<Bytes, Refusal> {
        let text = node.as_text().ok_or_else(|| Refusal::Shown("a body is a text".to_owned()))?;
        Ok(Bytes::copy_from_slice(text.as_bytes()))
    }

    fn schema() -> Json {
        json!({ "type": "string" })
    }
}

/// Headers by name.
pub(in super::super) struct Headers;

struct HeaderText;

impl Kind for Headers {
    type Value = HeaderMap<Found<HeaderValue>>;

    fn read(node: &Node, key: &str, mistakes: &mut Mistakes) -> Option<Self::Value> {
        headers::<HeaderText>(node, key, mistakes)
    }

    fn schema() -> Json {
        headers_schema(&json!({ "type": "string" }))
    }
}

impl Scalar for HeaderText {
    type Value = HeaderValue;

    fn parse(node: &Node) -> Result<HeaderValue, Refusal> {
        let text = node.as_text().ok_or_else(|| Refusal::Hidden("a header's value is a text".to_owned()))?;
        header_value(text).map_err(|why| Refusal::Hidden(why.to_owned()))
    }

    fn schema() -> Json {
        json!({ "type": "string" })
    }
}

/// Reads a header's value; the error does not repeat it.
pub(in super::super) fn header_value(text: &str) -> Result<HeaderValue, &'static str> {
    HeaderValue::from_bytes(text.as_bytes())
        .map_err(|_| "a header's value has no CR, LF, NUL or other control character")
}

/// Files of header values by name.
pub(in super::super) struct HeaderFiles;

impl Kind for HeaderFiles {
    type Value = HeaderMap<Found<PathBuf>>;

    fn read(node: &Node, key: &str, mistakes: &mut Mistakes) -> Option<Self::Value> {
        headers::<FilePath>(node, key, mistakes)
    }

    fn schema() -> Json {
        headers_schema(&<FilePath as Scalar>::schema())
    }
}

fn headers<K: Kind>(node: &Node, key: &str, mistakes: &mut Mistakes) -> Option<HeaderMap<Found<K::Value>>> {
    let mut headers = HeaderMap::default();
    let entries = entries(node, key, mistakes, "a table of headers by name")?;
    if entries.len() > MAX_HEADERS {
        mistakes.push(node.place, key, format!("{} headers are not accepted: at most {MAX_HEADERS}", entries.len()));
        return None;
    }
    for (name, node) in entries {
        let path = join(key, name);
        match HeaderName::from_bytes(name.as_bytes()) {
            Ok(header) if RESERVED.contains(&header.as_str()) => {
                mistakes.push(node.place, path, format!("this header is not accepted: {SETS_ITSELF}"));
            }
            Ok(header) => {
                if let Slot::Found(found) = slot::<K>(node, &path, mistakes) {
                    headers.insert(header, found);
                }
            }
            Err(_) => mistakes.push(node.place, key, format!("{} is not accepted as a header's name", quote(name))),
        }
    }
    Some(headers)
}

fn headers_schema(value: &Json) -> Json {
    json!({
        "type": "object",
        "maxProperties": MAX_HEADERS,
        "propertyNames": { "pattern": format!("^{}$", name_pattern(&RESERVED)) },
        "additionalProperties": value,
    })
}

/// A pattern for headers' names but these.
fn name_pattern(except: &[&str]) -> String {
    // A schema's patterns have no flag for "any case".
    let any_case = |name: &&str| -> String {
        name.chars()
            .map(|c| if c == '-' { c.to_string() } else { format!("[{c}{}]", c.to_ascii_uppercase()) })
            .collect()
    };
    let except: Vec<_> = except.iter().map(any_case).collect();
    format!("(?!(?:{})$)[!#$%&'*+.^_`|~0-9A-Za-z-]+", except.join("|"))
}

/// The name of a header that hammerd fills in.
pub(in super::super) struct IdHeader;

impl Scalar for IdHeader {
    type Value = HeaderName;

    fn parse(node: &Node) -> Result<HeaderName, Refusal> {
        let name = node.as_text().and_then(|text| HeaderName::from_bytes(text.as_bytes()).ok());
        match name {
            Some(name) if name == HOST => Err(Refusal::Shown("it says who is asked".to_owned())),
            Some(name) if RESERVED.contains(&name.as_str()) => Err(Refusal::Shown(SETS_ITSELF.to_owned())),
            Some(name) => Ok(name),
            None => Err(Refusal::Clean("this is a header's name, as in x-request-id".to_owned())),
        }
    }

    fn schema() -> Json {
        let except: Vec<_> = RESERVED.into_iter().chain(["host"]).collect();
        pattern(&name_pattern(&except))
    }
}

/// Labels by name.
pub(in super::super) struct Labels;

struct LabelText;

impl Kind for Labels {
    type Value = BTreeMap<String, String>;

    fn read(node: &Node, key: &str, mistakes: &mut Mistakes) -> Option<Self::Value> {
        let mut labels = BTreeMap::new();
        let entries = entries(node, key, mistakes, "a table of labels by name")?;
        if entries.len() > MAX_LABELS {
            mistakes.push(node.place, key, format!("{} labels are not accepted: at most {MAX_LABELS}", entries.len()));
        }
        for (name, node) in entries {
            if let Some(why) = refused_label(name) {
                mistakes.push(node.place, key, format!("{} is not accepted: {why}", quote(name)));
            } else if let Slot::Found(found) = slot::<LabelText>(node, &join(key, name), mistakes) {
                labels.insert(name.clone(), found.value);
            }
        }
        Some(labels)
    }

    fn schema() -> Json {
        json!({
            "type": "object",
            "maxProperties": MAX_LABELS,
            "propertyNames": { "pattern": format!("^(?!__|(?:{})$)[a-zA-Z_][a-zA-Z0-9_]*$", TAKEN_LABELS.join("|")) },
            "additionalProperties": <LabelText as Scalar>::schema(),
        })
    }
}

impl Scalar for LabelText {
    type Value = String;

    fn parse(node: &Node) -> Result<String, Refusal> {
        let text = node.as_text().ok_or_else(|| Refusal::Shown("a label's value is a text".to_owned()))?;
        if text.chars().any(char::is_control) || text.len() > MAX_LABEL_BYTES {
            let why = format!("a label's value has no control characters and at most {MAX_LABEL_BYTES} bytes");
            return Err(Refusal::Clean(why));
        }
        Ok(text.to_owned())
    }

    fn schema() -> Json {
        json!({ "type": "string", "maxLength": MAX_LABEL_BYTES })
    }
}

fn refused_label(name: &str) -> Option<&'static str> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if name.is_empty() || name.as_bytes()[0].is_ascii_digit() || !name.bytes().all(word) {
        Some("a label's name has letters, digits and _, and no digit first")
    } else if name.starts_with("__") {
        Some("names that begin with __ belong to Prometheus")
    } else if TAKEN_LABELS.contains(&name) {
        Some("hammerd sets this label itself")
    } else {
        None
    }
}

fn entries<'a>(node: &'a Node, key: &str, mistakes: &mut Mistakes, what: &str) -> Option<&'a Table> {
    if let Shape::Table(table) = &node.shape {
        return Some(table);
    }
    // Not repeated: it may be a header on one line.
    mistakes.push(node.place, key, format!("{HIDDEN} is not accepted: this is {what}"));
    None
}
