//! Whose turn it is to write: how the wire knows which requests have been answered, and since when there are none.

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;

/// The requests of one connection, counted from both sides of hyper.
#[derive(Debug)]
pub(in crate::gateway) struct Turns {
    opened: Instant,
    begun: AtomicU32,
    ended: AtomicU32,
    /// Nanoseconds from the connection's begin to the end of the last turn.
    last_end: AtomicU64,
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

    /// How long it is nobody's turn; None while it is somebody's.
    pub(super) fn idle(&self) -> Option<Duration> {
        let none = self.begun() == self.ended();
        none.then(|| self.opened.elapsed().saturating_sub(Duration::from_nanos(self.last_end.load(Ordering::Acquire))))
    }
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            opened: Instant::now(),
            begun: AtomicU32::default(),
            ended: AtomicU32::default(),
            last_end: AtomicU64::default(),
        }
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
        let now = u64::try_from(self.0.opened.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.0.last_end.fetch_max(now, Ordering::AcqRel);
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
