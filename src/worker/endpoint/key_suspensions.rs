//! API keys that are suspended because workers crashed while only their requests were in flight.
//!
//! Counts crashes of all models by key. One key cannot end the service: after [`CRASHES_UNTIL_SUSPENDED`] crashes within
//! `RESTART_WINDOW` its requests are refused for [`KEY_SUSPENSION`], and the restart budget of a worker is not charged
//! for its crashes. A key is known here by its id alone.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::{info, warn};

use crate::pause_clock::ActiveInstant;
use crate::worker::bounds::{CRASHES_UNTIL_SUSPENDED, KEY_SUSPENSION, MAX_CRASH_RECORDS};

/// The crashes that keys have caused, and the keys that are suspended for them.
pub struct KeySuspensions {
    /// `RESTART_WINDOW`
    window: Duration,
    records: Mutex<HashMap<Arc<str>, CrashRecord>>,
    /// Whether any key is recorded. Nearly always false, so that requests need not take the lock.
    has_any: AtomicBool,
}

/// What is known of one key.
#[derive(Default)]
struct CrashRecord {
    /// When workers crashed while only requests of this key were in flight, the oldest first.
    crashes: Vec<ActiveInstant>,
    suspended_until: Option<ActiveInstant>,
}

impl CrashRecord {
    /// Returns how much longer the key is suspended; `None` if it is not.
    fn suspended_for(&self, now: ActiveInstant) -> Option<Duration> {
        self.suspended_until.map(|until| until - now).filter(|left| !left.is_zero())
    }
}

impl KeySuspensions {
    /// Creates an empty list. Crashes are counted within `window` (`RESTART_WINDOW`).
    pub fn new(window: Duration) -> Self {
        Self { window, records: Mutex::default(), has_any: AtomicBool::new(false) }
    }

    /// Records a crash while only requests of this key were in flight. Returns whether the key is suspended, by this
    /// crash or before it.
    pub(in crate::worker) fn record_crash(&self, key: &Arc<str>) -> bool {
        let now = ActiveInstant::now();
        let mut records = self.records();
        self.drop_old(&mut records, now);
        let record = records.entry(Arc::clone(key)).or_default();
        record.crashes.push(now);
        let is_suspended = if record.suspended_for(now).is_some() {
            true
        } else if record.crashes.len() >= CRASHES_UNTIL_SUSPENDED {
            suspend(key, record, now);
            true
        } else {
            false
        };
        self.has_any.store(true, Ordering::Release);
        is_suspended
    }

    /// Suspends a key before its third crash, because one more would end the worker for all.
    pub(in crate::worker) fn suspend(&self, key: &Arc<str>) {
        let now = ActiveInstant::now();
        let mut records = self.records();
        let record = records.entry(Arc::clone(key)).or_default();
        suspend(key, record, now);
        self.has_any.store(true, Ordering::Release);
    }

    /// Returns how much longer a key is suspended; `None` if it is not.
    pub fn suspended_for(&self, key: &str) -> Option<Duration> {
        if !self.has_any.load(Ordering::Acquire) {
            return None;
        }
        self.records().get(key)?.suspended_for(ActiveInstant::now())
    }

    /// Ends the suspension of a key and forgets its crashes. Returns false if it was not suspended.
    pub fn resume(&self, key: &str) -> bool {
        let now = ActiveInstant::now();
        let mut records = self.records();
        let was_suspended = records.get(key).is_some_and(|record| record.suspended_for(now).is_some());
        if was_suspended {
            records.remove(key);
            self.has_any.store(!records.is_empty(), Ordering::Release);
            info!(key, "the suspension of an API key has been lifted");
        }
        was_suspended
    }

    /// Returns the suspended keys with the time that is left, sorted by id.
    pub fn suspended(&self) -> Vec<(Arc<str>, Duration)> {
        let now = ActiveInstant::now();
        let records = self.records();
        let mut suspended: Vec<_> =
            records.iter().filter_map(|(key, record)| Some((Arc::clone(key), record.suspended_for(now)?))).collect();
        suspended.sort_unstable();
        suspended
    }

    /// Drops what no longer counts, and the keys with the oldest crashes above [`MAX_CRASH_RECORDS`].
    fn drop_old(&self, records: &mut HashMap<Arc<str>, CrashRecord>, now: ActiveInstant) {
        records.retain(|_, record| {
            record.crashes.retain(|crash| (now - *crash) < self.window);
            !record.crashes.is_empty() || record.suspended_for(now).is_some()
        });
        while records.len() >= MAX_CRASH_RECORDS {
            let oldest = records.iter().min_by_key(|(_, record)| record.crashes.last().copied());
            let Some(oldest) = oldest.map(|(key, _)| Arc::clone(key)) else { break };
            records.remove(&oldest);
        }
    }

    fn records(&self) -> MutexGuard<'_, HashMap<Arc<str>, CrashRecord>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Suspends a key from now on. The crashes so far are forgotten: after the suspension its count starts again at zero.
fn suspend(key: &Arc<str>, record: &mut CrashRecord, now: ActiveInstant) {
    let crashes = std::mem::take(&mut record.crashes).len();
    record.suspended_until = Some(now + KEY_SUSPENSION);
    let minutes = KEY_SUSPENSION.as_secs() / 60;
    warn!(
        key = &**key,
        crashes,
        minutes,
        "an API key is suspended: workers crashed while only its requests were in flight; POST /keys/{{id}}/resume lifts it"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(600);

    fn key(id: &str) -> Arc<str> {
        Arc::from(id)
    }

    #[tokio::test(start_paused = true)]
    async fn the_third_crash_within_the_window_suspends_a_key_for_ten_minutes() {
        let suspensions = KeySuspensions::new(WINDOW);
        let (bad, other) = (key("bad"), key("other"));
        assert!(
            !suspensions.record_crash(&bad) && !suspensions.record_crash(&bad) && !suspensions.record_crash(&other)
        );
        assert!(suspensions.record_crash(&bad));
        assert_eq!(suspensions.suspended(), [(bad.clone(), KEY_SUSPENSION)]);
        assert_eq!(suspensions.suspended_for("other"), None);
        tokio::time::advance(KEY_SUSPENSION - Duration::from_secs(1)).await;
        assert_eq!(suspensions.suspended_for("bad"), Some(Duration::from_secs(1)));
        assert!(suspensions.record_crash(&bad), "a crash by a request that was already in flight");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!((suspensions.suspended_for("bad"), suspensions.suspended()), (None, Vec::new()));
    }

    #[tokio::test(start_paused = true)]
    async fn crashes_outside_the_window_do_not_count() {
        let suspensions = KeySuspensions::new(WINDOW);
        let bad = key("bad");
        suspensions.record_crash(&bad);
        suspensions.record_crash(&bad);
        tokio::time::advance(WINDOW).await;
        assert!(!suspensions.record_crash(&bad));
    }

    #[tokio::test(start_paused = true)]
    async fn a_resumed_key_starts_with_no_crashes() {
        let suspensions = KeySuspensions::new(WINDOW);
        let bad = key("bad");
        assert!(!suspensions.resume("bad"), "it was never suspended");
        suspensions.suspend(&bad);
        assert!(suspensions.resume("bad") && !suspensions.resume("bad"));
        assert!(!suspensions.record_crash(&bad) && !suspensions.record_crash(&bad) && suspensions.record_crash(&bad));
    }

    #[tokio::test(start_paused = true)]
    async fn the_list_is_bounded() {
        let suspensions = KeySuspensions::new(WINDOW);
        for number in 0..2 * MAX_CRASH_RECORDS {
            suspensions.record_crash(&key(&number.to_string()));
        }
        assert_eq!(suspensions.records().len(), MAX_CRASH_RECORDS);
    }
}
