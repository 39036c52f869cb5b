//! Whose turn it is to write: how the wire knows which requests have been answered, and since when there are none.

use super::multiplexed::{Answers, Multiplexed};
use crate::awake::Instant;
use bytes::Bytes;
use http::Version;
use http_body::{Body, Frame, SizeHint};
use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

/// The requests of one connection, counted from both sides of hyper.
pub(in crate::gateway) struct Turns {
    opened: Instant,
    begun: AtomicU32,
    ended: AtomicU32,
    /// Nanoseconds from the connection's begin to the end of the last turn.
    last_end: AtomicU64,
    /// Those of HTTP/2 that are on their way.
    pub(super) answers: Answers,
}

/// Held by a request, and then by its answer, until hyper has taken the answer's last byte.
pub(in crate::gateway) struct Turn(Arc<Turns>);

/// An answer's body that holds its turn.
pub(in crate::gateway) enum InTurn<B> {
    Alone(B, #[expect(dead_code, reason = "held for its drop")] Turn),
    Multiplexed(Multiplexed<B>),
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
            answers: Answers::default(),
        }
    }
}

impl Turn {
    /// Goes on with the answer, in this version.
    pub(in crate::gateway) fn with<B: Send + 'static>(self, body: B, version: Version) -> InTurn<B> {
        match version {
            Version::HTTP_2 => InTurn::Multiplexed(Multiplexed::new(Arc::clone(&self.0), self, body)),
            _ => InTurn::Alone(body, self),
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let now = u64::try_from(self.0.opened.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.0.last_end.fetch_max(now, Ordering::AcqRel);
        self.0.ended.fetch_add(1, Ordering::AcqRel);
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for InTurn<B>
where
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.get_mut() {
            Self::Alone(body, _) => {
                Pin::new(body).poll_frame(context).map(|frame| frame.map(|frame| frame.map_err(Into::into)))
            }
            Self::Multiplexed(answer) => Pin::new(answer).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Alone(body, _) => body.is_end_stream(),
            Self::Multiplexed(answer) => answer.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Alone(body, _) => body.size_hint(),
            Self::Multiplexed(answer) => answer.size_hint(),
        }
    }
}
