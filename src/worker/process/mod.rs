//! Processes: their command lines, how they are started and ended, and what they leave behind.
//!
//! - `blocking.rs`: work that may block in the kernel, on a thread of its own
//! - `children.rs`: the child processes that tokio waits for; all others are reaped
//! - `command.rs`: the arguments and the environment of a worker's process
//! - `cpus.rs`: how many CPUs a process may use
//! - `detached.rs`: processes of commands: a service in the background, the service manager's program
//! - `help.rs`: runs `llama-server --help`
//! - `leftovers.rs`: finds and ends the processes that a llama-server left running
//! - `ports.rs`: the port that each worker listens on
//! - `reaper.rs`: reaps orphans as they end
//! - `runtime_dir.rs`: the private directory of each process: key, HOME, and a file with its pid
//! - `spawner.rs`: starts, signals and ends processes; the only file with `unsafe`

pub(super) mod blocking;
mod children;
pub(super) mod command;
pub(super) mod cpus;
pub(super) mod detached;
pub(super) mod help;
pub(super) mod leftovers;
pub(super) mod ports;
pub(super) mod reaper;
pub(super) mod runtime_dir;
pub(super) mod spawner;
