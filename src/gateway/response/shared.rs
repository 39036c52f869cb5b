//! The body of a response whose pieces come from an answer that others read too, or that was kept.
//!
//! Owns what the response of one client is: its record, its caller, and its end if the client does not read. Where the
//! pieces come from is known to their [`PieceSource`].

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Frame;

use super::in_progress::{NextPiece, ResponseAborted};
use super::stall_sweeper::{PollOutcome, PollStep, StallSweeper, SweepHandle, Sweepable, TerminationReason};
use crate::gateway::accounting::record::Record;
use crate::gateway::admission::auth::Caller;
use crate::gateway::bounds::RETRY_AFTER_UNKNOWN;
use crate::refusal::Refusal;

/// Where the pieces of a shared answer come from.
pub(crate) trait PieceSource: Send + 'static {
    /// Returns the next piece, the end, or the abort of the answer.
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, ResponseAborted>>>;

    /// Returns whether there is no further piece.
    fn is_over(&self) -> bool;

    /// Returns the code of the error with which the answer has ended as its last event, if it has.
    fn error_code(&self) -> Option<&'static str>;
}

/// One client's share of an answer.
pub(crate) struct SharedAnswer {
    pub(crate) source: Box<dyn PieceSource>,
    /// `None` if the work that makes the answer holds it.
    #[expect(dead_code, reason = "held for its drop")]
    pub(crate) caller: Option<Caller>,
}

/// The body of such a response.
pub struct SharedBody {
    handle: SweepHandle<SharedResponse>,
    /// The abort to return at the next poll.
    pending_abort: Option<ResponseAborted>,
    is_over: bool,
}

struct SharedResponse {
    answer: SharedAnswer,
    /// `None` if the work that makes the answer has it.
    record: Option<Record>,
}

impl SharedResponse {
    fn next_piece(&mut self, context: &mut Context<'_>) -> PollStep<NextPiece> {
        let source = &mut self.answer.source;
        let (next, is_over) = match source.poll_piece(context) {
            Poll::Pending => return PollStep::Pending,
            Poll::Ready(next) => {
                let is_over = !matches!(next, Some(Ok(_))) || source.is_over();
                (next, is_over)
            }
        };
        if let Some(record) = &mut self.record {
            match &next {
                Some(Ok(piece)) => record.add_bytes_out(piece.len()),
                Some(Err(abort)) => record.code = Some(abort.0),
                None => {}
            }
            if is_over {
                record.complete = true;
                record.code = record.code.or(source.error_code());
            }
        }
        if is_over { PollStep::Last(next) } else { PollStep::Item(next) }
    }
}

impl Sweepable for SharedResponse {
    fn terminate(&mut self, reason: TerminationReason) {
        if let (Some(record), TerminationReason::ShutDown) = (&mut self.record, reason) {
            record.code = Some(Refusal::ShuttingDown(RETRY_AFTER_UNKNOWN).code());
            record.complete = true;
        }
    }
}

impl SharedBody {
    /// Begins with the first piece, and registers with the sweeper.
    pub(super) fn new(answer: SharedAnswer, record: Option<Record>, sweeper: &Arc<StallSweeper>) -> Self {
        let handle = SweepHandle::new(sweeper, SharedResponse { answer, record }, None);
        Self { handle, pending_abort: None, is_over: false }
    }

    /// Returns whether there is no further piece.
    pub(super) fn is_over(&self) -> bool {
        self.is_over && self.pending_abort.is_none()
    }

    pub(super) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseAborted>>> {
        if let Some(abort) = self.pending_abort.take() {
            return Poll::Ready(Some(Err(abort)));
        }
        let next = match ready!(self.handle.poll_with(|response| response.next_piece(context))) {
            PollOutcome::Item(next) => next,
            PollOutcome::Last(next) => {
                self.is_over = true;
                next
            }
            PollOutcome::Ended(reason) => {
                let is_cut = !std::mem::replace(&mut self.is_over, true) && reason.is_some();
                is_cut.then_some(Err(ResponseAborted("the client did not read it")))
            }
        };
        if let Some(Err(abort)) = next {
            // As in `ProxiedBody`: hyper sends what it has while a body is pending, and drops it when the body fails.
            self.pending_abort = Some(abort);
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(next.map(|piece| piece.map(Frame::data)))
    }
}
