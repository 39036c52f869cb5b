//! What is recorded of each request.
//!
//! - `record.rs`: the account of one request, which becomes its access-log line, its metrics and its token charge
//! - `usage/`: the tokens that an answer cost
//! - `activity.rs`: whether the service is in use

pub(super) mod activity;
pub(super) mod record;
pub(super) mod usage;
