//! A worker's answer on its way back to the client.
//!
//! - `body.rs`: every body that the gateway sends, as hyper sees it
//! - `in_progress.rs`: what an answer on its way holds, and what comes next of it
//! - `stall_sweeper.rs`: ends answers that their clients do not read
//! - `heartbeat.rs`: comments for a client whose stream has not begun
//! - `sse.rs`: the ends of events and of streams
//! - `compute_failure.rs`: what an answer says of the llama-server that gave it
//! - `rename.rs`: puts the client's name of the model into an answer

pub(super) mod body;
mod compute_failure;
pub(super) mod heartbeat;
pub(super) mod in_progress;
pub(crate) mod rename;
mod sse;
pub(super) mod stall_sweeper;
