//! The name of the model in an answer: that which the client asked for, whatever the backend calls it.
//!
//! An answer is one JSON object or a stream of events whose data are such; the name stands in `model`, at the top or in
//! `response` or `message`, and nowhere else: what the model says is never touched. Bytes pass as they come, and none are
//! held back: the client's name goes out where the value of `model` begins, and that value is passed over.

use super::forward::form_of;
use super::record::Form;
use super::rewrite::quoted;
use super::walk::{JsonScanner, JsonStep};
use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http_body::{Body, Frame, SizeHint};
use memchr::memchr;
use std::collections::VecDeque;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// How a line with data of an event begins.
const DATA: &[u8] = b"data:";

/// The longest name of a member that matters, as it may be written: `response` in escapes.
const LONGEST_NAME: usize = "response".len() * "\\u0000".len();

/// Puts the client's name of the model into one answer.
#[derive(Debug)]
pub(super) struct Renamer {
    /// It, as JSON.
    name: Bytes,
    scanner: JsonScanner<LONGEST_NAME>,
    member: Member,
    /// Whether what comes next is the rest of a value that it stands for.
    in_value: bool,
    /// Of a stream: where in a line the reader stands.
    line: Option<Line>,
}

/// A member by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Member {
    Model,
    /// `response` or `message` at the top.
    Wrapper,
    Other,
}

/// Where in a line the reader stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// So many bytes of [`DATA`] have been there.
    Name(usize),
    Data,
    Other,
}

impl Renamer {
    /// For the answer with these headers to a client that asked for the model by this name. None if it cannot be read.
    /// Otherwise the answer's length may change, so Content-Length is removed.
    pub(super) fn prepare(headers: &mut HeaderMap, name: &str) -> Option<Self> {
        let form = form_of(headers);
        if form == Form::Other || headers.contains_key(CONTENT_ENCODING) {
            return None;
        }
        headers.remove(CONTENT_LENGTH);
        Some(Self::new(name, form == Form::Stream))
    }

    fn new(name: &str, is_stream: bool) -> Self {
        Self {
            name: quoted(name).into(),
            scanner: JsonScanner::of_object(),
            member: Member::Other,
            in_value: false,
            line: is_stream.then_some(Line::Name(0)),
        }
    }

    /// Takes a piece as it came and pushes to `ready` what goes out in its place.
    pub(super) fn take(&mut self, piece: &Bytes, ready: &mut VecDeque<Bytes>) {
        let mut out = Out { piece, passed: 0, ready };
        match self.line {
            None => self.read(0..piece.len(), &mut out),
            Some(line) => self.read_lines(line, &mut out),
        }
        if !self.in_value {
            out.pass_to(piece.len());
        }
    }

    fn read_lines(&mut self, mut line: Line, out: &mut Out<'_>) {
        let mut at = 0;
        while let Some(&byte) = out.piece.get(at) {
            line = match line {
                Line::Name(matched) => {
                    at += 1;
                    match byte {
                        b'\n' => {
                            if matched == 0 {
                                // The event is over.
                                self.scanner = JsonScanner::of_object();
                            }
                            Line::Name(0)
                        }
                        b'\r' if matched == 0 => Line::Name(0),
                        byte if byte != DATA[matched] => Line::Other,
                        _ if matched + 1 == DATA.len() => Line::Data,
                        _ => Line::Name(matched + 1),
                    }
                }
                Line::Data | Line::Other => {
                    let end = memchr(b'\n', &out.piece[at..]).map(|length| at + length);
                    if line == Line::Data {
                        self.read(at..end.unwrap_or(out.piece.len()), out);
                    }
                    let Some(end) = end else { break };
                    // No string goes on in the next line.
                    self.end_value(end, out);
                    at = end + 1;
                    Line::Name(0)
                }
            };
        }
        self.line = Some(line);
    }

    /// Reads a part of the piece that is JSON.
    fn read(&mut self, part: Range<usize>, out: &mut Out<'_>) {
        let mut at = part.start;
        while at < part.end {
            let (used, step) = self.scanner.step(&out.piece[at..part.end]);
            at += used;
            match step {
                Some(JsonStep::Name) => {
                    self.member = match (self.scanner.level(), self.scanner.name().as_deref()) {
                        (_, Some("model")) => Member::Model,
                        (1, Some("response" | "message")) => Member::Wrapper,
                        _ => Member::Other,
                    };
                }
                Some(JsonStep::Begins(b'"')) if self.member == Member::Model => {
                    let begin = at - 1;
                    // The right name divides no piece.
                    if !out.piece[begin..part.end].starts_with(&self.name) {
                        out.pass_to(begin);
                        out.ready.push_back(self.name.clone());
                        self.in_value = true;
                    }
                }
                Some(JsonStep::Begins(b'{')) if self.member == Member::Wrapper => self.scanner.enter(),
                Some(JsonStep::Ends) => self.end_value(at, out),
                _ => {}
            }
        }
    }

    /// A value that the name stands for has ended here, if there was one.
    fn end_value(&mut self, end: usize, out: &mut Out<'_>) {
        if std::mem::take(&mut self.in_value) {
            out.passed = end;
        }
    }
}

/// The piece that is being read, and what has become of it.
struct Out<'a> {
    piece: &'a Bytes,
    /// So much of it has been passed on, or something in its place.
    passed: usize,
    ready: &'a mut VecDeque<Bytes>,
}

impl Out<'_> {
    fn pass_to(&mut self, end: usize) {
        if self.passed < end {
            self.ready.push_back(self.piece.slice(self.passed..end));
            self.passed = end;
        }
    }
}

/// A body in which the model is renamed, or one that passes as it is.
#[derive(Debug)]
pub(super) struct Renamed<B> {
    body: B,
    renamer: Option<Renamer>,
    ready: VecDeque<Bytes>,
}

impl<B> Renamed<B> {
    /// The body of an answer, with what [`Renamer::prepare`] has made of its head.
    pub(super) fn new(body: B, renamer: Option<Renamer>) -> Self {
        Self { body, renamer, ready: VecDeque::new() }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Renamed<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        loop {
            if let Some(piece) = this.ready.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            let next = ready!(Pin::new(&mut this.body).poll_frame(context));
            let piece = next.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
            let (Some(renamer), Some(piece)) = (&mut this.renamer, piece) else { return Poll::Ready(next) };
            renamer.take(piece, &mut this.ready);
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ready.is_empty() && self.body.is_end_stream()
    }

    /// Of a body in which something is renamed nobody knows the length.
    fn size_hint(&self) -> SizeHint {
        if self.renamer.is_some() { SizeHint::default() } else { self.body.size_hint() }
    }
}

/// What becomes of an answer in these pieces. For tests and fuzzing.
#[cfg(any(test, feature = "test-support"))]
pub(crate) fn renamed(pieces: &[&[u8]], name: &str, is_stream: bool) -> Vec<u8> {
    let (mut renamer, mut ready) = (Renamer::new(name, is_stream), VecDeque::new());
    for piece in pieces {
        renamer.take(&Bytes::copy_from_slice(piece), &mut ready);
    }
    ready.into_iter().flatten().collect()
}

#[cfg(test)]
#[path = "rename_tests.rs"]
mod tests;
