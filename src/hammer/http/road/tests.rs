//! Who gets a connection, and when.

use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use tokio::net::TcpListener;
use tokio::task::LocalSet;

use super::*;
use crate::config::{Sources, load};
use crate::net::ResolverService;
use crate::stats::{LedgerWriter, Shape};

/// A road to a listener, with one connection at most.
fn narrow_road(listener: &TcpListener) -> Rc<Road> {
    let address = listener.local_addr().expect("an address");
    let text = format!("[targets.a]\nurl = \"http://{address}/\"\nrate = 1\npool.max_connections = 1\n");
    let config = load(&Sources { inline: Some(text), ..Sources::default() }).expect("a configuration");
    let spec = &config.targets["a"].http;
    let ledger = LedgerWriter::new(Shape::new(3, &[])).1;
    let anvil = Anvil { ledger, resolver: ResolverService::new().1, guard: Arc::default() };
    Road::new(spec, &anvil, 1)
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
            let policy = PoolPolicy { max_connections: Some(4), ..road.idle.policy() };
            road.adapt(4, policy);
            let mut opened = Vec::new();
            for way in waiting {
                opened.push(way.await);
            }
            assert!(opened.iter().all(|way| matches!(way, Ok(Way::Alone(_, false)))), "a connection for each");
        })
        .await;
}
