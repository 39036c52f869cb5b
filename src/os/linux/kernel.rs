//! Where the kernel shows its memory counters.

use std::path::PathBuf;

#[cfg(test)]
pub(super) const MIB: u64 = 1024 * 1024;

/// The folders under which the kernel shows its counters.
pub(crate) struct KernelRoots {
    /// `/proc`.
    pub(super) proc: PathBuf,
    /// `/sys/fs/cgroup`.
    pub(super) cgroups: PathBuf,
}

impl KernelRoots {
    /// Returns the roots of this machine.
    pub(crate) fn here() -> Self {
        Self { proc: "/proc".into(), cgroups: "/sys/fs/cgroup".into() }
    }
}

/// Kernel counters made of plain files.
#[cfg(test)]
pub(super) mod fixture {
    use super::KernelRoots;
    use std::fs;

    pub(crate) struct KernelFixture {
        _folder: tempfile::TempDir,
        pub(crate) roots: KernelRoots,
    }

    impl KernelFixture {
        /// Creates a kernel that shows only `groups`, the text of `/proc/self/cgroup`.
        pub(crate) fn with_groups(groups: &str) -> Self {
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
