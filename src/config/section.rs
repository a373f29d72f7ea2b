//! The one list of keys: reading, defaults, unknown-key hints and the JSON Schema all come from it.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use serde_json::{Value as Json, json};

use super::TargetName;
use super::error::{Mistakes, Place, join, quote};
use super::kind::{
    Address, Body, Buckets, ConnectTo, Count, FamilyWord, FilePath, Flag, HeaderFiles, Headers, HttpVersionWord,
    IdHeader, Kind, Labels, Listen, Members, Method, Networks, Process, RateText, RefreshText, ServerName, Servers,
    Size, Span, Statuses, TlsVersionWord, TraceparentWord, Url, Workers,
};
use super::node::{Node, Shape, Table};

/// What a key held.
#[derive(Debug, Clone, Default)]
pub(super) enum Slot<T> {
    /// Not set.
    #[default]
    Absent,
    /// Set to something that was not accepted, and reported.
    Refused,
    /// Set.
    Found(Found<T>),
}

/// An accepted value, where it was set, and whether it may be shown.
#[derive(Debug, Clone)]
pub(super) struct Found<T> {
    pub(super) value: T,
    pub(super) place: Place,
    pub(super) secret: bool,
}

/// One key of a section.
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) default: Option<fn() -> Json>,
    pub(super) schema: fn() -> Json,
}

/// A table with a fixed set of keys.
pub(super) trait Section: Sized {
    const ABOUT: &'static str;
    const KEYS: &'static [Key];

    /// Reads every key, noting unknown ones.
    fn read(table: &Table, path: &str, mistakes: &mut Mistakes) -> Self;
}

/// Declares a section: each `name: Kind = default` is a field, a key, and a property of the schema.
macro_rules! section {
    ($(#[doc = $about:literal])+ $section:ident { $($(#[doc = $help:literal])+ $key:ident: $kind:ty $(= $default:tt)?,)+ }) => {
        $(#[doc = $about])+
        #[derive(Debug, Default)]
        pub(super) struct $section {
            $($(#[doc = $help])+ pub(super) $key: Slot<<$kind as Kind>::Value>,)+
        }

        impl Section for $section {
            const ABOUT: &'static str = concat!($($about),+);
            const KEYS: &'static [Key] = &[$(Key {
                name: stringify!($key),
                help: concat!($($help),+),
                default: section!(@default $($default)?),
                schema: <$kind as Kind>::schema,
            }),+];

            fn read(table: &Table, path: &str, mistakes: &mut Mistakes) -> Self {
                let mut section = Self::default();
                for (name, node) in table {
                    match name.as_str() {
                        $(stringify!($key) => section.$key = slot::<$kind>(node, &join(path, name), mistakes),)+
                        _ => mistakes.unknown_key(node.place, path, name, Self::KEYS.iter().map(|key| key.name)),
                    }
                }
                section
            }
        }
    };
    (@default) => { None };
    (@default $default:tt) => { Some(|| json!($default)) };
}

section! {
    /// The configuration of hammerd.
    Root {
        /// How the configuration itself is followed.
        config: Nested<Following>,
        /// The HTTP face: metrics, health and status.
        server: Nested<Server>,
        /// How the process ends.
        shutdown: Nested<Shutdown>,
        /// The load path.
        engine: Nested<Engine>,
        /// Ceilings that no target and no sum of targets may break.
        limits: Nested<Limits>,
        /// The shape of the latency histograms.
        metrics: Nested<Metrics>,
        /// Replicas that share every stream: each sends its part, and all together are one even stream.
        shard: Nested<Shard>,
        /// What holds for every target that does not say otherwise. Headers and labels are merged name by name.
        defaults: Nested<Target>,
        /// The streams of requests, by name.
        targets: Named<Target>,
    }
}

section! {
    /// How the configuration itself is followed.
    Following {
        /// Whether its files, and those that it names, are watched: a change is validated and applied as a reload.
        watch: Flag = false,
        /// How often a source that is no file (`https://`, `s3://`) is asked for a change, give or take a tenth.
        refresh: Span<1_000_000, 86_400_000_000> = "30s",
    }
}

section! {
    /// The HTTP face: metrics, health and status.
    Server {
        /// Address and port to listen on; ":9955" is every IPv4 address, "off" switches it off.
        listen: Listen = "127.0.0.1:9955",
        /// Whether POST /-/reload is allowed.
        lifecycle: Flag = false,
    }
}

section! {
    /// How the process ends.
    Shutdown {
        /// How long requests in flight may take to finish.
        grace: Span<0, 3_600_000_000> = "20s",
        /// How long /metrics waits for one more scrape after that.
        linger: Span<0, 3_600_000_000> = "5s",
    }
}

section! {
    /// The load path.
    Engine {
        /// Worker threads; "auto" chooses from the planned rate, the processors and the CPU quota.
        workers: Workers = "auto",
        /// How long an arrival may wait to share a wake-up with others.
        coalesce: Span<0, 100_000> = "250us",
        /// An arrival later than this is dropped instead of sent.
        late_after: Span<1_000, 3_600_000_000> = "100ms",
    }
}

section! {
    /// Ceilings that no target and no sum of targets may break.
    Limits {
        /// Largest sum of all targets' rates.
        max_total_rate: RateText = "100000/s",
        /// Largest number of requests in flight at once, over all targets.
        max_total_in_flight: Count<1, 1_000_000> = 10_000,
        /// Largest number of targets.
        max_targets: Count<1, 100_000> = 10_000,
        /// Largest request or response body.
        max_body: Size = "10MiB",
        /// Networks that are never dialled, checked after name resolution.
        deny_networks: Networks = ["169.254.0.0/16", "fe80::/10"],
        /// When not empty, the only networks that may be dialled.
        allow_networks: Networks = [],
    }
}

section! {
    /// The shape of the latency histograms.
    Metrics {
        /// Upper bounds of the classic buckets in seconds, rising. A target whose timeout is above the last one has one
        /// more, its timeout.
        buckets: Buckets = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0],
        /// Resolution of the native histograms: `2^native_schema` buckets in each power of two.
        native_schema: Count<0, 6> = 3,
    }
}

section! {
    /// Replicas that share every stream: each sends its part, and all together are one even stream.
    Shard {
        /// Which replica this is, from 0 on: it sends the arrivals k with `k mod count = index`.
        index: Count<0, 65_535>,
        /// How many replicas there are.
        count: Count<1, 65_536>,
        /// In place of index and count: a name whose A or AAAA records are the replicas, such as that of a headless
        /// service. Its place in the sorted list is a replica's index.
        members: Members,
        /// Our own address in that list; found among those of the machine when not set.
        address: Address,
        /// How often the list is read. It holds, and so does an index that a reload brings, from a multiple of this on: at
        /// the same instant in all replicas.
        refresh: Span<1_000_000, 3_600_000_000> = "5s",
    }
}

section! {
    /// One stream of requests.
    Target {
        /// Where requests go: `http[s]://host[:port]/path?query`.
        url: Url,
        /// File that holds the URL, for one with a secret in it; read again on every reload.
        url_file: FilePath,
        /// How often: a count and the time that it is spread over.
        rate: RateText,
        /// How arrivals lie in time: "even" is one after the other at equal gaps, "burst" is several at once.
        process: Process = "even",
        /// With process = "burst": how many requests leave at the same instant. The rate stays the same.
        burst: Count<1, 100_000>,
        /// Request method.
        method: Method = "GET",
        /// Request headers by name.
        headers: Headers,
        /// Request headers whose values are kept in files, by name; read again on every reload.
        headers_file: HeaderFiles,
        /// Name of a header that carries an id in every request, as in "x-request-id": 32 hexadecimal digits, never the
        /// same twice, by which a request is found again in the target's log.
        request_id_header: IdHeader,
        /// Whether every request carries a trace context of its own in the header traceparent: "off", "unsampled", or
        /// "sampled", which asks the target to record each. The trace ids stand at the latency buckets as exemplars.
        traceparent: TraceparentWord = "off",
        /// Request body.
        body: Body,
        /// File that holds the request body; read again on every reload.
        body_file: FilePath,
        /// How long a request may take, from being sent to its last byte.
        timeout: Span<1_000, 3_600_000_000> = "10s",
        /// Largest number of this target's requests in flight at once.
        max_in_flight: Count<1, 100_000> = 100,
        /// Largest response body; `limits.max_body` when not set.
        max_body: Size,
        /// Status codes that count as success, as in 204, "200-399" or "2xx".
        expect_status: Statuses = ["200-399"],
        /// Labels of `hammerd_target_info`.
        labels: Labels,
        /// Upper bounds of its classic histogram buckets in seconds, rising; `metrics.buckets` when not set.
        buckets: Buckets,
        /// Resolution of its native histograms; `metrics.native_schema` when not set.
        native_schema: Count<0, 6>,
        /// Where connections go in place of the URL's host: `host:port`, or `unix:/path` for a Unix domain socket. The
        /// Host header and the name in TLS stay.
        connect_to: ConnectTo,
        /// HTTP version: "1.1", "2" (without TLS by prior knowledge), "3" (over QUIC, for https, in a hammerd that was
        /// built with it), or "auto", which over TLS is what the server chooses of 1.1 and 2, and 1.1 without. Where
        /// `pool.reuse` is false, or the host header is no host and port, "auto" is 1.1.
        http_version: HttpVersionWord = "auto",
        /// TLS, for https.
        tls: Nested<Tls>,
        /// How names become addresses.
        dns: Nested<Dns>,
        /// Connections: how many, and for how long.
        pool: Nested<Pool>,
    }
}

section! {
    /// TLS, for https.
    Tls {
        /// File of the only CA certificates to trust, as PEM; the system's when not set.
        ca_file: FilePath,
        /// File of the client certificate and its chain, as PEM; read again when it changes.
        cert_file: FilePath,
        /// File of the client certificate's private key, as PEM.
        key_file: FilePath,
        /// The name that the certificate must be for; the URL's host when not set.
        server_name: ServerName,
        /// Lowest version: "1.2" or "1.3".
        min_version: TlsVersionWord = "1.2",
        /// Accepts any certificate: the target may be anybody.
        insecure_skip_verify: Flag = false,
        /// Whether sessions are resumed.
        resumption: Flag = true,
        /// How long a handshake may take; over HTTP/3 from the first answer on.
        handshake_timeout: Span<1_000, 3_600_000_000> = "5s",
    }
}

section! {
    /// How names become addresses.
    Dns {
        /// How often a name is looked up while the target sends: "ttl" as its records expire (not more than every 5s for
        /// connections that are open), "once", or every so often, as in "30s".
        refresh: RefreshText = "ttl",
        /// Which addresses count: "any", "ipv4" or "ipv6". A literal of the other family is refused.
        family: FamilyWord = "any",
        /// Name servers to ask, in turn; the system's when there are none.
        servers: Servers = [],
    }
}

section! {
    /// Connections: how many, and for how long.
    Pool {
        /// Largest number of connections on each worker; when not set, `max_in_flight` bounds them.
        max_connections: Count<1, 100_000>,
        /// Whether a connection may serve more than one request.
        reuse: Flag = true,
        /// A connection older than this, give or take a tenth, takes no more requests.
        max_age: Span<100_000, 86_400_000_000> = "5m",
        /// A connection takes no more requests than this.
        max_requests: Count<1, 1_000_000_000>,
        /// A connection that has idled for this long, or a tenth longer, is closed.
        idle_timeout: Span<10_000, 86_400_000_000> = "55s",
        /// Connections opened on each worker before they are needed.
        preconnect: Count<0, 10_000> = 0,
        /// How long opening a connection may take, all addresses together; over HTTP/3 until the first answer.
        connect_timeout: Span<1_000, 3_600_000_000> = "5s",
    }
}

/// Reads one value; what is broken already is not reported again.
pub(super) fn slot<K: Kind>(node: &Node, key: &str, mistakes: &mut Mistakes) -> Slot<K::Value> {
    if node.shape == Shape::Broken {
        return Slot::Refused;
    }
    match K::read(node, key, mistakes) {
        Some(value) => Slot::Found(Found { value, place: node.place, secret: node.is_secret() }),
        None => Slot::Refused,
    }
}

/// The values that hold when nobody says anything, as the lowest layer.
pub(super) fn built_in(layer: usize) -> Table {
    fn defaults<S: Section>(layer: usize) -> Node {
        let place = Place { layer, line: 0 };
        let set = S::KEYS
            .iter()
            .filter_map(|key| key.default.map(|default| (key.name.to_owned(), Node::from_json(place, &default()))));
        Node::new(place, Shape::Table(set.collect()))
    }
    let mut target = defaults::<Target>(layer);
    if let Shape::Table(table) = &mut target.shape {
        table.insert("tls".to_owned(), defaults::<Tls>(layer));
        table.insert("dns".to_owned(), defaults::<Dns>(layer));
        table.insert("pool".to_owned(), defaults::<Pool>(layer));
    }
    Table::from([
        ("config".to_owned(), defaults::<Following>(layer)),
        ("server".to_owned(), defaults::<Server>(layer)),
        ("shutdown".to_owned(), defaults::<Shutdown>(layer)),
        ("engine".to_owned(), defaults::<Engine>(layer)),
        ("limits".to_owned(), defaults::<Limits>(layer)),
        ("metrics".to_owned(), defaults::<Metrics>(layer)),
        ("shard".to_owned(), defaults::<Shard>(layer)),
        ("defaults".to_owned(), target),
    ])
}

// === impl Slot ===

impl<T> Slot<T> {
    pub(super) fn found(&self) -> Option<&Found<T>> {
        match self {
            Self::Found(found) => Some(found),
            Self::Absent | Self::Refused => None,
        }
    }

    pub(super) fn value(&self) -> Option<&T> {
        self.found().map(|found| &found.value)
    }

    /// A key of the section that this holds.
    pub(super) fn key<U>(&self, key: impl FnOnce(&T) -> &Slot<U>) -> Option<&Slot<U>> {
        self.value().map(key)
    }

    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    /// This one unless it is not set.
    pub(super) fn or<'a>(&'a self, other: &'a Self) -> &'a Self {
        if self.is_absent() { other } else { self }
    }
}

// === tables as kinds ===

/// A table that is a section.
pub(super) struct Nested<S>(PhantomData<S>);

impl<S: Section> Kind for Nested<S> {
    type Value = S;

    fn read(node: &Node, key: &str, mistakes: &mut Mistakes) -> Option<S> {
        let Shape::Table(table) = &node.shape else {
            mistakes.push(node.place, key, format!("{node} is not accepted: this is a table"));
            return None;
        };
        Some(S::read(table, key, mistakes))
    }

    fn schema() -> Json {
        super::schema::section::<S>()
    }
}

/// A table of sections by name.
pub(super) struct Named<S>(PhantomData<S>);

impl<S: Section> Kind for Named<S> {
    type Value = BTreeMap<TargetName, Found<S>>;

    fn read(node: &Node, key: &str, mistakes: &mut Mistakes) -> Option<Self::Value> {
        let Shape::Table(table) = &node.shape else {
            mistakes.push(node.place, key, format!("{node} is not accepted: this is a table of targets by name"));
            return None;
        };
        let mut sections = BTreeMap::new();
        for (name, node) in table {
            let path = join(key, name);
            let parsed = TargetName::parse(name);
            if parsed.is_none() {
                let text = format!("{} is not accepted: a target's name is {}", quote(name), TargetName::ACCEPTED);
                mistakes.push(node.place, key, text);
            }
            if let (Some(name), Slot::Found(section)) = (parsed, slot::<Nested<S>>(node, &path, mistakes)) {
                sections.insert(name, section);
            }
        }
        // Refused names are reported; that there is no target would be one report too many.
        (table.is_empty() || !sections.is_empty()).then_some(sections)
    }

    fn schema() -> Json {
        json!({
            "type": "object",
            "propertyNames": { "pattern": TargetName::PATTERN },
            "additionalProperties": super::schema::section::<S>(),
        })
    }
}
