//! Splits a stream of server-sent events into lines, by the HTML standard (section 9.2.6, "Interpreting an event
//! stream").
//!
//! A line ends with LF, CR or CRLF. The name of a field ends at the first colon, and one space after the colon is not
//! part of the value. A blank line ends the event. A byte order mark may precede the first line. The bytes may arrive
//! in pieces of any size. They are borrowed: only the beginning of a line that arrives in several pieces is copied.
//! What the lines mean is decided in `response/stream/`, `response/rename.rs` and `accounting/usage/`.

use memchr::memchr2;

use crate::gateway::bounds::EVENT_HEAD;

/// The byte order mark that may precede the first line.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// A field that is reported. Comments and the other fields of the standard, `id` and `retry`, are skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SseField {
    Data,
    Event,
}

impl SseField {
    /// Returns the name with the colon that ends it.
    const fn name(self) -> &'static [u8] {
        match self {
            Self::Data => b"data:",
            Self::Event => b"event:",
        }
    }
}

/// What the framer has found. Offsets count from the beginning of the piece.
#[derive(Debug)]
pub(crate) enum SseStep<'a> {
    /// A line of a reported field, or the part of it that is in this piece.
    Line(SseLine<'a>),
    /// A blank line, which ends an event, has ended at this offset.
    EventEnd(usize),
    /// The line feed at the beginning of this piece belongs to the carriage return that ended an event in the previous
    /// one.
    LineFeed,
}

/// The part of a line that is in one piece of the stream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SseLine<'a> {
    pub(crate) field: SseField,
    /// The bytes of the value in this piece.
    pub(crate) value: &'a [u8],
    /// The offset of `value` in the piece.
    pub(crate) offset: usize,
    /// The value from its beginning: all of it if it arrived in one piece, otherwise what has arrived of its first
    /// [`EVENT_HEAD`] bytes.
    pub(crate) head: &'a [u8],
    /// Whether the value begins in this piece.
    pub(crate) begins: bool,
    /// Whether the value ends in this piece.
    pub(crate) ends: bool,
    /// Whether a blank line follows in this piece.
    pub(crate) ends_event: bool,
}

/// The position of the framer within a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FramerState {
    /// Before the first line, after this many bytes of [`BYTE_ORDER_MARK`].
    Start(u8),
    /// At the beginning of a line.
    LineStart,
    /// At the beginning of a line too, after a carriage return to which a line feed may belong.
    AfterReturn {
        /// Whether the carriage return ended an event.
        ended_event: bool,
    },
    /// After this many bytes of the field's name and colon.
    Name(SseField, u8),
    /// After the colon, where one space is skipped.
    Space(SseField),
    Value {
        field: SseField,
        /// Whether none of it has been reported.
        begins: bool,
    },
    /// In a line that is skipped.
    Skipped,
}

/// A resumable splitter of one stream.
#[derive(Debug)]
pub(crate) struct SseFramer {
    state: FramerState,
    /// The beginning of a value that arrives in several pieces, up to [`EVENT_HEAD`] bytes.
    head: Vec<u8>,
}

impl SseFramer {
    pub(crate) fn new() -> Self {
        Self { state: FramerState::Start(0), head: Vec::new() }
    }

    /// Continues in `piece` from the offset `at`, which is moved past what is returned. Returns `None` at the end of
    /// the piece; the next piece begins at offset 0.
    pub(crate) fn next<'a>(&'a mut self, piece: &'a [u8], at: &mut usize) -> Option<SseStep<'a>> {
        while let Some(&byte) = piece.get(*at) {
            match self.state {
                FramerState::Start(matched) if BYTE_ORDER_MARK.get(usize::from(matched)) == Some(&byte) => {
                    *at += 1;
                    self.state = FramerState::Start(matched + 1);
                }
                // An incomplete byte order mark is the beginning of an unknown field name.
                FramerState::Start(1..=2) => self.state = FramerState::Skipped,
                FramerState::Start(_) => self.state = FramerState::LineStart,
                FramerState::AfterReturn { ended_event } => {
                    self.state = FramerState::LineStart;
                    if byte == b'\n' {
                        *at += 1;
                        if ended_event {
                            return Some(SseStep::LineFeed);
                        }
                    }
                }
                FramerState::LineStart if matches!(byte, b'\n' | b'\r') => {
                    self.end_line(piece, at, true);
                    return Some(SseStep::EventEnd(*at));
                }
                FramerState::LineStart => self.begin_line(&piece[*at..], at),
                FramerState::Name(field, matched) => {
                    let name = field.name();
                    let is_last = usize::from(matched) + 1 == name.len();
                    if byte == name[usize::from(matched)] {
                        *at += 1;
                        self.state =
                            if is_last { FramerState::Space(field) } else { FramerState::Name(field, matched + 1) };
                    } else if is_last && matches!(byte, b'\n' | b'\r') {
                        // A name without a colon is a field with an empty value (HTML, section 9.2.6).
                        self.state = FramerState::Value { field, begins: true };
                    } else {
                        self.state = FramerState::Skipped;
                    }
                }
                FramerState::Space(field) => {
                    *at += usize::from(byte == b' ');
                    self.state = FramerState::Value { field, begins: true };
                }
                FramerState::Value { field, begins } => {
                    return Some(SseStep::Line(self.read_value(field, begins, piece, at)));
                }
                FramerState::Skipped => match memchr2(b'\n', b'\r', &piece[*at..]) {
                    Some(length) => {
                        *at += length;
                        self.end_line(piece, at, false);
                    }
                    None => *at = piece.len(),
                },
            }
        }
        None
    }

    /// Returns the number of bytes that are kept.
    #[cfg(test)]
    pub(crate) fn head_length(&self) -> usize {
        self.head.len()
    }

    /// Reads the field name at the beginning of a line, or its first byte if the name does not arrive in one piece.
    fn begin_line(&mut self, line: &[u8], at: &mut usize) {
        // Each name is compared as a constant, which is done without a call.
        let (field, is_whole) = match line {
            [b'd', ..] => (SseField::Data, line.starts_with(SseField::Data.name())),
            [b'e', ..] => (SseField::Event, line.starts_with(SseField::Event.name())),
            _ => {
                self.state = FramerState::Skipped;
                return;
            }
        };
        if is_whole {
            *at += field.name().len();
            self.state = FramerState::Space(field);
        } else {
            *at += 1;
            self.state = FramerState::Name(field, 1);
        }
    }

    /// Reads the value up to the end of the line, or of the piece.
    fn read_value<'a>(&'a mut self, field: SseField, begins: bool, piece: &'a [u8], at: &mut usize) -> SseLine<'a> {
        let offset = *at;
        let end = memchr2(b'\n', b'\r', &piece[offset..]).map(|length| offset + length);
        let value = &piece[offset..end.unwrap_or(piece.len())];
        let is_whole = begins && end.is_some();
        if !is_whole {
            if begins {
                self.head.clear();
            }
            let kept = EVENT_HEAD.saturating_sub(self.head.len()).min(value.len());
            self.head.extend_from_slice(&value[..kept]);
        }
        *at += value.len();
        if end.is_some() {
            self.end_line(piece, at, false);
        } else {
            self.state = FramerState::Value { field, begins: false };
        }
        // Only within this piece: a line that waits for the next one would be delayed.
        let ends_event = end.is_some() && matches!(piece.get(*at), Some(b'\n' | b'\r'));
        let head = if is_whole { value } else { &self.head };
        SseLine { field, value, offset, head, begins, ends: end.is_some(), ends_event }
    }

    /// Reads the end of a line, which is at the offset `at`.
    fn end_line(&mut self, piece: &[u8], at: &mut usize, ends_event: bool) {
        let end = &piece[*at..];
        // A CR at the end of the piece already ends the line: waiting for an LF would hold back the event.
        self.state =
            if end == b"\r" { FramerState::AfterReturn { ended_event: ends_event } } else { FramerState::LineStart };
        *at += if end.starts_with(b"\r\n") { 2 } else { 1 };
    }
}

/// Returns the number of events of a stream that arrives in these pieces, for fuzzing.
#[cfg(feature = "test-support")]
pub(crate) fn count_events(pieces: &[&[u8]]) -> usize {
    let (mut framer, mut events) = (SseFramer::new(), 0);
    for piece in pieces {
        let mut at = 0;
        while let Some(step) = framer.next(piece, &mut at) {
            events += usize::from(matches!(step, SseStep::EventEnd(_)));
        }
    }
    events
}

#[cfg(test)]
#[path = "sse_framer_tests.rs"]
mod tests;
