//! Waits for request heads, and reads ahead while a response is on its way.

use std::io;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite};

use super::{ReadState, WireStream};
use crate::gateway::bounds::{EARLY_HEADS, LINGER_BYTES};
use crate::refusal::Refusal;

impl<S: AsyncRead + AsyncWrite + Unpin> WireStream<S> {
    /// Waits for more bytes of a head. Returns false if there will be none: the client is gone, or the timeout is over.
    pub(super) fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
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
    pub(super) fn has_begun_head(&self) -> bool {
        !self.read_ahead.bytes().iter().all(|byte| b"\r\n".contains(byte))
    }

    /// Reads ahead while a response is on its way, to notice when the client leaves. Returns false when it has left.
    ///
    /// After more than [`EARLY_HEADS`] heads of the largest size, changes to `Excess`: nothing that the client sends
    /// after that is read as a request.
    pub(super) fn poll_read_ahead(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
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
    pub(super) fn poll_disconnect(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
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

    pub(super) fn mark_client_gone(&mut self) {
        self.is_client_gone = true;
        self.read_state = ReadState::Done;
    }

    /// Prepares the response to a refused head and stops reading. hyper then sees the end of the stream and shuts down,
    /// and `poll_shutdown` writes the response.
    pub(super) fn refuse_head(&mut self, refusal: &Refusal) {
        self.refusal_bytes = (self.refuse)(self.read_ahead.bytes(), refusal);
        self.read_state = ReadState::Done;
        self.has_stopped_reading = true;
    }
}
