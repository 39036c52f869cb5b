//! The task that looks at the service for all listeners.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::bounds::{LOOK_GAP, LOOK_INTERVAL, THROUGHPUT_INTERVAL};
use super::feed::Feed;
use super::throughput::{Throughput, WorkCounts};

/// Measures throughput from one second to the next.
struct Meter {
    counts: WorkCounts,
    since: Instant,
    was_idle: bool,
}

/// Looks at the service when something changes there, and from time to time, and tells what is new, until it is `over`.
pub(super) async fn watch(feed: Arc<Feed>, over: CancellationToken) {
    let looking = async {
        let mut meter = Meter { counts: feed.sources.counts(), since: Instant::now(), was_idle: true };
        loop {
            // Waited for from before the look, so that no change in between is missed.
            let changed = feed.sources.changed();
            let looked = Instant::now();
            feed.publish(feed.sources.look(), meter.measure(&feed), &over);
            tokio::select! {
                () = changed => {}
                () = sleep_until(looked + LOOK_INTERVAL) => {}
            }
            sleep_until(looked + LOOK_GAP).await;
        }
    };
    over.run_until_cancelled(looking).await;
}

impl Meter {
    /// Returns what was done in the last second, once it is over: if there was something, or if there was in the second
    /// before.
    fn measure(&mut self, feed: &Feed) -> Option<Throughput> {
        let passed = self.since.elapsed();
        if passed < THROUGHPUT_INTERVAL {
            return None;
        }
        let counts = feed.sources.counts();
        let throughput = Throughput::between(&self.counts, &counts, passed, Timestamp::now());
        (self.counts, self.since) = (counts, Instant::now());
        let was_idle = std::mem::replace(&mut self.was_idle, throughput.is_idle());
        (!was_idle || !throughput.is_idle()).then_some(throughput)
    }
}
