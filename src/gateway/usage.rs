//! How many tokens an answer cost, learned from its bytes on their way through. Nothing is changed or held.
//!
//! `usage` counts before `timings`. The choices of a stream each tell their own, and are added up. A stream that ends
//! before it has told counts as many tokens as events with text have come, which is a lower bound.
//!
//! Not counted: an answer without either (`/embedding`, TEI's form of rerank), an error, a whole answer whose client
//! leaves before the counts come, and, in a whole answer with several choices, what llama-server leaves out itself.

mod counts;
mod scan;

use super::sse::Ending;
use crate::gateway::bounds::EVENT_HEAD;
pub(super) use counts::Counts;
use counts::Report;
use memchr::{memchr, memchr_iter, memmem};
use scan::CountReader;
use std::sync::LazyLock;

/// Counts the tokens of one answer.
#[derive(Debug)]
pub(super) struct Tally {
    scanner: CountReader,
    stream: Option<Stream>,
}

/// What only an event stream has.
#[derive(Debug)]
struct Stream {
    ending: Ending,
    /// Events with text so far.
    events: u64,
    usage: Counts,
    measured: Counts,
    /// What a stream told that was not its last word.
    so_far: Counts,
    line: Line,
    /// The beginning of an event that did not come in one piece; empty between events.
    head: Vec<u8>,
}

/// Where in a line the reader stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// So many bytes of [`DATA`] have been there.
    Name(usize),
    Data,
    Other,
}

const DATA: &[u8] = b"data:";

impl Tally {
    /// For an answer that is one JSON value.
    pub(super) fn of_whole() -> Self {
        Self { scanner: CountReader::new(), stream: None }
    }

    /// For a stream of events.
    pub(super) fn of_stream(ending: Ending) -> Self {
        let none = Counts::default();
        let stream = Stream {
            ending,
            events: 0,
            usage: none,
            measured: none,
            so_far: none,
            line: Line::Name(0),
            head: Vec::new(),
        };
        Self { scanner: CountReader::new(), stream: Some(stream) }
    }

    /// Reads the next piece of the answer; true when an event with text ends in it.
    pub(super) fn read(&mut self, piece: &[u8]) -> bool {
        match &mut self.stream {
            None => {
                self.scanner.feed(piece);
                false
            }
            Some(stream) => {
                let before = stream.events;
                stream.read(piece, &mut self.scanner);
                stream.events > before
            }
        }
    }

    /// What is known now.
    pub(super) fn counts(&self) -> Counts {
        match &self.stream {
            None => {
                let report = self.scanner.report();
                report.usage.or(report.measured)
            }
            Some(stream) => {
                let seen = Some(stream.events).filter(|events| *events > 0);
                let at_least = Counts { prompt: stream.so_far.prompt, completion: seen.max(stream.so_far.completion) };
                stream.usage.or(stream.measured).or(at_least)
            }
        }
    }
}

impl Stream {
    fn read(&mut self, mut bytes: &[u8], scanner: &mut CountReader) {
        while !bytes.is_empty() {
            // Nearly all events come whole and tell nothing of tokens.
            let whole = if self.head.is_empty() { end_of_event(bytes) } else { None };
            bytes = match whole {
                Some(end) => {
                    let (event, rest) = bytes.split_at(end);
                    let mut report = Report::default();
                    if tells(self.ending, event) {
                        *scanner = CountReader::new();
                        self.read_event(event, scanner);
                        report = scanner.report();
                    }
                    self.end(event, report);
                    rest
                }
                None => {
                    if self.head.is_empty() {
                        *scanner = CountReader::new();
                    }
                    let (part, ends) = self.read_event(bytes, scanner);
                    let room = EVENT_HEAD.saturating_sub(self.head.len()).min(part);
                    self.head.extend_from_slice(&bytes[..room]);
                    if ends {
                        let head = std::mem::take(&mut self.head);
                        self.end(&head, scanner.report());
                        self.head = head;
                        self.head.clear();
                    }
                    &bytes[part..]
                }
            };
        }
    }

    /// Reads to the end of the event, or of the bytes: how many bytes that were, and whether the event has ended.
    fn read_event(&mut self, bytes: &[u8], scanner: &mut CountReader) -> (usize, bool) {
        let mut at = 0;
        while at < bytes.len() {
            match self.line {
                Line::Name(matched) => {
                    let byte = bytes[at];
                    at += 1;
                    self.line = match byte {
                        b'\n' if matched == 0 => return (at, true),
                        b'\n' => Line::Name(0),
                        b'\r' if matched == 0 => Line::Name(0),
                        byte if byte != DATA[matched] => Line::Other,
                        _ if matched + 1 == DATA.len() => Line::Data,
                        _ => Line::Name(matched + 1),
                    };
                }
                Line::Data | Line::Other => {
                    let end = memchr(b'\n', &bytes[at..]).map(|length| at + length);
                    if self.line == Line::Data {
                        scanner.feed(&bytes[at..end.unwrap_or(bytes.len())]);
                    }
                    let Some(end) = end else { return (bytes.len(), false) };
                    at = end + 1;
                    self.line = Line::Name(0);
                }
            }
        }
        (at, false)
    }

    /// An event is over that has told so much; `event` is all of it, or its beginning.
    fn end(&mut self, event: &[u8], report: Report) {
        let kind = Kind::of(self.ending, event);
        self.events += u64::from(kind == Kind::Text);
        match self.ending {
            Ending::MessageStop | Ending::ResponseDone if report.opens => self.so_far = report.usage.or(self.so_far),
            Ending::MessageStop | Ending::ResponseDone => {
                self.usage = report.usage.or(self.usage);
                self.measured = report.measured.or(self.measured);
            }
            Ending::Done | Ending::Unmarked if kind == Kind::Last => {
                self.usage.add(report.usage);
                self.measured.add(report.measured);
            }
            Ending::Done | Ending::Unmarked => self.so_far = report.usage.or(report.measured).or(self.so_far),
        }
    }
}

/// What an event is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It carries a piece of the answer.
    Text,
    /// It comes before the end, without a piece of the answer.
    Between,
    /// It may end a choice and tell its counts.
    Last,
}

impl Kind {
    /// A name with its quotes and colon cannot stand in a string of JSON, where quotes are escaped.
    fn of(ending: Ending, event: &[u8]) -> Self {
        static UNFINISHED: LazyLock<memmem::Finder<'static>> =
            LazyLock::new(|| memmem::Finder::new(b"\"finish_reason\":null"));
        static ROLE: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(b"\"role\":\""));
        static GOES_ON: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(b"\"stop\":false"));
        static NO_TEXT: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(b"\"content\":\"\""));
        let (goes_on, empty) = match ending {
            Ending::Done => (&UNFINISHED, &ROLE),
            Ending::Unmarked => (&GOES_ON, &NO_TEXT),
            Ending::MessageStop if event.starts_with(b"event: content_block_delta") => return Self::Text,
            Ending::ResponseDone
                if event.starts_with(b"event: response.") && first_line(event).ends_with(b".delta") =>
            {
                return Self::Text;
            }
            Ending::MessageStop | Ending::ResponseDone => return Self::Between,
        };
        match (goes_on.find(event), empty.find(event)) {
            (None, _) => Self::Last,
            (Some(_), None) => Self::Text,
            (Some(_), Some(_)) => Self::Between,
        }
    }
}

/// The place behind the first empty line.
fn end_of_event(bytes: &[u8]) -> Option<usize> {
    memchr_iter(b'\n', bytes).find(|at| bytes.get(at + 1) == Some(&b'\n')).map(|at| at + 2)
}

fn first_line(event: &[u8]) -> &[u8] {
    let line = memchr(b'\n', event).map_or(event, |end| &event[..end]);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Whether it is worth reading the JSON of an event. A name that only the model says is found out by reading.
fn tells(ending: Ending, event: &[u8]) -> bool {
    static USAGE: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(b"\"usage\""));
    static TIMINGS: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(b"\"timings\""));
    static PREDICTED: LazyLock<memmem::Finder<'static>> =
        LazyLock::new(|| memmem::Finder::new(b"\"tokens_predicted\""));
    let found = |finder: &LazyLock<memmem::Finder<'static>>| finder.find(event).is_some();
    match ending {
        Ending::Unmarked => found(&PREDICTED) || found(&TIMINGS) || found(&USAGE),
        _ => found(&USAGE) || found(&TIMINGS),
    }
}

#[cfg(test)]
#[path = "usage/tests.rs"]
mod tests;
