//! Where a configuration comes from: files, an inline text, environment variables and flags, laid over each other.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::error::{Mistakes, Origin, Origins, Place, Rejected, join};
use super::files::{Files, MAX_TEXT, Seen, read_bounded};
use super::node::{Layer, Node, Shape, Table, unify_header_names};
use super::section::{Root, Section, Slot, built_in};
use super::syntax::Syntax;
use super::variables::Variables;
use super::{Config, build};

/// Begins the environment variables that set a key; two underscores, so `HAMMERD_CONFIG` is none.
const PREFIX: &str = "HAMMERD__";

/// Where the HTTP face is when nobody says otherwise.
const USUAL_LISTEN: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9955));

/// Everything a configuration is read from. Loading it again, for a reload, reads every file again.
///
/// Later ones win, key by key: built-in values, `files` in order, `inline`, `env`, `overrides`. A list is replaced as a
/// whole. Relative paths, also those inside files, are relative to the working directory.
#[derive(Clone, Default)]
pub struct Sources {
    /// Files: `.yaml`, `.yml` and `.json` by extension, else TOML. `-` is standard input, see
    /// [`read_stdin`](Self::read_stdin); one that begins with a scheme, as in `https://`, is none, and its text is in
    /// `fetched`.
    pub files: Vec<PathBuf>,
    /// The texts of those that are no files, by their names in `files`.
    pub fetched: BTreeMap<PathBuf, Fetched>,
    /// A whole configuration in TOML, the content of `HAMMERD_CONFIG_INLINE`.
    pub inline: Option<String>,
    /// All environment variables: those named `HAMMERD__A__B` set the key `a.b` (names are lower-cased), and `${NAME}`
    /// in a value refers to any of them.
    pub env: Vec<(String, String)>,
    /// Keys set by flags, dotted, with their values: `("server.listen", "off")` came from `--listen off`.
    pub overrides: Vec<(String, String)>,
    /// What standard input held.
    pub stdin: Option<Bytes>,
}

/// A text that somebody else has got from where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Where it is from, as messages show it.
    pub shown: String,
    /// Its bytes.
    pub text: Bytes,
    /// Its language.
    pub syntax: Syntax,
}

/// What came of reading all sources.
pub struct Reading {
    /// The configuration, if all of it is valid.
    pub config: Result<Config, Rejected>,
    /// The files that were read for it, also those that could not be.
    pub seen: Seen,
}

/// Reads all sources and validates the whole. Nothing is remembered from one call to the next.
pub fn read(sources: &Sources) -> Reading {
    let mut files = Files::default();
    let config = load_from(sources, &mut files);
    Reading { config, seen: files.into_seen() }
}

/// As [`read`], for who does not care about the files.
pub fn load(sources: &Sources) -> Result<Config, Rejected> {
    read(sources).config
}

fn load_from(sources: &Sources, files: &mut Files) -> Result<Config, Rejected> {
    let (mut origins, mut mistakes) = (Origins::default(), Mistakes::default());
    if sources.is_empty() {
        let text = "no configuration: name a file with --config or HAMMERD_CONFIG, or set HAMMERD_CONFIG_INLINE";
        return Err(Rejected::one(text.to_owned()));
    }
    let mut layers = vec![built_in(origins.push(Origin::BuiltIn))];
    sources.read_texts(&mut layers, files, &mut origins, &mut mistakes);
    let environment_layer = sources.read_environment(&mut layers, &mut origins, &mut mistakes);
    let flags_layer = sources.read_flags(&mut layers, &mut origins, &mut mistakes);
    if !mistakes.is_empty() {
        return Err(mistakes.into_rejected(&origins));
    }
    let variables = Variables { environment: sources.environment(), environment_layer, flags_layer };
    let merged = merge(layers, &variables, &mut mistakes)?;
    let root = Root::read(&merged, "", &mut mistakes);
    match build::config(&root, files, &origins, &mut mistakes) {
        Some(config) if mistakes.is_empty() => Ok(config),
        _ => Err(mistakes.into_rejected(&origins)),
    }
}

/// Where the HTTP face is with these sources; `None` when it is switched off.
///
/// For those who only want to find a running daemon: what can't be read or is not accepted says nothing, because the
/// daemon runs on what it found when it started.
pub fn listen(sources: &Sources) -> Option<SocketAddr> {
    let (mut origins, mut mistakes) = (Origins::default(), Mistakes::default());
    let mut layers = vec![built_in(origins.push(Origin::BuiltIn))];
    sources.read_texts(&mut layers, &mut Files::default(), &mut origins, &mut mistakes);
    let environment_layer = sources.read_environment(&mut layers, &mut origins, &mut mistakes);
    let flags_layer = sources.read_flags(&mut layers, &mut origins, &mut mistakes);
    for layer in &mut layers {
        layer.retain(|name, _| name == "server");
    }
    let variables = Variables { environment: sources.environment(), environment_layer, flags_layer };
    let merged = merge(layers, &variables, &mut mistakes).unwrap_or_default();
    let root = Root::read(&merged, "", &mut mistakes);
    root.server.key(|server| &server.listen).and_then(Slot::value).copied().unwrap_or(Some(USUAL_LISTEN))
}

/// Lays the layers over each other.
fn merge(layers: Vec<Table>, variables: &Variables<'_>, mistakes: &mut Mistakes) -> Result<Table, Rejected> {
    let mut builder = config::Config::builder();
    for mut layer in layers {
        unify_header_names(&mut layer, mistakes);
        // The crate reads a dot in an outermost name as a path. No section has one.
        layer.retain(|name, node| {
            let known = Root::KEYS.iter().any(|key| key.name == name);
            if !known {
                mistakes.unknown_key(node.place, "", name, Root::KEYS.iter().map(|key| key.name));
            }
            known
        });
        builder = builder.add_source(Layer(layer));
    }
    let merged = builder.build().map_err(|error| Rejected::one(error.to_string()))?;
    match Node::from_value(merged.cache, "", variables, mistakes).shape {
        Shape::Table(table) => Ok(table),
        _ => Ok(Table::new()),
    }
}

impl Sources {
    /// Reads standard input, if a file is `-`, and keeps it: a reload can't read it a second time.
    pub fn read_stdin(&mut self) -> io::Result<()> {
        if self.files.iter().any(|file| is_stdin(file)) {
            self.set_stdin(io::stdin().lock())?;
        }
        Ok(())
    }

    /// Reads `input` in place of standard input.
    pub fn set_stdin(&mut self, input: impl Read) -> io::Result<()> {
        self.stdin = Some(read_bounded(input, MAX_TEXT)?.into());
        Ok(())
    }

    fn environment(&self) -> HashMap<&str, &str> {
        self.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }

    fn is_empty(&self) -> bool {
        // A flag alone, --listen, adjusts a configuration; one that speaks of targets is one.
        let adds_target = |(key, _): &(String, String)| key.starts_with("targets.");
        let sets_key = |(name, _): &(String, String)| name.starts_with(PREFIX);
        let texts = !self.files.is_empty() || self.inline.is_some();
        !texts && !self.overrides.iter().any(adds_target) && !self.env.iter().any(sets_key)
    }

    fn read_texts(&self, layers: &mut Vec<Table>, files: &mut Files, origins: &mut Origins, mistakes: &mut Mistakes) {
        for path in &self.files {
            let (mut name, mut syntax) = (shown(path), Syntax::of(path));
            let bytes = if let Some(fetched) = self.fetched.get(path) {
                (name, syntax) = (fetched.shown.clone(), fetched.syntax);
                Ok(fetched.text.clone())
            } else if is_remote(path) {
                Err("it was not fetched".to_owned())
            } else if is_stdin(path) {
                "stdin".clone_into(&mut name);
                self.stdin.clone().ok_or_else(|| "standard input was not read".to_owned())
            } else {
                files.read(path, MAX_TEXT)
            };
            let layer = origins.push(Origin::Text(name));
            let bytes = bytes.map_err(|why| format!("can't be read: {why}"));
            let text = bytes.as_deref().map_err(String::clone);
            let text = text.and_then(|bytes| std::str::from_utf8(bytes).map_err(|_| "is not UTF-8 text".to_owned()));
            match text {
                Ok(text) => layers.push(syntax.parse(text, layer, mistakes)),
                Err(why) => mistakes.push(Place { layer, line: 0 }, "", why),
            }
        }
        if let Some(text) = &self.inline {
            let layer = origins.push(Origin::Text("HAMMERD_CONFIG_INLINE".to_owned()));
            layers.push(Syntax::Toml.parse(text, layer, mistakes));
        }
    }

    fn read_environment(&self, layers: &mut Vec<Table>, origins: &mut Origins, mistakes: &mut Mistakes) -> usize {
        let mut set: Vec<_> =
            self.env.iter().filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?, name, value))).collect();
        set.sort_unstable();
        let names = set.iter().map(|(_, name, _)| (*name).clone()).collect();
        let layer = origins.push(Origin::Environment(names));
        let mut table = Table::new();
        for (line, (path, _, value)) in set.into_iter().enumerate() {
            let place = Place { layer, line };
            let path: Vec<_> = path.split("__").map(str::to_lowercase).collect();
            if path.iter().any(String::is_empty) || path.iter().flat_map(|name| name.chars()).any(char::is_control) {
                mistakes.push(place, "", "names no key, which is as in HAMMERD__TARGETS__CHECKOUT__RATE");
            } else if !put(&mut table, &path, Node::loose(place, value)) {
                mistakes.push(place, "", "sets a key that another variable sets, or one inside it");
            }
        }
        layers.push(table);
        layer
    }

    fn read_flags(&self, layers: &mut Vec<Table>, origins: &mut Origins, mistakes: &mut Mistakes) -> usize {
        let names = self.overrides.iter().map(|(key, _)| flag_name(&split_key(key))).collect();
        let layer = origins.push(Origin::Flags(names));
        let mut table = Table::new();
        for (line, (key, value)) in self.overrides.iter().enumerate() {
            let path: Vec<_> = split_key(key).into_iter().map(str::to_owned).collect();
            let place = Place { layer, line };
            if !put(&mut table, &path, Node::loose(place, value)) {
                mistakes.push(place, "", "set twice");
            }
        }
        layers.push(table);
        layer
    }
}

impl fmt::Debug for Sources {
    /// Files only: the rest may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files: Vec<_> = self.files.iter().map(|file| shown(file)).collect();
        f.debug_struct("Sources").field("files", &files).finish_non_exhaustive()
    }
}

/// Sets a value inside tables, making those on the way. Says no when something else is in the place.
fn put(table: &mut Table, path: &[String], node: Node) -> bool {
    let (name, rest) = match path {
        [] => return false,
        [name] => {
            let free = !table.contains_key(name);
            table.entry(name.clone()).or_insert(node);
            return free;
        }
        [name, rest @ ..] => (name, rest),
    };
    let inner = table.entry(name.clone()).or_insert_with(|| Node::new(node.place, Shape::Table(Table::new())));
    match &mut inner.shape {
        Shape::Table(inner) => put(inner, rest, node),
        _ => false,
    }
}

/// Splits a dotted key; the name of a header or a label is the rest of it, dots and all.
fn split_key(key: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = key;
    while !matches!(parts.last(), Some(&("headers" | "headers_file" | "labels")))
        && let Some((part, after)) = rest.split_once('.')
    {
        parts.push(part);
        rest = after;
    }
    parts.push(rest);
    parts
}

/// The flag that sets a key.
fn flag_name(path: &[&str]) -> String {
    match path {
        [.., "headers", name] => format!("--header {}", join("", name)),
        [.., "url"] => "URL".to_owned(),
        ["shard", _] => "--shard".to_owned(),
        [.., name] => format!("--{}", name.replace('_', "-")),
        [] => String::new(),
    }
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Whether it is no file: it begins with a scheme, as in `https://`. What looks like one with too few slashes is none either,
/// so that it is refused by name.
pub(crate) fn is_remote(path: &Path) -> bool {
    let text = path.to_string_lossy();
    scheme_of(&text).is_some_and(|scheme| {
        let known = ["http", "https", "s3"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
        known || text[scheme.len()..].starts_with("://")
    })
}

fn scheme_of(text: &str) -> Option<&str> {
    let (scheme, _) = text.split_once(':')?;
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    let is_one = scheme.starts_with(|first: char| first.is_ascii_alphabetic()) && scheme.bytes().all(inner);
    is_one.then_some(scheme)
}

/// A source as messages show it; of one that is no file, a user, a query or a fragment may be a secret.
pub(crate) fn shown(path: &Path) -> String {
    let text = path.to_string_lossy();
    let text = if is_remote(path) { without_secrets(&text) } else { text.into_owned() };
    if text.chars().any(char::is_control) { format!("{text:?}") } else { text }
}

/// A URL, or a reference to one, without user, query and fragment.
pub(crate) fn without_secrets(text: &str) -> String {
    let text = text.split(['?', '#']).next().unwrap_or_default();
    let scheme = scheme_of(text).map_or(0, |scheme| scheme.len() + 1);
    let rest = text[scheme..].trim_start_matches(['/', '\\']);
    let (before, authority) = (&text[..text.len() - rest.len()], rest.split('/').next().unwrap_or_default());
    if scheme == 0 && before.len() < 2 {
        return text.to_owned();
    }
    let begin = authority.rfind('@').map_or(0, |at| at + 1);
    [before, &rest[begin..]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_a_flag_may_name_a_header_with_dots() {
        assert_eq!(split_key("server.listen"), ["server", "listen"]);
        assert_eq!(split_key("targets.hit.headers.x.y.z"), ["targets", "hit", "headers", "x.y.z"]);
        assert_eq!(flag_name(&split_key("targets.hit.headers.x-team")), "--header x-team");
        assert_eq!(flag_name(&split_key("targets.hit.max_in_flight")), "--max-in-flight");
    }
    #[test]
    fn a_url_is_shown_without_its_secrets_also_when_it_is_mistyped() {
        for (text, shown) in [
            ("https://me:s3cret@a.example/x?sig=s3cret", "https://a.example/x"),
            ("https:/me:s3cret@a.example/x?sig=s3cret", "https:/a.example/x"),
            ("HTTP:me:s3cret@a.example/x#s3cret", "HTTP:a.example/x"),
            ("https:///me:s3cret@a.example/x", "https:///a.example/x"),
            ("s3:/me:s3cret@bucket/x", "s3:/bucket/x"),
            ("ftp://me:s3cret@a.example", "ftp://a.example"),
        ] {
            assert!(is_remote(Path::new(text)), "{text}");
            assert_eq!(super::shown(Path::new(text)), shown);
        }
        for file in ["/etc/x.toml", "x:y@z.toml", "./http:/x", "https", "C:/x@y"] {
            assert!(!is_remote(Path::new(file)), "{file}");
            assert_eq!(super::shown(Path::new(file)), file);
        }
        for (reference, shown) in
            [("//me:s3cret@a.example/x?s3cret", "//a.example/x"), ("/x@y?s3cret", "/x@y"), ("x", "x"), ("", "")]
        {
            assert_eq!(without_secrets(reference), shown);
        }
    }
}
