//! Counts the tokens of a response from its bytes while they are forwarded. Changes and delays nothing.
//!
//! `usage` takes precedence over `timings`. In a stream of llama-server with several choices each choice reports its own
//! counts, and they are added up; a `usage` without `timings` is a total and replaces the one before it. A stream that ends before it reports counts is charged one token for each event with text, which is a
//! lower bound.
//!
//! Not counted: a response that reports neither (`/embedding`, TEI's form of rerank), an error, a JSON response whose
//! client disconnects before the counts arrive, and, in a JSON response with several choices, the tokens that llama-server
//! itself leaves out.
//!
//! - `counts.rs`: which members of a response hold counts, and what they add up to
//! - `known_event.rs`: recognises an event that differs from an earlier one only in its text
//! - `scan.rs`: finds those members in the bytes of a response

mod counts;
mod known_event;
mod scan;

use crate::gateway::routes::route::StreamEnd;
use crate::gateway::scan::sse_framer::{SseField, SseLine, SseStep};

pub(super) use counts::TokenCounts;
use known_event::{EventMarkers, KnownEvent};
use memchr::memmem;
use scan::CountReader;
use std::sync::LazyLock;

/// Counts the tokens of one response.
#[derive(Debug)]
pub(crate) struct TokenCounter {
    reader: CountReader,
    stream: Option<StreamUsage>,
}

/// The additional state of an event stream.
#[derive(Debug)]
struct StreamUsage {
    stream_end: StreamEnd,
    /// Whether every event is scanned, because its JSON may be spelled in any way.
    scans_all: bool,
    /// The number of events with text so far.
    text_events: u64,
    /// Final counts from `usage`.
    usage: TokenCounts,
    /// Final counts from `timings` or the fields of `/completion`.
    measured: TokenCounts,
    /// The latest counts of an event that was not final, for a stream that breaks off.
    running: TokenCounts,
    event: EventState,
    /// The last event whose data were searched, and had no counts.
    known: KnownEvent,
}

/// What is known about the event that is being read.
#[derive(Debug, Clone, Copy, Default)]
struct EventState {
    /// Whether its `event:` name marks an event with text.
    is_text: bool,
    /// What its data say.
    markers: EventMarkers,
    /// Whether its data are scanned for counts.
    is_scanned: bool,
}

impl TokenCounter {
    /// Creates a counter for a response that is one JSON value.
    pub(super) fn for_json() -> Self {
        Self { reader: CountReader::new(), stream: None }
    }

    /// Creates a counter for a stream of llama-server that ends as `stream_end` says.
    pub(super) fn for_stream(stream_end: StreamEnd) -> Self {
        let none = TokenCounts::default();
        let stream = StreamUsage {
            stream_end,
            scans_all: false,
            text_events: 0,
            usage: none,
            measured: none,
            running: none,
            event: EventState::default(),
            known: KnownEvent::default(),
        };
        Self { reader: CountReader::new(), stream: Some(stream) }
    }

    /// Creates a counter for a stream of another server, which may write its JSON in any way.
    pub(super) fn for_foreign_stream(stream_end: StreamEnd) -> Self {
        let mut counter = Self::for_stream(stream_end);
        counter.stream.iter_mut().for_each(|stream| stream.scans_all = true);
        counter
    }

    /// Returns whether the response is a stream.
    pub(super) fn is_stream(&self) -> bool {
        self.stream.is_some()
    }

    /// Returns whether the response has reported how many tokens it has generated.
    pub(super) fn is_reported(&self) -> bool {
        match &self.stream {
            None => self.counts().completion.is_some(),
            Some(stream) => stream.usage.or(stream.measured).or(stream.running).completion.is_some(),
        }
    }

    /// Reads the next piece of a response that is one JSON value.
    pub(crate) fn read(&mut self, piece: &[u8]) {
        self.reader.feed(piece);
    }

    /// Reads the next step of a stream. Returns whether an event with text ended with it.
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

    /// Returns the counts that are known now.
    pub(super) fn counts(&self) -> TokenCounts {
        match &self.stream {
            None => {
                let report = self.reader.report();
                report.usage.or(report.measured)
            }
            Some(stream) => {
                // llama-server sends about one event for each token, so text events are a lower bound.
                let text_events = Some(stream.text_events).filter(|events| *events > 0);
                let completion = text_events.max(stream.running.completion);
                let at_least = TokenCounts { prompt: stream.running.prompt, completion, ..TokenCounts::default() };
                stream.usage.or(stream.measured).or(at_least)
            }
        }
    }
}

impl StreamUsage {
    /// Reads the `event:` name, in the dialects (Anthropic, OpenAI responses) whose events with text have one.
    fn read_name(&mut self, line: &SseLine<'_>) {
        self.event.is_text = match self.stream_end {
            StreamEnd::MessageStop => line.head.starts_with(b"content_block_delta"),
            StreamEnd::ResponseDone => line.head.starts_with(b"response.") && line.head.ends_with(b".delta"),
            StreamEnd::Done | StreamEnd::Unmarked => false,
        };
    }

    /// Reads a `data:` line, or a piece of one.
    fn read_data(&mut self, line: &SseLine<'_>, reader: &mut CountReader) {
        // Nearly every event is a single line in one piece without counts: a substring search decides that it needs no scan.
        let is_whole = line.begins && line.ends_event && !self.event.is_scanned;
        let may_be_known = is_whole && !self.scans_all && self.event.markers == EventMarkers::default();
        if may_be_known && let Some(markers) = self.known.markers_of(line.value) {
            self.event.markers = markers;
            return;
        }
        if !is_whole || self.scans_all || may_report_usage(self.stream_end, line.value) {
            if !self.event.is_scanned {
                *reader = CountReader::new();
                self.event.is_scanned = true;
            } else if line.begins {
                // The HTML standard joins the `data:` lines of an event with line feeds.
                reader.feed(b"\n");
            }
            reader.feed(line.value);
        }
        if line.ends {
            let EventMarkers { is_unfinished, is_empty } = find_markers(self.stream_end, line.head);
            let markers = &mut self.event.markers;
            markers.is_unfinished |= is_unfinished;
            markers.is_empty |= is_empty;
            if may_be_known && !self.event.is_scanned {
                self.known.replace(line.value, *markers);
            }
        }
    }

    /// Adds the counts of the event that has ended. Returns whether it had text.
    fn end_event(&mut self, reader: &CountReader) -> bool {
        let event = std::mem::take(&mut self.event);
        let kind = EventKind::of(self.stream_end, event);
        self.text_events += u64::from(kind == EventKind::Text);
        if !event.is_scanned {
            return kind == EventKind::Text;
        }
        let report = reader.report();
        match self.stream_end {
            StreamEnd::MessageStop | StreamEnd::ResponseDone if report.is_opening => {
                self.running = report.usage.or(self.running)
            }
            // These dialects report totals, so the last report replaces the ones before it.
            StreamEnd::MessageStop | StreamEnd::ResponseDone => {
                self.usage = report.usage.or(self.usage);
                self.measured = report.measured.or(self.measured);
            }
            StreamEnd::Done | StreamEnd::Unmarked if kind == EventKind::Last => {
                // llama-server sends one final event for each choice, with its timings.
                match report.measured == TokenCounts::default() {
                    true => self.usage = report.usage.or(self.usage),
                    false => self.usage.add(report.usage),
                }
                self.measured.add(report.measured);
            }
            StreamEnd::Done | StreamEnd::Unmarked => self.running = report.usage.or(report.measured).or(self.running),
        }
        kind == EventKind::Text
    }
}

/// The role of an event in its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EventKind {
    /// Carries a piece of the generated text.
    Text,
    /// Comes before the end and carries no text.
    NoText,
    /// May end a choice and report its counts.
    Last,
}

impl EventKind {
    fn of(stream_end: StreamEnd, event: EventState) -> Self {
        match stream_end {
            StreamEnd::MessageStop | StreamEnd::ResponseDone if event.is_text => Self::Text,
            StreamEnd::MessageStop | StreamEnd::ResponseDone => Self::NoText,
            StreamEnd::Done | StreamEnd::Unmarked if !event.markers.is_unfinished => Self::Last,
            StreamEnd::Done | StreamEnd::Unmarked if event.markers.is_empty => Self::NoText,
            StreamEnd::Done | StreamEnd::Unmarked => Self::Text,
        }
    }
}

/// Returns what the data say. Only the dialects without event names say so in their data.
///
/// A substring search is enough: a name with its quotes cannot occur within a JSON string, where quotes are escaped, and
/// a string that is a value is not followed by a colon.
fn find_markers(stream_end: StreamEnd, data: &[u8]) -> EventMarkers {
    static FINISH_REASON: LazyLock<memmem::Finder<'static>> =
        LazyLock::new(|| memmem::Finder::new(b"\"finish_reason\""));
    static ROLE: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(b"\"role\""));
    static STOP: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(b"\"stop\""));
    static CONTENT: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(b"\"content\""));
    let (is_unfinished, is_empty) = match stream_end {
        StreamEnd::Done => (has_value(data, &FINISH_REASON, b"null"), has_value(data, &ROLE, b"\"")),
        StreamEnd::Unmarked => (has_value(data, &STOP, b"false"), has_value(data, &CONTENT, b"\"\"")),
        StreamEnd::MessageStop | StreamEnd::ResponseDone => (false, false),
    };
    EventMarkers { is_unfinished, is_empty }
}

/// Whether the data have a member of this name whose value begins like this.
fn has_value(data: &[u8], name: &memmem::Finder<'static>, value: &[u8]) -> bool {
    name.find_iter(data).any(|at| {
        let rest = data[at + name.needle().len()..].trim_ascii_start();
        rest.strip_prefix(b":").is_some_and(|rest| rest.trim_ascii_start().starts_with(value))
    })
}

/// Whether the data of an event may hold counts. True too for a name that only the generated text contains; the scan
/// then finds no count.
fn may_report_usage(stream_end: StreamEnd, data: &[u8]) -> bool {
    static USAGE: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(b"\"usage\""));
    static TIMINGS: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(b"\"timings\""));
    static PREDICTED: LazyLock<memmem::Finder<'static>> =
        LazyLock::new(|| memmem::Finder::new(b"\"tokens_predicted\""));
    let found = |finder: &LazyLock<memmem::Finder<'static>>| finder.find(data).is_some();
    match stream_end {
        StreamEnd::Unmarked => found(&PREDICTED) || found(&TIMINGS) || found(&USAGE),
        _ => found(&USAGE) || found(&TIMINGS),
    }
}

#[cfg(test)]
mod tests;
