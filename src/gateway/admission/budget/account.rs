//! What one key, or one person behind a key, has used of its day and its month, and what its requests have reserved.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use crate::amount::Amount;
use crate::gateway::bounds::{BYTES_PER_TOKEN, LEAST_BYTES_PER_TOKEN, MOST_BYTES_PER_TOKEN};
use crate::keys::Budget;
use crate::ledger::BudgetPeriod;
use crate::refusal::Refusal;
use crate::shared_limits::{ToldPeriod, UseSums};

/// The limits of one account; `None` means unlimited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct AccountLimits {
    pub(crate) requests_per_day: Option<u64>,
    pub(crate) tokens_per_day: Option<u64>,
    pub(crate) tokens_per_month: Option<u64>,
    pub(crate) cost_per_month: Option<Amount>,
    /// Whose limits they are, as errors say it.
    pub(crate) owner: BudgetOwner,
}

/// Whose limits are meant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum BudgetOwner {
    #[default]
    Key,
    Person,
}

/// What was used in a period, or by a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Use {
    pub(crate) requests: u64,
    pub(crate) tokens: u64,
    pub(crate) cost: Amount,
}

/// One account.
#[derive(Debug, Default)]
pub(crate) struct Account(Mutex<Balance>);

#[derive(Debug, Default)]
struct Balance {
    day: PeriodUse,
    month: PeriodUse,
    /// What the requests in flight have reserved.
    reserved: Use,
    /// The mean length of a token of a prompt, in bytes of the body; `None` before the first answer.
    bytes_per_token: Option<f64>,
}

/// What was used in the period that began at `start`.
#[derive(Debug, Default)]
struct PeriodUse {
    start: Timestamp,
    /// When the next one begins.
    end: Timestamp,
    used: Use,
    /// What of it was used before the start.
    restored: Use,
}

impl AccountLimits {
    /// Returns the limits of a key.
    pub(crate) fn of_key(budget: &Budget) -> Self {
        Self {
            requests_per_day: budget.requests_per_day.map(Into::into),
            tokens_per_day: budget.tokens_per_day.map(Into::into),
            tokens_per_month: budget.tokens_per_month.map(Into::into),
            cost_per_month: budget.cost_per_month,
            owner: BudgetOwner::Key,
        }
    }

    /// Returns the limits of each person behind a key.
    pub(crate) fn of_person(budget: &Budget) -> Self {
        let tokens_per_day = budget.person_tokens_per_day.map(Into::into);
        Self { tokens_per_day, owner: BudgetOwner::Person, ..Self::default() }
    }

    /// Whether tokens are limited.
    pub(super) fn limit_tokens(&self) -> bool {
        self.tokens_per_day.is_some() || self.tokens_per_month.is_some()
    }

    /// Checks that one more request that may use this many tokens is within the limits, where this was used of the day and the
    /// month, and this is reserved.
    ///
    /// # Errors
    /// [`Refusal::BudgetExceeded`] for the first limit that is not met.
    pub(in crate::gateway::admission) fn check(
        &self,
        day: &Use,
        month: &Use,
        reserved: &Use,
        tokens: u64,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let refuse = |budget, left: String, period: BudgetPeriod| {
            let end = period.end(now);
            let wait = Duration::try_from(end.duration_since(now)).unwrap_or_default();
            Err(Refusal::BudgetExceeded { budget, left, resets: end.to_string(), wait })
        };
        if let Some(limit) = self.requests_per_day {
            let taken = day.requests.saturating_add(reserved.requests);
            if taken >= limit {
                return refuse("requests_per_day", "no request is left".to_owned(), BudgetPeriod::Day);
            }
        }
        let by_tokens = [
            (self.name("tokens_per_day", "person_tokens_per_day"), self.tokens_per_day, day, BudgetPeriod::Day),
            ("tokens_per_month", self.tokens_per_month, month, BudgetPeriod::Month),
        ];
        for (name, limit, period_use, period) in by_tokens {
            let Some(limit) = limit else { continue };
            let left = limit.saturating_sub(period_use.tokens).saturating_sub(reserved.tokens);
            if left == 0 {
                return refuse(name, "no token is left".to_owned(), period);
            }
            if tokens > left {
                return refuse(name, format!("{left} tokens are left, and it may take {tokens}"), period);
            }
        }
        match self.cost_per_month {
            Some(limit) if month.cost >= limit => {
                refuse("cost_per_month", "nothing is left".to_owned(), BudgetPeriod::Month)
            }
            _ => Ok(()),
        }
    }

    /// Returns how many tokens are left, where this was used of the day and the month, and this is reserved; `None` without
    /// a limit on tokens.
    pub(in crate::gateway::admission) fn tokens_left(&self, day: &Use, month: &Use, reserved: &Use) -> Option<u64> {
        let left = |limit: u64, used: &Use| limit.saturating_sub(used.tokens.saturating_add(reserved.tokens));
        let of_day = self.tokens_per_day.map(|limit| left(limit, day));
        let of_month = self.tokens_per_month.map(|limit| left(limit, month));
        of_day.into_iter().chain(of_month).min()
    }

    /// Whether nothing is limited.
    pub(in crate::gateway::admission) fn is_empty(&self) -> bool {
        *self == Self { owner: self.owner, ..Self::default() }
    }

    fn name(&self, of_key: &'static str, of_person: &'static str) -> &'static str {
        match self.owner {
            BudgetOwner::Key => of_key,
            BudgetOwner::Person => of_person,
        }
    }
}

impl Use {
    fn add(&mut self, other: Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.tokens = self.tokens.saturating_add(other.tokens);
        self.cost = Amount::from_nanos(self.cost.nanos().saturating_add(other.cost.nanos()));
    }

    fn remove(&mut self, other: Self) {
        self.requests = self.requests.saturating_sub(other.requests);
        self.tokens = self.tokens.saturating_sub(other.tokens);
        self.cost = Amount::from_nanos(self.cost.nanos().saturating_sub(other.cost.nanos()));
    }
}

impl From<Use> for UseSums {
    fn from(used: Use) -> Self {
        Self { requests: used.requests, tokens: used.tokens, cost: used.cost.nanos() }
    }
}

impl From<UseSums> for Use {
    fn from(sums: UseSums) -> Self {
        Self { requests: sums.requests, tokens: sums.tokens, cost: Amount::from_nanos(sums.cost) }
    }
}

impl PeriodUse {
    /// Returns the unused period that this time is in.
    fn of(period: BudgetPeriod, now: Timestamp) -> Self {
        Self { start: period.start(now), end: period.end(now), ..Self::default() }
    }

    /// Begins a new period if this time is after the current one. A clock that was set back stays in the current one:
    /// nothing is given a second time.
    fn follow(&mut self, period: BudgetPeriod, now: Timestamp) {
        if now >= self.end {
            *self = Self::of(period, now);
        }
    }

    fn told(&self) -> ToldPeriod {
        let mut own = self.used;
        own.remove(self.restored);
        ToldPeriod { start: BudgetPeriod::Day.start_of(self.start), own: own.into(), known: self.used.into() }
    }

    /// Adds what a request used that was admitted at this time, unless that was in an earlier period.
    fn add(&mut self, admitted: Timestamp, used: Use) {
        // What was admitted before belongs to a period that has ended.
        if admitted >= self.start {
            self.used.add(used);
        }
    }
}

impl Account {
    /// Adds what was used before the start, in the day or the month of this time.
    pub(crate) fn restore(&self, period: BudgetPeriod, used: Use, now: Timestamp) {
        let mut balance = self.lock();
        balance.follow(now);
        let of_period = match period {
            BudgetPeriod::Day => &mut balance.day,
            BudgetPeriod::Month => &mut balance.month,
        };
        of_period.used.add(used);
        of_period.restored.add(used);
    }

    /// Checks that one more request that may use this many tokens is within the limits. Takes nothing.
    ///
    /// # Errors
    /// [`Refusal::BudgetExceeded`] for the first limit that is not met.
    pub(crate) fn check(&self, limits: &AccountLimits, tokens: u64, now: Timestamp) -> Result<(), Refusal> {
        self.lock().check(limits, tokens, now)
    }

    /// Reserves one request that may use this many tokens. Returns when it counts as admitted: with a clock that was set back,
    /// at the start of the current day.
    ///
    /// # Errors
    /// As [`Account::check`]; nothing is reserved then.
    pub(super) fn reserve(&self, limits: &AccountLimits, tokens: u64, now: Timestamp) -> Result<Timestamp, Refusal> {
        let mut balance = self.lock();
        balance.check(limits, tokens, now)?;
        balance.reserved.add(Use { requests: 1, tokens, cost: Amount::default() });
        Ok(now.max(balance.day.start))
    }

    /// Replaces what a request had reserved, which was admitted at this time, by what it used.
    pub(super) fn settle(&self, reserved: Use, used: Use, admitted: Timestamp) {
        let mut balance = self.lock();
        balance.reserved.remove(reserved);
        balance.day.add(admitted, used);
        balance.month.add(admitted, used);
    }

    /// Returns how many tokens are left within the limits; `None` without a limit on tokens.
    pub(crate) fn tokens_left(&self, limits: &AccountLimits, now: Timestamp) -> Option<u64> {
        let mut balance = self.lock();
        balance.follow(now);
        limits.tokens_left(&balance.day.used, &balance.month.used, &balance.reserved)
    }

    /// Returns what is left of each limit, by the attribute that sets it: requests, tokens or cost.
    pub(crate) fn left(&self, limits: &AccountLimits, now: Timestamp) -> Vec<(&'static str, f64)> {
        let mut balance = self.lock();
        balance.follow(now);
        let Balance { day, month, reserved, .. } = &*balance;
        let count = |limit: u64, used: u64, reserved: u64| limit.saturating_sub(used).saturating_sub(reserved) as f64;
        let requests = |limit| count(limit, day.used.requests, reserved.requests);
        let tokens = |limit, used: &PeriodUse| count(limit, used.used.tokens, reserved.tokens);
        let cost = |limit: Amount| limit.as_units() - month.used.cost.as_units().min(limit.as_units());
        let all = [
            ("requests_per_day", limits.requests_per_day.map(requests)),
            ("tokens_per_day", limits.tokens_per_day.map(|limit| tokens(limit, day))),
            ("tokens_per_month", limits.tokens_per_month.map(|limit| tokens(limit, month))),
            ("cost_per_month", limits.cost_per_month.map(cost)),
        ];
        all.into_iter().filter_map(|(budget, left)| Some((budget, left?))).collect()
    }

    /// Returns what was used of the day and of the month, without what is reserved.
    pub(crate) fn used(&self, now: Timestamp) -> (Use, Use) {
        let mut balance = self.lock();
        balance.follow(now);
        (balance.day.used, balance.month.used)
    }

    /// Returns what was used of the day and of the month, as other replicas are told.
    pub(in crate::gateway::admission) fn told(&self, now: Timestamp) -> (ToldPeriod, ToldPeriod) {
        let mut balance = self.lock();
        balance.follow(now);
        (balance.day.told(), balance.month.told())
    }

    /// Estimates the tokens of a prompt in a body of this many bytes, by the answers so far.
    pub(super) fn prompt_tokens(&self, bytes: u64) -> u64 {
        let learned = self.lock().bytes_per_token.unwrap_or(BYTES_PER_TOKEN as f64);
        (bytes as f64 / learned).ceil() as u64
    }

    /// Learns from a prompt of this many tokens, in a body of this many bytes.
    pub(super) fn learn(&self, bytes: u64, tokens: u64) {
        // A picture in a body is long and few tokens, and says nothing about text.
        let seen = (bytes as f64 / tokens as f64).clamp(LEAST_BYTES_PER_TOKEN, MOST_BYTES_PER_TOKEN);
        let mut balance = self.lock();
        balance.bytes_per_token = Some(balance.bytes_per_token.map_or(seen, |mean| (mean * 4.0 + seen) / 5.0));
    }

    /// Returns whether the account has nothing in flight and nothing used in the current day or month, so that a new one
    /// would be equal. Begins no period: the clock of this machine, by which sweeps go, may be ahead of that of the limits
    /// store.
    pub(crate) fn is_blank(&self, now: Timestamp) -> bool {
        let balance = self.lock();
        balance.reserved == Use::default() && (balance.month.used == Use::default() || now >= balance.month.end)
    }

    fn lock(&self) -> MutexGuard<'_, Balance> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Balance {
    fn follow(&mut self, now: Timestamp) {
        self.day.follow(BudgetPeriod::Day, now);
        self.month.follow(BudgetPeriod::Month, now);
    }

    fn check(&mut self, limits: &AccountLimits, tokens: u64, now: Timestamp) -> Result<(), Refusal> {
        self.follow(now);
        limits.check(&self.day.used, &self.month.used, &self.reserved, tokens, now)
    }
}

#[cfg(test)]
#[path = "account_tests.rs"]
mod tests;
