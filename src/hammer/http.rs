//! HTTP/1.1, HTTP/2 and, when it is built in, HTTP/3.
//!
//! Over HTTP/1.1 one exchange at a time on a connection, kept alive between them; over the others as many as the peer allows.
//! A request that the peer certainly never saw goes to another connection; anything else is tried once. Bodies are read
//! to their end and thrown away.

mod connection;
mod fault;
#[cfg(feature = "http3")]
mod http3;
mod mark;
mod request;
mod road;
mod seats;
mod shared;

use std::cell::OnceCell;
use std::rc::Rc;
use std::sync::Arc;

use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_LENGTH, TRANSFER_ENCODING};

use self::connection::Connection;
use self::mark::{Mark, Marks};
use self::request::Template;
use self::road::{Road, Way};
use self::shared::Stream;
use super::{Answer, Anvil, Forge, Hammer};
use crate::clock;
use crate::config::HttpRequest;
use crate::net::{Fault, Pooled};
use crate::outcome::{Reason, Stage, Trace};
use crate::stats::CloseReason;

/// Connections that may turn out to be closing, or unwilling, before a new one is opened, which ends the search.
const MAX_RESENDS: usize = 3;

/// Strikes one URL with one request.
#[derive(Debug)]
pub struct HttpHammer {
    template: Template,
    /// For HTTP/2 and HTTP/3. Made when it is first needed; `None` inside when it can't be.
    template2: OnceCell<Option<Template>>,
    /// Of the requests, if they carry any.
    marks: Option<Marks>,
    road: Rc<Road>,
}

/// Makes [`HttpHammer`]s.
#[derive(Debug)]
pub struct HttpForge {
    /// What to send, and to whom.
    pub request: Arc<HttpRequest>,
    /// Idle connections to keep.
    pub max_idle: usize,
}

/// What came of a request on one connection.
enum Sent {
    /// It is over.
    Over(Result<Answer, Fault>),
    /// The peer never saw it.
    Never(Fault),
}

impl Forge for HttpForge {
    type Hammer = HttpHammer;

    fn forge(&self, anvil: &Anvil, before: Option<&Rc<HttpHammer>>) -> Rc<HttpHammer> {
        let spec = Arc::clone(&self.request);
        let road = match before.filter(|before| before.road.leads_to(&spec, before.template.spec(), anvil)) {
            Some(before) => {
                before.road.adapt(&spec, self.max_idle);
                Rc::clone(&before.road)
            }
            None => Road::new(&spec, anvil, self.max_idle),
        };
        let marks = Marks::of(&spec);
        Rc::new(HttpHammer { template: Template::http1(spec), template2: OnceCell::new(), marks, road })
    }
}

impl Hammer for HttpHammer {
    async fn strike(&self, trace: &Trace, deadline_ns: u64) -> Result<Answer, Fault> {
        let (mark, mut resends) = (self.marks.as_ref().map(Marks::draw), 0);
        if let Some(trace_id) = mark.and_then(Mark::trace_id) {
            trace.identify(trace_id);
        }
        loop {
            let fresh = resends >= MAX_RESENDS;
            let sent = match self.road.way(trace, deadline_ns, fresh).await? {
                Way::Alone(connection, reused) => self.strike_alone(connection, reused, mark, trace).await,
                Way::Beside(stream) => self.strike_beside(stream, mark, trace).await,
                #[cfg(feature = "http3")]
                Way::OverQuic(stream) => Box::pin(self.strike_over_quic(*stream, mark, trace)).await,
            };
            match sent {
                Sent::Over(result) => return result,
                Sent::Never(fault) if fresh => return Err(fault),
                Sent::Never(_) => resends += 1,
            }
        }
    }
}

impl HttpHammer {
    /// Over HTTP/1.1.
    async fn strike_alone(
        &self,
        mut connection: Box<Connection>,
        reused: bool,
        mark: Option<Mark<'_>>,
        trace: &Trace,
    ) -> Sent {
        let request = self.template.request(connection.take_headers(), mark);
        let response = match connection.send(request).await {
            Ok(response) => response,
            Err(error) => {
                // It met a connection that was just closing, and no byte of it was written.
                let never = reused && error.message().is_some();
                let fault = fault::of_response(error.into_error(), reused && connection.is_silent());
                connection.close(if never { CloseReason::Peer } else { CloseReason::Failed });
                return if never { Sent::Never(fault) } else { Sent::Over(Err(fault)) };
            }
        };
        trace.enter(Stage::Receive, clock::now_ns());
        let (head, body) = response.into_parts();
        // RFC 9112, 6.3: such a message may be an attempt to smuggle another one; hyper lets it pass.
        if head.headers.contains_key(TRANSFER_ENCODING) && head.headers.contains_key(CONTENT_LENGTH) {
            connection.close(CloseReason::Failed);
            let text = "the response has both Content-Length and Transfer-Encoding";
            return Sent::Over(Err(Fault::new(Reason::Protocol, text)));
        }
        if let Err(fault) = drain(body, self.template.spec().max_body).await {
            connection.close(CloseReason::Failed);
            return Sent::Over(Err(fault));
        }
        let now_ns = clock::now_ns();
        trace.complete(now_ns);
        connection.keep_headers(head.headers);
        connection.settle().await;
        self.road.put(connection, now_ns);
        Sent::Over(Ok(self.answer(head.status)))
    }

    /// Over HTTP/2.
    async fn strike_beside(&self, mut stream: Stream, mark: Option<Mark<'_>>, trace: &Trace) -> Sent {
        let Some(template) = self.template2.get_or_init(|| Template::http2(Arc::clone(self.template.spec()))) else {
            stream.finish();
            return Sent::Over(Err(Fault::new(Reason::Protocol, "the host header can't be an HTTP/2 authority")));
        };
        let response = match stream.send(template.request(None, mark)).await {
            Ok(response) => response,
            Err(error) => {
                let unwritten = error.message().is_some();
                let error = error.into_error();
                let (never, of_stream) = (unwritten || fault::is_refusal(&error), fault::is_of_stream(&error));
                let fault = fault::of_response(error, false);
                match (never, of_stream) {
                    (true, of_stream) => stream.unseen(!of_stream),
                    (false, true) => stream.finish(),
                    (false, false) => stream.give_up(),
                }
                return if never { Sent::Never(fault) } else { Sent::Over(Err(fault)) };
            }
        };
        trace.enter(Stage::Receive, clock::now_ns());
        let (head, body) = response.into_parts();
        let drained = match drain(body, self.template.spec().max_body).await {
            Err(fault) if fault.reason == Reason::Eof && stream.is_dead().await => {
                Err(Fault::new(Reason::TimeoutBody, "a ping was not answered"))
            }
            drained => drained,
        };
        trace.complete(clock::now_ns());
        stream.finish();
        self.road.keep_swept();
        Sent::Over(drained.map(|()| self.answer(head.status)))
    }

    /// Over HTTP/3.
    #[cfg(feature = "http3")]
    async fn strike_over_quic(&self, mut stream: http3::Stream, mark: Option<Mark<'_>>, trace: &Trace) -> Sent {
        let Some(template) = self.template2.get_or_init(|| Template::http2(Arc::clone(self.template.spec()))) else {
            stream.finish();
            return Sent::Over(Err(Fault::new(Reason::Protocol, "the host header can't be an HTTP/3 authority")));
        };
        let mut request = template.request(None, mark).map(|_| ());
        let body = &self.template.spec().body;
        if !body.is_empty() {
            // As hyper has it over the others.
            request.headers_mut().insert(CONTENT_LENGTH, body.len().into());
        }
        let loss = match stream.exchange(request, self.template.spec(), trace).await {
            Ok(status) => {
                stream.finish();
                self.road.keep_swept();
                return Sent::Over(Ok(self.answer(status)));
            }
            Err(loss) => loss,
        };
        match loss.end {
            None => stream.finish(),
            Some(reason) => stream.give_up(reason),
        }
        self.road.keep_swept();
        if loss.never { Sent::Never(loss.fault) } else { Sent::Over(Err(loss.fault)) }
    }

    fn answer(&self, status: hyper::StatusCode) -> Answer {
        Answer { status: status.as_u16(), expected: self.template.spec().expect_status.contains(status) }
    }
}

/// Reads a body to its end.
async fn drain(mut body: Incoming, max_body: u64) -> Result<(), Fault> {
    let mut received = 0;
    while let Some(frame) = std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await {
        let frame = frame.map_err(fault::of_body)?;
        received += frame.data_ref().map_or(0, |data| data.len() as u64);
        if received > max_body {
            return Err(Fault::new(Reason::BodyTooLarge, format!("the body exceeds {max_body} bytes")));
        }
    }
    Ok(())
}
