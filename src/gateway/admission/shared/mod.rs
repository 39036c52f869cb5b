//! The limits of a key as replicas share them through `LIMITS_STORE`.
//!
//! Each limit is counted here too, in `rate.rs` and `budget/`, and both counts must allow a request. Owns what one request
//! asks of the store, what its answer means for the client, and what the store is told at the end. How the store is asked is
//! the business of `shared_limits`.
//!
//! - `share.rs`: the part of one request in shared limits

pub(crate) mod share;
