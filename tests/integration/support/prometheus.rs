//! Debian's Prometheus, scraping for real.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::process::Process;
use super::{client, free_port, wait_for};

/// The first scrapes of a fresh server can take ten seconds and more.
const STARTING: Duration = Duration::from_secs(60);

/// A running Prometheus with a storage of its own.
pub(crate) struct Prometheus {
    _process: Process,
    _directory: TempDir,
    address: SocketAddr,
}

/// What a Prometheus may have beside its targets.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Options<'a> {
    /// Asks for protobuf, and stores the native histograms in it.
    pub(crate) native_histograms: bool,
    /// Stores exemplars.
    pub(crate) exemplars: bool,
    /// Files of rules, evaluated as often as it scrapes.
    pub(crate) rules: &'a [&'a str],
    /// Scrapes everything as a second job, too, as where a pod is found by itself and by its service.
    pub(crate) twice: bool,
}

/// One element of the answer to an instant query.
pub(crate) type Element = (BTreeMap<String, String>, f64);

impl Prometheus {
    /// Starts it, scraping `/metrics` of these addresses as job `hammerd`, and waits until it is ready.
    pub(crate) fn start(scrape_interval: &str, targets: &[SocketAddr]) -> Self {
        Self::start_with(scrape_interval, targets, Options::default())
    }

    /// The same, with more to it.
    pub(crate) fn start_with(scrape_interval: &str, targets: &[SocketAddr], options: Options<'_>) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let config = directory.path().join("prometheus.yml");
        let targets: Vec<String> = targets.iter().map(|target| format!("'{target}'")).collect();
        let mut text = format!(
            "global: {{ scrape_interval: {scrape_interval}, scrape_timeout: {scrape_interval}, \
             evaluation_interval: {scrape_interval} }}\n\
             rule_files: {:?}\n\
             scrape_configs:\n",
            options.rules,
        );
        for job in if options.twice { &["hammerd", "again"][..] } else { &["hammerd"] } {
            let targets = targets.join(", ");
            let _ = writeln!(text, "- job_name: {job}\n  static_configs: [{{ targets: [{targets}] }}]");
        }
        std::fs::write(&config, text).expect("prometheus.yml");
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()));
        command.arg(format!("--web.listen-address={address}")).arg("--log.level=warn");
        for (feature, wanted) in
            [("native-histograms", options.native_histograms), ("exemplar-storage", options.exemplars)]
        {
            if wanted {
                command.arg(format!("--enable-feature={feature}"));
            }
        }
        let mut process = Process::serve("prometheus", &mut command);
        wait_for("readiness of Prometheus", STARTING, || match client::get(address, "/-/ready") {
            Ok(response) if response.status == 200 => Ok(()),
            _ => Err(process.check_alive()),
        });
        Self { _process: process, _directory: directory, address }
    }

    /// The answer to an instant query that yields a vector.
    #[track_caller]
    pub(crate) fn query(&self, expression: &str) -> Vec<Element> {
        let answer = self.get("/api/v1/query", &[("query", expression)]);
        let elements = answer["result"].as_array().expect("a vector");
        elements.iter().map(|element| read(element).unwrap_or_else(|| panic!("{expression}: {element}"))).collect()
    }

    /// The trace ids of all exemplars that it has for series that a selector matches.
    #[track_caller]
    pub(crate) fn trace_ids(&self, selector: &str) -> Vec<String> {
        let always = [("query", selector), ("start", "0"), ("end", "9999999999")];
        let answer = self.get("/api/v1/query_exemplars", &always);
        let series = answer.as_array().expect("a list of series").iter();
        let exemplars = series.flat_map(|series| series["exemplars"].as_array().expect("exemplars"));
        exemplars.map(|exemplar| exemplar["labels"]["trace_id"].as_str().expect("a trace id").to_owned()).collect()
    }

    /// The data of an answer of its API.
    #[track_caller]
    pub(crate) fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let parameters: Vec<String> =
            parameters.iter().map(|(name, value)| format!("{name}={}", percent_encoded(value))).collect();
        let path = format!("{path}?{}", parameters.join("&"));
        let response = client::get(self.address, &path).expect("an answer of Prometheus");
        assert_eq!(response.status, 200, "{parameters:?}: {response:?}");
        let mut answer: Value = serde_json::from_slice(&response.body).expect("JSON");
        answer["data"].take()
    }

    /// Asks until the answer satisfies the condition.
    pub(crate) fn query_until(&self, expression: &str, condition: impl Fn(&[Element]) -> bool) -> Vec<Element> {
        wait_for(&format!("fitting answer to {expression}"), STARTING, || {
            let answer = self.query(expression);
            if condition(&answer) { Ok(answer) } else { Err(format!("{answer:?}")) }
        })
    }
}

fn read(element: &Value) -> Option<Element> {
    let labels = element["metric"].as_object()?.iter();
    let labels = labels.map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect::<Option<_>>()?;
    Some((labels, element["value"].get(1)?.as_str()?.parse().ok()?))
}

fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

/// What `promtool check metrics` has to say against an exposition; empty when it is content.
pub(crate) fn promtool_complaints(exposition: &str) -> String {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool from the package prometheus");
    let mut input = promtool.stdin.take().expect("stdin");
    input.write_all(exposition.as_bytes()).expect("the exposition");
    drop(input);
    let output = promtool.wait_with_output().expect("the end of promtool");
    let mut complaints = String::from_utf8_lossy(&output.stdout).into_owned();
    complaints.push_str(&String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() || !complaints.is_empty(), "promtool: {}", output.status);
    complaints
}
