//! Server-sent events in transit: where an event ends, and whether the stream has reached its own end.
//!
//! Bytes are never changed here. The beginning of an event is held back until its end has arrived, so that a client
//! whose llama-server dies gets whole events and then an error, never half an event. `sse_framer.rs` finds the lines.

use std::collections::VecDeque;

use bytes::Bytes;

use super::end_watch::EndWatch;
use super::finish::{EventMeaning, FinishWatch};
use super::piece_splicer::{PieceSplicer, joined};
use crate::gateway::bounds::{JOINED_PIECES, MAX_BUFFERED_EVENT};
use crate::gateway::response::compute_failure::ComputeFailure;
use crate::gateway::routes::route::StreamEnd;
use crate::gateway::scan::sse_framer::{SseFramer, SseStep};

/// Watches one stream for the ends of its events, and holds back unfinished events.
pub(in crate::gateway::response) struct StreamWatcher {
    framer: SseFramer,
    end: EndWatch,
    /// For a worker that may leave out the end mark: whether the stream has finished.
    finish: Option<FinishWatch>,
    /// Whether the event that only reports token counts is dropped.
    hides_usage: bool,
    /// Whether the last event has been dropped.
    is_dropped: bool,
    /// The unfinished event.
    buffered: VecDeque<Bytes>,
    /// Bytes in `buffered`.
    buffered_length: usize,
}

impl StreamWatcher {
    pub(in crate::gateway::response) fn new(ending: StreamEnd) -> Self {
        Self {
            framer: SseFramer::new(),
            end: EndWatch::new(ending),
            finish: None,
            hides_usage: false,
            is_dropped: false,
            buffered: VecDeque::new(),
            buffered_length: 0,
        }
    }

    /// Watches the stream of a worker that may leave out the end mark. `hides_usage` says whether to drop the event that
    /// only reports token counts.
    pub(in crate::gateway::response) fn lenient(ending: StreamEnd, hides_usage: bool) -> Self {
        let end = EndWatch::lenient(ending);
        Self { end, finish: Some(FinishWatch::new(ending)), hides_usage, ..Self::new(ending) }
    }

    /// Returns the length of the generated text so far, if the stream is read for it.
    pub(in crate::gateway::response) fn text_bytes(&self) -> u64 {
        self.finish.as_ref().map_or(0, FinishWatch::text_bytes)
    }

    /// Takes a piece and pushes to `ready` what may be sent: everything up to the last end of an event. Shows each step
    /// of the stream to `on_step`, which may replace bytes.
    pub(in crate::gateway::response) fn take(
        &mut self,
        piece: Bytes,
        ready: &mut VecDeque<Bytes>,
        mut on_step: impl FnMut(&SseStep<'_>, &mut PieceSplicer<'_>),
    ) {
        let already_held = self.buffered.len();
        let mut out = PieceSplicer::new(&piece, &mut self.buffered);
        let mut at = 0;
        while let Some(step) = self.framer.next(&piece, &mut at) {
            on_step(&step, &mut out);
            match step {
                SseStep::Line(line) => {
                    self.end.read_line(&line);
                    if let Some(finish) = &mut self.finish {
                        finish.read_line(&line);
                    }
                }
                SseStep::EventEnd(end) => {
                    let meaning = self.finish.as_mut().map(FinishWatch::end_event);
                    self.is_dropped = self.hides_usage && meaning == Some(EventMeaning::ReportsUsage);
                    if self.is_dropped {
                        out.drop_event(end);
                        self.end.begin_event();
                        continue;
                    }
                    out.end_event(end);
                    self.end.read_meaning(meaning.unwrap_or(EventMeaning::Goes));
                    self.end.release_event();
                    self.end.begin_event();
                }
                SseStep::LineFeed if self.is_dropped => out.drop_event(1),
                SseStep::LineFeed => out.end_event(1),
            }
        }
        // Most pieces are one event that needs no change.
        if out.is_unchanged() {
            return ready.push_back(piece);
        }
        out.pass_to(piece.len());
        let (complete, has_dropped) = (out.complete(), out.has_dropped());
        let length = |pieces: std::collections::vec_deque::Iter<'_, Bytes>| pieces.map(Bytes::len).sum::<usize>();
        if complete > 0 || has_dropped {
            release(&mut self.buffered, complete, ready);
            self.buffered_length = length(self.buffered.iter());
        } else {
            self.buffered_length += length(self.buffered.range(already_held..));
        }
        if self.buffered_length > MAX_BUFFERED_EVENT {
            self.flush(ready);
        }
    }

    /// Handles the regular end of the body: releases the last event, even if no blank line follows it. Returns whether
    /// the stream is complete.
    pub(in crate::gateway::response) fn end(&mut self, ready: &mut VecDeque<Bytes>) -> StreamOutcome {
        if let Some(finish) = &mut self.finish {
            if !self.end.has_ended() && finish.has_half_event() {
                // An event that is cut in the middle is no use to a client.
                self.buffered.clear();
                self.buffered_length = 0;
                return StreamOutcome::Cut;
            }
            let meaning = finish.end_event();
            if self.hides_usage && meaning == EventMeaning::ReportsUsage {
                self.buffered.clear();
            }
            self.end.read_meaning(meaning);
        }
        self.flush(ready);
        if self.end.needs_no_mark() {
            return StreamOutcome::Complete;
        }
        let mark = self.finish.as_ref().filter(|finish| finish.is_finished()).and_then(|_| self.end.mark());
        mark.map_or(StreamOutcome::Cut, StreamOutcome::LacksMark)
    }

    /// Returns whether the end mark has been released.
    pub(in crate::gateway::response) fn has_end_mark(&self) -> bool {
        self.end.has_ended()
    }

    /// Returns what an error event shows about llama-server, if there was one.
    pub(in crate::gateway::response) fn error(&self) -> Option<ComputeFailure> {
        self.end.error()
    }

    /// Releases the unfinished event, or the part of it that has arrived.
    pub(in crate::gateway::response) fn flush(&mut self, ready: &mut VecDeque<Bytes>) {
        self.end.release_event();
        self.buffered_length = 0;
        ready.extend(self.buffered.drain(..));
    }
}

/// What the end of its body says about a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::gateway::response) enum StreamOutcome {
    /// The stream has sent its end mark, or its dialect has none.
    Complete,
    /// Everything has finished, but this event, which should end the stream, is missing.
    LacksMark(Bytes),
    /// The stream broke off.
    Cut,
}

/// Moves the first `count` pieces to `ready`. Short ones become one piece.
fn release(held: &mut VecDeque<Bytes>, count: usize, ready: &mut VecDeque<Bytes>) {
    if count > 1 && held.range(..count).map(Bytes::len).sum::<usize>() <= JOINED_PIECES {
        ready.push_back(joined(held, count));
    } else {
        ready.extend(held.drain(..count));
    }
}

#[cfg(test)]
#[path = "watcher_tests.rs"]
mod tests;
