//! Linux: what the kernel shows below `/proc` and `/sys`, and what no other system can do. The bound on open files is here.
//!
//! - `cgroup.rs`: memory control groups of both versions: limits and counters
//! - `children_guard.rs`: the kernel ends the children of this process with it, and tells whether one has ended
//! - `cpus.rs`: how many CPUs this machine has
//! - `files.rs`: files: where they lie, their room, which process uses which
//! - `host_memory.rs`: how much host memory there is, and how much is still available
//! - `kernel.rs`: where the kernel shows its counters
//! - `oom_kills.rs`: counts processes that the kernel killed because memory was short
//! - `procfs.rs`: reads `/proc`
//! - `sockets.rs`: options of sockets

mod cgroup;
mod children_guard;
mod cpus;
mod files;
mod host_memory;
mod kernel;
mod oom_kills;
mod procfs;
mod sockets;

use super::oom_kills::OomCounters;
use kernel::KernelRoots;

pub(crate) use children_guard::{KernelGuard, may_have_ended_child};
pub(crate) use cpus::online_cpus;
pub(crate) use files::{advise_sequential, is_on_this_machine, mapped_among, memory_folder, opened_among, reserve};
pub(crate) use procfs::{
    command_line, find_connection, has_gpu_open, is_command_line_exact, listening, load_counters, pid_namespace,
    program_name, resident, stat, stats, threads, variable, working_directory,
};
pub(crate) use sockets::without_user_timeout;

/// Returns how many open files a process can be allowed under this hard limit: all of them.
pub(crate) fn most_open_files(hard: u64) -> u64 {
    hard
}

/// Returns the bytes of the machine, or the smallest limit of its control groups if that is less. `None` if unknown.
pub(crate) fn memory_capacity() -> Option<u64> {
    host_memory::capacity(&KernelRoots::here())
}

/// Returns the bytes that are available on the machine, or in the tightest control group if that is less. Page cache
/// counts as available. `None` if unknown.
pub(crate) fn memory_available() -> Option<u64> {
    host_memory::available(&KernelRoots::here())
}

/// Returns the counters of OOM kills.
pub(crate) fn oom_counters() -> OomCounters {
    oom_kills::oom_counters(&KernelRoots::here())
}
