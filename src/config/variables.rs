//! `${NAME}` in string values.

use std::collections::HashMap;

use super::error::{Mistakes, Place, quote};
use super::node::{Shape, Text};

/// What `${NAME}` may refer to, and which layers are not expanded.
pub(super) struct Variables<'a> {
    pub(super) environment: HashMap<&'a str, &'a str>,
    /// The layer of values that know only texts because they are environment variables.
    pub(super) environment_layer: usize,
    /// The layer of the command line: the shell has already expanded what was to be expanded there.
    pub(super) flags_layer: usize,
}

/// Expands every `${NAME}` of a text; `$${` stands for `${`.
pub(super) fn expand(
    text: String,
    place: Place,
    key: &str,
    variables: &Variables<'_>,
    mistakes: &mut Mistakes,
) -> Shape {
    let loose = place.layer == variables.environment_layer || place.layer == variables.flags_layer;
    if place.layer == variables.flags_layer || !text.contains("${") {
        return Shape::Text(Text { content: text, secret: false, loose });
    }
    let (mut expanded, mut secret, mut broken) = (String::with_capacity(text.len()), false, false);
    let mut rest = text.as_str();
    while let Some(start) = rest.find("${") {
        let (before, after) = (&rest[..start], &rest[start + 2..]);
        if let Some(before) = before.strip_suffix('$') {
            expanded.push_str(before);
            expanded.push_str("${");
            rest = after;
            continue;
        }
        expanded.push_str(before);
        let name = after.split_once('}').map(|(name, _)| name).filter(|name| is_name(name));
        let Some(name) = name else {
            mistakes.push(place, key, "\"${\" begins a variable, as in ${NAME}; write \"$${\" for the text itself");
            return Shape::Broken;
        };
        if let Some(value) = variables.environment.get(name) {
            expanded.push_str(value);
            secret = true;
        } else {
            mistakes.push(place, key, format!("environment variable {} is not set", quote(name)));
            broken = true;
        }
        rest = &after[name.len() + 1..];
    }
    if broken {
        return Shape::Broken;
    }
    expanded.push_str(rest);
    Shape::Text(Text { content: expanded, secret, loose: loose || secret })
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(text: &str) -> (Shape, usize) {
        let variables = Variables {
            environment: HashMap::from([("HOST", "a.example"), ("EMPTY", ""), ("NESTED", "${HOST}")]),
            environment_layer: 8,
            flags_layer: 9,
        };
        let mut mistakes = Mistakes::default();
        let shape = expand(text.to_owned(), Place::default(), "k", &variables, &mut mistakes);
        let told = mistakes.into_rejected(&super::super::error::Origins::default()).messages().len();
        (shape, told)
    }

    #[test]
    fn variables_are_expanded_once_and_escapes_are_kept() {
        for (text, want, secret) in [
            ("plain", "plain", false),
            ("http://${HOST}/${EMPTY}x", "http://a.example/x", true),
            ("$${HOST}", "${HOST}", false),
            ("$$${HOST}", "$${HOST}", false),
            ("${NESTED}", "${HOST}", true),
            ("$HOST $ {HOST}", "$HOST $ {HOST}", false),
        ] {
            let want = Shape::Text(Text { content: want.to_owned(), secret, loose: secret });
            assert_eq!(expanded(text), (want, 0), "{text}");
        }
    }

    #[test]
    fn a_variable_that_cannot_be_expanded_is_a_mistake() {
        for (text, told) in [("${NONE}", 1), ("${NONE} ${NO}", 2), ("${", 1), ("${}", 1), ("${a b}", 1), ("${1}", 1)] {
            assert_eq!(expanded(text), (Shape::Broken, told), "{text}");
        }
    }
}
