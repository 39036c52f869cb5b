//! The stream between a client's socket and hyper: no byte of an HTTP/1.1 head reaches hyper before the whole head has
//! arrived and has been checked.
//!
//! Owns the limits and the timeout of heads, the response to a malformed one, the end of each body (so that pipelined
//! heads are checked too), the write timeout of clients that do not read, and the close of the connection. Does not
//! know what a request means. A connection that begins with the HTTP/2 preface passes unchecked: it is only watched for
//! stalled writes, for stalled responses, and for times without a request in flight.
//!
//! A client that closes its sending side while a response is on its way counts as gone, as it does for nginx.
//!
//! # Who writes when
//!
//! Both hyper and the wire write to the socket, and the wire must not write into hyper's response.
//! [`ConnectionRequests`] counts the requests that come out of hyper and their responses, the wire counts the heads
//! that it has passed to hyper, and a flush by hyper says that its own buffer is empty. If both counts agree at a
//! flush, no response is on its way.
//!
//! # Why not hyper alone
//!
//! hyper 1.x answers a malformed head by itself, with a bare 400, 414 or 431 (`on_error` in its
//! `src/proto/h1/role.rs`). The service never sees such a request. There is no 408: when `header_read_timeout` is over,
//! hyper closes the connection without a response. What this folder and `head/` add:
//!
//! - a JSON error with a request id, CORS headers and a line in the access log, for malformed heads too;
//! - exact limits for the request line, for each header line and for the whole head (hyper limits only its buffer and
//!   the number of lines);
//! - a 408 in time for a head that never ends, and a clock that leaves out pauses of the process;
//! - detection of clients that stall: hyper waits without limit for a client that does not read its response, and the
//!   response holds a slot of llama-server until then;
//! - a lingering close (RFC 9112, section 9.6): a close with unread bytes in the socket sends a reset, and a reset can
//!   destroy the response before the client has read it. hyper shuts down and drops the socket.
//!
//! It is *not* here to protect llama-server or a remote backend from request smuggling. Requests to them are serialised
//! again by hyper's client, so no byte of a client's framing reaches them. The grammar is strict because the wire and
//! hyper read the same bytes one after the other and must agree on them.
//!
//! With a hook in hyper that lets the service answer parse errors and timeouts of heads, about half of this could go:
//! the head scanner, the chunk scanner and the replaced responses. Stall detection and the lingering close would stay.
//!
//! # Files
//!
//! - `read_ahead.rs`: bytes from the client that have not been passed to hyper
//! - `chunks.rs`: finds the end of a chunked body
//! - `requests.rs`: counts the requests and responses of a connection
//! - `multiplexed.rs`: responses over HTTP/2, each of which may stall by itself
//! - `outgoing.rs`: writes, and the close of the connection
//! - `timer.rs`: a timer that is cheap to restart

mod chunks;
mod multiplexed;
mod outgoing;
mod read_ahead;
pub(super) mod requests;
mod timer;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf, Take};

use super::head::{self, Framing, HeadLimits, HeadScanner};
use crate::gateway::bounds::{CHUNKED_READ, EARLY_HEADS, LINGER_BYTES};
use crate::pause_clock::ActiveInstant;
use crate::refusal::Refusal;
use chunks::ChunkedBody;
use read_ahead::ReadAhead;
use requests::ConnectionRequests;
use timer::LazyTimer;

/// Builds the whole response to a refused head, as bytes, from as much of the head as has arrived.
pub(super) type RefusalWriter = Arc<dyn Fn(&[u8], &Refusal) -> Bytes + Send + Sync>;

/// Limits of one connection.
#[derive(Debug, Clone, Copy)]
pub struct WireLimits {
    /// Limits of a request head.
    pub head: HeadLimits,
    /// Longest time for a request head, from the start of the connection or from the first byte of a later head
    /// (`CLIENT_HEADER_TIMEOUT`). With HTTP/2, the longest time until the first request.
    pub header_timeout: Duration,
    /// Longest time from the end of a response to the first byte of the next head (`CLIENT_IDLE_TIMEOUT`). With HTTP/2, the
    /// longest time without a request in flight after the first one.
    pub idle_timeout: Duration,
    /// Longest time without any progress while a response is written to a client.
    pub write_stall: Duration,
}

/// A client's socket as hyper sees it: an `AsyncRead` of checked requests and an `AsyncWrite` of responses.
pub(super) struct WireStream<S> {
    /// The limit is set before each read. It keeps the read of a body from taking bytes of the next head.
    socket: Take<S>,
    limits: WireLimits,
    refuse: RefusalWriter,
    requests: Arc<ConnectionRequests>,
    read_state: ReadState,
    read_ahead: ReadAhead,
    /// Heads that have been passed to hyper. Wraps around, as the counters of `requests` do.
    passed_heads: u32,
    /// Whether the response to the last of them is still on its way.
    is_responding: bool,
    /// Times out the next head, or the wait for its first byte; with HTTP/2, the connection without requests; at the
    /// close, the lingering.
    read_timer: LazyTimer,
    /// Runs while a write waits for the client to read.
    write_timer: LazyTimer,
    /// When a write last went on after it had waited for the client.
    write_resumed_at: Option<ActiveInstant>,
    /// The response to a refused head, written at the close; then what is left of it.
    refusal_bytes: Bytes,
    close_phase: ClosePhase,
    /// Whether the client has closed its sending side.
    is_client_gone: bool,
    /// Whether the wire has stopped reading although the client may still be sending.
    has_stopped_reading: bool,
}

/// What the next bytes from the client are. A request goes through `Head`, `PassingHead` and, if it has a body,
/// `Length` or `Chunked`; then the next `Head` begins.
enum ReadState {
    /// The first bytes of a connection, which may be the HTTP/2 preface.
    Start,
    /// A head that is not complete yet.
    Head(HeadScanner),
    /// The rest of a checked head, this many bytes long, then its body.
    PassingHead(usize, Framing),
    /// The rest of a body with `Content-Length`, this many bytes long.
    Length(u64),
    Chunked(ChunkedBody),
    /// More pipelined input than is read ahead. Discarded, up to this many bytes, until the current response is out.
    Excess(usize),
    /// HTTP/2 frames, which pass unchecked.
    Http2,
    /// Nothing is read any more; hyper is told that the stream has ended.
    Done,
}

/// The phases of a close, in this order.
enum ClosePhase {
    /// Writes `refusal_bytes`.
    Refusal,
    /// Closes the sending side.
    Shutdown,
    /// Discards up to this many bytes, so that the client can read the response.
    Linger(usize),
    Done,
}

/// The connection preface of HTTP/2 with prior knowledge (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

impl<S: AsyncRead + AsyncWrite + Unpin> WireStream<S> {
    pub(super) fn new(socket: S, limits: WireLimits, refuse: RefusalWriter, requests: Arc<ConnectionRequests>) -> Self {
        let mut read_timer = LazyTimer::default();
        read_timer.start(limits.header_timeout);
        Self {
            socket: socket.take(u64::MAX),
            limits,
            refuse,
            requests,
            read_state: ReadState::Start,
            read_ahead: ReadAhead::default(),
            passed_heads: 0,
            is_responding: false,
            read_timer,
            write_timer: LazyTimer::default(),
            write_resumed_at: None,
            refusal_bytes: Bytes::new(),
            close_phase: ClosePhase::Refusal,
            is_client_gone: false,
            has_stopped_reading: false,
        }
    }

    /// Reads until there are bytes for hyper. Ready with nothing added to `buffer` means the end of the stream.
    fn poll_next(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            match &mut self.read_state {
                ReadState::Start => {
                    // `PRI` is no method that HTTP/1.1 uses, so each prefix of the preface is awaited to its end.
                    let compared = self.read_ahead.len().min(PREFACE.len());
                    if self.read_ahead.bytes()[..compared] != PREFACE[..compared] {
                        self.read_state = ReadState::Head(HeadScanner::default());
                    } else if compared == PREFACE.len() {
                        // `poll_http2` computes the next deadline each time; it must look at least once per
                        // `write_stall`, and in time for a first request that ends early.
                        let WireLimits { header_timeout, idle_timeout, write_stall, .. } = self.limits;
                        self.read_timer.start(header_timeout.min(idle_timeout).min(write_stall));
                        self.read_state = ReadState::Http2;
                    } else if !ready!(self.poll_head(context))? {
                        return Poll::Ready(Ok(()));
                    }
                }
                // A pipelined request waits: a refusal of its head must not be written into the current response.
                ReadState::Head(_) if self.is_responding => {
                    if !ready!(self.poll_read_ahead(context))? {
                        return Poll::Ready(Ok(()));
                    }
                }
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
                        self.read_timer.stop();
                        // Counted before hyper gets the first byte, so that a response never finds the count too low.
                        self.passed_heads = self.passed_heads.wrapping_add(1);
                        self.is_responding = true;
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
                        self.read_state = match framing {
                            Framing::None => ReadState::Head(HeadScanner::default()),
                            Framing::Length(length) => ReadState::Length(*length),
                            Framing::Chunked => ReadState::Chunked(ChunkedBody::default()),
                        };
                    }
                    return Poll::Ready(Ok(()));
                }
                ReadState::Length(left) => {
                    let before = buffer.filled().len();
                    // Large bodies are read straight into hyper's buffer, without a copy.
                    if self.read_ahead.is_empty() {
                        self.socket.set_limit(*left);
                        ready!(Pin::new(&mut self.socket).poll_read(context, buffer))?;
                    } else {
                        pass_to_hyper(&mut self.read_ahead, usize::try_from(*left).unwrap_or(usize::MAX), buffer);
                    }
                    let count = buffer.filled().len() - before;
                    *left -= count as u64;
                    // hyper reports a body that ends too early as an error (RFC 9112, section 8).
                    if count == 0 {
                        self.mark_client_gone();
                    } else if *left == 0 {
                        self.read_state = ReadState::Head(HeadScanner::default());
                    }
                    return Poll::Ready(Ok(()));
                }
                ReadState::Chunked(_) => return self.poll_chunked(context, buffer),
                ReadState::Http2 => return self.poll_http2(context, buffer),
                ReadState::Done => return Poll::Ready(Ok(())),
            }
        }
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
        if self.read_ahead.is_empty() {
            self.socket.set_limit(u64::MAX);
            return Pin::new(&mut self.socket).poll_read(context, buffer);
        }
        pass_to_hyper(&mut self.read_ahead, usize::MAX, buffer);
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
        let ReadState::Chunked(chunks) = &mut self.read_state else { return Poll::Ready(Ok(())) };
        let before = buffer.filled().len();
        let outcome = if !self.read_ahead.is_empty() {
            let count = self.read_ahead.len().min(buffer.remaining());
            let outcome = chunks.advance(&self.read_ahead.bytes()[..count]);
            pass_to_hyper(&mut self.read_ahead, outcome.unwrap_or(0), buffer);
            outcome
        } else {
            self.socket.set_limit(CHUNKED_READ);
            ready!(Pin::new(&mut self.socket).poll_read(context, buffer))?;
            let received = &buffer.filled()[before..];
            if received.is_empty() {
                self.mark_client_gone();
                return Poll::Ready(Ok(()));
            }
            let outcome = chunks.advance(received);
            let count = outcome.unwrap_or(0);
            // The read may have taken bytes after the body; take them back, for they belong to the next head.
            self.read_ahead.push(&received[count..]);
            buffer.set_filled(before + count);
            outcome
        };
        if outcome.is_err() {
            // hyper reports this as an error of the body, and the pipeline answers. Where a next head begins is
            // unknown.
            self.read_state = ReadState::Done;
            self.has_stopped_reading = true;
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        if chunks.is_complete() {
            self.read_state = ReadState::Head(HeadScanner::default());
        }
        Poll::Ready(Ok(()))
    }

    /// Waits for more bytes of a head. Returns false if there will be none: the client is gone, or the timeout is over.
    fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        self.socket.set_limit(u64::MAX);
        let has_begun = self.has_begun_head();
        match self.read_ahead.poll_fill(context, &mut self.socket, self.limits.head.size()) {
            Poll::Ready(Ok(0)) => self.mark_client_gone(),
            Poll::Ready(outcome) => {
                // The time of the first head has been running since the start of the connection.
                if !has_begun && self.passed_heads != 0 && self.has_begun_head() {
                    self.read_timer.start(self.limits.header_timeout);
                }
                return Poll::Ready(outcome.map(|_| true));
            }
            Poll::Pending => {
                ready!(self.read_timer.poll(context));
                // An idle connection just ends. Only a client that has begun a request gets a 408.
                if has_begun {
                    self.refuse_head(&Refusal::RequestTimeout("CLIENT_HEADER_TIMEOUT"));
                } else {
                    self.read_state = ReadState::Done;
                }
            }
        }
        Poll::Ready(Ok(false))
    }

    /// Whether a byte of the next head has arrived; empty lines before it do not count.
    fn has_begun_head(&self) -> bool {
        !self.read_ahead.bytes().iter().all(|byte| b"\r\n".contains(byte))
    }

    /// Reads ahead while a response is on its way, to notice when the client leaves. Returns false when it has left.
    ///
    /// After more than [`EARLY_HEADS`] heads of the largest size, changes to `Excess`: nothing that the client sends
    /// after that is read as a request.
    fn poll_read_ahead(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        self.socket.set_limit(u64::MAX);
        let capacity = self.limits.head.size().saturating_mul(EARLY_HEADS);
        // This may stay pending on the socket: `poll_flush` wakes the task when the response is out.
        while self.read_ahead.len() < capacity {
            if ready!(self.read_ahead.poll_fill(context, &mut self.socket, capacity))? == 0 {
                self.mark_client_gone();
                return Poll::Ready(Ok(false));
            }
        }
        self.read_state = ReadState::Excess(LINGER_BYTES);
        Poll::Ready(Ok(true))
    }

    /// Discards input, only to notice when the client leaves. A client that sends more than [`LINGER_BYTES`] counts as
    /// gone.
    fn poll_disconnect(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ReadState::Excess(left) = &mut self.read_state else { return Poll::Ready(Ok(())) };
        while *left > 0 {
            match ready!(self.read_ahead.poll_discard(context, &mut self.socket))? {
                0 => break,
                count => *left = left.saturating_sub(count),
            }
        }
        self.mark_client_gone();
        Poll::Ready(Ok(()))
    }

    fn mark_client_gone(&mut self) {
        self.is_client_gone = true;
        self.read_state = ReadState::Done;
    }

    /// Prepares the response to a refused head and stops reading. hyper then sees the end of the stream and shuts down,
    /// and `poll_shutdown` writes the response.
    fn refuse_head(&mut self, refusal: &Refusal) {
        self.refusal_bytes = (self.refuse)(self.read_ahead.bytes(), refusal);
        self.read_state = ReadState::Done;
        self.has_stopped_reading = true;
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

#[cfg(test)]
mod tests;
