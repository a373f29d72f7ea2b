//! The files of the configuration: tells when one has changed.
//!
//! What counts is what a file looks like at its path, through symbolic links, compared with what the last load found
//! there. So it does not matter how a change comes about: written in place, renamed over, by a link that leads
//! elsewhere (Kubernetes swaps `..data`), with a directory that goes and comes back. inotify on the directories only
//! says when to look; every few seconds one looks anyway, for directories that were not there to be watched and for file
//! systems that tell nothing.
//!
//! Left out: what a change means. Whoever is told loads everything, and says what that load found.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tracing::warn;

use crate::config::{Seen, Stamp};

/// How often one looks when nothing tells of a change.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// How long the files must look the same before they are loaded: a change is often made in several steps.
const SETTLE: Duration = Duration::from_millis(250);
/// Looks at files that change all the time, before they are loaded as they are.
const MAX_LOOKS: usize = 8;

/// Files to be watched, as a load found them.
type Wanted = Option<Arc<Seen>>;

/// Watches the files that it is told of; nothing before that.
#[derive(Debug)]
pub struct Watcher {
    wanted: watch::Sender<Wanted>,
    changes: mpsc::Receiver<Change>,
    /// What the change looked like that was told last.
    found: Wanted,
}

/// Files that differ from what was asked about.
#[derive(Debug)]
struct Change {
    from: Arc<Seen>,
    to: Arc<Seen>,
}

impl Watcher {
    /// Starts it, inside a runtime.
    pub fn new() -> Self {
        let (wanted, files) = watch::channel(None);
        // One: no second change is looked for before the first was loaded.
        let (tell, changes) = mpsc::channel(1);
        tokio::spawn(patrol(files, tell));
        Self { wanted, changes, found: None }
    }

    /// Watches these files, which a load found so, and no others; none for none.
    pub fn follow(&mut self, seen: Option<Seen>) {
        self.found = None;
        self.wanted.send_replace(seen.map(Arc::new));
    }

    /// The last change could not be loaded at all: only the next one is told again.
    pub fn pass_over(&mut self) {
        if let Some(found) = self.found.take() {
            self.wanted.send_replace(Some(found));
        }
    }

    /// Waits until a file differs from what the last load found. What is told is told once.
    pub async fn changed(&mut self) {
        while let Some(change) = self.changes.recv().await {
            // Another load may have come between.
            if self.wanted.borrow().as_ref().is_some_and(|wanted| Arc::ptr_eq(wanted, &change.from)) {
                self.found = Some(change.to);
                return;
            }
        }
        // The patrol only ends with us.
        std::future::pending::<()>().await;
    }
}

impl Default for Watcher {
    fn default() -> Self {
        Self::new()
    }
}

async fn patrol(mut wanted: watch::Receiver<Wanted>, tell: mpsc::Sender<Change>) {
    let mut ears = Ears::default();
    loop {
        let files = wanted.borrow_and_update().clone();
        let Some(from) = files else {
            ears = Ears::default();
            if wanted.changed().await.is_err() {
                return;
            }
            continue;
        };
        ears.open();
        let mut now = look(&mut ears, &from).await;
        for _ in 0..MAX_LOOKS {
            if now == *from {
                break;
            }
            sleep(SETTLE).await;
            let before = std::mem::replace(&mut now, look(&mut ears, &from).await);
            if now == before {
                break;
            }
        }
        if now != *from {
            if tell.send(Change { from, to: Arc::new(now) }).await.is_err() || wanted.changed().await.is_err() {
                return;
            }
            continue;
        }
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { return },
            () = ears.hear() => {}
            () = sleep(LOOK_INTERVAL) => {}
        }
    }
}

/// What the files look like now, with the ears at their directories from before that.
async fn look(ears: &mut Ears, files: &Arc<Seen>) -> Seen {
    let (mut listening, files) = (std::mem::take(&mut ears.listening), Arc::clone(files));
    let looked = tokio::task::spawn_blocking(move || {
        listening.at(&files);
        let now = files.keys().map(|path| (path.clone(), Stamp::of(path))).collect();
        (listening, now)
    });
    match looked.await {
        Ok((listening, now)) => {
            ears.listening = listening;
            now
        }
        // Only when the runtime ends.
        Err(_) => Seen::new(),
    }
}

/// inotify, where it can be had.
#[derive(Debug, Default)]
struct Ears {
    listening: Listening,
    complained: bool,
}

/// Directories that are listened at.
#[derive(Debug, Default)]
struct Listening {
    events: Option<Arc<AsyncFd<OwnedFd>>>,
    /// For these files; their directories are found out once.
    files: Option<Arc<Seen>>,
    directories: BTreeSet<PathBuf>,
    watches: BTreeMap<PathBuf, i32>,
    /// Why some directory can't be listened at, beside that it is not there.
    fault: Option<Errno>,
}

impl Ears {
    fn open(&mut self) {
        if let Some(fault) = self.listening.fault.take() {
            self.complain(&fault.into());
        }
        if self.listening.events.is_some() || self.complained {
            return;
        }
        let events = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).map_err(io::Error::from);
        match events.and_then(crate::fd::readable) {
            Ok(events) => self.listening.events = Some(Arc::new(events)),
            Err(error) => self.complain(&error),
        }
    }

    fn complain(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.complained, true) {
            warn!(%error, every = ?LOOK_INTERVAL, "no inotify: the files of the configuration are looked at now and then");
        }
    }

    /// Waits until something has happened in one of the directories.
    async fn hear(&self) {
        let Some(events) = &self.listening.events else { return std::future::pending().await };
        let Ok(mut ready) = events.readable().await else { return std::future::pending().await };
        // What has happened does not matter, only that something has.
        let mut buffer = [0_u8; 4096];
        while rustix::io::read(&**events, &mut buffer).is_ok_and(|length| length > 0) {}
        ready.clear_ready();
    }
}

impl Listening {
    /// Listens at the directories of these files. May block, as every access to a file may.
    fn at(&mut self, files: &Arc<Seen>) {
        let Some(events) = self.events.clone() else { return };
        if !self.files.as_ref().is_some_and(|known| Arc::ptr_eq(known, files)) {
            self.directories = files.keys().flat_map(|path| directories_of(path)).collect();
            self.files = Some(Arc::clone(files));
            self.watches.retain(|path, watch| {
                let kept = self.directories.contains(path);
                if !kept {
                    let _ = inotify::remove_watch(&*events, *watch);
                }
                kept
            });
        }
        let interest = WatchFlags::CREATE
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::ATTRIB
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        for directory in &self.directories {
            // The same watch again for the same directory, another one for another directory at the same path.
            let before = match inotify::add_watch(&*events, directory, interest) {
                Ok(watch) => self.watches.insert(directory.clone(), watch).filter(|before| *before != watch),
                Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => self.watches.remove(directory),
                Err(error) => {
                    self.fault = Some(error);
                    self.watches.remove(directory)
                }
            };
            if let Some(before) = before.filter(|before| !self.watches.values().any(|watch| watch == before)) {
                // The kernel has dropped it when the directory is gone.
                let _ = inotify::remove_watch(&*events, before);
            }
        }
    }
}

/// Where a change of this file can be heard: its own directory, and that of what it leads to.
fn directories_of(path: &Path) -> impl Iterator<Item = PathBuf> {
    let parent = |path: &Path| {
        let parent = path.parent()?;
        Some(if parent.as_os_str().is_empty() { PathBuf::from(".") } else { parent.to_owned() })
    };
    let target = std::fs::canonicalize(path).ok().and_then(|target| parent(&target));
    [parent(path), target].into_iter().flatten()
}
