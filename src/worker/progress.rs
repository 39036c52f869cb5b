//! Whether a load moves.

use super::process::Process;
use crate::awake::Instant;
use crate::telemetry::files::Tail;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The signs of a load that moves: new log lines, or more memory in use.
pub(super) struct Progress {
    since: Instant,
    lines: u64,
    pages: u64,
}

impl Progress {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, lines: 0, pages: 0 }
    }

    /// For how long there has been no sign.
    pub(super) fn stalled_for(&mut self, process: &Process, tail: &Mutex<Tail>) -> Duration {
        let lines = tail.lock().unwrap_or_else(PoisonError::into_inner).seen();
        let pages = process.resident_pages().unwrap_or(0);
        if lines > self.lines || pages > self.pages {
            *self = Self { since: Instant::now(), lines, pages: pages.max(self.pages) };
        }
        self.since.elapsed()
    }
}
