//! A control group with a CPU quota, version 1 or 2, whichever this machine lets us make.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Length of a period in which the quota may be used up.
const PERIOD_US: u32 = 100_000;

/// Tells the groups of tests that run at the same time from each other.
static SERIAL: AtomicU32 = AtomicU32::new(0);

/// A control group of a test's own; removed when it goes out of scope, after the processes in it.
pub(crate) struct CpuGroup {
    path: PathBuf,
    version: Version,
}

#[derive(Clone, Copy)]
enum Version {
    /// A hierarchy for the CPU controller.
    One,
    /// One hierarchy for all.
    Two,
}

impl CpuGroup {
    /// A group without a quota yet; the error says why there can be none.
    pub(crate) fn new() -> io::Result<Self> {
        let hierarchies = [
            ("/sys/fs/cgroup/cpu", Version::One),
            ("/sys/fs/cgroup/cpu,cpuacct", Version::One),
            ("/sys/fs/cgroup", Version::Two),
        ];
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for (hierarchy, version) in hierarchies {
            match Self::in_hierarchy(Path::new(hierarchy), version) {
                Ok(group) => return Ok(group),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn in_hierarchy(hierarchy: &Path, version: Version) -> io::Result<Self> {
        if matches!(version, Version::Two) {
            fs::write(hierarchy.join("cgroup.subtree_control"), "+cpu")?;
        } else {
            fs::metadata(hierarchy.join("cpu.cfs_quota_us"))?;
        }
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let path = hierarchy.join(format!("hammerd-test-{}-{serial}", std::process::id()));
        fs::create_dir(&path)?;
        let group = Self { path, version };
        group.set_quota(None)?;
        Ok(group)
    }

    /// Allows so many hundredths of one processor, or all of every one.
    pub(crate) fn set_quota(&self, percent: Option<u32>) -> io::Result<()> {
        let quota_us = percent.map(|percent| PERIOD_US / 100 * percent);
        match self.version {
            Version::One => {
                fs::write(self.path.join("cpu.cfs_period_us"), PERIOD_US.to_string())?;
                let quota = quota_us.map_or("-1".to_owned(), |quota| quota.to_string());
                fs::write(self.path.join("cpu.cfs_quota_us"), quota)
            }
            Version::Two => {
                let quota = quota_us.map_or("max".to_owned(), |quota| quota.to_string());
                fs::write(self.path.join("cpu.max"), format!("{quota} {PERIOD_US}"))
            }
        }
    }

    /// The words that run a command inside.
    pub(crate) fn wrapper(&self) -> Vec<String> {
        let script = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", self.path.display());
        ["sh", "-c", &script, "sh"].map(str::to_owned).to_vec()
    }
}

impl Drop for CpuGroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.path);
    }
}
