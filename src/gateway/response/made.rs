//! A body that the gateway makes piece by piece, such as the events of a download.
//!
//! A piece is made when the client has room for it. A client that does not read loses its body as any other does.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Frame;

use super::in_progress::ResponseAborted;
use super::stall_sweeper::{PollOutcome, PollStep, StallSweeper, SweepHandle, Sweepable, TerminationReason};
use crate::gateway::accounting::record::Record;

/// What makes the next piece, and says what makes the one after it; `None` at the end.
pub(crate) struct NextMade(pub(crate) Pin<Box<dyn Future<Output = Option<(Bytes, NextMade)>> + Send>>);

/// A body that is made piece by piece.
pub struct MadeBody(SweepHandle<MadePieces>);

struct MadePieces {
    next: NextMade,
    record: Record,
}

impl Sweepable for MadePieces {
    fn terminate(&mut self, _: TerminationReason) {}
}

impl MadeBody {
    pub(super) fn new(next: NextMade, record: Record, sweeper: &Arc<StallSweeper>) -> Self {
        Self(SweepHandle::new(sweeper, MadePieces { next, record }, None))
    }

    pub(super) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseAborted>>> {
        let step = self.0.poll_with(|pieces| match pieces.next.0.as_mut().poll(context) {
            Poll::Pending => PollStep::Pending,
            Poll::Ready(Some((piece, next))) => {
                pieces.next = next;
                pieces.record.add_bytes_out(piece.len());
                PollStep::Item(Some(piece))
            }
            Poll::Ready(None) => {
                pieces.record.complete = true;
                PollStep::Last(None)
            }
        });
        match ready!(step) {
            PollOutcome::Item(Some(piece)) => Poll::Ready(Some(Ok(Frame::data(piece)))),
            PollOutcome::Ended(Some(TerminationReason::Stalled)) => {
                Poll::Ready(Some(Err(ResponseAborted("the client did not read it"))))
            }
            PollOutcome::Item(None) | PollOutcome::Last(_) | PollOutcome::Ended(_) => Poll::Ready(None),
        }
    }
}
