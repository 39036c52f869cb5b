//! The name of the model in an answer: that which the client asked for, where the backend knows it by another.
//!
//! An answer is one JSON object or a stream of events whose data are such; the name stands in `model`, at the top or in
//! `response` or `message`, and nowhere else: what the model says is never touched. Bytes pass as they come. Held back is
//! only the value of `model` while it may still be the backend's name, which is not longer than that.

use super::forward::form_of;
use super::record::Form;
use super::rewrite::quoted;
use super::walk::{Step, Walk, text};
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

/// A byte of a name is written with six at most, as in `\u0041`.
const LONGEST_BYTE: usize = 6;

/// Puts one name in place of another in one answer.
#[derive(Debug)]
pub(super) struct Renamer {
    /// What the backend calls the model.
    theirs: Box<str>,
    /// What stands in its place, as JSON.
    ours: Bytes,
    walk: Walk,
    member: Member,
    /// The value of `model` so far, without what has come of it in the current piece.
    held: Option<Vec<u8>>,
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
    /// For the answer with these headers of a backend that calls the model `theirs`, to a client that asked for `ours`.
    /// None if there is nothing to rename, or it cannot be read. Otherwise the answer's length changes, so
    /// Content-Length is removed.
    pub(super) fn prepare(headers: &mut HeaderMap, theirs: &str, ours: &str) -> Option<Self> {
        let form = form_of(headers);
        if theirs == ours || form == Form::Other || headers.contains_key(CONTENT_ENCODING) {
            return None;
        }
        headers.remove(CONTENT_LENGTH);
        Some(Self::new(theirs, ours, form == Form::Stream))
    }

    fn new(theirs: &str, ours: &str, is_stream: bool) -> Self {
        Self {
            theirs: theirs.into(),
            ours: quoted(ours).into(),
            walk: Walk::new(),
            member: Member::Other,
            held: None,
            line: is_stream.then_some(Line::Name(0)),
        }
    }

    /// Takes a piece as it came and pushes to `ready` what may go out.
    pub(super) fn take(&mut self, piece: &Bytes, ready: &mut VecDeque<Bytes>) {
        let mut out = Out { piece, passed: 0, ready };
        // A value that began in another piece goes on at the beginning of this one.
        let mut begin = 0;
        match self.line {
            None => self.read(0..piece.len(), &mut begin, &mut out),
            Some(line) => self.read_lines(line, &mut begin, &mut out),
        }
        if let Some(held) = &mut self.held {
            out.pass_to(begin);
            held.extend_from_slice(&piece[begin..]);
            out.passed = piece.len();
            if held.len() > LONGEST_BYTE * self.theirs.len() + 2 {
                out.ready.extend(self.held.take().map(Bytes::from));
            }
        }
        out.pass_to(piece.len());
    }

    /// What is held when the body has ended; it belongs to the client.
    pub(super) fn rest(&mut self, ready: &mut VecDeque<Bytes>) {
        ready.extend(self.held.take().map(Bytes::from));
    }

    fn read_lines(&mut self, mut line: Line, begin: &mut usize, out: &mut Out<'_>) {
        let mut at = 0;
        while let Some(&byte) = out.piece.get(at) {
            line = match line {
                Line::Name(matched) => {
                    at += 1;
                    match byte {
                        b'\n' => {
                            if matched == 0 {
                                // The event is over.
                                self.walk = Walk::new();
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
                        self.read(at..end.unwrap_or(out.piece.len()), begin, out);
                    }
                    let Some(end) = end else { break };
                    // No string goes on in the next line.
                    self.give_up(out);
                    at = end + 1;
                    Line::Name(0)
                }
            };
        }
        self.line = Some(line);
    }

    /// Reads a part of the piece that is JSON.
    fn read(&mut self, part: Range<usize>, begin: &mut usize, out: &mut Out<'_>) {
        let mut at = part.start;
        while at < part.end {
            let (used, step) = self.walk.step(&out.piece[at..part.end]);
            at += used;
            match step {
                Some(Step::Name) => {
                    self.member = match (self.walk.level(), self.walk.name().as_deref()) {
                        (_, Some("model")) => Member::Model,
                        (1, Some("response" | "message")) => Member::Wrapper,
                        _ => Member::Other,
                    };
                }
                Some(Step::Begins(b'"')) if self.member == Member::Model => {
                    *begin = at - 1;
                    self.held = Some(Vec::new());
                }
                Some(Step::Begins(b'{')) if self.member == Member::Wrapper => self.walk.enter(),
                Some(Step::Ends) => self.end_value(*begin, at, out),
                _ => {}
            }
        }
    }

    /// The value of `model` is complete, if it was one that ended here.
    fn end_value(&mut self, begin: usize, end: usize, out: &mut Out<'_>) {
        let Some(mut held) = self.held.take() else { return };
        let was_held = !held.is_empty();
        let here = &out.piece[begin..end];
        let value = if was_held {
            held.extend_from_slice(here);
            &held
        } else {
            here
        };
        if text(&value[1..value.len() - 1]).is_some_and(|name| *name == *self.theirs) {
            out.pass_to(begin);
            out.ready.push_back(self.ours.clone());
            out.passed = end;
        } else if was_held {
            out.ready.push_back(held.into());
            out.passed = end;
        }
    }

    /// What is held is no value after all. Only what came before this piece is not in it.
    fn give_up(&mut self, out: &mut Out<'_>) {
        out.ready.extend(self.held.take().filter(|held| !held.is_empty()).map(Bytes::from));
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

/// A body in which the model is renamed, or one that passes as it is. Errors and trailers come after what is held.
#[derive(Debug)]
pub(super) struct Renamed<B: Body> {
    body: B,
    renamer: Option<Renamer>,
    ready: VecDeque<Bytes>,
    /// What ends the body, behind what is ready.
    last: Option<Result<Frame<Bytes>, B::Error>>,
    over: bool,
}

impl<B: Body> Renamed<B> {
    /// The body of an answer, with what [`Renamer::prepare`] has made of its head.
    pub(super) fn new(body: B, renamer: Option<Renamer>) -> Self {
        Self { body, renamer, ready: VecDeque::new(), last: None, over: false }
    }
}

impl<B: Body<Data = Bytes, Error: Unpin> + Unpin> Body for Renamed<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        loop {
            if let Some(piece) = this.ready.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            if this.last.is_some() || this.over {
                return Poll::Ready(this.last.take());
            }
            let Some(renamer) = &mut this.renamer else { return Pin::new(&mut this.body).poll_frame(context) };
            let next = ready!(Pin::new(&mut this.body).poll_frame(context));
            if let Some(piece) = next.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()) {
                renamer.take(piece, &mut this.ready);
            } else {
                renamer.rest(&mut this.ready);
                this.over = next.is_none();
                this.last = next;
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let holds = self.renamer.as_ref().is_some_and(|renamer| renamer.held.is_some());
        self.ready.is_empty() && self.last.is_none() && !holds && (self.over || self.body.is_end_stream())
    }

    /// Of a body in which something is renamed nobody knows the length.
    fn size_hint(&self) -> SizeHint {
        if self.renamer.is_some() { SizeHint::default() } else { self.body.size_hint() }
    }
}

/// What becomes of an answer in these pieces. For tests and fuzzing.
#[cfg(any(test, feature = "test-support"))]
pub(crate) fn renamed(pieces: &[&[u8]], theirs: &str, ours: &str, is_stream: bool) -> Vec<u8> {
    let (mut renamer, mut ready) = (Renamer::new(theirs, ours, is_stream), VecDeque::new());
    for piece in pieces {
        renamer.take(&Bytes::copy_from_slice(piece), &mut ready);
    }
    renamer.rest(&mut ready);
    ready.into_iter().flatten().collect()
}

#[cfg(test)]
#[path = "rename_tests.rs"]
mod tests;
