//! The composition root, and the one control loop.
//!
//! Runs on the control thread: signals, reloads and the drain are handled here one after the other, so that a reload
//! never meets a drain. Load runs on the workers, scrapes on the admin thread; neither waits for this loop.

mod reload;
mod watchdog;

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::LocalSet;
use tokio::time::{Instant, MissedTickBehavior, timeout};
use tracing::{error, info, warn};

use crate::admin::{Admin, Bound, Face, ReloadRequest};
use crate::clock;
use crate::config::{self, Config, Seen, Sources};
use crate::export::{Exports, Vitals};
use crate::fleet::{Fleet, WorkerLost};
use crate::logs::Outlet;
use crate::net::{Resolver, ResolverService};
use crate::notify::Notify;
use crate::remote::{Follower, Remote};
use crate::report::{self, Output};
use crate::roster::RosterView;
use crate::shard::Seat;
use crate::signals::{Signal, SignalStream};
use crate::status::Status;
use crate::watch::Watcher;

/// Reloads asked for over HTTP that may wait.
const MAX_WAITING_RELOADS: usize = 16;
/// Reads that may hang at once; the next reload waits for one of them.
const MAX_LOADERS: usize = 4;
/// How often the loop shows that it is alive and looks after the workers.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// A loop that has not been round for this long is not healthy.
const MAX_SILENCE_NS: u64 = 15_000_000_000;

/// Shows the counts to somebody.
pub type Show = Box<dyn Fn(&RosterView)>;

/// What a daemon is started with, beside its configuration.
pub struct Options {
    /// Read again at each reload.
    pub sources: Sources,
    /// The files that the first configuration was read from.
    pub seen: Seen,
    /// Those of its sources that are no files.
    pub remote: Option<Remote>,
    /// Ends the run as SIGTERM would.
    pub duration: Option<Duration>,
    /// How summaries look.
    pub output: Output,
    /// Where summaries go.
    pub results: Outlet,
    /// What to print first, given the address that `/metrics` is served on.
    pub greeting: Option<Box<dyn FnOnce(SocketAddr) -> String>>,
    /// Shows the counts once a second while it runs, and once more at the end; dropped before the summary is printed.
    pub live: Option<Show>,
    /// Lines that the log could not write.
    pub log_lines_lost: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// The service manager.
    pub notify: Notify,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Drained, and asked to.
    Stopped,
    /// By this second signal, in the middle of the drain.
    CutShort {
        /// Its number.
        signal: u8,
    },
}

/// Why a daemon could not start or go on.
#[derive(Debug)]
pub enum DaemonError {
    /// The listen address can't be had.
    Bind(SocketAddr, io::Error),
    /// Threads, timers or signal handlers can't be had.
    Start(io::Error),
    /// The metrics can't be registered.
    Metrics(prometheus::Error),
    /// A worker is gone.
    Worker(WorkerLost),
}

impl fmt::Display for DaemonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind(address, _) => write!(f, "can't listen on {address}"),
            Self::Start(_) => f.write_str("can't start"),
            Self::Metrics(_) => f.write_str("can't register metrics"),
            Self::Worker(_) => f.write_str("can't go on"),
        }
    }
}

impl std::error::Error for DaemonError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Bind(_, source) | Self::Start(source) => Some(source),
            Self::Metrics(source) => Some(source),
            Self::Worker(source) => Some(source),
        }
    }
}

/// Runs a valid configuration until it is asked to stop.
pub fn run(options: Options, config: Config) -> Result<Ended, DaemonError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(MAX_LOADERS)
        .enable_all()
        .build()
        .map_err(DaemonError::Start)?;
    let ended = LocalSet::new().block_on(&runtime, async {
        // Before everything else: a port that is taken must stop us before there is any traffic.
        let bound = match config.server.listen {
            Some(address) => Some(Bound::bind(address).map_err(|error| DaemonError::Bind(address, error))?),
            None => None,
        };
        Daemon::start(options, config, bound)?.run().await
    });
    // A lookup that nobody answers, or a read that hangs, must not hold up the exit.
    runtime.shutdown_background();
    ended
}

/// What the other threads may know of the control loop.
struct Shared {
    ready: AtomicBool,
    last_round_ns: AtomicU64,
    running: Mutex<Arc<Config>>,
}

impl Shared {
    fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// When the control loop was round last, on the clock of [`clock`].
    fn last_round_ns(&self) -> u64 {
        self.last_round_ns.load(Ordering::Relaxed)
    }

    /// Shows for as long as it is awaited that the control loop is alive.
    async fn beat(&self) -> Infallible {
        loop {
            self.last_round_ns.store(clock::now_ns(), Ordering::Relaxed);
            tokio::time::sleep(HEARTBEAT).await;
        }
    }

    /// Awaits what may take long and is bounded in time; the loop is no less alive for that.
    async fn meanwhile<T>(&self, what: impl Future<Output = T>) -> T {
        tokio::select! {
            biased;
            done = what => done,
            never = self.beat() => match never {},
        }
    }

    fn running(&self) -> Arc<Config> {
        Arc::clone(&self.running.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn set_running(&self, config: Config) {
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }
}

struct Daemon {
    options: Options,
    signals: SignalStream,
    resolver: Resolver,
    watcher: Watcher,
    follower: Option<Follower>,
    fleet: Fleet,
    seat: Seat,
    vitals: Arc<Vitals>,
    status: Arc<Status>,
    shared: Arc<Shared>,
    admin: Option<Admin>,
    reloads: mpsc::Receiver<ReloadRequest>,
}

impl Daemon {
    fn start(mut options: Options, config: Config, bound: Option<Bound>) -> Result<Self, DaemonError> {
        let signals = SignalStream::new().map_err(DaemonError::Start)?;
        let (resolver_service, resolver) = ResolverService::new();
        tokio::spawn(resolver_service.run());
        let fleet = Fleet::start(&config, resolver.clone()).map_err(DaemonError::Start)?;
        let source_stats = options.remote.as_ref().map(|remote| Arc::clone(remote.stats())).unwrap_or_default();
        let vitals = Arc::new(Vitals::new(Arc::clone(&options.log_lines_lost), source_stats));
        let seat = Seat::take(&config, &fleet, &resolver, Arc::clone(&vitals));
        let exports = Exports::new(Arc::clone(fleet.roster()), Arc::clone(&vitals)).map_err(DaemonError::Metrics)?;
        let status = Arc::new(Status::new(Arc::clone(fleet.roster())));
        let (ask_reload, reloads) = mpsc::channel(MAX_WAITING_RELOADS);
        let lifecycle = config.server.lifecycle.then_some(ask_reload);
        let shared = Arc::new(Shared {
            ready: AtomicBool::new(false),
            last_round_ns: AtomicU64::new(clock::now_ns()),
            running: Mutex::new(Arc::new(config)),
        });
        let face = face(&shared, exports, &status, lifecycle);
        let admin = bound.map(|bound| bound.serve(face)).transpose().map_err(DaemonError::Start)?;
        if let Some(admin) = &admin {
            info!(address = %admin.local_addr(), "listening");
            if let Some(greeting) = options.greeting.take() {
                options.results.write(greeting(admin.local_addr()));
            }
        }
        let mut watcher = Watcher::new();
        let seen = std::mem::take(&mut options.seen);
        watcher.follow(shared.running().following.watch.then_some(seen));
        let refresh = shared.running().following.refresh;
        let follower = options.remote.take().map(|remote| Follower::start(remote, refresh, resolver.clone()));
        Ok(Self { options, signals, resolver, watcher, follower, fleet, seat, vitals, status, shared, admin, reloads })
    }

    async fn run(mut self) -> Result<Ended, DaemonError> {
        self.begin().await?;
        let watchdog = watchdog::watch(self.options.notify.clone(), Arc::clone(&self.shared), self.fleet.pulse());
        tokio::spawn(watchdog);
        // A duration that ends after the clock does never ends.
        let end = self.options.duration.and_then(|duration| Instant::now().checked_add(duration));
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                signal = self.signals.next() => match signal {
                    Signal::Reload => drop(self.reload(true).await?),
                    Signal::Report => self.print_summary(clock::now_ns()),
                    Signal::Stop { number } => {
                        info!(signal = number, "draining");
                        break;
                    }
                },
                Some(request) = self.reloads.recv() => self.reload_for(request).await?,
                () = self.watcher.changed() => {
                    info!("a file of the configuration has changed");
                    drop(self.reload(false).await?);
                }
                () = reload::changed(&mut self.follower) => {
                    info!("a source of the configuration has changed");
                    drop(self.reload(false).await?);
                }
                () = at(end) => {
                    info!("draining: the duration is over");
                    break;
                }
                event = self.seat.next() => {
                    self.seat.handle(event, &mut self.fleet).await.map_err(DaemonError::Worker)?;
                }
                _ = heartbeat.tick() => self.look_around().await?,
            }
        }
        let shared = Arc::clone(&self.shared);
        shared.meanwhile(self.drain()).await
    }

    async fn begin(&mut self) -> Result<(), DaemonError> {
        let config = self.shared.running();
        self.fleet.apply(&config).await.map_err(DaemonError::Worker)?;
        self.shared.ready.store(true, Ordering::Relaxed);
        self.status.runs();
        let per_second: f64 = config.targets.values().map(|target| target.rate.as_per_second()).sum();
        info!(targets = config.targets.len(), per_second, workers = self.fleet.workers(), "started");
        self.options.notify.ready(&in_short(&config));
        Ok(())
    }

    async fn look_around(&mut self) -> Result<(), DaemonError> {
        self.shared.last_round_ns.store(clock::now_ns(), Ordering::Relaxed);
        self.seat.steer(&mut self.fleet).await.map_err(DaemonError::Worker)?;
        if let Some(show) = &self.options.live {
            show(&self.fleet.roster().read());
        }
        if self.fleet.is_healthy() { Ok(()) } else { Err(DaemonError::Worker(WorkerLost)) }
    }

    /// No more arrivals; what is in flight may finish; the last values may be scraped; a second signal ends at once.
    async fn drain(self) -> Result<Ended, DaemonError> {
        let Self { options, mut signals, mut fleet, status, shared, admin, reloads, .. } = self;
        options.notify.stopping("draining: no more arrivals, requests in flight may finish");
        shared.ready.store(false, Ordering::Relaxed);
        status.drains();
        // Also answers those who wait in it.
        drop(reloads);
        let shutdown = shared.running().shutdown.clone();
        let ended_ns = clock::now_ns();
        let drained = tokio::select! {
            drained = fleet.drain(shutdown.grace) => drained,
            signal = second_stop(&mut signals) => return Ok(Ended::CutShort { signal }),
        };
        if !drained {
            warn!(grace = ?shutdown.grace, "requests still in flight after the grace period are cut off");
        }
        let roster = Arc::clone(fleet.roster());
        if !fleet.finish().await {
            error!("a worker thread had panicked");
        }
        let view = roster.read();
        if let Some(show) = options.live {
            show(&view);
        }
        options.results.write(report::summary(&view, ended_ns, options.output));
        if let Some(admin) = admin {
            tokio::select! {
                () = last_scrape(&admin, shutdown.linger) => admin.shutdown(),
                signal = second_stop(&mut signals) => return Ok(Ended::CutShort { signal }),
            }
        }
        info!("stopped");
        Ok(Ended::Stopped)
    }

    fn print_summary(&self, now_ns: u64) {
        let roster = self.fleet.roster();
        self.options.results.write(report::summary(&roster.read(), now_ns, self.options.output));
    }
}

/// Waits for a scrape that began after now, or for `linger`.
async fn last_scrape(admin: &Admin, linger: Duration) {
    let since = std::time::Instant::now();
    let mut scraped = admin.scraped();
    let seen = scraped.wait_for(|began| began.is_some_and(|began| began >= since));
    // Neither too late nor gone is an error: nobody came.
    let _ = timeout(linger, seen).await;
}

/// The next signal to stop; others mean nothing any more.
async fn second_stop(signals: &mut SignalStream) -> u8 {
    loop {
        match signals.next().await {
            Signal::Stop { number } => return number,
            signal => info!(?signal, "ignored while draining"),
        }
    }
}

async fn at(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}

/// What runs, in a few words.
fn in_short(config: &Config) -> String {
    let per_second: f64 = config.targets.values().map(|target| target.rate.as_per_second()).sum();
    let count = config.targets.len();
    format!("{count} {}, {per_second:.2} requests a second", if count == 1 { "target" } else { "targets" })
}

fn face(
    shared: &Arc<Shared>,
    exports: Exports,
    status: &Arc<Status>,
    lifecycle: Option<mpsc::Sender<ReloadRequest>>,
) -> Face {
    let (healthy, ready, running) = (Arc::clone(shared), Arc::clone(shared), Arc::clone(shared));
    Face {
        exports,
        healthy: Arc::new(move || clock::now_ns().saturating_sub(healthy.last_round_ns()) < MAX_SILENCE_NS),
        ready: Arc::new(move || ready.is_ready()),
        config: Arc::new(move || config::redacted(&running.running())),
        status: Arc::clone(status),
        lifecycle,
    }
}

/// Raises the limit of open descriptors as far as it goes, and says so when the plan may exceed it.
pub fn raise_descriptor_limit(config: &Config) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
        if let Err(error) = raised {
            warn!(%error, "can't raise the limit of open files to its maximum");
        }
    }
    warn_of_descriptors(config);
}

fn warn_of_descriptors(config: &Config) {
    /// Logs, timers, event queues, the admin face.
    const OWN: u64 = 256;
    let Some(limit) = rustix::process::getrlimit(rustix::process::Resource::Nofile).current else { return };
    let in_flight = config.targets.values().map(|target| target.max_in_flight as u64).sum::<u64>();
    let planned = in_flight.min(config.limits.max_total_in_flight as u64) + OWN;
    if planned > limit {
        warn!(planned, limit, "the plan may need more open files than allowed: raise ulimit -n or lower max_in_flight");
    }
}
