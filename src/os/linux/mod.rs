//! Linux: what the kernel shows below `/proc` and `/sys`.
//!
//! - `cgroup.rs`: memory control groups of both versions: limits and counters
//! - `host_memory.rs`: how much host memory is still available
//! - `kernel.rs`: where the kernel shows its counters
//! - `oom_kills.rs`: counts processes that the kernel killed because memory was short (`OomKill`)
//! - `procfs.rs`: reads `/proc`; the identity of a process beyond its id

mod cgroup;
pub(crate) mod host_memory;
pub(crate) mod kernel;
pub(crate) mod oom_kills;
pub(crate) mod procfs;
