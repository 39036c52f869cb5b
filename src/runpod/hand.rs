//! The jobs in hand: taken, and not yet answered. In memory only, so no worker can be held up by what another has left.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// All of them.
#[derive(Default)]
pub(super) struct Hand {
    jobs: Mutex<BTreeMap<String, CancellationToken>>,
    /// Told of each that leaves.
    freed: Notify,
}

/// A job in hand, until it is dropped.
pub(super) struct Held {
    hand: Arc<Hand>,
    id: String,
    /// Cancelled when it is to be stopped.
    pub(super) stop: CancellationToken,
}

impl Hand {
    /// Takes a job into it; none if it is there already.
    pub(super) fn hold(self: &Arc<Self>, id: &str) -> Option<Held> {
        let mut jobs = self.lock();
        if jobs.contains_key(id) {
            return None;
        }
        let stop = CancellationToken::new();
        jobs.insert(id.to_owned(), stop.clone());
        Some(Held { hand: Arc::clone(self), id: id.to_owned(), stop })
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

    /// Waits until there are fewer than this.
    pub(super) async fn has_fewer_than(&self, count: usize) {
        loop {
            let freed = self.freed.notified();
            if self.count() < count {
                return;
            }
            freed.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, CancellationToken>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.hand.lock().remove(&self.id);
        self.hand.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_there_once_until_it_is_dropped() {
        let hand = Arc::<Hand>::default();
        let held = hand.hold("a").unwrap();
        assert!(hand.hold("a").is_none());
        let other = hand.hold("b").unwrap();
        assert_eq!(hand.ids(), ["a", "b"]);
        assert!(hand.stop("b") && !hand.stop("c"));
        assert!(other.stop.is_cancelled() && !held.stop.is_cancelled());
        drop(held);
        assert_eq!((hand.ids().as_slice(), hand.count()), (&["b".to_owned()][..], 1));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_for_room_is_told() {
        let hand = Arc::<Hand>::default();
        hand.has_fewer_than(1).await;
        let held = hand.hold("a").unwrap();
        let ends = async {
            tokio::task::yield_now().await;
            drop(held);
        };
        tokio::join!(hand.has_fewer_than(1), ends);
    }
}
