//! The jobs in flight: taken from the queue and not answered yet. In memory only, so no worker can be blocked by what
//! another one left behind.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// The set of jobs in flight.
#[derive(Default)]
pub(super) struct InFlightJobs {
    jobs: Mutex<BTreeMap<String, CancellationToken>>,
    /// Number of jobs that the gateway does not count yet.
    arriving: AtomicUsize,
    /// Notified when a job leaves, and when the gateway starts to count a job.
    changed: Notify,
}

/// A job that the gateway does not count yet, until this is dropped.
pub(super) struct ArrivingJob(Arc<InFlightJobs>);

/// A job in flight, until this is dropped.
pub(super) struct InFlightJob {
    in_flight: Arc<InFlightJobs>,
    id: String,
    /// Cancelled when the job is to be stopped.
    pub(super) stop: CancellationToken,
}

impl InFlightJobs {
    /// Adds a job. Returns `None` if it is already in flight.
    pub(super) fn add(self: &Arc<Self>, id: &str) -> Option<InFlightJob> {
        let mut jobs = self.lock();
        if jobs.contains_key(id) {
            return None;
        }
        let stop = CancellationToken::new();
        jobs.insert(id.to_owned(), stop.clone());
        Some(InFlightJob { in_flight: Arc::clone(self), id: id.to_owned(), stop })
    }

    /// Stops a job. Returns false if it is not in flight.
    pub(super) fn stop(&self, id: &str) -> bool {
        let stop = self.lock().get(id).cloned();
        stop.is_some_and(|stop| {
            stop.cancel();
            true
        })
    }

    /// Returns the ids of the jobs.
    pub(super) fn ids(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    /// Returns the number of jobs.
    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }

    /// Whether the gateway counts all jobs.
    pub(super) fn are_all_counted(&self) -> bool {
        self.arriving.load(Ordering::SeqCst) == 0
    }

    /// Waits until a job leaves or the gateway starts to count one, from this call on.
    pub(super) fn changed(&self) -> impl Future<Output = ()> {
        self.changed.notified()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, CancellationToken>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InFlightJob {
    /// Marks the job as not counted by the gateway until the returned value is dropped.
    pub(super) fn mark_arriving(&self) -> ArrivingJob {
        self.in_flight.arriving.fetch_add(1, Ordering::SeqCst);
        ArrivingJob(Arc::clone(&self.in_flight))
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
        // Removed before the notification, so that a woken poller sees the free capacity.
        self.in_flight.lock().remove(&self.id);
        self.in_flight.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_in_flight_at_most_once_and_until_it_is_dropped() {
        let in_flight = Arc::<InFlightJobs>::default();
        let held = in_flight.add("a").unwrap();
        assert!(in_flight.add("a").is_none());
        let other = in_flight.add("b").unwrap();
        assert_eq!(in_flight.ids(), ["a", "b"]);
        assert!(in_flight.stop("b") && !in_flight.stop("c"));
        assert!(other.stop.is_cancelled() && !held.stop.is_cancelled());
        drop(held);
        assert_eq!((in_flight.ids().as_slice(), in_flight.count()), (&["b".to_owned()][..], 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_signalled_when_a_job_is_counted_or_leaves() {
        let in_flight = Arc::<InFlightJobs>::default();
        let held = in_flight.add("a").unwrap();
        let arriving = held.mark_arriving();
        assert!(!in_flight.are_all_counted());
        let changes = in_flight.changed();
        drop(arriving);
        changes.await;
        assert!(in_flight.are_all_counted());
        let changes = in_flight.changed();
        drop(held);
        changes.await;
        assert_eq!(in_flight.count(), 0);
    }
}
