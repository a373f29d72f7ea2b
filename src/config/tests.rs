//! The module as a whole: what it accepts, what it refuses and in which words, and what it keeps to itself.

mod accepted;
mod refused;
mod secrets;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Config, Rejected, Sources, Target, load, redacted};

/// The smallest configuration that is one.
const ONE_TARGET: &str = "[targets.x]\nurl = \"http://a.example/\"\nrate = 1\n";

fn inline(text: impl Into<String>) -> Sources {
    Sources { inline: Some(text.into()), ..Sources::default() }
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn accept(sources: &Sources) -> Config {
    load(sources).unwrap_or_else(|rejected| panic!("rejected:\n{rejected}"))
}

fn refuse(sources: &Sources) -> Rejected {
    match load(sources) {
        Ok(config) => panic!("accepted:\n{}", redacted(&config)),
        Err(rejected) => rejected,
    }
}

fn target<'a>(config: &'a Config, name: &str) -> &'a Target {
    &config.targets[name]
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files of a folder of the repository, except `.txt`, in order.
fn files(folder: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(repository().join(folder)).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.is_file() && path.extension().is_none_or(|extension| extension != "txt"));
    files.sort();
    files
}

/// A folder of its own for one test, gone afterwards.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("hammerd-config-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
