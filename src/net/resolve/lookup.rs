//! The addresses of one name: which names it may mean, both families beside each other, and what failures come to.
//!
//! A name server that is silent about one family (many drop questions for IPv6) holds up the other for a moment at most,
//! and only once.

use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RecordType};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{Addresses, Failure, NO_ADDRESS};
use crate::clock;
use crate::net::Family;
use crate::outcome::Reason;

/// How long the addresses of one family wait for those of the other: the resolution delay of RFC 8305, section 3, and
/// longer than there, as a lookup is seldom what somebody waits for.
pub(super) const RESOLUTION_DELAY: Duration = Duration::from_millis(250);

/// What is asked of whom.
pub(super) struct Inquiry {
    pub(super) hickory: TokioResolver,
    /// What the host may mean, in the order in which it is tried.
    pub(super) candidates: Vec<Name>,
    pub(super) family: Family,
    /// Why it can only fail, if it can.
    pub(super) unusable: Option<String>,
}

/// What an inquiry leaves behind for the next one after the same name.
#[derive(Default)]
pub(super) struct Memory {
    /// Which of the names the host may mean had addresses.
    name: Name,
    halves: Halves,
}

#[derive(Default)]
struct Halves {
    v4: Half,
    v6: Half,
}

/// One family of a name.
#[derive(Default)]
struct Half {
    /// Its latest addresses, in use while the name server is silent about them or fails.
    known: Option<Found>,
    /// The question after them, if nobody wanted to wait for the answer.
    late: Option<Asking>,
    /// Whether the latest question was not answered in time.
    silent: bool,
}

/// Addresses of one name, of one family or of both. None at all is an answer too.
#[derive(Debug, Clone, Default)]
struct Found {
    addresses: Vec<IpAddr>,
    until_ns: u64,
}

type Said = Result<Found, Failure>;

impl Inquiry {
    /// Asks until one of the names has addresses.
    pub(super) async fn run(self, mut memory: Memory) -> (Result<Addresses, Failure>, Memory) {
        let mut failure = Failure::new(Reason::DnsNotFound, "it can mean no name");
        for name in &self.candidates {
            let mut new = Halves::default();
            let is_known = memory.name == *name;
            let said = self.addresses(name, if is_known { &mut memory.halves } else { &mut new }).await;
            match said {
                Ok(found) => {
                    if !is_known {
                        memory = Memory { name: name.clone(), halves: new };
                    }
                    let list = in_order(found.addresses.into_iter()).into();
                    return (Ok(Addresses { list, until_ns: found.until_ns }), memory);
                }
                Err(new) => {
                    if is_known && new.reason == Reason::DnsNotFound {
                        memory = Memory::default();
                    }
                    // Of several failures the one that leaves most open: "no such name" must be true of all of them.
                    if openness(&new) >= openness(&failure) {
                        failure = new;
                    }
                }
            }
            // It would be silent about the next one too.
            if failure.reason == Reason::DnsTimeout {
                break;
            }
        }
        if let Some(unusable) = self.unusable {
            failure = Failure::new(Reason::DnsFailed, unusable);
        }
        (Err(failure), memory)
    }

    /// At least one address.
    async fn addresses(&self, name: &Name, halves: &mut Halves) -> Said {
        let found = match self.family {
            Family::Any => return self.both(name, halves).await,
            Family::V4 => self.ask(name, RecordType::A).await?,
            Family::V6 => self.ask(name, RecordType::AAAA).await?,
        };
        if found.addresses.is_empty() { Err(no_address()) } else { Ok(found) }
    }

    async fn both(&self, name: &Name, Halves { v4, v6 }: &mut Halves) -> Said {
        let mut a = v4.asking(|| self.ask(name, RecordType::A)).await;
        let mut aaaa = v6.asking(|| self.ask(name, RecordType::AAAA)).await;
        let (four, six) = tokio::select! {
            biased;
            four = &mut a => {
                let six = match &four {
                    // It is not there for any family (RFC 8020).
                    Err(failure) if failure.reason == Reason::DnsNotFound => v6.in_time(aaaa, Duration::ZERO).await,
                    four => v6.beside(four, aaaa).await,
                };
                (Some(four), six)
            }
            // "No such name" for IPv6 alone is a mistake that name servers make (RFC 4074, section 4.2).
            six = &mut aaaa => (v4.beside(&six, a).await, Some(six)),
        };
        v4.learn(four.as_ref());
        v6.learn(six.as_ref());
        let has_some = |said: &Option<Said>| matches!(said, Some(Ok(found)) if !found.addresses.is_empty());
        if has_some(&four) || has_some(&six) {
            let (four, six) = (v4.in_use(four), v6.in_use(six));
            let addresses = [four.addresses, six.addresses].concat();
            return Ok(Found { addresses, until_ns: four.until_ns.min(six.until_ns) });
        }
        match (four, six) {
            (Some(Err(failure)), _) => Err(failure),
            (_, Some(Err(failure))) if failure.reason != Reason::DnsNotFound => Err(failure),
            _ => Err(no_address()),
        }
    }

    /// Asks for one kind of records of exactly this name.
    fn ask(&self, name: &Name, kind: RecordType) -> impl Future<Output = Said> + Send + use<> {
        let (hickory, name) = (self.hickory.clone(), name.clone());
        async move {
            match hickory.lookup(name, kind).await {
                Ok(lookup) => Ok(Found {
                    addresses: lookup.answers().iter().filter_map(|record| record.data.ip_addr()).collect(),
                    until_ns: on_our_clock(lookup.valid_until()),
                }),
                Err(error) if is_no_data(&error) => Ok(Found { addresses: Vec::new(), until_ns: u64::MAX }),
                Err(error) => Err(Failure::new(reason_of(&error), error.to_string())),
            }
        }
    }
}

impl Half {
    /// The question that is still open, or a new one.
    async fn asking<F: Future<Output = Said> + Send + 'static>(&mut self, ask: impl FnOnce() -> F) -> Asking {
        match self.late.take() {
            Some(late) if !late.0.is_finished() => return late,
            Some(late) => self.learn(Some(&late.await)),
            None => {}
        }
        Asking(tokio::spawn(ask()))
    }

    /// The answer to `asking`, now that the other family's is there: addresses of that don't wait for long.
    async fn beside(&mut self, other: &Said, asking: Asking) -> Option<Said> {
        match other {
            Ok(found) if found.addresses.is_empty() => Some(asking.await),
            Ok(_) if self.silent => self.in_time(asking, Duration::ZERO).await,
            Ok(_) => self.in_time(asking, RESOLUTION_DELAY).await,
            Err(_) => Some(asking.await),
        }
    }

    async fn in_time(&mut self, mut asking: Asking, patience: Duration) -> Option<Said> {
        let said = timeout(patience, &mut asking).await.ok();
        if said.is_none() {
            self.late = Some(asking);
        }
        said
    }

    /// Takes up an answer, or that there was none in time.
    fn learn(&mut self, said: Option<&Said>) {
        match said {
            Some(Ok(found)) => self.known = Some(found.clone()),
            Some(Err(failure)) if failure.reason == Reason::DnsNotFound => self.known = None,
            _ => {}
        }
        self.silent = said.is_none_or(|said| said.as_ref().is_err_and(|it| it.reason == Reason::DnsTimeout));
    }

    /// What to use of it beside the other family: the answer, or, until there is one, what is known. That expires at once,
    /// so that the answer is soon asked for.
    fn in_use(&self, said: Option<Said>) -> Found {
        match said {
            Some(Ok(found)) => found,
            // Nothing that could expire.
            Some(Err(_)) if self.known.is_none() => Found { addresses: Vec::new(), until_ns: u64::MAX },
            _ => Found { until_ns: clock::now_ns(), ..self.known.clone().unwrap_or_default() },
        }
    }
}

/// A question under way, which ends with whoever waits for the answer.
struct Asking(JoinHandle<Said>);

impl Future for Asking {
    type Output = Said;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Said> {
        let said = std::task::ready!(Pin::new(&mut self.0).poll(cx));
        Poll::Ready(said.unwrap_or_else(|error| Err(Failure::new(Reason::DnsFailed, error.to_string()))))
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Addresses in an order of their own. Name servers turn theirs with every answer, and whoever takes turns among them
/// too would meet the same address every time.
pub(super) fn in_order(addresses: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = addresses.collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

fn on_our_clock(instant: Instant) -> u64 {
    let left = instant.saturating_duration_since(Instant::now());
    clock::now_ns().saturating_add(left.as_nanos() as u64)
}

fn no_address() -> Failure {
    Failure::new(Reason::DnsFailed, NO_ADDRESS)
}

/// Whether the name is there, without a record of the kind.
fn is_no_data(error: &NetError) -> bool {
    matches!(error, NetError::Dns(DnsError::NoRecordsFound(none)) if none.response_code == ResponseCode::NoError)
}

fn reason_of(error: &NetError) -> Reason {
    match error {
        error if error.is_nx_domain() => Reason::DnsNotFound,
        NetError::Timeout => Reason::DnsTimeout,
        _ => Reason::DnsFailed,
    }
}

/// How much a failed lookup leaves open.
fn openness(failure: &Failure) -> u8 {
    match failure.reason {
        Reason::DnsNotFound => 0,
        Reason::DnsFailed if failure.cause == NO_ADDRESS => 1,
        Reason::DnsFailed => 2,
        _ => 3,
    }
}
