//! How much memory this machine has, and how much of it is available, control groups included.

use std::fs;

use super::cgroup::Cgroup;
use super::kernel::KernelRoots;

/// Returns the bytes that are available on the machine, or in the tightest control group if that is less. Page cache
/// counts as available. `None` if unknown.
pub(super) fn available(roots: &KernelRoots) -> Option<u64> {
    let machine =
        fs::read_to_string(roots.proc.join("meminfo")).ok().and_then(|text| meminfo_bytes(&text, "MemAvailable:"));
    machine.into_iter().chain(Cgroup::all(roots).iter().filter_map(Cgroup::available)).min()
}

/// Returns the bytes of the machine, or the smallest limit of its control groups if that is less. `None` if unknown.
pub(super) fn capacity(roots: &KernelRoots) -> Option<u64> {
    let machine =
        fs::read_to_string(roots.proc.join("meminfo")).ok().and_then(|text| meminfo_bytes(&text, "MemTotal:"));
    machine.into_iter().chain(Cgroup::all(roots).iter().filter_map(Cgroup::limit)).min()
}

/// Returns the bytes of one line of `/proc/meminfo`, whose unit "kB" means 1024 bytes (proc_meminfo(5)).
fn meminfo_bytes(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    use super::super::kernel::MIB;
    use super::super::kernel::fixture::KernelFixture;

    const MEMINFO: &str = "MemTotal:  4096 kB\nMemAvailable:   2097152 kB\nBuffers: 1 kB\n";

    fn available_with(groups: &str, files: &[(&str, &str)]) -> Option<u64> {
        let kernel = KernelFixture::with_groups(groups);
        files.iter().for_each(|(path, text)| kernel.write(path, text));
        available(&kernel.roots)
    }

    #[test]
    fn the_machine_limits_available_memory_where_no_group_does() {
        assert_eq!(available_with("", &[]), None);
        assert_eq!(available_with("", &[("proc/meminfo", MEMINFO)]), Some(2048 * MIB));
        let free = [("proc/meminfo", MEMINFO), ("cgroup/memory.max", "max\n"), ("cgroup/memory.current", "1000\n")];
        assert_eq!(available_with("0::/\n", &free), Some(2048 * MIB));
        assert!(available(&KernelRoots::here()).is_some_and(|bytes| bytes > MIB), "this machine shows its memory");
    }

    #[test]
    fn a_group_limits_available_memory_and_its_page_cache_counts_as_available() {
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
        assert_eq!(available_with("0::/pod/box\n", &files), Some(500 * MIB), "the parent group has the limit");
        let kernel = KernelFixture::with_groups("0::/pod/box\n");
        assert_eq!(capacity(&kernel.roots), None);
        kernel.write("proc/meminfo", "MemTotal:  4194304 kB\nMemAvailable:   2097152 kB\n");
        assert_eq!(capacity(&kernel.roots), Some(4096 * MIB));
        kernel.write("cgroup/pod/memory.max", &limit);
        assert_eq!(capacity(&kernel.roots), Some(1000 * MIB), "capacity does not depend on usage");
    }

    #[test]
    fn version_1_uses_other_file_names() {
        let stat = format!("cache 7\ntotal_inactive_file {}\ninactive_file 7\n", 50 * MIB);
        let (limit, usage) = ((1000 * MIB).to_string(), (900 * MIB).to_string());
        let files = [
            ("proc/meminfo", MEMINFO),
            ("cgroup/memory/memory.limit_in_bytes", &*limit),
            ("cgroup/memory/memory.usage_in_bytes", &usage),
            ("cgroup/memory/memory.stat", &stat),
        ];
        let groups = "12:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n0::/docker/abc\n";
        assert_eq!(
            available_with(groups, &files),
            Some(150 * MIB),
            "the container sees its own group at the root of the mount"
        );
    }
}
