//! How a running llama-server is: probes, hang detection, and the progress of a load.
//!
//! - `cpu_time.rs`: the CPU time that the threads of a process group have used
//! - `hang.rs`: whether a llama-server that works makes progress
//! - `load_progress.rs`: whether a load makes progress
//! - `probe.rs`: probes, and how long a llama-server may stay silent

pub(super) mod cpu_time;
pub(super) mod hang;
pub(super) mod load_progress;
pub(super) mod probe;
