//! The body of a worker's response, which gives its connection back at its end.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::worker_connection::WorkerConnection;
use super::worker_pool::WorkerPool;

/// The body of a response. Dropping it before its end closes the connection.
pub(crate) struct WorkerBody {
    body: Incoming,
    /// What reads it, until its end.
    held: Option<HeldConnection>,
}

/// A connection that reads a body, and where it goes after that.
pub(super) struct HeldConnection {
    pub(super) connection: WorkerConnection,
    pub(super) pool: Arc<WorkerPool>,
    /// Whether the worker is known to leave the connection open.
    pub(super) may_be_kept: bool,
    /// Whether a piece may have been read already: the first one often comes with the head.
    pub(super) has_arrived: bool,
}

impl HeldConnection {
    /// Returns the next piece of the body.
    fn poll_next(&mut self, body: &mut Incoming, task: &Waker) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if std::mem::take(&mut self.has_arrived) {
            let arrived = self.connection.poll_arrived(body);
            if arrived.is_ready() {
                return arrived;
            }
        }
        self.connection.poll(task);
        self.connection.poll_arrived(body)
    }
}

impl WorkerBody {
    /// Reads a body through the connection on which its head has arrived.
    pub(super) fn new(body: Incoming, held: HeldConnection) -> Self {
        let mut body = Self { body, held: Some(held) };
        if body.body.is_end_stream() {
            body.give_back();
        }
        body
    }

    /// Reads a body whose connection is driven elsewhere.
    #[cfg(test)]
    pub(crate) fn detached(body: Incoming) -> Self {
        Self { body, held: None }
    }

    fn give_back(&mut self) {
        if let Some(HeldConnection { connection, pool, may_be_kept, .. }) = self.held.take() {
            pool.give_back(connection, may_be_kept);
        }
    }
}

impl Body for WorkerBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let Some(held) = &mut this.held else { return Pin::new(&mut this.body).poll_frame(context) };
        let next = held.poll_next(&mut this.body, context.waker());
        match &next {
            Poll::Pending => {}
            // The end of a body of known length is known with its last bytes. Those who read it may not ask again.
            Poll::Ready(Some(Ok(_))) if !this.body.is_end_stream() => {}
            Poll::Ready(Some(Ok(_)) | None) => this.give_back(),
            Poll::Ready(Some(Err(_))) => this.held = None,
        }
        next
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
