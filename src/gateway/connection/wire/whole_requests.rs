//! Requests that arrive whole, or whose body comes right after the head, which need no reader that waits longer for it.
//!
//! The wait is for [`PROMPT_BODY`] at most, so that hyper, which hands a head over before its body, still has it refused
//! before the body is read. What is left to hyper, with the rest of its connection: a head that arrives in parts, a body
//! that is late or chunked, more than [`WHOLE_REQUEST`] bytes or [`WHOLE_REQUEST_HEADERS`] header lines, and what
//! `read_request` leaves alone.

use std::io;
use std::mem::MaybeUninit;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::request_buffer::RequestBuffer;
use super::{ReadState, WireStream};
use crate::gateway::bounds::{PROMPT_BODY, WHOLE_REQUEST, WHOLE_REQUEST_HEADERS};
use crate::gateway::connection::head::request::{asks_for_more, read_request, usual_request_line};
use crate::gateway::connection::head::{Framing, HeadLimits, HeadScanner, HeaderLine};

/// What a client sends next.
#[expect(
    clippy::large_enum_variant,
    reason = "made once for each request and taken apart at once; a box would cost more"
)]
pub(in crate::gateway::connection) enum NextRequest {
    /// A request of which nothing is missing, and which asks for no more than a response.
    Whole(Request<Bytes>),
    /// Anything else, of which nothing has been passed on.
    Other,
    /// Nothing more.
    End,
}

/// What the bytes from a client begin with.
#[expect(
    clippy::large_enum_variant,
    reason = "made once for each request and taken apart at once; a box would cost more"
)]
enum FoundRequest {
    /// A whole request, and its length in bytes.
    Whole(Request<Bytes>, usize),
    /// The head of a request that is this long in bytes, and at most a part of its body.
    Begun(usize),
    /// Anything else.
    Other,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WireStream<S> {
    /// Waits for what the client sends after the last response, or at the beginning.
    ///
    /// # Errors
    /// The system's.
    pub(in crate::gateway::connection) fn poll_request(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<NextRequest>> {
        loop {
            let found = match self.read_state {
                ReadState::Head(_) if self.is_responding => return Poll::Ready(Ok(NextRequest::Other)),
                ReadState::Head(_) if self.read_ahead.is_empty() => match ready!(self.poll_begin(context))? {
                    Some(found) => found,
                    None => return Poll::Ready(Ok(NextRequest::End)),
                },
                ReadState::Head(_) => self.find_read_ahead(),
                ReadState::Rest(length) => {
                    let is_whole = ready!(self.poll_rest(context, length))?;
                    self.read_state = ReadState::Head(HeadScanner::default());
                    if is_whole { self.find_read_ahead() } else { FoundRequest::Other }
                }
                ReadState::Done => return Poll::Ready(Ok(NextRequest::End)),
                _ => return Poll::Ready(Ok(NextRequest::Other)),
            };
            match found {
                FoundRequest::Whole(request, _) => {
                    self.begin_request();
                    return Poll::Ready(Ok(NextRequest::Whole(request)));
                }
                FoundRequest::Begun(length) => {
                    self.read_timer.start(PROMPT_BODY);
                    self.read_state = ReadState::Rest(length);
                }
                FoundRequest::Other => return Poll::Ready(Ok(NextRequest::Other)),
            }
        }
    }

    /// Whether the head of a request has arrived whose body is awaited.
    pub(in crate::gateway::connection) fn awaits_body(&self) -> bool {
        matches!(self.read_state, ReadState::Rest(_))
    }

    /// Waits for the first bytes of a request. What is not a whole request is read ahead. Returns `None` if there will be
    /// none.
    fn poll_begin(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Option<FoundRequest>>> {
        let mut storage = [const { MaybeUninit::uninit() }; WHOLE_REQUEST];
        let mut buffer = ReadBuf::uninit(&mut storage);
        // What is read ahead has the same bound as in `poll_head`.
        let limit = WHOLE_REQUEST.min(self.limits.head.size());
        let Poll::Ready(received) = self.poll_socket(context, &mut buffer, limit)? else {
            return self.poll_head_timeout(context, false).map(|()| Ok(None));
        };
        if received.is_empty() {
            self.mark_client_gone();
            return Poll::Ready(Ok(None));
        }
        let found = find_request(buffer.filled(), &self.limits.head, &mut self.request_buffer);
        let taken = if let FoundRequest::Whole(_, length) = &found { *length } else { 0 };
        self.read_ahead.take_back(&mut buffer, taken);
        if matches!(found, FoundRequest::Other) {
            self.start_head_time();
        }
        Poll::Ready(Ok(Some(found)))
    }

    /// Finds what has been read ahead, and takes a whole request out of it.
    fn find_read_ahead(&mut self) -> FoundRequest {
        let found = find_request(self.read_ahead.bytes(), &self.limits.head, &mut self.request_buffer);
        if let FoundRequest::Whole(_, length) = &found {
            self.read_ahead.consume(*length);
        }
        found
    }

    /// Waits until the first `length` bytes of a request have been read ahead. Returns false if they are late, or will never
    /// come.
    fn poll_rest(&mut self, context: &mut Context<'_>, length: usize) -> Poll<io::Result<bool>> {
        while self.read_ahead.len() < length {
            self.socket.set_limit((length - self.read_ahead.len()) as u64);
            match self.read_ahead.poll_fill(context, &mut self.socket, length)? {
                Poll::Ready(0) => return Poll::Ready(Ok(false)),
                Poll::Ready(_) => {}
                Poll::Pending => return self.read_timer.poll(context).map(|()| Ok(false)),
            }
        }
        Poll::Ready(Ok(true))
    }
}

/// Returns the whole request that these bytes begin with, and its length, for fuzzing.
#[cfg(feature = "test-support")]
pub(crate) fn whole_request(bytes: &[u8], limits: &HeadLimits) -> Option<(Request<Bytes>, usize)> {
    match find_request(bytes, limits, &mut RequestBuffer::default()) {
        FoundRequest::Whole(request, length) => Some((request, length)),
        FoundRequest::Begun(_) | FoundRequest::Other => None,
    }
}

fn find_request(bytes: &[u8], limits: &HeadLimits, buffer: &mut RequestBuffer) -> FoundRequest {
    let Some(request_line) = usual_request_line(bytes) else { return FoundRequest::Other };
    let mut lines = [HeaderLine::default(); WHOLE_REQUEST_HEADERS];
    let mut count = 0;
    let note = |line| {
        if let Some(place) = lines.get_mut(count) {
            *place = line;
        }
        count += 1;
    };
    // What is malformed is found again by those who answer it.
    let Ok(Some(head)) = HeadScanner::default().advance_and_note(bytes, limits, note) else {
        return FoundRequest::Other;
    };
    let Some(lines) = lines.get(..count) else { return FoundRequest::Other };
    let body = match head.framing {
        Framing::None => 0,
        Framing::Length(length) => usize::try_from(length).unwrap_or(usize::MAX),
        Framing::Chunked => return FoundRequest::Other,
    };
    let length = head.length.saturating_add(body);
    if head.has_upgrade || length > bytes.len().max(WHOLE_REQUEST) || asks_for_more(bytes, lines) {
        return FoundRequest::Other;
    }
    let Some(whole) = bytes.get(..length) else { return FoundRequest::Begun(length) };
    match read_request(&buffer.copy(whole), head.length, request_line, lines) {
        Some(request) => FoundRequest::Whole(request, length),
        None => FoundRequest::Other,
    }
}
