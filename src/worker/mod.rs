//! A worker's journey: start a process, watch it, keep its logs, restart it or give up.
//!
//! [`supervise`] starts the one task that owns a worker. Everybody else holds a [`Handle`] and sees a [`Status`].
//! Nothing here names an HTTP request of a client.

mod allowance;
mod aside;
mod bell;
mod board;
pub mod bounds;
mod budget;
mod children;
mod command;
mod cpus;
mod deaths;
mod den;
mod diagnosis;
mod endpoint;
mod eviction;
mod given_up;
mod gpu;
mod handle;
mod health;
mod leftovers;
mod memory;
mod orders;
mod phases;
mod plan;
mod ports;
mod prefetch;
mod process;
mod procfs;
mod progress;
mod pulse;
mod reaper;
mod remote;
mod residents;
mod shortage;
mod state;
mod supervisor;
mod threads;
mod wants;
mod yard;

pub use allowance::Allowance;
pub use deaths::{Deaths, Fingerprint};
pub use diagnosis::cause::Cause;
pub use endpoint::in_flight::InFlight;
pub use endpoint::{Endpoint, Errand, NotNow};
pub use handle::{Handle, LastExit, Loss, Status};
pub use plan::{Need, Plan, Program};
pub use process::Spawner;
pub use reaper::reap_orphans;
pub use remote::{RemotePlan, join};
pub use state::State;
pub use supervisor::supervise;
pub use wants::Want;
pub use yard::Yard;
