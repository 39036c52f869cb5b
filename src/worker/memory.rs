//! What the kernel says of memory: how much there is to fill, and whom it killed for want of it.

mod group;
mod kills;
mod room;

pub(super) use kills::{Kills, OomKill};
pub(super) use room::{available, capacity};

use std::path::PathBuf;

const MIB: u64 = 1024 * 1024;

/// Where the kernel shows its counters.
pub(super) struct Roots {
    /// `/proc`.
    proc: PathBuf,
    /// `/sys/fs/cgroup`.
    cgroups: PathBuf,
}

impl Roots {
    /// Those of this machine.
    pub(super) fn here() -> Self {
        Self { proc: "/proc".into(), cgroups: "/sys/fs/cgroup".into() }
    }
}

/// A kernel of files.
#[cfg(test)]
mod fixture {
    use super::Roots;
    use std::fs;

    pub(super) struct Kernel {
        _folder: tempfile::TempDir,
        pub(super) roots: Roots,
    }

    impl Kernel {
        /// One that shows these groups of this process, and nothing else yet.
        pub(super) fn of(groups: &str) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let roots = Roots { proc: folder.path().join("proc"), cgroups: folder.path().join("cgroup") };
            let kernel = Self { _folder: folder, roots };
            kernel.write("proc/self/cgroup", groups);
            kernel
        }

        pub(super) fn write(&self, path: &str, text: &str) {
            let path = self.roots.proc.parent().unwrap().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }
}
