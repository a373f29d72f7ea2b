//! Who gets a connection, and when.

use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use tokio::net::TcpListener;
use tokio::task::LocalSet;

use super::*;
use crate::config::{Sources, load};
use crate::net::ResolverService;
use crate::stats::{LedgerWriter, Shape};

/// A request to `url`; `rest` is further lines of TOML.
fn request(url: &str, rest: &str) -> Arc<HttpRequest> {
    let text = format!("[targets.a]\nurl = \"{url}\"\nrate = 1\n{rest}\n");
    let config = load(&Sources { inline: Some(text), ..Sources::default() });
    Arc::clone(&config.unwrap_or_else(|rejected| panic!("{rejected}")).targets["a"].http)
}

fn anvil() -> Anvil {
    let ledger = LedgerWriter::new(Shape::new(3, &[])).1;
    Anvil { ledger, resolver: ResolverService::new().1, guard: Arc::default() }
}

/// A request to a listener, with so many connections at most.
fn narrow(listener: &TcpListener, max_connections: usize) -> Arc<HttpRequest> {
    let address = listener.local_addr().expect("an address");
    request(&format!("http://{address}/"), &format!("pool.max_connections = {max_connections}"))
}

/// A road to a listener, with one connection at most.
fn narrow_road(listener: &TcpListener) -> Rc<Road> {
    Road::new(&narrow(listener, 1), &anvil(), 1)
}

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Gives a connection back, after a complete response.
async fn give_back(road: &Rc<Road>, way: Result<Way, Fault>) {
    let Ok(Way::Alone(connection, _)) = way else { panic!("no connection over HTTP/1.1") };
    connection.settle().await;
    road.put(connection, clock::now_ns());
}

#[tokio::test]
async fn who_waited_longest_gets_the_connection_that_comes_free() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let road = narrow_road(&listener);
    let [first, second, third, newcomer] = [const { Trace::new() }; 4];
    LocalSet::new()
        .run_until(async {
            let way = road.way(&Trace::new(), u64::MAX, false).await;
            let mut first_way = pin!(road.way(&first, u64::MAX, false));
            assert!(poll(first_way.as_mut()).is_pending());
            let mut second_way = Box::pin(road.way(&second, u64::MAX, false));
            let mut third_way = pin!(road.way(&third, u64::MAX, false));
            assert!(poll(second_way.as_mut()).is_pending() && poll(third_way.as_mut()).is_pending());

            give_back(&road, way).await;
            let mut new_way = pin!(road.way(&newcomer, u64::MAX, false));
            assert!(poll(new_way.as_mut()).is_pending(), "past those who wait");
            assert!(poll(third_way.as_mut()).is_pending() && poll(second_way.as_mut()).is_pending());
            let Poll::Ready(way) = poll(first_way.as_mut()) else { panic!("the connection is free") };

            // One who gives up leaves its place to the next.
            assert_eq!(second.stage(), Some(Stage::Connect), "it has no connection");
            drop(second_way);
            give_back(&road, way).await;
            assert!(poll(new_way.as_mut()).is_pending());
            let Poll::Ready(way) = poll(third_way.as_mut()) else { panic!("the connection is free") };
            give_back(&road, way).await;
            let way = new_way.await;
            assert!(matches!(way, Ok(Way::Alone(_, true))));
            assert!(!road.seats.someone_waits());
        })
        .await;
    for trace in [&first, &third, &newcomer] {
        assert_eq!(trace.stage(), Some(Stage::Wait));
        assert_eq!([Stage::Dns, Stage::Connect].map(|stage| trace.took_ns(stage)), [None, None]);
    }
}

#[tokio::test]
async fn more_places_are_for_those_who_wait_and_a_new_connection_may_be_an_old_one_when_there_is_no_place() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let road = narrow_road(&listener);
    let trace = Trace::new();
    LocalSet::new()
        .run_until(async {
            let way = road.way(&trace, u64::MAX, false).await;
            give_back(&road, way).await;
            let way = road.way(&trace, u64::MAX, true).await;
            assert!(matches!(way, Ok(Way::Alone(_, true))), "it would wait for ever for one more");
            let traces = [const { Trace::new() }; 3];
            let mut waiting: Vec<_> = traces.iter().map(|trace| Box::pin(road.way(trace, u64::MAX, false))).collect();
            assert!(waiting.iter_mut().all(|way| poll(way.as_mut()).is_pending()));
            road.adapt(&narrow(&listener, 4), 4);
            let mut opened = Vec::new();
            for way in waiting {
                opened.push(way.await);
            }
            assert!(opened.iter().all(|way| matches!(way, Ok(Way::Alone(_, false)))), "a connection for each");
        })
        .await;
}

/// How long things may take is no part of where a connection leads, nor is what only new ones see.
#[test]
fn only_what_changes_where_a_connection_leads_or_whom_it_trusts_is_another_road() {
    const URL: &str = "https://shop.test/";
    const USUAL: &str = "dns.refresh = \"once\"\nhttp_version = \"1.1\"\n";
    let was = request(URL, USUAL);
    let (anvil, ca) = (anvil(), rcgen::generate_simple_self_signed(vec!["ca".to_owned()]).expect("a certificate"));
    let road = Road::new(&was, &anvil, 1);
    let directory = tempfile::tempdir().expect("a directory");
    let ca_file = directory.path().join("ca.pem");
    std::fs::write(&ca_file, ca.cert.pem()).expect("a file");
    let trusts_ca = format!("tls.ca_file = {:?}", ca_file.to_str().expect("UTF-8"));
    for (rest, same) in [
        ("pool.connect_timeout = \"1s\"", true),
        ("tls.handshake_timeout = \"1s\"", true),
        ("tls.resumption = false", true),
        ("timeout = \"20s\"", true),
        ("method = \"HEAD\"", true),
        ("pool.max_age = \"1m\"", true),
        (trusts_ca.as_str(), false),
        ("tls.insecure_skip_verify = true", false),
        ("tls.min_version = \"1.3\"", false),
        ("tls.server_name = \"other.test\"", false),
        ("dns.family = \"ipv4\"", false),
        ("dns.servers = [\"127.0.0.1\"]", false),
        ("connect_to = \"127.0.0.1:1\"", false),
    ] {
        // An address has no name to look up.
        let usual = if rest.starts_with("connect_to") { "http_version = \"1.1\"\n" } else { USUAL };
        assert_eq!(road.leads_to(&request(URL, &format!("{usual}{rest}")), &was, &anvil), same, "{rest}");
    }
    for other in ["https://shop.test:8443/", "https://other.test/", "http://shop.test/"] {
        assert!(!road.leads_to(&request(other, USUAL), &was, &anvil), "{other}");
    }
    assert!(road.leads_to(&request(URL, "dns.refresh = \"9s\"\nhttp_version = \"1.1\""), &was, &anvil));
    assert!(!road.leads_to(&request(URL, "dns.refresh = \"once\""), &was, &anvil), "another HTTP");

    road.adapt(&request(URL, &format!("{USUAL}pool.connect_timeout = \"1s\"\ntls.handshake_timeout = \"2s\"")), 1);
    let handshake_timeout = road.tls().map(|tls| tls.spec().handshake_timeout);
    assert_eq!(road.dialer.connect_timeout(), Duration::from_secs(1));
    assert_eq!(handshake_timeout, Some(Duration::from_secs(2)));
    // With the same configuration it keeps the sessions that it may resume.
    let (secured, same) = (road.tls(), request(URL, &format!("{USUAL}tls.handshake_timeout = \"2s\"")));
    road.adapt(&same, 1);
    assert!(Option::zip(secured, road.tls()).is_some_and(|(was, is)| Arc::ptr_eq(&was, &is)));
}
