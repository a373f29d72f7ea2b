//! Which part of every stream this replica sends, as time goes on.
//!
//! With an index and a count that is known. With `members` the records of a name are the replicas: each finds its own
//! address among them, and its place in the sorted list is its index. All replicas ask at the same instants of the
//! [grid](crate::pace::Timeline) that they share, and what they hear holds from an instant shortly after on, the same for
//! all ([`Round`]). So two replicas that heard the same never send the same arrival, and leave none out.
//!
//! An answer that does not come, comes too late or has no address changes nothing. A list without ourselves is one that the
//! others divide the streams by: then we send nothing, and neither before the first list.
//!
//! Left out: how the streams are divided ([`fleet`](crate::fleet)), and any talk between replicas.

mod watch;

use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch as channel};
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use crate::clock;
use crate::config::{Config, Shard};
use crate::export::{Sharing, Standing, Vitals};
use crate::fleet::{Fleet, WorkerLost};
use crate::logs::Throttle;
use crate::net::Resolver;
use crate::pace::{Stripe, Timeline};
use watch::{Heard, Orders};

/// Between two lines in the log about a list that can't be read.
const FAULT_INTERVAL_NS: u64 = 30_000_000_000;

/// The instants of grid time at which all replicas do the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_field_names, reason = "they are instants, and their unit is part of their names")]
struct Round {
    /// The list is asked for.
    ask_ns: u64,
    /// An answer that comes later does not count.
    until_ns: u64,
    /// From here on the streams are divided by it.
    switch_ns: u64,
}

impl Round {
    /// The first round that is asked for after `grid_ns`. Rounds end at the multiples of `refresh`.
    fn after(grid_ns: u64, refresh: Duration) -> Self {
        let refresh_ns = (refresh.as_nanos() as u64).max(1);
        // A long round is not asked for earlier: what is heard should be news when it takes effect.
        let lead_ns = (refresh_ns / 2).min(1_000_000_000);
        let switch_ns = ((grid_ns + lead_ns) / refresh_ns + 1).saturating_mul(refresh_ns);
        let ask_ns = switch_ns - lead_ns;
        Self { ask_ns, until_ns: ask_ns + lead_ns / 2, switch_ns }
    }
}

/// Something that concerns our part of the streams.
pub enum Event {
    /// The list of members, or why there is none.
    Heard(Heard),
    /// A change of stripe takes effect.
    Due,
}

/// Keeps the fleet's part of the streams what it has to be.
pub struct Seat {
    vitals: Arc<Vitals>,
    /// To the watch over the list of members.
    orders: Option<channel::Sender<Orders>>,
    heard: mpsc::Receiver<Heard>,
    /// Our address in the last list that had us.
    own: Option<IpAddr>,
    /// When a change of stripe takes effect, and how we came to it.
    due: Option<(Instant, Standing, u64)>,
    faults: Throttle,
}

impl Seat {
    /// The part of a fleet that has been started with this configuration. Called inside the control runtime.
    pub fn take(config: &Config, fleet: &Fleet, resolver: &Resolver, vitals: Arc<Vitals>) -> Self {
        let (tell, heard) = mpsc::channel(1);
        let mut sharing = Sharing { stripe: fleet.stripe(), ..Sharing::default() };
        let mut orders = None;
        match &config.shard {
            None => {}
            Some(Shard::Fixed { stripe, .. }) => {
                (sharing.standing, sharing.count) = (Standing::Fixed, stripe.count());
                info!(index = stripe.index(), count = stripe.count(), "sends a stripe of every stream");
            }
            Some(Shard::Members(members)) => {
                (sharing.standing, sharing.count) = (Standing::Unknown, 0);
                let timeline = fleet.timeline().unwrap_or(Timeline::OWN);
                let (order, ordered) = channel::channel(Orders { members: members.clone(), timeline });
                tokio::spawn(watch::watch(resolver.clone(), ordered, tell));
                orders = Some(order);
                info!(members = members.name.as_str(), "waits for the list of members");
            }
        }
        vitals.update_sharing(|seen| *seen = sharing);
        Self { vitals, orders, heard, own: None, due: None, faults: Throttle::new(FAULT_INTERVAL_NS) }
    }

    /// The next event; one that has not been taken is not lost.
    pub async fn next(&mut self) -> Event {
        let due = self.due.map(|(at, ..)| at);
        tokio::select! {
            () = async {
                match due {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            } => Event::Due,
            Some(heard) = self.heard.recv() => Event::Heard(heard),
        }
    }

    /// Does what an event asks for.
    pub async fn handle(&mut self, event: Event, fleet: &mut Fleet) -> Result<(), WorkerLost> {
        match event {
            Event::Heard(Heard { switch_ns, timeline, list: Ok(list) }) => {
                let switch_ns = fleet.timeline().map_or(switch_ns, |now| carried(switch_ns, timeline, now));
                self.vitals.update_sharing(|seen| seen.lookups += 1);
                let count = list.len() as u64;
                let own = self.own_address(&list);
                let index = own.and_then(|own| list.iter().position(|member| *member == own));
                let stripe = index.and_then(|index| Stripe::new(index as u64, count));
                let standing = if stripe.is_some() { Standing::Listed } else { Standing::Unlisted };
                self.own = own;
                self.change(switch_ns, stripe, standing, count, fleet).await
            }
            Event::Heard(Heard { list: Err(cause), .. }) => {
                self.vitals.update_sharing(|seen| seen.lookups_failed += 1);
                if let Some(held_back) = self.faults.admit(clock::now_ns()) {
                    warn!(cause, held_back, "the list of members can't be read: the last one holds");
                }
                Ok(())
            }
            Event::Due => {
                self.settle(fleet);
                Ok(())
            }
        }
    }

    /// Follows a configuration that the fleet has been made to follow.
    pub async fn follow(&mut self, config: &Config, fleet: &mut Fleet) -> Result<(), WorkerLost> {
        match &config.shard {
            Some(Shard::Fixed { stripe, refresh }) => {
                let Some(timeline) = fleet.timeline() else { return Ok(()) };
                let switch_ns = Round::after(timeline.grid_of(clock::now_ns()), *refresh).switch_ns;
                self.change(switch_ns, Some(*stripe), Standing::Fixed, stripe.count(), fleet).await
            }
            Some(Shard::Members(members)) => {
                if let Some(orders) = &self.orders {
                    orders.send_if_modified(|known| {
                        let changed = known.members != *members;
                        known.members = members.clone();
                        changed
                    });
                }
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Keeps the grid in step with the wall clock.
    pub async fn steer(&mut self, fleet: &mut Fleet) -> Result<(), WorkerLost> {
        let Some(before) = fleet.timeline() else { return Ok(()) };
        let clock_offset_ns = fleet.steer().await?;
        self.vitals.update_sharing(|seen| seen.clock_offset_ns = clock_offset_ns);
        if let (Some(timeline), Some(orders)) = (fleet.timeline().filter(|now| *now != before), &self.orders) {
            orders.send_modify(|known| known.timeline = timeline);
        }
        Ok(())
    }

    async fn change(
        &mut self,
        switch_ns: u64,
        stripe: Option<Stripe>,
        standing: Standing,
        count: u64,
        fleet: &mut Fleet,
    ) -> Result<(), WorkerLost> {
        if fleet.holds(switch_ns, stripe) {
            // What we are told by a list without us may change, and what we send does not.
            if self.due.is_none() {
                self.vitals.update_sharing(|seen| (seen.standing, seen.count) = (standing, count));
            }
            return Ok(());
        }
        let Some(timeline) = fleet.timeline() else { return Ok(()) };
        fleet.reshare(switch_ns, stripe).await?;
        let wait_ns = timeline.instant_of(switch_ns).saturating_sub(clock::now_ns());
        let at = Instant::now() + Duration::from_nanos(wait_ns);
        self.due = Some((at, standing, count));
        let seconds = wait_ns as f64 / 1e9;
        if let Some(stripe) = stripe {
            info!(index = stripe.index(), count, seconds, "another stripe of every stream is ours soon");
        } else {
            warn!(count, seconds, "the list of members is without us: we send nothing soon");
        }
        Ok(())
    }

    /// Tells of a change that has taken effect.
    fn settle(&mut self, fleet: &mut Fleet) {
        let Some((_, standing, count)) = self.due else { return };
        if fleet.settle() {
            self.due = None;
            self.vitals.update_sharing(|seen| {
                (seen.stripe, seen.standing, seen.count) = (fleet.stripe(), standing, count);
                seen.changes += 1;
            });
        } else {
            // Grid time is being led elsewhere: it comes a moment later.
            self.due = Some((Instant::now() + Duration::from_millis(1), standing, count));
        }
    }

    /// Which of the members we are; the one that we were, if it still is ours.
    fn own_address(&self, list: &[IpAddr]) -> Option<IpAddr> {
        let configured = self.orders.as_ref().and_then(|orders| orders.borrow().members.address);
        if let Some(configured) = configured {
            return Some(configured).filter(|configured| list.contains(configured));
        }
        let known = self.own.filter(|own| list.contains(own));
        known.into_iter().chain(list.iter().copied()).find(|member| is_local(*member))
    }
}

/// When a round switches by the grid of now. That is the grid which the round was laid by, though grid time may have been led
/// since, or one that was laid anew meanwhile, as the wall clock was set: then the moment stays the same.
fn carried(switch_ns: u64, laid_by: Timeline, now: Timeline) -> u64 {
    /// A round is too short for grid time to be led as far as that, and a grid is laid anew for more than that only.
    const LED_NS: u64 = 500_000_000;
    let at_ns = laid_by.instant_of(switch_ns);
    if now.instant_of(switch_ns).abs_diff(at_ns) < LED_NS { switch_ns } else { now.grid_of(at_ns) }
}

/// Whether an address is one of this machine's: then it is the one that a socket which is connected to it has itself.
/// Nothing is sent by that.
fn is_local(address: IpAddr) -> bool {
    /// Any port does: RFC 863, discard.
    const PORT: u16 = 9;
    let any: IpAddr = if address.is_ipv4() { [0_u8; 4].into() } else { [0_u8; 16].into() };
    let own = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((address, PORT))?;
        socket.local_addr()
    });
    own.is_ok_and(|own| own.ip() == address)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn rounds_end_at_multiples_of_the_refresh_and_are_asked_for_a_second_before() {
        let round = |at_ms: u64, refresh_s: u64| {
            let Round { ask_ns, until_ns, switch_ns } = Round::after(at_ms * 1_000_000, Duration::from_secs(refresh_s));
            [ask_ns, until_ns, switch_ns].map(|at| at / 1_000_000)
        };
        assert_eq!(round(0, 5), [4_000, 4_500, 5_000]);
        assert_eq!(round(3_999, 5), [4_000, 4_500, 5_000]);
        assert_eq!(round(4_000, 5), [9_000, 9_500, 10_000]);
        assert_eq!(round(5_000, 5), [9_000, 9_500, 10_000]);
        assert_eq!(round(0, 1), [500, 750, 1_000]);
        assert_eq!(round(700, 1), [1_500, 1_750, 2_000]);
        assert_eq!(round(1_792_000_001_234, 3600), [1_792_000_799_000, 1_792_000_799_500, 1_792_000_800_000]);
        assert!(Round::after(u64::MAX / 2, Duration::from_secs(3600)).switch_ns > u64::MAX / 2 + SECOND);
    }

    #[test]
    fn a_round_ends_when_it_was_to_end_on_a_grid_that_was_laid_anew_meanwhile() {
        const NOW: u64 = 1_792_000_000 * SECOND;
        let (uptime, switch) = (100 * SECOND, NOW + SECOND);
        let by = Timeline::ahead_by((NOW - uptime) as i64);
        let led = by.led_to(by.last_offset() + SECOND as i64, uptime);
        assert_eq!(carried(switch, by, by), switch);
        assert_eq!(carried(switch, by, led), switch, "all replicas cut at the same number");
        for hours in [-5, 5] {
            let set = Timeline::ahead_by(by.last_offset() + hours * 3600 * SECOND as i64);
            assert_eq!(set.instant_of(carried(switch, by, set)), uptime + SECOND, "{hours}");
        }
    }

    #[test]
    fn only_our_own_addresses_are_local() {
        assert!(is_local([127, 0, 0, 1].into()));
        // TEST-NET-2 (RFC 5737).
        assert!(!is_local([198, 51, 100, 200].into()));
        assert!(!is_local([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1].into()));
    }
}
