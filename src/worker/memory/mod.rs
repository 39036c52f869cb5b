//! The memory that loaded models share: its budget, the load that gets memory next, and the worker that is evicted.
//!
//! - `budget.rs`: how much memory all models may use together, and how much one process uses
//! - `eviction.rs`: which workers are evicted for which load: pure
//! - `gpu.rs`: the wait until processes that have ended have released the GPUs' memory
//! - `learned.rs`: what loaded workers really used, kept across restarts of the service
//! - `ledger.rs`: which workers have memory, which wait for it, and since when
//! - `nvml.rs`: the GPUs' memory, and how much a process uses
//! - `prefetch.rs`: reads a model ahead of its load
//! - `reservation.rs`: the memory of one worker, from the grant until it has been released
//! - `scheduler.rs`: which load is next, and the wait for memory

pub(super) mod budget;
mod eviction;
pub(super) mod gpu;
pub(super) mod learned;
pub(super) mod ledger;
mod nvml;
pub(super) mod prefetch;
pub(super) mod reservation;
pub(super) mod scheduler;
