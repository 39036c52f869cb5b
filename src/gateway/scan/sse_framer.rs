//! Splits a stream of server-sent events into lines, by the HTML standard (section 9.2.6, "Interpreting an event stream").
//!
//! A line ends with LF, CR or CRLF; a field's name ends at the first colon, and one space behind the colon is no part of
//! the value; a blank line ends the event; a byte order mark may stand before the first line. The bytes may come in pieces
//! of any size. They are borrowed: only the beginning of a line that does not come in one piece is copied. What the lines
//! mean is up to `sse.rs`, `usage.rs` and `rename.rs`.

use memchr::memchr2;

use crate::gateway::bounds::EVENT_HEAD;

/// The mark that may stand before the first line.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// A field that is reported. Comments and the other fields of the standard, `id` and `retry`, are skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SseField {
    Data,
    Event,
}

impl SseField {
    const ALL: [Self; 2] = [Self::Data, Self::Event];

    /// The name with the colon that ends it.
    fn name(self) -> &'static [u8] {
        match self {
            Self::Data => b"data:",
            Self::Event => b"event:",
        }
    }
}

/// What stands next in a piece of the stream. Offsets count from the beginning of the piece.
#[derive(Debug)]
pub(crate) enum SseStep<'a> {
    /// A line of a reported field, or the part of it that stands in this piece.
    Line(SseLine<'a>),
    /// A blank line, which ends an event, has ended at this offset.
    EventEnd(usize),
    /// The line feed at the beginning of this piece belongs to the carriage return with which an event has ended before.
    LineFeed,
}

/// The part of a line that stands in one piece of the stream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SseLine<'a> {
    pub(crate) field: SseField,
    /// The bytes of the value in this piece.
    pub(crate) value: &'a [u8],
    /// The offset of `value` in the piece.
    pub(crate) offset: usize,
    /// The value from its beginning: all of it where it came in one piece, else its first [`EVENT_HEAD`] bytes at most, as
    /// far as they have come.
    pub(crate) head: &'a [u8],
    /// Whether the value begins in this piece.
    pub(crate) begins: bool,
    /// Whether the value ends in this piece.
    pub(crate) ends: bool,
    /// Whether a blank line follows in this piece.
    pub(crate) ends_event: bool,
}

/// Where in the stream the framer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FramerState {
    /// Before the first line, behind this many bytes of [`BYTE_ORDER_MARK`].
    Start(u8),
    /// At the beginning of a line.
    LineStart,
    /// There too, behind a carriage return, to which a line feed would belong.
    AfterReturn {
        /// Whether that ended an event.
        ended_event: bool,
    },
    /// Behind this many bytes of the field's name and colon.
    Name(SseField, u8),
    /// Behind the colon, where one space is skipped.
    Space(SseField),
    Value {
        field: SseField,
        /// Whether none of it has been reported.
        begins: bool,
    },
    /// In a line that is skipped.
    Skipped,
}

/// Splits one stream into lines.
#[derive(Debug)]
pub(crate) struct SseFramer {
    place: FramerState,
    /// The beginning of a value that does not come in one piece.
    head: Vec<u8>,
}

impl SseFramer {
    pub(crate) fn new() -> Self {
        Self { place: FramerState::Start(0), head: Vec::new() }
    }

    /// Reads on in a piece from the offset `at`, which is moved behind what is returned. Returns none at the end of the
    /// piece, and goes on with the next piece at its offset 0.
    pub(crate) fn next<'a>(&'a mut self, piece: &'a [u8], at: &mut usize) -> Option<SseStep<'a>> {
        while let Some(&byte) = piece.get(*at) {
            match self.place {
                FramerState::Start(matched) if BYTE_ORDER_MARK.get(usize::from(matched)) == Some(&byte) => {
                    *at += 1;
                    self.place = FramerState::Start(matched + 1);
                }
                // A part of the mark is the beginning of an unknown name.
                FramerState::Start(1..=2) => self.place = FramerState::Skipped,
                FramerState::Start(_) => self.place = FramerState::LineStart,
                FramerState::AfterReturn { ended_event } => {
                    self.place = FramerState::LineStart;
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
                        self.place =
                            if is_last { FramerState::Space(field) } else { FramerState::Name(field, matched + 1) };
                    } else if is_last && matches!(byte, b'\n' | b'\r') {
                        // Without a colon the value is empty.
                        self.place = FramerState::Value { field, begins: true };
                    } else {
                        self.place = FramerState::Skipped;
                    }
                }
                FramerState::Space(field) => {
                    *at += usize::from(byte == b' ');
                    self.place = FramerState::Value { field, begins: true };
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

    /// The bytes that are kept.
    #[cfg(test)]
    pub(crate) fn head_length(&self) -> usize {
        self.head.len()
    }

    /// Reads the name with which a line begins, or as much of it as there is.
    fn begin_line(&mut self, line: &[u8], at: &mut usize) {
        let fields = SseField::ALL.into_iter();
        self.place = if let Some(field) = fields.clone().find(|field| line.starts_with(field.name())) {
            *at += field.name().len();
            FramerState::Space(field)
        } else if let Some(field) = fields.clone().find(|field| line[0] == field.name()[0]) {
            *at += 1;
            FramerState::Name(field, 1)
        } else {
            FramerState::Skipped
        };
    }

    /// Reads to the end of the line, or of the piece.
    fn read_value<'a>(&'a mut self, field: SseField, begins: bool, piece: &'a [u8], at: &mut usize) -> SseLine<'a> {
        let offset = *at;
        let end = memchr2(b'\n', b'\r', &piece[offset..]).map(|length| offset + length);
        let value = &piece[offset..end.unwrap_or(piece.len())];
        let is_whole = begins && end.is_some();
        if !is_whole {
            if begins {
                self.head.clear();
            }
            let room = EVENT_HEAD.saturating_sub(self.head.len()).min(value.len());
            self.head.extend_from_slice(&value[..room]);
        }
        *at += value.len();
        if end.is_some() {
            self.end_line(piece, at, false);
        } else {
            self.place = FramerState::Value { field, begins: false };
        }
        let ends_event = end.is_some() && matches!(piece.get(*at), Some(b'\n' | b'\r'));
        let head = if is_whole { value } else { &self.head };
        SseLine { field, value, offset, head, begins, ends: end.is_some(), ends_event }
    }

    /// Reads the end of a line, which stands at this offset.
    fn end_line(&mut self, piece: &[u8], at: &mut usize, ends_event: bool) {
        let end = &piece[*at..];
        self.place =
            if end == b"\r" { FramerState::AfterReturn { ended_event: ends_event } } else { FramerState::LineStart };
        *at += if end.starts_with(b"\r\n") { 2 } else { 1 };
    }
}

#[cfg(test)]
#[path = "sse_framer_tests.rs"]
mod tests;
