//! Which part of the streams a replica sends: an index and a count, or a list to find its place in.

use super::super::error::{Mistakes, Place, join};
use super::super::section::{self, Found, Slot};
use super::super::{Members, Shard};
use crate::pace::Stripe;

const PATH: &str = "shard";

/// Mistakes were noted.
pub(super) struct Noted;

/// What holds.
pub(super) fn shard(raw: &section::Shard, mistakes: &mut Mistakes) -> Result<Option<Shard>, Noted> {
    let before = mistakes.len();
    let shard = match &raw.members {
        Slot::Found(members) => by_members(members, raw, mistakes),
        Slot::Absent => fixed(raw, mistakes),
        Slot::Refused => None,
    };
    if mistakes.len() == before { Ok(shard) } else { Err(Noted) }
}

fn by_members(members: &Found<String>, raw: &section::Shard, mistakes: &mut Mistakes) -> Option<Shard> {
    for (name, number) in [("index", &raw.index), ("count", &raw.count)] {
        if !number.is_absent() {
            mistakes.push(members.place, join(PATH, "members"), format!("set beside {name}; leave one out"));
        }
    }
    let address = raw.address.value().copied();
    Some(Shard::Members(Members { name: members.value.clone(), address, refresh: *raw.refresh.value()? }))
}

fn fixed(raw: &section::Shard, mistakes: &mut Mistakes) -> Option<Shard> {
    let mut refuse = |place: Place, key: &str, text: &str| mistakes.push(place, join(PATH, key), text);
    if let Some(address) = raw.address.found() {
        refuse(address.place, "address", "set without members, the list that it is looked for in");
    }
    match (&raw.index, &raw.count) {
        (Slot::Found(index), Slot::Found(count)) => {
            let stripe = stripe(index, count, mistakes)?;
            Some(Shard::Fixed { stripe, refresh: *raw.refresh.value()? })
        }
        (Slot::Found(index), Slot::Absent) => {
            refuse(index.place, "index", "set without count, the number of replicas");
            None
        }
        (Slot::Absent, Slot::Found(count)) => {
            refuse(count.place, "count", "set without index, which of the replicas this is");
            None
        }
        _ => None,
    }
}

fn stripe(index: &Found<u64>, count: &Found<u64>, mistakes: &mut Mistakes) -> Option<Stripe> {
    let stripe = Stripe::new(index.value, count.value);
    if stripe.is_none() {
        let most = count.value.saturating_sub(1);
        let text = format!("{} is not accepted: with count = {} it is 0 to {most}", index.value, count.value);
        mistakes.push(index.place.max(count.place), join(PATH, "index"), text);
    }
    stripe
}
