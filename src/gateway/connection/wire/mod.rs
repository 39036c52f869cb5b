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

use super::head::{self, Framing, HeadLimits, Scan};
use crate::awake::ActiveInstant;
use crate::gateway::bounds::{CHUNKED_READ, EARLY_HEADS, LINGER_BYTES};
use crate::refusal::Refusal;
use bytes::Bytes;
use chunks::Chunks;
use held::Held;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use timer::Timer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf, Take};
use turns::Turns;

/// Makes the whole answer to a head that is refused, from as much of the head as has come.
pub type Refuse = Arc<dyn Fn(&[u8], &Refusal) -> Bytes + Send + Sync>;

/// What the wire allows its client.
#[derive(Debug, Clone, Copy)]
pub struct WireTerms {
    /// Limits of a request head.
    pub head: HeadLimits,
    /// Longest time for a request head, from the connection's begin or the end of the last answer. In HTTP/2, longest time
    /// without a request in flight.
    pub header_timeout: Duration,
    /// Longest time in which a client that is being answered may read nothing.
    pub write_stall: Duration,
}

/// A client's socket, as hyper sees it.
pub(super) struct Wire<S> {
    /// The limit is set before each read; it keeps a body's read from taking what follows.
    socket: Take<S>,
    terms: WireTerms,
    refuse: Refuse,
    turns: Arc<Turns>,
    stage: Stage,
    held: Held,
    /// Heads that hyper has got.
    passed: u32,
    /// Whether the answer to the last of them is still on its way.
    answering: bool,
    /// The time for a head, or in HTTP/2 for a request; at the close, the time for lingering.
    patience: Timer,
    stall: Timer,
    /// When the client last read on after it had not.
    unblocked: Option<ActiveInstant>,
    /// The answer to a bad head, which ends the connection.
    farewell: Bytes,
    closing: Closing,
    /// Whether the client has ended its side.
    gone: bool,
    /// Whether the client may be sending what nobody will read.
    unread: bool,
}

/// What the next bytes from the client are.
enum Stage {
    /// The begin of a connection, which may be HTTP/2's.
    Begin,
    Head(Scan),
    /// So many bytes of a good head, then its body.
    Passing(usize, Framing),
    Length(u64),
    Chunked(Chunks),
    /// More than may be sent before its turn: discarded, up to so many bytes, until the present answer is out.
    Excess(usize),
    /// HTTP/2's.
    Open,
    /// Of no interest; hyper is told that there are none.
    Over,
}

/// How far the close of a connection has come.
enum Closing {
    /// What the wire has to say comes first.
    Answers,
    Shuts,
    /// So many more bytes may be discarded.
    Lingers(usize),
    Done,
}

/// How HTTP/2 with prior knowledge begins (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(super) fn new(socket: S, terms: WireTerms, refuse: Refuse, turns: Arc<Turns>) -> Self {
        let mut patience = Timer::default();
        patience.start(terms.header_timeout);
        Self {
            socket: socket.take(u64::MAX),
            terms,
            refuse,
            turns,
            stage: Stage::Begin,
            held: Held::default(),
            passed: 0,
            answering: false,
            patience,
            stall: Timer::default(),
            unblocked: None,
            farewell: Bytes::new(),
            closing: Closing::Answers,
            gone: false,
            unread: false,
        }
    }

    /// Reads until there is something for hyper. Ready without having filled anything is the end.
    fn poll_next(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            match &mut self.stage {
                Stage::Begin => {
                    let known = self.held.len().min(PREFACE.len());
                    if self.held.bytes()[..known] != PREFACE[..known] {
                        self.stage = Stage::Head(Scan::default());
                    } else if known == PREFACE.len() {
                        self.patience.start(self.terms.header_timeout.min(self.terms.write_stall));
                        self.stage = Stage::Open;
                    } else if !ready!(self.poll_more(context))? {
                        return Poll::Ready(Ok(()));
                    }
                }
                Stage::Head(_) if self.answering => {
                    if !ready!(self.poll_hold(context))? {
                        return Poll::Ready(Ok(()));
                    }
                }
                Stage::Excess(_) if self.answering => return self.poll_leave(context),
                Stage::Excess(_) => {
                    self.stage = Stage::Over;
                    self.unread = true;
                }
                Stage::Head(scan) => match scan.advance(self.held.bytes(), &self.terms.head) {
                    Err(refusal) => {
                        self.turn_away(&refusal);
                        return Poll::Ready(Ok(()));
                    }
                    Ok(Some(found)) => {
                        if found.upgrades {
                            head::hide_upgrade(self.held.first_mut(found.length));
                        }
                        self.patience.stop();
                        self.passed = self.passed.wrapping_add(1);
                        self.answering = true;
                        self.stage = Stage::Passing(found.length, found.framing);
                    }
                    Ok(None) => {
                        if !ready!(self.poll_more(context))? {
                            return Poll::Ready(Ok(()));
                        }
                    }
                },
                Stage::Passing(left, framing) => {
                    let count = pass(&mut self.held, *left, buffer);
                    *left -= count;
                    if *left == 0 {
                        self.stage = match framing {
                            Framing::None => Stage::Head(Scan::default()),
                            Framing::Length(length) => Stage::Length(*length),
                            Framing::Chunked => Stage::Chunked(Chunks::default()),
                        };
                    }
                    return Poll::Ready(Ok(()));
                }
                Stage::Length(left) => {
                    let before = buffer.filled().len();
                    if self.held.is_empty() {
                        self.socket.set_limit(*left);
                        ready!(Pin::new(&mut self.socket).poll_read(context, buffer))?;
                    } else {
                        pass(&mut self.held, usize::try_from(*left).unwrap_or(usize::MAX), buffer);
                    }
                    let count = buffer.filled().len() - before;
                    *left -= count as u64;
                    if count == 0 {
                        self.end();
                    } else if *left == 0 {
                        self.stage = Stage::Head(Scan::default());
                    }
                    return Poll::Ready(Ok(()));
                }
                Stage::Chunked(_) => return self.poll_chunked(context, buffer),
                Stage::Open => return self.poll_open(context, buffer),
                Stage::Over => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Passes everything on, but only while requests are in flight and for a while before and after: whoever just answers
    /// pings, or never ends a head, must not keep a connection.
    fn poll_open(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while !self.unread && self.patience.poll(context).is_ready() {
            // Moved when it fires, not with each request.
            let WireTerms { header_timeout, write_stall, .. } = self.terms;
            let next_unread = self.turns.answers.give_up(write_stall).unwrap_or(write_stall);
            let idle = self.idle();
            self.unread = idle.is_some_and(|idle| idle >= header_timeout);
            let left = header_timeout.saturating_sub(idle.unwrap_or_default()).min(next_unread);
            self.patience.start(left.max(Duration::from_millis(1))); // 0 would spin
        }
        if self.unread {
            return Poll::Ready(Ok(()));
        }
        if self.held.is_empty() {
            self.socket.set_limit(u64::MAX);
            return Pin::new(&mut self.socket).poll_read(context, buffer);
        }
        pass(&mut self.held, usize::MAX, buffer);
        Poll::Ready(Ok(()))
    }

    /// How long nothing has been asked and nothing was on its way; None while something is.
    fn idle(&self) -> Option<Duration> {
        let idle = self.turns.idle().filter(|_| !self.stall.is_running())?;
        Some(self.unblocked.map_or(idle, |unblocked| idle.min(unblocked.elapsed())))
    }

    fn poll_chunked(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Stage::Chunked(chunks) = &mut self.stage else { return Poll::Ready(Ok(())) };
        let before = buffer.filled().len();
        let is_held = !self.held.is_empty();
        let outcome = if is_held {
            let count = self.held.len().min(buffer.remaining());
            let outcome = chunks.follow(&self.held.bytes()[..count]);
            pass(&mut self.held, outcome.unwrap_or(0), buffer);
            outcome
        } else {
            self.socket.set_limit(CHUNKED_READ);
            ready!(Pin::new(&mut self.socket).poll_read(context, buffer))?;
            let fresh = &buffer.filled()[before..];
            if fresh.is_empty() {
                self.end();
                return Poll::Ready(Ok(()));
            }
            let outcome = chunks.follow(fresh);
            let count = outcome.unwrap_or(0);
            self.held.push(&fresh[count..]);
            buffer.set_filled(before + count);
            outcome
        };
        if outcome.is_err() {
            // hyper takes it for a broken body, and the pipeline answers.
            self.stage = Stage::Over;
            self.unread = true;
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        if chunks.is_over() {
            self.stage = Stage::Head(Scan::default());
        }
        Poll::Ready(Ok(()))
    }

    /// Waits for more of a head; false when there will be none.
    fn poll_more(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        self.socket.set_limit(u64::MAX);
        match self.held.poll_fill(context, &mut self.socket, self.terms.head.size()) {
            Poll::Ready(Ok(0)) => self.end(),
            Poll::Ready(outcome) => return Poll::Ready(outcome.map(|_| true)),
            Poll::Pending => {
                ready!(self.patience.poll(context));
                // A client that has sent nothing has nothing to be told.
                if self.held.bytes().iter().all(|byte| b"\r\n".contains(byte)) {
                    self.stage = Stage::Over;
                } else {
                    self.turn_away(&Refusal::RequestTimeout);
                }
            }
        }
        Poll::Ready(Ok(false))
    }

    /// Keeps what a client sends before its turn, and notices when it leaves: false. Of a client that sends too much for
    /// that, nothing after the present answer will be read as a request.
    fn poll_hold(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        self.socket.set_limit(u64::MAX);
        let most = self.terms.head.size().saturating_mul(EARLY_HEADS);
        // The flush that ends the answer wakes this one too.
        while self.held.len() < most {
            if ready!(self.held.poll_fill(context, &mut self.socket, most))? == 0 {
                self.end();
                return Poll::Ready(Ok(false));
            }
        }
        self.stage = Stage::Excess(LINGER_BYTES);
        Poll::Ready(Ok(true))
    }

    /// Reads on for nothing but to notice when the client leaves; one that sends too much for that counts as gone.
    fn poll_leave(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Stage::Excess(left) = &mut self.stage else { return Poll::Ready(Ok(())) };
        while *left > 0 {
            match ready!(self.held.poll_discard(context, &mut self.socket))? {
                0 => break,
                count => *left = left.saturating_sub(count),
            }
        }
        self.end();
        Poll::Ready(Ok(()))
    }

    fn end(&mut self) {
        self.gone = true;
        self.stage = Stage::Over;
    }

    fn turn_away(&mut self, refusal: &Refusal) {
        self.farewell = (self.refuse)(self.held.bytes(), refusal);
        self.stage = Stage::Over;
        self.unread = true;
    }
}

/// Moves up to `most` held bytes to hyper; returns how many.
fn pass(held: &mut Held, most: usize, buffer: &mut ReadBuf<'_>) -> usize {
    let count = most.min(held.len()).min(buffer.remaining());
    buffer.put_slice(&held.bytes()[..count]);
    held.consume(count);
    count
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Wire<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        self.get_mut().poll_next(context, buffer)
    }
}

#[cfg(test)]
mod tests;
