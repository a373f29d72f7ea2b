//! Sources of the configuration that are no files: fetched when the daemon starts, and asked for a change every so often.
//!
//! [`gather`] fetches all of them once, or says which can't be had. A [`Follower`] asks again, with the validators of the
//! last answer, so that what has not changed costs a few hundred bytes. Promises: the latest whole answer is kept while a
//! source is away; size and time of an answer are bounded; no redirect is followed, so that a token goes nowhere but where
//! the operator sent it; and a state is logged when it changes, not each time.
//!
//! Left out: what is in an answer. Whether it is a configuration is for [`config`](crate::config) to say.

mod ask;
mod credentials;
mod follow;
mod location;
mod s3;
mod sigv4;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http::header::{
    AUTHORIZATION, CONTENT_TYPE, DATE, ETAG, HeaderMap, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED,
};
use http::{HeaderValue, StatusCode};
use tokio::task::LocalSet;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

pub use self::follow::Follower;

use self::ask::Answer;
use self::credentials::Wallet;
use self::location::{Location, Place};
use crate::clock;
use crate::config::{Fetched, Sources, Syntax, is_remote};
use crate::net::{Resolver, ResolverService, Tls};
use crate::outcome::labels;
use crate::signals::{Signal, SignalStream};

/// How long a source is tried when the daemon starts.
const START_PATIENCE: Duration = Duration::from_secs(15);
/// The pause after the first try of these; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// How long an answer may take, from the lookup to its last byte.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a text must have been as it is before its time of change tells it from the next one. That has whole seconds, of a
/// clock that may not be the one of whoever answers.
const SETTLED: Duration = Duration::from_secs(60);
/// Largest file of a token, in bytes.
const MAX_TOKEN: u64 = 64 << 10;

labels! {
    /// Why a source could not be had.
    Reason {
        /// Its name leads nowhere.
        Dns => "dns",
        /// No connection to it.
        Connect => "connect",
        /// No TLS with it, or not with who it should be.
        Tls => "tls",
        /// No whole answer in time.
        Timeout => "timeout",
        /// What it says is no HTTP, or nothing that was asked for.
        Protocol => "protocol",
        /// It says no, or that it fails.
        Status => "status",
        /// It says that it is elsewhere.
        Redirect => "redirect",
        /// The text is larger than a configuration may be.
        TooLarge => "too_large",
        /// There is nothing to prove with who we are.
        Credentials => "credentials",
    }
}

/// Why a source could not be had, in words.
#[derive(Debug)]
struct Failure {
    reason: Reason,
    text: String,
    /// Whether it may well be otherwise in a moment.
    passing: bool,
}

impl Failure {
    /// One that may pass.
    fn passing(reason: Reason, text: impl Into<String>) -> Self {
        Self { reason, text: text.into(), passing: true }
    }

    /// One that stays until somebody does something about it.
    fn lasting(reason: Reason, text: impl Into<String>) -> Self {
        Self { reason, text: text.into(), passing: false }
    }
}

/// Why there is no configuration to start with.
#[derive(Debug)]
pub enum Missing {
    /// A source is named in a way that names none.
    Name(String),
    /// A source can't be had.
    Source(String),
    /// No runtime or no signals can be had.
    Start(io::Error),
    /// A signal to stop came first.
    Stopped,
}

/// What is counted, for the metrics.
#[derive(Debug, Default)]
pub struct Stats {
    down: AtomicBool,
    success_ms: AtomicU64,
    changed: AtomicU64,
    unchanged: AtomicU64,
    failures: [AtomicU64; Reason::COUNT],
}

/// All such sources, as they were when they were asked last.
pub struct Remote {
    sources: Vec<Source>,
    /// The variables of the environment that name tokens and credentials.
    variables: BTreeMap<String, String>,
    stats: Arc<Stats>,
}

struct Source {
    location: Location,
    latest: Option<Fetched>,
    etag: Option<HeaderValue>,
    /// Only one that can be relied on.
    last_modified: Option<HeaderValue>,
    /// Made when it is first needed, and again after it failed: then the system's roots are read again.
    tls: Option<Rc<Tls>>,
    wallet: Wallet,
    /// Why the last try failed.
    fault: Option<Reason>,
}

/// Fetches those of the sources that are no files, and puts their texts among them. None when there is none.
pub fn gather(sources: &mut Sources) -> Result<Option<Remote>, Missing> {
    let Some(mut remote) = Remote::new(sources)? else { return Ok(None) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Missing::Start)?;
    let gathered = LocalSet::new().block_on(&runtime, async {
        let mut signals = SignalStream::new().map_err(Missing::Start)?;
        let (service, resolver) = ResolverService::new();
        tokio::spawn(service.run());
        tokio::select! {
            biased;
            () = stop(&mut signals) => Err(Missing::Stopped),
            first = remote.first(&resolver) => first,
        }
    });
    // A lookup that nobody answers must not hold us up.
    runtime.shutdown_background();
    gathered?;
    sources.fetched = remote.texts();
    Ok(Some(remote))
}

/// Waits for a signal to stop: there is nothing yet that the others could mean.
async fn stop(signals: &mut SignalStream) {
    while !matches!(signals.next().await, Signal::Stop { .. }) {}
}

impl Remote {
    fn new(sources: &Sources) -> Result<Option<Self>, Missing> {
        let mut remote = Vec::new();
        for file in sources.files.iter().filter(|file| is_remote(file)) {
            let location = Location::parse(file).map_err(Missing::Name)?;
            remote.push(Source {
                location,
                latest: None,
                etag: None,
                last_modified: None,
                tls: None,
                wallet: Wallet::default(),
                fault: None,
            });
        }
        if remote.is_empty() {
            return Ok(None);
        }
        let ours = |name: &str| name.starts_with("AWS_") || name.starts_with("HAMMERD_CONFIG_TOKEN");
        let variables = sources.env.iter().filter(|(name, value)| ours(name) && !value.is_empty()).cloned().collect();
        Ok(Some(Self { sources: remote, variables, stats: Arc::default() }))
    }

    /// What is counted of them.
    pub fn stats(&self) -> &Arc<Stats> {
        &self.stats
    }

    /// The latest text of each.
    fn texts(&self) -> BTreeMap<PathBuf, Fetched> {
        let text = |source: &Source| Some((source.location.path.clone(), source.latest.clone()?));
        self.sources.iter().filter_map(text).collect()
    }

    /// Why some could not be had when they were asked last; each reason once.
    fn faults(&self) -> Vec<Reason> {
        let is_met = |reason: &Reason| self.sources.iter().any(|source| source.fault == Some(*reason));
        Reason::ALL.into_iter().filter(is_met).collect()
    }

    /// Fetches each for the first time, and tries again what may pass.
    async fn first(&mut self, resolver: &Resolver) -> Result<(), Missing> {
        let mut last = None;
        let all = async {
            for source in &mut self.sources {
                let mut pause = FIRST_PAUSE;
                while let Err(failure) = source.ask(&self.variables, resolver).await {
                    let text = format!("{}: {}", source.location.shown, failure.text);
                    if !failure.passing {
                        return Err(text);
                    }
                    last = Some(text);
                    sleep(pause).await;
                    pause *= 2;
                }
                last = None;
            }
            Ok(())
        };
        let all = timeout(START_PATIENCE, all).await;
        let why = match all {
            Ok(Ok(())) => {
                self.stats.all_answered();
                return Ok(());
            }
            Ok(Err(why)) => why,
            Err(_) => {
                let silent = || "no source has answered".to_owned();
                format!("{} (tried for {} seconds)", last.unwrap_or_else(silent), START_PATIENCE.as_secs())
            }
        };
        Err(Missing::Source(why))
    }

    /// Asks each for a change; true when one has another text than before.
    async fn refresh(&mut self, resolver: &Resolver) -> bool {
        let (mut changed, mut all_answered) = (false, true);
        for source in &mut self.sources {
            match source.ask(&self.variables, resolver).await {
                Ok(news) => {
                    let count = if news { &self.stats.changed } else { &self.stats.unchanged };
                    count.fetch_add(1, Ordering::Relaxed);
                    changed |= news;
                    if source.fault.take().is_some() {
                        info!(source = source.location.shown, "a source of the configuration answers again");
                    }
                }
                Err(Failure { reason, text, .. }) => {
                    // Before it is counted, so that nobody sees the one without the other.
                    self.stats.down.store(true, Ordering::Relaxed);
                    self.stats.failures[reason.index()].fetch_add(1, Ordering::Relaxed);
                    all_answered = false;
                    if source.fault != Some(reason) {
                        warn!(
                            source = source.location.shown,
                            reason = reason.label(),
                            cause = text,
                            "a source of the configuration can't be had, what it said last stays"
                        );
                    }
                    source.fault = Some(reason);
                }
            }
        }
        if all_answered {
            self.stats.all_answered();
        }
        changed
    }
}

impl Source {
    /// Asks for the text, unless it is still the one that is known; true when it is another one.
    async fn ask(&mut self, variables: &BTreeMap<String, String>, resolver: &Resolver) -> Result<bool, Failure> {
        let late = |_| Err(Failure::passing(Reason::Timeout, format!("no whole answer within {PATIENCE:?}")));
        let asked = timeout(PATIENCE, self.get(variables, resolver)).await.unwrap_or_else(late);
        let Answer { status, headers, body } = asked.inspect_err(|failure| {
            if failure.reason == Reason::Tls {
                self.tls = None;
            }
        })?;
        if status == StatusCode::NOT_MODIFIED && self.latest.is_some() {
            return Ok(false);
        }
        if status != StatusCode::OK {
            return Err(Failure::lasting(Reason::Protocol, format!("it answers {status}, which was not asked for")));
        }
        let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).and_then(Syntax::of_type);
        let syntax = kind.unwrap_or_else(|| self.location.syntax());
        let next = Fetched { shown: self.location.shown.clone(), text: body, syntax };
        self.etag = headers.get(ETAG).cloned();
        self.last_modified = settled(&headers);
        let news = self.latest.as_ref() != Some(&next);
        self.latest = Some(next);
        Ok(news)
    }

    async fn get(&mut self, variables: &BTreeMap<String, String>, resolver: &Resolver) -> Result<Answer, Failure> {
        let mut headers = HeaderMap::new();
        if self.latest.is_some() {
            let tag = self.etag.clone().map(|value| (IF_NONE_MATCH, value));
            headers.extend(tag.or_else(|| Some((IF_MODIFIED_SINCE, self.last_modified.clone()?))));
        }
        match &self.location.place {
            Place::Http(endpoint) => {
                headers.extend(token(variables).await?.map(|token| (AUTHORIZATION, token)));
                ask::get(endpoint, headers, &mut self.tls, resolver).await
            }
            Place::S3(object) => {
                let (endpoint, signed) = object.signed(variables, &mut self.wallet, resolver).await?;
                headers.extend(signed);
                let answer = ask::get(&endpoint, headers, &mut self.tls, resolver).await;
                // They may have expired.
                answer.inspect_err(|_| self.wallet.forget())
            }
        }
    }
}

/// When the text changed last, if that was long enough before the answer: another change in the same second would go unseen.
fn settled(headers: &HeaderMap) -> Option<HeaderValue> {
    let time = |value: &HeaderValue| httpdate::parse_http_date(value.to_str().ok()?).ok();
    let changed = headers.get(LAST_MODIFIED)?;
    let age = time(headers.get(DATE)?)?.duration_since(time(changed)?).ok()?;
    (age >= SETTLED).then(|| changed.clone())
}

/// The header that says who we are, if anything is to be said.
async fn token(variables: &BTreeMap<String, String>) -> Result<Option<HeaderValue>, Failure> {
    const NAME: &str = "HAMMERD_CONFIG_TOKEN";
    let file_name = format!("{NAME}_FILE");
    let (name, token) = match (variables.get(NAME), variables.get(&file_name)) {
        (Some(token), _) => (NAME, token.clone()),
        (None, Some(file)) => (file_name.as_str(), text_of(&file_name, file.into()).await?),
        (None, None) => return Ok(None),
    };
    let value = HeaderValue::try_from(format!("Bearer {}", token.trim()));
    let mut value = value.map_err(|_| {
        let text = format!("{name}: its value (not shown) has characters that a header can't carry");
        Failure::lasting(Reason::Credentials, text)
    })?;
    value.set_sensitive(true);
    Ok(Some(value))
}

/// The content of a file that a variable names.
async fn text_of(variable: &str, path: PathBuf) -> Result<String, Failure> {
    let shown = path.display().to_string();
    let read = move || {
        let mut text = String::new();
        io::Read::read_to_string(&mut io::Read::take(std::fs::File::open(path)?, MAX_TOKEN), &mut text)?;
        Ok::<_, io::Error>(text)
    };
    let read = tokio::task::spawn_blocking(read).await.map_err(io::Error::other).and_then(|read| read);
    read.map_err(|error| Failure::lasting(Reason::Credentials, format!("{variable}: {shown}: {error}")))
}

impl Stats {
    /// Whether every source answered when it was last asked.
    pub fn up(&self) -> bool {
        !self.down.load(Ordering::Relaxed)
    }

    /// When all sources answered last, in milliseconds since 1970; 0 when there is none.
    pub fn success_ms(&self) -> u64 {
        self.success_ms.load(Ordering::Relaxed)
    }

    /// Answers so far that brought another text, and those that did not.
    pub fn answers(&self) -> (u64, u64) {
        (self.changed.load(Ordering::Relaxed), self.unchanged.load(Ordering::Relaxed))
    }

    /// Failures so far, by [`Reason`].
    pub fn failures(&self) -> [u64; Reason::COUNT] {
        std::array::from_fn(|index| self.failures[index].load(Ordering::Relaxed))
    }

    fn all_answered(&self) {
        self.down.store(false, Ordering::Relaxed);
        self.success_ms.store(clock::unix_ms(), Ordering::Relaxed);
    }
}

impl fmt::Debug for Remote {
    /// Without the variables, which are secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: Vec<_> = self.sources.iter().map(|source| &source.location.shown).collect();
        f.debug_struct("Remote").field("sources", &shown).finish_non_exhaustive()
    }
}
