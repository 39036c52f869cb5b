//! The part of one request in the limits that replicas share: taken once, and settled when the last owner drops it.

use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use governor::Quota;
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use crate::amount::Amount;
use crate::gateway::admission::budget::account::{Account, AccountLimits, BudgetOwner};
use crate::gateway::admission::budget::reservation::CallerBudgets;
use crate::gateway::admission::limit_names::{AT_ONCE, REQUESTS, TOKENS};
use crate::hex::hex;
use crate::rate_bucket::{Bucket, DebtBucket, RateStatus};
use crate::refusal::Refusal;
use crate::shared_limits::{
    AccountAsk, AccountSums, HoldId, LimitTake, LimitVerdict, LimitsStore, LimitsTaken, RequestAsk, Settlement,
    StoreLink, ToldAccount,
};

/// Bytes of the hash that stands for a person's name in the store.
const PERSON_HASH: usize = 16;

/// The limits a minute of a key, and what this replica knows to be used of them, in nanoseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MinuteLimits {
    pub(crate) requests: NonZeroU32,
    pub(crate) requests_used: u64,
    pub(crate) tokens: Option<NonZeroU64>,
    pub(crate) tokens_used: u64,
    pub(crate) most_at_once: Option<u64>,
}

/// What a request needs of the limits of its key.
#[derive(Debug)]
pub(crate) struct ShareNeeds<'a> {
    pub(crate) key: &'a Arc<str>,
    pub(crate) limits: MinuteLimits,
    /// Whether it is charged to the limits a minute.
    pub(crate) is_charged: bool,
    /// Whether it counts among the requests at once until it ends.
    pub(crate) is_held: bool,
    /// The budgets that it has reserved these tokens of, and the person behind the key.
    pub(crate) reserved: Option<(CallerBudgets, u64)>,
    pub(crate) person: Option<&'a str>,
    /// When it arrived.
    pub(crate) arrived: Timestamp,
}

/// The part of one request in shared limits.
pub(crate) struct RequestShare {
    store: Arc<LimitsStore>,
    state: Mutex<ShareState>,
}

#[derive(Default)]
struct ShareState {
    /// What was asked, once something was.
    asked: Option<AskedLimits>,
    /// Whether this replica has charged the request.
    is_charged: bool,
    /// What its tokens take of their bucket, in nanoseconds.
    token_cost: u64,
    status: Option<SharedStatus>,
}

struct AskedLimits {
    link: Arc<StoreLink>,
    key: Arc<str>,
    hold: Option<HoldId>,
    /// What the store has said that it took of the bucket of requests, in nanoseconds.
    taken: u64,
    accounts: Vec<LimitedAccount>,
}

type LimitedAccount = (Arc<Account>, Option<Arc<str>>);

/// What all replicas had used when the store answered.
#[derive(Clone, Copy)]
struct SharedStatus {
    at: Instant,
    requests: NonZeroU32,
    requests_used: u64,
    tokens: Option<NonZeroU64>,
    tokens_used: u64,
    tokens_left: Option<u64>,
}

impl RequestShare {
    /// Returns the part of a request that has taken nothing yet.
    pub(crate) fn new(store: Arc<LimitsStore>) -> Self {
        Self { store, state: Mutex::default() }
    }

    /// Returns the store.
    pub(crate) fn store(&self) -> &Arc<LimitsStore> {
        &self.store
    }

    /// Takes what a request needs of the shared limits, in one round trip, or nothing; waits for a bounded time. Without an
    /// answer the limits of this replica alone count, which were checked before.
    ///
    /// # Errors
    /// 429 for the first limit that is reached. `retry_after` estimates when a request of the key ends.
    pub(crate) async fn take(&self, needs: ShareNeeds<'_>, retry_after: Duration) -> Result<(), Refusal> {
        let ShareNeeds { key, limits, is_charged, is_held, reserved, person, arrived } = needs;
        let now = self.store.wall_clock(arrived);
        let (asks, accounts): (Vec<AccountAsk>, Vec<LimitedAccount>) =
            reserved.iter().flat_map(|(budgets, tokens)| limited_accounts(budgets, *tokens, person, now)).unzip();
        let most_holds = limits.most_at_once.filter(|_| is_held);
        let hold = (most_holds.is_some() || !asks.is_empty()).then(|| self.store.new_hold());
        if !is_charged && hold.is_none() {
            return Ok(());
        }
        let price = Bucket::price(limits.requests);
        let size = price.saturating_mul(limits.requests.get().into());
        let take = LimitTake {
            key: Arc::clone(key),
            request: is_charged.then_some(RequestAsk { price, size }),
            requests_known: limits.requests_used,
            tokens_needed: limits.tokens.filter(|_| is_charged).map(DebtBucket::least_left),
            tokens_known: limits.tokens_used,
            hold,
            most_holds,
            accounts: asks,
        };
        let link = self.store.link();
        // Before the wait: a client may leave meanwhile, and the store may hold its place by then. It may have taken the
        // price too, or not: better charged once too often than given back what was not taken.
        let asked = AskedLimits { link: Arc::clone(&link), key: Arc::clone(key), hold, taken: 0, accounts };
        self.lock().asked = Some(asked);
        let Some(taken) = self.store.take(&link, &take).await else { return Ok(()) };
        let of_accounts = reserved.iter().flat_map(|(budgets, _)| told_accounts(budgets)).map(|(_, limits)| *limits);
        let of_accounts: Vec<(AccountLimits, AccountSums)> = of_accounts.zip(taken.accounts.iter().copied()).collect();
        self.record(&taken, limits, &of_accounts);
        let status = SharedStatus::of(&taken, limits, None);
        match taken.verdict {
            LimitVerdict::Taken => {
                if let Some(asked) = &mut self.lock().asked {
                    asked.taken = if is_charged { price } else { 0 };
                }
                Ok(())
            }
            LimitVerdict::Requests => Err(Refusal::RateLimited(REQUESTS, status.requests(0).err().unwrap_or_default())),
            LimitVerdict::Tokens => Err(Refusal::RateLimited(TOKENS, status.tokens_wait(0))),
            LimitVerdict::Holds => Err(Refusal::RateLimited(AT_ONCE, retry_after)),
            LimitVerdict::Account(place) => {
                let tokens = take.accounts.get(place).map_or(0, |account| account.tokens);
                of_accounts.get(place).map_or(Ok(()), |(limits, sums)| {
                    let (day, month, reserved) = (sums.day.into(), sums.month.into(), sums.reserved.into());
                    limits.check(&day, &month, &reserved, tokens, taken.time)
                })
            }
        }
    }

    fn record(&self, taken: &LimitsTaken, limits: MinuteLimits, accounts: &[(AccountLimits, AccountSums)]) {
        let left = |(limits, sums): &(AccountLimits, AccountSums)| {
            limits.tokens_left(&sums.day.into(), &sums.month.into(), &sums.reserved.into())
        };
        let tokens_left = accounts.iter().filter_map(left).min();
        let mut state = self.lock();
        state.status = Some(SharedStatus::of(taken, limits, tokens_left));
        if taken.verdict != LimitVerdict::Taken {
            state.asked = None;
        }
    }

    /// Records that this replica has charged the request too.
    pub(crate) fn record_charge(&self) {
        self.lock().is_charged = true;
    }

    /// Records what the tokens of the request take of their bucket.
    pub(crate) fn record_tokens(&self, cost: u64) {
        let mut state = self.lock();
        state.token_cost = state.token_cost.saturating_add(cost);
    }

    /// Returns what is left of the limits a minute of all replicas, if the store has said so.
    pub(crate) fn rates(&self) -> Option<(RateStatus, Option<RateStatus>)> {
        let status = self.lock().status?;
        let passed = u64::try_from(status.at.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let requests = Bucket::with_used(status.requests_used).check(Quota::per_minute(status.requests), passed);
        let tokens = status.tokens.map(|limit| DebtBucket::with_used(status.tokens_used).check(limit, passed));
        Some((
            requests.unwrap_or_else(|wait| wait.status),
            tokens.map(|tokens| tokens.unwrap_or_else(|wait| wait.status)),
        ))
    }

    /// Returns how many tokens are left of the budgets of all replicas, if the store has said so.
    pub(crate) fn tokens_left(&self) -> Option<u64> {
        self.lock().status?.tokens_left
    }

    fn lock(&self) -> MutexGuard<'_, ShareState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SharedStatus {
    fn of(taken: &LimitsTaken, limits: MinuteLimits, tokens_left: Option<u64>) -> Self {
        Self {
            at: Instant::now(),
            requests: limits.requests,
            requests_used: taken.requests_used,
            tokens: limits.tokens,
            tokens_used: taken.tokens_used,
            tokens_left,
        }
    }

    /// Returns the time until a request is left, if none is.
    fn requests(&self, now: u64) -> Result<RateStatus, Duration> {
        let bucket = Bucket::with_used(self.requests_used);
        bucket.check(Quota::per_minute(self.requests), now).map_err(|wait| wait.time)
    }

    fn tokens_wait(&self, now: u64) -> Duration {
        let check = |limit| DebtBucket::with_used(self.tokens_used).check(limit, now).err();
        self.tokens.and_then(check).map(|wait| wait.time).unwrap_or_default()
    }
}

/// Returns the accounts that the store is told of: none if no limit is set, else that of the key, and that of the person if it
/// has limits.
fn told_accounts(budgets: &CallerBudgets) -> impl Iterator<Item = &(Arc<Account>, AccountLimits)> {
    let is_limited = budgets.iter().any(|(_, limits)| !limits.is_empty());
    budgets.iter().filter(move |(_, limits)| is_limited && (limits.owner == BudgetOwner::Key || !limits.is_empty()))
}

/// Returns what is asked of each account, and what is told of it at the end.
fn limited_accounts(
    budgets: &CallerBudgets,
    tokens: u64,
    person: Option<&str>,
    now: Timestamp,
) -> impl Iterator<Item = (AccountAsk, LimitedAccount)> {
    told_accounts(budgets).map(move |(account, limits)| {
        let person = person.filter(|_| limits.owner == BudgetOwner::Person).map(person_hash);
        let cost = limits.cost_per_month.map(Amount::nanos);
        let limits = [limits.requests_per_day, limits.tokens_per_day, limits.tokens_per_month, cost];
        let told = told(account, person.clone(), now);
        (AccountAsk { told, tokens, limits }, (Arc::clone(account), person))
    })
}

fn told(account: &Account, person: Option<Arc<str>>, now: Timestamp) -> ToldAccount {
    let (day, month) = account.told(now);
    ToldAccount { person, day, month }
}

/// Returns what stands for a person's name in the store.
fn person_hash(name: &str) -> Arc<str> {
    hex(&Sha256::digest(name)[..PERSON_HASH]).into()
}

impl Drop for RequestShare {
    fn drop(&mut self) {
        let state = std::mem::take(self.state.get_mut().unwrap_or_else(PoisonError::into_inner));
        let Some(AskedLimits { link, key, hold, taken, accounts }) = state.asked else { return };
        // What is refused is not charged.
        let refund = if state.is_charged { 0 } else { taken };
        if refund == 0 && state.token_cost == 0 && hold.is_none() {
            return;
        }
        let now = self.store.wall_clock(Timestamp::now());
        let accounts = accounts.into_iter().map(|(account, person)| told(&account, person, now)).collect();
        let ended = tokio::time::Instant::now();
        let settlement = Settlement { key, refund, token_cost: state.token_cost, hold, accounts, ended };
        self.store.settle(&link, settlement);
    }
}

impl fmt::Debug for RequestShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestShare").finish_non_exhaustive()
    }
}
