//! The health of a running llama-server: probes, hang detection, the progress of a load, and the use of its KV cache.
//!
//! - `cpu_time.rs`: the CPU time that the threads of a process group have used
//! - `hang.rs`: detects a llama-server that processes requests without progress
//! - `kv_cache.rs`: how much of its KV cache requests in progress use
//! - `listening.rs`: where a process listens
//! - `load_progress.rs`: detects a load without progress
//! - `probe.rs`: probes, and how long a llama-server may fail them
//! - `rpc_server.rs`: probes of an rpc-server

pub(super) mod cpu_time;
pub(super) mod hang;
pub(super) mod kv_cache;
pub(super) mod listening;
pub(super) mod load_progress;
pub(super) mod probe;
pub(super) mod rpc_server;
