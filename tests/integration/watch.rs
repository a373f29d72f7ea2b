//! `[config] watch`: whatever way a file changes, it is one reload; and a bad one changes nothing.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;

use crate::support::{Daemon, Origin, PATIENCE, Reply, Scrape, let_pass, target, wait_until};

const WATCH: &str = "[config]\nwatch = true\n";

/// Reloads so far: those that were applied, those that were refused.
fn reloads(scrape: &Scrape) -> (f64, f64) {
    let count = |result| scrape.value("hammerd_config_reloads_total", &[("result", result)]);
    (count("success"), count("failure"))
}

fn asked_rate(scrape: &Scrape) -> f64 {
    scrape.value("hammerd_target_requests_per_second", &[("target", "a")])
}

/// Waits for so many reloads, applied and refused, and for this rate.
#[track_caller]
fn wait_reloads(daemon: &Daemon, wanted: (f64, f64), rate: f64) {
    let scrape = daemon.scrape_when(&format!("{wanted:?} reloads"), |scrape| reloads(scrape) == wanted);
    assert_eq!(asked_rate(&scrape), rate);
}

/// Long enough for several looks at the files without a word from the kernel.
const LOOKS: Duration = Duration::from_secs(11);

/// Puts a whole file in its place at once.
fn write(path: impl AsRef<Path>, text: &str) {
    let next = path.as_ref().with_extension("next");
    std::fs::write(&next, text).expect("a file");
    std::fs::rename(next, path).expect("a file");
}

#[test]
fn a_file_that_changes_is_one_reload_and_a_bad_one_is_refused_once() {
    let origin = Origin::start(|_| Reply::ok(""));
    let config = |rate: &str| format!("{WATCH}{}", target("a", &origin.url("/"), rate, ""));
    let daemon = Daemon::start(&config("20/s"));
    let file = daemon.path("hammerd.toml");
    // As an editor does: a new file in the place of the old one.
    daemon.write_config(&config("30/s"));
    wait_reloads(&daemon, (1.0, 0.0), 30.0);
    // In place.
    std::fs::write(&file, config("40/s")).expect("a file");
    wait_reloads(&daemon, (2.0, 0.0), 40.0);
    // In several steps, of which only the last is looked at.
    daemon.signal(Signal::STOP);
    std::fs::remove_file(&file).expect("a file");
    std::fs::write(&file, &config("50/s")[..20]).expect("a file");
    std::fs::write(&file, config("50/s")).expect("a file");
    daemon.signal(Signal::CONT);
    wait_reloads(&daemon, (3.0, 0.0), 50.0);
    daemon.wait_log(&["a file of the configuration has changed"], 3);

    write(&file, "nonsense");
    wait_reloads(&daemon, (3.0, 1.0), 50.0);
    daemon.wait_log(&["reload refused", "hammerd.toml:1"], 1);
    assert_eq!(daemon.scrape().value("hammerd_config_last_reload_successful", &[]), 0.0);
    // A signal finds the same, and says it again; then there is nothing that would have changed.
    assert!(!daemon.reload());
    let_pass(LOOKS);
    assert_eq!(reloads(&daemon.scrape()), (3.0, 2.0), "what was refused is not tried again");
    write(&file, &config("60/s"));
    wait_reloads(&daemon, (4.0, 2.0), 60.0);
    assert_eq!(daemon.scrape().value("hammerd_config_last_reload_successful", &[]), 1.0);

    // It can be switched off, by the same way, and on by a signal.
    write(&file, &target("a", &origin.url("/"), "70/s", ""));
    wait_reloads(&daemon, (5.0, 2.0), 70.0);
    write(&file, &config("80/s"));
    let_pass(LOOKS);
    assert_eq!(reloads(&daemon.scrape()), (5.0, 2.0), "nobody asked for it");
    assert!(daemon.reload());
    write(&file, &config("90/s"));
    wait_reloads(&daemon, (7.0, 2.0), 90.0);
}

/// As the kubelet lays a `ConfigMap` out: the file is a link through `..data`, which is swapped for another version.
#[test]
fn a_config_map_that_is_swapped_is_one_reload_each_time() {
    struct Volume(PathBuf);
    impl Volume {
        fn publish(&self, version: usize, text: &str) {
            let name = format!("..2026_11_24_{version}");
            std::fs::create_dir(self.0.join(&name)).expect("a directory");
            write(self.0.join(&name).join("config.toml"), text);
            write(self.0.join(&name).join("token"), &format!("token-{version}\n"));
            let before = std::fs::read_link(self.0.join("..data")).ok();
            std::os::unix::fs::symlink(&name, self.0.join("..data_tmp")).expect("a link");
            std::fs::rename(self.0.join("..data_tmp"), self.0.join("..data")).expect("a swap");
            for file in ["config.toml", "token"] {
                let _ = std::os::unix::fs::symlink(Path::new("..data").join(file), self.0.join(file));
            }
            if let Some(before) = before {
                std::fs::remove_dir_all(self.0.join(before)).expect("the version before");
            }
        }
    }
    let origin = Origin::start(|_| Reply::ok(""));
    let directory = tempfile::tempdir().expect("a directory");
    let volume = Volume(directory.path().to_owned());
    let file = |name: &str| directory.path().join(name).to_str().expect("UTF-8").to_owned();
    let rest = format!("headers_file = {{ x-token = \"{}\" }}", file("token"));
    let config = |rate: &str| target("a", &origin.url("/"), rate, &rest);
    volume.publish(0, &config("10/s"));
    let daemon = Daemon::builder(WATCH).arg("--config").arg(&file("config.toml")).start();
    for version in 1..=3 {
        let rate = 10 * (version + 1);
        volume.publish(version, &config(&format!("{rate}/s")));
        wait_reloads(&daemon, (version as f64, 0.0), f64::from(u32::try_from(rate).expect("small")));
    }
    wait_until("the latest token", PATIENCE, || {
        origin.requests().last().and_then(|request| request.header("x-token")) == Some("token-3")
    });
    let_pass(Duration::from_secs(3));
    assert_eq!(reloads(&daemon.scrape()), (3.0, 0.0), "a link that stays is no change");
}

/// Secrets, bodies and certificates are looked after as the configuration itself, also those that were not there.
#[test]
fn the_files_that_the_configuration_names_count_too() {
    let origin = Origin::start(|_| Reply::ok(""));
    let secrets = tempfile::tempdir().expect("a directory");
    let path = |name: &str| secrets.path().join(name);
    let named = |name: &str| path(name).to_str().expect("UTF-8").to_owned();
    write(path("body"), "first");
    let rest = |more: &str| format!("method = \"POST\"\nbody_file = \"{}\"\n{more}", named("body"));
    let config = |more: &str| format!("{WATCH}{}", target("a", &origin.url("/"), "20/s", &rest(more)));
    let daemon = Daemon::start(&config(""));
    origin.wait_requests(1);
    write(path("body"), "second");
    wait_reloads(&daemon, (1.0, 0.0), 20.0);
    wait_until("the new body", PATIENCE, || origin.requests().last().is_some_and(|request| request.body == b"second"));

    // A file that is not there yet: refused, until it comes.
    daemon.write_config(&config(&format!("headers_file = {{ x-token = \"{}\" }}", named("later/token"))));
    wait_reloads(&daemon, (1.0, 1.0), 20.0);
    std::fs::create_dir(path("later")).expect("a directory");
    write(path("later").join("token"), "arrived");
    wait_reloads(&daemon, (2.0, 1.0), 20.0);
    wait_until("the token", PATIENCE, || {
        origin.requests().last().and_then(|request| request.header("x-token")) == Some("arrived")
    });

    // Its directory goes, which is told once, and comes back; then it is watched as before.
    std::fs::rename(path("later"), path("gone")).expect("a directory");
    wait_reloads(&daemon, (2.0, 2.0), 20.0);
    let_pass(LOOKS);
    assert_eq!(reloads(&daemon.scrape()), (2.0, 2.0));
    std::fs::create_dir(path("later")).expect("a directory");
    write(path("later").join("token"), "returned");
    wait_reloads(&daemon, (3.0, 2.0), 20.0);
    // Whatever happens where it has been.
    write(path("gone").join("token"), "nobody's");
    write(path("later").join("token"), "once more");
    wait_reloads(&daemon, (4.0, 2.0), 20.0);
    let sent = origin.requests().len();
    wait_until("the last token", PATIENCE, || {
        origin.requests()[sent..].iter().any(|request| request.header("x-token") == Some("once more"))
    });
}

/// Hundreds of changes and files that have nothing to do with it: no descriptor, no reload too many.
#[test]
fn watching_leaks_nothing_and_neighbours_mean_nothing() {
    let origin = Origin::start(|_| Reply::ok(""));
    let config = |rate: usize| format!("{WATCH}{}", target("a", &origin.url("/"), &format!("{rate}/s"), ""));
    let daemon = Daemon::start(&config(10));
    daemon.write_config(&config(11));
    wait_reloads(&daemon, (1.0, 0.0), 11.0);
    daemon.scrape_after("a", 10.0);
    let descriptors = daemon.own_descriptors();
    for n in 0..300 {
        write(daemon.path(&format!("neighbour-{}", n % 7)), &n.to_string());
    }
    let_pass(Duration::from_secs(2));
    assert_eq!(reloads(&daemon.scrape()), (1.0, 0.0));
    for n in 2..=6 {
        daemon.write_config(&config(10 + n));
        wait_reloads(&daemon, (n as f64, 0.0), (10 + n) as f64);
    }
    wait_until("descriptors as before", PATIENCE, || daemon.own_descriptors() <= descriptors + 1.0);
}
