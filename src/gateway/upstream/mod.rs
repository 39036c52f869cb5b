//! Sends a request to workers, one attempt after the other.
//!
//! - `answer.rs`: makes the client's response of the worker's
//! - `attempt.rs`: what one attempt holds, and what the head of the response says about the worker
//! - `backend_warnings.rs`: warnings about backends that reject what they get
//! - `forward.rs`: sends the request to one worker
//! - `retry.rs`: decides whether, and where, the request is tried again
//! - `worker_error.rs`: what a worker's error says, and what of it the client may see
//! - `worker_request.rs`: the request as a worker gets it

mod answer;
pub(super) mod attempt;
mod backend_warnings;
pub(super) mod forward;
pub(super) mod retry;
mod worker_error;
mod worker_request;
