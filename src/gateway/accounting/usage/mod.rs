//! How many tokens an answer cost, learned from its bytes on their way through. Nothing is changed or held.
//!
//! `usage` counts before `timings`. The choices of a stream each tell their own, and are added up. A stream that ends
//! before it has told counts as many tokens as events with text have come, which is a lower bound.
//!
//! Not counted: an answer without either (`/embedding`, TEI's form of rerank), an error, a whole answer whose client
//! leaves before the counts come, and, in a whole answer with several choices, what llama-server leaves out itself.
//!
//! - `counts.rs`: which members of an answer hold counts, and what they add up to
//! - `scan.rs`: finds those members in the bytes of an answer

mod counts;
mod scan;

use crate::gateway::route::StreamEnd;
use crate::gateway::scan::sse_framer::{SseField, SseLine, SseStep};
pub(super) use counts::TokenCounts;
use counts::UsageReport;
use memchr::memmem;
use scan::CountReader;
use std::sync::LazyLock;

/// Counts the tokens of one answer.
#[derive(Debug)]
pub(crate) struct TokenCounter {
    reader: CountReader,
    stream: Option<StreamUsage>,
}

/// What only an event stream has.
#[derive(Debug)]
struct StreamUsage {
    stream_end: StreamEnd,
    /// Events with text so far.
    text_events: u64,
    usage: TokenCounts,
    measured: TokenCounts,
    /// What a stream told that was not its last word.
    running: TokenCounts,
    event: Event,
}

/// What is known of the event that has not ended.
#[derive(Debug, Clone, Copy, Default)]
struct Event {
    /// Whether its name is that of an event with text.
    is_text: bool,
    /// Whether its data say that the answer goes on.
    goes_on: bool,
    /// Whether its data say that it has no text.
    is_empty: bool,
    /// Whether its data are read for counts.
    is_read: bool,
}

impl TokenCounter {
    /// For an answer that is one JSON value.
    pub(super) fn for_json() -> Self {
        Self { reader: CountReader::new(), stream: None }
    }

    /// For a stream of events.
    pub(super) fn for_stream(ending: StreamEnd) -> Self {
        let none = TokenCounts::default();
        let stream = StreamUsage {
            stream_end: ending,
            text_events: 0,
            usage: none,
            measured: none,
            running: none,
            event: Event::default(),
        };
        Self { reader: CountReader::new(), stream: Some(stream) }
    }

    /// Reads the next piece of an answer that is one JSON value.
    pub(crate) fn read(&mut self, piece: &[u8]) {
        self.reader.feed(piece);
    }

    /// Reads the next step of a stream. Returns whether an event with text has ended.
    pub(crate) fn read_step(&mut self, step: &SseStep<'_>) -> bool {
        let Some(stream) = &mut self.stream else { return false };
        match step {
            SseStep::Line(line) if line.field == SseField::Event => stream.read_name(line),
            SseStep::Line(line) => stream.read_data(line, &mut self.reader),
            SseStep::EventEnd(_) => return stream.end_event(&self.reader),
            SseStep::LineFeed => {}
        }
        false
    }

    /// What is known now.
    pub(super) fn counts(&self) -> TokenCounts {
        match &self.stream {
            None => {
                let report = self.reader.report();
                report.usage.or(report.measured)
            }
            Some(stream) => {
                let seen = Some(stream.text_events).filter(|events| *events > 0);
                let at_least =
                    TokenCounts { prompt: stream.running.prompt, completion: seen.max(stream.running.completion) };
                stream.usage.or(stream.measured).or(at_least)
            }
        }
    }
}

impl StreamUsage {
    /// Reads the name of an event, in dialects whose events with text have one.
    fn read_name(&mut self, line: &SseLine<'_>) {
        self.event.is_text = match self.stream_end {
            StreamEnd::MessageStop => line.head.starts_with(b"content_block_delta"),
            StreamEnd::ResponseDone => line.head.starts_with(b"response.") && line.head.ends_with(b".delta"),
            StreamEnd::Done | StreamEnd::Unmarked => false,
        };
    }

    /// Reads a line of data.
    fn read_data(&mut self, line: &SseLine<'_>, reader: &mut CountReader) {
        // Nearly all events are one line, come whole and tell nothing of tokens.
        let is_whole = line.begins && line.ends_event && !self.event.is_read;
        if !is_whole || may_report_usage(self.stream_end, line.value) {
            if !self.event.is_read {
                *reader = CountReader::new();
                self.event.is_read = true;
            } else if line.begins {
                // The lines of an event are joined by line feeds.
                reader.feed(b"\n");
            }
            reader.feed(line.value);
        }
        if line.ends {
            let (goes_on, is_empty) = marks(self.stream_end, line.head);
            self.event.goes_on |= goes_on;
            self.event.is_empty |= is_empty;
        }
    }

    /// Adds what the event has told that is over. Returns whether it had text.
    fn end_event(&mut self, reader: &CountReader) -> bool {
        let event = std::mem::take(&mut self.event);
        let report = if event.is_read { reader.report() } else { UsageReport::default() };
        let kind = EventKind::of(self.stream_end, event);
        self.text_events += u64::from(kind == EventKind::Text);
        match self.stream_end {
            StreamEnd::MessageStop | StreamEnd::ResponseDone if report.is_opening => {
                self.running = report.usage.or(self.running)
            }
            StreamEnd::MessageStop | StreamEnd::ResponseDone => {
                self.usage = report.usage.or(self.usage);
                self.measured = report.measured.or(self.measured);
            }
            StreamEnd::Done | StreamEnd::Unmarked if kind == EventKind::Last => {
                self.usage.add(report.usage);
                self.measured.add(report.measured);
            }
            StreamEnd::Done | StreamEnd::Unmarked => self.running = report.usage.or(report.measured).or(self.running),
        }
        kind == EventKind::Text
    }
}

/// What an event is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EventKind {
    /// It carries a piece of the answer.
    Text,
    /// It comes before the end, without a piece of the answer.
    NoText,
    /// It may end a choice and tell its counts.
    Last,
}

impl EventKind {
    fn of(ending: StreamEnd, event: Event) -> Self {
        match ending {
            StreamEnd::MessageStop | StreamEnd::ResponseDone if event.is_text => Self::Text,
            StreamEnd::MessageStop | StreamEnd::ResponseDone => Self::NoText,
            StreamEnd::Done | StreamEnd::Unmarked if !event.goes_on => Self::Last,
            StreamEnd::Done | StreamEnd::Unmarked if event.is_empty => Self::NoText,
            StreamEnd::Done | StreamEnd::Unmarked => Self::Text,
        }
    }
}

/// Whether data say that the answer goes on, and whether they say that they have no text, in dialects that say it in their
/// data. A name with its quotes and colon cannot stand in a string of JSON, where quotes are escaped.
fn marks(ending: StreamEnd, data: &[u8]) -> (bool, bool) {
    static UNFINISHED: LazyLock<memmem::Finder<'static>> =
        LazyLock::new(|| memmem::Finder::new(b"\"finish_reason\":null"));
    static ROLE: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(b"\"role\":\""));
    static GOES_ON: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(b"\"stop\":false"));
    static NO_TEXT: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(b"\"content\":\"\""));
    let (goes_on, is_empty) = match ending {
        StreamEnd::Done => (&UNFINISHED, &ROLE),
        StreamEnd::Unmarked => (&GOES_ON, &NO_TEXT),
        StreamEnd::MessageStop | StreamEnd::ResponseDone => return (false, false),
    };
    (goes_on.find(data).is_some(), is_empty.find(data).is_some())
}

/// Whether it is worth reading the data of an event. A name that only the model says is found out by reading.
fn may_report_usage(ending: StreamEnd, data: &[u8]) -> bool {
    static USAGE: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(b"\"usage\""));
    static TIMINGS: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(b"\"timings\""));
    static PREDICTED: LazyLock<memmem::Finder<'static>> =
        LazyLock::new(|| memmem::Finder::new(b"\"tokens_predicted\""));
    let found = |finder: &LazyLock<memmem::Finder<'static>>| finder.find(data).is_some();
    match ending {
        StreamEnd::Unmarked => found(&PREDICTED) || found(&TIMINGS) || found(&USAGE),
        _ => found(&USAGE) || found(&TIMINGS),
    }
}

#[cfg(test)]
mod tests;
