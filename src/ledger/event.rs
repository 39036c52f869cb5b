//! What is recorded: the use of one request, and the act of an administrator.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

/// What one request has used. One that was refused after it held a slot has used the time of that slot.
#[derive(Debug, Clone)]
pub struct UsageEvent {
    /// When the request arrived. Its hour, day and month are those of this time.
    pub time: Timestamp,
    /// The id of the caller's key, or the name of the platform; `None` if no key was needed, or none was valid.
    pub key: Option<Arc<str>>,
    /// The person whom the key names as its user.
    pub person: Option<Arc<str>>,
    /// The configured model, once it was known.
    pub model: Option<Arc<str>>,
    /// The code of the refusal, if the request was refused.
    pub refused: Option<&'static str>,
    /// Tokens of the prompt, the cached ones included.
    pub prompt_tokens: u64,
    /// Tokens of the prompt that were found in a cache.
    pub cached_tokens: u64,
    /// Tokens of the answer.
    pub completion_tokens: u64,
    /// Whether it counts for budgets. A request that needs no slot does not.
    pub is_budgeted: bool,
    /// Tokens that limits and budgets charge: also those that a remote backend has not reported.
    pub charged_tokens: u64,
    /// Time that the request held slots.
    pub slot_time: Duration,
    /// Time from the arrival to the first byte of the answer, if one was sent.
    pub first_byte: Option<Duration>,
    /// The cost in billionths of the unit of `PRICE_PER_HOUR`.
    pub cost_nanos: u64,
    /// What of the cost is for workers on this machine: it was not idle meanwhile.
    pub machine_cost_nanos: u64,
}

/// What an administrator has done, or was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminAct {
    /// When the request arrived.
    pub time: Timestamp,
    /// The id of the key; `None` if no key is needed.
    pub key: Option<String>,
    /// The address of the client; `None` for a job of a platform's queue.
    pub address: Option<IpAddr>,
    /// The method and the route, such as `POST /v1/models/{id}/load`.
    pub act: String,
    /// The model, key or download that was meant, if the request named one.
    pub target: String,
    /// The status of the answer.
    pub status: u16,
    /// `ok`, or the code of the refusal.
    pub outcome: String,
}

/// What waits in the queue.
#[derive(Debug)]
pub(super) enum Recorded {
    Usage(UsageEvent),
    /// Boxed, because it is rare.
    Act(Box<AdminAct>),
}
