//! Keys that do nothing beside what else is set. They are refused where they are set, as whoever sets one expects
//! something of it, and left out where a configuration is shown.

use std::net::IpAddr;
use std::time::Duration;

use super::Target;
use super::error::{Mistakes, Origins, Place, join};
use super::kind::display_duration;
use super::section::{self, Slot};
use crate::net::Peer;

/// One such key.
struct Futile {
    key: &'static str,
    /// Where it is set, and where what it does nothing beside.
    places: [fn(&section::Target) -> Option<Place>; 2],
    /// Why it does nothing, if it does not.
    why: fn(&Target) -> Option<String>,
}

const ALL: [Futile; 8] = [
    Futile {
        key: "dns",
        places: [|raw| place(&raw.dns), |raw| place(&raw.connect_to).or(place(&raw.url)).or(place(&raw.url_file))],
        why: |target| match &target.http.route.peer {
            Peer::Unix(_) => {
                Some("a Unix domain socket has no name to look up: leave dns out, or connect_to".to_owned())
            }
            Peer::Tcp { host, .. } => host
                .parse::<IpAddr>()
                // One of the other family can't be dialled at all, which is said already.
                .is_ok_and(|literal| target.http.route.family.counts(literal))
                .then(|| "an address has no name to look up: leave dns out".to_owned()),
        },
    },
    Futile {
        key: "tls.ca_file",
        places: [|raw| inner(&raw.tls, |tls| &tls.ca_file), |raw| inner(&raw.tls, |tls| &tls.insecure_skip_verify)],
        why: |target| {
            let tls = target.http.tls.as_ref()?.spec();
            let futile = tls.insecure_skip_verify && tls.ca.is_some();
            futile.then(|| "set, but with insecure_skip_verify = true no certificate is checked".to_owned())
        },
    },
    Futile {
        key: "tls.handshake_timeout",
        places: [|raw| inner(&raw.tls, |tls| &tls.handshake_timeout), |raw| place(&raw.timeout)],
        why: |target| above_timeout(target, target.http.tls.as_ref()?.spec().handshake_timeout),
    },
    Futile {
        key: "pool.connect_timeout",
        places: [|raw| inner(&raw.pool, |pool| &pool.connect_timeout), |raw| place(&raw.timeout)],
        why: |target| above_timeout(target, target.http.route.connect_timeout),
    },
    Futile {
        key: "pool.max_connections",
        places: [|raw| inner(&raw.pool, |pool| &pool.max_connections), |raw| place(&raw.max_in_flight)],
        why: |target| {
            let (max, most) = (target.http.pool.max_connections?, target.max_in_flight);
            (max > most).then(|| format!("{max} connections are more than are ever in use, {most}"))
        },
    },
    Futile {
        key: "pool.max_requests",
        places: [|raw| inner(&raw.pool, |pool| &pool.max_requests), |raw| inner(&raw.pool, |pool| &pool.reuse)],
        why: |target| target.http.pool.max_requests.and_then(|_| single_use(target)),
    },
    Futile {
        key: "pool.max_age",
        places: [|raw| inner(&raw.pool, |pool| &pool.max_age), |raw| inner(&raw.pool, |pool| &pool.reuse)],
        why: |target| not_opened_beforehand(target).and_then(|()| single_use(target)),
    },
    Futile {
        key: "pool.idle_timeout",
        places: [|raw| inner(&raw.pool, |pool| &pool.idle_timeout), |raw| inner(&raw.pool, |pool| &pool.reuse)],
        why: |target| not_opened_beforehand(target).and_then(|()| single_use(target)),
    },
];

/// Notes what a target, or the defaults for it, sets in vain. Who sets the other key later, in another layer or for one
/// target alone, makes an exception, and may leave the rest as it is.
pub(super) fn refuse(
    target: &Target,
    (own, path): (&section::Target, &str),
    defaults: &section::Target,
    origins: &Origins,
    mistakes: &mut Mistakes,
) {
    for Futile { key, places: [set, beside], why } in &ALL {
        let Some(why) = why(target) else { continue };
        let (place, path, beside) = match set(own) {
            Some(place) => (place, path, beside(own).or(beside(defaults))),
            None if beside(own).is_some() => continue,
            None => match set(defaults) {
                Some(place) => (place, "defaults", beside(defaults)),
                None => continue,
            },
        };
        if !origins.is_built_in(place) && beside.is_none_or(|beside| beside.layer <= place.layer) {
            let key = key.split('.').fold(path.to_owned(), |path, name| join(&path, name));
            mistakes.push(place, key, why);
        }
    }
}

/// Whether a target's key, as in `pool.max_age`, does something.
pub(super) fn does_something(target: &Target, key: &str) -> bool {
    ALL.iter().all(|futile| futile.key != key || (futile.why)(target).is_none())
}

fn place<T>(slot: &Slot<T>) -> Option<Place> {
    slot.found().map(|found| found.place)
}

fn inner<S, T>(section: &Slot<S>, key: impl FnOnce(&S) -> &Slot<T>) -> Option<Place> {
    section.key(key).and_then(place)
}

fn above_timeout(target: &Target, budget: Duration) -> Option<String> {
    not_opened_beforehand(target)?;
    let text = || {
        let (budget, timeout) = (display_duration(budget), display_duration(target.timeout));
        format!("{budget} is above timeout, {timeout}, which ends the request before")
    };
    (budget > target.timeout).then(text)
}

/// A connection that is opened before a request asks for it ends by no request's timeout, and idles until then.
fn not_opened_beforehand(target: &Target) -> Option<()> {
    (target.http.pool.preconnect == 0).then_some(())
}

fn single_use(target: &Target) -> Option<String> {
    (!target.http.pool.reuse).then(|| "set, but with reuse = false a connection serves one request".to_owned())
}
