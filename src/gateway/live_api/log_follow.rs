//! A log as server-sent events: its last lines, and then what is written.
//!
//! The disk is read by blocking threads of the main runtime, a few at a time, so a log never holds a request back.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::bounds::{HEARTBEAT_INTERVAL, LOG_LOOK_INTERVAL, LOG_READ_WAIT};
use super::listener::{dropped_text, end_text};
use super::log_tail::{LogReader, NewLines, last_lines};
use crate::gateway::response::local_answer::{HEARTBEAT, event_text};
use crate::gateway::response::made::NextMade;
use crate::pause_clock;
use crate::telemetry::files::LogFolder;

/// Why a log is not read.
#[derive(Debug, thiserror::Error)]
pub(super) enum LogUnread {
    #[error("others are reading logs, try again later")]
    Busy,
    #[error("the service is shutting down")]
    Stopping,
    #[error("{0}")]
    Disk(#[from] std::io::Error),
}

/// Where logs are read.
#[derive(Clone)]
pub(super) struct LogDesk {
    runtime: Handle,
    turns: Arc<Semaphore>,
}

impl LogDesk {
    /// Creates a desk at which this many logs are read at the same time, on threads of the present runtime.
    pub(super) fn new(at_once: usize) -> Self {
        Self { runtime: Handle::current(), turns: Arc::new(Semaphore::new(at_once)) }
    }

    /// Waits for a turn to read.
    ///
    /// # Errors
    /// Others read for too long.
    pub(super) async fn turn(&self) -> Result<OwnedSemaphorePermit, LogUnread> {
        let turn = pause_clock::timeout(LOG_READ_WAIT, Arc::clone(&self.turns).acquire_owned()).await;
        turn.ok().and_then(Result::ok).ok_or(LogUnread::Busy)
    }

    /// Does what blocks on the disk, in this turn.
    ///
    /// # Errors
    /// The service ends before it is done.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        turn: OwnedSemaphorePermit,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, LogUnread> {
        let done = self.runtime.spawn_blocking(move || {
            // Held until the work has ended, also if the client leaves.
            let _turn = turn;
            work()
        });
        done.await.map_err(|_| LogUnread::Stopping)
    }
}

/// A client that follows a log.
pub(super) struct LogFollower {
    desk: LogDesk,
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
    pub(super) async fn begin(
        desk: LogDesk,
        folder: LogFolder,
        lines: usize,
        stop: CancellationToken,
        place: OwnedSemaphorePermit,
    ) -> Result<Self, LogUnread> {
        let turn = desk.turn().await?;
        let (begin, reader) = desk.run(turn, move || last_lines(&folder, lines)).await??;
        let (begin, now) = (Some(begin).filter(|begin| !begin.is_empty()), Instant::now());
        Ok(Self { desk, reader: Some(reader), begin, looked: now, heard: now, stop, has_ended: false, _place: place })
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
        let turn = self.stop.run_until_cancelled(self.desk.turn()).await?.ok()?;
        let mut reader = self.reader.take()?;
        let read = self.desk.run(turn, move || {
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
pub(super) fn stream_of(mut follower: LogFollower) -> NextMade {
    NextMade(Box::pin(async move {
        let piece = follower.next().await?;
        Some((piece, stream_of(follower)))
    }))
}
