//! Asks the sources for a change every so often, beside the control loop.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};

use super::{PATIENCE, Reason, Remote};
use crate::clock;
use crate::config::Fetched;
use crate::net::Resolver;

type Texts = BTreeMap<PathBuf, Fetched>;
/// To whoever asked: why sources could not be had.
type Reply = oneshot::Sender<Vec<Reason>>;

/// Sources that are asked again and again. On the control thread, where its task is one of those of the `LocalSet`.
#[derive(Debug)]
pub struct Follower {
    texts: Rc<RefCell<Texts>>,
    asks: mpsc::Sender<Reply>,
    changes: mpsc::Receiver<()>,
    refresh: watch::Sender<Duration>,
}

impl Follower {
    /// Begins to ask, about every `refresh`.
    pub fn start(remote: Remote, refresh: Duration, resolver: Resolver) -> Self {
        let texts = Rc::new(RefCell::new(remote.texts()));
        let (asks, asked) = mpsc::channel(1);
        // One: a change that nobody has looked at yet stands for those after it.
        let (tell, changes) = mpsc::channel(1);
        let (refresh, every) = watch::channel(refresh);
        tokio::task::spawn_local(poll(remote, resolver, Rc::clone(&texts), asked, tell, every));
        Self { texts, asks, changes, refresh }
    }

    /// The latest text of each source.
    pub fn texts(&self) -> Texts {
        self.texts.borrow().clone()
    }

    /// Asks every `refresh` from now on.
    pub fn set_refresh(&self, refresh: Duration) {
        self.refresh.send_if_modified(|every| std::mem::replace(every, refresh) != refresh);
    }

    /// Asks all sources now, and waits for what they say, but not for ever. Of those that can't be had what they said before
    /// stays; returns why, empty when all have answered.
    pub async fn ask(&self) -> Vec<Reason> {
        let (done, asked) = oneshot::channel();
        let ask = async {
            // Its task only ends with us.
            let _ = self.asks.send(done).await;
            asked.await.unwrap_or_default()
        };
        timeout(PATIENCE, ask).await.unwrap_or_else(|_| vec![Reason::Timeout])
    }

    /// Waits until a source has another text than before, and nobody had [asked](Self::ask).
    pub async fn changed(&mut self) {
        if self.changes.recv().await.is_none() {
            // Its task only ends with us.
            std::future::pending::<()>().await;
        }
    }
}

async fn poll(
    mut remote: Remote,
    resolver: Resolver,
    texts: Rc<RefCell<Texts>>,
    mut asks: mpsc::Receiver<Reply>,
    tell: mpsc::Sender<()>,
    mut every: watch::Receiver<Duration>,
) {
    loop {
        let pause = jittered(*every.borrow_and_update());
        let asked = tokio::select! {
            asked = asks.recv() => match asked {
                Some(done) => Some(done),
                None => return,
            },
            changed = every.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
            () = sleep(pause) => None,
        };
        let changed = remote.refresh(&resolver).await;
        if changed {
            *texts.borrow_mut() = remote.texts();
        }
        // Whoever asked may have given up: then it is a change as any other.
        let heard = asked.is_some_and(|done| done.send(remote.faults()).is_ok());
        if changed && !heard {
            // Full when one waits already.
            let _ = tell.try_send(());
        }
    }
}

/// Give or take a tenth, so that a fleet of us does not ask all at once.
fn jittered(refresh: Duration) -> Duration {
    let tenths = RandomState::new().hash_one(clock::now_ns()) % 2001;
    refresh.mul_f64(0.9 + tenths as f64 / 10_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_is_the_interval_give_or_take_a_tenth() {
        let all: Vec<_> = (0..1000).map(|_| jittered(Duration::from_secs(30))).collect();
        assert!(all.iter().all(|pause| (Duration::from_secs(27)..=Duration::from_secs(33)).contains(pause)));
        let (least, most) = (all.iter().min().expect("some"), all.iter().max().expect("some"));
        assert!(*most > *least + Duration::from_secs(3), "{least:?} to {most:?}");
    }
}
