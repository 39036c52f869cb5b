//! The accounts of all keys, and of the people behind them.
//!
//! Owns which account is whose: finds them for requests, adds what was used before the start, and reads them for metrics
//! and the API. What an account holds is in `account.rs`, and how many people are remembered in `people.rs`; that of a key
//! lies in the table of `rate.rs`, beside what else the key has used.

use std::sync::Arc;

use jiff::Timestamp;

use super::account::{AccountLimits, Use};
use crate::amount::Amount;
use crate::gateway::admission::people::{People, Person};
use crate::gateway::admission::rate::Meters;
use crate::keys::{Budget, Key, Store};
use crate::ledger::BudgetUse;
use crate::shared_limits::LimitsStore;
use crate::telemetry::metrics::BudgetLabels;

/// The accounts of all keys, and of the people behind them.
pub struct KeyAccounts {
    meters: Arc<Meters>,
    people: People,
    /// `LIMITS_STORE`: its clock says when days and months begin.
    limits_store: Option<Arc<LimitsStore>>,
}

/// What a key has used of its day and its month.
pub(crate) struct KeyUse {
    pub(crate) day: Use,
    pub(crate) month: Use,
}

impl KeyAccounts {
    /// Returns the accounts of the keys in this table, and of at most this many people behind them.
    pub(in crate::gateway::admission) fn new(
        meters: Arc<Meters>,
        most_people: usize,
        limits_store: Option<Arc<LimitsStore>>,
    ) -> Self {
        Self { meters, people: People::new(most_people), limits_store }
    }

    /// Returns the person of this name behind a key.
    pub(in crate::gateway::admission) fn person(&self, key: &Arc<str>, name: &str, now: Timestamp) -> Person {
        self.people.find(key, name, store_time(self.limits_store.as_ref(), now))
    }

    /// Adds what keys, and the people behind them, have used of their budgets before the start.
    pub fn restore(&self, used: Vec<BudgetUse>, now: Timestamp) {
        for BudgetUse { key, person, period, tokens, requests, cost_nanos, .. } in used {
            let key: Arc<str> = key.into();
            let account = match person {
                Some(person) => self.people.find(&key, &person, now).account,
                None => self.meters.account_of(&key),
            };
            account.restore(period, Use { requests, tokens, cost: Amount::from_nanos(cost_nanos) }, now);
        }
    }

    /// Returns what a key has used of its day and its month.
    pub(crate) fn used_by(&self, key: &Key, now: Timestamp) -> KeyUse {
        let (day, month) = self.meters.account_of(&key.id).used(store_time(self.limits_store.as_ref(), now));
        KeyUse { day, month }
    }

    /// Returns a reader of what is left of the budgets of these keys.
    pub fn budgets_left(&self, keys: Option<Store>) -> impl Fn() -> Vec<(BudgetLabels, f64)> + Send + Sync + use<> {
        let (meters, store) = (Arc::clone(&self.meters), self.limits_store.clone());
        move || {
            let now = store_time(store.as_ref(), Timestamp::now());
            let keys = keys.as_ref().map(Store::keys).unwrap_or_default().into_iter();
            let of_key = |key: Arc<Key>| {
                let left = meters.account_of(&key.id).left(&AccountLimits::of_key(&key.budget), now);
                left.into_iter().map(move |(budget, left)| (BudgetLabels { key: key.id.clone(), budget }, left))
            };
            keys.filter(|key| key.budget != Budget::default()).flat_map(of_key).collect()
        }
    }
}

/// Returns what the store's clock shows at this time of this machine's, if there is a store.
fn store_time(store: Option<&Arc<LimitsStore>>, time: Timestamp) -> Timestamp {
    store.map_or(time, |store| store.wall_clock(time))
}
