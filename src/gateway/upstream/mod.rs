//! Sends a request to workers, one attempt after the other.
//!
//! - `forward.rs`: sends the request to one worker
//! - `retry.rs`: decides whether, and where, the request is tried again
//! - `worker_error.rs`: what a worker's error says, and what of it the client may see
//! - `worker_request.rs`: the request as a worker gets it

pub(super) mod forward;
pub(super) mod retry;
mod worker_error;
mod worker_request;
