//! TOML, through the spanned parser.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::super::node::{Node, Shape, Table};
use super::Parser;

/// Mistakes of syntax told of one file; after the first few they are mostly echoes.
const MAX_SYNTAX_MISTAKES: usize = 20;

pub(super) fn parse(text: &str, parser: &mut Parser<'_>) -> Table {
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in errors.iter().take(MAX_SYNTAX_MISTAKES) {
        let span = error.span().unwrap_or(0..0);
        let message = match (error.message(), text.get(span.clone())) {
            ("duplicate key", Some(key)) => format!("{} is set twice", super::quote(key)),
            (message, _) => message.to_owned(),
        };
        parser.refuse(parser.place(span.start), message);
    }
    if errors.is_empty() { table(document.into_inner(), 1, parser) } else { Table::new() }
}

fn table(entries: DeTable<'_>, depth: usize, parser: &mut Parser<'_>) -> Table {
    let mut table = Table::new();
    for (name, value) in entries {
        let place = parser.place(name.span().start);
        if let Some(shape) = shape(value.into_inner(), depth, place, parser) {
            parser.insert(&mut table, name.into_inner().into_owned(), Node::new(place, shape));
        }
    }
    table
}

fn shape(value: DeValue<'_>, depth: usize, place: super::Place, parser: &mut Parser<'_>) -> Option<Shape> {
    if !parser.fits(depth, place) {
        return None;
    }
    Some(match value {
        DeValue::String(text) => return Some(Node::text(place, text).shape),
        DeValue::Datetime(moment) => return Some(Node::text(place, moment.to_string()).shape),
        DeValue::Boolean(value) => Shape::Bool(value),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Shape::Integer(number),
            Err(_) => Shape::Float(number.as_str().parse().unwrap_or(f64::INFINITY)),
        },
        DeValue::Float(number) => Shape::Float(number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Array(items) => Shape::List(
            items
                .into_iter()
                .filter_map(|item: Spanned<DeValue<'_>>| {
                    let place = parser.place(item.span().start);
                    Some(Node::new(place, shape(item.into_inner(), depth + 1, place, parser)?))
                })
                .collect(),
        ),
        DeValue::Table(entries) => Shape::Table(table(entries, depth + 1, parser)),
    })
}
