//! Counts the processes that the kernel's OOM killer has ended, before and after one of ours ends.
//!
//! It only counts; the diagnosis decides what a kill means.

use std::fs;

use super::cgroup::{Cgroup, counter};
use super::kernel::{KernelRoots, MIB};

/// The OOM kill counters at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OomKills {
    group: Option<u64>,
    machine: Option<u64>,
}

/// Whether the OOM killer ended a process between two moments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OomKill {
    /// A process of our control group.
    InGroup {
        /// The smallest limit that applies, in MiB; `None` if there is no limit.
        limit_mib: Option<u64>,
    },
    /// A process of this machine; our group has no counter.
    OnMachine,
    /// No process.
    No,
    /// The kernel shows no counter.
    NotKnown,
}

impl OomKills {
    /// Reads the counters. A counter that cannot be read is left out.
    pub(crate) fn count(roots: &KernelRoots) -> Self {
        let group = Cgroup::all(roots).iter().find_map(Cgroup::kills);
        let machine = fs::read_to_string(roots.proc.join("vmstat")).ok().and_then(|text| counter(&text, "oom_kill"));
        Self { group, machine }
    }

    /// Compares the counters with their present values.
    pub(crate) fn since(self, roots: &KernelRoots) -> OomKill {
        let now = Self::count(roots);
        let grew = |before: Option<u64>, now: Option<u64>| Some(now? > before?);
        match (grew(self.group, now.group), grew(self.machine, now.machine)) {
            (Some(true), _) => {
                let limits = Cgroup::all(roots);
                OomKill::InGroup { limit_mib: limits.iter().filter_map(Cgroup::limit).min().map(|limit| limit / MIB) }
            }
            // The kernel counts a kill in the group of the killed process, even if another group or the machine was out
            // of memory. So our group's counter decides when there is one.
            (Some(false), _) | (None, Some(false)) => OomKill::No,
            (None, Some(true)) => OomKill::OnMachine,
            (None, None) => OomKill::NotKnown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use super::super::kernel::fixture::KernelFixture;

    fn verdict_after(kernel: &KernelFixture, change: impl FnOnce(&KernelFixture)) -> OomKill {
        let before = OomKills::count(&kernel.roots);
        change(kernel);
        before.since(&kernel.roots)
    }

    fn events(kills: u64) -> String {
        format!("low 0\nhigh 0\nmax 12\noom 3\noom_kill {kills}\noom_group_kill 0\n")
    }

    #[test]
    fn version_2_counts_kills_in_memory_events_and_the_smallest_limit_applies() {
        let kernel = KernelFixture::with_groups("0::/system.slice/llamagate.service\n");
        let group = "cgroup/system.slice/llamagate.service";
        kernel.write(&format!("{group}/memory.events"), &events(4));
        kernel.write(&format!("{group}/memory.max"), "max\n");
        kernel.write("cgroup/system.slice/memory.max", "4294967296\n");
        let grow = |kernel: &KernelFixture| kernel.write(&format!("{group}/memory.events"), &events(5));
        assert_eq!(verdict_after(&kernel, grow), OomKill::InGroup { limit_mib: Some(4096) });
        assert_eq!(verdict_after(&kernel, |_| ()), OomKill::No);
    }

    #[test]
    fn version_1_counts_kills_in_oom_control_and_its_largest_limit_means_unlimited() {
        let kernel = KernelFixture::with_groups("9:name=systemd:/\n4:memory:/pods/a\n0::/\n");
        let control = |kills| format!("oom_kill_disable 0\nunder_oom 0\noom_kill {kills}\n");
        kernel.write("cgroup/memory/pods/a/memory.oom_control", &control(0));
        kernel.write("cgroup/memory/pods/a/memory.limit_in_bytes", "9223372036854771712\n");
        let grow = |kernel: &KernelFixture| kernel.write("cgroup/memory/pods/a/memory.oom_control", &control(1));
        assert_eq!(verdict_after(&kernel, grow), OomKill::InGroup { limit_mib: None });
    }

    #[test]
    fn the_group_of_a_container_is_found_at_the_root_of_the_mount() {
        let kernel = KernelFixture::with_groups("0::/../../docker/0123abc\n");
        kernel.write("cgroup/memory.events", &events(0));
        kernel.write("cgroup/memory.max", "536870912\n");
        let grow = |kernel: &KernelFixture| kernel.write("cgroup/memory.events", &events(1));
        assert_eq!(verdict_after(&kernel, grow), OomKill::InGroup { limit_mib: Some(512) });
    }

    #[test]
    fn the_counter_of_the_machine_is_used_without_a_group() {
        let kernel = KernelFixture::with_groups("0::/\n");
        kernel.write("proc/vmstat", "nr_free_pages 1\noom_kill 7\n");
        let grow = |kernel: &KernelFixture| kernel.write("proc/vmstat", "nr_free_pages 1\noom_kill 8\n");
        assert_eq!(verdict_after(&kernel, grow), OomKill::OnMachine);
        assert_eq!(verdict_after(&kernel, |_| ()), OomKill::No);
    }

    #[test]
    fn a_kill_elsewhere_on_the_machine_is_not_ours() {
        let kernel = KernelFixture::with_groups("0::/a\n");
        kernel.write("cgroup/a/memory.events", &events(0));
        kernel.write("proc/vmstat", "oom_kill 7\n");
        assert_eq!(verdict_after(&kernel, |kernel| kernel.write("proc/vmstat", "oom_kill 8\n")), OomKill::No);
    }

    #[test]
    fn a_kill_is_unknown_without_counters() {
        let kernel = KernelFixture::with_groups("garbage\n::\n0:\n");
        assert_eq!(verdict_after(&kernel, |_| ()), OomKill::NotKnown);
    }
}
