//! Whose turn it is to write: how the wire knows which requests have been answered.

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};

/// The requests of one connection, counted from both sides of hyper.
#[derive(Debug, Default)]
pub(in crate::gateway) struct Turns {
    begun: AtomicU32,
    ended: AtomicU32,
}

/// Held by a request, and then by its answer, until hyper has taken the answer's last byte.
#[derive(Debug)]
pub(in crate::gateway) struct Turn(Arc<Turns>);

/// An answer's body that holds its turn.
#[derive(Debug)]
pub(in crate::gateway) struct InTurn<B> {
    body: B,
    _turn: Turn,
}

impl Turns {
    /// A request has come out of hyper.
    pub(in crate::gateway) fn begin(self: &Arc<Self>) -> Turn {
        self.begun.fetch_add(1, Ordering::AcqRel);
        Turn(Arc::clone(self))
    }

    pub(super) fn begun(&self) -> u32 {
        self.begun.load(Ordering::Acquire)
    }

    pub(super) fn ended(&self) -> u32 {
        self.ended.load(Ordering::Acquire)
    }
}

impl Turn {
    /// Goes on with the answer.
    pub(in crate::gateway) fn with<B>(self, body: B) -> InTurn<B> {
        InTurn { body, _turn: self }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::AcqRel);
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for InTurn<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
