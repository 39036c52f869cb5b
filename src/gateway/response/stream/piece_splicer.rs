//! Passes the pieces of a response on to a queue, with changes between their bytes.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;

/// Passes one piece of a response on to a queue, and can replace some of its bytes.
pub(in crate::gateway::response) struct PieceSplicer<'a> {
    piece: &'a Bytes,
    queue: &'a mut VecDeque<Bytes>,
    /// The offset up to which the piece has been passed on or skipped.
    passed: usize,
    /// The end of the last event in the piece; 0 if no event has ended.
    event_end: usize,
    /// The number of pieces in the queue up to the end of the last event.
    complete: usize,
    /// Whether an event has been dropped.
    has_dropped: bool,
}

impl<'a> PieceSplicer<'a> {
    pub(in crate::gateway::response) fn new(piece: &'a Bytes, queue: &'a mut VecDeque<Bytes>) -> Self {
        Self { piece, queue, passed: 0, event_end: 0, complete: 0, has_dropped: false }
    }

    /// Returns the bytes of the piece in this range.
    pub(in crate::gateway::response) fn bytes(&self, range: Range<usize>) -> &'a [u8] {
        &self.piece[range]
    }

    /// Passes on everything before this offset.
    pub(in crate::gateway::response) fn pass_to(&mut self, end: usize) {
        if self.event_end > self.passed {
            self.push_to(self.event_end);
            self.complete = self.queue.len();
        }
        if end > self.passed {
            self.push_to(end);
        }
    }

    /// Passes on everything before this offset, and then inserts these bytes.
    pub(in crate::gateway::response) fn insert(&mut self, at: usize, bytes: Bytes) {
        self.pass_to(at);
        self.queue.push_back(bytes);
    }

    /// Skips the bytes before this offset that have not been passed on.
    pub(in crate::gateway::response) fn skip_to(&mut self, end: usize) {
        self.passed = end;
    }

    /// Returns whether the piece ends with an event, nothing of it has been changed, and nothing stands before it in the
    /// queue.
    pub(super) fn is_unchanged(&self) -> bool {
        let ends_event = self.event_end > 0 && self.event_end == self.piece.len();
        ends_event && self.passed == 0 && self.queue.is_empty()
    }

    /// Returns the number of pieces in the queue that hold whole events.
    pub(super) fn complete(&self) -> usize {
        self.complete
    }

    /// Returns whether an event has been dropped.
    pub(super) fn has_dropped(&self) -> bool {
        self.has_dropped
    }

    /// Records that an event ends at this offset.
    pub(super) fn end_event(&mut self, end: usize) {
        self.event_end = end;
    }

    /// Drops the event that ends at this offset, with what is in the queue of it.
    pub(super) fn drop_event(&mut self, end: usize) {
        if self.event_end > self.passed {
            self.push_to(self.event_end);
            self.complete = self.queue.len();
        }
        self.queue.truncate(self.complete);
        (self.passed, self.event_end) = (end, end);
        self.has_dropped = true;
    }

    fn push_to(&mut self, end: usize) {
        self.queue.push_back(self.piece.slice(self.passed..end));
        self.passed = end;
    }
}

/// Takes the first `count` pieces out of a queue and copies them into one.
pub(in crate::gateway::response) fn joined(queue: &mut VecDeque<Bytes>, count: usize) -> Bytes {
    let mut whole = Vec::with_capacity(queue.range(..count).map(Bytes::len).sum());
    queue.drain(..count).for_each(|piece| whole.extend_from_slice(&piece));
    whole.into()
}
