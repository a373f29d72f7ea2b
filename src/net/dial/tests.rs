//! Judging addresses, refreshing names, and who waits for a name server.

use std::task::{Context, Poll, Waker};

use super::*;
use crate::net::{Family, ResolverService};
use crate::stats::{LedgerWriter, Shape};

const S: u64 = 1_000_000_000;

fn dialer(refresh: Refresh, connect_timeout: Duration) -> Dialer {
    let peer = Peer::Tcp { host: "shop.test".to_owned(), port: 80 };
    let route = Route { peer, family: Family::Any, refresh, servers: vec![], connect_timeout };
    let ledger = LedgerWriter::new(Shape::new(3, &[])).1;
    Dialer::new(route, Arc::default(), ResolverService::new().1, ledger)
}

fn found(addresses: &[[u8; 4]], until_ns: u64) -> Addresses {
    Addresses { list: addresses.iter().copied().map(IpAddr::from).collect(), until_ns }
}

#[test]
fn silence_speaks_against_an_address_only_when_it_had_the_time_to_answer() {
    let (patient, hasty) = (Duration::from_secs(5), Duration::from_millis(100));
    for (reason, budget_ms, connect_timeout, blamed) in [
        (Reason::ConnectRefused, 0, patient, true),
        (Reason::ConnectUnreachable, 0, patient, true),
        (Reason::ConnectTimeout, 0, patient, false),
        (Reason::ConnectTimeout, 249, patient, false),
        (Reason::ConnectTimeout, 250, patient, true),
        // Half of the half that each of two addresses has.
        (Reason::ConnectTimeout, 24, hasty, false),
        (Reason::ConnectTimeout, 25, hasty, true),
        (Reason::LocalPorts, 1000, patient, false),
        (Reason::LocalFds, 1000, patient, false),
        (Reason::Io, 1000, patient, false),
    ] {
        let dialer = dialer(Refresh::Once, connect_timeout);
        let budget = Duration::from_millis(budget_ms);
        assert_eq!(dialer.is_to_blame(reason, budget, 2), blamed, "{reason:?} after {budget:?}");
    }
}

/// A dead resolver would hold up as many requests as came while it was asked, and those that came next be dropped.
#[tokio::test]
async fn one_dial_waits_for_a_name_server_and_others_take_what_is_known() {
    let (_nobody_answers, resolver) = ResolverService::new();
    let dialer = Dialer { resolver, ..dialer(Refresh::Ttl, Duration::from_secs(1)) };
    let known = dialer.learn(Ok(found(&[[127, 0, 0, 1]], 0)), 0).expect("an answer");
    let traces = [const { Trace::new() }; 3];
    let ask = |trace| Box::pin(dialer.addresses(trace, u64::MAX));
    let mut cx = Context::from_waker(Waker::noop());
    let mut first = ask(&traces[0]);
    assert!(first.as_mut().poll(&mut cx).is_pending());
    assert!(matches!(ask(&traces[1]).as_mut().poll(&mut cx), Poll::Ready(Ok(addresses)) if addresses == known));
    assert_eq!((traces[0].stage(), traces[1].stage()), (Some(Stage::Dns), None));
    // Cut off, it leaves the question to the next one.
    drop(first);
    assert!(ask(&traces[2]).as_mut().poll(&mut cx).is_pending());
}

#[test]
fn an_address_that_failed_comes_last_for_a_while() {
    let dialer = dialer(Refresh::Once, Duration::from_secs(5));
    let all = [[10, 0, 0, 1], [10, 0, 0, 2], [10, 0, 0, 3]].map(IpAddr::from);
    let now_ns = clock::now_ns();
    assert_eq!(dialer.in_order(all.to_vec(), 4, now_ns), [all[1], all[2], all[0]]);
    dialer.note_failure(all[1]);
    assert_eq!(dialer.in_order(all.to_vec(), 4, now_ns), [all[2], all[0], all[1]]);
    assert_eq!(dialer.in_order(all.to_vec(), 4, now_ns + 11 * S), [all[1], all[2], all[0]]);
}

#[test]
fn a_name_is_due_when_its_records_have_expired_or_when_the_refresh_says_so() {
    let every = Refresh::Every(Duration::from_secs(2));
    for (refresh, ttl_s, due_s) in [
        (Refresh::Ttl, 60, Some(60)),
        (Refresh::Ttl, 1, Some(5)),
        (Refresh::Ttl, 0, Some(5)),
        (every, 60, Some(2)),
        (every, 0, Some(2)),
        (Refresh::Once, 0, None),
    ] {
        let (dialer, asked_ns) = (dialer(refresh, Duration::from_secs(5)), clock::now_ns());
        assert_eq!(dialer.due_ns(), None, "nothing is known yet");
        dialer.learn(Ok(found(&[[10, 0, 0, 1]], asked_ns + ttl_s * S)), asked_ns).expect("an address");
        assert_eq!(dialer.due_ns(), due_s.map(|due_s: u64| asked_ns + due_s * S), "{refresh:?}, {ttl_s} s");
        // One that failed is not repeated at once.
        let later_ns = asked_ns + due_s.unwrap_or(0) * S;
        dialer.learn(Err(Reason::DnsFailed.into()), later_ns).expect("what is known");
        assert!(dialer.due_ns().is_none_or(|due_ns| due_ns >= asked_ns + 5 * S));
    }
}

/// Connections that are kept across a change rely on what was found before it.
#[test]
fn another_refresh_counts_from_the_latest_answer() {
    let (dialer, asked_ns) = (dialer(Refresh::Once, Duration::from_secs(5)), clock::now_ns());
    dialer.learn(Ok(found(&[[10, 0, 0, 1]], asked_ns + 60 * S)), asked_ns).expect("an address");
    let route = |refresh| {
        let peer = Peer::Tcp { host: "shop.test".to_owned(), port: 80 };
        Route { peer, family: Family::Any, refresh, servers: vec![], connect_timeout: Duration::from_secs(1) }
    };
    for (refresh, changed, due_s, cached) in [
        (Refresh::Once, false, None, false),
        (Refresh::Every(Duration::from_secs(2)), true, Some(2), false),
        (Refresh::Every(Duration::from_secs(3)), true, Some(3), false),
        (Refresh::Ttl, true, Some(60), true),
        (Refresh::Ttl, false, Some(60), true),
    ] {
        assert!(dialer.follows(&route(refresh)));
        assert_eq!(dialer.adapt(&route(refresh)), changed, "{refresh:?}");
        assert_eq!(dialer.due_ns(), due_s.map(|due_s: u64| asked_ns + due_s * S), "{refresh:?}");
        assert_eq!(dialer.question().manner.cached, cached, "{refresh:?}");
    }
    assert_eq!(dialer.connect_timeout(), Duration::from_secs(1));
}

#[test]
fn other_addresses_are_news_once_and_a_failure_is_none() {
    let (dialer, one, two) = (dialer(Refresh::Ttl, Duration::from_secs(5)), [10, 0, 0, 1], [10, 0, 0, 2]);
    dialer.learn(Ok(found(&[one], 0)), 0).expect("an address");
    assert!(!dialer.take_change(), "no connection can be open to another");
    dialer.learn(Ok(found(&[one], 0)), 0).expect("an address");
    assert_eq!(*dialer.learn(Err(Reason::DnsTimeout.into()), 0).expect("what is known"), [IpAddr::from(one)]);
    let gone = dialer.learn(Err(Reason::DnsNotFound.into()), 0);
    assert!(gone.is_err_and(|fault| fault.reason == Reason::DnsNotFound));
    assert!(!dialer.take_change() && dialer.knows(Some(one.into())));
    dialer.learn(Ok(found(&[two], 0)), 0).expect("an address");
    assert!(dialer.take_change());
    assert!(!dialer.take_change());
    assert!(!dialer.knows(Some(one.into())) && dialer.knows(Some(two.into())));
}

fn networks(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().expect("a network")).collect()
}

#[test]
fn a_denied_network_is_denied_in_every_notation() {
    let guard = Guard { deny: networks(&["169.254.0.0/16", "fe80::/10"]), allow: vec![] };
    for (address, admitted) in [
        ("169.254.169.254", false),
        ("::ffff:169.254.169.254", false),
        ("fe80::1", false),
        ("10.0.0.1", true),
        ("::1", true),
    ] {
        assert_eq!(guard.admits(address.parse().expect("an address")), admitted, "{address}");
    }
}

/// Linux connects it to this machine.
#[test]
fn the_unspecified_address_is_loopback() {
    let guard = Guard { deny: networks(&["127.0.0.0/8", "::1/128"]), allow: vec![] };
    for address in ["0.0.0.0", "::ffff:0.0.0.0", "::", "127.0.0.1", "::1"] {
        assert!(!guard.admits(address.parse().expect("an address")), "{address}");
    }
}

#[test]
fn a_list_of_allowed_networks_excludes_all_others_and_denial_wins() {
    let guard = Guard { deny: networks(&["10.9.0.0/16"]), allow: networks(&["10.0.0.0/8"]) };
    let admitted =
        ["10.1.1.1", "10.9.1.1", "192.0.2.1"].map(|address| guard.admits(address.parse().expect("an address")));
    assert_eq!(admitted, [true, false, false]);
}
