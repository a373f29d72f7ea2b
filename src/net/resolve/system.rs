//! What the system's files say about names: `/etc/resolv.conf` and `/etc/hosts`, read again when they change.
//!
//! They are looked at when somebody asks for a name, and at a reload. A `resolv.conf` that can't be used leaves in force
//! what it said before.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::ProtoError;
use hickory_resolver::proto::rr::Name;
use hickory_resolver::system_conf::parse_resolv_conf;
use tracing::{info, warn};

use crate::net::Family;

/// How long the files are not looked at again, however many names are asked for.
const MIN_PAUSE: Duration = Duration::from_secs(1);
/// More than this of a file is not read.
const MAX_FILE_BYTES: u64 = 16 << 20;
/// How long "no such name" is believed: a zone may say a day, but a target should be back as soon as its name is.
const MAX_NEGATIVE_TTL: Duration = Duration::from_secs(1);

/// The system's files, as they were last read.
pub(super) struct System {
    resolv_conf: Watched,
    hosts: Watched,
    /// When they were last looked at.
    looked: Option<Instant>,
    config: ResolverConfig,
    options: ResolverOpts,
    /// Why `config` is nobody's, if it is.
    unusable: Option<String>,
    /// Addresses by name, in small letters and without a dot at the end.
    listed: HashMap<String, Vec<IpAddr>>,
}

/// Which of the files say something else than before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Change {
    /// `resolv.conf`.
    pub(super) servers: bool,
    /// The hosts file.
    pub(super) hosts: bool,
}

impl System {
    /// Files at these paths, none of which has been read yet.
    pub(super) fn new(resolv_conf: impl Into<PathBuf>, hosts: impl Into<PathBuf>) -> Self {
        Self {
            resolv_conf: Watched::new(resolv_conf.into()),
            hosts: Watched::new(hosts.into()),
            looked: None,
            config: ResolverConfig::default(),
            options: ResolverOpts::default(),
            unusable: None,
            listed: HashMap::new(),
        }
    }

    /// Reads what has changed, unless that was looked at a moment ago.
    pub(super) fn look(&mut self, now: Instant) -> Change {
        if self.looked.is_some_and(|looked| now.saturating_duration_since(looked) < MIN_PAUSE) {
            return Change::default();
        }
        self.looked = Some(now);
        self.read(false)
    }

    /// Looks into both files, whatever they look like from outside, if anybody has asked for a name yet.
    pub(super) fn read_again(&mut self) -> Change {
        if self.looked.is_none() { Change::default() } else { self.read(true) }
    }

    fn read(&mut self, anyway: bool) -> Change {
        let servers = self.resolv_conf.news(anyway).is_some_and(|content| self.take_resolv_conf(content));
        let hosts = self.hosts.news(anyway).is_some_and(|content| self.take_hosts(content));
        Change { servers, hosts }
    }

    /// True when the servers or how they are asked may be others now.
    fn take_resolv_conf(&mut self, content: io::Result<Vec<u8>>) -> bool {
        let path = self.resolv_conf.path.display();
        let content = content.map_err(|error| error.to_string());
        match content.and_then(|content| parse_resolv_conf(content).map_err(|error| error.to_string())) {
            Ok((config, options)) => {
                if self.unusable.is_some() || !self.config.name_servers().is_empty() {
                    info!(file = %path, servers = config.name_servers().len(), "read the resolver config again");
                }
                (self.config, self.options, self.unusable) = (config, options, None);
                true
            }
            Err(error) if !self.config.name_servers().is_empty() => {
                warn!(file = %path, %error, "the resolver config can't be used: what it said before stays in force");
                false
            }
            Err(error) => {
                warn!(file = %path, %error, "name lookups don't work: no usable resolver config");
                self.unusable = Some(format!("no usable resolver config: {path}: {error}"));
                true
            }
        }
    }

    /// True when it lists other names or addresses now.
    fn take_hosts(&mut self, content: io::Result<Vec<u8>>) -> bool {
        let listed = match content {
            Ok(content) => listed_in(&String::from_utf8_lossy(&content)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => HashMap::new(),
            Err(error) => {
                let path = self.hosts.path.display();
                warn!(file = %path, %error, "the hosts file can't be read: what it said before stays in force");
                return false;
            }
        };
        let changed = self.listed != listed;
        self.listed = listed;
        changed
    }

    /// The addresses of a name in the hosts file, of this family.
    pub(super) fn listed(&self, host: &str, family: Family) -> impl Iterator<Item = IpAddr> {
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let addresses = self.listed.get(&host).map(Vec::as_slice).unwrap_or_default();
        addresses.iter().copied().filter(move |&address| family.counts(address))
    }

    /// Why lookups that name no server of their own can only fail, if they can.
    pub(super) fn unusable(&self) -> Option<&str> {
        self.unusable.as_deref()
    }

    /// Asks these servers, or the system's if there are none, one name at a time and nothing but the network.
    pub(super) fn resolver(&self, servers: &[SocketAddr], cached: bool) -> Result<TokioResolver, NetError> {
        let servers = match servers {
            [] => self.config.name_servers().to_vec(),
            servers => servers.iter().copied().map(name_server).collect(),
        };
        let config = ResolverConfig::from_parts(None, Vec::new(), servers);
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let options = builder.options_mut();
        *options = self.options.clone();
        options.use_hosts_file = ResolveHosts::Never;
        options.negative_max_ttl = Some(MAX_NEGATIVE_TTL);
        if !cached {
            options.cache_size = 0;
        }
        builder.build()
    }

    /// The names that a host may mean, in the order in which they are tried (resolv.conf(5): `search`, `ndots`).
    pub(super) fn candidates(&self, host: &str) -> Result<Vec<Name>, ProtoError> {
        let name = Name::from_utf8(host)?;
        if name.is_fqdn() {
            return Ok(vec![name]);
        }
        let mut plain = name.clone();
        plain.set_fqdn(true);
        let plain_first = usize::from(name.num_labels()) > self.options.ndots || name.is_localhost();
        let domains = self.config.domain().into_iter().chain(self.config.search());
        // Too long with a domain behind it: it can't mean that.
        let extended = domains.filter_map(|domain| name.clone().append_domain(domain).ok());
        let (first, last) = if plain_first { (Some(plain), None) } else { (None, Some(plain)) };
        let mut names = Vec::new();
        for name in first.into_iter().chain(extended).chain(last) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        Ok(names)
    }
}

fn name_server(address: SocketAddr) -> NameServerConfig {
    let mut server = NameServerConfig::udp_and_tcp(address.ip());
    for connection in &mut server.connections {
        connection.port = address.port();
    }
    server
}

/// The names and addresses of a hosts file (hosts(5)). Lines that begin otherwise than with an address say nothing.
fn listed_in(text: &str) -> HashMap<String, Vec<IpAddr>> {
    let mut listed: HashMap<String, Vec<IpAddr>> = HashMap::new();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let Some(Ok(address)) = words.next().map(str::parse) else { continue };
        for name in words {
            let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
            listed.entry(name).or_default().push(address);
        }
    }
    listed
}

/// A file that is read again when it is another one or has changed.
struct Watched {
    path: PathBuf,
    was_read: bool,
    /// What it was then, if it was there.
    stamp: Option<Stamp>,
    /// What it said then.
    content: Option<Vec<u8>>,
}

/// Tells one state of a file from another.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    identity: (u64, u64),
    size: u64,
    modified: (i64, i64),
    /// Also moves when the time of modification is set by hand, or when the file may now be read.
    changed: (i64, i64),
}

impl Watched {
    fn new(path: PathBuf) -> Self {
        Self { path, was_read: false, stamp: None, content: None }
    }

    /// What it says, if that is not what it said before.
    fn news(&mut self, anyway: bool) -> Option<io::Result<Vec<u8>>> {
        let stamp = fs::metadata(&self.path).ok().map(|file| Stamp {
            identity: (file.dev(), file.ino()),
            size: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        });
        if self.was_read && self.stamp == stamp && !anyway {
            return None;
        }
        (self.was_read, self.stamp) = (true, stamp);
        let content = self.read();
        let said = content.as_ref().ok();
        if said.is_some() && said == self.content.as_ref() {
            return None;
        }
        self.content = said.cloned();
        Some(content)
    }

    fn read(&self) -> io::Result<Vec<u8>> {
        let file = File::open(&self.path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("not a file"));
        }
        let mut content = Vec::new();
        file.take(MAX_FILE_BYTES).read_to_end(&mut content)?;
        Ok(content)
    }
}
