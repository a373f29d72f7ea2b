//! What hyper's errors mean.

use std::error::Error;
use std::io;

use crate::net::{Fault, tls_reason};
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

/// Whether the peer broke the protocol, rather than just went away, or said over HTTP/2 that we did.
pub(super) fn is_violation(error: &hyper::Error) -> bool {
    classify(error, Reason::Eof) == Reason::Protocol && !h2_cause(error).is_some_and(h2::Error::is_remote)
}

/// Whether the peer says that it never looked at the request (RFC 9113, 8.7): it may be sent again.
pub(super) fn is_refusal(error: &hyper::Error) -> bool {
    h2_cause(error).is_some_and(|error| {
        let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
        let leaving = error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR);
        error.is_remote() && (refused || leaving)
    })
}

/// Whether one request of an HTTP/2 connection failed, and not the connection.
pub(super) fn is_of_stream(error: &hyper::Error) -> bool {
    h2_cause(error).is_some_and(h2::Error::is_reset)
}

/// `end` is what an orderly but early end of the connection counts as.
fn classify(error: &hyper::Error, end: Reason) -> Reason {
    if error.is_parse() {
        return Reason::Protocol;
    }
    if let Some(error) = h2_cause(error) {
        return classify_http2(error, end);
    }
    if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        return end;
    }
    if let Some(error) = tls_cause(error) {
        return tls_reason(error);
    }
    match io_cause(error) {
        Some(error) => of_io(error, end),
        None if error.is_timeout() => Reason::TimeoutResponse,
        None => Reason::Protocol,
    }
}

fn classify_http2(error: &h2::Error, end: Reason) -> Reason {
    if let Some(error) = error.get_io() {
        return match tls_of_io(error) {
            Some(error) => tls_reason(error),
            None => of_io(error, end),
        };
    }
    match error.reason() {
        Some(h2::Reason::NO_ERROR | h2::Reason::CANCEL | h2::Reason::REFUSED_STREAM | h2::Reason::INTERNAL_ERROR)
            if error.is_remote() =>
        {
            Reason::Reset
        }
        _ => Reason::Protocol,
    }
}

fn of_io(error: &io::Error, end: Reason) -> Reason {
    match error.kind() {
        // h2's word for an orderly end of the connection below its streams. The kernel's own, after a write, has no text.
        io::ErrorKind::BrokenPipe if error.get_ref().is_some() => end,
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe => Reason::Reset,
        io::ErrorKind::UnexpectedEof => end,
        // Chunk sizes and the like that make no sense.
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => Reason::Protocol,
        _ => Reason::Io,
    }
}

fn tls_of_io(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

fn h2_cause(error: &hyper::Error) -> Option<&h2::Error> {
    error.source()?.downcast_ref()
}

fn tls_cause(error: &hyper::Error) -> Option<&rustls::Error> {
    tls_of_io(io_cause(error)?)
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
