//! Limits of keys that several replicas share through a Valkey or Redis server: requests and tokens a minute, requests at
//! once, and budgets.
//!
//! Owns the connections to the server, what is kept there, and the scripts that check and take all limits of a key in one
//! step. Each replica counts for itself too, whether or not the server answers: what a limit means, and the limits of one
//! replica, belong to `gateway/admission`. A request waits for one answer at most, and for a bounded time; then the limits
//! of its replica alone count for it. What a request has used is told after its end, off its path.
//!
//! - `bounds.rs`: waits and sizes that no user needs to choose
//! - `health.rs`: whether the server answers, in the log, the metrics and on `/health`
//! - `held.rs`: the requests in flight that hold something of a limit
//! - `keeper.rs`: keeps the connection of one core, and tells what has ended
//! - `link.rs`: the connection of one core, as requests use it
//! - `orders.rs`: what is asked and told, and what is answered
//! - `script_calls.rs`: the scripts, their keys and arguments, and their answers
//! - `scripts/`: the scripts, in Lua
//! - `start.rs`: connects each core
//! - `store.rs`: the store as a whole

mod bounds;
mod health;
mod held;
mod keeper;
mod link;
mod orders;
mod script_calls;
mod start;
mod store;

pub use link::StoreLink;
pub use orders::{
    AccountAsk, AccountSums, HoldId, LimitTake, LimitVerdict, LimitsTaken, RequestAsk, Settlement, ToldAccount,
    ToldPeriod, UseSums,
};
pub use start::connect;
pub use store::LimitsStore;
