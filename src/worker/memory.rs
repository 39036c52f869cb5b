//! The kernel's count of processes that it killed for want of memory, before and after one of ours.
//!
//! Reads control groups of both versions. It only counts; what a kill means is `diagnosis.rs`'s.

use std::fs;
use std::path::{Component, Path, PathBuf};

const MIB: u64 = 1024 * 1024;
/// A limit of so many bytes is none: version 1 writes the largest page-aligned number.
const NO_LIMIT: u64 = 1 << 60;

/// Where the kernel shows its counters.
pub(super) struct Roots {
    /// `/proc`.
    pub(super) proc: PathBuf,
    /// `/sys/fs/cgroup`.
    pub(super) cgroups: PathBuf,
}

impl Roots {
    /// Those of this machine.
    pub(super) fn here() -> Self {
        Self { proc: "/proc".into(), cgroups: "/sys/fs/cgroup".into() }
    }
}

/// Processes killed for want of memory, as of one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kills {
    group: Option<u64>,
    machine: Option<u64>,
}

/// Whether the kernel killed a process for want of memory between two moments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// One of our control group, whose limit is this.
    InGroup {
        /// The smallest limit that applies, if there is one.
        limit_mib: Option<u64>,
    },
    /// One of this machine; our group has no counter.
    OnMachine,
    /// None.
    No,
    /// The kernel shows no counter.
    NotKnown,
}

impl Kills {
    /// Reads the counters. One that cannot be read is left out.
    pub(super) fn count(roots: &Roots) -> Self {
        let group = Group::own(roots).map(|group| group.kills);
        let machine = fs::read_to_string(roots.proc.join("vmstat")).ok().and_then(|text| counter(&text, "oom_kill"));
        Self { group, machine }
    }

    /// What has been counted since.
    pub(super) fn since(self, roots: &Roots) -> Verdict {
        let now = Self::count(roots);
        let grew = |before: Option<u64>, now: Option<u64>| Some(now? > before?);
        match (grew(self.group, now.group), grew(self.machine, now.machine)) {
            (Some(true), _) => {
                Verdict::InGroup { limit_mib: Group::own(roots).and_then(|group| group.limit_mib(roots)) }
            }
            // The kernel counts a kill for the group of the process, wherever the memory was short.
            (Some(false), _) | (None, Some(false)) => Verdict::No,
            (None, Some(true)) => Verdict::OnMachine,
            (None, None) => Verdict::NotKnown,
        }
    }
}

/// A memory control group that counts kills.
struct Group {
    folder: PathBuf,
    limit: &'static str,
    kills: u64,
}

impl Group {
    /// That of this process.
    fn own(roots: &Roots) -> Option<Self> {
        let text = fs::read_to_string(roots.proc.join("self/cgroup")).ok()?;
        text.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?);
            let is_first = controllers.split(',').any(|controller| controller == "memory");
            let (mounts, counters, limit): (&[&str], _, _) = match controllers {
                "" => (&["", "unified"], "memory.events", "memory.max"),
                _ if is_first => (&["memory"], "memory.oom_control", "memory.limit_in_bytes"),
                _ => return None,
            };
            // In a container the path may be the host's, while the mount shows our own group at its top.
            let folders = mounts.iter().flat_map(|mount| {
                let top = roots.cgroups.join(mount);
                [top.join(below(path)), top]
            });
            folders.into_iter().find_map(|folder| {
                let text = fs::read_to_string(folder.join(counters)).ok()?;
                counter(&text, "oom_kill").map(|kills| Self { folder, limit, kills })
            })
        })
    }

    /// The smallest limit of the group and those above it.
    fn limit_mib(&self, roots: &Roots) -> Option<u64> {
        let above = self.folder.ancestors().take_while(|folder| folder.starts_with(&roots.cgroups));
        let limits = above.filter_map(|folder| fs::read_to_string(folder.join(self.limit)).ok()?.trim().parse().ok());
        limits.filter(|limit: &u64| *limit < NO_LIMIT).min().map(|limit| limit / MIB)
    }
}

/// A path of the kernel's as one below a folder.
fn below(path: &str) -> PathBuf {
    Path::new(path).components().filter(|part| matches!(part, Component::Normal(_))).collect()
}

/// The number in the line `NAME NUMBER`.
fn counter(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    /// A kernel of files.
    struct Kernel {
        _folder: TempDir,
        roots: Roots,
    }

    impl Kernel {
        fn of(group: &str) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let roots = Roots { proc: folder.path().join("proc"), cgroups: folder.path().join("cgroup") };
            let kernel = Self { _folder: folder, roots };
            kernel.write("proc/self/cgroup", group);
            kernel
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.roots.proc.parent().unwrap().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn verdict_after(&self, change: impl FnOnce(&Self)) -> Verdict {
            let before = Kills::count(&self.roots);
            change(self);
            before.since(&self.roots)
        }
    }

    fn events(kills: u64) -> String {
        format!("low 0\nhigh 0\nmax 12\noom 3\noom_kill {kills}\noom_group_kill 0\n")
    }

    #[test]
    fn version_2_counts_in_memory_events_and_the_smallest_limit_applies() {
        let kernel = Kernel::of("0::/system.slice/llamagate.service\n");
        let group = "cgroup/system.slice/llamagate.service";
        kernel.write(&format!("{group}/memory.events"), &events(4));
        kernel.write(&format!("{group}/memory.max"), "max\n");
        kernel.write("cgroup/system.slice/memory.max", "4294967296\n");
        let grow = |kernel: &Kernel| kernel.write(&format!("{group}/memory.events"), &events(5));
        assert_eq!(kernel.verdict_after(grow), Verdict::InGroup { limit_mib: Some(4096) });
        assert_eq!(kernel.verdict_after(|_| ()), Verdict::No);
    }

    #[test]
    fn version_1_counts_in_oom_control_and_its_largest_limit_is_none() {
        let kernel = Kernel::of("9:name=systemd:/\n4:memory:/pods/a\n0::/\n");
        let control = |kills| format!("oom_kill_disable 0\nunder_oom 0\noom_kill {kills}\n");
        kernel.write("cgroup/memory/pods/a/memory.oom_control", &control(0));
        kernel.write("cgroup/memory/pods/a/memory.limit_in_bytes", "9223372036854771712\n");
        let grow = |kernel: &Kernel| kernel.write("cgroup/memory/pods/a/memory.oom_control", &control(1));
        assert_eq!(kernel.verdict_after(grow), Verdict::InGroup { limit_mib: None });
    }

    #[test]
    fn in_a_container_our_group_may_be_at_the_top_of_the_mount() {
        let kernel = Kernel::of("0::/../../docker/0123abc\n");
        kernel.write("cgroup/memory.events", &events(0));
        kernel.write("cgroup/memory.max", "536870912\n");
        let grow = |kernel: &Kernel| kernel.write("cgroup/memory.events", &events(1));
        assert_eq!(kernel.verdict_after(grow), Verdict::InGroup { limit_mib: Some(512) });
    }

    #[test]
    fn without_a_group_the_machine_counts() {
        let kernel = Kernel::of("0::/\n");
        kernel.write("proc/vmstat", "nr_free_pages 1\noom_kill 7\n");
        let grow = |kernel: &Kernel| kernel.write("proc/vmstat", "nr_free_pages 1\noom_kill 8\n");
        assert_eq!(kernel.verdict_after(grow), Verdict::OnMachine);
        assert_eq!(kernel.verdict_after(|_| ()), Verdict::No);
    }

    #[test]
    fn a_kill_elsewhere_on_the_machine_is_not_ours() {
        let kernel = Kernel::of("0::/a\n");
        kernel.write("cgroup/a/memory.events", &events(0));
        kernel.write("proc/vmstat", "oom_kill 7\n");
        assert_eq!(kernel.verdict_after(|kernel| kernel.write("proc/vmstat", "oom_kill 8\n")), Verdict::No);
    }

    #[test]
    fn without_counters_nothing_is_known() {
        let kernel = Kernel::of("garbage\n::\n0:\n");
        assert_eq!(kernel.verdict_after(|_| ()), Verdict::NotKnown);
    }
}
