//! What the store is asked and told about one request, and what it answers.

use std::sync::Arc;

use jiff::Timestamp;
use jiff::civil::Date;
use tokio::time::Instant;

/// What was used of a period, or may be: requests, tokens, and billionths of the unit of cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UseSums {
    /// Requests.
    pub requests: u64,
    /// Tokens.
    pub tokens: u64,
    /// Cost.
    pub cost: u64,
}

/// What this replica knows of a day or a month.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ToldPeriod {
    /// Its first day.
    pub start: Date,
    /// What it has used in it since its own start.
    pub own: UseSums,
    /// What it knows to be used in it, also from before its own start.
    pub known: UseSums,
}

/// What this replica knows of an account: of a key, or of a person behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToldAccount {
    /// The person, in a form that does not tell the name; `None` for the key itself.
    pub person: Option<Arc<str>>,
    /// The day.
    pub day: ToldPeriod,
    /// The month.
    pub month: ToldPeriod,
}

/// What a request needs of the budgets of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountAsk {
    /// What this replica knows of it.
    pub told: ToldAccount,
    /// The tokens that the request may use.
    pub tokens: u64,
    /// The limits: requests and tokens of a day, tokens and cost of a month.
    pub limits: [Option<u64>; 4],
}

/// One request of the limit of requests a minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestAsk {
    /// What it takes of the bucket, in nanoseconds.
    pub price: u64,
    /// What the bucket holds.
    pub size: u64,
}

/// A request in flight, among all of this replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HoldId(pub(super) u64);

/// What a request takes of the limits of its key: of all of them, or of none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitTake {
    /// The key's id.
    pub key: Arc<str>,
    /// `None` if requests a minute are not charged.
    pub request: Option<RequestAsk>,
    /// What this replica knows to be used of the bucket of requests, in nanoseconds.
    pub requests_known: u64,
    /// What must be left of the bucket of tokens, in nanoseconds; `None` if they are not limited.
    pub tokens_needed: Option<u64>,
    /// What this replica knows to be used of the bucket of tokens, in nanoseconds.
    pub tokens_known: u64,
    /// The request, if it holds something until it ends.
    pub hold: Option<HoldId>,
    /// The most requests of the key at once.
    pub most_holds: Option<u64>,
    /// What it reserves of the budgets; the account of the key comes first.
    pub accounts: Vec<AccountAsk>,
}

/// Which limit refuses a request, if one does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitVerdict {
    /// None: everything was taken.
    Taken,
    /// Requests a minute.
    Requests,
    /// Tokens a minute.
    Tokens,
    /// Requests at once.
    Holds,
    /// A budget of the account at this place.
    Account(usize),
}

/// What all replicas have used and reserved of an account, after the take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccountSums {
    /// The requests and tokens that requests in flight have reserved.
    pub reserved: UseSums,
    /// What was used of the day.
    pub day: UseSums,
    /// What was used of the month.
    pub month: UseSums,
}

/// The answer to a take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitsTaken {
    /// Which limit refuses the request, if one does.
    pub verdict: LimitVerdict,
    /// The store's time.
    pub time: Timestamp,
    /// What is used of the bucket of requests, in nanoseconds.
    pub requests_used: u64,
    /// What is used of the bucket of tokens, in nanoseconds.
    pub tokens_used: u64,
    /// The accounts that the request asked about.
    pub accounts: Vec<AccountSums>,
}

/// The end of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement {
    /// The key's id.
    pub key: Arc<str>,
    /// What the bucket of requests gets back, in nanoseconds.
    pub refund: u64,
    /// What its tokens take of their bucket, in nanoseconds.
    pub token_cost: u64,
    /// What it held.
    pub hold: Option<HoldId>,
    /// What this replica knows of its accounts now.
    pub accounts: Vec<ToldAccount>,
    /// When it ended.
    pub ended: Instant,
}
