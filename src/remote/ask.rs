//! One GET over HTTP/1.1 on a connection of its own, bounded in size; the caller bounds its time.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, HOST, HeaderMap, LOCATION, TRANSFER_ENCODING, USER_AGENT};
use http::{HeaderValue, Request, StatusCode};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use super::{Failure, PATIENCE, Reason};
use crate::clock;
use crate::config::{Endpoint, MAX_TEXT, without_secrets};
use crate::net::{
    Dialer, Family, Fault, Guard, Peer, Refresh, Resolver, Route, Stream, SystemRoots, Tls, TlsSpec, TlsVersion,
};
use crate::outcome::{Reason as Cause, Trace};
use crate::stats::{Ledger, Shape};

/// What is read of an answer that is no text of ours, for its reason.
const MAX_COMPLAINT: usize = 4096;
/// How long that may take: its status is known.
const COMPLAINT_PATIENCE: Duration = Duration::from_secs(1);

/// A whole answer: a success or "not modified".
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// Asks for the resource. The TLS of the host is kept in `tls` for the next time.
pub(super) async fn get(
    endpoint: &Endpoint,
    mut headers: HeaderMap,
    tls: &mut Option<Rc<Tls>>,
    resolver: &Resolver,
) -> Result<Answer, Failure> {
    headers.insert(HOST, endpoint.authority.clone());
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("hammerd/", env!("CARGO_PKG_VERSION"))));
    let mut request = Request::new(String::new());
    *request.uri_mut() = endpoint.path.clone().into();
    *request.headers_mut() = headers;

    let stream = connect(endpoint, tls, resolver).await.map_err(|fault| failure_of(&fault))?;
    let broken = |error: hyper::Error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        Failure::passing(Reason::Protocol, format!("no answer: {error}{cause}"))
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let exchange = async {
        let (head, body) = sender.send_request(request).await.map_err(broken)?.into_parts();
        judge(head.status, &head.headers)?;
        if head.status == StatusCode::OK || head.status == StatusCode::NOT_MODIFIED {
            judge_length(&head.headers, &body)?;
            let body = whole(body).await?;
            return Ok(Answer { status: head.status, headers: head.headers, body });
        }
        let complaint = timeout(COMPLAINT_PATIENCE, beginning(body)).await.unwrap_or_default();
        let passing = head.status.is_server_error()
            || matches!(head.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
        let text = format!("it answers {}{}", head.status, excerpt(&complaint));
        Err(Failure { reason: Reason::Status, text, passing })
    };
    let drive = async {
        // Its error also reaches whoever waits for the response.
        let _ = connection.await;
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        biased;
        answer = exchange => answer,
        never = drive => match never {},
    }
}

async fn connect(endpoint: &Endpoint, tls: &mut Option<Rc<Tls>>, resolver: &Resolver) -> Result<Stream, Fault> {
    let route = Route {
        peer: Peer::Tcp { host: endpoint.host.clone(), port: endpoint.port },
        family: Family::Any,
        refresh: Refresh::Ttl,
        servers: Vec::new(),
        connect_timeout: PATIENCE,
    };
    // Nobody reads what is counted there.
    let ledger = Arc::new(Ledger::new(Shape::new(0, &[])));
    let dialer = Dialer::new(route, Arc::new(Guard::default()), resolver.clone(), ledger);
    let deadline_ns = clock::now_ns().saturating_add(PATIENCE.as_nanos() as u64);
    let socket = dialer.dial(&Trace::new(), deadline_ns).await?;
    if !endpoint.secure {
        return Ok(Stream::Plain(socket));
    }
    let tls = if let Some(tls) = tls {
        Rc::clone(tls)
    } else {
        let made = Tls::new(spec(endpoint), &SystemRoots::default());
        let made = made.map_err(|error| Fault::new(Cause::TlsProtocol, error))?;
        Rc::clone(tls.insert(Rc::new(made)))
    };
    Ok(Stream::Secure(Box::new(tls.handshake(socket).await?)))
}

fn spec(endpoint: &Endpoint) -> TlsSpec {
    TlsSpec {
        server_name: endpoint.host.clone(),
        ca: None,
        identity: None,
        min_version: TlsVersion::V12,
        insecure_skip_verify: false,
        resumption: false,
        handshake_timeout: Duration::from_secs(5),
        alpn: vec![b"http/1.1"],
    }
}

fn failure_of(fault: &Fault) -> Failure {
    let reason = match fault.reason {
        Cause::DnsNotFound | Cause::DnsFailed | Cause::DnsTimeout => Reason::Dns,
        Cause::ConnectTimeout | Cause::TlsTimeout => Reason::Timeout,
        Cause::TlsCertificate | Cause::TlsProtocol => Reason::Tls,
        _ => Reason::Connect,
    };
    let cause = fault.cause_text();
    let text = [fault.reason.label(), &cause].join(": ");
    // Who shows a certificate that is not accepted goes on with that.
    Failure { reason, text, passing: reason != Reason::Tls }
}

/// Refuses what is neither a text nor an answer about one.
fn judge(status: StatusCode, headers: &HeaderMap) -> Result<(), Failure> {
    if status.is_redirection() && status != StatusCode::NOT_MODIFIED {
        let to =
            headers.get(LOCATION).and_then(|to| to.to_str().ok()).map_or_else(|| "nowhere".to_owned(), without_secrets);
        let text = format!("it answers {status}, to {to:?}: redirects are not followed, name the place itself");
        return Err(Failure::lasting(Reason::Redirect, text));
    }
    let encoded = headers.get(CONTENT_ENCODING).filter(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"));
    match encoded {
        Some(coding) if status.is_success() => {
            let text = format!("its text is encoded ({coding:?}), which was not asked for");
            Err(Failure::lasting(Reason::Protocol, text))
        }
        _ => Ok(()),
    }
}

/// Refuses a body that only the end of the connection ends: half of it would look like all of it.
fn judge_length(headers: &HeaderMap, body: &Incoming) -> Result<(), Failure> {
    let codings = headers.get_all(TRANSFER_ENCODING).iter().next_back().and_then(|value| value.to_str().ok());
    let last = codings.and_then(|codings| codings.rsplit(',').next()).map(str::trim);
    let chunked = last.is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"));
    if chunked || body.size_hint().exact().is_some() {
        return Ok(());
    }
    let text = "its answer has neither a Content-Length nor chunks, so that nothing tells whether all of it came";
    Err(Failure::lasting(Reason::Protocol, text))
}

async fn whole(mut body: Incoming) -> Result<Bytes, Failure> {
    let too_large = || {
        Failure::lasting(Reason::TooLarge, format!("its text is larger than {MAX_TEXT} bytes, which is not accepted"))
    };
    if body.size_hint().lower() > MAX_TEXT {
        return Err(too_large());
    }
    let mut text = BytesMut::new();
    while let Some(part) = next_part(&mut body).await {
        let part = part.map_err(|error| {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            Failure::passing(Reason::Protocol, format!("its answer breaks off: {error}{cause}"))
        })?;
        if (text.len() + part.len()) as u64 > MAX_TEXT {
            return Err(too_large());
        }
        text.extend_from_slice(&part);
    }
    Ok(text.freeze())
}

/// The first bytes of a body, for as far as they come.
async fn beginning(mut body: Incoming) -> Vec<u8> {
    let mut text = Vec::new();
    while text.len() < MAX_COMPLAINT
        && let Some(Ok(part)) = next_part(&mut body).await
    {
        text.extend_from_slice(&part[..part.len().min(MAX_COMPLAINT - text.len())]);
    }
    text
}

async fn next_part(body: &mut Incoming) -> Option<Result<Bytes, hyper::Error>> {
    let mut body = pin!(body);
    loop {
        let frame = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await?;
        match frame.map(http_body::Frame::into_data) {
            Ok(Ok(data)) => return Some(Ok(data)),
            // Trailers.
            Ok(Err(_)) => {}
            Err(error) => return Some(Err(error)),
        }
    }
}

/// The code in an error of S3, behind a colon.
fn excerpt(complaint: &[u8]) -> String {
    let text = String::from_utf8_lossy(complaint);
    let code = text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>"));
    let code = code.map(|(code, _)| code).filter(|code| code.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    code.map_or_else(String::new, |code| format!(": {code}"))
}
