//! The recording rules and alerts by themselves: `promtool` judges them, and every alert says what to do. What they make of
//! a real daemon is in `observability.rs`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use yaml_rust2::{Yaml, YamlLoader};

use crate::support::grafana::folder;

/// Files of YAML directly in a folder.
fn yaml_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    assert!(!files.is_empty(), "nothing in {}", folder.display());
    files
}

fn read(path: &Path) -> Yaml {
    let text = std::fs::read_to_string(path).expect("a file");
    let documents = YamlLoader::load_from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    documents.into_iter().next().expect("a document")
}

#[track_caller]
fn promtool(arguments: [&str; 2], files: &[PathBuf]) {
    let output = Command::new("promtool").args(arguments).args(files).output().expect("promtool, of prometheus");
    let says = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&says));
}

#[test]
fn promtool_finds_the_rules_valid() {
    promtool(["check", "rules"], &yaml_files(&folder().join("rules")));
}

/// For each alert a case in which it fires, with its words, and one in which it doesn't.
#[test]
fn the_alerts_fire_when_they_should_and_only_then() {
    let tests = yaml_files(&folder().join("rules/tests"));
    promtool(["test", "rules"], &tests);
    let cases: Vec<Yaml> = tests.iter().flat_map(|path| items(&read(path)["tests"])).collect();
    let of_alerts: Vec<Yaml> = cases.iter().flat_map(|case| items(&case["alert_rule_test"])).collect();
    for alert in alerts() {
        let name = &alert["alert"];
        let firing =
            of_alerts.iter().filter(|case| case["alertname"] == *name && !items(&case["exp_alerts"]).is_empty());
        assert!(firing.count() > 0, "{name:?} has no case in which it fires");
        let silent = of_alerts.iter().any(|case| case["alertname"] == *name && items(&case["exp_alerts"]).is_empty());
        assert!(silent, "{name:?} has no case in which it does not fire");
    }
}

#[test]
fn every_alert_says_how_bad_what_and_what_to_do() {
    let runbooks = std::fs::read_to_string(folder().join("../docs/runbooks.md")).expect("the runbooks");
    let headings: BTreeSet<&str> = runbooks.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let mut names = BTreeSet::new();
    for alert in alerts() {
        let name = alert["alert"].as_str().expect("a name").to_owned();
        let severity = alert["labels"]["severity"].as_str().expect("a severity");
        assert!(["critical", "warning", "info"].contains(&severity), "{name}: {severity}");
        for annotation in ["summary", "description"] {
            assert!(
                alert["annotations"][annotation].as_str().is_some_and(|text| !text.is_empty()),
                "{name}: {annotation}"
            );
        }
        let runbook = format!("docs/runbooks.md#{}", name.to_lowercase());
        assert_eq!(alert["annotations"]["runbook"].as_str(), Some(runbook.as_str()), "{name}");
        names.insert(name);
    }
    let names: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(names, headings, "alerts, and headings of docs/runbooks.md");
}

#[test]
fn what_grafana_is_provisioned_with_is_there() {
    let provisioning = folder().join("provisioning");
    let source = &read(&provisioning.join("datasources/hammerd.yaml"))["datasources"][0];
    assert_eq!(source["type"].as_str(), Some("prometheus"));
    let provider = &read(&provisioning.join("dashboards/hammerd.yaml"))["providers"][0];
    assert_eq!(provider["type"].as_str(), Some("file"));
    let path = provider["options"]["path"].as_str().expect("a path");
    let readme = std::fs::read_to_string(folder().join("README.md")).expect("README.md");
    assert!(readme.contains(&format!("/dashboards:{path}:ro")), "README.md mounts another folder than {path}");
}

/// All alerts of all files.
fn alerts() -> Vec<Yaml> {
    let files = yaml_files(&folder().join("rules"));
    let groups = files.iter().flat_map(|path| items(&read(path)["groups"]));
    let rules = groups.flat_map(|group| items(&group["rules"]));
    rules.filter(|rule| !rule["alert"].is_badvalue()).collect()
}

fn items(list: &Yaml) -> Vec<Yaml> {
    list.as_vec().cloned().unwrap_or_default()
}
