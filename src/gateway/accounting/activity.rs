//! Whether the service is in use: requests that have got a place in the line, to the end of their answers. Probes,
//! scrapes, strangers, whoever only looks at what there is, and what is refused before do not count.

use crate::pause_clock::{self, ActiveInstant};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The requests under way, and when there was one last.
pub(crate) struct Activity {
    in_flight: AtomicUsize,
    last_active: Mutex<ActiveInstant>,
}

/// One request under way, until it is dropped.
pub(crate) struct ActivityGuard(Arc<Activity>);

impl Activity {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { in_flight: AtomicUsize::new(0), last_active: Mutex::new(ActiveInstant::now()) })
    }

    pub(crate) fn begin(self: &Arc<Self>) -> ActivityGuard {
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        ActivityGuard(Arc::clone(self))
    }

    /// Waits until there has been no request for so long from now on, whatever becomes of the models meanwhile.
    pub(crate) async fn idle_for(&self, least: Duration) {
        self.touch();
        loop {
            if self.in_flight.load(Ordering::SeqCst) > 0 {
                self.touch();
            }
            let quiet = self.last_active().elapsed();
            if quiet >= least {
                return;
            }
            // So no request has to wake anybody.
            pause_clock::sleep(least - quiet).await;
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
        self.0.touch();
        self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: Duration = Duration::from_secs(80);

    async fn time_until_quiet(activity: &Activity) -> Duration {
        let start = ActiveInstant::now();
        activity.idle_for(LEAST).await;
        start.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn the_service_is_idle_from_the_end_of_the_last_request() {
        let activity = Activity::new();
        let request = activity.begin();
        let ends = async {
            tokio::time::sleep(Duration::from_secs(1_000)).await;
            drop(request);
        };
        let (quiet, ()) = tokio::join!(time_until_quiet(&activity), ends);
        assert_eq!(quiet, Duration::from_secs(1_080));
    }

    #[tokio::test(start_paused = true)]
    async fn time_before_the_call_does_not_count() {
        let activity = Activity::new();
        tokio::time::advance(LEAST * 10).await;
        assert_eq!(time_until_quiet(&activity).await, LEAST);
    }

    #[tokio::test(start_paused = true)]
    async fn one_of_two_requests_keeps_the_service_in_use() {
        let activity = Activity::new();
        let (first, second) = (activity.begin(), activity.begin());
        drop(first);
        let ends = async {
            tokio::time::sleep(LEAST * 3).await;
            drop(second);
        };
        let (quiet, ()) = tokio::join!(time_until_quiet(&activity), ends);
        assert_eq!(quiet, LEAST * 4);
    }
}
