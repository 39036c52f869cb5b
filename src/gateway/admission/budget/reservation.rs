//! What one request may use of the budgets that it falls under, held until the request ends.

use std::sync::Arc;

use jiff::Timestamp;

use super::account::{Account, AccountLimits, Use};
use crate::amount::Amount;
use crate::keys::Budget;
use crate::refusal::Refusal;
use crate::shared_limits::LimitsStore;

/// The accounts of a caller, with their limits: that of its key, and that of the person behind it.
#[derive(Debug, Clone)]
pub(crate) struct CallerBudgets {
    key: (Arc<Account>, AccountLimits),
    person: Option<(Arc<Account>, AccountLimits)>,
    /// The store whose clock says when days and months begin.
    clock: Option<Arc<LimitsStore>>,
}

/// What a request has reserved. Dropping it gives everything back that was not settled.
#[derive(Debug)]
pub(crate) struct BudgetReservation {
    accounts: CallerBudgets,
    /// How many of the accounts have reserved it.
    reserved_in: usize,
    reserved: Use,
    /// The tokens of the prompt, by estimate.
    prompt: u64,
    admitted: Timestamp,
    used: Use,
}

impl CallerBudgets {
    /// Returns the accounts of a key and of a person behind it.
    pub(crate) fn new(key: Arc<Account>, person: Option<Arc<Account>>, budget: &Budget) -> Self {
        let person = person.map(|account| (account, AccountLimits::of_person(budget)));
        Self { key: (key, AccountLimits::of_key(budget)), person, clock: None }
    }

    /// Lets the clock of this store say when days and months begin.
    pub(crate) fn with_clock(mut self, clock: Option<Arc<LimitsStore>>) -> Self {
        self.clock = clock;
        self
    }

    fn time(&self, now: Timestamp) -> Timestamp {
        self.clock.as_ref().map_or(now, |clock| clock.wall_clock(now))
    }

    /// Returns the accounts with their limits, that of the key first.
    pub(in crate::gateway::admission) fn iter(&self) -> impl Iterator<Item = &(Arc<Account>, AccountLimits)> {
        std::iter::once(&self.key).chain(&self.person)
    }

    /// Whether one of the accounts limits tokens, so that an estimate is needed.
    pub(crate) fn limit_tokens(&self) -> bool {
        self.iter().any(|(_, limits)| limits.limit_tokens())
    }

    /// Estimates the tokens of a prompt in a body of this many bytes.
    pub(crate) fn prompt_tokens(&self, bytes: u64) -> u64 {
        self.key.0.prompt_tokens(bytes)
    }

    /// Checks that the budgets have something left.
    ///
    /// # Errors
    /// [`Refusal::BudgetExceeded`].
    pub(crate) fn check(&self, now: Timestamp) -> Result<(), Refusal> {
        let now = self.time(now);
        self.iter().try_for_each(|(account, limits)| account.check(limits, 0, now))
    }

    /// Reserves one request with a prompt and answers of at most this many tokens, in all accounts or in none.
    ///
    /// # Errors
    /// [`Refusal::BudgetExceeded`].
    pub(crate) fn reserve(self, prompt: u64, answer: u64, now: Timestamp) -> Result<BudgetReservation, Refusal> {
        let now = self.time(now);
        let tokens = prompt.saturating_add(answer);
        let reserved = Use { requests: 1, tokens, cost: Amount::default() };
        let (reserved_in, used) = (0, Use::default());
        let mut reservation = BudgetReservation { accounts: self, reserved_in, reserved, prompt, admitted: now, used };
        for (account, limits) in reservation.accounts.iter() {
            // If the second account refuses, the drop of the reservation gives back what the first has reserved.
            reservation.admitted = reservation.admitted.max(account.reserve(limits, tokens, now)?);
            reservation.reserved_in += 1;
        }
        Ok(reservation)
    }

    /// Returns how many tokens are left in the account that has the fewest; `None` if none limits them.
    pub(crate) fn tokens_left(&self, now: Timestamp) -> Option<u64> {
        let now = self.time(now);
        self.iter().filter_map(|(account, limits)| account.tokens_left(limits, now)).min()
    }
}

impl BudgetReservation {
    /// Returns the tokens of the prompt, by estimate.
    pub(crate) fn prompt(&self) -> u64 {
        self.prompt
    }

    /// Returns the tokens that are reserved.
    pub(crate) fn tokens(&self) -> u64 {
        self.reserved.tokens
    }

    /// Ends the reservation, and charges what the request has used.
    pub(crate) fn settle(mut self, used: Use) {
        self.used = used;
    }

    /// Learns from a prompt of this many tokens, in a body of this many bytes.
    pub(crate) fn learn(&self, bytes: u64, tokens: u64) {
        self.accounts.key.0.learn(bytes, tokens);
    }
}

impl Drop for BudgetReservation {
    fn drop(&mut self) {
        for (account, _) in self.accounts.iter().take(self.reserved_in) {
            account.settle(self.reserved, self.used, self.admitted);
        }
    }
}
