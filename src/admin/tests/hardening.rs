//! The face against clients that stall, trickle, flood and leave; and what it tells of its scrapes.

use super::*;

/// More than the kernel buffers for a connection, so that an answer is stuck until somebody reads.
const HUGE_BYTES: usize = 24 << 20;
/// A bound that is meant to be run into.
const SOON: Duration = Duration::from_millis(20);

const HALF_HEAD: &str = "GET /metrics HTTP/1.1\r\nHost: te";

fn huge() -> Face {
    face_with_help(&"x".repeat(HUGE_BYTES))
}

/// A shutdown that must end by itself.
fn shut_down(admin: Admin) {
    let down = thread::spawn(move || admin.shutdown());
    eventually("the shutdown ends", || down.is_finished());
}

/// A client that has asked for metrics and reads none of the answer, of which the server is known to hold a part.
fn stalled(admin: &Admin) -> Client {
    let before_bytes = admin.held_bytes();
    let mut client = Client::of(admin);
    client.say("GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    eventually("the answer is in memory", || admin.held_bytes() >= before_bytes + HUGE_BYTES);
    client
}

#[test]
fn six_hundred_half_requests_keep_no_scraper_out() {
    let admin = serve(face(), Bounds { connections: 16, ..WIDE });
    let mut flood: Vec<_> = (0..600)
        .map(|_| {
            let mut client = Client::of(&admin);
            // Some are cut while they still speak.
            let _ = client.say(HALF_HEAD);
            client
        })
        .collect();
    assert_eq!(ask(&admin, "GET", "/metrics").status, 200);
    // No time bound can be the cause: all but the last sixteen were pushed out.
    assert!(flood[..584].iter_mut().all(Client::was_cut));
}

#[test]
fn idle_connections_make_room_and_lose_nothing() {
    let admin = serve(face(), Bounds { connections: 4, ..WIDE });
    let mut first = Client::of(&admin);
    first.ask("GET", "/-/ready", "");
    let mut others: Vec<_> = (0..3).map(|_| Client::of(&admin)).collect();
    for other in &mut others {
        assert_eq!(other.ask("GET", "/-/ready", "").status, 200);
    }
    // The first is now the one that nothing was served to for longest; unless it is used again.
    assert_eq!(first.ask("GET", "/-/ready", "").status, 200);
    assert_eq!(ask(&admin, "GET", "/metrics").status, 200);
    assert!(others[0].was_cut());
    assert_eq!(first.ask("GET", "/-/ready", "").status, 200);
}

#[test]
fn a_half_request_is_cut_in_time_also_when_it_trickles() {
    let admin = serve(face(), Bounds { request: SOON, ..WIDE });
    let mut silent = Client::of(&admin);
    let mut half = Client::of(&admin);
    half.say(HALF_HEAD).unwrap();
    assert!(silent.was_cut() && half.was_cut());
    let mut trickle = Client::of(&admin);
    // Ends only when the server has closed: every byte is accepted until then.
    eventually("the trickle is cut", || trickle.say("G").is_err());
}

#[test]
fn a_request_body_has_no_more_time_than_its_head() {
    let admin = serve(face(), Bounds { request: SOON, ..WIDE });
    let mut client = Client::of(&admin);
    client.say("POST /-/reload HTTP/1.1\r\nHost: test\r\nContent-Length: 9\r\n\r\nhalf").unwrap();
    let mut rest = Vec::new();
    // Whether the end comes with an answer or without: it comes.
    let _ = client.0.read_to_end(&mut rest);
    let text = String::from_utf8(rest).unwrap();
    assert!(text.is_empty() || text.starts_with("HTTP/1.1 400 "), "{text}");
}

#[test]
fn a_body_too_long_is_refused_before_it_is_sent() {
    let admin = serve(face(), WIDE);
    let mut client = Client::of(&admin);
    let heard = client.ask("POST", "/-/reload", "Content-Length: 65537\r\nExpect: 100-continue\r\n");
    assert_eq!((heard.status, heard.field("connection")), (413, "close"));
    let mut client = Client::of(&admin);
    client.say("POST /-/reload HTTP/1.1\r\nHost: test\r\nContent-Length: 65536\r\n\r\n").unwrap();
    client.say(&"x".repeat(65_536)).unwrap();
    assert_eq!(client.hear().unwrap().status, 403);
}

#[test]
fn a_huge_head_is_refused() {
    let admin = serve(face(), WIDE);
    let mut client = Client::of(&admin);
    let _ = client.say(&format!("GET /metrics HTTP/1.1\r\nHost: test\r\nX: {}\r\n\r\n", "x".repeat(1 << 20)));
    // The refusal may be lost in the reset that the unread rest causes.
    assert!(client.hear().map_or(true, |heard| heard.status == 431));
    assert_eq!(ask(&admin, "GET", "/metrics").status, 200);
}

#[test]
fn between_requests_another_bound_counts_than_within() {
    let admin = serve(face(), Bounds { request: SOON, ..WIDE });
    let mut idle = Client::of(&admin);
    idle.ask("GET", "/-/ready", "");
    // Connected later and cut already: so the other has been silent for longer than a request may take.
    assert!(Client::of(&admin).was_cut());
    assert_eq!(idle.ask("GET", "/-/ready", "").status, 200);
    idle.say(HALF_HEAD).unwrap();
    assert!(idle.was_cut());

    let admin = serve(face(), Bounds { idle: SOON, ..WIDE });
    let mut idle = Client::of(&admin);
    idle.ask("GET", "/-/ready", "");
    assert!(idle.was_cut());
}

#[test]
fn a_scraper_that_does_not_read_is_cut_and_its_answer_forgotten() {
    let admin = serve(huge(), Bounds { answer: Duration::from_millis(200), ..WIDE });
    let mut client = stalled(&admin);
    eventually("the memory is released", || admin.held_bytes() == 0);
    // A reset and no orderly end: the kernel does not go on offering what it had.
    assert_eq!(client.hear().unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(*admin.scraped().borrow(), None);
}

#[test]
fn a_scraper_that_leaves_in_the_middle_leaves_nothing_behind() {
    let admin = serve(huge(), WIDE);
    let mut client = stalled(&admin);
    client.hear_head().unwrap();
    drop(client);
    eventually("the memory is released", || admin.held_bytes() == 0);
    assert_eq!(*admin.scraped().borrow(), None);
}

#[test]
fn answers_that_nobody_reads_are_bounded_together() {
    let admin = serve(huge(), Bounds { answers_bytes: HUGE_BYTES, ..WIDE });
    let mut first = stalled(&admin);
    let second = stalled_again(&admin);
    eventually("one answer is left", || admin.held_bytes() < 2 * HUGE_BYTES);
    assert!(first.hear().is_err());
    drop(second);
}

/// Like [`stalled`], where another answer may go at the same time.
fn stalled_again(admin: &Admin) -> Client {
    let mut client = Client::of(admin);
    client.say("GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    client.hear_head().unwrap();
    client
}

#[test]
fn stalled_scrapers_on_every_seat_keep_no_one_out() {
    let admin = serve(huge(), Bounds { connections: 2, ..WIDE });
    let mut stuck = [stalled(&admin), stalled(&admin)];
    assert_eq!(ask(&admin, "GET", "/-/ready").status, 200);
    // Which of them had to go depends on when the kernel last took bytes of each.
    let cut = stuck.iter_mut().filter_map(|client| client.hear().err()).count();
    assert_eq!(cut, 1);
}

#[test]
fn only_a_scrape_that_has_wholly_left_counts() {
    let admin = serve(huge(), WIDE);
    let scraped = admin.scraped();
    let mut client = Client::of(&admin);
    client.ask("HEAD", "/metrics", "");
    // Whatever the first answer told has been told once the second is here.
    client.ask("GET", "/-/ready", "");
    assert_eq!(*scraped.borrow(), None);

    let before = Scraped::now();
    let mut slow = stalled(&admin);
    client.ask("GET", "/-/ready", "");
    assert_eq!(*scraped.borrow(), None);
    let between = Scraped::now();
    assert_eq!(slow.hear().unwrap().status, 200);
    eventually("the scrape counts", || scraped.borrow().is_some());
    let first = scraped.borrow().unwrap();
    assert!((before..between).contains(&first), "it counts from when it was gathered");

    client.ask("GET", "/metrics", "");
    eventually("the next one counts", || scraped.borrow().is_some_and(|latest| latest > between));
}

#[test]
fn a_slow_scrape_takes_back_nothing_that_a_later_one_proved() {
    let admin = serve(huge(), WIDE);
    let mut slow = stalled(&admin);
    let between = Scraped::now();
    ask(&admin, "GET", "/metrics");
    eventually("the later one counts", || admin.scraped().borrow().is_some_and(|latest| latest > between));
    slow.hear().unwrap();
    slow.ask("GET", "/-/ready", "");
    assert!(admin.scraped().borrow().unwrap() > between);
}

#[test]
fn a_shutdown_frees_the_port_and_waits_for_no_idler() {
    let admin = serve(face(), WIDE);
    let addr = admin.local_addr();
    let mut idle = Client::of(&admin);
    idle.ask("GET", "/-/ready", "");
    shut_down(admin);
    assert!(idle.was_cut());
    assert_eq!(TcpStream::connect(addr).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    Bound::bind(addr).unwrap();
}

#[test]
fn a_shutdown_lets_an_answer_leave() {
    let admin = serve(huge(), WIDE);
    let mut scraped = admin.scraped();
    let mut client = stalled(&admin);
    let addr = admin.local_addr();
    let down = thread::spawn(move || admin.shutdown());
    eventually("the port is free", || TcpStream::connect(addr).is_err());
    let heard = client.hear().unwrap();
    assert!(heard.body.len() > HUGE_BYTES);
    down.join().unwrap();
    assert!(scraped.borrow_and_update().is_some());
}

#[test]
fn a_shutdown_is_bounded_whatever_the_client_does() {
    let admin = serve(huge(), Bounds { close: SOON, ..WIDE });
    let mut half = Client::of(&admin);
    half.say(HALF_HEAD).unwrap();
    let mut deaf = stalled(&admin);
    shut_down(admin);
    assert!(half.was_cut());
    assert!(deaf.hear().is_err());
}
