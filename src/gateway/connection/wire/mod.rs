//! What lies between a client's socket and hyper: no byte of an HTTP/1.1 head reaches hyper before the head is whole
//! and good.
//!
//! Owns the limits of heads, the time for them, the answer to a bad one, the end of each body (so that pipelined heads
//! are checked too), the patience with a client that does not read, and the close of the connection. It knows nothing
//! of what requests mean. A connection that begins with HTTP/2's preface is only watched for writes and answers that
//! stall, and for times in which no request is in flight.
//!
//! The wire writes nothing while an answer is on its way: [`Turns`] counts requests behind hyper, the wire counts heads
//! before it, and a flush by hyper says that its own buffer is empty.
//!
//! A client that ends its side of the connection while an answer is on its way counts as gone, as it does for nginx.
//!
//! - `held.rs`: bytes from the client that hyper does not have yet
//! - `chunks.rs`: where a chunked body ends
//! - `turns.rs`: which requests of the connection have been answered
//! - `multiplexed.rs`: answers over HTTP/2 that a client may leave unread
//! - `outgoing.rs`: writes, and the close of the connection
//! - `timer.rs`: a timer that can be stopped and started again

mod chunks;
mod held;
mod multiplexed;
mod outgoing;
mod timer;
pub(super) mod turns;

use super::head::{self, Framing, HeadLimits, HeadScanner};
use crate::gateway::bounds::{CHUNKED_READ, EARLY_HEADS, LINGER_BYTES};
use crate::pause_clock::ActiveInstant;
use crate::refusal::Refusal;
use bytes::Bytes;
use chunks::ChunkedBody;
use held::ReadAhead;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use timer::LazyTimer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf, Take};
use turns::ConnectionRequests;

/// Makes the whole answer to a head that is refused, from as much of the head as has come.
pub type RefusalWriter = Arc<dyn Fn(&[u8], &Refusal) -> Bytes + Send + Sync>;

/// What the wire allows its client.
#[derive(Debug, Clone, Copy)]
pub struct WireLimits {
    /// Limits of a request head.
    pub head: HeadLimits,
    /// Longest time for a request head, from the connection's begin or the end of the last answer. In HTTP/2, longest time
    /// without a request in flight.
    pub header_timeout: Duration,
    /// Longest time in which a client that is being answered may read nothing.
    pub write_stall: Duration,
}

/// A client's socket, as hyper sees it.
pub(super) struct WireStream<S> {
    /// The limit is set before each read; it keeps a body's read from taking what follows.
    socket: Take<S>,
    limits: WireLimits,
    refuse: RefusalWriter,
    requests: Arc<ConnectionRequests>,
    read_state: ReadState,
    read_ahead: ReadAhead,
    /// Heads that hyper has got.
    passed_heads: u32,
    /// Whether the answer to the last of them is still on its way.
    is_responding: bool,
    /// The time for a head, or in HTTP/2 for a request; at the close, the time for lingering.
    read_timer: LazyTimer,
    write_timer: LazyTimer,
    /// When the client last read on after it had not.
    write_resumed_at: Option<ActiveInstant>,
    /// The answer to a bad head, which ends the connection.
    refusal_bytes: Bytes,
    closing: ClosePhase,
    /// Whether the client has ended its side.
    client_gone: bool,
    /// Whether the client may be sending what nobody will read.
    has_unread: bool,
}

/// What the next bytes from the client are.
enum ReadState {
    /// The begin of a connection, which may be HTTP/2's.
    Start,
    Head(HeadScanner),
    /// So many bytes of a good head, then its body.
    PassingHead(usize, Framing),
    Length(u64),
    Chunked(ChunkedBody),
    /// More than may be sent before its turn: discarded, up to so many bytes, until the present answer is out.
    Excess(usize),
    /// HTTP/2's.
    Http2,
    /// Of no interest; hyper is told that there are none.
    Done,
}

/// How far the close of a connection has come.
enum ClosePhase {
    /// What the wire has to say comes first.
    Refusal,
    Shutdown,
    /// So many more bytes may be discarded.
    Linger(usize),
    Done,
}

/// How HTTP/2 with prior knowledge begins (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

impl<S: AsyncRead + AsyncWrite + Unpin> WireStream<S> {
    pub(super) fn new(socket: S, terms: WireLimits, refuse: RefusalWriter, turns: Arc<ConnectionRequests>) -> Self {
        let mut patience = LazyTimer::default();
        patience.start(terms.header_timeout);
        Self {
            socket: socket.take(u64::MAX),
            limits: terms,
            refuse,
            requests: turns,
            read_state: ReadState::Start,
            read_ahead: ReadAhead::default(),
            passed_heads: 0,
            is_responding: false,
            read_timer: patience,
            write_timer: LazyTimer::default(),
            write_resumed_at: None,
            refusal_bytes: Bytes::new(),
            closing: ClosePhase::Refusal,
            client_gone: false,
            has_unread: false,
        }
    }

    /// Reads until there is something for hyper. Ready without having filled anything is the end.
    fn poll_next(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            match &mut self.read_state {
                ReadState::Start => {
                    let known = self.read_ahead.len().min(PREFACE.len());
                    if self.read_ahead.bytes()[..known] != PREFACE[..known] {
                        self.read_state = ReadState::Head(HeadScanner::default());
                    } else if known == PREFACE.len() {
                        self.read_timer.start(self.limits.header_timeout.min(self.limits.write_stall));
                        self.read_state = ReadState::Http2;
                    } else if !ready!(self.poll_head(context))? {
                        return Poll::Ready(Ok(()));
                    }
                }
                ReadState::Head(_) if self.is_responding => {
                    if !ready!(self.poll_read_ahead(context))? {
                        return Poll::Ready(Ok(()));
                    }
                }
                ReadState::Excess(_) if self.is_responding => return self.poll_disconnect(context),
                ReadState::Excess(_) => {
                    self.read_state = ReadState::Done;
                    self.has_unread = true;
                }
                ReadState::Head(scan) => match scan.advance(self.read_ahead.bytes(), &self.limits.head) {
                    Err(refusal) => {
                        self.refuse_head(&refusal);
                        return Poll::Ready(Ok(()));
                    }
                    Ok(Some(found)) => {
                        if found.has_upgrade {
                            head::hide_upgrade(self.read_ahead.first_mut(found.length));
                        }
                        self.read_timer.stop();
                        self.passed_heads = self.passed_heads.wrapping_add(1);
                        self.is_responding = true;
                        self.read_state = ReadState::PassingHead(found.length, found.framing);
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
                    if self.read_ahead.is_empty() {
                        self.socket.set_limit(*left);
                        ready!(Pin::new(&mut self.socket).poll_read(context, buffer))?;
                    } else {
                        pass_to_hyper(&mut self.read_ahead, usize::try_from(*left).unwrap_or(usize::MAX), buffer);
                    }
                    let count = buffer.filled().len() - before;
                    *left -= count as u64;
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

    /// Passes everything on, but only while requests are in flight and for a while before and after: whoever just answers
    /// pings, or never ends a head, must not keep a connection.
    fn poll_http2(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while !self.has_unread && self.read_timer.poll(context).is_ready() {
            // Moved when it fires, not with each request.
            let WireLimits { header_timeout, write_stall, .. } = self.limits;
            let next_unread = self.requests.responses.give_up(write_stall).unwrap_or(write_stall);
            let idle = self.idle_time();
            self.has_unread = idle.is_some_and(|idle| idle >= header_timeout);
            let left = header_timeout.saturating_sub(idle.unwrap_or_default()).min(next_unread);
            self.read_timer.start(left.max(Duration::from_millis(1))); // 0 would spin
        }
        if self.has_unread {
            return Poll::Ready(Ok(()));
        }
        if self.read_ahead.is_empty() {
            self.socket.set_limit(u64::MAX);
            return Pin::new(&mut self.socket).poll_read(context, buffer);
        }
        pass_to_hyper(&mut self.read_ahead, usize::MAX, buffer);
        Poll::Ready(Ok(()))
    }

    /// How long nothing has been asked and nothing was on its way; None while something is.
    fn idle_time(&self) -> Option<Duration> {
        let idle = self.requests.idle_time().filter(|_| !self.write_timer.is_running())?;
        Some(self.write_resumed_at.map_or(idle, |unblocked| idle.min(unblocked.elapsed())))
    }

    fn poll_chunked(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let ReadState::Chunked(chunks) = &mut self.read_state else { return Poll::Ready(Ok(())) };
        let before = buffer.filled().len();
        let is_held = !self.read_ahead.is_empty();
        let outcome = if is_held {
            let count = self.read_ahead.len().min(buffer.remaining());
            let outcome = chunks.advance(&self.read_ahead.bytes()[..count]);
            pass_to_hyper(&mut self.read_ahead, outcome.unwrap_or(0), buffer);
            outcome
        } else {
            self.socket.set_limit(CHUNKED_READ);
            ready!(Pin::new(&mut self.socket).poll_read(context, buffer))?;
            let fresh = &buffer.filled()[before..];
            if fresh.is_empty() {
                self.mark_client_gone();
                return Poll::Ready(Ok(()));
            }
            let outcome = chunks.advance(fresh);
            let count = outcome.unwrap_or(0);
            self.read_ahead.push(&fresh[count..]);
            buffer.set_filled(before + count);
            outcome
        };
        if outcome.is_err() {
            // hyper takes it for a broken body, and the pipeline answers.
            self.read_state = ReadState::Done;
            self.has_unread = true;
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        if chunks.is_complete() {
            self.read_state = ReadState::Head(HeadScanner::default());
        }
        Poll::Ready(Ok(()))
    }

    /// Waits for more of a head; false when there will be none.
    fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        self.socket.set_limit(u64::MAX);
        match self.read_ahead.poll_fill(context, &mut self.socket, self.limits.head.size()) {
            Poll::Ready(Ok(0)) => self.mark_client_gone(),
            Poll::Ready(outcome) => return Poll::Ready(outcome.map(|_| true)),
            Poll::Pending => {
                ready!(self.read_timer.poll(context));
                // A client that has sent nothing has nothing to be told.
                if self.read_ahead.bytes().iter().all(|byte| b"\r\n".contains(byte)) {
                    self.read_state = ReadState::Done;
                } else {
                    self.refuse_head(&Refusal::RequestTimeout);
                }
            }
        }
        Poll::Ready(Ok(false))
    }

    /// Keeps what a client sends before its turn, and notices when it leaves: false. Of a client that sends too much for
    /// that, nothing after the present answer will be read as a request.
    fn poll_read_ahead(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        self.socket.set_limit(u64::MAX);
        let most = self.limits.head.size().saturating_mul(EARLY_HEADS);
        // The flush that ends the answer wakes this one too.
        while self.read_ahead.len() < most {
            if ready!(self.read_ahead.poll_fill(context, &mut self.socket, most))? == 0 {
                self.mark_client_gone();
                return Poll::Ready(Ok(false));
            }
        }
        self.read_state = ReadState::Excess(LINGER_BYTES);
        Poll::Ready(Ok(true))
    }

    /// Reads on for nothing but to notice when the client leaves; one that sends too much for that counts as gone.
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
        self.client_gone = true;
        self.read_state = ReadState::Done;
    }

    fn refuse_head(&mut self, refusal: &Refusal) {
        self.refusal_bytes = (self.refuse)(self.read_ahead.bytes(), refusal);
        self.read_state = ReadState::Done;
        self.has_unread = true;
    }
}

/// Moves up to `most` held bytes to hyper; returns how many.
fn pass_to_hyper(held: &mut ReadAhead, most: usize, buffer: &mut ReadBuf<'_>) -> usize {
    let count = most.min(held.len()).min(buffer.remaining());
    buffer.put_slice(&held.bytes()[..count]);
    held.consume(count);
    count
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WireStream<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        self.get_mut().poll_next(context, buffer)
    }
}

#[cfg(test)]
mod tests;
