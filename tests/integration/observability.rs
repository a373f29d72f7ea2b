//! Dashboards and rules against a real Prometheus that scrapes a real daemon: every query has data in the state that its
//! panel is for.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::support::certificates::Authority;
use crate::support::dead::closed_port;
use crate::support::grafana::{Choice, Dashboard, Panel, folder, list, names, text};
use crate::support::nginx::Nginx;
use crate::support::prometheus::{Options, Prometheus};
use crate::support::{Daemon, Origin, PATIENCE, Reply, Scrape, target, wait_for};

/// What the daemon does at once: each target is in a state of its own.
const TARGETS: [&str; 6] = ["failing", "healthy", "overloaded", "refused", "seldom", "unchecked"];
/// The one that has everything that a target can have, TLS and a name among it.
const WHOLE: &str = "healthy";
const OVER_TLS: [&str; 2] = [WHOLE, "unchecked"];

/// Panels whose healthy value is 0 and whose other state can't be had beside the rest, each with what that state is.
const ZERO: [(&str, &str); 7] = [
    ("Configuration", "it is refused, which is the 0"),
    ("Configuration sources", "a configuration that is fetched"),
    ("Source not heard for", "a configuration that is fetched"),
    ("Cut off", "only a drain that runs out of time cuts off, and ends the daemon"),
    ("Log lines lost", "a log pipe that is full"),
    ("Membership", "a list of members that is read"),
    ("Clock against grid", "a wall clock that was set"),
];

/// A daemon in every state at once, seen by a Prometheus that stores classic histograms and by one that stores native
/// ones, each asked as of the instant at which it had seen all of it.
struct World {
    daemon: Daemon,
    classic: Seen,
    native: Seen,
    _servers: (Nginx, Origin, tempfile::TempDir),
}

struct Seen {
    prometheus: Prometheus,
    at: String,
}

/// The elements of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Found {
    elements: usize,
    numbers: usize,
    above_zero: usize,
}

// === impl World ===

impl World {
    fn start() -> Self {
        let authority = Authority::new("authority");
        let nginx = Nginx::builder().certificate(authority.server(&["localhost"])).start();
        let silent = Origin::start(|_| Reply::silence());
        let files = tempfile::tempdir().expect("a temporary directory");
        let ca_file = files.path().join("ca.pem");
        std::fs::write(&ca_file, authority.pem()).expect("a file");

        let over_tls = format!("https://localhost:{}/", nginx.https2_address().port());
        let trust = format!("tls.ca_file = \"{}\"\npool.max_requests = 5", ca_file.display());
        let lasting = [
            target("failing", &nginx.url("/500"), "20/s", ""),
            target("healthy", &over_tls, "50/s", &trust),
            target("overloaded", &silent.url("/"), "40/s", "max_in_flight = 2\ntimeout = \"300ms\""),
            target("refused", &format!("http://{}/", closed_port()), "5/s", ""),
            target("seldom", &nginx.url("/"), "1/h", ""),
            target("unchecked", &over_tls, "5/s", "tls.insecure_skip_verify = true"),
            "[shard]\nindex = 1\ncount = 2\n".to_owned(),
        ]
        .concat();
        let daemon = Daemon::start(&(lasting.clone() + &target("leaving", &nginx.url("/"), "20/s", "")));
        let rules = ["hammerd-recording.yaml", "hammerd-alerts.yaml"].map(|file| folder().join("rules").join(file));
        let rules = rules.each_ref().map(|path| path.to_str().expect("a path in UTF-8"));
        let watch = |native_histograms| {
            Prometheus::start_with(
                "1s",
                &[daemon.address()],
                Options { native_histograms, rules: &rules, ..Options::default() },
            )
        };
        let both = [false, true].map(watch);
        for prometheus in &both {
            prometheus.query_until("count_over_time(hammerd_build_info[1m]) >= 2", |answer| !answer.is_empty());
        }
        assert!(daemon.reload_with(&lasting), "a good configuration");
        assert!(!daemon.reload_with("nonsense"), "a bad one");
        let [classic, native] = Seen::all_of_it(both);
        Self { daemon, classic, native, _servers: (nginx, silent, files) }
    }
}

// === impl Seen ===

impl Seen {
    /// Waits until each has seen both reloads, what they removed, and every rule.
    fn all_of_it(both: [Prometheus; 2]) -> [Self; 2] {
        let seen = "count(increase(hammerd_config_reloads_total[15s]) > 0) == 2 \
                    and count(increase(hammerd_retired_requests_total[15s]) > 0) \
                    and count(rate(hammerd_requests_total{target=\"refused\"}[15s]) > 0) \
                    and count(job_target:hammerd_request_failures:ratio_rate3d) \
                    and count(job_target:hammerd_requests_slow:ratio_rate3d) \
                    and count(ALERTS{alertname=\"HammerdCertificateUnchecked\", alertstate=\"firing\"})";
        let mut times = [None; 2];
        wait_for("sight of everything in both", 3 * PATIENCE, || {
            for (prometheus, time) in both.iter().zip(&mut times) {
                if time.is_none() && !prometheus.query(seen).is_empty() {
                    *time = SystemTime::now().duration_since(UNIX_EPOCH).ok();
                }
            }
            if times.iter().all(Option::is_some) { Ok(()) } else { Err(format!("{times:?}")) }
        });
        let mut times = times.into_iter().flatten();
        both.map(|prometheus| Self { prometheus, at: format!("{:.3}", times.next().expect("a time").as_secs_f64()) })
    }

    /// Asks for an instant vector, and tells what it has.
    #[track_caller]
    fn ask(&self, expression: &str) -> Found {
        let (elements, values) = self.values(expression);
        let above_zero = values.iter().filter(|&&value| value > 0.0).count();
        Found { elements, numbers: values.len(), above_zero }
    }

    /// How many elements an instant vector has, and those that are numbers.
    #[track_caller]
    fn values(&self, expression: &str) -> (usize, Vec<f64>) {
        let answer = self.prometheus.get("/api/v1/query", &[("query", expression), ("time", &self.at)]);
        let elements = list(&answer["result"]);
        // A native histogram counts as its number of observations.
        let value = |element: &Value| match element.get("value") {
            Some(value) => text(&value[1]).parse().unwrap_or(f64::NAN),
            None => text(&element["histogram"][1]["count"]).parse().unwrap_or(f64::NAN),
        };
        (elements.len(), elements.iter().map(value).filter(|value| !value.is_nan()).collect())
    }
}

#[test]
fn everything_on_the_dashboards_has_data_in_the_state_that_it_is_for() {
    let world = World::start();
    let [classic, native] = Dashboard::all();
    let scrape = world.daemon.scrape();
    panels_have_data(&classic, &world.classic, &world);
    panels_have_data(&native, &world.native, &world);
    rules_have_data(&world.classic);
    rules_have_data(&world.native);
    for (dashboard, seen) in [(&classic, &world.classic), (&native, &world.native)] {
        what_is_asked_seldom_is_not_behind(dashboard, seen);
        variables_have_choices(dashboard, &world);
        annotations_have_data(dashboard, &world);
    }
    names_are_those_of_the_export([&classic, &native], &scrape);
}

/// For all targets, for each alone, and for the one instance and job by name.
fn panels_have_data(dashboard: &Dashboard, seen: &Seen, world: &World) {
    let one = |target: &str| Choice {
        job: "hammerd".to_owned(),
        instance: world.daemon.address().to_string(),
        target: target.to_owned(),
    };
    for panel in dashboard.panels() {
        for expression in panel.expressions() {
            let at = format!("{}: {}: {expression}", dashboard.file, panel.title());
            let all = seen.ask(&Choice::all().fill(expression));
            let is_zero = ZERO.iter().any(|(title, _)| *title == panel.title());
            assert!(if is_zero { all.numbers > 0 } else { all.above_zero > 0 }, "{at}: {all:?}");
            for target in TARGETS {
                let found = seen.ask(&one(target).fill(expression));
                let only_over_tls = expression.contains("hammerd_tls_");
                let is_empty = only_over_tls && !OVER_TLS.contains(&target);
                assert_eq!(found.elements == 0, is_empty, "{at}: of {target}: {found:?}");
                assert!(target != WHOLE || found.numbers > 0, "{at}: of {target}: {found:?}");
            }
        }
    }
}

/// A target without an arrival in the last minute lacks nothing.
fn what_is_asked_seldom_is_not_behind(dashboard: &Dashboard, seen: &Seen) {
    let seldom = Choice { target: "seldom".to_owned(), ..Choice::all() };
    for (title, least, most) in [("Sent of asked", 0.95, 1.05), ("Behind the asked rate", 0.0, 0.05)] {
        let panel = dashboard.panels().into_iter().find(|panel| panel.title() == title).expect("the panel");
        for expression in panel.expressions() {
            let (_, values) = seen.values(&seldom.fill(expression));
            assert!(
                values.iter().all(|value| (least..=most).contains(value)),
                "{}: {title}: {values:?}",
                dashboard.file
            );
        }
    }
}

/// What `label_values(metric{..}, label)` offers.
fn variables_have_choices(dashboard: &Dashboard, world: &World) {
    let instance = world.daemon.address().to_string();
    let expected: [(&str, &[&str]); 3] =
        [("job", &["hammerd"]), ("instance", &[instance.as_str()]), ("target", &TARGETS)];
    for (name, values) in expected {
        let query = Choice::all().fill(text(&dashboard.variable(name)["query"]["query"]));
        let inside = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
        let (series, label) = inside.and_then(|inside| inside.rsplit_once(", ")).expect("a series and a label");
        for seen in [&world.classic, &world.native] {
            // Only what is there now: the target that left is a choice for as long as the time range shows it.
            let parameters = [("match[]", series), ("start", seen.at.as_str()), ("end", seen.at.as_str())];
            let found = seen.prometheus.get(&format!("/api/v1/label/{label}/values"), &parameters);
            let found: BTreeSet<&str> = list(&found).iter().map(text).collect();
            let missing: Vec<_> = values.iter().filter(|value| !found.contains(*value)).collect();
            assert_eq!(missing, [] as [&&str; 0], "{}: {name}: {found:?}", dashboard.file);
        }
    }
}

/// Marks are where a value is above 0.
fn annotations_have_data(dashboard: &Dashboard, world: &World) {
    for annotation in dashboard.annotations() {
        let found = world.classic.ask(&Choice::all().fill(text(&annotation["expr"])));
        assert!(found.above_zero > 0, "{}: {}: {found:?}", dashboard.file, annotation["name"]);
    }
}

/// Every rule is evaluated without an error, and every recorded one yields numbers.
fn rules_have_data(seen: &Seen) {
    let rules = seen.prometheus.get("/api/v1/rules", &[]);
    let rules: Vec<&Value> = list(&rules["groups"]).iter().flat_map(|group| list(&group["rules"])).collect();
    assert!(rules.len() >= 25, "{} rules", rules.len());
    for rule in rules {
        assert_eq!(rule["health"], "ok", "{rule}");
        if rule["type"] == "recording" {
            let found = seen.ask(text(&rule["name"]));
            assert!(found.numbers > 0, "{}: {found:?}", rule["name"]);
        }
    }
}

/// Nothing that a panel or a rule names is missing in the export, and nothing in the export is shown nowhere.
fn names_are_those_of_the_export(dashboards: [&Dashboard; 2], scrape: &Scrape) {
    let rules = ["hammerd-recording.yaml", "hammerd-alerts.yaml"]
        .map(|file| std::fs::read_to_string(folder().join("rules").join(file)).expect("rules"));
    let is_comment = |line: &&str| line.trim().starts_with('#');
    let rules: Vec<&str> = rules.iter().flat_map(|text| text.lines()).filter(|line| !is_comment(line)).collect();
    let recorded: BTreeSet<&str> = rules.iter().filter_map(|line| line.trim().strip_prefix("- record: ")).collect();
    let panels = dashboards.into_iter().flat_map(Dashboard::panels).flat_map(Panel::expressions);
    let used: BTreeSet<&str> = panels.chain(rules).flat_map(names).collect();
    let exported: BTreeSet<&str> = scrape.family_names().collect();
    let family = |name: &str| {
        let parts = ["_bucket", "_sum", "_count"];
        let base = parts.iter().find_map(|part| name.strip_suffix(part)).filter(|base| exported.contains(base));
        base.map_or_else(|| name.to_owned(), str::to_owned)
    };
    let used: BTreeSet<String> = used.into_iter().filter(|name| !recorded.contains(name)).map(family).collect();
    let exported: BTreeSet<String> = exported.iter().map(|&name| name.to_owned()).collect();
    assert_eq!(used, exported, "names that panels and rules use, and names that the daemon exports");
}
