//! Asks for the list of members, round by round.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use super::Round;
use crate::clock;
use crate::config::Members;
use crate::net::{Family, Fault, Manner, Question, Resolver};
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
        let list = match timeout(left(round.until_ns), family.look_up(&resolver, &members)).await {
            Ok(Ok(list)) => Ok(list),
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
struct FamilyOfName(Option<(String, Family)>);

impl FamilyOfName {
    /// Those of our own family, when it is known. Else IPv4, or IPv6 where there are none; and for good what there was once.
    async fn look_up(&mut self, resolver: &Resolver, members: &Members) -> Result<Arc<[IpAddr]>, Fault> {
        let known = self.0.as_ref().filter(|(name, _)| *name == members.name).map(|(_, family)| *family);
        let own = members.address.map(|own| if own.is_ipv4() { Family::V4 } else { Family::V6 });
        if let Some(family) = own.or(known) {
            return ask(resolver, members, family).await;
        }
        let (family, list) = match ask(resolver, members, Family::V4).await {
            Ok(list) => (Family::V4, list),
            Err(_) => (Family::V6, ask(resolver, members, Family::V6).await?),
        };
        self.0 = Some((members.name.clone(), family));
        Ok(list)
    }
}

async fn ask(resolver: &Resolver, members: &Members, family: Family) -> Result<Arc<[IpAddr]>, Fault> {
    let manner = Manner { family, servers: [].into(), cached: false };
    let question = Question { host: members.name.as_str().into(), manner };
    resolver.lookup(&question).await.map(|addresses| addresses.list)
}
