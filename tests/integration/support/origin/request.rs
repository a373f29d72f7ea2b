//! What the origin was asked.

use std::io::{BufRead, Read as _};
use std::time::Instant;

const HEAD_LIMIT: usize = 64 * 1024;

/// One request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// When the last byte of its head had been read.
    pub(crate) at: Instant,
    /// Number of its connection, from 1.
    pub(crate) connection: u64,
    /// Number of the request on its connection, from 0.
    pub(crate) index: u64,
    /// Method.
    pub(crate) method: String,
    /// Request target as sent.
    pub(crate) path: String,
    /// Headers in order, names as sent.
    pub(crate) headers: Vec<(String, String)>,
    /// Body, when the reply lets it be read.
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// The first header of that name, whatever its case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Reads up to the empty line; `None` when the connection ends or the head is none.
    pub(super) fn read_head(reader: &mut impl BufRead, connection: u64, index: u64) -> Option<Self> {
        let mut lines = Vec::new();
        let mut length = 0;
        loop {
            let mut line = String::new();
            length += reader.read_line(&mut line).ok()?;
            match line.strip_suffix("\r\n") {
                Some("") => break,
                Some(line) if length <= HEAD_LIMIT => lines.push(line.to_owned()),
                _ => return None,
            }
        }
        let at = Instant::now();
        let mut first = lines.first()?.split(' ');
        let (method, path) = (first.next()?.to_owned(), first.next()?.to_owned());
        let header = |line: &String| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_owned(), value.trim().to_owned()))
        };
        let headers = lines[1..].iter().filter_map(header).collect();
        Some(Self { at, connection, index, method, path, headers, body: Vec::new() })
    }

    /// Reads a body of known length.
    pub(super) fn read_body(&mut self, reader: &mut impl BufRead) -> Option<()> {
        let length: u64 = self.header("content-length").map_or(Some(0), |length| length.parse().ok())?;
        reader.take(length).read_to_end(&mut self.body).ok()?;
        (self.body.len() as u64 == length).then_some(())
    }
}
