//! Which targets somebody wants to see, and in which order.

use std::fmt;

use serde_json::{Value, json};

use crate::outcome::labels;
use crate::stats::State;

labels! {
    /// What targets can be sorted by.
    Sort {
        /// The name.
        Name => "name",
        /// The state, the worst first.
        State => "state",
        /// The rate that the schedule asks for.
        AskedRate => "asked_rate",
        /// Arrivals a second.
        ScheduledRate => "scheduled_rate",
        /// Requests started a second.
        StartedRate => "started_rate",
        /// Requests finished a second.
        FinishedRate => "finished_rate",
        /// The share of requests that failed.
        ErrorRatio => "error_ratio",
        /// Latency.
        P50 => "p50",
        /// Latency.
        P90 => "p90",
        /// Latency.
        P95 => "p95",
        /// Latency.
        P99 => "p99",
        /// Latency.
        P999 => "p99.9",
        /// Latency.
        Max => "max",
        /// When the latest failure was.
        LastFailure => "last_failure",
    }
}

labels! {
    /// A direction, in the words of `aria-sort`.
    Order {
        /// The least first.
        Ascending => "ascending",
        /// The greatest first.
        Descending => "descending",
    }
}

/// Which targets, in which order, and which part of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// In lower case; a part of the name, of the authority or of `label=value`.
    pub(super) search: String,
    pub(super) state: Option<State>,
    pub(super) sort: Sort,
    pub(super) order: Order,
    pub(super) offset: usize,
    pub(super) limit: usize,
}

impl Default for Query {
    fn default() -> Self {
        Self {
            search: String::new(),
            state: None,
            sort: Sort::Name,
            order: Order::Ascending,
            offset: 0,
            limit: Self::LIMIT,
        }
    }
}

/// What is wrong with a query. Repeats nothing of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueryError {
    /// There is no such parameter.
    Unknown,
    /// The parameter is there twice.
    Twice(&'static str),
    /// The parameter has a value that it can't have.
    Value(&'static str, String),
    /// A percent sign without two digits behind it, or no UTF-8.
    Coding,
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => write!(f, "unknown query parameter; there are {}", Query::PARAMETERS.join(", ")),
            Self::Twice(name) => write!(f, "query parameter {name}: is there twice"),
            Self::Value(name, expected) => write!(f, "query parameter {name}: must be {expected}"),
            Self::Coding => f.write_str("the query is not percent-encoded UTF-8"),
        }
    }
}

impl std::error::Error for QueryError {}

impl Query {
    /// How many targets an answer has when nobody says.
    pub const LIMIT: usize = 100;
    /// How many it can have.
    pub const LIMIT_MAX: usize = 500;
    /// The longest text to search for, in bytes.
    pub const SEARCH_BYTES_MAX: usize = 100;
    const PARAMETERS: [&'static str; 6] = ["search", "state", "sort", "order", "offset", "limit"];

    /// Reads what stands behind the question mark.
    pub fn parse(text: &str) -> Result<Self, QueryError> {
        let mut query = Self::default();
        let mut seen = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = Self::PARAMETERS.into_iter().find(|known| *known == name).ok_or(QueryError::Unknown)?;
            if seen.contains(&name) {
                return Err(QueryError::Twice(name));
            }
            seen.push(name);
            query.set(name, &decoded(value)?)?;
        }
        Ok(query)
    }

    fn set(&mut self, name: &'static str, value: &str) -> Result<(), QueryError> {
        match name {
            "search" if value.len() > Self::SEARCH_BYTES_MAX => {
                return Err(QueryError::Value(name, format!("at most {} bytes", Self::SEARCH_BYTES_MAX)));
            }
            "search" => self.search = value.to_lowercase(),
            "state" => self.state = Some(one_of(name, value, &State::ALL, &State::LABELS)?),
            "sort" => self.sort = one_of(name, value, &Sort::ALL, &Sort::LABELS)?,
            "order" => self.order = one_of(name, value, &Order::ALL, &Order::LABELS)?,
            "offset" => self.offset = number(name, value, 0, u32::MAX as usize)?,
            _ => self.limit = number(name, value, 1, Self::LIMIT_MAX)?,
        }
        Ok(())
    }

    /// As the answer repeats it.
    pub(super) fn json(&self, matching: usize) -> Value {
        json!({
            "search": self.search,
            "state": self.state.map(State::label),
            "sort": self.sort.label(),
            "order": self.order.label(),
            "offset": self.offset,
            "limit": self.limit,
            "matching": matching,
        })
    }
}

fn one_of<T: Copy>(name: &'static str, value: &str, all: &[T], labels: &[&str]) -> Result<T, QueryError> {
    let found = labels.iter().position(|label| *label == value).and_then(|at| all.get(at));
    found.copied().ok_or_else(|| QueryError::Value(name, format!("one of {}", labels.join(", "))))
}

fn number(name: &'static str, value: &str, least: usize, most: usize) -> Result<usize, QueryError> {
    let number = value.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| QueryError::Value(name, format!("a whole number from {least} to {most}")))
}

/// A value as HTML forms write it (application/x-www-form-urlencoded).
fn decoded(value: &str) -> Result<String, QueryError> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                let (high, low) = (digit(), digit());
                (high.zip(low).map(|(high, low)| high * 16 + low)).ok_or(QueryError::Coding)? as u8
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).map_err(|_| QueryError::Coding)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_which_targets_and_in_which_order() {
        assert_eq!(Query::parse(""), Ok(Query::default()));
        assert_eq!(Query::parse("&"), Ok(Query::default()));
        let expected = Query {
            search: "team=a b".to_owned(),
            state: Some(State::Failing),
            sort: Sort::P999,
            order: Order::Descending,
            offset: 50,
            limit: 500,
        };
        let text = "search=Team%3DA+b&state=failing&sort=p99.9&order=descending&offset=50&limit=500";
        assert_eq!(Query::parse(text), Ok(expected));
        assert_eq!(Query::parse("search=%C3%84").map(|query| query.search), Ok("ä".to_owned()));
    }

    #[test]
    fn a_query_that_makes_no_sense_is_told_what_would() {
        for (text, complaint) in [
            ("target=x", "unknown query parameter; there are search, state, sort, order, offset, limit"),
            ("%73earch=x", "unknown query parameter; there are search, state, sort, order, offset, limit"),
            ("limit=1&limit=2", "query parameter limit: is there twice"),
            ("limit=0", "query parameter limit: must be a whole number from 1 to 500"),
            ("limit=501", "query parameter limit: must be a whole number from 1 to 500"),
            ("limit", "query parameter limit: must be a whole number from 1 to 500"),
            ("offset=-1", "query parameter offset: must be a whole number from 0 to 4294967295"),
            ("offset=1e3", "query parameter offset: must be a whole number from 0 to 4294967295"),
            ("state=bad", "query parameter state: must be one of failing, dropping, waiting, good, draining"),
            ("order=down", "query parameter order: must be one of ascending, descending"),
            ("search=%", "the query is not percent-encoded UTF-8"),
            ("search=%4", "the query is not percent-encoded UTF-8"),
            ("search=%ff", "the query is not percent-encoded UTF-8"),
            ("search=%+1", "the query is not percent-encoded UTF-8"),
        ] {
            assert_eq!(Query::parse(text).map_err(|error| error.to_string()), Err(complaint.to_owned()), "{text}");
        }
        let long = format!("search={}", "x".repeat(101));
        let complaint = "query parameter search: must be at most 100 bytes";
        assert_eq!(Query::parse(&long).map_err(|error| error.to_string()), Err(complaint.to_owned()));
    }
}
