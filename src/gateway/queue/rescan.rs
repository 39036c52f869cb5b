//! Scans of the models folder that requests ask for: at most one at a time, with a pause between two, and no request
//! waits long for one.
//!
//! Knows when a scan is due, and not how one is made: the application does that.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use crate::gateway::bounds::{RESCAN_PAUSE, RESCAN_WAIT};
use crate::pause_clock::{self, ActiveInstant};

/// The orders for scans of the models folder.
#[derive(Default)]
pub struct Rescan {
    state: Mutex<RescanState>,
    /// Notified of each order.
    ordered: Notify,
    /// Notified of the end of each scan.
    finished: Notify,
}

#[derive(Default)]
struct RescanState {
    /// When the scan that runs now was ordered.
    running_since: Option<ActiveInstant>,
    last_end: Option<ActiveInstant>,
}

impl Rescan {
    /// Waits for the next order, which [`Rescan::finish`] must follow.
    pub async fn ordered(&self) {
        self.ordered.notified().await;
    }

    /// Records that the scan has ended, and wakes those that wait for it.
    pub fn finish(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = RescanState { running_since: None, last_end: Some(ActiveInstant::now()) };
        self.finished.notify_waiters();
    }

    /// Orders a scan if one is due, and waits for no end. Returns whether one runs now that has not run for long.
    pub fn order(&self) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = ActiveInstant::now();
        if let Some(since) = state.running_since {
            // The folder may be on a volume that does not answer.
            return now - since < RESCAN_WAIT;
        }
        if state.last_end.is_some_and(|end| now - end < RESCAN_PAUSE) {
            return false;
        }
        state.running_since = Some(now);
        self.ordered.notify_one();
        true
    }

    /// Orders a scan if one is due, and waits for the scan that runs, but no longer than [`RESCAN_WAIT`].
    pub(crate) async fn scan(&self) {
        // Created before the order, so that an end in between is not missed.
        let finished = self.finished.notified();
        if self.order() {
            let _ = pause_clock::timeout(RESCAN_WAIT, finished).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn requests_share_a_scan_and_the_next_one_has_to_wait_for_its_turn() {
        let rescan = Arc::new(Rescan::default());
        let mut context = Context::from_waker(Waker::noop());
        let mut requests: Vec<_> = (0..3).map(|_| Box::pin(rescan.scan())).collect();
        for request in &mut requests {
            assert_eq!(request.as_mut().poll(&mut context), Poll::Pending);
        }
        rescan.ordered().await;
        let mut second = Box::pin(rescan.ordered());
        assert_eq!(second.as_mut().poll(&mut context), Poll::Pending, "one order for all");
        rescan.finish();
        for request in requests {
            request.await;
        }
        assert_eq!(Box::pin(rescan.scan()).as_mut().poll(&mut context), Poll::Ready(()), "it is too early");
        tokio::time::advance(RESCAN_PAUSE).await;
        assert!(rescan.order());
        second.await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_scan_that_hangs_holds_no_request() {
        let rescan = Rescan::default();
        rescan.scan().await; // nothing ends it
        assert!(!rescan.order());
        let waited = tokio::time::Instant::now();
        rescan.scan().await;
        assert_eq!(waited.elapsed(), Duration::ZERO, "the next requests do not wait at all");
        rescan.finish();
        tokio::time::advance(RESCAN_PAUSE).await;
        assert!(rescan.order(), "when the volume answers again, so do scans");
    }
}
