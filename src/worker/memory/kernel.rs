//! What the kernel says of memory: how much there is to fill, and whom it killed for want of it.

use std::path::PathBuf;

pub(super) const MIB: u64 = 1024 * 1024;

/// Where the kernel shows its counters.
pub(crate) struct KernelRoots {
    /// `/proc`.
    pub(super) proc: PathBuf,
    /// `/sys/fs/cgroup`.
    pub(super) cgroups: PathBuf,
}

impl KernelRoots {
    /// Those of this machine.
    pub(crate) fn here() -> Self {
        Self { proc: "/proc".into(), cgroups: "/sys/fs/cgroup".into() }
    }
}

/// A kernel of files.
#[cfg(test)]
pub(super) mod fixture {
    use super::KernelRoots;
    use std::fs;

    pub(crate) struct KernelFixture {
        _folder: tempfile::TempDir,
        pub(crate) roots: KernelRoots,
    }

    impl KernelFixture {
        /// One that shows these groups of this process, and nothing else yet.
        pub(crate) fn of(groups: &str) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let roots = KernelRoots { proc: folder.path().join("proc"), cgroups: folder.path().join("cgroup") };
            let kernel = Self { _folder: folder, roots };
            kernel.write("proc/self/cgroup", groups);
            kernel
        }

        pub(crate) fn write(&self, path: &str, text: &str) {
            let path = self.roots.proc.parent().unwrap().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }
}
