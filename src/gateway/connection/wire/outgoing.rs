//! The sending side of the wire: responses to the client, and the close of the connection.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Buf;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{ClosePhase, ReadState, WireLimits, WireStream};
use crate::gateway::bounds::{LINGER_BYTES, LINGER_TIME};
use crate::pause_clock::ActiveInstant;
use crate::refusal::Refusal;

impl<S: AsyncRead + AsyncWrite + Unpin> WireStream<S> {
    /// Replaces a response that hyper makes without calling the service, because it could not read a head that passed
    /// here. hyper's response would have neither a body nor a request id. Returns whether what hyper writes is to be
    /// dropped.
    fn replace_hyper_response(&mut self) -> bool {
        // hyper calls the service once for each head that it has understood.
        if matches!(self.read_state, ReadState::Http2) || self.requests.begun() == self.passed_heads {
            return false;
        }
        if self.refusal_bytes.is_empty() {
            self.refuse_head(&Refusal::bad_request("the head of the request cannot be understood"));
        }
        true
    }

    /// Fails a write that has waited for the client for `write_stall`, with `TimedOut`; otherwise returns `outcome`.
    fn poll_write_stall<T>(&mut self, context: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            if self.write_timer.is_running() {
                self.write_resumed_at = Some(ActiveInstant::now());
            }
            self.write_timer.stop();
            return outcome;
        }
        // hyper does not flush, which looks too, before the client reads on.
        self.watch_client(context)?;
        if !self.write_timer.is_running() {
            self.write_timer.start(self.limits.write_stall);
        }
        ready!(self.write_timer.poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Whether a close could send a reset, which may reach the client before it has read its response.
    fn must_linger(&self) -> bool {
        !self.is_client_gone
            && match self.read_state {
                ReadState::Start | ReadState::Head(_) => !self.read_ahead.is_empty(),
                ReadState::Rest(_)
                | ReadState::PassingHead(..)
                | ReadState::Length(_)
                | ReadState::Chunked(_)
                | ReadState::Excess(_) => true,
                ReadState::Http2 | ReadState::Done => self.has_stopped_reading,
            }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WireStream<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.replace_hyper_response() {
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
        if this.replace_hyper_response() {
            return Poll::Ready(Ok(pieces.iter().map(|piece| piece.len()).sum()));
        }
        let outcome = Pin::new(this.socket.get_mut()).poll_write_vectored(context, pieces);
        this.poll_write_stall(context, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.get_ref().is_write_vectored()
    }

    /// Flushes the socket. hyper calls this when its own buffer is empty, so this notices when a response is out. hyper
    /// also calls it whenever it has done all that it can, so this notices that the client has left.
    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // Only with TLS there is something to wait for: what has been written is encrypted, and may not have been sent.
        let flushed = Pin::new(this.socket.get_mut()).poll_flush(context);
        ready!(this.poll_write_stall(context, flushed))?;
        // hyper has written the whole response only now: the time until the next head begins here, not when the body
        // ended.
        if this.is_responding && this.requests.ended() == this.passed_heads {
            this.is_responding = false;
            this.request_buffer.keep();
            let WireLimits { header_timeout, idle_timeout, .. } = this.limits;
            this.read_timer.start(if this.has_begun_head() { header_timeout } else { idle_timeout });
            // hyper's last read is pending on the socket, which may never become readable again: the next head may have
            // been read ahead, or may never come. So hyper's task is woken to read again. Polling the timer registers
            // its waker.
            let has_input = !this.read_ahead.is_empty() || matches!(this.read_state, ReadState::Excess(_));
            if has_input || this.read_timer.poll(context).is_ready() {
                context.waker().wake_by_ref();
            }
        }
        Poll::Ready(this.watch_client(context))
    }

    /// Closes in the stages of RFC 9112, section 9.6: writes the refusal if there is one, closes the sending side and,
    /// if the client may still be sending, discards input for a while. A close with unread bytes in the socket would
    /// send a reset, and the client could lose the response.
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            match &mut this.close_phase {
                ClosePhase::Refusal => {
                    while !this.refusal_bytes.is_empty() {
                        let outcome = Pin::new(this.socket.get_mut()).poll_write(context, &this.refusal_bytes);
                        let count = ready!(this.poll_write_stall(context, outcome))?;
                        this.refusal_bytes.advance(count);
                    }
                    this.close_phase = ClosePhase::Shutdown;
                }
                ClosePhase::Shutdown => {
                    let closed = Pin::new(this.socket.get_mut()).poll_shutdown(context);
                    ready!(this.poll_write_stall(context, closed))?;
                    this.close_phase =
                        if this.must_linger() { ClosePhase::Linger(LINGER_BYTES) } else { ClosePhase::Done };
                    this.read_timer.start(LINGER_TIME);
                    this.socket.set_limit(u64::MAX);
                }
                ClosePhase::Linger(left) => match this.read_ahead.poll_discard(context, &mut this.socket) {
                    Poll::Ready(Ok(count)) if count > 0 && count < *left => *left -= count,
                    // The client has closed its side, is gone, or sends more than is worth waiting for.
                    Poll::Ready(_) => this.close_phase = ClosePhase::Done,
                    Poll::Pending => {
                        ready!(this.read_timer.poll(context));
                        this.close_phase = ClosePhase::Done;
                    }
                },
                ClosePhase::Done => return Poll::Ready(Ok(())),
            }
        }
    }
}
