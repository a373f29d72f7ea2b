//! Scrapes too large for one piece.

use super::*;
use crate::export::{Exports, Format, Vitals};
use crate::roster::{Roster, TargetInfo};
use crate::stats::{LedgerWriter, Shape};

/// Enough that the kernel does not buffer all of their text for a connection.
const TARGETS: usize = 2_000;
/// Far more than the text that the kernel buffers, and far less than all.
const HALF_BYTES: usize = 15 << 20;
/// What an answer may take, whatever the length of its text.
const ANSWER_BYTES: usize = 2 << 20;

/// A face over many targets with some requests each, and a text to compare with.
fn many() -> Face {
    let shape = Shape::new(3, &[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0]);
    let roster = Roster::new(shape.clone(), Vec::new());
    for number in 0..TARGETS {
        let name: Arc<str> = format!("target-{number:05}-with-a-name-that-makes-lines-long").into();
        let info = TargetInfo {
            labels: [("team".to_owned(), "checkout".to_owned())].into(),
            shape: shape.clone(),
            ..TargetInfo::plain()
        };
        roster.describe(&name, info);
        let (writer, ledger) = LedgerWriter::new(shape.clone());
        roster.enlist(&name, ledger);
        (0..number % 7).for_each(|_| writer.start());
    }
    let exports = Exports::new(Arc::new(roster), Arc::new(Vitals::new(Arc::new(|| 0), Arc::default()))).unwrap();
    Face { exports, ..face() }
}

/// The lines that do not change from one scrape to the next.
fn steady(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !line.starts_with("process_")).collect()
}

#[track_caller]
fn assert_whole(face: &Face, text: &str) {
    let whole = String::from_utf8(face.exports.whole(Format::Text).unwrap()).unwrap();
    assert!(whole.len() > 2 * HALF_BYTES);
    assert!(steady(text) == steady(&whole), "the pieces together are not the text");
}

#[test]
fn a_slow_reader_holds_little_and_misses_nothing() {
    let face = many();
    let admin = serve(face.clone(), WIDE);
    let scraped = admin.scraped();
    let mut client = Client::of(&admin);
    client.say("GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    assert_eq!(client.hear_head().unwrap().status, 200);
    let (mut text, mut most_bytes) = (Vec::new(), 0);
    while text.len() < HALF_BYTES {
        text.extend(client.hear_piece().unwrap().unwrap());
        most_bytes = most_bytes.max(admin.held_bytes());
    }
    // The rest is more than the kernel takes, so that this answer can't have left, though much of it has.
    assert_eq!(*scraped.borrow(), None);
    while let Some(piece) = client.hear_piece().unwrap() {
        text.extend(piece);
        most_bytes = most_bytes.max(admin.held_bytes());
    }
    assert!((1..ANSWER_BYTES).contains(&most_bytes), "{most_bytes} bytes held");
    assert_whole(&face, std::str::from_utf8(&text).unwrap());
    eventually("the scrape counts", || scraped.borrow().is_some());
    eventually("the memory is released", || admin.held_bytes() == 0);
    assert_eq!(client.ask("GET", "/-/ready", "").status, 200);
}

#[test]
fn head_and_gzip_are_what_they_are_for_small_ones() {
    let face = many();
    let admin = serve(face.clone(), WIDE);
    let mut client = Client::of(&admin);
    let head = client.ask("HEAD", "/metrics", "");
    // It would be garbled if a body had followed.
    let zipped = client.ask("GET", "/metrics", "Accept-Encoding: gzip\r\n");
    assert_eq!((head.status, head.field("content-type")), (200, zipped.field("content-type")));
    assert_eq!((zipped.status, zipped.field("content-encoding")), (200, "gzip"));
    let mut text = String::new();
    flate2::read::GzDecoder::new(zipped.body.as_slice()).read_to_string(&mut text).unwrap();
    assert_whole(&face, &text);
    eventually("the memory is released", || admin.held_bytes() == 0);
}

#[test]
fn a_head_request_is_no_scrape_and_holds_nothing() {
    let soon = Duration::from_millis(100);
    let admin = serve(many(), Bounds { request: soon, answer: soon, ..WIDE });
    let mut client = Client::of(&admin);
    client.ask("HEAD", "/metrics", "");
    // Connected later and cut already: so the other is idle, and its answer is not taken to be leaving still.
    assert!(Client::of(&admin).was_cut());
    client.ask("GET", "/-/ready", "");
    eventually("the memory is released", || admin.held_bytes() == 0);
    assert_eq!(*admin.scraped().borrow(), None);
}

#[test]
fn a_reader_that_stops_or_leaves_in_the_middle_is_cut_and_forgotten() {
    let admin = serve(many(), Bounds { answer: Duration::from_millis(200), ..WIDE });
    let [mut stopped, left] = [(); 2].map(|()| {
        let mut client = Client::of(&admin);
        client.say("GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
        client.hear_head().unwrap();
        client.hear_piece().unwrap();
        client
    });
    drop(left);
    eventually("the memory is released", || admin.held_bytes() == 0);
    let cut = loop {
        match stopped.hear_piece() {
            Ok(piece) => assert!(piece.is_some(), "a text that was cut off looks whole"),
            Err(error) => break error,
        }
    };
    assert_eq!(cut.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(*admin.scraped().borrow(), None);
}

#[test]
fn a_client_without_chunks_gets_the_text_up_to_the_end_of_the_connection() {
    let face = many();
    let admin = serve(face.clone(), WIDE);
    let mut client = Client::of(&admin);
    client.say("GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let head = client.hear_head().unwrap();
    assert_eq!((head.status, head.field("transfer-encoding")), (200, ""));
    let mut text = String::new();
    client.0.read_to_string(&mut text).unwrap();
    assert_whole(&face, &text);
}
