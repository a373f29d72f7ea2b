//! What hyper's errors mean.

use std::error::Error;
use std::io;

use crate::net::Fault;
use crate::outcome::Reason;

/// The failure behind an error on the way to the response's head. `idle_end`: the connection was a reused one and gave
/// no byte of the response.
pub(super) fn of_response(error: hyper::Error, idle_end: bool) -> Fault {
    let end = if idle_end { Reason::EofReused } else { Reason::Eof };
    Fault::new(classify(&error, end), error)
}

/// The failure behind an error inside the response's body.
pub(super) fn of_body(error: hyper::Error) -> Fault {
    Fault::new(classify(&error, Reason::Eof), error)
}

/// Whether the peer broke the protocol, rather than just went away.
pub(super) fn is_violation(error: &hyper::Error) -> bool {
    classify(error, Reason::Eof) == Reason::Protocol
}

/// `end` is what an orderly but early end of the connection counts as.
fn classify(error: &hyper::Error, end: Reason) -> Reason {
    if error.is_parse() {
        return Reason::Protocol;
    }
    if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        return end;
    }
    match io_cause(error).map(io::Error::kind) {
        Some(io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe) => {
            Reason::Reset
        }
        Some(io::ErrorKind::UnexpectedEof) => end,
        // Chunk sizes and the like that make no sense.
        Some(io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) => Reason::Protocol,
        Some(_) => Reason::Io,
        None => Reason::Protocol,
    }
}

fn io_cause(error: &hyper::Error) -> Option<&io::Error> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Some(error);
        }
        cause = error.source();
    }
    None
}
