//! Workers: start a process, probe it, keep its logs, restart it or give it up.
//!
//! [`supervise`] starts the one task that owns a worker. Other modules hold a [`WorkerHandle`] and read a
//! [`WorkerStatus`]. Nothing here depends on a client's HTTP request. This file only re-exports.
//!
//! Each part uses only the parts before it: the other files of this folder; `arguments/`; `endpoint/`; `peers/`; `memory/`;
//! `process/`; `diagnosis/`; `health/`; `handle.rs`; `remote/` and `supervisor/`.
//!
//! - `arguments/`: the arguments that one llama-server understands
//! - `bounds.rs`: bounds of waits, queues and buffers that no setting chooses
//! - `change_signal.rs`: wakes loads that wait for memory when something has changed
//! - `demand.rs`: the guards that keep a worker loaded, and the last order to its owner
//! - `diagnosis/`: why a process ended: one cause and one hint
//! - `endpoint/`: one life of a worker as requests see it
//! - `handle.rs`: the public view of a worker
//! - `health/`: probes, hang detection, progress of a load
//! - `load_gauge.rs`: how far the present load is
//! - `load_phases.rs`: how long each part of a load took
//! - `local_errors.rs`: tells failures of this machine from failures of a worker
//! - `memory/`: the memory that loaded models share
//! - `peers/`: the machines that compute parts of a model
//! - `pin.rs`: whether a worker stays loaded although others want its memory, or no request comes
//! - `plan.rs`: the configuration of one worker
//! - `process/`: starting and ending processes, and clearing what they leave behind
//! - `remote/`: the task that owns a remote worker
//! - `served_files.rs`: the files that the answers of a worker depend on
//! - `state.rs`: the states of a worker, and which may follow which: pure
//! - `supervisor/`: the task that owns a worker's process
//! - `worker_metrics.rs`: the metrics of one worker

mod arguments;
pub mod bounds;
mod change_signal;
mod demand;
mod diagnosis;
mod endpoint;
mod handle;
mod health;
mod load_gauge;
mod load_phases;
mod local_errors;
mod memory;
mod peers;
mod pin;
mod plan;
mod process;
mod remote;
mod served_files;
mod state;
mod supervisor;
mod worker_metrics;

pub use arguments::companions::{UnknownCompanion, is_adapter_path};
pub use arguments::help::LlamaHelp;
pub use arguments::own_flags::PROJECTOR_FLAG;
pub use arguments::unknown::UnknownArgument;
pub use demand::{DemandGuard, IdleTime};
pub use diagnosis::cause::FailureCause;
pub use endpoint::crash_suspects::{CrashSuspects, Fingerprint};
pub use endpoint::in_flight::InFlight;
pub use endpoint::key_suspensions::KeySuspensions;
pub use endpoint::{Endpoint, NotAccepted, RequestClass};
pub use handle::{LastExit, WorkerCondition, WorkerHandle, WorkerLoss, WorkerStatus};
pub use load_gauge::LoadReport;
pub use memory::budget::{FreeMemory, MemoryBudget};
pub use memory::learned::LearnedMemory;
pub use pin::Pin;
pub use plan::{ChatTemplate, CompanionFiles, Need, Plan, Program, RpcServerProgram};
pub use process::detached::{DetachedProcess, run_to_end};
pub use process::help::HelpReader;
pub use process::reaper::reap_orphans;
pub use process::spawner::Spawner;
pub use remote::{RemotePlan, supervise_remote};
pub use served_files::{ServedFiles, paths_among};
pub use state::WorkerState;
pub use supervisor::context::WorkerContext;
pub use supervisor::supervise;
