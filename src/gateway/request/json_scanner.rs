//! A walk along the members of a JSON object whose bytes come in any pieces. Values are passed over, never built.
//!
//! Knows the grammar of an object as far as it must to find the members: the objects that are walked into are read
//! strictly, what lies in a value only has to be closed. Whatever could make another reader see other members, such as
//! a comment, ends the walk. What the members mean is the business of `envelope.rs` and `response/rename.rs`.

use crate::gateway::bounds::MEMBER_NAME;
use memchr::memchr2;
use std::borrow::Cow;

/// The bytes that are looked at together where only brackets and quotes matter.
const STRIDE: usize = 64;

/// The bytes that are looked at one by one before more are looked at together, which takes a run-up.
const NEAR: usize = 16;

/// The mark that may stand before the text; llama-server passes over it.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// What the walk has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The object that is the whole text has opened.
    Opens,
    /// A member's name has ended.
    Name,
    /// Its value begins with this byte, which has been read.
    Begins(u8),
    /// Its value, or the object that was walked into, has ended just before what is to be read next.
    Ends,
    /// The object that is the whole text has closed.
    Closes,
    /// This is no JSON object. There are no more steps.
    Lost,
}

/// Where the reader stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before the object, behind so many bytes of [`BYTE_ORDER_MARK`].
    Start(usize),
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

/// The walker.
#[derive(Debug)]
pub(crate) struct Walk {
    place: Place,
    /// Whether the last byte was a backslash in a string.
    escaped: bool,
    /// Whether the last value that began is an object.
    is_object: bool,
    /// Open objects that are walked along.
    level: usize,
    /// Bytes read.
    position: usize,
    /// Where the last name began.
    name_at: usize,
    /// The bytes of the last name; longer ones than any that matters are cut.
    name: Vec<u8>,
}

impl Walk {
    /// At the beginning of a text.
    pub(crate) fn new() -> Self {
        Self {
            place: Place::Start(0),
            escaped: false,
            is_object: false,
            level: 0,
            position: 0,
            name_at: 0,
            name: Vec::new(),
        }
    }

    /// Bytes read so far.
    pub(super) fn position(&self) -> usize {
        self.position
    }

    /// The place of the last name's opening quote.
    pub(super) fn name_at(&self) -> usize {
        self.name_at
    }

    /// The last name, unless it is longer than any that matters or no text.
    pub(crate) fn name(&self) -> Option<Cow<'_, str>> {
        if self.name.len() > MEMBER_NAME { None } else { text(&self.name) }
    }

    /// How many objects are open that are walked along.
    pub(crate) fn level(&self) -> usize {
        self.level
    }

    /// Whether the whole object has been read, and nothing but space behind it.
    pub(super) fn is_over(&self) -> bool {
        self.place == Place::End
    }

    /// Walks into the object that has just begun, instead of passing over it.
    pub(crate) fn enter(&mut self) {
        if self.place == Place::Nest(1) && self.is_object {
            self.place = Place::First;
            self.level += 1;
        }
    }

    /// Reads to the next step, or to the end of these bytes: how many of them that were.
    pub(crate) fn step(&mut self, bytes: &[u8]) -> (usize, Option<Step>) {
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

    fn read(&mut self, bytes: &[u8]) -> (usize, Option<Step>) {
        match self.place {
            Place::Name => {
                let end = self.end_of_text(bytes);
                let part = &bytes[..end.map_or(bytes.len(), |end| end - 1)];
                // One byte more shows that it is longer.
                let room = (MEMBER_NAME + 1).saturating_sub(self.name.len()).min(part.len());
                self.name.extend_from_slice(&part[..room]);
                self.arrive(end, bytes, Place::Colon, Step::Name)
            }
            Place::Text => {
                let end = self.end_of_text(bytes);
                self.arrive(end, bytes, Place::After, Step::Ends)
            }
            Place::Plain => {
                let end = bytes.iter().position(|byte| !is_plain(*byte));
                self.arrive(end, bytes, Place::After, Step::Ends)
            }
            Place::Nest(depth) => self.pass(bytes, depth),
            Place::NestText(depth) => match self.end_of_text(bytes) {
                Some(end) => {
                    self.place = Place::Nest(depth);
                    (end, None)
                }
                None => (bytes.len(), None),
            },
            Place::Lost => (bytes.len(), None),
            _ => (1, self.take(bytes[0])),
        }
    }

    fn arrive(&mut self, end: Option<usize>, bytes: &[u8], place: Place, step: Step) -> (usize, Option<Step>) {
        let Some(end) = end else { return (bytes.len(), None) };
        self.place = place;
        (end, Some(step))
    }

    /// One byte between the tokens of an object that is walked along.
    fn take(&mut self, byte: u8) -> Option<Step> {
        let (place, step) = match (self.place, byte) {
            (_, b' ' | b'\t' | b'\r' | b'\n') if !matches!(self.place, Place::Start(1..=2)) => return None,
            (Place::Start(0 | 3), b'{') => {
                self.level = 1;
                (Place::First, Some(Step::Opens))
            }
            (Place::Start(at), byte) if BYTE_ORDER_MARK.get(at) == Some(&byte) && self.position == at => {
                (Place::Start(at + 1), None)
            }
            (Place::First | Place::Next, b'"') => {
                self.name.clear();
                self.name_at = self.position;
                (Place::Name, None)
            }
            (Place::First | Place::After, b'}') => {
                self.level -= 1;
                if self.level == 0 { (Place::End, Some(Step::Closes)) } else { (Place::After, Some(Step::Ends)) }
            }
            (Place::Colon, b':') => (Place::Value, None),
            (Place::Value, b'"') => (Place::Text, Some(Step::Begins(byte))),
            (Place::Value, b'{' | b'[') => {
                self.is_object = byte == b'{';
                (Place::Nest(1), Some(Step::Begins(byte)))
            }
            (Place::Value, byte) if is_plain(byte) => (Place::Plain, Some(Step::Begins(byte))),
            (Place::After, b',') => (Place::Next, None),
            _ => (Place::Lost, Some(Step::Lost)),
        };
        self.place = place;
        step
    }

    /// On through a value in which so many brackets are open.
    fn pass(&mut self, bytes: &[u8], mut depth: usize) -> (usize, Option<Step>) {
        let mut at = 0;
        while let Some(mark) = next_mark(&bytes[at..]) {
            at += mark + 1;
            match bytes[at - 1] {
                b'"' => match self.end_of_text(&bytes[at..]) {
                    Some(end) => at += end,
                    None => {
                        self.place = Place::NestText(depth);
                        return (bytes.len(), None);
                    }
                },
                b'{' | b'[' => depth += 1,
                b'}' | b']' if depth > 1 => depth -= 1,
                b'}' | b']' => {
                    self.place = Place::After;
                    return (at, Some(Step::Ends));
                }
                _ => {
                    self.place = Place::Lost;
                    return (at, Some(Step::Lost));
                }
            }
        }
        self.place = Place::Nest(depth);
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
pub(super) fn text(raw: &[u8]) -> Option<Cow<'_, str>> {
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

/// The next bracket or quote, or what begins a comment or a string in the wider dialects of JSON. A list of tokens is a
/// long way without one, so the way is made in strides.
fn next_mark(bytes: &[u8]) -> Option<usize> {
    let is_mark = |byte: &u8| matches!(*byte | 0x20, b'{'..=b'}') || matches!(byte, b'"' | b'#' | b'\'' | b'/' | b'`');
    let mut passed = bytes.len().min(NEAR);
    if let Some(at) = bytes[..passed].iter().position(is_mark) {
        return Some(at);
    }
    for stride in bytes[passed..].chunks_exact(STRIDE) {
        // No early exit: so the compiler makes vector instructions of it.
        if stride.iter().fold(false, |found, byte| found | is_mark(byte)) {
            break;
        }
        passed += STRIDE;
    }
    bytes[passed..].iter().position(is_mark).map(|at| passed + at)
}

#[cfg(test)]
#[path = "json_scanner_tests.rs"]
mod tests;
