//! Whether the service is in use: requests for a model by callers who may make them, from their arrival to the end of
//! their answers. Probes, scrapes and strangers do not count.

use crate::awake::{self, Instant};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The requests under way, and when there was one last.
pub(super) struct Activity {
    under_way: AtomicUsize,
    last: Mutex<Instant>,
}

/// One request under way, until it is dropped.
pub(super) struct UnderWay(Arc<Activity>);

impl Activity {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { under_way: AtomicUsize::new(0), last: Mutex::new(Instant::now()) })
    }

    pub(super) fn begin(self: &Arc<Self>) -> UnderWay {
        self.under_way.fetch_add(1, Ordering::SeqCst);
        UnderWay(Arc::clone(self))
    }

    /// Waits until there has been no request for so long. Time in which nobody could be served is not counted.
    pub(super) async fn quiet_for(&self, least: Duration, can_serve: impl Fn() -> bool) {
        loop {
            if self.under_way.load(Ordering::SeqCst) > 0 || !can_serve() {
                self.touch();
            }
            let quiet = self.last().elapsed();
            if quiet >= least {
                return;
            }
            // Often enough that a load does not end unseen, and no request has to wake anybody.
            awake::sleep((least - quiet).min(least / 8)).await;
        }
    }

    fn touch(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn last(&self) -> Instant {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.touch();
        self.0.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: Duration = Duration::from_secs(80);

    async fn time_until_quiet(activity: &Activity, can_serve: impl Fn() -> bool) -> Duration {
        let start = Instant::now();
        activity.quiet_for(LEAST, can_serve).await;
        start.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_quiet_so_long_after_the_last_request_has_ended() {
        let activity = Activity::new();
        let request = activity.begin();
        let ends = async {
            tokio::time::sleep(Duration::from_secs(1_000)).await;
            drop(request);
        };
        let (quiet, ()) = tokio::join!(time_until_quiet(&activity, || true), ends);
        assert_eq!(quiet, Duration::from_secs(1_080));
    }

    #[tokio::test(start_paused = true)]
    async fn a_load_is_not_quiet() {
        let activity = Activity::new();
        let start = Instant::now();
        let loaded = || start.elapsed() >= Duration::from_secs(300);
        let quiet = time_until_quiet(&activity, loaded).await;
        assert!(quiet >= Duration::from_secs(300) + LEAST - LEAST / 8, "{quiet:?}");
        assert!(quiet <= Duration::from_secs(300) + LEAST + LEAST / 8, "{quiet:?}");
    }
}
