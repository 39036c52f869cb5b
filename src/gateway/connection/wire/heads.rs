//! Waits for request heads, and reads ahead while a response is on its way.

use std::io;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{PREFACE, ReadState, WireStream};
use crate::gateway::bounds::{EARLY_HEADS, LINGER_BYTES};
use crate::gateway::connection::head::{self, Framing, HeadScanner};
use crate::refusal::Refusal;

impl<S: AsyncRead + AsyncWrite + Unpin> WireStream<S> {
    /// Reads straight into hyper's buffer while nothing of the next head has been read. Nearly every head arrives whole:
    /// it passes, with what has arrived of its body, and is not copied. Anything else is read ahead. Returns whether hyper
    /// has got something.
    pub(super) fn poll_whole_head(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<bool>> {
        // What is read ahead has the same bound as in `poll_head`.
        let Poll::Ready(received) = self.poll_socket(context, buffer, self.limits.head.size())? else {
            return self.poll_head_timeout(context, false).map(|()| Ok(false));
        };
        if received.is_empty() {
            self.mark_client_gone();
            return Poll::Ready(Ok(false));
        }
        let passed = self.pass_whole_head(&mut buffer.filled_mut()[received.clone()]);
        self.read_ahead.take_back(buffer, received.start + passed);
        if passed == 0 {
            self.start_head_time();
        }
        Poll::Ready(Ok(passed > 0))
    }

    /// Waits for the first bytes of a connection. Returns false if there will be none.
    pub(super) fn poll_first_bytes(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        self.socket.set_limit(self.limits.head.size() as u64);
        match self.read_ahead.poll_append(context, &mut self.socket)? {
            Poll::Pending => self.poll_head_timeout(context, false).map(|()| Ok(false)),
            Poll::Ready(0) => {
                self.mark_client_gone();
                Poll::Ready(Ok(false))
            }
            Poll::Ready(_) => Poll::Ready(Ok(true)),
        }
    }

    /// Checks the first bytes of a head. Returns how many of them hyper gets: the whole head and what has arrived of its
    /// body, or nothing.
    fn pass_whole_head(&mut self, received: &mut [u8]) -> usize {
        if matches!(self.read_state, ReadState::Start) && begins_preface(received) {
            return 0;
        }
        let mut scanner = HeadScanner::default();
        let head = match scanner.advance(received, &self.limits.head) {
            Ok(Some(head)) => head,
            Ok(None) => {
                self.read_state = ReadState::Head(scanner);
                return 0;
            }
            // Found again, and refused, once it has been read ahead.
            Err(_) => {
                self.read_state = ReadState::Head(HeadScanner::default());
                return 0;
            }
        };
        let (head_bytes, rest) = received.split_at_mut(head.length);
        if head.has_upgrade {
            head::hide_upgrade(head_bytes);
        }
        self.begin_request();
        let body = match head.framing {
            Framing::Length(length) => usize::try_from(length).unwrap_or(usize::MAX).min(rest.len()),
            Framing::None | Framing::Chunked => 0,
        };
        self.read_state = ReadState::body(head.framing, body as u64);
        head.length + body
    }

    /// Notes that hyper gets a checked head. Called before hyper gets its first byte, so that a response never finds the
    /// count too low.
    pub(super) fn begin_request(&mut self) {
        self.read_timer.stop();
        self.passed_heads = self.passed_heads.wrapping_add(1);
        self.is_responding = true;
    }

    /// Waits for more bytes of a head. Returns false if there will be none: the client is gone, or the timeout is over.
    pub(super) fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        self.socket.set_limit(u64::MAX);
        let has_begun = self.has_begun_head();
        match self.read_ahead.poll_fill(context, &mut self.socket, self.limits.head.size()) {
            Poll::Ready(Ok(0)) => {
                self.mark_client_gone();
                Poll::Ready(Ok(false))
            }
            Poll::Ready(outcome) => {
                if !has_begun {
                    self.start_head_time();
                }
                Poll::Ready(outcome.map(|_| true))
            }
            Poll::Pending => self.poll_head_timeout(context, has_begun).map(|()| Ok(false)),
        }
    }

    /// Starts the time of a head that may have begun. The time of the first one has been running since the start of the
    /// connection.
    pub(super) fn start_head_time(&mut self) {
        if self.passed_heads != 0 && self.has_begun_head() {
            self.read_timer.start(self.limits.header_timeout);
        }
    }

    /// Ready when the time of a head is over, which ends the connection. Only a client that has begun a request gets a
    /// 408.
    pub(super) fn poll_head_timeout(&mut self, context: &mut Context<'_>, has_begun: bool) -> Poll<()> {
        ready!(self.read_timer.poll(context));
        match has_begun {
            true => self.refuse_head(&Refusal::RequestTimeout("CLIENT_HEADER_TIMEOUT")),
            false => self.read_state = ReadState::Done,
        }
        Poll::Ready(())
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
        let capacity = self.limits.head.size().saturating_mul(EARLY_HEADS);
        // This may stay pending on the socket: `poll_flush` wakes the task when the response is out.
        while self.read_ahead.len() < capacity {
            self.socket.set_limit((capacity - self.read_ahead.len()) as u64);
            if ready!(self.read_ahead.poll_append(context, &mut self.socket))? == 0 {
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
        // What is left of the limit of `poll_read_ahead` is 0, which would look like the end of the stream.
        self.socket.set_limit(u64::MAX);
        while *left > 0 {
            match ready!(self.read_ahead.poll_discard(context, &mut self.socket))? {
                0 => break,
                count => *left = left.saturating_sub(count),
            }
        }
        self.mark_client_gone();
        Poll::Ready(Ok(()))
    }

    /// Notices that the client leaves while a response is on its way and hyper reads nothing. hyper would read too, but into
    /// a buffer of its own for each connection (`half_close` in `listen.rs`).
    ///
    /// # Errors
    /// The client has left, or the system's.
    pub(super) fn watch_client(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        while self.is_responding {
            let seen = match self.read_state {
                ReadState::Head(_) => self.poll_read_ahead(context).map_ok(|_| ()),
                ReadState::Excess(_) => self.poll_disconnect(context),
                _ => break,
            };
            match seen {
                Poll::Pending => break,
                Poll::Ready(outcome) => outcome?,
            }
            if matches!(self.read_state, ReadState::Done) {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
        }
        Ok(())
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

/// Whether these bytes may be the beginning of HTTP/2's preface. `PRI` is no method that HTTP/1.1 uses, so each prefix of
/// the preface is awaited to its end.
pub(super) fn begins_preface(bytes: &[u8]) -> bool {
    let compared = bytes.len().min(PREFACE.len());
    bytes[..compared] == PREFACE[..compared]
}
