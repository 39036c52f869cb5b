//! One request on its way to workers.
//!
//! - `forward.rs`: sends the request to one worker
//! - `retry.rs`: which worker or model is tried next

pub(super) mod forward;
pub(super) mod retry;
