//! Bytes that came from a client and are not passed on yet.

use crate::gateway::bounds::{HELD_BYTES, LINGER_READ};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, ReadBuf};

/// A buffer that grows only as far as its user says, and shrinks again once it is empty.
#[derive(Debug, Default)]
pub(super) struct ReadAhead {
    /// Every byte of it is initialised, which is done once and not with each read.
    storage: Vec<u8>,
    start: usize,
    end: usize,
}

impl ReadAhead {
    /// What is there.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.storage[self.start..self.end]
    }

    /// The first bytes, to be changed.
    pub(super) fn first_mut(&mut self, count: usize) -> &mut [u8] {
        let end = (self.start + count).min(self.end);
        &mut self.storage[self.start..end]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub(super) fn len(&self) -> usize {
        self.end - self.start
    }

    /// Gives up the first bytes.
    pub(super) fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
        if self.is_empty() {
            (self.start, self.end) = (0, 0);
            if self.storage.len() > HELD_BYTES {
                self.storage = Vec::new();
            }
        }
    }

    /// Adds bytes that came too early.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.storage.truncate(self.end);
        self.storage.extend_from_slice(bytes);
        self.end = self.storage.len();
    }

    /// Reads once; at most `most` bytes, more than are there, can be held. Ready with 0 at the end of the stream.
    pub(super) fn poll_fill(
        &mut self,
        context: &mut Context<'_>,
        source: &mut (impl AsyncRead + Unpin),
        most: usize,
    ) -> Poll<io::Result<usize>> {
        if self.end == self.storage.len() {
            if self.start > 0 {
                self.storage.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            }
            if self.end == self.storage.len() {
                self.storage.resize((self.storage.len() * 2).max(HELD_BYTES).min(most.max(self.end + 1)), 0);
            }
        }
        let mut room = ReadBuf::new(&mut self.storage[self.end..]);
        ready!(Pin::new(source).poll_read(context, &mut room))?;
        let count = room.filled().len();
        self.end += count;
        Poll::Ready(Ok(count))
    }

    /// Reads once and forgets what came, and what was there.
    pub(super) fn poll_discard(
        &mut self,
        context: &mut Context<'_>,
        source: &mut (impl AsyncRead + Unpin),
    ) -> Poll<io::Result<usize>> {
        (self.start, self.end) = (0, 0);
        self.storage.resize(LINGER_READ, 0);
        let mut room = ReadBuf::new(&mut self.storage);
        ready!(Pin::new(source).poll_read(context, &mut room))?;
        Poll::Ready(Ok(room.filled().len()))
    }
}
