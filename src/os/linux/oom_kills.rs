//! Counts the processes that the kernel's OOM killer has ended.

use std::fs;

use super::cgroup::{Cgroup, counter};
use super::kernel::KernelRoots;
use crate::os::oom_kills::OomCounters;

/// Reads the counters, and the limit of the control groups.
pub(super) fn oom_counters(roots: &KernelRoots) -> OomCounters {
    let groups = Cgroup::all(roots);
    OomCounters {
        group: groups.iter().find_map(Cgroup::kills),
        machine: fs::read_to_string(roots.proc.join("vmstat")).ok().and_then(|text| counter(&text, "oom_kill")),
        limit: groups.iter().filter_map(Cgroup::limit).min(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use super::super::kernel::fixture::KernelFixture;
    use crate::os::oom_kills::OomKill;

    fn verdict_after(kernel: &KernelFixture, change: impl FnOnce(&KernelFixture)) -> OomKill {
        let before = oom_counters(&kernel.roots);
        change(kernel);
        OomKill::between(&before, &oom_counters(&kernel.roots))
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
