//! A request's body as its readers and editors see it: where its members stand, and the bytes between two places.

use super::body::RequestBody;
use bytes::Bytes;
use std::ops::Range;

/// A member of a JSON object, or a part of a multipart form.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BodyMember {
    /// Its name; none if that is not text, or longer than any name that matters.
    pub(super) name: Option<Box<str>>,
    /// Where it stands: a member without the space and commas around it, a part with the boundary line before it.
    pub(super) whole: Range<usize>,
    /// Where its value stands, the quotes of a string included.
    pub(super) value: Range<usize>,
    /// The first byte of a JSON value.
    pub(super) first: u8,
}

impl BodyMember {
    /// Whether any backend would take it for the name of the model.
    pub(super) fn is_model(&self) -> bool {
        self.name.as_ref().is_some_and(|name| name.eq_ignore_ascii_case("model"))
    }

    /// Whether this is its name.
    pub(super) fn is_named(&self, name: &str) -> bool {
        self.name.as_deref() == Some(name)
    }

    /// Whether its value is `null`.
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

/// Copies the bytes in this range of a body into one piece. For short ranges.
pub(super) fn gather(body: &RequestBody, range: Range<usize>) -> Vec<u8> {
    slices(body, range).flatten().collect()
}
