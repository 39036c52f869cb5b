//! The receiving side of the wire: what hyper gets of the bytes from the client.
//!
//! `heads.rs` waits for heads.

use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::heads::begins_preface;
use super::read_ahead::ReadAhead;
use super::{PREFACE, ReadState, WireLimits, WireStream};
use crate::gateway::bounds::CHUNKED_READ;
use crate::gateway::connection::handshake::begins_handshake;
use crate::gateway::connection::head::{self, Framing, HeadScanner};
use crate::refusal::Refusal;

impl<S: AsyncRead + AsyncWrite + Unpin> WireStream<S> {
    /// Waits until the first bytes say whether the client speaks HTTP/2. A connection without any counts as HTTP/1.1, whose
    /// reader then finds its end.
    ///
    /// # Errors
    /// The system's.
    pub(in crate::gateway::connection) async fn speaks_http2(&mut self) -> io::Result<bool> {
        poll_fn(|context| {
            let mut has_more = true;
            while has_more && matches!(self.read_state, ReadState::Start) {
                has_more = ready!(match self.read_ahead.is_empty() {
                    true => self.poll_first_bytes(context),
                    false => self.poll_start(context),
                })?;
            }
            Poll::Ready(Ok(matches!(self.read_state, ReadState::Http2)))
        })
        .await
    }

    /// Refuses whatever request the client sends first, and closes the connection. Its first bytes may say which request that
    /// is.
    ///
    /// # Errors
    /// The client leaves, or the system's.
    pub(in crate::gateway::connection) async fn refuse_connection(&mut self, refusal: &Refusal) -> io::Result<()> {
        if poll_fn(|context| self.poll_first_bytes(context)).await? {
            self.refuse_head(refusal);
        }
        poll_fn(|context| Pin::new(&mut *self).poll_shutdown(context)).await
    }

    /// Decides which version of HTTP the first bytes are, or waits for more of them. Returns false if there will be none.
    fn poll_start(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if begins_handshake(self.read_ahead.bytes()) {
            self.refuse_head(&Refusal::bad_request("this port speaks plain HTTP: the address must begin with http://"));
        } else if !begins_preface(self.read_ahead.bytes()) {
            self.read_state = ReadState::Head(HeadScanner::default());
        } else if self.read_ahead.len() >= PREFACE.len() {
            // `poll_http2` computes the next deadline each time; it must look at least once per `write_stall`, and in time
            // for a first request that ends early.
            let WireLimits { header_timeout, idle_timeout, write_stall, .. } = self.limits;
            self.read_timer.start(header_timeout.min(idle_timeout).min(write_stall));
            self.requests.time_ends();
            self.read_state = ReadState::Http2;
        } else {
            return self.poll_head(context);
        }
        Poll::Ready(Ok(true))
    }

    /// Reads until there are bytes for hyper. Ready with nothing added to `buffer` means the end of the stream.
    fn poll_next(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            match &mut self.read_state {
                ReadState::Start | ReadState::Head(_) if !self.is_responding && self.read_ahead.is_empty() => {
                    if ready!(self.poll_whole_head(context, buffer))? {
                        return Poll::Ready(Ok(()));
                    }
                }
                ReadState::Start => {
                    if !ready!(self.poll_start(context))? {
                        return Poll::Ready(Ok(()));
                    }
                }
                // A pipelined request waits: a refusal of its head must not be written into the current response.
                ReadState::Head(_) if self.is_responding => {
                    if !ready!(self.poll_read_ahead(context))? {
                        return Poll::Ready(Ok(()));
                    }
                }
                // The body did not come with the head: hyper reads both.
                ReadState::Rest(_) => self.read_state = ReadState::Head(HeadScanner::default()),
                ReadState::Excess(_) if self.is_responding => return self.poll_disconnect(context),
                ReadState::Excess(_) => {
                    // The response is out. The discarded bytes are missing, so no request can be found after them.
                    self.read_state = ReadState::Done;
                    self.has_stopped_reading = true;
                }
                ReadState::Head(scanner) => match scanner.advance(self.read_ahead.bytes(), &self.limits.head) {
                    Err(refusal) => {
                        self.refuse_head(&refusal);
                        return Poll::Ready(Ok(()));
                    }
                    Ok(Some(head)) => {
                        if head.has_upgrade {
                            head::hide_upgrade(self.read_ahead.prefix_mut(head.length));
                        }
                        self.begin_request();
                        self.read_state = ReadState::PassingHead(head.length, head.framing);
                    }
                    Ok(None) => {
                        if !ready!(self.poll_head(context))? {
                            return Poll::Ready(Ok(()));
                        }
                    }
                },
                ReadState::PassingHead(left, framing) => {
                    let count = pass_to_hyper(&mut self.read_ahead, *left, buffer);
                    *left -= count;
                    if *left == 0 {
                        let framing = *framing;
                        // With what has arrived of the body: hyper would take another buffer for it.
                        let body = match framing {
                            Framing::Length(length) => usize::try_from(length).unwrap_or(usize::MAX),
                            Framing::None | Framing::Chunked => 0,
                        };
                        let passed = pass_to_hyper(&mut self.read_ahead, body, buffer);
                        self.read_state = ReadState::body(framing, passed as u64);
                    }
                    return Poll::Ready(Ok(()));
                }
                ReadState::Length(left) => {
                    let (before, left) = (buffer.filled().len(), *left);
                    let limit = usize::try_from(left).unwrap_or(usize::MAX);
                    // Large bodies are read straight into hyper's buffer, without a copy.
                    match self.read_ahead.is_empty() {
                        true => _ = ready!(self.poll_socket(context, buffer, limit))?,
                        false => _ = pass_to_hyper(&mut self.read_ahead, limit, buffer),
                    }
                    // hyper reports a body that ends too early as an error (RFC 9112, section 8).
                    match buffer.filled().len() - before {
                        0 => self.mark_client_gone(),
                        count => self.read_state = ReadState::body(Framing::Length(left), count as u64),
                    }
                    return Poll::Ready(Ok(()));
                }
                ReadState::Chunked(_) => return self.poll_chunked(context, buffer),
                ReadState::Http2 => return self.poll_http2(context, buffer),
                ReadState::Done => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Reads once from the socket, at most `limit` bytes, and returns where in hyper's buffer they are.
    pub(super) fn poll_socket(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
        limit: usize,
    ) -> Poll<io::Result<Range<usize>>> {
        let before = buffer.filled().len();
        self.socket.set_limit(limit as u64);
        ready!(Pin::new(&mut self.socket).poll_read(context, buffer))?;
        Poll::Ready(Ok(before..buffer.filled().len()))
    }

    /// Passes everything to hyper, and ends the connection once no request has been in flight for `idle_timeout`, or for
    /// `header_timeout` before the first request. A client that only answers pings, or that never completes a head, must
    /// not keep a connection.
    fn poll_http2(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while !self.has_stopped_reading && self.read_timer.poll(context).is_ready() {
            // The timer is not moved with each request. When it fires, this computes when it has to fire next.
            let WireLimits { header_timeout, idle_timeout, write_stall, .. } = self.limits;
            let next_stall = self.requests.responses.abandon_stalled(write_stall).unwrap_or(write_stall);
            let idle = self.idle_time();
            let longest = if self.requests.begun() == 0 { header_timeout } else { idle_timeout };
            self.has_stopped_reading = idle.is_some_and(|idle| idle >= longest);
            let left = longest.saturating_sub(idle.unwrap_or_default()).min(idle_timeout).min(next_stall);
            // A delay of 0 would make this loop spin.
            self.read_timer.start(left.max(Duration::from_millis(1)));
        }
        if self.has_stopped_reading {
            return Poll::Ready(Ok(()));
        }
        match self.read_ahead.is_empty() {
            true => _ = ready!(self.poll_socket(context, buffer, usize::MAX))?,
            false => _ = pass_to_hyper(&mut self.read_ahead, usize::MAX, buffer),
        }
        Poll::Ready(Ok(()))
    }

    /// Returns for how long no request has been in flight and no write has been waiting; `None` while one is.
    fn idle_time(&self) -> Option<Duration> {
        // Responses that have ended for hyper may still be in its buffer, waiting for a slow client.
        let idle = self.requests.idle_time().filter(|_| !self.write_timer.is_running())?;
        Some(self.write_resumed_at.map_or(idle, |resumed| idle.min(resumed.elapsed())))
    }

    /// Passes a chunked body to hyper, up to its end.
    fn poll_chunked(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let arrived = match self.read_ahead.is_empty() {
            true => Some(ready!(self.poll_socket(context, buffer, CHUNKED_READ))?),
            false => None,
        };
        let ReadState::Chunked(chunks) = &mut self.read_state else { return Poll::Ready(Ok(())) };
        let outcome = match arrived {
            None => {
                let count = self.read_ahead.len().min(buffer.remaining());
                let outcome = chunks.advance(&self.read_ahead.bytes()[..count]);
                pass_to_hyper(&mut self.read_ahead, outcome.unwrap_or(0), buffer);
                outcome
            }
            Some(arrived) if arrived.is_empty() => {
                self.mark_client_gone();
                return Poll::Ready(Ok(()));
            }
            Some(arrived) => {
                let outcome = chunks.advance(&buffer.filled()[arrived.clone()]);
                // The read may have taken bytes after the body. They belong to the next head.
                self.read_ahead.take_back(buffer, arrived.start + outcome.unwrap_or(0));
                outcome
            }
        };
        let is_complete = chunks.is_complete();
        if outcome.is_err() {
            // hyper reports this as an error of the body, and the pipeline answers. Where a next head begins is
            // unknown.
            self.read_state = ReadState::Done;
            self.has_stopped_reading = true;
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        if is_complete {
            self.read_state = ReadState::Head(HeadScanner::default());
        }
        Poll::Ready(Ok(()))
    }
}

/// Moves up to `limit` bytes that have been read ahead to hyper's buffer; returns how many.
fn pass_to_hyper(read_ahead: &mut ReadAhead, limit: usize, buffer: &mut ReadBuf<'_>) -> usize {
    let count = limit.min(read_ahead.len()).min(buffer.remaining());
    buffer.put_slice(&read_ahead.bytes()[..count]);
    read_ahead.consume(count);
    count
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WireStream<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // With a full buffer, "nothing added" would look like the end of the stream.
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        self.get_mut().poll_next(context, buffer)
    }
}
