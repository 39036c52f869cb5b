//! Sends a request to workers, one attempt after the other.
//!
//! - `forward.rs`: sends the request to one worker
//! - `retry.rs`: decides whether, and where, the request is tried again

pub(super) mod forward;
pub(super) mod retry;
