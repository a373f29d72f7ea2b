//! Names to addresses, away from the workers.
//!
//! Lookups run on the runtime of [`ResolverService::run`], the control thread's; a worker only sends a question and
//! waits for the answer. Lookups of the same name at the same time share one query. Answers are cached for their TTL by
//! hickory. Names in the hosts file are never asked for elsewhere. Address literals never come here.

mod lookup;
mod system;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{Id, JoinError, JoinSet};
use tracing::error;

use self::lookup::{Inquiry, Memory, in_order};
use self::system::{Change, System};
use super::{Family, Fault};
use crate::clock;
use crate::outcome::Reason;

const RESOLV_CONF: &str = "/etc/resolv.conf";
const HOSTS: &str = "/etc/hosts";
/// Questions that may wait for the service.
const MAX_WAITING_QUERIES: usize = 1024;
/// What nobody has asked for since is forgotten: a target or a whole configuration is gone.
const MAX_IDLE: Duration = Duration::from_secs(600);
/// How often that is seen to, when anybody asks for anything.
const FORGETTING: Duration = Duration::from_secs(60);

type Answer = Result<Addresses, Fault>;
/// What became of a question, and what the next one after the same name should know.
type Lookup = (Result<Addresses, Failure>, Memory);
/// The name servers, and whether their answers are kept.
type Whom = (Arc<[SocketAddr]>, bool);

/// A failed lookup, for all who wait for it.
#[derive(Debug, Clone)]
struct Failure {
    reason: Reason,
    cause: String,
}

impl Failure {
    fn new(reason: Reason, cause: impl Into<String>) -> Self {
        Self { reason, cause: cause.into() }
    }
}

/// What is said of a name that is there, but not with an address of the family.
const NO_ADDRESS: &str = "the answer has no address";

/// Whether a lookup failed because the answer was that there is no address, and not for want of an answer.
pub fn says_none(fault: &Fault) -> bool {
    fault.reason == Reason::DnsNotFound || fault.cause_text() == NO_ADDRESS
}

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

/// What the service is asked to do.
enum Order {
    Ask(Query),
    ReadFiles,
}

struct Query {
    question: Question,
    answer: oneshot::Sender<Answer>,
}

/// Asks for the addresses of names; cheap to clone, used from any thread.
#[derive(Clone, Debug)]
pub struct Resolver {
    orders: mpsc::Sender<Order>,
}

impl Resolver {
    /// The addresses that were asked for, at least one.
    pub async fn lookup(&self, question: &Question) -> Answer {
        let (answer, answered) = oneshot::channel();
        let query = Query { question: question.clone(), answer };
        let sent = self.orders.send(Order::Ask(query)).await.is_ok();
        match answered.await {
            Ok(answer) if sent => answer,
            _ => Err(Fault::new(Reason::DnsFailed, "the resolver has stopped")),
        }
    }

    /// From now on names are looked up as the system's files say now. They are read when they change too, but a change
    /// may not show from outside.
    pub async fn read_files(&self) {
        // It has stopped when we are stopping: fine.
        let _ = self.orders.send(Order::ReadFiles).await;
    }
}

/// Answers the questions of all [`Resolver`]s.
pub struct ResolverService {
    orders: mpsc::Receiver<Order>,
    system: System,
    /// One for all who ask the same servers, and when it was last used.
    resolvers: HashMap<Whom, (TokioResolver, Instant)>,
    names: HashMap<Question, Name>,
    lookups: JoinSet<Lookup>,
    /// The questions of those.
    running: HashMap<Id, Question>,
    /// When was last forgotten what nobody asks for.
    forgot: Instant,
}

/// A name that is asked for.
struct Name {
    waiting: Vec<oneshot::Sender<Answer>>,
    is_running: bool,
    memory: Memory,
    asked: Instant,
}

impl ResolverService {
    /// The service, and a handle to it.
    pub fn new() -> (Self, Resolver) {
        Self::with(System::new(RESOLV_CONF, HOSTS))
    }

    fn with(system: System) -> (Self, Resolver) {
        let (sender, orders) = mpsc::channel(MAX_WAITING_QUERIES);
        let (resolvers, names, running) = (HashMap::new(), HashMap::new(), HashMap::new());
        let (lookups, forgot) = (JoinSet::new(), Instant::now());
        (Self { orders, system, resolvers, names, lookups, running, forgot }, Resolver { orders: sender })
    }

    /// Answers until every [`Resolver`] is gone.
    pub async fn run(mut self) {
        loop {
            tokio::select! {
                order = self.orders.recv() => match order {
                    Some(Order::Ask(query)) => self.begin(query, Instant::now()),
                    Some(Order::ReadFiles) => {
                        let change = self.system.read_again();
                        self.heed(change, Instant::now());
                    }
                    None => return,
                },
                Some(finished) = self.lookups.join_next_with_id() => self.finish(finished),
            }
        }
    }

    fn begin(&mut self, query: Query, now: Instant) {
        let change = self.system.look(now);
        self.heed(change, now);
        self.forget(now);
        let Query { question, answer } = query;
        if let Some(addresses) = self.listed(&question) {
            // Nobody waits any more when the request was cut off: fine.
            let _ = answer.send(Ok(addresses));
            return;
        }
        let new = || Name { waiting: Vec::new(), is_running: false, memory: Memory::default(), asked: now };
        let name = self.names.entry(question.clone()).or_insert_with(new);
        name.asked = now;
        // Requests give up sooner than hickory does: those that have make room for the next.
        if name.waiting.len() == name.waiting.capacity() {
            name.waiting.retain(|asker| !asker.is_closed());
        }
        name.waiting.push(answer);
        if !name.is_running {
            self.start(&question, now);
        }
    }

    /// What the hosts file says. It may say something else soon, so that expires at once.
    fn listed(&self, question: &Question) -> Option<Addresses> {
        let list = in_order(self.system.listed(&question.host, question.manner.family));
        (!list.is_empty()).then(|| Addresses { list: list.into(), until_ns: clock::now_ns() })
    }

    /// Begins to look for a name.
    fn start(&mut self, question: &Question, now: Instant) {
        let Some(name) = self.names.get_mut(question) else { return };
        let memory = std::mem::take(&mut name.memory);
        match self.inquiry(question, now) {
            Ok(inquiry) => self.spawn(question, async move { inquiry.run(memory).await }),
            Err(cause) => self.answer(question, &Err(Failure::new(Reason::DnsFailed, cause))),
        }
    }

    fn inquiry(&mut self, question: &Question, now: Instant) -> Result<Inquiry, String> {
        let Manner { family, servers, cached } = &question.manner;
        let candidates = self.system.candidates(&question.host).map_err(|error| error.to_string())?;
        let whom = (Arc::clone(servers), *cached);
        let hickory = if let Some((hickory, used)) = self.resolvers.get_mut(&whom) {
            *used = now;
            hickory.clone()
        } else {
            let hickory = self.system.resolver(servers, *cached).map_err(|error| error.to_string())?;
            self.resolvers.insert(whom, (hickory.clone(), now));
            hickory
        };
        let unusable = self.system.unusable().filter(|_| servers.is_empty()).map(str::to_owned);
        Ok(Inquiry { hickory, candidates, family: *family, unusable })
    }

    fn spawn(&mut self, question: &Question, lookup: impl Future<Output = Lookup> + Send + 'static) {
        let task = self.lookups.spawn(lookup);
        self.running.insert(task.id(), question.clone());
        if let Some(name) = self.names.get_mut(question) {
            name.is_running = true;
        }
    }

    fn finish(&mut self, finished: Result<(Id, Lookup), JoinError>) {
        let id = finished.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let Some(question) = self.running.remove(&id) else { return };
        let (result, memory) = match finished {
            Ok((_, lookup)) => lookup,
            Err(error) => {
                // It has panicked. Those who wait are told, and the next one asks again.
                error!(host = &*question.host, %error, "a lookup broke off");
                let failure = Failure::new(Reason::DnsFailed, format!("the lookup broke off: {error}"));
                (Err(failure), Memory::default())
            }
        };
        if let Some(name) = self.names.get_mut(&question) {
            name.is_running = false;
            name.memory = memory;
        }
        self.answer(&question, &result);
    }

    fn answer(&mut self, question: &Question, result: &Result<Addresses, Failure>) {
        let Some(name) = self.names.get_mut(question) else { return };
        for waiting in std::mem::take(&mut name.waiting) {
            let answer = result.clone();
            let _ = waiting.send(answer.map_err(|failure| Fault::new(failure.reason, failure.cause)));
        }
    }

    /// The system's files have changed: those who wait ask as they say now.
    fn heed(&mut self, change: Change, now: Instant) {
        if change == Change::default() {
            return;
        }
        if change.servers {
            self.resolvers.clear();
        }
        // Ends those under way.
        self.lookups = JoinSet::new();
        self.running.clear();
        let mut open = Vec::new();
        for (question, name) in &mut self.names {
            name.is_running = false;
            if change.servers {
                name.memory = Memory::default();
            }
            name.waiting.retain(|asker| !asker.is_closed());
            if !name.waiting.is_empty() {
                open.push(question.clone());
            }
        }
        for question in open {
            match self.listed(&question) {
                Some(addresses) => self.answer(&question, &Ok(addresses)),
                None => self.start(&question, now),
            }
        }
    }

    /// Lets go of what has not been asked for lately.
    fn forget(&mut self, now: Instant) {
        if now.saturating_duration_since(self.forgot) < FORGETTING {
            return;
        }
        self.forgot = now;
        let is_recent = |used: Instant| now.saturating_duration_since(used) < MAX_IDLE;
        self.resolvers.retain(|_, (_, used)| is_recent(*used));
        self.names.retain(|_, name| name.is_running || is_recent(name.asked));
    }
}

#[cfg(test)]
mod tests;
