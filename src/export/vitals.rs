//! What the daemon tells of itself: its build, its configuration, its log.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;

use super::catalogue as c;
use super::families::{Families, describe};
use super::sharing::{self, Sharing};
use super::sink::Sink;
use crate::remote::{Reason, Stats};

/// Written by the control thread, read at scrapes.
pub struct Vitals {
    reload_successful: AtomicBool,
    reload_success_ms: AtomicU64,
    reloads_succeeded: AtomicU64,
    reloads_failed: AtomicU64,
    sharing: Mutex<Sharing>,
    log_lines_lost: Arc<dyn Fn() -> u64 + Send + Sync>,
    sources: Arc<Stats>,
}

impl Vitals {
    /// The state right after the first configuration was loaded, from `sources` that are no files among others.
    pub fn new(log_lines_lost: Arc<dyn Fn() -> u64 + Send + Sync>, sources: Arc<Stats>) -> Self {
        let vitals = Self {
            reload_successful: AtomicBool::new(true),
            reload_success_ms: AtomicU64::new(0),
            reloads_succeeded: AtomicU64::new(0),
            reloads_failed: AtomicU64::new(0),
            sharing: Mutex::default(),
            log_lines_lost,
            sources,
        };
        vitals.stamp();
        vitals
    }

    /// A reload was applied.
    pub fn reload_succeeded(&self) {
        self.stamp();
        self.reload_successful.store(true, Ordering::Relaxed);
        self.reloads_succeeded.fetch_add(1, Ordering::Relaxed);
    }

    /// A reload was refused; the configuration before it goes on.
    pub fn reload_failed(&self) {
        self.reload_successful.store(false, Ordering::Relaxed);
        self.reloads_failed.fetch_add(1, Ordering::Relaxed);
    }

    /// Something is new about our part of the streams.
    pub fn update_sharing(&self, update: impl FnOnce(&mut Sharing)) {
        // Whoever panicked with it left numbers, and each of them is one.
        update(&mut self.sharing.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn stamp(&self) {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.reload_success_ms.store(since_epoch.as_millis() as u64, Ordering::Relaxed);
    }
}

/// Collects [`Vitals`] and the build's identity.
pub struct VitalsCollector {
    vitals: Arc<Vitals>,
    descs: Arc<[Desc]>,
}

impl VitalsCollector {
    /// A collector that reads `vitals`.
    pub fn new(vitals: Arc<Vitals>) -> prometheus::Result<Self> {
        let own = [
            c::RELOAD_SUCCESSFUL,
            c::RELOAD_SUCCESS_TIME,
            c::RELOADS,
            c::SOURCE_UP,
            c::SOURCE_SUCCESS_TIME,
            c::SOURCE_FETCHES,
            c::SOURCE_FAILURES,
            c::BUILD_INFO,
            c::LOG_LINES_LOST,
        ];
        let metrics = [own.as_slice(), &sharing::METRICS].concat();
        Ok(Self { vitals, descs: describe(&metrics)? })
    }
}

impl Collector for VitalsCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let vitals = &self.vitals;
        let load = |cell: &AtomicU64| cell.load(Ordering::Relaxed) as f64;
        let mut families = Families::default();
        families.family(c::RELOAD_SUCCESSFUL);
        families.value(&[], f64::from(u8::from(vitals.reload_successful.load(Ordering::Relaxed))));
        families.family(c::RELOAD_SUCCESS_TIME);
        families.value(&[], load(&vitals.reload_success_ms) / 1e3);
        families.family(c::RELOADS);
        families.value(&["success"], load(&vitals.reloads_succeeded));
        families.value(&["failure"], load(&vitals.reloads_failed));
        families.family(c::SOURCE_UP);
        families.value(&[], f64::from(u8::from(vitals.sources.up())));
        families.family(c::SOURCE_SUCCESS_TIME);
        families.value(&[], vitals.sources.success_ms() as f64 / 1e3);
        families.family(c::SOURCE_FETCHES);
        let (changed, unchanged) = vitals.sources.answers();
        families.value(&["changed"], changed as f64);
        families.value(&["unchanged"], unchanged as f64);
        families.family(c::SOURCE_FAILURES);
        for (reason, count) in Reason::LABELS.into_iter().zip(vitals.sources.failures()) {
            families.value(&[reason], count as f64);
        }
        families.family(c::BUILD_INFO);
        families.value(&[env!("CARGO_PKG_VERSION"), env!("HAMMERD_REVISION"), env!("HAMMERD_RUSTC")], 1.0);
        vitals.update_sharing(|sharing| sharing::write(sharing, &mut families));
        families.family(c::LOG_LINES_LOST);
        families.value(&[], (vitals.log_lines_lost)() as f64);
        families.build()
    }
}
