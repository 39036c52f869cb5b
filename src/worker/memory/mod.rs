//! The memory that loaded models share: how much there is, which worker has it, and which one waits or gives way.
//!
//! - `budget.rs`: how much memory models may take together, and how much one process takes
//! - `cgroup.rs`: memory control groups of both versions: limits and counters
//! - `eviction.rs`: which workers make room for which: pure
//! - `gpu.rs`: the GPUs' memory, and the wait until it has been given back
//! - `host.rs`: how much of the host's memory may still be filled
//! - `kernel.rs`: where the kernel shows its counters
//! - `ledger.rs`: which workers have memory, which wait for it, and since when
//! - `oom_kills.rs`: processes that the kernel killed because memory was short, counted (`OomKill`)
//! - `prefetch.rs`: reads a model ahead of its load
//! - `reservation.rs`: the memory of one worker, from the grant until it has been given back
//! - `scheduler.rs`: which load is next, and the wait for memory

pub(super) mod budget;
mod cgroup;
mod eviction;
pub(super) mod gpu;
mod host;
pub(super) mod kernel;
pub(super) mod ledger;
pub(super) mod oom_kills;
pub(super) mod prefetch;
pub(super) mod reservation;
pub(super) mod scheduler;
