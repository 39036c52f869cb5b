//! The wire's other direction: answers on their way to the client, and the close of the connection.

use super::{ClosePhase, ReadState, WireStream};
use crate::gateway::bounds::{LINGER_BYTES, LINGER_TIME};
use crate::pause_clock::ActiveInstant;
use crate::refusal::Refusal;
use bytes::Buf;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite};

impl<S: AsyncRead + AsyncWrite + Unpin> WireStream<S> {
    /// Whether hyper answers without having asked anybody: it could not read what passed here. Its answer would have
    /// neither body nor request id, so ours goes out instead.
    fn replace_hypers_response(&mut self) -> bool {
        if matches!(self.read_state, ReadState::Http2) || self.requests.begun() == self.passed_heads {
            return false;
        }
        if self.refusal_bytes.is_empty() {
            self.refuse_head(&Refusal::bad_request("the head of the request cannot be understood"));
        }
        true
    }

    fn poll_write_stall(
        &mut self,
        context: &mut Context<'_>,
        outcome: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if outcome.is_ready() {
            if self.write_timer.is_running() {
                self.write_resumed_at = Some(ActiveInstant::now());
            }
            self.write_timer.stop();
            return outcome;
        }
        if !self.write_timer.is_running() {
            self.write_timer.start(self.limits.write_stall);
        }
        ready!(self.write_timer.poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Whether a reset could reach the client before it has read its answer.
    fn must_linger(&self) -> bool {
        !self.client_gone
            && match self.read_state {
                ReadState::Start | ReadState::Head(_) => !self.read_ahead.is_empty(),
                ReadState::PassingHead(..) | ReadState::Length(_) | ReadState::Chunked(_) | ReadState::Excess(_) => {
                    true
                }
                ReadState::Http2 | ReadState::Done => self.has_unread,
            }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WireStream<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.replace_hypers_response() {
            return Poll::Ready(Ok(bytes.len()));
        }
        let outcome = Pin::new(this.socket.get_mut()).poll_write(context, bytes);
        this.poll_write_stall(context, outcome)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.replace_hypers_response() {
            return Poll::Ready(Ok(pieces.iter().map(|piece| piece.len()).sum()));
        }
        let outcome = Pin::new(this.socket.get_mut()).poll_write_vectored(context, pieces);
        this.poll_write_stall(context, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.get_ref().is_write_vectored()
    }

    /// hyper flushes when its own buffer is empty.
    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(Pin::new(this.socket.get_mut()).poll_flush(context))?;
        if this.is_responding && this.requests.ended() == this.passed_heads {
            this.is_responding = false;
            this.read_timer.start(this.limits.header_timeout);
            // hyper waits for the socket, which need not stir any more: the next head may be here, or never come.
            let is_here = !this.read_ahead.is_empty() || matches!(this.read_state, ReadState::Excess(_));
            if is_here || this.read_timer.poll(context).is_ready() {
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
                ClosePhase::Refusal => {
                    while !this.refusal_bytes.is_empty() {
                        let outcome = Pin::new(this.socket.get_mut()).poll_write(context, &this.refusal_bytes);
                        let count = ready!(this.poll_write_stall(context, outcome))?;
                        this.refusal_bytes.advance(count);
                    }
                    this.closing = ClosePhase::Shutdown;
                }
                ClosePhase::Shutdown => {
                    ready!(Pin::new(this.socket.get_mut()).poll_shutdown(context))?;
                    this.closing = if this.must_linger() { ClosePhase::Linger(LINGER_BYTES) } else { ClosePhase::Done };
                    this.read_timer.start(LINGER_TIME);
                    this.socket.set_limit(u64::MAX);
                }
                ClosePhase::Linger(left) => match this.read_ahead.poll_discard(context, &mut this.socket) {
                    Poll::Ready(Ok(count)) if count > 0 && count < *left => *left -= count,
                    Poll::Ready(_) => this.closing = ClosePhase::Done,
                    Poll::Pending => {
                        ready!(this.read_timer.poll(context));
                        this.closing = ClosePhase::Done;
                    }
                },
                ClosePhase::Done => return Poll::Ready(Ok(())),
            }
        }
    }
}
