//! Whether the service is in use: requests that have got a place in the line, to the end of their answers. Probes,
//! scrapes, strangers, whoever only looks at what there is, and what is refused before do not count.

use crate::awake::{self, ActiveInstant};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The requests under way, and when there was one last.
pub(crate) struct Activity {
    under_way: AtomicUsize,
    last: Mutex<ActiveInstant>,
}

/// One request under way, until it is dropped.
pub(crate) struct UnderWay(Arc<Activity>);

impl Activity {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { under_way: AtomicUsize::new(0), last: Mutex::new(ActiveInstant::now()) })
    }

    pub(crate) fn begin(self: &Arc<Self>) -> UnderWay {
        self.under_way.fetch_add(1, Ordering::SeqCst);
        UnderWay(Arc::clone(self))
    }

    /// Waits until there has been no request for so long from now on, whatever becomes of the models meanwhile.
    pub(crate) async fn quiet_for(&self, least: Duration) {
        self.touch();
        loop {
            if self.under_way.load(Ordering::SeqCst) > 0 {
                self.touch();
            }
            let quiet = self.last().elapsed();
            if quiet >= least {
                return;
            }
            // So no request has to wake anybody.
            awake::sleep(least - quiet).await;
        }
    }

    fn touch(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = ActiveInstant::now();
    }

    fn last(&self) -> ActiveInstant {
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

    async fn time_until_quiet(activity: &Activity) -> Duration {
        let start = ActiveInstant::now();
        activity.quiet_for(LEAST).await;
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
        let (quiet, ()) = tokio::join!(time_until_quiet(&activity), ends);
        assert_eq!(quiet, Duration::from_secs(1_080));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_before_does_not_count() {
        let activity = Activity::new();
        tokio::time::advance(LEAST * 10).await;
        assert_eq!(time_until_quiet(&activity).await, LEAST);
    }

    #[tokio::test(start_paused = true)]
    async fn one_of_two_is_enough() {
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
