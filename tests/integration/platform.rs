//! What the machine underneath can do to a daemon: clocks that jump, an uptime of months, a processor that is rationed.

use std::path::PathBuf;
use std::time::Duration;

use crate::faults::{failures, responses};
use crate::overload::assert_rate_holds;
use crate::support::cgroup::CpuGroup;
use crate::support::{Daemon, Origin, Reply, Scrape, is_root, skip, target};

/// Checks that traffic and its times are what they should be.
#[track_caller]
fn assert_healthy(daemon: &Daemon) {
    assert_rate_holds(daemon, "a", 100.0, Duration::from_secs(1));
    let scrape = daemon.scrape();
    assert_eq!(failures(&scrape, "a").len(), 0, "{}", scrape.summary());
    assert!(responses(&scrape, "a", "200") >= 50.0, "{}", scrape.summary());
    for name in ["hammerd_request_latency_seconds", "hammerd_schedule_lag_seconds"] {
        let histogram = scrape.histogram(name, &[]);
        assert!(histogram.sum / histogram.count < 1.0, "{name}: {histogram:?}");
    }
}

/// Row 30.
#[test]
fn an_uptime_of_ninety_days_changes_nothing() {
    const TEST: &str = "an_uptime_of_ninety_days_changes_nothing";
    const NINETY_DAYS_S: &str = "7776000";
    if !is_root() {
        return skip(TEST, "needs root for a time namespace");
    }
    let origin = Origin::start(|_| Reply::ok(""));
    let daemon = Daemon::builder(&target("a", &origin.url("/"), "100/s", ""))
        .wrapped(&["unshare", "--time", "--fork", "--kill-child", "--monotonic", NINETY_DAYS_S])
        .wrapped(&["--boottime", NINETY_DAYS_S])
        .start();
    let offsets = format!("/proc/{}/timens_offsets", daemon.pid().as_raw_nonzero());
    let offsets = std::fs::read_to_string(offsets).expect("clocks of the namespace");
    assert!(offsets.lines().any(|line| line.starts_with("monotonic") && line.contains(NINETY_DAYS_S)), "{offsets}");
    assert_healthy(&daemon);
}

/// The library that shows a process another wall clock.
fn libfaketime() -> Option<PathBuf> {
    let architectures = std::fs::read_dir("/usr/lib").ok()?.filter_map(Result::ok);
    architectures.map(|entry| entry.path().join("faketime/libfaketimeMT.so.1")).find(|library| library.exists())
}

/// Row 30. The wall clock of one process can't be set, but what its C library says of it can: everything that asks for
/// the wall clock asks there (the load path asks the kernel for the monotonic one, which is what this is about).
#[test]
fn a_wall_clock_that_jumps_changes_nothing() {
    const END_OF_32_BITS_S: f64 = 2_147_483_648.0;
    let Some(library) = libfaketime() else {
        return skip("a_wall_clock_that_jumps_changes_nothing", "needs libfaketime (the package faketime)");
    };
    let directory = tempfile::tempdir().expect("a directory");
    let clock = directory.path().join("clock");
    let set = |time: &str| std::fs::write(&clock, time).expect("the time to show");
    set("+0");
    let origin = Origin::start(|_| Reply::ok(""));
    let daemon = Daemon::builder(&target("a", &origin.url("/"), "100/s", ""))
        .env("LD_PRELOAD", library.to_str().expect("UTF-8"))
        .env("FAKETIME_TIMESTAMP_FILE", clock.to_str().expect("UTF-8"))
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .start();
    let loaded_at = |scrape: &Scrape| scrape.value("hammerd_config_last_reload_success_timestamp_seconds", &[]);
    let start = loaded_at(&daemon.scrape());
    // Seconds that the jump leads away from the start, at least and at most.
    for (time, range) in [("+1h", 3600.0..=3700.0), ("-1h", -3600.0..=-3500.0)] {
        set(time);
        assert!(daemon.reload());
        let moved = loaded_at(&daemon.scrape()) - start;
        assert!(range.contains(&moved), "{time}: moved by {moved} s");
        assert_healthy(&daemon);
    }
    set("@2038-01-19 12:00:00");
    assert!(daemon.reload());
    assert!(loaded_at(&daemon.scrape()) > END_OF_32_BITS_S);
    assert_healthy(&daemon);
}

/// Row 31. It starts with all the processor it wants, is put on a tenth of one, and gets it back.
#[test]
fn a_rationed_processor_shows_as_lag_and_drops_and_metrics_still_answer() {
    const TEST: &str = "a_rationed_processor_shows_as_lag_and_drops_and_metrics_still_answer";
    const LATE_AFTER: &str = "[engine]\nlate_after = \"40ms\"\n[metrics]\nbuckets = [0.02]\n";
    let group = match CpuGroup::new() {
        Ok(group) => group,
        Err(error) => return skip(TEST, &format!("no control group to be had: {error}")),
    };
    let origin = Origin::start(|_| Reply::ok(""));
    let wrapper = group.wrapper();
    // More than a tenth of a processor can do, with an origin that can.
    let daemon = Daemon::builder(&format!("{LATE_AFTER}{}", target("a", &origin.url("/"), "2000/s", "")))
        .wrapped(&wrapper.iter().map(String::as_str).collect::<Vec<_>>())
        .start();
    let lagging = |scrape: &Scrape| {
        let lag = scrape.histogram("hammerd_schedule_lag_seconds", &[]);
        lag.count - lag.count_le(0.02)
    };
    let late = |scrape: &Scrape| scrape.value("hammerd_requests_dropped_total", &[("target", "a"), ("reason", "late")]);
    let before = daemon.scrape_after("a", 500.0);

    group.set_quota(Some(10)).expect("a quota");
    let rationed = daemon.scrape_when("lag and drops", |scrape| {
        lagging(scrape) >= lagging(&before) + 100.0 && late(scrape) >= late(&before) + 500.0
    });
    for _ in 0..5 {
        daemon.scrape();
        assert_eq!(daemon.get("/-/healthy").status, 200);
    }
    assert_eq!(failures(&rationed, "a").len(), 0, "the target is not to blame: {}", rationed.summary());

    group.set_quota(None).expect("no quota");
    assert_rate_holds(&daemon, "a", 2000.0, Duration::from_secs(1));
    let sent = daemon.scrape().value("hammerd_requests_total", &[("target", "a")]);
    daemon.scrape_after("a", sent + 1000.0);
}
