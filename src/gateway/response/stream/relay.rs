//! One stream on its way through: from the pieces that arrive to those that may be sent.
//!
//! Each piece is read once. The watcher finds the steps of the stream, and all that reads or renames sees each step as it
//! is found. Whole events are then changed where their client or their llama-server needs that.

use std::collections::VecDeque;

use bytes::Bytes;

use super::transform::TransformedStream;
use super::watcher::{StreamOutcome, StreamWatcher};
use crate::gateway::accounting::usage::TokenCounter;
use crate::gateway::request::answer_facts::AnswerFacts;
use crate::gateway::response::compute_failure::ComputeFailure;
use crate::gateway::response::line_stream::LineStream;
use crate::gateway::response::mend;
use crate::gateway::response::rename::ModelRenamer;
use crate::gateway::routes::route::Route;
use crate::refusal::Shape;

/// What becomes of the pieces of one stream.
pub(in crate::gateway::response) struct StreamRelay {
    /// Finds the ends of the events, and the end of the stream.
    watcher: StreamWatcher,
    events: EventPath,
    /// For a client of Ollama's API: turns the events into lines.
    lines: Option<Box<LineStream>>,
    route: &'static Route,
}

/// What becomes of the events of a stream.
pub(in crate::gateway::response) enum EventPath {
    /// Not known before the first one has arrived.
    Undecided(Box<AnswerFacts>),
    /// They are passed on.
    Unchanged,
    Transformed(Box<TransformedStream>),
}

/// What reads the steps of a stream, beside the watcher.
pub(in crate::gateway::response) struct StepReaders<'a> {
    pub(in crate::gateway::response) renamer: Option<&'a mut ModelRenamer>,
    pub(in crate::gateway::response) token_counter: Option<&'a mut TokenCounter>,
}

impl StreamRelay {
    /// Relays a stream of this route, which has not begun.
    pub(in crate::gateway::response) fn new(
        watcher: StreamWatcher,
        events: EventPath,
        lines: Option<Box<LineStream>>,
        route: &'static Route,
    ) -> Self {
        Self { watcher, events, lines, route }
    }

    /// Takes a piece, and pushes to `ready` what may be sent. Returns how many events with text ended in it.
    pub(in crate::gateway::response) fn take(
        &mut self,
        piece: Bytes,
        mut readers: StepReaders<'_>,
        ready: &mut VecDeque<Bytes>,
    ) -> usize {
        let mut texts = 0;
        self.watcher.take(piece, ready, |step, out| {
            if let Some(renamer) = &mut readers.renamer {
                renamer.take_step(step, out);
            }
            if let Some(token_counter) = &mut readers.token_counter {
                texts += usize::from(token_counter.read_step(step));
            }
        });
        self.change_events(ready);
        if let Some(lines) = &mut self.lines {
            lines.take(ready);
        }
        texts
    }

    /// Handles the regular end of the body. Returns whether the stream is complete.
    pub(in crate::gateway::response) fn end(&mut self, ready: &mut VecDeque<Bytes>) -> StreamOutcome {
        let outcome = self.watcher.end(ready);
        self.change_events(ready);
        if let EventPath::Transformed(stream) = &mut self.events {
            stream.end(ready);
        }
        let Some(lines) = &mut self.lines else { return outcome };
        lines.take(ready);
        if outcome == StreamOutcome::Cut {
            return outcome;
        }
        // The lines have an end of their own.
        lines.end(ready);
        StreamOutcome::Complete
    }

    /// Returns whether the end mark has been released.
    pub(in crate::gateway::response) fn has_end_mark(&self) -> bool {
        self.watcher.has_end_mark()
    }

    /// Returns what an error event shows about llama-server, if there was one.
    pub(in crate::gateway::response) fn error(&self) -> Option<ComputeFailure> {
        self.watcher.error()
    }

    /// Returns the length of the generated text so far, if the stream is read for it.
    pub(in crate::gateway::response) fn text_bytes(&self) -> u64 {
        self.watcher.text_bytes()
    }

    /// Changes the ready pieces where their events need that.
    fn change_events(&mut self, ready: &mut VecDeque<Bytes>) {
        if ready.is_empty() {
            return;
        }
        if let EventPath::Undecided(facts) = &mut self.events {
            let facts = std::mem::take(&mut **facts);
            let mend = mend::of_stream(self.route, facts, ready);
            self.events = mend.map_or(EventPath::Unchanged, |stream| EventPath::Transformed(Box::new(stream)));
        }
        if let EventPath::Transformed(stream) = &mut self.events {
            stream.take(ready);
            if stream.is_done() {
                self.events = EventPath::Unchanged;
            }
        }
        let is_anthropic = self.lines.is_none() && self.route.shape == Shape::Anthropic;
        if is_anthropic && self.watcher.error().is_some() {
            mend::error_events(ready);
        }
    }
}
