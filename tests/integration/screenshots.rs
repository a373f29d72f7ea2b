//! The pictures of the status page in `docs/screenshots`. No test: `tests/screenshots` runs it when the page has changed.

use std::fs;
use std::path::Path;
use std::time::Duration;

use hammerd::demo;
use serde_json::Value;

use crate::support::browser::Browser;
use crate::support::dead::{Blackhole, closed_port};
use crate::support::{Daemon, PATIENCE, let_pass, target, wait_for};

/// How many intervals of the strips are waited for; all of them when nobody says.
const INTERVALS: &str = "HAMMERD_SCREENSHOT_INTERVALS";

/// Targets as one might have them.
fn healthy(origin: &demo::Origin) -> String {
    let at = |path: &str| format!("http://{}{path}", origin.addr());
    let labels = |team: &str| format!("labels = {{ team = \"{team}\" }}");
    [
        target("checkout", &at("/slow"), "50/s", &labels("pay")),
        target("search", &at("/fast"), "120/s", &labels("find")),
        target("login", &at("/slow"), "20/s", &labels("identity")),
        target("cart", &at("/fast"), "33/s", &labels("pay")),
        target("recommendations", &at("/slow"), "8/s", &labels("find")),
        target("nightly-report", &at("/slow"), "3/min", &labels("office")),
    ]
    .concat()
}

fn failing(origin: &demo::Origin, hole: &Blackhole) -> String {
    let at = |address: std::net::SocketAddr, path: &str| format!("http://{address}{path}");
    [
        healthy(origin),
        target("payments", &at(origin.addr(), "/flaky"), "25/s", "labels = { team = \"pay\", tier = \"1\" }"),
        target("legacy-soap", &at(closed_port(), "/"), "10/s", "labels = { team = \"office\" }"),
        target("exports", &at(hole.address(), "/"), "40/s", "timeout = \"2s\"\nmax_in_flight = 60"),
        target("not-yet", &at(origin.addr(), "/fast"), "1/h", ""),
    ]
    .concat()
}

fn thousand(origin: &demo::Origin) -> String {
    const SERVICES: [&str; 6] = ["checkout", "search", "login", "cart", "feed", "stock"];
    const REGIONS: [&str; 3] = ["ap", "eu", "us"];
    let dead = closed_port();
    let one = |number: usize| {
        let (service, region) = (SERVICES[number % SERVICES.len()], REGIONS[number % REGIONS.len()]);
        let address = if number % 97 == 13 { dead } else { origin.addr() };
        let path = if number.is_multiple_of(3) { "/slow" } else { "/fast" };
        let labels = format!("labels = {{ region = \"{region}\" }}");
        target(&format!("{service}-{region}-{number:04}"), &format!("http://{address}{path}"), "1/2s", &labels)
    };
    (0..1_000).map(one).collect()
}

/// Waits until so much has been noted.
fn settle(daemon: &Daemon, intervals: usize) {
    let_pass(Duration::from_secs(5 * (intervals as u64).saturating_sub(1)));
    wait_for("full strips", PATIENCE, || {
        let status: Value = serde_json::from_str(daemon.get("/api/v1/status?limit=1").text()).expect("JSON");
        let noted = status["hammerd"]["history"]["seconds"].as_array().map_or(0, Vec::len);
        if noted >= intervals { Ok(()) } else { Err(format!("{noted} intervals")) }
    });
}

#[test]
#[ignore = "makes pictures, and takes minutes"]
fn screenshots() {
    let intervals = std::env::var(INTERVALS).ok().and_then(|intervals| intervals.parse().ok()).unwrap_or(60);
    let origins = [(); 3].map(|()| demo::Origin::start().expect("an origin"));
    let hole = Blackhole::start();
    let configs = [healthy(&origins[0]), failing(&origins[1], &hole), thousand(&origins[2])];
    let daemons = configs.each_ref().map(|config| Daemon::start(config));
    settle(&daemons[2], intervals);
    assert!(!daemons[1].reload_with(&configs[1].replace("25/s", "25/fortnight")));

    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/screenshots");
    fs::create_dir_all(&directory).expect("a directory");
    let (desk, phone) = ((1440, 620), (390, 844));
    let opened = "document.querySelector('tr[data-name=payments] button').click()";
    for (name, daemon, size, scheme, first) in [
        ("healthy", &daemons[0], desk, "light", ""),
        ("failing", &daemons[1], (1440, 900), "light", opened),
        ("dark", &daemons[1], (1440, 760), "dark", ""),
        ("thousand", &daemons[2], (1440, 900), "light", ""),
        ("phone", &daemons[1], phone, "light", "document.getElementById('targets').scrollIntoView()"),
    ] {
        let mut browser = Browser::open(&format!("http://{}/", daemon.address()), size);
        browser.prefer(scheme);
        browser.resize(size, size == phone);
        browser.navigate(&format!("http://{}/", daemon.address()));
        browser.wait("the targets", "document.querySelectorAll('tr[data-name]').length > 0");
        browser.evaluate(&format!("{first}; new Promise((done) => setTimeout(done, 300))"));
        fs::write(directory.join(format!("{name}.png")), browser.screenshot()).expect("a picture");
        assert_eq!(browser.complaints(), [""; 0]);
    }
}
