//! The event that ends a stream: the end mark of its dialect, or an error of llama-server.

use bytes::Bytes;

use super::finish::EventMeaning;
use crate::gateway::response::compute_failure::ComputeFailure;
use crate::gateway::routes::route::StreamEnd;
use crate::gateway::scan::sse_framer::{SseField, SseLine};

impl StreamEnd {
    /// Returns whether a line marks the last event of a stream.
    fn is_end_mark(self, line: &SseLine<'_>) -> bool {
        // Each beginning is compared as a constant, which is done without a call.
        let head = line.head;
        match (self, line.field) {
            (Self::Done, SseField::Data) => head.starts_with(b"[DONE]"),
            (Self::MessageStop, SseField::Event) => head.starts_with(b"message_stop"),
            (Self::ResponseDone, SseField::Event) => {
                head.starts_with(b"response.completed")
                    || head.starts_with(b"response.failed")
                    || head.starts_with(b"response.incomplete")
            }
            _ => false,
        }
    }

    /// Returns the event that ends a stream, for a backend that has left it out.
    fn end_event(self) -> Option<Bytes> {
        match self {
            Self::Done => Some(Bytes::from_static(b"data: [DONE]\n\n")),
            Self::MessageStop => {
                Some(Bytes::from_static(b"event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"))
            }
            Self::ResponseDone | Self::Unmarked => None,
        }
    }
}

/// Looks for the event that ends a stream: the end mark of its dialect, or an error of llama-server.
pub(super) struct EndWatch {
    ending: StreamEnd,
    /// Whether the beginning of an event's data tells an error, as that of llama-server's own events does. Of other
    /// servers the whole event has to be read: some write `error` into each of them, without an error in it.
    trusts_beginning: bool,
    /// Whether the end has been released.
    has_ended: bool,
    /// What a released error event shows about llama-server.
    error: Option<ComputeFailure>,
    /// Whether the unfinished event is the end.
    is_end: bool,
    /// What the unfinished event shows about llama-server, if it is an error.
    held_error: Option<ComputeFailure>,
    /// What it shows if it turns out to be one.
    possible_error: Option<ComputeFailure>,
}

impl EndWatch {
    /// Watches a stream of llama-server.
    pub(super) fn new(ending: StreamEnd) -> Self {
        Self {
            ending,
            trusts_beginning: true,
            has_ended: false,
            error: None,
            is_end: false,
            held_error: None,
            possible_error: None,
        }
    }

    /// Watches a stream of another server.
    pub(super) fn lenient(ending: StreamEnd) -> Self {
        Self { trusts_beginning: false, ..Self::new(ending) }
    }

    /// Returns whether the end has been released.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Returns whether the stream may end without an end mark.
    pub(super) fn needs_no_mark(&self) -> bool {
        self.has_ended || self.ending == StreamEnd::Unmarked
    }

    /// Returns the event that should end the stream, if its dialect has one that can be added.
    pub(super) fn mark(&self) -> Option<Bytes> {
        self.ending.end_event()
    }

    /// Returns what an error event that was released shows about llama-server, if there was one.
    pub(super) fn error(&self) -> Option<ComputeFailure> {
        self.error
    }

    /// Checks the beginning of a line's value. Anywhere else a mark would be text of the model.
    pub(super) fn read_line(&mut self, line: &SseLine<'_>) {
        if self.has_ended || (self.is_end && self.held_error.is_none()) {
            return;
        }
        // Anthropic's errors have their own event name; in all other dialects the data of an error begins like this.
        let is_error_event = match line.field {
            SseField::Event => line.head.starts_with(b"error"),
            SseField::Data => line.head.starts_with(b"{\"error\""),
        };
        if is_error_event && line.field == SseField::Data && !self.trusts_beginning {
            self.possible_error = Some(ComputeFailure::of_error(line.head));
        } else if is_error_event || (line.field == SseField::Data && self.held_error.is_some()) {
            self.is_end = true;
            if self.held_error != Some(ComputeFailure::Confirmed) {
                self.held_error = Some(ComputeFailure::of_error(line.head));
            }
        } else if self.ending.is_end_mark(line) {
            self.is_end = true;
        }
    }

    /// Notes what the data of the unfinished event mean.
    pub(super) fn read_meaning(&mut self, meaning: EventMeaning) {
        match meaning {
            EventMeaning::Goes | EventMeaning::ReportsUsage => {}
            EventMeaning::Ends => self.is_end = true,
            EventMeaning::Fails => {
                self.is_end = true;
                self.held_error = self.held_error.or(self.possible_error).or(Some(ComputeFailure::NotApplicable));
            }
        }
    }

    /// Records that the event, or the part of it that has arrived, is released.
    pub(super) fn release_event(&mut self) {
        self.has_ended |= self.is_end;
        self.error = self.error.or(self.held_error);
    }

    /// Forgets the event that has ended.
    pub(super) fn begin_event(&mut self) {
        (self.is_end, self.held_error, self.possible_error) = (false, None, None);
    }
}
