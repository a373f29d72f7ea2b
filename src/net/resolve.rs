//! Names to addresses, away from the workers.
//!
//! Lookups run on the runtime of [`ResolverService::run`], the control thread's; a worker only sends a question and
//! waits for the answer. Lookups of the same name at the same time share one query. Answers are cached for their TTL by
//! hickory. Address literals never come here.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, NameServerConfig, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::system_conf::read_system_conf;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tracing::warn;

use super::{Family, Fault};
use crate::clock;
use crate::outcome::Reason;

/// How long "no such name" is believed: a zone may say a day, but a target should be back as soon as its name is.
const MAX_NEGATIVE_TTL: Duration = Duration::from_secs(1);
/// Questions that may wait for the service.
const MAX_WAITING_QUERIES: usize = 1024;

type Answer = Result<Addresses, Fault>;
/// A question, and what became of it.
type Lookup = (Question, Result<Addresses, NetError>);

/// What a name leads to.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// All that were asked for, each once, in the same order whenever they are the same.
    pub list: Arc<[IpAddr]>,
    /// When its records expire, on the clock of [`crate::clock`].
    pub until_ns: u64,
}

/// What is asked, and whom.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Question {
    /// The name.
    pub host: Arc<str>,
    /// Whom, and for what.
    pub manner: Manner,
}

/// How names are looked up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Manner {
    /// Which addresses count.
    pub family: Family,
    /// The name servers; none for the system's.
    pub servers: Arc<[SocketAddr]>,
    /// Whether an answer may be used until its records expire.
    pub cached: bool,
}

struct Query {
    question: Question,
    answer: oneshot::Sender<Answer>,
}

/// Asks for the addresses of names; cheap to clone, used from any thread.
#[derive(Clone, Debug)]
pub struct Resolver {
    queries: mpsc::Sender<Query>,
}

impl Resolver {
    /// The addresses that were asked for, at least one.
    pub async fn lookup(&self, question: &Question) -> Answer {
        let (answer, answered) = oneshot::channel();
        let query = Query { question: question.clone(), answer };
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
    waiting: HashMap<Question, Vec<oneshot::Sender<Answer>>>,
    /// One for each manner that was asked for, or why there is none.
    resolvers: HashMap<Manner, Option<TokioResolver>>,
    lookups: JoinSet<Lookup>,
}

impl ResolverService {
    /// The service, and a handle to it.
    pub fn new() -> (Self, Resolver) {
        let (sender, queries) = mpsc::channel(MAX_WAITING_QUERIES);
        let (waiting, resolvers) = (HashMap::new(), HashMap::new());
        (Self { queries, waiting, resolvers, lookups: JoinSet::new() }, Resolver { queries: sender })
    }

    /// Answers until every [`Resolver`] is gone.
    pub async fn run(mut self) {
        loop {
            tokio::select! {
                query = self.queries.recv() => match query {
                    Some(query) => self.begin(query),
                    None => return,
                },
                Some(finished) = self.lookups.join_next() => {
                    if let Ok((question, result)) = finished {
                        self.answer(&question, &result);
                    }
                }
            }
        }
    }

    fn begin(&mut self, query: Query) {
        let manner = &query.question.manner;
        if !matches!(self.resolvers.get(manner), Some(Some(_))) {
            let hickory = resolver(manner);
            // Said once, and tried again with every lookup: the file may come later.
            if let Err(error) = &hickory
                && !self.resolvers.contains_key(manner)
            {
                warn!(%error, "name lookups don't work: no usable resolver config");
            }
            self.resolvers.insert(manner.clone(), hickory.ok());
        }
        let Some(Some(hickory)) = self.resolvers.get(manner) else {
            let fault = Fault::new(Reason::DnsFailed, "no usable resolver config");
            // Nobody waits any more when the request was cut off: fine.
            let _ = query.answer.send(Err(fault));
            return;
        };
        if let Some(waiting) = self.waiting.get_mut(&query.question) {
            // Requests give up sooner than hickory does: those that have make room for the next.
            if waiting.len() == waiting.capacity() {
                waiting.retain(|asker| !asker.is_closed());
            }
            waiting.push(query.answer);
            return;
        }
        self.waiting.insert(query.question.clone(), vec![query.answer]);
        let (hickory, question) = (hickory.clone(), query.question);
        self.lookups.spawn(async move {
            let result = hickory.lookup_ip(&*question.host).await;
            let addresses = result.map(|found| Addresses {
                list: in_order(found.iter()).into(),
                until_ns: on_our_clock(found.valid_until()),
            });
            (question, addresses)
        });
    }

    fn answer(&mut self, question: &Question, result: &Result<Addresses, NetError>) {
        for waiting in self.waiting.remove(question).unwrap_or_default() {
            let answer = match result {
                Ok(addresses) if addresses.list.is_empty() => {
                    Err(Fault::new(Reason::DnsFailed, "the answer has no address"))
                }
                Ok(addresses) => Ok(addresses.clone()),
                Err(error) => Err(Fault::new(reason_of(error), error.to_string())),
            };
            let _ = waiting.send(answer);
        }
    }
}

/// A resolver that asks as it is told, and otherwise as the system would: hosts file, search domains, `ndots`.
fn resolver(manner: &Manner) -> Result<TokioResolver, NetError> {
    let mut builder = if manner.servers.is_empty() {
        TokioResolver::builder_tokio()?
    } else {
        let (system, options) = read_system_conf().unwrap_or_default();
        let (domain, search, _) = system.into_parts();
        let servers = manner.servers.iter().copied().map(name_server).collect();
        let config = ResolverConfig::from_parts(domain, search, servers);
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()).with_options(options)
    };
    let options = builder.options_mut();
    options.negative_max_ttl = Some(MAX_NEGATIVE_TTL);
    match manner.family {
        Family::Any => {}
        Family::V4 => options.ip_strategy = LookupIpStrategy::Ipv4Only,
        Family::V6 => options.ip_strategy = LookupIpStrategy::Ipv6Only,
    }
    if !manner.cached {
        options.cache_size = 0;
    }
    builder.build()
}

fn name_server(address: SocketAddr) -> NameServerConfig {
    let mut server = NameServerConfig::udp_and_tcp(address.ip());
    for connection in &mut server.connections {
        connection.port = address.port();
    }
    server
}

fn on_our_clock(instant: Instant) -> u64 {
    let left = instant.saturating_duration_since(Instant::now());
    clock::now_ns().saturating_add(left.as_nanos() as u64)
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
    use super::*;

    #[tokio::test]
    async fn those_who_gave_up_are_not_kept_while_a_name_server_is_silent() {
        let (mut service, _resolver) = ResolverService::new();
        // TEST-NET-1 (RFC 5737): nobody answers.
        let servers = Arc::from([SocketAddr::from(([192, 0, 2, 1], 53))]);
        let question =
            Question { host: "shop.test".into(), manner: Manner { family: Family::Any, servers, cached: true } };
        for _ in 0..10_000 {
            let (answer, _) = oneshot::channel();
            service.begin(Query { question: question.clone(), answer });
        }
        assert!(service.waiting[&question].len() < 100, "{} askers are kept", service.waiting[&question].len());
        assert_eq!(service.lookups.len(), 1, "one query for all");
    }
}
