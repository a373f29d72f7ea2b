//! The files that a configuration is read from, and what they looked like.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;

/// Largest configuration text, in bytes.
pub(crate) const MAX_TEXT: u64 = 16 << 20;

/// Files by their paths, with what each looked like when it was read.
pub type Seen = BTreeMap<PathBuf, Stamp>;

/// What a file looks like from outside: another stamp at the same path is another content, or may be. None for what is
/// no regular file, or not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp(Option<[i64; 7]>);

impl Stamp {
    /// Of the file at this path, through symbolic links.
    pub fn of(path: &Path) -> Self {
        Self(std::fs::metadata(path).ok().and_then(|found| Self::from(&found).0))
    }

    fn from(found: &Metadata) -> Self {
        let (device, inode, length) = (found.dev() as i64, found.ino() as i64, found.size() as i64);
        let modified = [found.mtime(), found.mtime_nsec()];
        // Permissions count: a file may become readable.
        let changed = [found.ctime(), found.ctime_nsec()];
        let stamp = [device, inode, length, modified[0], modified[1], changed[0], changed[1]];
        Self(found.is_file().then_some(stamp))
    }
}

/// The files that were read for a load, each once, so that all who share one hold the same bytes.
#[derive(Default)]
pub(super) struct Files {
    read: HashMap<(PathBuf, u64), Result<Bytes, String>>,
    seen: Seen,
}

impl Files {
    /// The content of a file of at most `max_bytes`.
    pub(super) fn read(&mut self, path: &Path, max_bytes: u64) -> Result<Bytes, String> {
        let key = (path.to_owned(), max_bytes);
        if let Some(known) = self.read.get(&key) {
            return known.clone();
        }
        let content = self.read_now(path, max_bytes).map(Bytes::from).map_err(|error| error.to_string());
        self.read.insert(key, content.clone());
        content
    }

    /// What all of them looked like.
    pub(super) fn into_seen(self) -> Seen {
        self.seen
    }

    fn read_now(&mut self, path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
        // Noted before the content is read, of the very file that is: what changes later is seen to differ.
        let opened = File::open(path).and_then(|file| Ok((file.metadata()?, file)));
        let stamp = opened.as_ref().map_or_else(|_| Stamp::of(path), |(found, _)| Stamp::from(found));
        self.seen.entry(path.to_owned()).or_insert(stamp);
        let (found, file) = opened?;
        if found.is_dir() {
            return Err(io::Error::from(io::ErrorKind::IsADirectory));
        }
        read_bounded(file, max_bytes)
    }
}

/// All of the input, if that is not more than `max_bytes`.
pub(super) fn read_bounded(input: impl Read, max_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    input.take(max_bytes + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max_bytes {
        return Err(io::Error::other(format!("larger than {max_bytes} bytes")));
    }
    Ok(bytes)
}
