//! The health of a running llama-server: probes, hang detection, and the progress of a load.
//!
//! - `cpu_time.rs`: the CPU time that the threads of a process group have used
//! - `hang.rs`: detects a llama-server that processes requests without progress
//! - `listening.rs`: where a process listens
//! - `load_progress.rs`: detects a load without progress
//! - `probe.rs`: probes, and how long a llama-server may fail them

pub(super) mod cpu_time;
pub(super) mod hang;
pub(super) mod listening;
pub(super) mod load_progress;
pub(super) mod probe;
