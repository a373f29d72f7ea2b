//! The status as JSON: who gets it, in which coding, and that it keeps nobody out.

use serde_json::{Value, json};

use super::*;
use crate::status::Query;

fn status_of(heard: &Heard) -> Value {
    assert_eq!((heard.status, heard.field("content-type")), (200, "application/json"), "{}", heard.text());
    serde_json::from_str(heard.text()).unwrap()
}

fn names(status: &Value) -> Vec<&str> {
    status["targets"].as_array().unwrap().iter().map(|target| target["name"].as_str().unwrap()).collect()
}

/// A face over many targets, each with a label of so many bytes.
fn crowded(label_bytes: usize) -> Face {
    let roster = Roster::new(Shape::new(3, &[1.0]), Vec::new());
    for number in 0..2_000 {
        let labels = [("team".to_owned(), "x".repeat(label_bytes))].into();
        roster.describe(&format!("target-{number:04}").into(), TargetInfo { labels, ..TargetInfo::plain() });
    }
    Face { status: Arc::new(Status::new(Arc::new(roster))), ..face() }
}

#[test]
fn a_page_of_targets_is_whole_json_and_says_how_many_there_are() {
    let admin = serve(crowded(1), WIDE);
    let mut client = Client::of(&admin);
    let status = status_of(&client.ask("GET", "/api/v1/status", ""));
    assert_eq!(names(&status).len(), Query::LIMIT);
    assert_eq!((&status["fleet"]["targets"], &status["query"]["matching"]), (&json!(2_000), &json!(2_000)));
    assert_eq!(status["hammerd"]["state"], json!("starting"));
    let status = status_of(&client.ask("GET", "/api/v1/status?search=-19&offset=98&limit=500", ""));
    assert_eq!(names(&status), ["target-1998", "target-1999"]);
    assert_eq!(status["query"]["matching"], json!(100));
    let status = status_of(&client.ask("GET", "/api/v1/status?search=nothing", ""));
    assert_eq!(names(&status), [""; 0]);
}

#[test]
fn head_and_gzip_are_as_for_metrics() {
    let admin = serve(crowded(1), WIDE);
    let mut client = Client::of(&admin);
    let head = client.ask("HEAD", "/api/v1/status", "");
    assert_eq!((head.status, head.field("vary")), (200, "accept-encoding"));
    assert!(head.field("content-length").parse::<usize>().unwrap() > 50_000);
    // It would be garbled if a body had followed.
    let zipped = client.ask("GET", "/api/v1/status", "Accept-Encoding: gzip\r\n");
    assert_eq!((zipped.status, zipped.field("content-encoding")), (200, "gzip"));
    let mut text = String::new();
    flate2::read::GzDecoder::new(zipped.body.as_slice()).read_to_string(&mut text).unwrap();
    assert_eq!(names(&serde_json::from_str(&text).unwrap()).len(), Query::LIMIT);
    let plain = client.ask("GET", "/api/v1/status", "Accept-Encoding: gzip;q=0\r\n");
    assert_eq!(names(&status_of(&plain)).len(), Query::LIMIT);
    assert_eq!(*admin.scraped().borrow(), None, "it is no scrape");
}

#[test]
fn an_answer_that_nobody_reads_is_cut_and_forgotten() {
    // More than the kernel takes.
    let admin = serve(crowded(40_000), Bounds { answer: Duration::from_millis(200), ..WIDE });
    let mut client = Client::of(&admin);
    client.say("GET /api/v1/status?limit=500 HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    client.hear_head().unwrap();
    eventually("the memory is released", || admin.held_bytes() == 0);
    assert_eq!(client.hear().unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(ask(&admin, "GET", "/metrics").status, 200);
}

#[test]
fn a_desk_has_so_many_places() {
    let desk = super::super::status::Desk::default();
    let mut places: Vec<_> = (0..4).map(|_| desk.take().unwrap()).collect();
    assert!(desk.take().is_none());
    places.pop();
    assert!(desk.take().is_some());
}

#[test]
fn of_many_at_once_some_are_answered_and_the_others_told_to_come_again() {
    let admin = serve(crowded(1), WIDE);
    let mut clients: Vec<_> = (0..40).map(|_| Client::of(&admin)).collect();
    for client in &mut clients {
        client.say("GET /api/v1/status?limit=500 HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    }
    let mut answered = 0;
    for client in &mut clients {
        let heard = client.hear().unwrap();
        if heard.status == 503 {
            let told = (heard.field("retry-after"), heard.text());
            assert_eq!(told, ("1", "too many ask for the status at once\n"));
        } else {
            assert_eq!(names(&status_of(&heard)).len(), 500);
            answered += 1;
        }
    }
    assert!(answered > 0, "nobody was answered");
    assert_eq!(ask(&admin, "GET", "/api/v1/status").status, 200, "the places are free again");
}

#[test]
fn what_happened_is_noted_without_being_asked() {
    let face = face();
    let status = Arc::clone(&face.status);
    let admin = serve(face, WIDE);
    eventually("an interval", || {
        let target = status.target("checkout").unwrap();
        target["history"]["seconds"].as_array().is_some_and(|intervals| !intervals.is_empty())
    });
    drop(admin);
}
