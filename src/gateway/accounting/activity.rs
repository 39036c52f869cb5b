//! Whether the service is in use: counts requests from the time they enter a queue to the end of their responses.
//!
//! Health probes, metric scrapes, read-only requests, requests without a valid key and requests that are refused before
//! they enter a queue do not count.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::pause_clock::{self, ActiveInstant};

/// The number of requests in flight, and when the last one ended.
pub(crate) struct Activity {
    in_flight: AtomicUsize,
    last_active: Mutex<ActiveInstant>,
}

/// One request in flight. Dropping it ends the request.
pub(crate) struct ActivityGuard(Arc<Activity>);

impl Activity {
    /// Creates a counter without requests; the last activity is now.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { in_flight: AtomicUsize::new(0), last_active: Mutex::new(ActiveInstant::now()) })
    }

    /// Counts a request as in flight until the guard is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> ActivityGuard {
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        ActivityGuard(Arc::clone(self))
    }

    /// Waits until no request has been in flight for `least`, counted from this call at the earliest.
    pub(crate) async fn idle_for(&self, least: Duration) {
        self.touch();
        loop {
            if self.in_flight.load(Ordering::SeqCst) > 0 {
                self.touch();
            }
            let idle = self.last_active().elapsed();
            if idle >= least {
                return;
            }
            // Polling at the earliest possible end spares every request a notification.
            pause_clock::sleep(least - idle).await;
        }
    }

    fn touch(&self) {
        *self.last_active.lock().unwrap_or_else(PoisonError::into_inner) = ActiveInstant::now();
    }

    fn last_active(&self) -> ActiveInstant {
        *self.last_active.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ActivityGuard {
    fn drop(&mut self) {
        let count = &self.0.in_flight;
        let less = |now: usize| (now > 1).then(|| now - 1);
        // The time matters only once nothing is in flight any more, so only the last request reads the clock.
        while count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_err() {
            // Before the count falls: `idle_for` must not see zero requests together with an old time.
            self.0.touch();
            if count.compare_exchange(1, 0, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: Duration = Duration::from_secs(80);

    async fn time_until_idle(activity: &Activity) -> Duration {
        let start = ActiveInstant::now();
        activity.idle_for(LEAST).await;
        start.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn the_service_is_idle_from_the_end_of_the_last_request() {
        let activity = Activity::new();
        let request = activity.begin();
        let end_later = async {
            tokio::time::sleep(Duration::from_secs(1_000)).await;
            drop(request);
        };
        let (idle, ()) = tokio::join!(time_until_idle(&activity), end_later);
        assert_eq!(idle, Duration::from_secs(1_080));
    }

    #[tokio::test(start_paused = true)]
    async fn idle_time_before_the_call_does_not_count() {
        let activity = Activity::new();
        tokio::time::advance(LEAST * 10).await;
        assert_eq!(time_until_idle(&activity).await, LEAST);
    }

    #[tokio::test(start_paused = true)]
    async fn the_service_is_in_use_until_the_last_of_two_requests_ends() {
        let activity = Activity::new();
        let (first, second) = (activity.begin(), activity.begin());
        drop(first);
        let end_later = async {
            tokio::time::sleep(LEAST * 3).await;
            drop(second);
        };
        let (idle, ()) = tokio::join!(time_until_idle(&activity), end_later);
        assert_eq!(idle, LEAST * 4);
    }
}
