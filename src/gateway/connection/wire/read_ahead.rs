//! Bytes that have been read from a client and not yet been passed to hyper.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use crate::gateway::bounds::{HELD_BYTES, LINGER_READ, WHOLE_REQUEST};

/// A buffer that grows only as far as each call allows, and takes no memory while it is empty.
#[derive(Debug, Default)]
pub(super) struct ReadAhead {
    /// Always initialised to its full length: once, instead of before each read.
    storage: Vec<u8>,
    start: usize,
    end: usize,
}

impl ReadAhead {
    /// Returns the bytes in the buffer.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.storage[self.start..self.end]
    }

    /// Returns the first `count` bytes, or all if there are fewer.
    pub(super) fn prefix_mut(&mut self, count: usize) -> &mut [u8] {
        let end = (self.start + count).min(self.end);
        &mut self.storage[self.start..end]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub(super) fn len(&self) -> usize {
        self.end - self.start
    }

    /// Removes the first `count` bytes.
    pub(super) fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
        if self.is_empty() {
            // Nearly every head passes without this buffer, so it costs no memory while it is empty.
            *self = Self::default();
        }
    }

    /// Takes the bytes from `start` on back from hyper's buffer, and appends them.
    pub(super) fn take_back(&mut self, buffer: &mut ReadBuf<'_>, start: usize) {
        let taken = &buffer.filled()[start..];
        // A client that always has a request pipelined never lets the buffer become empty.
        if self.start > 0 && self.storage.capacity() - self.end < taken.len() {
            self.move_to_front();
        }
        self.storage.truncate(self.end);
        self.storage.extend_from_slice(taken);
        self.end = self.storage.len();
        buffer.set_filled(start);
    }

    /// Reads once from `source`, appends the bytes and returns their number, 0 at the end of the stream. Nearly every
    /// client sends nothing then: no memory is taken for that wait.
    pub(super) fn poll_append(
        &mut self,
        context: &mut Context<'_>,
        source: &mut (impl AsyncRead + Unpin),
    ) -> Poll<io::Result<usize>> {
        let mut storage = [const { MaybeUninit::uninit() }; WHOLE_REQUEST];
        let mut buffer = ReadBuf::uninit(&mut storage);
        ready!(Pin::new(source).poll_read(context, &mut buffer))?;
        let count = buffer.filled().len();
        self.take_back(&mut buffer, 0);
        Poll::Ready(Ok(count))
    }

    /// Reads once from `source` and returns the number of bytes, 0 at the end of the stream. The buffer grows to
    /// `capacity` bytes at most, which must be more than it holds.
    pub(super) fn poll_fill(
        &mut self,
        context: &mut Context<'_>,
        source: &mut (impl AsyncRead + Unpin),
        capacity: usize,
    ) -> Poll<io::Result<usize>> {
        if self.end == self.storage.len() {
            self.move_to_front();
            if self.end == self.storage.len() {
                // At least one byte is free: a read into an empty buffer would look like the end of the stream.
                self.storage.resize((self.storage.len() * 2).max(HELD_BYTES).min(capacity.max(self.end + 1)), 0);
            }
        }
        let mut free = ReadBuf::new(&mut self.storage[self.end..]);
        ready!(Pin::new(source).poll_read(context, &mut free))?;
        let count = free.filled().len();
        self.end += count;
        Poll::Ready(Ok(count))
    }

    /// Frees the room of the bytes that have been removed.
    fn move_to_front(&mut self) {
        self.storage.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
    }

    /// Reads once from `source`, discards the bytes and those in the buffer, and returns the number of bytes read.
    pub(super) fn poll_discard(
        &mut self,
        context: &mut Context<'_>,
        source: &mut (impl AsyncRead + Unpin),
    ) -> Poll<io::Result<usize>> {
        (self.start, self.end) = (0, 0);
        self.storage.resize(LINGER_READ, 0);
        let mut discarded = ReadBuf::new(&mut self.storage);
        ready!(Pin::new(source).poll_read(context, &mut discarded))?;
        Poll::Ready(Ok(discarded.filled().len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &[u8] = b"GET /v1/models HTTP/1.1\r\nHost: h\r\n\r\n";

    fn append(read_ahead: &mut ReadAhead, bytes: &[u8]) {
        let mut storage = bytes.to_vec();
        let mut buffer = ReadBuf::new(&mut storage);
        buffer.set_filled(bytes.len());
        read_ahead.take_back(&mut buffer, 0);
    }

    /// Regression: each byte that a client ever sent was kept while it always had one more request pipelined.
    #[test]
    fn pipelined_requests_that_have_been_answered_take_no_memory() {
        let mut read_ahead = ReadAhead::default();
        append(&mut read_ahead, REQUEST);
        for _ in 0..10_000 {
            append(&mut read_ahead, REQUEST);
            assert!(read_ahead.bytes().starts_with(REQUEST) && read_ahead.bytes().ends_with(REQUEST));
            assert!(read_ahead.storage.capacity() <= 4 * REQUEST.len(), "{} bytes", read_ahead.storage.capacity());
            read_ahead.consume(REQUEST.len());
        }
    }
}
