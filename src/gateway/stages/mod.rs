//! Stages of a request that need more than a few lines. `pipeline.rs` has their order.
//!
//! - `admission.rs`: which route a request means, and whether its caller may use it
//! - `booking.rs`: who a request is booked on, and what it may use
//! - `early_checks.rs`: what is refused before the body is read
//! - `own_answers.rs`: requests that the gateway answers itself
//! - `serve_cached.rs`: requests that the cache answers, and those whose answer it shares
//! - `serve_translated.rs`: requests in dialects, which are served by calls
//! - `sharing.rs`: what a request takes of limits that replicas share
//! - `wait_for_worker.rs`: the wait for a slot and a worker

mod admission;
pub(super) mod booking;
mod early_checks;
pub(super) mod own_answers;
mod serve_cached;
mod serve_translated;
mod sharing;
mod wait_for_worker;
