//! The body of a worker's response, which gives its connection back at its end.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::body_reader::BodyReader;
use super::worker_connection::{BrokenConnection, WorkerConnection};
use super::worker_pool::WorkerPool;

/// The body of a response. Dropping it before its end closes the connection.
pub(crate) struct WorkerBody {
    /// What follows of it.
    rest: BodyReader,
    /// What it is read from, until its end.
    held: Option<HeldConnection>,
    /// A body that is read elsewhere.
    #[cfg(test)]
    detached: Option<hyper::body::Incoming>,
}

/// A connection that a body is read from, and where it goes after that.
pub(super) struct HeldConnection {
    pub(super) connection: Box<WorkerConnection>,
    pub(super) pool: Arc<WorkerPool>,
    /// Whether the worker is known to leave the connection open.
    pub(super) may_be_kept: bool,
}

impl WorkerBody {
    /// Reads a body from the connection on which its head has arrived.
    pub(super) fn new(rest: BodyReader, held: HeldConnection) -> Self {
        let mut body = Self {
            rest,
            held: Some(held),
            #[cfg(test)]
            detached: None,
        };
        body.give_back_at_end();
        body
    }

    /// Reads a body whose connection is driven elsewhere.
    #[cfg(test)]
    pub(crate) fn detached(body: hyper::body::Incoming) -> Self {
        Self { rest: BodyReader::UntilClose, held: None, detached: Some(body) }
    }

    /// Gives the connection back if nothing of the body follows.
    fn give_back_at_end(&mut self) {
        if !self.rest.is_complete() {
            return;
        }
        if let Some(HeldConnection { connection, pool, may_be_kept }) = self.held.take() {
            pool.give_back(connection, may_be_kept);
        }
    }
}

impl Body for WorkerBody {
    type Data = Bytes;
    type Error = BrokenConnection;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenConnection>>> {
        let this = self.get_mut();
        #[cfg(test)]
        if let Some(body) = &mut this.detached {
            let next = ready!(Pin::new(body).poll_frame(context));
            return Poll::Ready(next.map(|next| next.map_err(|error| std::io::Error::other(error).into())));
        }
        let Some(held) = &mut this.held else { return Poll::Ready(None) };
        match ready!(held.connection.poll_piece(context, &mut this.rest)) {
            Ok(Some(piece)) => {
                // The end is often known with the last bytes. Those who read it may not ask again.
                this.give_back_at_end();
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            Ok(None) => {
                // One that ends with its connection is complete now.
                this.rest = BodyReader::Length(0);
                this.give_back_at_end();
                Poll::Ready(None)
            }
            Err(error) => {
                this.held = None;
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        #[cfg(test)]
        if let Some(body) = &self.detached {
            return body.is_end_stream();
        }
        self.rest.is_complete()
    }

    fn size_hint(&self) -> SizeHint {
        #[cfg(test)]
        if let Some(body) = &self.detached {
            return body.size_hint();
        }
        self.rest.length().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
