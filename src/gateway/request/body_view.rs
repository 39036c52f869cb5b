//! A request's body as its readers and editors see it: the positions of its members, and the bytes in a range.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;

use super::body::RequestBody;
use crate::gateway::bounds::NUMBER_LENGTH;
use crate::gateway::connection::head::parse_digits;

/// Names that most requests have, the most usual ones first. They are not copied, nor checked for being text.
const USUAL_NAMES: [&str; 13] = [
    "model",
    "messages",
    "stream",
    "max_tokens",
    "temperature",
    "user",
    "stream_options",
    "tools",
    "top_p",
    "input",
    "prompt",
    "stop",
    "seed",
];

/// Returns a name of a member, apart from the request; `None` if it is no text.
pub(super) fn member_name(name: &[u8]) -> Option<Cow<'static, str>> {
    match USUAL_NAMES.iter().find(|usual| usual.as_bytes() == name) {
        Some(usual) => Some(Cow::Borrowed(*usual)),
        None => str::from_utf8(name).ok().map(|name| Cow::Owned(name.to_owned())),
    }
}

/// Most digits of a number that is read without a parser: a `u32` holds any of them.
const SHORT_NUMBER: usize = 9;

/// A member of a JSON object, or a part of a multipart form.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BodyMember {
    /// The name; `None` if it is not text, or longer than [`MEMBER_NAME`](crate::gateway::bounds::MEMBER_NAME).
    pub(super) name: Option<Cow<'static, str>>,
    /// The byte range of a member without the space and commas around it, or of a part with the boundary line before
    /// it.
    pub(super) whole: Range<usize>,
    /// The byte range of the value, including the quotes of a string.
    pub(super) value: Range<usize>,
    /// The first byte of a JSON value.
    pub(super) first: u8,
}

impl BodyMember {
    /// Returns whether any backend would take this member for the name of the model. Go's JSON decoder ignores case.
    pub(super) fn is_model(&self) -> bool {
        self.name.as_ref().is_some_and(|name| name.eq_ignore_ascii_case("model"))
    }

    /// Returns whether the member has this name.
    pub(super) fn is_named(&self, name: &str) -> bool {
        self.name.as_deref() == Some(name)
    }

    /// Returns whether the value is `null`.
    pub(super) fn is_null(&self) -> bool {
        self.first == b'n'
    }
}

/// Returns the bytes in this range of a body, in pieces that share its memory.
pub(super) fn slices(body: &RequestBody, range: Range<usize>) -> impl Iterator<Item = Bytes> {
    let mut begin = 0;
    body.pieces().filter_map(move |piece| {
        let at = begin;
        begin += piece.len();
        let (start, end) = (range.start.max(at), range.end.min(begin));
        (start < end).then(|| piece.slice(start - at..end - at))
    })
}

/// Returns the number in this range of a body; `None` if there is none, or one that is infinite or longer than
/// [`NUMBER_LENGTH`].
pub(super) fn number_in(body: &RequestBody, range: &Range<usize>) -> Option<f64> {
    if range.len() > NUMBER_LENGTH {
        return None;
    }
    let text = bytes_in(body, range.clone());
    short_number(&text).or_else(|| serde_json::from_slice(&text).ok())
}

/// Returns a number that is written with a few digits and nothing else, as most are: a parser of any number costs more.
fn short_number(text: &[u8]) -> Option<f64> {
    let is_short = matches!(text, [b'0'..=b'9'] | [b'1'..=b'9', ..]) && text.len() <= SHORT_NUMBER;
    let number = if is_short { parse_digits(text)? } else { return None };
    u32::try_from(number).ok().map(f64::from)
}

/// Returns the bytes in this range of a body. They are copied only if they are not in its first piece, which nearly always
/// is all of it. For short ranges only.
pub(super) fn bytes_in(body: &RequestBody, range: Range<usize>) -> Cow<'_, [u8]> {
    match body.pieces().next().and_then(|first| first.get(range.clone())) {
        Some(bytes) => Cow::Borrowed(bytes),
        None => Cow::Owned(gather(body, range)),
    }
}

/// Returns a copy of the bytes in this range of a body. For short ranges only.
pub(super) fn gather(body: &RequestBody, range: Range<usize>) -> Vec<u8> {
    let mut gathered = Vec::with_capacity(range.len());
    slices(body, range).for_each(|slice| gathered.extend_from_slice(&slice));
    gathered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_number_is_read_as_the_parser_reads_it() {
        for text in ["0", "7", "10", "999999999", "123456789"] {
            assert_eq!(short_number(text.as_bytes()), serde_json::from_str::<f64>(text).ok(), "{text}");
        }
        for text in ["", "00", "01", "-1", "1.0", "1e3", "1 ", "9a", "1234567890", "true"] {
            assert_eq!(short_number(text.as_bytes()), None, "{text}");
        }
    }
}
