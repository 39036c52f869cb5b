//! Accounting of each request: access log, metrics and token charges.
//!
//! - `record.rs`: the record of one request, written as its access-log line and metrics
//! - `settlement.rs`: what a request is charged when its record closes
//! - `recent_acts.rs`: what administrators have done last
//! - `slot_use.rs`: how long a request holds slots, and what that costs
//! - `traced.rs`: the stages of a request as its trace shows them
//! - `usage/`: counts the tokens of a response
//! - `verdict.rs`: how an answer has ended, for others than its own client
//! - `activity.rs`: whether the service is in use, for the exit when idle

pub(super) mod activity;
pub(super) mod recent_acts;
pub(super) mod record;
mod settlement;
pub(super) mod slot_use;
mod traced;
pub(super) mod usage;
pub(super) mod verdict;
