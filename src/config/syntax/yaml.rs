//! YAML, event by event: the crate's tree has no lines, and its loader recurses without a bound.
//!
//! Only what a configuration needs: one document of tables, lists, texts, numbers and booleans. Aliases and tags are
//! refused, the first because a few lines of them can grow to gigabytes, the second because they mean nothing here.

use yaml_rust2::Yaml;
use yaml_rust2::parser::{Event, Parser as Events};
use yaml_rust2::scanner::{Marker, TScalarStyle};

use super::super::node::{Node, Shape, Table};
use super::{MAX_DEPTH, Parser, Place, TOO_DEEP};

/// A table or list that is not closed yet.
enum Open {
    List(Place, Vec<Node>),
    Table(Place, Table, Option<(Place, String)>),
}

pub(super) fn parse(text: &str, parser: &mut Parser<'_>) -> Table {
    let mut events = Events::new_from_str(text);
    let (mut open, mut root) = (Vec::new(), None);
    loop {
        let (event, marker) = match events.next_token() {
            Ok(next) => next,
            Err(error) => {
                parser.refuse(place(parser, *error.marker()), error.info());
                return Table::new();
            }
        };
        let place = place(parser, marker);
        if let Event::StreamEnd = event {
            break;
        }
        if let (Event::DocumentStart, Some(_)) = (&event, &root) {
            parser.refuse(place, "a second document; a file is one");
            return Table::new();
        }
        match step(event, place, &mut open, parser) {
            Ok(Some(node)) => root = Some(node),
            Ok(None) => {}
            Err(why) => {
                parser.refuse(place, why);
                return Table::new();
            }
        }
    }
    match root {
        Some(Node { shape: Shape::Table(table), .. }) => table,
        None | Some(Node { shape: Shape::Null, .. }) => Table::new(),
        Some(node) => {
            parser.refuse(node.place, "not a table of sections");
            Table::new()
        }
    }
}

fn place(parser: &Parser<'_>, marker: Marker) -> Place {
    Place { layer: parser.layer, line: marker.line() }
}

/// Takes one event in; a node comes out when the outermost value is complete.
fn step(
    event: Event,
    place: Place,
    open: &mut Vec<Open>,
    parser: &mut Parser<'_>,
) -> Result<Option<Node>, &'static str> {
    let node = match event {
        Event::Alias(_) => return Err("aliases are not accepted; [defaults] is shared by all"),
        Event::Scalar(_, _, _, Some(_)) | Event::SequenceStart(_, Some(_)) | Event::MappingStart(_, Some(_)) => {
            return Err("tags are not accepted");
        }
        Event::Scalar(text, style, ..) => match open.last_mut() {
            Some(Open::Table(_, _, name @ None)) => {
                *name = Some((place, text));
                return Ok(None);
            }
            _ => scalar(place, text, style),
        },
        Event::SequenceStart(..) | Event::MappingStart(..) => {
            if matches!(open.last(), Some(Open::Table(_, _, None))) {
                return Err("a name must be a text");
            }
            if open.len() > MAX_DEPTH {
                return Err(TOO_DEEP);
            }
            open.push(match event {
                Event::SequenceStart(..) => Open::List(place, Vec::new()),
                _ => Open::Table(place, Table::new(), None),
            });
            return Ok(None);
        }
        Event::SequenceEnd | Event::MappingEnd => match open.pop() {
            Some(Open::List(place, items)) => Node::new(place, Shape::List(items)),
            Some(Open::Table(place, table, _)) => Node::new(place, Shape::Table(table)),
            None => return Ok(None),
        },
        _ => return Ok(None),
    };
    Ok(match open.last_mut() {
        None => Some(node),
        Some(Open::List(_, items)) => {
            items.push(node);
            None
        }
        Some(Open::Table(_, table, name)) => {
            if let Some((place, name)) = name.take() {
                parser.insert(table, name, Node { place, ..node });
            }
            None
        }
    })
}

/// A plain scalar may be a number, a boolean or nothing; a quoted one is a text.
fn scalar(place: Place, text: String, style: TScalarStyle) -> Node {
    // The crate reads 0123 as 123, where YAML 1.1 said 83: an ambiguous number stays a text.
    let digits = text.trim_start_matches(['-', '+']);
    let ambiguous = digits.len() > 1 && digits.starts_with('0') && digits.as_bytes()[1].is_ascii_digit();
    if style != TScalarStyle::Plain || ambiguous {
        return Node::text(place, text);
    }
    let shape = match Yaml::from_str(&text) {
        Yaml::Null => Shape::Null,
        Yaml::Boolean(value) => Shape::Bool(value),
        Yaml::Integer(value) => Shape::Integer(value),
        real @ Yaml::Real(_) => Shape::Float(real.as_f64().unwrap_or(f64::NAN)),
        _ => return Node::text(place, text),
    };
    Node::new(place, shape)
}
