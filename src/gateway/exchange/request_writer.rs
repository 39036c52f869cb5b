//! What is left to be written of a request: of its head, and of the pieces of its body.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes};
use http_body::Body;

use super::worker_socket::WorkerSocket;
use crate::gateway::request::body::RequestBody;
use crate::gateway::spare_memory;

/// A request that is being written.
#[derive(Default)]
pub(super) struct RequestWriter {
    head: Vec<u8>,
    /// How many bytes of the head have been written.
    head_written: usize,
    /// What is left of the current piece of the body.
    piece: Bytes,
    /// The pieces after it.
    body: Option<RequestBody>,
    /// Whether TLS may still hold some of it.
    must_flush: bool,
    /// Whether the worker takes no more.
    has_failed: bool,
}

impl RequestWriter {
    /// Begins with the first byte of the head.
    pub(super) fn new(head: Vec<u8>, body: RequestBody) -> Self {
        Self { head, body: Some(body), must_flush: true, ..Self::default() }
    }

    /// Returns whether the worker has the whole request.
    pub(super) fn is_done(&self) -> bool {
        !self.must_flush && !self.has_failed
    }

    /// Writes what the socket takes. A worker that takes no more may have answered already, so that is no error here.
    pub(super) fn poll(&mut self, context: &mut Context<'_>, socket: &mut WorkerSocket) {
        if !self.must_flush {
            return;
        }
        match self.poll_write(context, socket) {
            Poll::Pending => {}
            Poll::Ready(Ok(())) => {
                spare_memory::keep_buffer(std::mem::take(&mut self.head));
                *self = Self::default();
            }
            Poll::Ready(Err(_)) => *self = Self { has_failed: true, ..Self::default() },
        }
    }

    fn poll_write(&mut self, context: &mut Context<'_>, socket: &mut WorkerSocket) -> Poll<io::Result<()>> {
        loop {
            if self.piece.is_empty() {
                self.piece = self.next_piece().unwrap_or_default();
            }
            let head = &self.head[self.head_written..];
            if head.is_empty() && self.piece.is_empty() {
                return socket.poll_flush(context);
            }
            let written = ready!(socket.poll_write(context, &[IoSlice::new(head), IoSlice::new(&self.piece)]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_head = written.min(head.len());
            self.head_written += of_head;
            self.piece.advance(written - of_head);
        }
    }

    /// Takes the next piece of the body. They are all there: none is waited for.
    fn next_piece(&mut self) -> Option<Bytes> {
        let body = self.body.as_mut()?;
        match Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(Ok(frame))) => frame.into_data().ok(),
            Poll::Ready(None) | Poll::Pending => None,
        }
    }
}
