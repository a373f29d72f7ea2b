//! HTTP/1.1.
//!
//! One exchange at a time on a connection, kept alive between them. A request that a closing connection never began to
//! write goes to another one; anything else is tried once. Bodies are read to their end and thrown away.

mod connection;
mod fault;
mod request;

use std::rc::Rc;
use std::sync::Arc;

use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_LENGTH, TRANSFER_ENCODING};

use self::connection::Connection;
use self::request::Template;
use super::{Answer, Anvil, Forge, Hammer};
use crate::clock;
use crate::config::HttpRequest;
use crate::net::{Dialer, Fault, Pool, Pooled};
use crate::outcome::{Reason, Stage, Trace};
use crate::stats::CloseReason;

/// Strikes one URL with one request.
#[derive(Debug)]
pub struct HttpHammer {
    template: Template,
    road: Rc<Road>,
}

/// The way to the server, which a changed request to the same server keeps, unless other addresses are denied now.
#[derive(Debug)]
struct Road {
    dialer: Dialer,
    pool: Pool<Box<Connection>>,
}

/// Makes [`HttpHammer`]s.
#[derive(Debug)]
pub struct HttpForge {
    /// What to send, and to whom.
    pub request: Arc<HttpRequest>,
    /// Idle connections to keep.
    pub max_idle: usize,
}

impl Forge for HttpForge {
    type Hammer = HttpHammer;

    fn forge(&self, anvil: &Anvil, before: Option<&Rc<HttpHammer>>) -> Rc<HttpHammer> {
        let spec = Arc::clone(&self.request);
        // A connection is open to an address that the guard of its time admitted: another guard, another road.
        let same_way = before.filter(|before| {
            before.spec().host == spec.host
                && before.spec().port == spec.port
                && *before.road.dialer.guard() == *anvil.guard
        });
        let road = if let Some(before) = same_way {
            before.road.pool.resize(self.max_idle);
            Rc::clone(&before.road)
        } else {
            let (guard, ledger) = (Arc::clone(&anvil.guard), Arc::clone(&anvil.ledger));
            let dialer = Dialer::new(&spec.host, spec.port, guard, anvil.resolver.clone(), ledger);
            Rc::new(Road { dialer, pool: Pool::new(self.max_idle) })
        };
        Rc::new(HttpHammer { template: Template::new(spec), road })
    }
}

impl Hammer for HttpHammer {
    async fn strike(&self, trace: &Trace, deadline_ns: u64) -> Result<Answer, Fault> {
        let mut resends = 0;
        loop {
            let now_ns = clock::now_ns();
            let idle = if resends < MAX_RESENDS { self.road.pool.take(now_ns) } else { None };
            let reused = idle.is_some();
            let mut connection = if let Some(connection) = idle {
                trace.enter(Stage::Wait, now_ns);
                connection
            } else {
                let connection = Connection::open(self.road.dialer.dial(trace, deadline_ns).await?).await?;
                trace.enter(Stage::Wait, clock::now_ns());
                connection
            };
            let request = self.template.request(connection.take_headers());
            match connection.send(request).await {
                Ok(response) => return self.receive(connection, response, trace).await,
                // It met a connection that was just closing, and no byte of it was written.
                Err(error) if reused && error.message().is_some() => {
                    connection.close(CloseReason::Peer);
                    resends += 1;
                }
                Err(error) => {
                    let fault = fault::of_response(error.into_error(), reused && connection.is_silent());
                    connection.close(CloseReason::Failed);
                    return Err(fault);
                }
            }
        }
    }
}

/// Idle connections that may turn out to be closing before a new one is opened, which ends the search.
const MAX_RESENDS: usize = 3;

impl HttpHammer {
    fn spec(&self) -> &HttpRequest {
        self.template.spec()
    }

    async fn receive(
        &self,
        mut connection: Box<Connection>,
        response: hyper::Response<Incoming>,
        trace: &Trace,
    ) -> Result<Answer, Fault> {
        trace.enter(Stage::Receive, clock::now_ns());
        let (head, body) = response.into_parts();
        // RFC 9112, 6.3: such a message may be an attempt to smuggle another one; hyper lets it pass.
        if head.headers.contains_key(TRANSFER_ENCODING) && head.headers.contains_key(CONTENT_LENGTH) {
            connection.close(CloseReason::Failed);
            return Err(Fault::new(Reason::Protocol, "the response has both Content-Length and Transfer-Encoding"));
        }
        if let Err(fault) = drain(body, self.spec().max_body).await {
            connection.close(CloseReason::Failed);
            return Err(fault);
        }
        let now_ns = clock::now_ns();
        trace.complete(now_ns);
        let status = head.status;
        connection.keep_headers(head.headers);
        if connection.settle().await {
            self.road.pool.put(connection, now_ns);
        } else {
            connection.close(CloseReason::Peer);
        }
        Ok(Answer { status: status.as_u16(), expected: self.spec().expect_status.contains(status) })
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
