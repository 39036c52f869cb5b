//! Sends a response over HTTP/1.1: its head, and its body with a length or in chunks.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING};
use http::{Response, StatusCode};
use http_body::Body;
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use tokio::io::AsyncWrite;
use tokio::time::Instant;

use super::head::{add_line, parse_content_length};
use crate::gateway::bounds::{COPIED_PIECE, GATHERED_RESPONSE};
use crate::gateway::spare_memory;
use crate::pause_clock;

/// Bytes of a head, with a short body, that need no second allocation.
const USUAL_RESPONSE: usize = 1024;

/// How the rest of a body is framed (RFC 9112, section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SentFraming {
    /// This many bytes are left.
    Length(u64),
    Chunked,
}

/// A response that is being sent.
pub(super) struct ResponseSender<B> {
    /// `None` once its end is known, and all of it is in `buffer` and `piece`.
    body: Option<B>,
    framing: SentFraming,
    /// The head, short pieces of the body, and what frames them.
    buffer: Vec<u8>,
    /// How much of the buffer has been sent.
    sent: usize,
    /// A long piece, which follows the buffer.
    piece: Bytes,
    /// What follows the piece.
    after_piece: &'static [u8],
    is_last: bool,
}

impl<B: Body<Data = Bytes> + Unpin> ResponseSender<B>
where
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// Begins with the head. `is_last` says that the connection ends after the response, which the response may say too.
    pub(super) fn new(response: Response<B>, is_last: bool) -> Self {
        let (head, body) = response.into_parts();
        let has_body = !matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let is_empty = body.is_end_stream();
        // Compared and not looked up: to hash a name costs more than to pass the few names before it.
        let named_length = || head.headers.iter().find(|(name, _)| **name == CONTENT_LENGTH);
        let announced_length = || named_length().and_then(|(_, value)| parse_content_length(value.as_bytes()));
        let length = if is_empty { Some(0) } else { body.size_hint().exact().or_else(announced_length) };
        let framing = match length {
            _ if !has_body => SentFraming::Length(0),
            Some(length) => SentFraming::Length(length),
            None => SentFraming::Chunked,
        };
        let mut buffer = match framing {
            SentFraming::Length(_) => spare_memory::buffer(USUAL_RESPONSE),
            // A stream keeps its buffer for as long as it is open, and a spare one may be large.
            SentFraming::Chunked => Vec::with_capacity(USUAL_RESPONSE),
        };
        add_status(&mut buffer, head.status);
        let (mut has_date, mut is_last) = (false, is_last);
        for (name, value) in &head.headers {
            if *name == CONTENT_LENGTH || *name == TRANSFER_ENCODING {
                continue;
            }
            if *name == CONNECTION {
                is_last |= value.as_bytes().eq_ignore_ascii_case(b"close");
                continue;
            }
            has_date |= *name == DATE;
            add_line(&mut buffer, name.as_str().as_bytes(), value.as_bytes());
        }
        match framing {
            _ if !has_body => {}
            SentFraming::Length(length) => {
                add_line(&mut buffer, b"content-length", itoa::Buffer::new().format(length).as_bytes());
            }
            SentFraming::Chunked => add_line(&mut buffer, b"transfer-encoding", b"chunked"),
        }
        if is_last {
            add_line(&mut buffer, b"connection", b"close");
        }
        if !has_date {
            add_date(&mut buffer);
        }
        buffer.extend_from_slice(b"\r\n");
        spare_memory::keep_header_map(head.headers);
        let body = (has_body && !is_empty).then_some(body);
        Self { body, framing, buffer, sent: 0, piece: Bytes::new(), after_piece: b"", is_last }
    }

    /// Whether the connection ends after the response.
    pub(super) fn is_last(&self) -> bool {
        self.is_last
    }

    /// Sends what there is of the response. Ready once the whole response is out.
    ///
    /// # Errors
    /// The body's, or the connection's. The client cannot know where the response ends then.
    pub(super) fn poll_send(
        &mut self,
        context: &mut Context<'_>,
        wire: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        loop {
            let has_more = self.poll_fill(context)?.is_ready();
            ready!(self.poll_write(context, wire))?;
            // Also when nothing is there to be sent: the wire notices then that the client leaves.
            if self.body.is_none() || !has_more {
                ready!(Pin::new(&mut *wire).poll_flush(context))?;
                if self.body.is_some() {
                    return Poll::Pending;
                }
                spare_memory::keep_buffer(std::mem::take(&mut self.buffer));
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Takes from the body what there is, up to [`GATHERED_RESPONSE`]. Pending if it may have more later.
    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.piece.is_empty() && self.buffer.len() < GATHERED_RESPONSE {
            let Some(body) = &mut self.body else { break };
            match ready!(Pin::new(&mut *body).poll_frame(context)) {
                // Trailers are not passed on.
                Some(Ok(frame)) => {
                    let has_ended = body.is_end_stream();
                    if let Ok(data) = frame.into_data() {
                        self.add(data);
                    }
                    // At once: the end goes out with the last piece, and what the body holds is not held by a slow client.
                    if has_ended {
                        self.end()?;
                    }
                }
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => self.end()?,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn add(&mut self, mut data: Bytes) {
        match &mut self.framing {
            SentFraming::Length(left) => {
                data.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= data.len() as u64;
                self.add_data(data, b"");
            }
            // An empty chunk would be the end.
            SentFraming::Chunked if data.is_empty() => {}
            SentFraming::Chunked => {
                add_chunk_size(&mut self.buffer, data.len());
                self.add_data(data, b"\r\n");
            }
        }
    }

    fn add_data(&mut self, data: Bytes, after: &'static [u8]) {
        if data.len() <= COPIED_PIECE {
            self.buffer.extend_from_slice(&data);
            self.buffer.extend_from_slice(after);
        } else {
            (self.piece, self.after_piece) = (data, after);
        }
    }

    fn end(&mut self) -> io::Result<()> {
        self.body = None;
        match self.framing {
            SentFraming::Length(0) => {}
            SentFraming::Length(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
            SentFraming::Chunked if self.piece.is_empty() => self.buffer.extend_from_slice(b"0\r\n\r\n"),
            SentFraming::Chunked => self.after_piece = b"\r\n0\r\n\r\n",
        }
        Ok(())
    }

    /// Sends the buffer and the piece after it.
    fn poll_write(&mut self, context: &mut Context<'_>, wire: &mut (impl AsyncWrite + Unpin)) -> Poll<io::Result<()>> {
        loop {
            let buffered = &self.buffer[self.sent..];
            if buffered.is_empty() && self.piece.is_empty() {
                self.sent = 0;
                self.buffer.clear();
                self.buffer.extend_from_slice(std::mem::take(&mut self.after_piece));
                if self.buffer.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            let pieces = [IoSlice::new(buffered), IoSlice::new(&self.piece), IoSlice::new(self.after_piece)];
            let mut written = ready!(Pin::new(&mut *wire).poll_write_vectored(context, &pieces))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_buffer = written.min(buffered.len());
            self.sent += of_buffer;
            written -= of_buffer;
            let of_piece = written.min(self.piece.len());
            self.piece.advance(of_piece);
            self.after_piece = self.after_piece.get(written - of_piece..).unwrap_or_default();
        }
    }
}

fn add_status(head: &mut Vec<u8>, status: StatusCode) {
    if status == StatusCode::OK {
        return head.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    }
    for part in ["HTTP/1.1 ", status.as_str(), " ", status.canonical_reason().unwrap_or("<none>"), "\r\n"] {
        head.extend_from_slice(part.as_bytes());
    }
}

fn add_chunk_size(buffer: &mut Vec<u8>, size: usize) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let digits = (usize::BITS - size.leading_zeros()).div_ceil(4);
    buffer.extend((0..digits).rev().map(|at| DIGITS[size >> (4 * at) & 0xF]));
    buffer.extend_from_slice(b"\r\n");
}

/// Adds the time, as each response has it (RFC 9110, section 6.6.1). Its line is written once a second.
fn add_date(head: &mut Vec<u8>) {
    thread_local! {
        static WRITTEN: RefCell<(Option<Instant>, Vec<u8>)> = const { RefCell::new((None, Vec::new())) };
    }
    let now = pause_clock::kernel_now();
    WRITTEN.with_borrow_mut(|(end_of_second, line)| {
        if end_of_second.is_none_or(|end| end <= now) {
            let time = Timestamp::now();
            line.clear();
            if let Ok(text) = DateTimePrinter::new().timestamp_to_rfc9110_string(&time) {
                add_line(line, b"date", text.as_bytes());
            }
            let passed = Duration::from_nanos(time.subsec_nanosecond().unsigned_abs().into());
            *end_of_second = Some(now + Duration::from_secs(1).saturating_sub(passed));
        }
        head.extend_from_slice(line);
    });
}

#[cfg(test)]
#[path = "response_sender_tests.rs"]
mod tests;
