//! Scans JSON whose bytes come in pieces of any size and reports the members of its objects. No value is built, no byte
//! is copied but those of a member's name, and the scanner resumes at any byte.
//!
//! The objects whose members are reported are read strictly by the grammar. A value that is skipped only has to be
//! closed. What the members mean is up to `envelope.rs`, `response/rename.rs` and `accounting/usage/scan.rs`.

use std::borrow::Cow;

use memchr::memchr2;

/// The bytes that are looked at together where only brackets and quotes matter.
const STRIDE: usize = 64;

/// The bytes that are looked at one by one before more are looked at together, which takes a run-up.
const NEAR: usize = 16;

/// The mark that may stand before the text; llama-server passes over it.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// What the scanner has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JsonStep {
    /// The object that is the whole text has opened, or one of the array that is the whole text.
    Opens,
    /// A member's name has ended.
    Name,
    /// Its value begins with this byte, which has been read.
    Begins(u8),
    /// Its value, or the object that was entered, has ended just before what is to be read next.
    Ends,
    /// The object that `Opens` reported has closed.
    Closes,
    /// This is not the JSON that was expected. There are no more steps.
    Lost,
}

/// Where the reader stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ScannerState {
    /// Before the object, behind so many bytes of [`BYTE_ORDER_MARK`].
    Start(usize),
    /// Behind the bracket of an array of objects: there is an element, or the end.
    FirstElement,
    /// Behind a comma of that array.
    NextElement,
    /// Behind a bracket: there is a name, or the end.
    First,
    /// Behind a comma.
    Next,
    Name,
    Colon,
    Value,
    Text,
    /// A number, `true`, `false` or `null`.
    Plain,
    /// In a value with so many open brackets.
    Nest(usize),
    /// In a string there.
    NestText(usize),
    /// Behind a value.
    After,
    /// Behind the object.
    End,
    Lost,
}

/// The scanner. Keeps names of up to `NAME` bytes.
#[derive(Debug)]
pub(crate) struct JsonScanner<const NAME: usize> {
    place: ScannerState,
    /// Whether the last byte was a backslash in a string.
    escaped: bool,
    /// Whether the last value that began is an object.
    is_object: bool,
    /// Whether an array of objects is accepted too, and comments in a skipped value do not matter.
    of_answers: bool,
    /// Whether the text is an array.
    in_array: bool,
    /// Open objects whose members are reported.
    level: u8,
    /// Bytes read.
    position: usize,
    /// Where the last name began.
    name_at: usize,
    /// The last name, as far as there is room for it.
    name: [u8; NAME],
    /// The length of the last name, capped at `NAME + 1`.
    name_length: usize,
}

impl<const NAME: usize> JsonScanner<NAME> {
    /// Expects one object. Stops at anything that could make another reader see other members, such as a comment.
    pub(crate) fn of_object() -> Self {
        Self {
            place: ScannerState::Start(0),
            escaped: false,
            is_object: false,
            of_answers: false,
            in_array: false,
            level: 0,
            position: 0,
            name_at: 0,
            name: [0; NAME],
            name_length: 0,
        }
    }

    /// Expects one object or an array of objects. Elements of the array that are no objects are skipped; their steps
    /// are reported at level 0.
    pub(crate) fn of_answers() -> Self {
        Self { of_answers: true, ..Self::of_object() }
    }

    /// Bytes read so far.
    pub(crate) fn position(&self) -> usize {
        self.position
    }

    /// The place of the last name's opening quote.
    pub(crate) fn name_at(&self) -> usize {
        self.name_at
    }

    /// The last name, unless it is longer than `NAME` bytes or no text.
    pub(crate) fn name(&self) -> Option<Cow<'_, str>> {
        text(self.raw_name()?)
    }

    /// The last name as it is written, with its escapes, unless it is longer than `NAME` bytes.
    pub(crate) fn raw_name(&self) -> Option<&[u8]> {
        self.name.get(..self.name_length)
    }

    /// How many objects are open whose members are reported.
    pub(crate) fn level(&self) -> usize {
        usize::from(self.level)
    }

    /// Whether the whole text has been read, and nothing but space behind it.
    pub(crate) fn is_over(&self) -> bool {
        self.place == ScannerState::End
    }

    /// Reports the members of the object that has just begun, instead of skipping it.
    pub(crate) fn enter(&mut self) {
        if self.place == ScannerState::Nest(1) && self.is_object && self.level < u8::MAX {
            self.place = ScannerState::First;
            self.level += 1;
        }
    }

    /// Reads to the next step, or to the end of these bytes: how many of them that were.
    pub(crate) fn step(&mut self, bytes: &[u8]) -> (usize, Option<JsonStep>) {
        let mut used = 0;
        while used < bytes.len() {
            let (more, step) = self.read(&bytes[used..]);
            used += more;
            self.position += more;
            if step.is_some() {
                return (used, step);
            }
        }
        (used, None)
    }

    fn read(&mut self, bytes: &[u8]) -> (usize, Option<JsonStep>) {
        match self.place {
            ScannerState::Name => {
                let end = self.end_of_text(bytes);
                let part = &bytes[..end.map_or(bytes.len(), |end| end - 1)];
                self.keep_name(part);
                self.arrive(end, bytes, ScannerState::Colon, JsonStep::Name)
            }
            ScannerState::Text => {
                let end = self.end_of_text(bytes);
                self.arrive(end, bytes, ScannerState::After, JsonStep::Ends)
            }
            ScannerState::Plain => {
                let end = bytes.iter().position(|byte| !is_plain(*byte));
                self.arrive(end, bytes, ScannerState::After, JsonStep::Ends)
            }
            ScannerState::Nest(depth) => self.pass(bytes, depth),
            ScannerState::NestText(depth) => match self.end_of_text(bytes) {
                Some(end) => {
                    self.place = ScannerState::Nest(depth);
                    (end, None)
                }
                None => (bytes.len(), None),
            },
            ScannerState::Lost => (bytes.len(), None),
            _ => (1, self.take(bytes[0])),
        }
    }

    fn arrive(
        &mut self,
        end: Option<usize>,
        bytes: &[u8],
        place: ScannerState,
        step: JsonStep,
    ) -> (usize, Option<JsonStep>) {
        let Some(end) = end else { return (bytes.len(), None) };
        self.place = place;
        (end, Some(step))
    }

    fn keep_name(&mut self, part: &[u8]) {
        let room = self.name.get_mut(self.name_length..).unwrap_or_default();
        let kept = room.len().min(part.len());
        room[..kept].copy_from_slice(&part[..kept]);
        self.name_length = (self.name_length + part.len()).min(NAME + 1);
    }

    /// One byte between the tokens of an object or an array whose content is reported.
    fn take(&mut self, byte: u8) -> Option<JsonStep> {
        let at_value =
            matches!(self.place, ScannerState::Value | ScannerState::FirstElement | ScannerState::NextElement);
        let (place, step) = match (self.place, byte) {
            (_, b' ' | b'\t' | b'\r' | b'\n') if !matches!(self.place, ScannerState::Start(1..=2)) => return None,
            (ScannerState::Start(0 | 3) | ScannerState::FirstElement | ScannerState::NextElement, b'{') => {
                self.level = 1;
                (ScannerState::First, Some(JsonStep::Opens))
            }
            (ScannerState::Start(0 | 3), b'[') if self.of_answers => {
                self.in_array = true;
                (ScannerState::FirstElement, None)
            }
            (ScannerState::FirstElement, b']') => (ScannerState::End, None),
            (ScannerState::After, b']') if self.level == 0 => (ScannerState::End, None),
            (ScannerState::After, b',') if self.level == 0 => (ScannerState::NextElement, None),
            (ScannerState::Start(at), byte) if BYTE_ORDER_MARK.get(at) == Some(&byte) && self.position == at => {
                (ScannerState::Start(at + 1), None)
            }
            (ScannerState::First | ScannerState::Next, b'"') => {
                self.name_length = 0;
                self.name_at = self.position;
                (ScannerState::Name, None)
            }
            (ScannerState::First | ScannerState::After, b'}') if self.level > 0 => {
                self.level -= 1;
                match self.level {
                    0 if self.in_array => (ScannerState::After, Some(JsonStep::Closes)),
                    0 => (ScannerState::End, Some(JsonStep::Closes)),
                    _ => (ScannerState::After, Some(JsonStep::Ends)),
                }
            }
            (ScannerState::Colon, b':') => (ScannerState::Value, None),
            (_, b'"') if at_value => (ScannerState::Text, Some(JsonStep::Begins(byte))),
            (_, b'{' | b'[') if at_value => {
                self.is_object = byte == b'{';
                (ScannerState::Nest(1), Some(JsonStep::Begins(byte)))
            }
            (_, byte) if at_value && is_plain(byte) => (ScannerState::Plain, Some(JsonStep::Begins(byte))),
            (ScannerState::After, b',') => (ScannerState::Next, None),
            _ => (ScannerState::Lost, Some(JsonStep::Lost)),
        };
        self.place = place;
        step
    }

    /// On through a value in which so many brackets are open.
    fn pass(&mut self, bytes: &[u8], mut depth: usize) -> (usize, Option<JsonStep>) {
        let mut at = 0;
        let of_answers = self.of_answers;
        let next = |bytes| if of_answers { next_mark(bytes, is_mark) } else { next_mark(bytes, is_strict_mark) };
        while let Some(mark) = next(&bytes[at..]) {
            at += mark + 1;
            match bytes[at - 1] {
                b'"' => match self.end_of_text(&bytes[at..]) {
                    Some(end) => at += end,
                    None => {
                        self.place = ScannerState::NestText(depth);
                        return (bytes.len(), None);
                    }
                },
                b'{' | b'[' => depth += 1,
                b'}' | b']' if depth > 1 => depth -= 1,
                b'}' | b']' => {
                    self.place = ScannerState::After;
                    return (at, Some(JsonStep::Ends));
                }
                _ => {
                    self.place = ScannerState::Lost;
                    return (at, Some(JsonStep::Lost));
                }
            }
        }
        self.place = ScannerState::Nest(depth);
        (bytes.len(), None)
    }

    /// The place behind the quote that ends the string.
    fn end_of_text(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        loop {
            if self.escaped {
                bytes.get(at)?;
                self.escaped = false;
                at += 1;
            }
            at += next_quote(&bytes[at..])? + 1;
            if bytes[at - 1] == b'"' {
                return Some(at);
            }
            self.escaped = true;
        }
    }
}

/// The next quote or backslash.
fn next_quote(bytes: &[u8]) -> Option<usize> {
    let (near, far) = bytes.split_at(bytes.len().min(NEAR));
    let found = near.iter().position(|byte| matches!(byte, b'"' | b'\\'));
    found.or_else(|| memchr2(b'"', b'\\', far).map(|at| near.len() + at))
}

/// What stands between the quotes of a JSON string, if it is text.
pub(crate) fn text(raw: &[u8]) -> Option<Cow<'_, str>> {
    if raw.contains(&b'\\') {
        let quoted = [b"\"", raw, b"\""].concat();
        return serde_json::from_slice::<String>(&quoted).ok().map(Cow::Owned);
    }
    str::from_utf8(raw).ok().map(Cow::Borrowed)
}

/// What numbers and literals are made of, and Python's `NaN` too.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.')
}

/// Whether it is a bracket or a quote.
fn is_mark(byte: u8) -> bool {
    byte == b'"' || matches!(byte | 0x20, b'{' | b'}')
}

/// Whether it is a bracket or a quote, or begins a comment or a string in the wider dialects of JSON.
fn is_strict_mark(byte: u8) -> bool {
    matches!(byte | 0x20, b'{'..=b'}') || matches!(byte, b'"' | b'#' | b'\'' | b'/' | b'`')
}

/// The next byte that is a mark. A list of tokens or an embedding is a long way without one, so the way is made in strides.
fn next_mark(bytes: &[u8], is_mark: impl Fn(u8) -> bool) -> Option<usize> {
    let mut passed = bytes.len().min(NEAR);
    if let Some(at) = bytes[..passed].iter().position(|byte| is_mark(*byte)) {
        return Some(at);
    }
    for stride in bytes[passed..].chunks_exact(STRIDE) {
        // No early exit: so the compiler makes vector instructions of it.
        if stride.iter().fold(false, |found, byte| found | is_mark(*byte)) {
            break;
        }
        passed += STRIDE;
    }
    bytes[passed..].iter().position(|byte| is_mark(*byte)).map(|at| passed + at)
}

#[cfg(test)]
#[path = "json_scanner_tests.rs"]
mod tests;
