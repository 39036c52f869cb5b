//! The memory control groups of this process, of both versions: their limits, usage and OOM kills.

use std::fs;
use std::path::{Component, Path, PathBuf};

use super::kernel::KernelRoots;

/// A limit of this many bytes or more means unlimited: version 1 writes the largest page-aligned number.
const NO_LIMIT: u64 = 1 << 60;

/// A memory control group, as seen through one mount.
pub(super) struct Cgroup {
    mount: PathBuf,
    path: PathBuf,
    names: &'static CgroupFiles,
}

/// The file names of one version, and the lines of `memory.stat` that count the page cache.
struct CgroupFiles {
    kills: &'static str,
    limit: &'static str,
    usage: &'static str,
    cached: [&'static str; 2],
}

const VERSION_1: CgroupFiles = CgroupFiles {
    kills: "memory.oom_control",
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    cached: ["total_inactive_file", "total_active_file"],
};

const VERSION_2: CgroupFiles = CgroupFiles {
    kills: "memory.events",
    limit: "memory.max",
    usage: "memory.current",
    cached: ["inactive_file", "active_file"],
};

impl Cgroup {
    /// Returns the memory groups that this process may be in. Some of their folders may not exist.
    pub(super) fn all(roots: &KernelRoots) -> Vec<Self> {
        let text = fs::read_to_string(roots.proc.join("self/cgroup")).unwrap_or_default();
        text.lines().filter_map(|line| Self::parse(line, roots)).flatten().collect()
    }

    /// Reads one line of `/proc/self/cgroup`: `HIERARCHY:CONTROLLERS:PATH`, see cgroups(7).
    fn parse(line: &str, roots: &KernelRoots) -> Option<Vec<Self>> {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let (mounts, names): (&[&str], _) = match controllers {
            // Version 2 has no controller list. It is mounted below `unified` where version 1 is in use as well.
            "" => (&["", "unified"], &VERSION_2),
            _ if controllers.split(',').any(|controller| controller == "memory") => (&["memory"], &VERSION_1),
            _ => return None,
        };
        let groups = mounts.iter().map(|mount| Self { mount: roots.cgroups.join(mount), path: below(path), names });
        Some(groups.collect())
    }

    /// Returns the group's folder and those of its ancestors, nearest first. In a container the path may be the host's,
    /// while the mount shows our own group at its root.
    fn folders(&self) -> impl Iterator<Item = PathBuf> {
        self.path.ancestors().map(|path| self.mount.join(path))
    }

    /// Returns the number of OOM kills in the group.
    pub(super) fn kills(&self) -> Option<u64> {
        let read = |folder: PathBuf| counter(&fs::read_to_string(folder.join(self.names.kills)).ok()?, "oom_kill");
        self.folders().find_map(read)
    }

    /// Returns the smallest limit of the group and its ancestors, in bytes.
    pub(super) fn limit(&self) -> Option<u64> {
        self.folders().filter_map(|folder| self.limit_of(&folder)).min()
    }

    /// Returns the bytes that are still available. Page cache counts as available: the kernel can drop it.
    pub(super) fn available(&self) -> Option<u64> {
        // Every ancestor's limit applies too, and its usage includes that of sibling groups.
        self.folders().filter_map(|folder| self.available_in(&folder)).min()
    }

    fn limit_of(&self, folder: &Path) -> Option<u64> {
        // Version 2 writes "max" for no limit, which does not parse.
        number(&folder.join(self.names.limit)).filter(|limit| *limit < NO_LIMIT)
    }

    fn available_in(&self, folder: &Path) -> Option<u64> {
        let (limit, usage) = (self.limit_of(folder)?, number(&folder.join(self.names.usage))?);
        let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
        let cached = self.names.cached.iter().filter_map(|name| counter(&stat, name)).fold(0, u64::saturating_add);
        Some(limit.saturating_sub(usage.saturating_sub(cached)))
    }
}

/// Turns a path from the kernel into a relative one. Drops `..`, which a group outside our namespace starts with.
fn below(path: &str) -> PathBuf {
    Path::new(path).components().filter(|part| matches!(part, Component::Normal(_))).collect()
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// Returns the number of the line `NAME NUMBER`.
pub(super) fn counter(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}
