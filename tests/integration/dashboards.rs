//! The dashboards by themselves: their source, their form, what the first screen answers, and the rules of Grafana's own
//! linter (grafana/dashboard-linter), rewritten here because it can't be had from a package. What they show of a real
//! daemon is in `observability.rs`.

use std::collections::{BTreeSet, HashSet};
use std::process::Command;

use crate::support::grafana::{Dashboard, Panel, folder, list, names, selectors, text};

/// Units of Grafana that fit what is shown here; it takes any text without a word, and then shows it as the unit.
const UNITS: [&str; 9] = ["none", "short", "percentunit", "bool_yes_no", "s", "bytes", "Bps", "reqps", "cps"];

#[test]
fn the_dashboards_are_what_their_source_makes() {
    let output = Command::new("python3").arg(folder().join("generate.py")).arg("--check").output().expect("python3");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Of the linter: uneditable-dashboard, template-datasource, template-job, template-instance, template-label-promql,
/// template-on-time-change-reload.
#[test]
fn variables_choose_the_datasource_the_job_the_instance_and_the_target() {
    for dashboard in Dashboard::all() {
        let file = dashboard.file;
        assert_eq!(dashboard.json["editable"], false, "{file}: provisioned dashboards can't be saved");
        assert!(!text(&dashboard.json["uid"]).is_empty() && dashboard.json["id"].is_null(), "{file}: links need a uid");
        let datasource = dashboard.variable("datasource");
        let fields = ["type", "label", "query"].map(|field| text(&datasource[field]));
        assert_eq!(fields, ["datasource", "Data source", "prometheus"], "{file}");
        for (name, label) in [("job", "Job"), ("instance", "Instance"), ("target", "Target")] {
            let variable = dashboard.variable(name);
            assert_eq!(variable["datasource"]["uid"], "${datasource}", "{file}: {name}");
            assert_eq!([text(&variable["type"]), text(&variable["label"])], ["query", label], "{file}");
            assert_eq!([&variable["multi"], &variable["includeAll"]], [true, true], "{file}: {name}");
            assert_eq!(variable["allValue"], ".+", "{file}: {name}");
            assert_eq!(variable["refresh"], 2, "{file}: {name} follows the time range");
            let query = text(&variable["query"]["query"]);
            assert!(query.starts_with("label_values(hammerd_") && query.ends_with(&format!(", {name})")), "{query}");
        }
    }
    let [classic, native] = Dashboard::all();
    assert_ne!(classic.json["uid"], native.json["uid"]);
}

/// Of the linter: panel-datasource, panel-title-description, panel-units, panel-no-targets.
#[test]
fn panels_have_a_title_a_description_a_unit_and_queries_of_the_chosen_datasource() {
    for dashboard in Dashboard::all() {
        let mut titles = HashSet::new();
        for panel in dashboard.panels() {
            let at = format!("{}: {}", dashboard.file, panel.title());
            assert!(titles.insert(panel.title()), "{at}: a title twice");
            for field in ["title", "description"] {
                assert!(!text(&panel.0[field]).is_empty(), "{at}: no {field}");
            }
            for unit in units(panel) {
                assert!(UNITS.contains(&unit), "{at}: unit {unit:?}");
            }
            assert!(!panel.targets().is_empty(), "{at}: no queries");
            let mut letters = HashSet::new();
            for target in panel.targets() {
                assert!(letters.insert(text(&target["refId"])), "{at}: a refId twice");
                assert!(!text(&target["legendFormat"]).is_empty(), "{at}: no legend");
            }
            for datasource in panel.targets().iter().chain([panel.0]).map(|part| &part["datasource"]) {
                assert_eq!(
                    [text(&datasource["type"]), text(&datasource["uid"])],
                    ["prometheus", "${datasource}"],
                    "{at}"
                );
            }
        }
        for annotation in dashboard.annotations() {
            assert_eq!(annotation["datasource"]["uid"], "${datasource}", "{}: {annotation}", dashboard.file);
        }
    }
}

/// The panel's unit and those of single columns.
fn units(panel: Panel<'_>) -> impl Iterator<Item = &str> {
    let config = &panel.0["fieldConfig"];
    let properties = list(&config["overrides"]).iter().flat_map(|each| list(&each["properties"]));
    let of_columns = properties.filter(|property| property["id"] == "unit").map(|property| text(&property["value"]));
    of_columns.chain([text(&config["defaults"]["unit"])])
}

/// Of the linter: target-job, target-instance, target-rate-interval, target-counter-agg; that they are valid at all a real
/// Prometheus says in `observability.rs`.
#[test]
fn queries_name_job_and_instance_and_take_rates_over_grafanas_interval() {
    for dashboard in Dashboard::all() {
        for panel in dashboard.panels() {
            for expression in panel.expressions() {
                let at = format!("{}: {}: {expression}", dashboard.file, panel.title());
                assert_eq!(
                    names(expression).count(),
                    selectors_of_hammerd(expression),
                    "{at}: a name without matchers"
                );
                for (_, matchers) in selectors(expression) {
                    for matcher in ["job=~\"$job\"", "instance=~\"$instance\""] {
                        assert!(matchers.split(", ").any(|each| each == matcher), "{at}: no {matcher}");
                    }
                }
                for (before, window) in windows(expression) {
                    let is_rate = before.ends_with("rate");
                    assert!(!is_rate || window == "$__rate_interval", "{at}: rate over {window}");
                    assert!(["$__rate_interval", "$__range"].contains(&window), "{at}: {window}");
                }
                let counters = expression.match_indices("_total{").count();
                let grown: usize = ["rate(", "increase("].map(|call| calls_of_counters(expression, call)).iter().sum();
                assert_eq!(counters, grown, "{at}: a counter as it is");
            }
        }
    }
}

fn selectors_of_hammerd(expression: &str) -> usize {
    selectors(expression).iter().filter(|(name, _)| names(name).next().is_some()).count()
}

/// The function and the window of each range.
fn windows(expression: &str) -> impl Iterator<Item = (&str, &str)> {
    expression.match_indices('[').map(|(at, _)| {
        let (before, window) = (&expression[..at], &expression[at + 1..]);
        let call = before.rfind('(').expect("a range outside of a function");
        (&before[..call], &window[..window.find(']').expect("an end of the window")])
    })
}

/// How many counters stand right in calls of this function.
fn calls_of_counters(expression: &str, call: &str) -> usize {
    let inside = expression.split(call).skip(1);
    inside.filter(|inside| inside.split('{').next().is_some_and(|name| name.ends_with("_total"))).count()
}

/// Panels of a closed row are laid out below it once it is open; each such set has a screen of its own.
#[test]
fn nothing_overlaps_and_nothing_leaves_the_grid() {
    for dashboard in Dashboard::all() {
        let mut ids = BTreeSet::new();
        for panel in dashboard.everything() {
            assert!(ids.insert(panel["id"].as_u64()), "{}: an id twice: {}", dashboard.file, panel["title"]);
        }
        let outer = list(&dashboard.json["panels"]);
        for set in outer.iter().map(|panel| list(&panel["panels"])).chain([outer]) {
            for (n, panel) in set.iter().enumerate() {
                let place = Panel(panel).place();
                assert!(place.w > 0 && place.h > 0 && place.x + place.w <= 24, "{}: {place:?}", panel["title"]);
                for other in &set[..n] {
                    let overlap = place.overlaps(Panel(other).place());
                    assert!(!overlap, "{}: {} over {}", dashboard.file, panel["title"], other["title"]);
                }
            }
        }
    }
}

/// Steady traffic, a good target, a fine hammerd, changes: on the first 20 lines of the grid, a screen of 1080 pixels.
#[test]
fn the_first_screen_answers_without_a_click() {
    const LINES: u64 = 20;
    let questions = [
        "hammerd_target_requests_per_second",
        "hammerd_requests_scheduled_total",
        "hammerd_requests_started_total",
        "hammerd_requests_total",
        "hammerd_request_failures_total",
        "hammerd_request_latency_seconds",
        "hammerd_schedule_lag_seconds",
        "hammerd_requests_dropped_total",
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_open_fds",
    ];
    for dashboard in Dashboard::all() {
        let panels = dashboard.panels();
        let outer = list(&dashboard.json["panels"]).iter().filter(|panel| panel["type"] != "row").map(Panel);
        let first: Vec<_> = outer.filter(|panel| panel.place().y + panel.place().h <= LINES).collect();
        let shown: HashSet<_> = first.iter().copied().flat_map(Panel::expressions).flat_map(names).collect();
        for question in questions {
            let found = shown.iter().any(|name| name.trim_end_matches("_bucket") == question);
            assert!(found, "{}: {question} takes a click", dashboard.file);
        }
        let heat = first.iter().find(|panel| panel.0["type"] == "heatmap");
        assert!(heat.is_some_and(|heat| heat.title() == "Latency heatmap"), "{}", dashboard.file);
        let changes = dashboard.annotations().iter().map(|annotation| text(&annotation["expr"]));
        assert!(
            changes.flat_map(names).any(|name| name.starts_with("hammerd_config_last_reload_")),
            "{}",
            dashboard.file
        );
        assert!(panels.len() > first.len());
    }
}

/// A click on a target or an instance leads to the same dashboard, with all else kept.
#[test]
fn links_lead_to_a_single_target() {
    for dashboard in Dashboard::all() {
        let uid = text(&dashboard.json["uid"]);
        let mut linked = 0;
        for panel in dashboard.panels() {
            let config = &panel.0["fieldConfig"];
            let of_columns = list(&config["overrides"]).iter().flat_map(|each| list(&each["properties"]));
            let of_columns = of_columns.filter(|each| each["id"] == "links").flat_map(|each| list(&each["value"]));
            for link in list(&config["defaults"]["links"]).iter().chain(of_columns) {
                let url = text(&link["url"]);
                assert!(url.starts_with(&format!("/d/{uid}?${{datasource:queryparam}}&")), "{}: {url}", panel.title());
                assert!(url.ends_with("&${__url_time_range}"), "{}: {url}", panel.title());
                let to_target = url.contains("&var-target=${__") && url.contains("&${instance:queryparam}&");
                let to_instance = url.contains("&var-instance=${__") && url.contains("&${target:queryparam}&");
                assert!(to_target || to_instance, "{}: {url}", panel.title());
                linked += 1;
            }
            let by_target = panel.expressions().any(|expression| expression.starts_with("sum by (target"));
            let has_link = !list(&config["defaults"]["links"]).is_empty() || panel.0["type"] == "table";
            assert!(!by_target || has_link, "{}: lines of targets without a link", panel.title());
        }
        assert!(linked >= 8, "{}: {linked} links", dashboard.file);
    }
}
