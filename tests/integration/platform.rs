//! What the machine underneath can do to a daemon: clocks that jump, an uptime of months, a processor that is rationed.

use std::time::{Duration, Instant};

use crate::faults::{failures, responses};
use crate::overload::assert_rate_holds;
use crate::support::cgroup::CpuGroup;
use crate::support::wall_clock::WallClock;
use crate::support::{Daemon, Origin, Reply, Scrape, is_root, skip, target};

/// Checks that traffic and its times are what they should be, and that no timer that lies in the past makes it spin.
#[track_caller]
fn assert_healthy(daemon: &Daemon) {
    /// Processor time for some hundred requests and a few scrapes: several times what it takes.
    const MOST_CPU_S: f64 = 0.4;
    let cpu = |scrape: &Scrape| scrape.value("process_cpu_seconds_total", &[]);
    let before = cpu(&daemon.scrape());
    assert_rate_holds(daemon, "a", 100.0, Duration::from_secs(1));
    let scrape = daemon.scrape();
    let used = cpu(&scrape) - before;
    assert!(used < MOST_CPU_S, "{used} s of processor time in a second");
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

/// Row 30.
#[test]
fn a_wall_clock_that_jumps_changes_nothing() {
    const HOUR_S: i64 = 3600;
    /// How far from the exact jump a busy machine may take a reading.
    const SLACK_S: i64 = 100;
    const END_OF_32_BITS_S: i64 = 1 << 31;
    let clock = WallClock::new();
    let origin = Origin::start(|_| Reply::ok(""));
    let daemon = clock.on(Daemon::builder(&target("a", &origin.url("/"), "100/s", ""))).start();
    let loaded_at = || daemon.scrape().value("hammerd_config_last_reload_success_timestamp_seconds", &[]) as i64;
    let start_s = loaded_at();
    for offset_s in [HOUR_S, -HOUR_S, END_OF_32_BITS_S + HOUR_S - start_s] {
        clock.set(offset_s * 1000);
        assert!(daemon.reload());
        let expected = start_s + offset_s..start_s + offset_s + SLACK_S;
        let seen = loaded_at();
        assert!(expected.contains(&seen), "the daemon has not seen the jump: {seen} is not in {expected:?}");
        assert_healthy(&daemon);
    }
}

/// Row 31. It starts with all the processor it wants, is put on a share of that, and gets it back.
#[test]
fn a_rationed_processor_shows_as_lag_and_drops_and_metrics_still_answer() {
    const TEST: &str = "a_rationed_processor_shows_as_lag_and_drops_and_metrics_still_answer";
    const LATE_AFTER: &str = "[engine]\nlate_after = \"40ms\"\n[metrics]\nbuckets = [0.02]\n";
    /// On a fast machine a tenth of a processor would do for this rate. A third of what it takes does nowhere.
    const SHARE: f64 = 3.0;
    /// And never more than the row says, in percent.
    const MOST: f64 = 10.0;
    let group = match CpuGroup::new() {
        Ok(group) => group,
        Err(error) => return skip(TEST, &format!("no control group to be had: {error}")),
    };
    let origin = Origin::start(|_| Reply::ok(""));
    let wrapper = group.wrapper();
    let daemon = Daemon::builder(&format!("{LATE_AFTER}{}", target("a", &origin.url("/"), "2000/s", "")))
        .wrapped(&wrapper.iter().map(String::as_str).collect::<Vec<_>>())
        .start();
    let lagging = |scrape: &Scrape| {
        let lag = scrape.histogram("hammerd_schedule_lag_seconds", &[]);
        lag.count - lag.count_le(0.02)
    };
    let late = |scrape: &Scrape| scrape.value("hammerd_requests_dropped_total", &[("target", "a"), ("reason", "late")]);
    daemon.scrape_after("a", 500.0);
    let cpu = |scrape: &Scrape| scrape.value("process_cpu_seconds_total", &[]);
    let (first, begun) = (daemon.scrape(), Instant::now());
    daemon.scrape_after("a", 2500.0);
    let before = daemon.scrape();
    let needed_percent = (cpu(&before) - cpu(&first)) / begun.elapsed().as_secs_f64() * 100.0;

    group.set_quota(Some((needed_percent / SHARE).clamp(1.0, MOST) as u32)).expect("a quota");
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

/// The workers that a daemon chooses for a rate that wants three, when it is started by `wrapper`.
fn workers_chosen(wrapper: &[&str]) -> usize {
    /// In bursts, nearly all of which is dropped at little cost: only the plan matters.
    const MANY: &str = "rate = \"60000/s\"\nmax_in_flight = 1\nprocess = \"burst\"\nburst = 100000\n";
    let text = format!("[targets.a]\nurl = \"http://127.0.0.1:1/\"\n{MANY}");
    let daemon = Daemon::builder(&text).wrapped(wrapper).start();
    daemon.scrape().value("hammerd_workers", &[]) as usize
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[test]
fn the_rate_asks_for_workers_and_the_processors_that_it_may_use_bound_them() {
    assert_eq!(workers_chosen(&[]), processors().min(3));
    let status = std::fs::read_to_string("/proc/self/status").expect("our own status");
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).expect("processors");
    let first = allowed.trim().split([',', '-']).next().expect("a processor");
    assert_eq!(workers_chosen(&["taskset", "--cpu-list", first]), 1);
}

#[test]
fn a_quota_bounds_the_workers_and_less_than_a_processor_is_one() {
    const TEST: &str = "a_quota_bounds_the_workers_and_less_than_a_processor_is_one";
    let group = match CpuGroup::new() {
        Ok(group) => group,
        Err(error) => return skip(TEST, &format!("no control group to be had: {error}")),
    };
    let wrapper = group.wrapper();
    let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
    for (percent, most) in [(25, 1), (150, 1), (200, 2)] {
        group.set_quota(Some(percent)).expect("a quota");
        assert_eq!(workers_chosen(&wrapper), processors().min(most), "with {percent} % of a processor");
    }
}
