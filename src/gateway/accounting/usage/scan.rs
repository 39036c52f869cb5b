//! Reads the token counts out of an answer's JSON while its bytes go by.
//!
//! The JSON may come in any pieces, have its fields in any order and be of any size: nothing is kept but the place
//! where the reader stands. A count is taken only from its own place, so words of the model, which are strings or lie
//! deeper, are never taken for one. What is no JSON has no counts. Which fields count, and for what, is `counts.rs`'s.

use super::counts::{Fields, LONGEST_NAME, Name, Place, Report};
use memchr::memchr2;

/// The bytes that are looked at together where only brackets and quotes matter.
const STRIDE: usize = 64;

/// The reader.
#[derive(Debug)]
pub(super) struct Scanner {
    /// Open brackets.
    depth: u32,
    /// The places that are open, outermost first, and the depth within each.
    places: [(Place, u32); 3],
    open: usize,
    text: Text,
    /// Whether the next string of the innermost place is a name.
    at_name: bool,
    name: Name,
    number: Option<u64>,
    name_bytes: [u8; LONGEST_NAME],
    name_length: usize,
    fields: Fields,
    opens: bool,
    /// The sum of the answers that are closed.
    closed: Report,
}

/// Whether the reader stands in a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Text {
    Outside,
    Name,
    Value,
    /// After a backslash.
    Escape(bool),
}

impl Scanner {
    pub(super) fn new() -> Self {
        Self {
            depth: 0,
            places: [(Place::Answer, 0); 3],
            open: 0,
            text: Text::Outside,
            at_name: false,
            name: Name::Unknown,
            number: None,
            name_bytes: [0; LONGEST_NAME],
            name_length: 0,
            fields: Fields::default(),
            opens: false,
            closed: Report::default(),
        }
    }

    /// What has been told so far, by an answer that is still open too.
    pub(super) fn report(&self) -> Report {
        let mut report = self.closed;
        report.add(self.current());
        report
    }

    /// Reads on.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        while let Some((&first, rest)) = bytes.split_first() {
            bytes = match self.text {
                Text::Outside if self.innermost().is_some_and(|(_, depth)| depth == self.depth) => {
                    self.take(first);
                    rest
                }
                Text::Outside => match next_mark(bytes) {
                    None => return,
                    Some(at) => {
                        self.take_mark(bytes[at]);
                        &bytes[at + 1..]
                    }
                },
                Text::Escape(in_name) => {
                    self.text = if in_name { Text::Name } else { Text::Value };
                    rest
                }
                Text::Name | Text::Value => self.read_string(bytes),
            };
        }
    }

    fn innermost(&self) -> Option<(Place, u32)> {
        self.open.checked_sub(1).map(|at| self.places[at])
    }

    fn read_string<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let in_name = self.text == Text::Name;
        let end = memchr2(b'"', b'\\', bytes);
        if in_name {
            self.keep_name(&bytes[..end.unwrap_or(bytes.len())]);
        }
        let Some(end) = end else { return &[] };
        if bytes[end] == b'\\' {
            // No name that matters has one.
            self.name_length = usize::MAX;
            self.text = Text::Escape(in_name);
        } else {
            if in_name {
                self.name = self.name_bytes.get(..self.name_length).map_or(Name::Unknown, Name::of);
                self.at_name = false;
            }
            self.text = Text::Outside;
        }
        &bytes[end + 1..]
    }

    fn keep_name(&mut self, part: &[u8]) {
        let end = self.name_length.saturating_add(part.len());
        match self.name_bytes.get_mut(self.name_length..end) {
            Some(room) => {
                room.copy_from_slice(part);
                self.name_length = end;
            }
            None => self.name_length = usize::MAX,
        }
    }

    /// One byte in an object that matters, outside its strings.
    fn take(&mut self, byte: u8) {
        match byte {
            b'0'..=b'9' => {
                let digit = u64::from(byte - b'0');
                self.number = Some(self.number.unwrap_or(0).saturating_mul(10).saturating_add(digit));
            }
            b',' => {
                self.end_of_value();
                self.at_name = true;
            }
            b'}' | b']' => {
                self.end_of_value();
                self.close();
            }
            b'"' => self.begin_string(self.at_name),
            b'{' | b'[' => self.begin_value(byte == b'{'),
            b' ' | b'\t' | b'\r' | b'\n' => {}
            b':' => self.number = None,
            // A fraction, an exponent, a sign, `null`: no count.
            _ => self.name = Name::Unknown,
        }
    }

    /// A bracket or a quote elsewhere.
    fn take_mark(&mut self, byte: u8) {
        match byte {
            b'"' => self.begin_string(false),
            b'{' | b'[' => self.begin_value(byte == b'{'),
            _ => self.close(),
        }
    }

    fn begin_string(&mut self, is_name: bool) {
        self.text = if is_name { Text::Name } else { Text::Value };
        self.name_length = 0;
    }

    /// An object or an array begins.
    fn begin_value(&mut self, is_object: bool) {
        let place = match self.innermost() {
            // At the top, or in an array there, stand the answers.
            None if self.depth <= 1 => Some(Place::Answer),
            Some((within, depth)) if depth == self.depth => match (within, self.name) {
                (Place::Answer, Name::Opens(place)) => Some(place),
                (Place::Wrapper, Name::Opens(Place::Usage)) => Some(Place::Usage),
                _ => None,
            },
            _ => None,
        };
        self.depth = self.depth.saturating_add(1);
        let Some(place) = place.filter(|_| is_object) else { return };
        if let Some(room) = self.places.get_mut(self.open) {
            *room = (place, self.depth);
            self.open += 1;
            self.at_name = true;
            if place == Place::Wrapper {
                self.opens = self.name_bytes.starts_with(b"message");
            }
        }
    }

    fn close(&mut self) {
        if let Some((place, depth)) = self.innermost()
            && depth == self.depth
        {
            self.open -= 1;
            if place == Place::Answer {
                self.closed.add(self.current());
                self.fields = Fields::default();
                self.opens = false;
            }
        }
        self.depth = self.depth.saturating_sub(1);
        self.name = Name::Unknown;
    }

    fn end_of_value(&mut self) {
        if let (Name::Count(field), Some((place, _))) = (self.name, self.innermost())
            && field.place() == place
            && self.number.is_some()
        {
            self.fields.set(field, self.number);
        }
        self.name = Name::Unknown;
        self.number = None;
    }

    fn current(&self) -> Report {
        self.fields.report(self.opens)
    }
}

/// The next bracket or quote. An embedding is a long way without one, so the way is made in strides.
fn next_mark(bytes: &[u8]) -> Option<usize> {
    let is_mark = |byte: &u8| *byte == b'"' || matches!(*byte | 0x20, b'{' | b'}');
    let mut passed = 0;
    for stride in bytes.chunks_exact(STRIDE) {
        // No early exit: so the compiler makes vector instructions of it.
        if stride.iter().fold(false, |found, byte| found | is_mark(byte)) {
            break;
        }
        passed += STRIDE;
    }
    bytes[passed..].iter().position(is_mark).map(|at| passed + at)
}
