//! One listener of a download. It looks at the download when it is asked for the next event, so one that does not ask
//! holds nothing back.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::bounds::{EVENT_INTERVAL, HEARTBEAT_INTERVAL};
use super::one::{Download, DownloadStage};
use super::status::DownloadStatus;

/// A listener of one download.
#[derive(Debug)]
pub struct Follower {
    download: Arc<Download>,
    stages: watch::Receiver<DownloadStage>,
    /// The id of the last event that the client has.
    seen: u64,
    /// When it heard something last.
    heard_at: Instant,
    stop: CancellationToken,
    _place: OwnedSemaphorePermit,
}

/// An event of a download.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DownloadEvent {
    /// Its number among the events of the download.
    pub id: u64,
    /// The download at that moment.
    pub status: DownloadStatus,
}

/// What a listener hears next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FollowStep {
    /// Something has changed.
    Event(DownloadEvent),
    /// Nothing has changed for a while.
    Heartbeat,
}

impl Follower {
    /// Creates the listener of a client that has seen the events up to `seen`; 0 if it has seen none.
    pub(super) fn new(
        download: Arc<Download>,
        seen: u64,
        stop: CancellationToken,
        place: OwnedSemaphorePermit,
    ) -> Self {
        let stages = download.stages();
        Self { download, stages, seen, heard_at: Instant::now(), stop, _place: place }
    }

    /// Waits for what the client hears next; `None` after the last event, and when the service stops.
    pub async fn next(&mut self) -> Option<FollowStep> {
        loop {
            if self.stop.is_cancelled() {
                return None;
            }
            // Marked as seen before the look, so that no change in between is missed.
            let is_final = matches!(&*self.stages.borrow_and_update(), DownloadStage::Ended(_));
            let (id, status) = self.download.revision();
            let now = Instant::now();
            if id > self.seen {
                (self.seen, self.heard_at) = (id, now);
                return Some(FollowStep::Event(DownloadEvent { id, status }));
            }
            if is_final {
                return None;
            }
            if now - self.heard_at >= HEARTBEAT_INTERVAL {
                self.heard_at = now;
                return Some(FollowStep::Heartbeat);
            }
            tokio::select! {
                () = self.stop.cancelled() => return None,
                _ = self.stages.changed() => {}
                () = sleep_until((now + EVENT_INTERVAL).min(self.heard_at + HEARTBEAT_INTERVAL)) => {}
            }
        }
    }
}
