//! The memory that loaded models share: its budget, the load that gets memory next, and the worker that is evicted.
//!
//! - `budget.rs`: how much memory all models may use together, and how much one process uses
//! - `cgroup.rs`: memory control groups of both versions: limits and counters
//! - `eviction.rs`: which workers are evicted for which load: pure
//! - `gpu.rs`: the wait until processes that have ended have released the GPUs' memory
//! - `host.rs`: how much host memory is still available
//! - `kernel.rs`: where the kernel shows its counters
//! - `learned.rs`: what loaded workers really used, kept across restarts of the service
//! - `ledger.rs`: which workers have memory, which wait for it, and since when
//! - `nvml.rs`: the GPUs' memory, and how much a process uses
//! - `oom_kills.rs`: counts processes that the kernel killed because memory was short (`OomKill`)
//! - `prefetch.rs`: reads a model ahead of its load
//! - `reservation.rs`: the memory of one worker, from the grant until it has been released
//! - `scheduler.rs`: which load is next, and the wait for memory

pub(super) mod budget;
mod cgroup;
mod eviction;
pub(super) mod gpu;
mod host;
pub(super) mod kernel;
pub(super) mod learned;
pub(super) mod ledger;
mod nvml;
pub(super) mod oom_kills;
pub(super) mod prefetch;
pub(super) mod reservation;
pub(super) mod scheduler;
