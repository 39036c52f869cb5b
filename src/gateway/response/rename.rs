//! Replaces the backend's name of the model in a response by the name that the client asked for.
//!
//! A response is one JSON object, or a stream of events whose data are JSON objects. The name is the value of `model`
//! at the top level, or in `response` or `message` there, and nowhere else: the model's own text is never changed.
//! Bytes are passed on at once, and none are held back: the client's name is sent where the value of `model` begins,
//! and that value is skipped.

use std::collections::VecDeque;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http_body::{Body, Frame, SizeHint};

use super::stream::piece_splicer::{PieceSplicer, joined};
use crate::gateway::bounds::JOINED_PIECES;
use crate::gateway::content_kind::ContentKind;
use crate::gateway::request::rewrite::json_string;
use crate::gateway::scan::json_scanner::{JsonScanner, JsonStep, NextMember, WholeMember};
#[cfg(any(test, feature = "test-support"))]
use crate::gateway::scan::sse_framer::SseFramer;
use crate::gateway::scan::sse_framer::{SseField, SseLine, SseStep};

/// The longest member name that is compared, in bytes: `response`, if every character is written as an escape.
const LONGEST_NAME: usize = "response".len() * "\\u0000".len();

/// Puts the client's name of the model into one response.
#[derive(Debug)]
pub(crate) struct ModelRenamer {
    /// The client's name, as a JSON string.
    name: Bytes,
    scanner: JsonScanner<LONGEST_NAME>,
    /// The member whose name was read last.
    member: MemberKind,
    /// Whether the next bytes belong to a value that has been replaced.
    in_value: bool,
    /// Whether the response is a stream, whose steps are read instead of a body.
    is_stream: bool,
}

/// The kinds of members that are told apart by their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MemberKind {
    Model,
    /// `response` or `message` at the top level.
    Wrapper,
    Other,
}

impl ModelRenamer {
    /// Returns a renamer for the response with these headers, or `None` if its body cannot be read. Removes
    /// `Content-Length`, because renaming may change the length. `name` is the client's name of the model.
    pub(crate) fn prepare(headers: &mut HeaderMap, name: &str) -> Option<Self> {
        let kind = ContentKind::of(headers);
        if kind == ContentKind::Other || headers.contains_key(CONTENT_ENCODING) {
            return None;
        }
        headers.remove(CONTENT_LENGTH);
        Some(Self::new(name, kind == ContentKind::Stream))
    }

    fn new(name: &str, is_stream: bool) -> Self {
        Self {
            name: json_string(name).into(),
            scanner: JsonScanner::of_object(),
            member: MemberKind::Other,
            in_value: false,
            is_stream,
        }
    }

    /// Takes a piece of a response that is not a stream, and pushes what replaces it to `ready`.
    fn take(&mut self, piece: &Bytes, ready: &mut VecDeque<Bytes>) {
        let mut out = PieceSplicer::new(piece, ready);
        self.read(0..piece.len(), &mut out);
        out.pass_to(piece.len());
    }

    /// Takes the next step of a stream. `out` passes on the piece that contains the step.
    pub(super) fn take_step(&mut self, step: &SseStep<'_>, out: &mut PieceSplicer<'_>) {
        match step {
            SseStep::Line(line @ SseLine { field: SseField::Data, .. }) => {
                let end = line.offset + line.value.len();
                if line.begins {
                    // The data lines of one event are joined by line feeds (HTML standard, section 9.2.6).
                    self.scanner.step(b"\n");
                }
                self.read(line.offset..end, out);
                if line.ends {
                    // A JSON string cannot contain a line feed, so the value cannot continue in the next line.
                    self.end_value(end, out);
                }
            }
            SseStep::EventEnd(_) => self.scanner = JsonScanner::of_object(),
            SseStep::Line(_) | SseStep::LineFeed => {}
        }
    }

    /// Scans the JSON in this range of the piece.
    fn read(&mut self, part: Range<usize>, out: &mut PieceSplicer<'_>) {
        let mut at = part.start;
        while at < part.end {
            match self.scanner.member(out.bytes(at..part.end)) {
                Some(NextMember::Whole(WholeMember { name, value, used })) => {
                    at += used;
                    if name == b"model" && value.starts_with(b"\"") {
                        self.begin_value(at - value.len(), at, out);
                        self.end_value(at, out);
                    }
                    continue;
                }
                Some(NextMember::Begins { first, used }) => {
                    at += used;
                    self.member = self.member_read();
                    self.enter_wrapper(first);
                    continue;
                }
                None => {}
            }
            let (used, step) = self.scanner.step(out.bytes(at..part.end));
            at += used;
            match step {
                Some(JsonStep::Name) => self.member = self.member_read(),
                Some(JsonStep::Begins(b'"')) if self.member == MemberKind::Model => {
                    self.begin_value(at - 1, part.end, out);
                }
                Some(JsonStep::Begins(first)) => self.enter_wrapper(first),
                Some(JsonStep::Ends) => self.end_value(at, out),
                _ => {}
            }
        }
        if self.in_value {
            out.skip_to(part.end);
        }
    }

    /// Returns the kind of the member whose name the scanner has read.
    fn member_read(&self) -> MemberKind {
        match (self.scanner.level(), self.scanner.name_bytes().as_deref()) {
            (_, Some(b"model")) => MemberKind::Model,
            (1, Some(b"response" | b"message")) => MemberKind::Wrapper,
            _ => MemberKind::Other,
        }
    }

    /// Enters the object that begins with this byte, if the model may be named in it.
    fn enter_wrapper(&mut self, first: u8) {
        if first == b'{' && self.member == MemberKind::Wrapper {
            self.scanner.enter();
        }
    }

    /// Puts the client's name in the place of the string that begins at this offset, and is there up to `end`.
    fn begin_value(&mut self, begin: usize, end: usize, out: &mut PieceSplicer<'_>) {
        // If the name is right already, the piece need not be split.
        if !out.bytes(begin..end).starts_with(&self.name) {
            out.insert(begin, self.name.clone());
            self.in_value = true;
        }
    }

    /// Ends the replaced value at this offset, if there is one.
    fn end_value(&mut self, end: usize, out: &mut PieceSplicer<'_>) {
        if std::mem::take(&mut self.in_value) {
            out.skip_to(end);
        }
    }
}

/// A body in which the model is renamed, or one that is passed on as it is. In a stream the reader of this body renames
/// the model, because that reader finds the lines of the stream.
pub(crate) struct RenamedBody<B: Body> {
    body: B,
    renamer: Option<Box<ModelRenamer>>,
    ready: VecDeque<Bytes>,
    /// What follows the pieces in `ready`, if it has been read already.
    next: NextFrame<B>,
}

/// A frame of a body that has been read, or why there is none.
type NextFrame<B> = Option<Result<Frame<Bytes>, <B as Body>::Error>>;

impl<B: Body<Data = Bytes> + Unpin> RenamedBody<B> {
    /// Combines the body of a response with the renamer that [`ModelRenamer::prepare`] returned for its headers.
    pub(crate) fn new(body: B, renamer: Option<ModelRenamer>) -> Self {
        Self { body, renamer: renamer.map(Box::new), ready: VecDeque::new(), next: None }
    }

    /// Reads what has arrived of a short body, and renames the model in it. If that is all of it, its length is known, and it
    /// is one piece: it need not be sent in chunks.
    pub(super) fn read_what_is_there(&mut self) {
        let is_short = self.body.size_hint().upper().is_some_and(|length| length <= JOINED_PIECES as u64);
        if !is_short || self.renamer.as_ref().is_some_and(|renamer| renamer.is_stream) {
            return;
        }
        // Nothing is woken when more arrives: this body is polled again before it is waited for.
        let context = &mut Context::from_waker(Waker::noop());
        while self.next.is_none() && !self.body.is_end_stream() {
            let Poll::Ready(Some(next)) = Pin::new(&mut self.body).poll_frame(context) else { return };
            self.next = self.rename(next);
        }
        if self.next.is_none() && !self.ready.is_empty() {
            self.renamer = None;
            let pieces = self.ready.len();
            if pieces > 1 {
                let whole = joined(&mut self.ready, pieces);
                self.ready.push_back(whole);
            }
        }
    }

    /// Returns whether [`Self::read_what_is_there`] has read all of it.
    pub(super) fn is_whole(&self) -> bool {
        let is_piece = |next: &Result<Frame<Bytes>, B::Error>| next.as_ref().is_ok_and(Frame::is_data);
        let pieces = self.ready.len() + usize::from(self.next.as_ref().is_some_and(is_piece));
        pieces == 1 && self.body.is_end_stream() && (self.next.is_none() || self.ready.is_empty())
    }

    /// Takes the body that [is whole](Self::is_whole).
    pub(super) fn take_whole(&mut self) -> Option<Bytes> {
        let next = self.next.take().and_then(|next| next.ok()?.into_data().ok());
        next.or_else(|| self.ready.pop_front())
    }

    /// Takes the next frame of the body. Returns it if nothing is renamed in it.
    fn rename(&mut self, next: Result<Frame<Bytes>, B::Error>) -> NextFrame<B> {
        let piece = next.as_ref().ok().and_then(Frame::data_ref);
        let renamer = self.renamer.as_deref_mut().filter(|renamer| !renamer.is_stream);
        let (Some(renamer), Some(piece)) = (renamer, piece) else { return Some(next) };
        renamer.take(piece, &mut self.ready);
        None
    }

    /// Returns the renamer if the response is a stream, which this body does not change itself.
    pub(super) fn stream_renamer(&mut self) -> Option<&mut ModelRenamer> {
        self.renamer.as_deref_mut().filter(|renamer| renamer.is_stream)
    }
}

impl<B: Body<Data = Bytes, Error: Unpin> + Unpin> Body for RenamedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        loop {
            if let Some(piece) = this.ready.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            if let Some(next) = this.next.take() {
                return Poll::Ready(Some(next));
            }
            let Some(next) = ready!(Pin::new(&mut this.body).poll_frame(context)) else { return Poll::Ready(None) };
            if let Some(next) = this.rename(next) {
                return Poll::Ready(Some(next));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ready.is_empty() && self.next.is_none() && self.body.is_end_stream()
    }

    /// Returns the length only if nothing is left to be renamed; otherwise it is unknown.
    fn size_hint(&self) -> SizeHint {
        let read = self.ready.iter().chain(self.next.iter().filter_map(|next| next.as_ref().ok()?.data_ref()));
        let read: u64 = read.map(|piece| piece.len() as u64).sum();
        match (&self.renamer, self.body.size_hint().exact()) {
            (None, Some(left)) => SizeHint::with_exact(read + left),
            _ => SizeHint::default(),
        }
    }
}

#[cfg(any(test, feature = "test-support"))]
impl ModelRenamer {
    /// Takes a piece of any response.
    fn take_any(&mut self, piece: &Bytes, framer: &mut SseFramer, ready: &mut VecDeque<Bytes>) {
        if !self.is_stream {
            return self.take(piece, ready);
        }
        let (mut out, mut at) = (PieceSplicer::new(piece, ready), 0);
        while let Some(step) = framer.next(piece, &mut at) {
            self.take_step(&step, &mut out);
        }
        out.pass_to(piece.len());
    }
}

/// Returns a response in these pieces after renaming. For tests and fuzzing.
#[cfg(any(test, feature = "test-support"))]
pub(crate) fn rename_pieces(pieces: &[&[u8]], name: &str, is_stream: bool) -> Vec<u8> {
    let (mut renamer, mut ready) = (ModelRenamer::new(name, is_stream), VecDeque::new());
    let mut framer = SseFramer::new();
    for piece in pieces {
        renamer.take_any(&Bytes::copy_from_slice(piece), &mut framer, &mut ready);
    }
    ready.into_iter().flatten().collect()
}

#[cfg(test)]
#[path = "rename_tests.rs"]
mod tests;
