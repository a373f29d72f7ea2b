//! The process as Prometheus sees it, under the names that every exporter uses.
//!
//! Promised: CPU seconds with the clock's own resolution (the crate's collector has whole seconds, useless for a
//! process that needs microseconds a request); a value that can't be read is left out of the scrape, never a guess
//! and never a panic; and the scrape needs no new descriptor, so that it works when they have run out.
//!
//! Left out: other processes, and children.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Metric, MetricFamily, MetricType};
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, Timespec, clock_gettime};

use super::families::set_value;

/// Longer than any `stat` line: 52 numbers of at most 20 digits and a name of at most 64 bytes.
const STAT_BYTES_MAX: usize = 2_048;

/// Name, type and help of a series.
type Entry = (&'static str, MetricType, &'static str);

const CPU: Entry =
    ("process_cpu_seconds_total", MetricType::COUNTER, "Total user and system CPU time spent in seconds.");
const RESIDENT: Entry = ("process_resident_memory_bytes", MetricType::GAUGE, "Resident memory size in bytes.");
const VIRTUAL: Entry = ("process_virtual_memory_bytes", MetricType::GAUGE, "Virtual memory size in bytes.");
const OPEN_FDS: Entry = ("process_open_fds", MetricType::GAUGE, "Number of open file descriptors.");
const MAX_FDS: Entry = ("process_max_fds", MetricType::GAUGE, "Maximum number of open file descriptors.");
const START: Entry =
    ("process_start_time_seconds", MetricType::GAUGE, "Start time of the process since unix epoch in seconds.");
const THREADS: Entry = ("process_threads", MetricType::GAUGE, "Number of OS threads in the process.");

/// Gives the `process_*` series of the process that it was made in.
#[derive(Debug)]
pub struct ProcessCollector {
    descs: Vec<Desc>,
    /// Held open, because a scrape must also work without a free descriptor.
    stat: Option<File>,
    /// Read once: a clock that is set later must not look like a restart.
    started_s: Option<f64>,
}

impl ProcessCollector {
    /// A collector for this process.
    ///
    /// # Errors
    /// Never for the names above; the signature is that of the crate's descriptions.
    pub fn new() -> prometheus::Result<Self> {
        let describe = |(name, _, help): Entry| Desc::new(name.into(), help.into(), Vec::new(), HashMap::new());
        let descs = [CPU, RESIDENT, VIRTUAL, OPEN_FDS, MAX_FDS, START, THREADS]
            .into_iter()
            .map(describe)
            .collect::<prometheus::Result<_>>()?;
        let stat = File::open("/proc/self/stat").ok();
        let started_s = stat.as_ref().and_then(Stat::read).map(|stat| started_s(stat.start_ticks));
        Ok(Self { descs, stat, started_s })
    }
}

impl Collector for ProcessCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let stat = self.stat.as_ref().and_then(Stat::read);
        let cpu_s = seconds(clock_gettime(ClockId::ProcessCPUTime));
        // No limit is no number: the series is left out, as the crate's own collector does.
        let max_fds = getrlimit(Resource::Nofile).current;
        [
            (CPU, Some(cpu_s)),
            (RESIDENT, stat.as_ref().map(|stat| stat.resident_pages as f64 * rustix::param::page_size() as f64)),
            (VIRTUAL, stat.as_ref().map(|stat| stat.virtual_bytes as f64)),
            (OPEN_FDS, open_fds().map(|count| count as f64)),
            (MAX_FDS, max_fds.map(|count| count as f64)),
            (START, self.started_s),
            (THREADS, stat.as_ref().map(|stat| stat.threads as f64)),
        ]
        .into_iter()
        .filter_map(|(entry, value)| Some(family(entry, value?)))
        .collect()
    }
}

/// One family of one unlabelled series.
fn family((name, kind, help): Entry, value: f64) -> MetricFamily {
    let mut metric = Metric::default();
    set_value(&mut metric, kind, value);
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(vec![metric]);
    family
}

fn seconds(time: Timespec) -> f64 {
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// When the process started, in Unix time: the age is taken from the boot clock, on which the kernel counts.
fn started_s(start_ticks: u64) -> f64 {
    let age_s =
        seconds(clock_gettime(ClockId::Boottime)) - start_ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
    seconds(clock_gettime(ClockId::Realtime)) - age_s
}

/// How many descriptors are open. Since Linux 6.2 the directory's size says so, for no descriptor of our own; before
/// that its entries are counted, less the one that counts.
fn open_fds() -> Option<u64> {
    let size = std::fs::metadata("/proc/self/fd").ok()?.len();
    if size > 0 {
        return Some(size);
    }
    let entries = std::fs::read_dir("/proc/self/fd").ok()?.count() as u64;
    Some(entries.saturating_sub(1))
}

/// What is wanted of `/proc/self/stat`, see proc(5).
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    threads: u64,
    start_ticks: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl Stat {
    fn read(file: &File) -> Option<Self> {
        let mut line = [0; STAT_BYTES_MAX];
        let length = file.read_at(&mut line, 0).ok()?;
        Self::parse(&String::from_utf8_lossy(line.get(..length)?))
    }

    fn parse(line: &str) -> Option<Self> {
        // The second field is the program's name in parentheses, and may hold spaces and parentheses itself.
        let (_, fields) = line.rsplit_once(')')?;
        // The state is field 3 of the manual page, so field n of it is the n-3rd here.
        let mut fields = fields.split_ascii_whitespace().skip(20 - 3);
        let threads = fields.next()?.parse().ok()?;
        let mut fields = fields.skip(1);
        Some(Self {
            threads,
            start_ticks: fields.next()?.parse().ok()?,
            virtual_bytes: fields.next()?.parse().ok()?,
            resident_pages: fields.next()?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use prometheus::{Registry, TextEncoder};

    use super::*;

    fn scrape() -> String {
        let registry = Registry::new();
        registry.register(Box::new(ProcessCollector::new().unwrap())).unwrap();
        TextEncoder::new().encode_to_string(&registry.gather()).unwrap()
    }

    fn value(text: &str, name: &str) -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
    }

    #[test]
    fn a_stat_line_is_read_by_the_manual_even_with_a_hostile_name() {
        let line = "7 (a b) c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 42 0 123456 99000 55 18446744073709551615 1\n";
        let stat = Stat { threads: 42, start_ticks: 123_456, virtual_bytes: 99_000, resident_pages: 55 };
        assert_eq!(Stat::parse(line), Some(stat));
    }

    #[test]
    fn a_torn_stat_line_is_no_value_and_no_panic() {
        for line in ["", "7", "7 (x) S 1 2", "7 (x) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 x 0 1 2 3", ")"] {
            assert_eq!(Stat::parse(line), None, "{line:?}");
        }
    }

    #[test]
    fn cpu_time_grows_by_fractions_of_a_second() {
        let before = value(&scrape(), "process_cpu_seconds_total");
        let mut after = before;
        // Ends as soon as any CPU time is visible: rendering itself takes some.
        while after <= before {
            after = value(&scrape(), "process_cpu_seconds_total");
        }
        assert!((after - before).fract() > 0.0, "{before} {after}");
    }

    #[test]
    fn memory_threads_and_limits_are_those_that_the_kernel_shows() {
        let text = scrape();
        let status = std::fs::read_to_string("/proc/self/limits").unwrap();
        let limit = status.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
        let limit: f64 = limit.split_whitespace().next().unwrap().parse().unwrap();
        assert_eq!(value(&text, "process_max_fds").to_bits(), limit.to_bits());
        assert!(value(&text, "process_threads") >= 1.0);
        let resident = value(&text, "process_resident_memory_bytes");
        assert!((1e5..1e11).contains(&resident), "{resident}");
        assert!(value(&text, "process_virtual_memory_bytes") > resident);
    }

    #[test]
    fn open_descriptors_are_counted() {
        // Other tests open and close descriptors meanwhile; a thousand of our own stand out.
        let before = open_fds().unwrap();
        let held: Vec<_> = (0..1000).map(|_| File::open("/dev/null").unwrap()).collect();
        let during = value(&scrape(), "process_open_fds");
        assert!(during >= held.len() as f64, "{before} {during}");
    }

    #[test]
    fn the_start_lies_before_now_and_after_the_boot_and_stays() {
        let collector = ProcessCollector::new().unwrap();
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let started_s = collector.started_s.unwrap();
        let booted_s = now_s - seconds(clock_gettime(ClockId::Boottime));
        // One clock tick of slack: the kernel rounds.
        assert!((booted_s - 0.02..now_s + 0.02).contains(&started_s), "{booted_s} {started_s} {now_s}");
        let collected = || value(&scrape_of(&collector), "process_start_time_seconds");
        assert_eq!(collected().to_bits(), collected().to_bits());
    }

    fn scrape_of(collector: &ProcessCollector) -> String {
        TextEncoder::new().encode_to_string(&collector.collect()).unwrap()
    }

    #[test]
    fn names_and_types_are_the_standard_ones() {
        let text = scrape();
        for line in [
            "# TYPE process_cpu_seconds_total counter",
            "# TYPE process_max_fds gauge",
            "# TYPE process_open_fds gauge",
            "# TYPE process_resident_memory_bytes gauge",
            "# TYPE process_start_time_seconds gauge",
            "# TYPE process_threads gauge",
            "# TYPE process_virtual_memory_bytes gauge",
            "# HELP process_cpu_seconds_total Total user and system CPU time spent in seconds.",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} not in {text}");
        }
        assert_eq!(text.lines().filter(|line| line.starts_with("# TYPE")).count(), 7);
    }

    #[test]
    fn what_cannot_be_read_is_left_out() {
        let collector = ProcessCollector { stat: None, started_s: None, ..ProcessCollector::new().unwrap() };
        let names: Vec<_> = collector.collect().iter().map(|family| family.name().to_owned()).collect();
        assert_eq!(names, ["process_cpu_seconds_total", "process_open_fds", "process_max_fds"]);
    }
}
