//! How much memory may still be filled here, as far as the kernel says.

use std::fs;
use std::path::{Path, PathBuf};

/// Bytes that may be filled without anything having to go: what the machine has, or less where a control group allows
/// less. Files that are only cached may go. Nothing when it cannot be told. `root` is `/` outside tests.
pub(super) fn available(root: &Path) -> Option<u64> {
    let machine = fs::read_to_string(root.join("proc/meminfo")).ok().and_then(|text| of_machine(&text));
    let memberships = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let groups = memberships.lines().filter_map(|line| Group::of(line, root)).filter_map(|group| group.room());
    machine.into_iter().chain(groups).min()
}

fn of_machine(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// A control group of this process, and how its version names its files.
struct Group {
    mount: PathBuf,
    path: PathBuf,
    limit: &'static str,
    usage: &'static str,
    cached: [&'static str; 2],
}

impl Group {
    /// From a line of `/proc/self/cgroup`; nothing for one that has nothing to do with memory.
    fn of(line: &str, root: &Path) -> Option<Self> {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let path = path.trim_start_matches('/').into();
        let mount = root.join("sys/fs/cgroup");
        if controllers.is_empty() {
            let cached = ["inactive_file", "active_file"];
            Some(Self { mount, path, limit: "memory.max", usage: "memory.current", cached })
        } else if controllers.split(',').any(|name| name == "memory") {
            let cached = ["total_inactive_file", "total_active_file"];
            let mount = mount.join("memory");
            Some(Self { mount, path, limit: "memory.limit_in_bytes", usage: "memory.usage_in_bytes", cached })
        } else {
            None
        }
    }

    /// The least room in it and in those above it. A container may not see its own path, but sees its own limits at
    /// the mount.
    fn room(&self) -> Option<u64> {
        self.path.ancestors().filter_map(|path| self.room_in(&self.mount.join(path))).min()
    }

    fn room_in(&self, folder: &Path) -> Option<u64> {
        let number = |name: &str| fs::read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
        // "max" is no number and no limit.
        let (limit, usage) = (number(self.limit)?, number(self.usage)?);
        let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
        let values = stat.lines().filter_map(|line| line.split_once(' '));
        let cached = values.filter(|(name, _)| self.cached.contains(name));
        let cached = cached.filter_map(|(_, value)| value.trim().parse::<u64>().ok()).fold(0, u64::saturating_add);
        Some(limit.saturating_sub(usage.saturating_sub(cached)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal:  4096 kB\nMemAvailable:   2097152 kB\nBuffers: 1 kB\n");

    #[test]
    fn the_machine_bounds_it_where_no_group_does() {
        assert_eq!(available(root(&[]).path()), None);
        assert_eq!(available(root(&[MEMINFO]).path()), Some(2048 * MIB));
        let free = root(&[
            MEMINFO,
            ("proc/self/cgroup", "0::/\n"),
            ("sys/fs/cgroup/memory.max", "max\n"),
            ("sys/fs/cgroup/memory.current", "1000\n"),
        ]);
        assert_eq!(available(free.path()), Some(2048 * MIB));
        assert!(available(Path::new("/")).is_some_and(|bytes| bytes > MIB), "this machine can be asked");
    }

    #[test]
    fn a_group_bounds_it_and_what_is_cached_may_go() {
        let stat = format!("anon 5\nfile {0}\ninactive_file {0}\nactive_file {0}\n", 100 * MIB);
        let (limit, usage) = ((1000 * MIB).to_string(), (700 * MIB).to_string());
        let one = root(&[
            MEMINFO,
            ("proc/self/cgroup", "0::/pod/box\n"),
            ("sys/fs/cgroup/pod/memory.max", &limit),
            ("sys/fs/cgroup/pod/memory.current", &usage),
            ("sys/fs/cgroup/pod/memory.stat", &stat),
            ("sys/fs/cgroup/pod/box/memory.max", "max"),
            ("sys/fs/cgroup/pod/box/memory.current", "1"),
        ]);
        assert_eq!(available(one.path()), Some(500 * MIB), "the group above has the limit");
    }

    #[test]
    fn the_first_version_of_groups_has_other_names() {
        let stat = format!("cache 7\ntotal_inactive_file {}\ninactive_file 7\n", 50 * MIB);
        let (limit, usage) = ((1000 * MIB).to_string(), (900 * MIB).to_string());
        let one = root(&[
            MEMINFO,
            ("proc/self/cgroup", "12:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n0::/docker/abc\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", &limit),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", &usage),
            ("sys/fs/cgroup/memory/memory.stat", &stat),
        ]);
        assert_eq!(available(one.path()), Some(150 * MIB), "the container sees itself at the mount");
    }
}
