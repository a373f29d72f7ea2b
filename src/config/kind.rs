//! What a key may hold: how it is read, which values are accepted, and how that looks in the JSON Schema.

mod connection;
mod number;
mod request;
mod shard;

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;

use ipnet::IpNet;
use serde_json::{Value as Json, json};

use super::StatusSet;
use super::error::Mistakes;
use super::node::{HIDDEN, Node, Shape};
use crate::pace::Rate;

pub(super) use connection::{
    ConnectTo, FamilyWord, HttpVersionWord, RefreshText, ServerName, Servers, TlsVersionWord, TraceparentWord,
};
pub(super) use number::{Count, MAX_SIZE, Size, Span, display_duration, display_size};
pub(super) use request::{Body, HeaderFiles, Headers, IdHeader, Labels, Method, Url, header_value};
pub(super) use shard::{Address, Members};

/// A kind of value.
pub(super) trait Kind {
    /// What it is read as.
    type Value;

    /// Reads a node; what is not accepted is noted.
    fn read(node: &Node, key: &str, mistakes: &mut Mistakes) -> Option<Self::Value>;

    /// The JSON Schema of what is accepted.
    fn schema() -> Json;
}

/// A kind without parts: one value, one reason to refuse it.
pub(super) trait Scalar {
    type Value;

    /// Reads a node.
    fn parse(node: &Node) -> Result<Self::Value, Refusal>;

    fn schema() -> Json;
}

/// Why a value is not accepted.
pub(super) enum Refusal {
    /// The value may be repeated in the message.
    Shown(String),
    /// The value may be repeated only when no control characters are in it: a log must not carry them on.
    Clean(String),
    /// The value is never repeated.
    Hidden(String),
}

impl<T: Scalar> Kind for T {
    type Value = T::Value;

    fn read(node: &Node, key: &str, mistakes: &mut Mistakes) -> Option<Self::Value> {
        let refusal = match Self::parse(node) {
            Ok(value) => return Some(value),
            Err(refusal) => refusal,
        };
        let dirty = node.as_text().is_some_and(|text| text.chars().any(char::is_control));
        let (shown, why) = match refusal {
            Refusal::Shown(why) => (node.to_string(), why),
            Refusal::Clean(why) if !dirty => (node.to_string(), why),
            Refusal::Clean(why) | Refusal::Hidden(why) => (HIDDEN.to_owned(), why),
        };
        mistakes.push(node.place, key, format!("{shown} is not accepted: {why}"));
        None
    }

    fn schema() -> Json {
        <T as Scalar>::schema()
    }
}

/// A schema for texts of a pattern; a variable may stand for any part of them.
fn pattern(pattern: &str) -> Json {
    json!({ "type": "string", "pattern": format!("^(?:{pattern})$|\\$\\{{") })
}

/// A schema for something that is no text, or a text with a variable in it.
fn or_variable(schema: &Json) -> Json {
    json!({ "anyOf": [schema, { "type": "string", "pattern": "\\$\\{" }] })
}

/// `true` or `false`.
pub(super) struct Flag;

impl Scalar for Flag {
    type Value = bool;

    fn parse(node: &Node) -> Result<bool, Refusal> {
        match &node.shape {
            Shape::Bool(value) => Ok(*value),
            Shape::Text(text) if text.loose && text.content == "true" => Ok(true),
            Shape::Text(text) if text.loose && text.content == "false" => Ok(false),
            _ => Err(Refusal::Shown("it is true or false".to_owned())),
        }
    }

    fn schema() -> Json {
        or_variable(&json!({ "type": "boolean" }))
    }
}

/// An exact rate.
pub(super) struct RateText;

impl Scalar for RateText {
    type Value = Rate;

    fn parse(node: &Node) -> Result<Rate, Refusal> {
        let text = match &node.shape {
            Shape::Text(text) => text.content.clone(),
            Shape::Integer(count) => count.to_string(),
            Shape::Float(count) => count.to_string(),
            _ => String::new(),
        };
        text.parse().map_err(|_| Refusal::Shown(format!("a rate is {}", Rate::ACCEPTED)))
    }

    fn schema() -> Json {
        let text = pattern(r"\s*[0-9]+(\.[0-9]+)?\s*(/\s*[0-9a-zµ ]*[a-z]\s*)?");
        json!({ "anyOf": [{ "type": "number", "exclusiveMinimum": 0, "maximum": Rate::MAX_PER_SECOND }, text] })
    }
}

/// The address of the HTTP face, or none.
pub(super) struct Listen;

impl Scalar for Listen {
    type Value = Option<SocketAddr>;

    fn parse(node: &Node) -> Result<Self::Value, Refusal> {
        let text = node.as_text().unwrap_or_default();
        if text == "off" {
            return Ok(None);
        }
        let address = match text.strip_prefix(':') {
            Some(port) => port.parse().ok().map(|port: u16| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))),
            None => text.parse().ok(),
        };
        let accepted = r#"an address is as in 127.0.0.1:9955, [::1]:9955, :9955 for every IPv4 address, or "off""#;
        address.map(Some).ok_or_else(|| Refusal::Shown(accepted.to_owned()))
    }

    fn schema() -> Json {
        pattern(r"off|([0-9.]*|\[[0-9a-fA-F:.%]+\]):[0-9]{1,5}")
    }
}

/// A number of worker threads, or `auto`.
pub(super) struct Workers;

impl Scalar for Workers {
    type Value = Option<NonZeroUsize>;

    fn parse(node: &Node) -> Result<Self::Value, Refusal> {
        if node.as_text() == Some("auto") {
            return Ok(None);
        }
        let count = node.integer().filter(|count| (1..=64).contains(count));
        match count.and_then(|count| NonZeroUsize::new(count as usize)) {
            Some(count) => Ok(Some(count)),
            None => Err(Refusal::Shown("it is \"auto\" or a number from 1 to 64".to_owned())),
        }
    }

    fn schema() -> Json {
        json!({ "anyOf": [{ "type": "integer", "minimum": 1, "maximum": 64 }, pattern("auto")] })
    }
}

/// The path of a file, relative to the working directory. Left as it is: files are read once all is put together.
pub(super) struct FilePath;

impl Scalar for FilePath {
    type Value = std::path::PathBuf;

    fn parse(node: &Node) -> Result<Self::Value, Refusal> {
        match node.as_text() {
            Some(path) if !path.is_empty() && !path.contains('\0') => Ok(path.into()),
            _ => Err(Refusal::Clean("it is the path of a file".to_owned())),
        }
    }

    fn schema() -> Json {
        json!({ "type": "string", "minLength": 1 })
    }
}

/// How arrivals lie in time; the size of a burst has a key of its own.
pub(super) struct Process;

/// The word of [`Process`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProcessWord {
    Even,
    Burst,
}

impl Scalar for Process {
    type Value = ProcessWord;

    fn parse(node: &Node) -> Result<ProcessWord, Refusal> {
        match node.as_text() {
            Some("even") => Ok(ProcessWord::Even),
            Some("burst") => Ok(ProcessWord::Burst),
            _ => Err(Refusal::Shown("it is \"even\" or \"burst\"".to_owned())),
        }
    }

    fn schema() -> Json {
        pattern("even|burst")
    }
}

/// Address ranges.
pub(super) struct Networks;

impl Kind for Networks {
    type Value = Vec<IpNet>;

    fn read(node: &Node, key: &str, mistakes: &mut Mistakes) -> Option<Self::Value> {
        const ACCEPTED: &str = "a network is as in 10.0.0.0/8 or fd00::/8, an address alone is that address";
        let parse = |text: &str| text.parse().ok().or_else(|| text.parse::<std::net::IpAddr>().ok().map(IpNet::from));
        list(node, key, mistakes, "a list of networks", |item| {
            item.as_text().and_then(parse).ok_or(ACCEPTED.to_owned())
        })
    }

    fn schema() -> Json {
        json!({ "type": "array", "items": pattern(r"[0-9a-fA-F:.]+(/[0-9]{1,3})?") })
    }
}

/// Rising bounds in seconds.
pub(super) struct Buckets;

impl Kind for Buckets {
    type Value = Vec<f64>;

    fn read(node: &Node, key: &str, mistakes: &mut Mistakes) -> Option<Self::Value> {
        const ACCEPTED: &str = "a bound is a number of seconds above 0, as in 0.25";
        let bounds = list(node, key, mistakes, "a list of bounds in seconds", |item| {
            let number = match &item.shape {
                Shape::Integer(number) => Some(*number as f64),
                Shape::Float(number) => Some(*number),
                Shape::Text(text) if text.loose => text.content.parse().ok(),
                _ => None,
            };
            number.filter(|number| number.is_finite() && *number > 0.0).ok_or(ACCEPTED.to_owned())
        })?;
        if bounds.is_empty() || bounds.len() > 64 {
            let text = format!("{} bounds are not accepted: there are 1 to 64", bounds.len());
            mistakes.push(node.place, key, text);
            return None;
        }
        if let Some(at) = bounds.windows(2).position(|pair| pair[0] >= pair[1]) {
            let text = format!("bounds rise, but number {} is not above the one before", at + 2);
            mistakes.push(node.place, key, text);
            return None;
        }
        Some(bounds)
    }

    fn schema() -> Json {
        json!({
            "type": "array",
            "items": { "type": "number", "exclusiveMinimum": 0 },
            "minItems": 1,
            "maxItems": 64,
        })
    }
}

/// Status codes that count as success.
pub(super) struct Statuses;

impl Kind for Statuses {
    type Value = StatusSet;

    fn read(node: &Node, key: &str, mistakes: &mut Mistakes) -> Option<Self::Value> {
        let accepted = || format!("status codes are {}", StatusSet::ACCEPTED);
        let ranges = list(node, key, mistakes, "a list of status codes", |item| match (&item.shape, item.as_text()) {
            (Shape::Integer(code), _) => StatusSet::parse_range(&code.to_string()).ok_or_else(accepted),
            (_, text) => text.and_then(StatusSet::parse_range).ok_or_else(accepted),
        })?;
        if ranges.is_empty() {
            mistakes.push(node.place, key, "an empty list is not accepted: some status must count as success");
            return None;
        }
        Some(StatusSet::new(ranges))
    }

    fn schema() -> Json {
        let code = json!({ "type": "integer", "minimum": 100, "maximum": 999 });
        let text = pattern("[1-9][0-9]{2}(-[1-9][0-9]{2})?|[1-9]xx");
        json!({ "type": "array", "items": { "anyOf": [code, text] }, "minItems": 1 })
    }
}

/// Reads a list item by item; every item that is not accepted is noted at its own line.
fn list<T>(
    node: &Node,
    key: &str,
    mistakes: &mut Mistakes,
    what: &str,
    parse: impl Fn(&Node) -> Result<T, String>,
) -> Option<Vec<T>> {
    let Some(items) = node.items() else {
        mistakes.push(node.place, key, format!("{node} is not accepted: this is {what}"));
        return None;
    };
    let (count, mut accepted) = (items.len(), Vec::with_capacity(items.len()));
    for item in items {
        match parse(&item) {
            Ok(value) => accepted.push(value),
            Err(_) if item.shape == Shape::Broken => {}
            Err(why) => mistakes.push(item.place, key, format!("{item} is not accepted: {why}")),
        }
    }
    Some(accepted).filter(|accepted| accepted.len() == count)
}
