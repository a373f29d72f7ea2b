//! Asks for the list of members, round by round.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use super::Round;
use crate::clock;
use crate::config::Members;
use crate::net::{Family, Fault, Manner, Question, Resolver, says_none};
use crate::pace::Timeline;

/// Whose list is asked for, and by which time.
pub(super) struct Orders {
    pub(super) members: Members,
    pub(super) timeline: Timeline,
}

/// What came of a round.
pub struct Heard {
    /// From this instant of grid time on the list holds.
    pub(super) switch_ns: u64,
    /// Whose grid time that is.
    pub(super) timeline: Timeline,
    /// The addresses of all members, sorted, or why there are none.
    pub(super) list: Result<Arc<[IpAddr]>, String>,
}

/// Asks until nobody gives orders or listens any more.
pub(super) async fn watch(resolver: Resolver, mut orders: watch::Receiver<Orders>, heard: mpsc::Sender<Heard>) {
    let mut family = FamilyOfName::default();
    loop {
        let (members, timeline) = {
            let orders = orders.borrow_and_update();
            (orders.members.clone(), orders.timeline)
        };
        let left = |grid_ns: u64| Duration::from_nanos(timeline.instant_of(grid_ns).saturating_sub(clock::now_ns()));
        let round = Round::after(timeline.grid_of(clock::now_ns()), members.refresh);
        tokio::select! {
            changed = orders.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
            () = sleep(left(round.ask_ns)) => {}
        }
        let asked = family.look_up(&members, |family| ask(&resolver, &members, family));
        let list = match timeout(left(round.until_ns), asked).await {
            Ok(Ok(list)) => distinct(&members.name, list),
            Ok(Err(fault)) => {
                let cause = fault.cause_text();
                Err(format!("{}: {}", members.name, if cause.is_empty() { fault.reason.label() } else { &cause }))
            }
            Err(_) => Err(format!("{}: no answer in time", members.name)),
        };
        if heard.send(Heard { switch_ns: round.switch_ns, timeline, list }).await.is_err() {
            return;
        }
    }
}

/// Which addresses of a name are its members: a replica with one of either family is in the list twice otherwise.
#[derive(Default)]
struct FamilyOfName {
    /// The name that had IPv4 addresses.
    with_v4: Option<String>,
}

type Answer = Result<Arc<[IpAddr]>, Fault>;

impl FamilyOfName {
    /// Those of our own family, when it is known. Else IPv4, for good if there were any once; and IPv6 as long as the
    /// answer is that there are none. A lookup that failed says nothing of the family: the other replicas may have an answer.
    async fn look_up<A: Future<Output = Answer>>(&mut self, members: &Members, ask: impl Fn(Family) -> A) -> Answer {
        if let Some(own) = members.address {
            return ask(if own.is_ipv4() { Family::V4 } else { Family::V6 }).await;
        }
        match ask(Family::V4).await {
            Ok(list) => {
                self.with_v4 = Some(members.name.clone());
                Ok(list)
            }
            Err(fault) if says_none(&fault) && self.with_v4.as_ref() != Some(&members.name) => ask(Family::V6).await,
            Err(fault) => Err(fault),
        }
    }
}

/// The list, if its addresses can tell replicas apart.
fn distinct(name: &str, list: Arc<[IpAddr]>) -> Result<Arc<[IpAddr]>, String> {
    let is_anyones = |address: &&IpAddr| {
        let address = address.to_canonical();
        address.is_loopback() || address.is_unspecified()
    };
    match list.iter().find(is_anyones) {
        Some(address) => Err(format!(
            "{name}: {address} is every machine's own: a member's address is one that the other replicas know it by \
             (a line in /etc/hosts?)"
        )),
        None => Ok(list),
    }
}

async fn ask(resolver: &Resolver, members: &Members, family: Family) -> Answer {
    let manner = Manner { family, servers: [].into(), cached: false };
    let question = Question { host: members.name.as_str().into(), manner };
    resolver.lookup(&question).await.map(|addresses| addresses.list)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Reason;

    const FOUR: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 4));
    const SIX: IpAddr = IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 6));

    #[test]
    fn a_list_with_an_address_that_every_machine_has_is_none() {
        for own in ["127.0.0.1", "127.0.1.1", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1"] {
            let cause = distinct("peers.test", [FOUR, own.parse().expect("an address")].into()).expect_err(own);
            assert!(cause.starts_with(&format!("peers.test: {own} is every machine's own")), "{cause}");
        }
        assert_eq!(distinct("peers.test", [FOUR, SIX].into()), Ok([FOUR, SIX].into()));
    }

    #[tokio::test]
    async fn the_family_follows_from_answers_and_never_from_a_failure() {
        let mut family = FamilyOfName::default();
        let members = Members { name: "peers.test".to_owned(), address: None, refresh: Duration::from_secs(5) };
        for (v4, expected) in [
            (Err(Reason::DnsFailed), Err(Reason::DnsFailed)),
            (Err(Reason::DnsTimeout), Err(Reason::DnsTimeout)),
            (Err(Reason::DnsNotFound), Ok(SIX)),
            (Err(Reason::DnsFailed), Err(Reason::DnsFailed)),
            (Ok(FOUR), Ok(FOUR)),
            (Err(Reason::DnsNotFound), Err(Reason::DnsNotFound)),
        ] {
            let answer = |family| async move {
                let said = if family == Family::V4 { v4 } else { Ok(SIX) };
                said.map(|address| Arc::from([address])).map_err(Fault::from)
            };
            let said = family.look_up(&members, answer).await.map(|list| list[0]).map_err(|fault| fault.reason);
            assert_eq!(said, expected, "{v4:?}");
        }
    }
}
