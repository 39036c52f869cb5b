//! The requests in flight of one core that hold something of a limit: they are renewed until they end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;
use tokio::sync::Notify;

use super::orders::{HoldId, LimitTake};

/// What a request in flight holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HeldLimits {
    pub(super) key: Arc<str>,
    /// The accounts, each with the tokens that are reserved of it; `None` if it only counts among those at once.
    pub(super) accounts: Vec<(Option<Arc<str>>, Option<u64>)>,
}

/// The requests that hold something.
#[derive(Debug, Default)]
pub(super) struct HeldTable {
    requests: Mutex<HashMap<u64, HeldLimits, RandomState>>,
    /// Wakes the keeper, which sleeps while the table is empty.
    pub(super) first: Notify,
}

impl HeldTable {
    /// Adds a request, if it holds something.
    pub(super) fn add(&self, take: &LimitTake) {
        let Some(HoldId(id)) = take.hold else { return };
        let of_accounts = take.accounts.iter().map(|account| (account.told.person.clone(), Some(account.tokens)));
        let mut accounts: Vec<_> = of_accounts.collect();
        if accounts.is_empty() {
            accounts.push((None, None));
        }
        let mut requests = self.lock();
        requests.insert(id, HeldLimits { key: Arc::clone(&take.key), accounts });
        if requests.len() == 1 {
            self.first.notify_one();
        }
    }

    /// Removes a request that has ended.
    pub(super) fn remove(&self, HoldId(id): HoldId) {
        self.lock().remove(&id);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Returns what all of them hold.
    pub(super) fn all(&self) -> Vec<(HoldId, HeldLimits)> {
        self.lock().iter().map(|(id, held)| (HoldId(*id), held.clone())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, HeldLimits, RandomState>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
