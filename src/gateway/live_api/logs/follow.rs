//! A log as server-sent events: its last lines, and then what is written.
//!
//! The disk is read by blocking threads of the main runtime, a few at a time, so a log never holds a request back.

use bytes::Bytes;
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::tail::{LogReader, NewLines, last_lines};
use crate::blocking_pool::{BlockingPool, NotDone};
use crate::gateway::live_api::bounds::{HEARTBEAT_INTERVAL, LOG_LOOK_INTERVAL};
use crate::gateway::live_api::listener::{dropped_text, end_text};
use crate::gateway::response::local_answer::{HEARTBEAT, event_text};
use crate::gateway::response::made::NextMade;
use crate::telemetry::files::LogFolder;

/// Why a log is not read.
#[derive(Debug, thiserror::Error)]
pub(in crate::gateway::live_api) enum LogUnread {
    #[error(transparent)]
    NotDone(#[from] NotDone),
    #[error("{0}")]
    Disk(#[from] std::io::Error),
}

/// A client that follows a log.
pub(in crate::gateway::live_api) struct LogFollower {
    reads: BlockingPool,
    /// `None` while it is being read, and for good after an error.
    reader: Option<LogReader>,
    /// What is sent first.
    begin: Option<Vec<u8>>,
    looked: Instant,
    heard: Instant,
    stop: CancellationToken,
    has_ended: bool,
    _place: OwnedSemaphorePermit,
}

impl LogFollower {
    /// Begins to follow a log after its last lines.
    ///
    /// # Errors
    /// The log cannot be read.
    pub(in crate::gateway::live_api) async fn begin(
        reads: BlockingPool,
        folder: LogFolder,
        lines: usize,
        stop: CancellationToken,
        place: OwnedSemaphorePermit,
    ) -> Result<Self, LogUnread> {
        let (begin, reader) = reads.run(move || last_lines(&folder, lines)).await??;
        let (begin, now) = (Some(begin).filter(|begin| !begin.is_empty()), Instant::now());
        Ok(Self { reads, reader: Some(reader), begin, looked: now, heard: now, stop, has_ended: false, _place: place })
    }

    /// Waits for what the client hears next; `None` after the last event.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(begin) = self.begin.take() {
            return Some(Bytes::from(lines_text(&begin)));
        }
        while !self.has_ended {
            let due = self.looked + LOG_LOOK_INTERVAL;
            if self.stop.run_until_cancelled(sleep_until(due)).await.is_none() {
                self.has_ended = true;
                return Some(Bytes::from(end_text()));
            }
            self.looked = Instant::now();
            if let Some(new) = self.read().await {
                self.heard = Instant::now();
                return Some(Bytes::from(new));
            }
            if self.heard.elapsed() >= HEARTBEAT_INTERVAL {
                self.heard = Instant::now();
                return Some(Bytes::from_static(HEARTBEAT));
            }
        }
        None
    }

    /// Returns what was written since the last look.
    async fn read(&mut self) -> Option<String> {
        // While others read for too long, the next look finds what this one does not.
        let turn = self.stop.run_until_cancelled(self.reads.turn()).await?.ok()?;
        let mut reader = self.reader.take()?;
        let read = turn.run(move || {
            let new = reader.read_new();
            (reader, new)
        });
        match read.await {
            Ok((reader, Ok(NewLines { text, left_out }))) => {
                self.reader = Some(reader);
                let mut events = String::new();
                if left_out > 0 {
                    events.push_str(&dropped_text(&json!({"bytes": left_out})));
                }
                if !text.is_empty() {
                    events.push_str(&lines_text(&text));
                }
                (!events.is_empty()).then_some(events)
            }
            // The client may ask again; the answer to that says why.
            Ok((_, Err(_))) | Err(_) => {
                self.has_ended = true;
                None
            }
        }
    }
}

/// Returns the event with these whole lines.
fn lines_text(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    event_text(None, "lines", &json!({"lines": text.lines().collect::<Vec<_>>()}))
}

/// Returns the stream of a client that follows a log.
pub(in crate::gateway::live_api) fn stream_of(mut follower: LogFollower) -> NextMade {
    NextMade(Box::pin(async move {
        let piece = follower.next().await?;
        Some((piece, stream_of(follower)))
    }))
}
