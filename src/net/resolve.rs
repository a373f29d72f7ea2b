//! Names to addresses, away from the workers.
//!
//! Lookups run on the runtime of [`ResolverService::run`], the control thread's; a worker only sends a question and
//! waits for the answer. Lookups of the same name at the same time share one query. Answers are cached for their TTL by
//! hickory. Address literals never come here.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::net::NetError;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tracing::warn;

use super::Fault;
use crate::outcome::Reason;

/// How long "no such name" is believed: a zone may say a day, but a target should be back as soon as its name is.
const MAX_NEGATIVE_TTL: Duration = Duration::from_secs(1);
/// Questions that may wait for the service.
const MAX_WAITING_QUERIES: usize = 1024;

type Answer = Result<Arc<[IpAddr]>, Fault>;
/// A name, and what became of its query.
type Lookup = (Arc<str>, Result<Vec<IpAddr>, NetError>);

struct Query {
    host: Arc<str>,
    answer: oneshot::Sender<Answer>,
}

/// Asks for the addresses of names; cheap to clone, used from any thread.
#[derive(Clone, Debug)]
pub struct Resolver {
    queries: mpsc::Sender<Query>,
}

impl Resolver {
    /// All addresses of `host`, at least one, each once, in the same order whenever they are the same.
    pub async fn lookup(&self, host: &Arc<str>) -> Answer {
        let (answer, answered) = oneshot::channel();
        let query = Query { host: Arc::clone(host), answer };
        let sent = self.queries.send(query).await.is_ok();
        match answered.await {
            Ok(answer) if sent => answer,
            _ => Err(Fault::new(Reason::DnsFailed, "the resolver has stopped")),
        }
    }
}

/// Answers the questions of all [`Resolver`]s.
pub struct ResolverService {
    queries: mpsc::Receiver<Query>,
    waiting: HashMap<Arc<str>, Vec<oneshot::Sender<Answer>>>,
    lookups: JoinSet<Lookup>,
}

impl ResolverService {
    /// The service, and a handle to it.
    pub fn new() -> (Self, Resolver) {
        let (sender, queries) = mpsc::channel(MAX_WAITING_QUERIES);
        (Self { queries, waiting: HashMap::new(), lookups: JoinSet::new() }, Resolver { queries: sender })
    }

    /// Answers until every [`Resolver`] is gone.
    pub async fn run(mut self) {
        let hickory = TokioResolver::builder_tokio().and_then(|mut builder| {
            builder.options_mut().negative_max_ttl = Some(MAX_NEGATIVE_TTL);
            builder.build()
        });
        let hickory = hickory.inspect_err(|error| warn!(%error, "name lookups don't work: no usable resolver config"));
        loop {
            tokio::select! {
                query = self.queries.recv() => match query {
                    Some(query) => self.begin(query, hickory.as_ref().ok()),
                    None => return,
                },
                Some(finished) = self.lookups.join_next() => {
                    if let Ok((host, result)) = finished {
                        self.answer(&host, &result);
                    }
                }
            }
        }
    }

    fn begin(&mut self, query: Query, hickory: Option<&TokioResolver>) {
        let Some(hickory) = hickory else {
            let fault = Fault::new(Reason::DnsFailed, "no usable resolver config");
            // Nobody waits any more when the request was cut off: fine.
            let _ = query.answer.send(Err(fault));
            return;
        };
        if let Some(waiting) = self.waiting.get_mut(&query.host) {
            // Requests give up sooner than hickory does: those that have make room for the next.
            if waiting.len() == waiting.capacity() {
                waiting.retain(|asker| !asker.is_closed());
            }
            waiting.push(query.answer);
            return;
        }
        self.waiting.insert(Arc::clone(&query.host), vec![query.answer]);
        let (hickory, host) = (hickory.clone(), query.host);
        self.lookups.spawn(async move {
            let result = hickory.lookup_ip(&*host).await;
            (host, result.map(|addresses| in_order(addresses.iter())))
        });
    }

    fn answer(&mut self, host: &str, result: &Result<Vec<IpAddr>, NetError>) {
        for waiting in self.waiting.remove(host).unwrap_or_default() {
            let answer = match result {
                Ok(addresses) if addresses.is_empty() => {
                    Err(Fault::new(Reason::DnsFailed, "the answer has no address"))
                }
                Ok(addresses) => Ok(Arc::from(addresses.as_slice())),
                Err(error) => Err(Fault::new(reason_of(error), error.to_string())),
            };
            let _ = waiting.send(answer);
        }
    }
}

/// Addresses in an order of their own. Name servers turn theirs with every answer, and whoever takes turns among them
/// too would meet the same address every time.
fn in_order(addresses: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = addresses.collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

fn reason_of(error: &NetError) -> Reason {
    match error {
        error if error.is_nx_domain() => Reason::DnsNotFound,
        NetError::Timeout => Reason::DnsTimeout,
        _ => Reason::DnsFailed,
    }
}

#[cfg(test)]
mod tests {
    use hickory_resolver::config::ResolverConfig;
    use hickory_resolver::net::runtime::TokioRuntimeProvider;

    use super::*;

    #[tokio::test]
    async fn those_who_gave_up_are_not_kept_while_a_name_server_is_silent() {
        let builder = TokioResolver::builder_with_config(ResolverConfig::default(), TokioRuntimeProvider::default());
        let hickory = builder.build().expect("a resolver");
        let (mut service, _resolver) = ResolverService::new();
        let host: Arc<str> = "shop.test".into();
        for _ in 0..10_000 {
            let (answer, _) = oneshot::channel();
            service.begin(Query { host: Arc::clone(&host), answer }, Some(&hickory));
        }
        assert!(service.waiting[&host].len() < 100, "{} askers are kept", service.waiting[&host].len());
        assert_eq!(service.lookups.len(), 1, "one query for all");
    }
}
