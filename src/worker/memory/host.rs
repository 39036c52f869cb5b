//! How much memory may still be filled here.

use super::cgroup::Cgroup;
use super::kernel::KernelRoots;
use std::fs;

/// Bytes that may be filled without anything having to go: what the machine has, or less where a control group allows
/// less. Files that are only cached may go. Nothing when it cannot be told.
pub(crate) fn available(roots: &KernelRoots) -> Option<u64> {
    let machine =
        fs::read_to_string(roots.proc.join("meminfo")).ok().and_then(|text| of_machine(&text, "MemAvailable:"));
    machine.into_iter().chain(Cgroup::all(roots).iter().filter_map(Cgroup::available)).min()
}

/// Bytes that the machine has, or that a control group allows where that is less. Nothing when it cannot be told.
pub(crate) fn capacity(roots: &KernelRoots) -> Option<u64> {
    let machine = fs::read_to_string(roots.proc.join("meminfo")).ok().and_then(|text| of_machine(&text, "MemTotal:"));
    machine.into_iter().chain(Cgroup::all(roots).iter().filter_map(Cgroup::limit)).min()
}

fn of_machine(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    use super::super::kernel::MIB;
    use super::super::kernel::fixture::KernelFixture;

    const MEMINFO: &str = "MemTotal:  4096 kB\nMemAvailable:   2097152 kB\nBuffers: 1 kB\n";

    fn room(groups: &str, files: &[(&str, &str)]) -> Option<u64> {
        let kernel = KernelFixture::of(groups);
        files.iter().for_each(|(path, text)| kernel.write(path, text));
        available(&kernel.roots)
    }

    #[test]
    fn the_machine_bounds_it_where_no_group_does() {
        assert_eq!(room("", &[]), None);
        assert_eq!(room("", &[("proc/meminfo", MEMINFO)]), Some(2048 * MIB));
        let free = [("proc/meminfo", MEMINFO), ("cgroup/memory.max", "max\n"), ("cgroup/memory.current", "1000\n")];
        assert_eq!(room("0::/\n", &free), Some(2048 * MIB));
        assert!(available(&KernelRoots::here()).is_some_and(|bytes| bytes > MIB), "this machine can be asked");
    }

    #[test]
    fn a_group_bounds_it_and_what_is_cached_may_go() {
        let stat = format!("anon 5\nfile {0}\ninactive_file {0}\nactive_file {0}\n", 100 * MIB);
        let (limit, usage) = ((1000 * MIB).to_string(), (700 * MIB).to_string());
        let files = [
            ("proc/meminfo", MEMINFO),
            ("cgroup/pod/memory.max", &limit),
            ("cgroup/pod/memory.current", &usage),
            ("cgroup/pod/memory.stat", &stat),
            ("cgroup/pod/box/memory.max", "max"),
            ("cgroup/pod/box/memory.current", "1"),
        ];
        assert_eq!(room("0::/pod/box\n", &files), Some(500 * MIB), "the group above has the limit");
        let kernel = KernelFixture::of("0::/pod/box\n");
        assert_eq!(capacity(&kernel.roots), None);
        kernel.write("proc/meminfo", "MemTotal:  4194304 kB\nMemAvailable:   2097152 kB\n");
        assert_eq!(capacity(&kernel.roots), Some(4096 * MIB));
        kernel.write("cgroup/pod/memory.max", &limit);
        assert_eq!(capacity(&kernel.roots), Some(1000 * MIB), "whatever of it is in use");
    }

    #[test]
    fn the_first_version_of_groups_has_other_names() {
        let stat = format!("cache 7\ntotal_inactive_file {}\ninactive_file 7\n", 50 * MIB);
        let (limit, usage) = ((1000 * MIB).to_string(), (900 * MIB).to_string());
        let files = [
            ("proc/meminfo", MEMINFO),
            ("cgroup/memory/memory.limit_in_bytes", &*limit),
            ("cgroup/memory/memory.usage_in_bytes", &usage),
            ("cgroup/memory/memory.stat", &stat),
        ];
        let groups = "12:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n0::/docker/abc\n";
        assert_eq!(room(groups, &files), Some(150 * MIB), "the container sees itself at the mount");
    }
}
