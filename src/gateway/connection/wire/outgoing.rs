//! The wire's other direction: answers on their way to the client, and the close of the connection.

use super::{Closing, Stage, Wire};
use crate::awake::ActiveInstant;
use crate::gateway::bounds::{LINGER_BYTES, LINGER_TIME};
use crate::refusal::Refusal;
use bytes::Buf;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite};

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// Whether hyper answers without having asked anybody: it could not read what passed here. Its answer would have
    /// neither body nor request id, so ours goes out instead.
    fn is_hypers_own(&mut self) -> bool {
        if matches!(self.stage, Stage::Open) || self.turns.begun() == self.passed {
            return false;
        }
        if self.farewell.is_empty() {
            self.turn_away(&Refusal::bad_request("the head of the request cannot be understood"));
        }
        true
    }

    fn watch_stall(&mut self, context: &mut Context<'_>, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if outcome.is_ready() {
            if self.stall.is_running() {
                self.unblocked = Some(ActiveInstant::now());
            }
            self.stall.stop();
            return outcome;
        }
        if !self.stall.is_running() {
            self.stall.start(self.terms.write_stall);
        }
        ready!(self.stall.poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Whether a reset could reach the client before it has read its answer.
    fn must_linger(&self) -> bool {
        !self.gone
            && match self.stage {
                Stage::Begin | Stage::Head(_) => !self.held.is_empty(),
                Stage::Passing(..) | Stage::Length(_) | Stage::Chunked(_) | Stage::Excess(_) => true,
                Stage::Open | Stage::Over => self.unread,
            }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.is_hypers_own() {
            return Poll::Ready(Ok(bytes.len()));
        }
        let outcome = Pin::new(this.socket.get_mut()).poll_write(context, bytes);
        this.watch_stall(context, outcome)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.is_hypers_own() {
            return Poll::Ready(Ok(pieces.iter().map(|piece| piece.len()).sum()));
        }
        let outcome = Pin::new(this.socket.get_mut()).poll_write_vectored(context, pieces);
        this.watch_stall(context, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.get_ref().is_write_vectored()
    }

    /// hyper flushes when its own buffer is empty.
    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(Pin::new(this.socket.get_mut()).poll_flush(context))?;
        if this.answering && this.turns.ended() == this.passed {
            this.answering = false;
            this.patience.start(this.terms.header_timeout);
            // hyper waits for the socket, which need not stir any more: the next head may be here, or never come.
            let is_here = !this.held.is_empty() || matches!(this.stage, Stage::Excess(_));
            if is_here || this.patience.poll(context).is_ready() {
                context.waker().wake_by_ref();
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Says farewell, ends the connection's one side and, where the client may still be sending, reads on for a while:
    /// a close with unread bytes would be a reset, and take the answer with it.
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            match &mut this.closing {
                Closing::Answers => {
                    while !this.farewell.is_empty() {
                        let outcome = Pin::new(this.socket.get_mut()).poll_write(context, &this.farewell);
                        let count = ready!(this.watch_stall(context, outcome))?;
                        this.farewell.advance(count);
                    }
                    this.closing = Closing::Shuts;
                }
                Closing::Shuts => {
                    ready!(Pin::new(this.socket.get_mut()).poll_shutdown(context))?;
                    this.closing = if this.must_linger() { Closing::Lingers(LINGER_BYTES) } else { Closing::Done };
                    this.patience.start(LINGER_TIME);
                    this.socket.set_limit(u64::MAX);
                }
                Closing::Lingers(left) => match this.held.poll_discard(context, &mut this.socket) {
                    Poll::Ready(Ok(count)) if count > 0 && count < *left => *left -= count,
                    Poll::Ready(_) => this.closing = Closing::Done,
                    Poll::Pending => {
                        ready!(this.patience.poll(context));
                        this.closing = Closing::Done;
                    }
                },
                Closing::Done => return Poll::Ready(Ok(())),
            }
        }
    }
}
