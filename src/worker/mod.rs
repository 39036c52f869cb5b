//! A worker's life: start a process, watch it, keep its logs, restart it or give it up.
//!
//! [`supervise`] starts the one task that owns a worker. Others hold a [`WorkerHandle`] and see a [`WorkerStatus`]. Nothing here names
//! a client's HTTP request. This file is the public face and nothing else.
//!
//! Each part uses only what stands before it: the files of this folder; `endpoint/`; `memory/`; `process/`; `diagnosis/`;
//! `health/`; `handle.rs`; `remote/` and `supervisor/`.
//!
//! - `bounds.rs`: bounds of waits, queues and buffers that no setting chooses
//! - `change_signal.rs`: tells those who wait for memory that something has changed
//! - `demand.rs`: who keeps a worker awake, and what its owner was last told to do
//! - `diagnosis/`: why a process ended: one cause and one hint
//! - `endpoint/`: one life of a worker as requests see it
//! - `handle.rs`: what others see of a worker
//! - `health/`: probes, hang detection, progress of a load
//! - `load_phases.rs`: how long each part of a load took
//! - `local_errors.rs`: failures that are this machine's, not llama-server's
//! - `memory/`: the memory that loaded models share
//! - `plan.rs`: what one worker is, for its whole life
//! - `process/`: processes: started, ended, and what they leave behind
//! - `procfs.rs`: `/proc`, and the identity of a process beyond its number
//! - `remote/`: the task that owns a remote worker
//! - `state.rs`: the states of a worker, and which may follow which: pure
//! - `supervisor/`: the task that owns a worker's process
//! - `worker_metrics.rs`: what the metrics show of a worker

pub mod bounds;
mod change_signal;
mod demand;
mod diagnosis;
mod endpoint;
mod handle;
mod health;
mod load_phases;
mod local_errors;
mod memory;
mod plan;
mod process;
mod procfs;
mod remote;
mod state;
mod supervisor;
mod worker_metrics;

pub use demand::DemandGuard;
pub use diagnosis::cause::FailureCause;
pub use endpoint::crash_suspects::{CrashSuspects, Fingerprint};
pub use endpoint::in_flight::InFlight;
pub use endpoint::{Endpoint, NotAccepted, RequestClass};
pub use handle::{LastExit, WorkerCondition, WorkerHandle, WorkerLoss, WorkerStatus};
pub use memory::budget::MemoryBudget;
pub use plan::{Need, Plan, Program};
pub use process::reaper::reap_orphans;
pub use process::spawner::Spawner;
pub use remote::{RemotePlan, supervise_remote};
pub use state::WorkerState;
pub use supervisor::context::WorkerContext;
pub use supervisor::supervise;
