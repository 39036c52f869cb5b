//! One listener of the feed. It takes what was told when its client has room for it.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::bounds::{EVENTS_AT_ONCE, HEARTBEAT_INTERVAL, MOST_BEHIND};
use super::feed::{Feed, ListenerPlace, Told};
use super::watcher;
use crate::gateway::response::local_answer::{HEARTBEAT, event_text};
use crate::gateway::response::made::NextMade;
use crate::refusal::Refusal;

/// A listener, until it is dropped.
pub(super) struct Listener {
    feed: Arc<Feed>,
    /// The number of the last event that the client has; `None` if it has none.
    seen: Option<u64>,
    told: watch::Receiver<u64>,
    stop: CancellationToken,
    has_ended: bool,
}

impl Listener {
    /// Begins to listen, for a client that has seen the event with this number, if it says one.
    ///
    /// # Errors
    /// There are too many listeners, or the service stops.
    pub(super) fn begin(feed: &Arc<Feed>, seen: Option<u64>) -> Result<Self, Refusal> {
        let ListenerPlace { seen, told, stop, must_look } = feed.join(seen)?;
        if let Some(over) = must_look {
            feed.run(watcher::watch(Arc::clone(feed), over));
        }
        Ok(Self { feed: Arc::clone(feed), seen, told, stop, has_ended: false })
    }

    /// Waits for what the client hears next; `None` after the last event.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        let silent_until = Instant::now() + HEARTBEAT_INTERVAL;
        loop {
            if self.has_ended {
                return None;
            }
            // Marked as seen before the look, so that nothing that is told in between is missed.
            self.told.borrow_and_update();
            if let Some(piece) = self.take() {
                return Some(piece);
            }
            if self.stop.is_cancelled() {
                self.has_ended = true;
                return Some(Bytes::from(end_text()));
            }
            tokio::select! {
                () = self.stop.cancelled() => {}
                _ = self.told.changed() => {}
                () = sleep_until(silent_until) => return Some(Bytes::from_static(HEARTBEAT)),
            }
        }
    }

    /// Takes what there is.
    fn take(&mut self) -> Option<Bytes> {
        match self.feed.next(self.seen, EVENTS_AT_ONCE, MOST_BEHIND) {
            Told::Nothing => None,
            Told::Events(events, last) => {
                self.seen = Some(last);
                let mut piece = BytesMut::new();
                events.iter().for_each(|event| piece.extend_from_slice(event));
                Some(piece.freeze())
            }
            Told::Snapshot(snapshot, as_of) => {
                let missed = self.seen.replace(as_of).map(|seen| as_of.saturating_sub(seen));
                let mut text = missed.map_or_else(String::new, |missed| dropped_text(&json!({"events": missed})));
                text.push_str(&snapshot.text(as_of, self.feed.uptime(), &self.feed.history()));
                Some(Bytes::from(text))
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.feed.leave();
    }
}

/// Returns the event that says what a client has missed.
pub(super) fn dropped_text(what: &Value) -> String {
    event_text(None, "dropped", what)
}

/// Returns the last event of a stream that ends because the service stops.
pub(super) fn end_text() -> String {
    event_text(None, "end", &json!({"reason": "shutting_down"}))
}

/// Returns the stream of a listener.
pub(super) fn stream_of(mut listener: Listener) -> NextMade {
    NextMade(Box::pin(async move {
        let piece = listener.next().await?;
        Some((piece, stream_of(listener)))
    }))
}
