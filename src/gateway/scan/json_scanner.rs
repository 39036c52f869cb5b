//! Scans JSON that arrives in pieces of any size and reports the members of its objects. Builds no values, copies only
//! the names of members, and can resume at any byte.
//!
//! Objects whose members are reported are read strictly by the grammar. A skipped value only has to be balanced. What
//! the members mean is decided in `request/envelope.rs`, `response/rename.rs` and `accounting/usage/scan.rs`.

use std::borrow::Cow;

use memchr::memchr2;

use super::mark_block::{BLOCK, MarkBits, lenient_marks, strict_marks};

/// Bytes of a text in a skipped value that are looked at in blocks, before the wider comparisons of `memchr`.
const NEAR_IN_NEST: usize = 2 * BLOCK;

/// Bytes of a string that are compared eight at a time, before the wider comparisons of `memchr`. Most names end here.
const NEAR_IN_TEXT: usize = 24;

/// The longest member that is read at once, in bytes: no more than that is read twice where its end has not arrived.
const WHOLE_MEMBER: usize = 256;

/// The byte order mark that may precede the text; llama-server skips it.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// What the scanner has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JsonStep {
    /// The top-level object has opened, or an object of the top-level array.
    Opens,
    /// The name of a member has ended.
    Name,
    /// The value of the member begins with this byte, which has been read.
    Begins(u8),
    /// The value of the member, or an entered object, has ended just before the current position.
    Ends,
    /// The object that `Opens` reported has closed.
    Closes,
    /// The text is not the expected JSON. No more steps follow.
    Lost,
}

/// A member that has been read at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WholeMember<'a> {
    /// The name, which has no escapes.
    pub(crate) name: &'a [u8],
    /// The value: a number, a literal, or a string with its quotes.
    pub(crate) value: &'a [u8],
    /// How many bytes were read, with a comma before the member.
    pub(crate) used: usize,
}

/// What [`JsonScanner::member`] has read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NextMember<'a> {
    Whole(WholeMember<'a>),
    /// The name of a member and the bracket after it, like [`JsonStep::Name`] and [`JsonStep::Begins`].
    Begins {
        first: u8,
        used: usize,
    },
}

/// The position of the scanner in the grammar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ScannerState {
    /// Before the text, after this many bytes of [`BYTE_ORDER_MARK`].
    Start(usize),
    /// After the bracket that opens the top-level array: an element follows, or the end.
    FirstElement,
    /// After a comma of that array.
    NextElement,
    /// After the bracket that opens an object: a name follows, or the end.
    First,
    /// After a comma of an object.
    Next,
    Name,
    /// After a name.
    Colon,
    /// After a colon.
    Value,
    /// In a string that is the value of a member.
    Text,
    /// A number, `true`, `false` or `null`.
    Plain,
    /// In a skipped value with this many open brackets.
    Nest(usize),
    /// In a string of such a value.
    NestText(usize),
    /// After a value.
    After,
    /// After the whole text.
    End,
    Lost,
}

/// A resumable scanner of one JSON text. Keeps names of up to `NAME` bytes.
#[derive(Debug)]
pub(crate) struct JsonScanner<const NAME: usize> {
    state: ScannerState,
    /// Whether the last byte was a backslash that escapes the next byte of a string.
    escaped: bool,
    /// Whether the last skipped value that began is an object.
    is_object: bool,
    /// Whether the text may be an array of objects, and skipped values may contain comments.
    accepts_array: bool,
    /// Whether the text is an array.
    in_array: bool,
    /// Number of open objects whose members are reported.
    level: u8,
    /// Bytes read so far.
    position: usize,
    /// Offset of the opening quote of the last name.
    name_at: usize,
    /// The last name, cut at `NAME` bytes.
    name: [u8; NAME],
    /// The length of the last name, capped at `NAME + 1`.
    name_length: usize,
    /// Whether the last name has an escape, as far as it has been read.
    name_has_escape: bool,
}

impl<const NAME: usize> JsonScanner<NAME> {
    /// Expects one object. Stops at anything that could make another parser see other members, such as a comment.
    pub(crate) fn of_object() -> Self {
        Self {
            state: ScannerState::Start(0),
            escaped: false,
            is_object: false,
            accepts_array: false,
            in_array: false,
            level: 0,
            position: 0,
            name_at: 0,
            name: [0; NAME],
            name_length: 0,
            name_has_escape: false,
        }
    }

    /// Expects one object or an array of objects, as llama-server responds. Other elements of the array are skipped;
    /// their steps are reported at level 0.
    pub(crate) fn of_object_or_array() -> Self {
        Self { accepts_array: true, ..Self::of_object() }
    }

    /// Returns the number of bytes read so far.
    pub(crate) fn position(&self) -> usize {
        self.position
    }

    /// Returns the offset of the opening quote of the last name.
    pub(crate) fn name_at(&self) -> usize {
        self.name_at
    }

    /// Returns the bytes of the last name, without escapes; `None` if it is longer than `NAME` bytes, or its escapes are not
    /// valid. Does not check that they are text, which costs more than to compare them with a name that is.
    pub(crate) fn name_bytes(&self) -> Option<Cow<'_, [u8]>> {
        let raw = self.raw_name()?;
        if !self.name_has_escape {
            return Some(Cow::Borrowed(raw));
        }
        text(raw).map(|name| Cow::Owned(name.into_owned().into_bytes()))
    }

    /// Returns the last name as it is written, with its escapes; `None` if it is longer than `NAME` bytes.
    pub(crate) fn raw_name(&self) -> Option<&[u8]> {
        self.name.get(..self.name_length)
    }

    /// Returns the number of open objects whose members are reported.
    pub(crate) fn level(&self) -> usize {
        usize::from(self.level)
    }

    /// Returns whether the text is an array, as far as it has been read.
    pub(crate) fn is_array(&self) -> bool {
        self.in_array
    }

    /// Whether the text is complete, with nothing but white space after it.
    pub(crate) fn is_over(&self) -> bool {
        self.state == ScannerState::End
    }

    /// Makes the scanner report the members of the object that has just begun, instead of skipping it.
    pub(crate) fn enter(&mut self) {
        // Callers do this right after `Begins`, before anything in the object has been read.
        if self.state == ScannerState::Nest(1) && self.is_object && self.level < u8::MAX {
            self.state = ScannerState::First;
            self.level += 1;
        }
    }

    /// Reads a whole member at once, in place of its three steps, or the beginning of one whose value is an object or an
    /// array, in place of two, if it is one as nearly all are: without white space or an escape in its name, and with a
    /// value that ends or begins in `bytes`. Reads nothing otherwise. [`Self::raw_name`] is that of a member which has begun,
    /// and else stays that of the last step.
    pub(crate) fn member<'a>(&mut self, bytes: &'a [u8]) -> Option<NextMember<'a>> {
        let (before, rest) = match (self.state, bytes) {
            (ScannerState::After, [b',', b'"', rest @ ..]) if self.level > 0 => (2, rest),
            (ScannerState::First | ScannerState::Next, [b'"', rest @ ..]) => (1, rest),
            _ => return None,
        };
        let rest = &rest[..rest.len().min(WHOLE_MEMBER)];
        let (name, rest) = rest.split_at(next_quote(rest)?);
        let [b'"', b':', rest @ ..] = rest else { return None };
        if name.len() > NAME {
            return None;
        }
        let (state, used, member) = match *rest.first()? {
            first @ (b'{' | b'[') => {
                (self.name_length, self.name_has_escape, self.is_object) = (0, false, first == b'{');
                self.keep_name(name);
                let used = before + name.len() + b"\":{".len();
                (ScannerState::Nest(1), used, NextMember::Begins { first, used })
            }
            _ => {
                let value = &rest[..end_of_value(rest)?];
                let used = before + name.len() + b"\":".len() + value.len();
                (ScannerState::After, used, NextMember::Whole(WholeMember { name, value, used }))
            }
        };
        self.name_at = self.position + before - 1;
        self.position += used;
        self.state = state;
        Some(member)
    }

    /// Reads to the next step, or to the end of `bytes`. Returns how many of them were read.
    pub(crate) fn step(&mut self, bytes: &[u8]) -> (usize, Option<JsonStep>) {
        let mut used = 0;
        while used < bytes.len() {
            let (count, step) = self.read(&bytes[used..]);
            used += count;
            self.position += count;
            if step.is_some() {
                return (used, step);
            }
        }
        (used, None)
    }

    /// Reads one token, or as much of it as is in `bytes`.
    fn read(&mut self, bytes: &[u8]) -> (usize, Option<JsonStep>) {
        match self.state {
            ScannerState::Name => self.read_name(bytes),
            ScannerState::Text => {
                let end = self.end_of_text(bytes);
                self.end_token(end, bytes, ScannerState::After, JsonStep::Ends)
            }
            ScannerState::Plain => {
                let end = bytes.iter().position(|byte| !PLAIN[usize::from(*byte)]);
                self.end_token(end, bytes, ScannerState::After, JsonStep::Ends)
            }
            ScannerState::Nest(depth) => self.skip(bytes, depth),
            ScannerState::NestText(depth) => match self.end_of_text(bytes) {
                Some(end) => {
                    self.state = ScannerState::Nest(depth);
                    (end, None)
                }
                None => (bytes.len(), None),
            },
            ScannerState::Lost => (bytes.len(), None),
            _ => self.read_between(bytes),
        }
    }

    /// Reads between two tokens: at once what nearly all writers put there, or else a single byte.
    fn read_between(&mut self, bytes: &[u8]) -> (usize, Option<JsonStep>) {
        match (self.state, bytes) {
            (ScannerState::First | ScannerState::Next, [b'"', rest @ ..]) => self.begin_name(1, rest),
            (ScannerState::After, [b',', b'"', rest @ ..]) if self.level > 0 => self.begin_name(2, rest),
            (ScannerState::Colon, [b':', b'"', ..]) => {
                self.state = ScannerState::Text;
                (2, Some(JsonStep::Begins(b'"')))
            }
            (ScannerState::Colon, [b':', b'{', ..]) => {
                (self.state, self.is_object) = (ScannerState::Nest(1), true);
                (2, Some(JsonStep::Begins(b'{')))
            }
            (ScannerState::Colon, [b':', value, ..]) => {
                self.state = ScannerState::Value;
                (2, self.read_byte(*value))
            }
            _ => (1, self.read_byte(bytes[0])),
        }
    }

    /// Begins a name whose opening quote is the last of the next `used` bytes, and reads what there is of it.
    fn begin_name(&mut self, used: usize, rest: &[u8]) -> (usize, Option<JsonStep>) {
        (self.state, self.name_length, self.name_has_escape) = (ScannerState::Name, 0, false);
        self.name_at = self.position + used - 1;
        let (count, step) = self.read_name(rest);
        (used + count, step)
    }

    /// Reads a name up to its end, or as much of it as is in `bytes`.
    fn read_name(&mut self, bytes: &[u8]) -> (usize, Option<JsonStep>) {
        let end = self.end_of_text(bytes);
        self.keep_name(&bytes[..end.map_or(bytes.len(), |end| end - 1)]);
        self.end_token(end, bytes, ScannerState::Colon, JsonStep::Name)
    }

    /// Ends a token at the offset `end`, or reads on in it if its end is not in `bytes`.
    fn end_token(
        &mut self,
        end: Option<usize>,
        bytes: &[u8],
        next: ScannerState,
        step: JsonStep,
    ) -> (usize, Option<JsonStep>) {
        let Some(end) = end else { return (bytes.len(), None) };
        self.state = next;
        (end, Some(step))
    }

    /// Appends a part of a name, as far as it fits.
    fn keep_name(&mut self, part: &[u8]) {
        let free = self.name.get_mut(self.name_length..).unwrap_or_default();
        let kept = free.len().min(part.len());
        free[..kept].copy_from_slice(&part[..kept]);
        // One more than fits marks a name that is too long.
        self.name_length = (self.name_length + part.len()).min(NAME + 1);
    }

    /// Reads one byte between the tokens of an object or an array whose content is reported.
    fn read_byte(&mut self, byte: u8) -> Option<JsonStep> {
        let at_value =
            matches!(self.state, ScannerState::Value | ScannerState::FirstElement | ScannerState::NextElement);
        let (state, step) = match (self.state, byte) {
            // Not within a byte order mark: that must be whole.
            (_, b' ' | b'\t' | b'\r' | b'\n') if !matches!(self.state, ScannerState::Start(1..=2)) => return None,
            (ScannerState::Start(0 | 3) | ScannerState::FirstElement | ScannerState::NextElement, b'{') => {
                self.level = 1;
                (ScannerState::First, Some(JsonStep::Opens))
            }
            (ScannerState::Start(0 | 3), b'[') if self.accepts_array => {
                self.in_array = true;
                (ScannerState::FirstElement, None)
            }
            (ScannerState::FirstElement, b']') => (ScannerState::End, None),
            (ScannerState::After, b']') if self.level == 0 => (ScannerState::End, None),
            (ScannerState::After, b',') if self.level == 0 => (ScannerState::NextElement, None),
            (ScannerState::Start(at), byte) if BYTE_ORDER_MARK.get(at) == Some(&byte) && self.position == at => {
                (ScannerState::Start(at + 1), None)
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
        self.state = state;
        step
    }

    /// Skips a value in which `depth` brackets are open.
    fn skip(&mut self, bytes: &[u8], mut depth: usize) -> (usize, Option<JsonStep>) {
        let is_lenient = self.accepts_array;
        let (mut start, mut text_at, mut escaped_at) = (0, None, None);
        while start < bytes.len() {
            let mut marks = marks_in(&bytes[start..], is_lenient);
            while marks != 0 {
                let at = start + marks.trailing_zeros() as usize;
                marks &= marks - 1;
                match (bytes[at], text_at) {
                    (_, Some(_)) if escaped_at == Some(at) => {}
                    (b'"', Some(_)) => text_at = None,
                    (b'\\', Some(_)) => escaped_at = Some(at + 1),
                    (_, Some(_)) => {}
                    (b'"', None) => text_at = Some(at),
                    (b'{' | b'[', None) => depth += 1,
                    (b'}' | b']', None) if depth > 1 => depth -= 1,
                    (b'}' | b']', None) => {
                        self.state = ScannerState::After;
                        return (at + 1, Some(JsonStep::Ends));
                    }
                    (b'\\', None) if is_lenient => {}
                    (_, None) => {
                        self.state = ScannerState::Lost;
                        return (at + 1, Some(JsonStep::Lost));
                    }
                }
            }
            start += BLOCK;
            // Long texts, as pictures are, have few marks.
            if text_at.is_some_and(|text_at| start - text_at > NEAR_IN_NEST) && start < bytes.len() {
                start += memchr2(b'"', b'\\', &bytes[start..]).unwrap_or(bytes.len() - start);
            }
        }
        self.escaped = text_at.is_some() && escaped_at == Some(bytes.len());
        self.state = if text_at.is_some() { ScannerState::NestText(depth) } else { ScannerState::Nest(depth) };
        (bytes.len(), None)
    }

    /// Returns the offset after the quote that ends the string, if it is in `bytes`.
    fn end_of_text(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        loop {
            // The escaped byte may be in the next piece; then the flag stays set.
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
            self.name_has_escape |= self.state == ScannerState::Name;
        }
    }
}

/// Returns the offset of the end of a value that is no object or array, if it is in `bytes`.
fn end_of_value(bytes: &[u8]) -> Option<usize> {
    match *bytes.first()? {
        b'"' => {
            let mut at = 1;
            loop {
                at += next_quote(bytes.get(at..)?)?;
                match bytes[at] {
                    b'"' => return Some(at + 1),
                    _ => at += 2,
                }
            }
        }
        first if is_plain(first) => bytes.iter().position(|byte| !is_plain(*byte)),
        _ => None,
    }
}

/// Returns the offset of the next quote or backslash.
fn next_quote(bytes: &[u8]) -> Option<usize> {
    let (near, far) = bytes.split_at(bytes.len().min(NEAR_IN_TEXT));
    let (words, rest) = near.as_chunks();
    for (at, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let found = first_equal(word, b'"') | first_equal(word, b'\\');
        if found != 0 {
            return Some(at * size_of_val(&word) + found.trailing_zeros() as usize / 8);
        }
    }
    let found = rest.iter().position(|byte| matches!(byte, b'"' | b'\\')).map(|at| near.len() - rest.len() + at);
    found.or_else(|| memchr2(b'"', b'\\', far).map(|at| near.len() + at))
}

/// Returns a word whose lowest bit that is set is in the first byte of `word` that equals `byte`; 0 if none does.
fn first_equal(word: u64, byte: u8) -> u64 {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    let difference = word ^ (ONES * u64::from(byte));
    // Only a byte that is 0 borrows from the one above it. Those above the first may be marked wrongly.
    difference.wrapping_sub(ONES) & !difference & (ONES << 7)
}

/// Decodes what is between the quotes of a JSON string; `None` if it is not valid text.
pub(crate) fn text(raw: &[u8]) -> Option<Cow<'_, str>> {
    if raw.contains(&b'\\') {
        let quoted = [b"\"", raw, b"\""].concat();
        return serde_json::from_slice::<String>(&quoted).ok().map(Cow::Owned);
    }
    str::from_utf8(raw).ok().map(Cow::Borrowed)
}

/// Which bytes are wanted, as a table: a test of each byte against several values would cost more.
type ByteTable = [bool; 256];

/// Bytes of a number or a literal, Python's `NaN` included.
const PLAIN: ByteTable = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < table.len() {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    with(table, b"+-.")
};

const fn with(mut table: ByteTable, bytes: &[u8]) -> ByteTable {
    let mut at = 0;
    while at < bytes.len() {
        table[bytes[at] as usize] = true;
        at += 1;
    }
    table
}

fn is_plain(byte: u8) -> bool {
    PLAIN[usize::from(byte)]
}

/// Returns the marks of the next [`BLOCK`], or of as much of it as is there.
fn marks_in(bytes: &[u8], is_lenient: bool) -> MarkBits {
    let marks = if is_lenient { lenient_marks } else { strict_marks };
    match bytes.first_chunk() {
        Some(block) => marks(block),
        None => {
            let mut block = [0; BLOCK];
            block[..bytes.len()].copy_from_slice(bytes);
            marks(&block)
        }
    }
}

#[cfg(test)]
#[path = "json_scanner_tests.rs"]
mod tests;
