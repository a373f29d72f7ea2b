//! A wall clock of a daemon's own.

use std::process::Command;

use tempfile::TempDir;

use super::daemon::Builder;

/// The real one and an offset that the test may change.
///
/// The wall clock of one process can't be set, but what its C library says of it can: everything asks there.
pub(crate) struct WallClock {
    directory: TempDir,
}

impl WallClock {
    pub(crate) fn new() -> Self {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/integration/support/wall_clock.c");
        let clock = Self { directory: tempfile::tempdir().expect("a directory") };
        let compiled =
            Command::new("cc").args(["-O1", "-shared", "-fPIC", "-o", &clock.path("wall_clock.so"), source]).status();
        assert!(compiled.is_ok_and(|status| status.success()), "cc from build-essential compiles {source}");
        clock.set(0);
        clock
    }

    /// A daemon that goes by this clock.
    pub(crate) fn on(&self, builder: Builder) -> Builder {
        builder.env("LD_PRELOAD", &self.path("wall_clock.so")).env("WALL_CLOCK_OFFSET", &self.path("offset"))
    }

    /// Puts the clock forward by so many milliseconds from the real time, or back.
    pub(crate) fn set(&self, offset_ms: i64) {
        let next = self.path("next");
        std::fs::write(&next, offset_ms.to_string()).expect("the offset");
        std::fs::rename(next, self.path("offset")).expect("the offset");
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().expect("UTF-8").to_owned()
    }
}
