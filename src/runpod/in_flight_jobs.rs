//! The jobs in hand: taken, and not yet answered. In memory only, so no worker can be held up by what another has left.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// All of them.
#[derive(Default)]
pub(super) struct InFlightJobs {
    jobs: Mutex<BTreeMap<String, CancellationToken>>,
    /// How many of them the gateway does not count yet.
    arriving: AtomicUsize,
    /// Told of each that leaves, and of each that the gateway counts.
    changed: Notify,
}

/// A job that the gateway does not count yet, until it is dropped.
pub(super) struct ArrivingJob(Arc<InFlightJobs>);

/// A job in hand, until it is dropped.
pub(super) struct InFlightJob {
    hand: Arc<InFlightJobs>,
    id: String,
    /// Cancelled when it is to be stopped.
    pub(super) stop: CancellationToken,
}

impl InFlightJobs {
    /// Takes a job into it; none if it is there already.
    pub(super) fn add(self: &Arc<Self>, id: &str) -> Option<InFlightJob> {
        let mut jobs = self.lock();
        if jobs.contains_key(id) {
            return None;
        }
        let stop = CancellationToken::new();
        jobs.insert(id.to_owned(), stop.clone());
        Some(InFlightJob { hand: Arc::clone(self), id: id.to_owned(), stop })
    }

    /// Stops a job; false if it is not there.
    pub(super) fn stop(&self, id: &str) -> bool {
        let stop = self.lock().get(id).cloned();
        stop.is_some_and(|stop| {
            stop.cancel();
            true
        })
    }

    /// Their ids.
    pub(super) fn ids(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }

    /// Whether the gateway counts all of them.
    pub(super) fn are_all_counted(&self) -> bool {
        self.arriving.load(Ordering::SeqCst) == 0
    }

    /// Waits until one leaves, or the gateway counts it, from the call on.
    pub(super) fn changed(&self) -> impl Future<Output = ()> {
        self.changed.notified()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, CancellationToken>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InFlightJob {
    /// The gateway does not count it as long as what is returned lives.
    pub(super) fn mark_arriving(&self) -> ArrivingJob {
        self.hand.arriving.fetch_add(1, Ordering::SeqCst);
        ArrivingJob(Arc::clone(&self.hand))
    }
}

impl Drop for ArrivingJob {
    fn drop(&mut self) {
        self.0.arriving.fetch_sub(1, Ordering::SeqCst);
        self.0.changed.notify_waiters();
    }
}

impl Drop for InFlightJob {
    fn drop(&mut self) {
        self.hand.lock().remove(&self.id);
        self.hand.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_there_once_until_it_is_dropped() {
        let hand = Arc::<InFlightJobs>::default();
        let held = hand.add("a").unwrap();
        assert!(hand.add("a").is_none());
        let other = hand.add("b").unwrap();
        assert_eq!(hand.ids(), ["a", "b"]);
        assert!(hand.stop("b") && !hand.stop("c"));
        assert!(other.stop.is_cancelled() && !held.stop.is_cancelled());
        drop(held);
        assert_eq!((hand.ids().as_slice(), hand.count()), (&["b".to_owned()][..], 1));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_for_room_is_told() {
        let hand = Arc::<InFlightJobs>::default();
        let held = hand.add("a").unwrap();
        let arriving = held.mark_arriving();
        assert!(!hand.are_all_counted());
        let changes = hand.changed();
        drop(arriving);
        changes.await;
        assert!(hand.are_all_counted());
        let changes = hand.changed();
        drop(held);
        changes.await;
        assert_eq!(hand.count(), 0);
    }
}
