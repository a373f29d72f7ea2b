//! A reload: everything is read again, judged as a whole, and the difference is applied; or nothing is.

use std::pin::pin;
use std::time::Duration;

use tokio::time::timeout;
use tracing::{error, info};

use super::{Daemon, DaemonError, in_short, warn_of_descriptors};
use crate::admin::ReloadRequest;
use crate::config::{self, Config, Reading};
use crate::remote::{Follower, Reason};

/// How long a reload may read files: one of them can be a pipe that nobody writes to, or on a server that is gone.
const MAX_LOADING: Duration = Duration::from_secs(10);

impl Daemon {
    /// Answers everyone who asked for a reload by now with one.
    pub(super) async fn reload_for(&mut self, request: ReloadRequest) -> Result<(), DaemonError> {
        let mut requests = vec![request];
        while let Ok(request) = self.reloads.try_recv() {
            requests.push(request);
        }
        // Without a result they are dropped, which tells them that we are stopping.
        let Some(result) = self.reload(true).await? else { return Ok(()) };
        for request in requests {
            // Whoever asked may have gone: fine.
            let _ = request.reply.send(result.clone());
        }
        Ok(())
    }

    /// Reads everything again, also sources that are no files if somebody asked for this, and applies it if all of it is
    /// valid. The inner result is for whoever asked; there is none when a signal to stop came first.
    pub(super) async fn reload(&mut self, asked: bool) -> Result<Option<Result<String, String>>, DaemonError> {
        self.options.notify.reloading();
        let reloaded = self.load_and_apply(asked).await?;
        let status = in_short(&self.shared.running());
        match &reloaded {
            Some(Ok(_)) => self.options.notify.ready(&status),
            Some(Err(_)) => self.options.notify.ready(&format!("{status}; the last reload was refused, see the log")),
            // The drain is next, and says so itself.
            None => {}
        }
        Ok(reloaded)
    }

    async fn load_and_apply(&mut self, asked: bool) -> Result<Option<Result<String, String>>, DaemonError> {
        let Some((read, stale)) = self.read(asked).await? else { return Ok(None) };
        let Reading { config, seen } = match read {
            Ok(reading) => reading,
            Err(why) => {
                self.watcher.pass_over();
                return Ok(Some(Err(self.refuse(&[why]))));
            }
        };
        let result = match config {
            Ok(config) => self.apply(config, &stale).await?,
            Err(rejected) => Err(self.refuse(rejected.messages())),
        };
        let following = self.shared.running().following.clone();
        self.watcher.follow(following.watch.then_some(seen));
        if let Some(follower) = &self.follower {
            follower.set_refresh(following.refresh);
        }
        Ok(Some(result))
    }

    /// Goes over to a valid configuration, unless it differs in what can't change. Of sources that could not be had, for the
    /// reasons in `stale`, it has what they said last.
    async fn apply(&mut self, config: Config, stale: &[Reason]) -> Result<Result<String, String>, DaemonError> {
        let frozen = config::frozen_differences(&self.shared.running(), &config);
        if !frozen.is_empty() {
            return Ok(Err(self.refuse(&frozen)));
        }
        self.resolver.read_files().await;
        let difference = self.fleet.apply(&config).await.map_err(DaemonError::Worker)?;
        self.seat.follow(&config, &mut self.fleet).await.map_err(DaemonError::Worker)?;
        warn_of_descriptors(&config);
        self.shared.set_running(config);
        self.vitals.reload_succeeded();
        self.status.reload_succeeded();
        let stale: Vec<_> = stale.iter().map(|reason| reason.label()).collect();
        let stale = (!stale.is_empty()).then(|| stale.join(", "));
        info!(
            added = difference.added,
            removed = difference.removed,
            changed = difference.changed,
            unchanged = difference.unchanged,
            source_not_had = stale,
            "reloaded"
        );
        let stale = stale.map_or_else(String::new, |reasons| {
            format!("; the source could not be had ({reasons}), its last text was used")
        });
        Ok(Ok(format!(
            "reloaded: {} added, {} removed, {} changed, {} unchanged{stale}\n",
            difference.added, difference.removed, difference.changed, difference.unchanged
        )))
    }

    /// Reads all sources again, or says why that can't be done; and why sources that are no files could not be had. None when a
    /// signal to stop came first. That may take long, so changes of our part of the streams go on meanwhile.
    async fn read(&mut self, asked: bool) -> Result<Option<(Result<Reading, String>, Vec<Reason>)>, DaemonError> {
        let sources = &mut self.options.sources;
        let read = async {
            let mut stale = Vec::new();
            if let Some(follower) = &self.follower {
                if asked {
                    stale = follower.ask().await;
                }
                sources.fetched = follower.texts();
            }
            let sources = sources.clone();
            let mut reading = tokio::task::spawn_blocking(move || config::read(&sources));
            let read = timeout(MAX_LOADING, &mut reading).await;
            let read = read.map(|read| read.map_err(|error| error.to_string()));
            let read = read.unwrap_or_else(|_| {
                reading.abort();
                Err(format!("the files could not be read within {} seconds", MAX_LOADING.as_secs()))
            });
            (read, stale)
        };
        let mut read = pin!(self.shared.meanwhile(read));
        loop {
            tokio::select! {
                biased;
                () = self.signals.stop_comes() => {
                    info!("reload given up: asked to stop");
                    return Ok(None);
                }
                read = &mut read => return Ok(Some(read)),
                event = self.seat.next() => {
                    self.seat.handle(event, &mut self.fleet).await.map_err(DaemonError::Worker)?;
                }
            }
        }
    }

    fn refuse(&self, messages: &[String]) -> String {
        self.vitals.reload_failed();
        for message in messages {
            error!(mistake = message.as_str(), "reload refused, the running configuration stays");
        }
        let mut text = messages.join("\n");
        text.push('\n');
        self.status.reload_failed(&text);
        text
    }
}

/// Waits until a source that is no file has another text, if there is one.
pub(super) async fn changed(follower: &mut Option<Follower>) {
    match follower {
        Some(follower) => follower.changed().await,
        None => std::future::pending().await,
    }
}
