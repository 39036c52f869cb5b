//! The body of every response, as hyper polls it.
//!
//! The body that streams to the client owns the record, the ticket and the lease of its request. So the end of the
//! response, a client that disconnects and a llama-server that dies all release them with the same drop. If the client
//! does not read, `stall_sweeper.rs` drops them. `in_progress.rs` owns them and produces the pieces; this file hands
//! the pieces to hyper, and produces the last error after the sweeper has ended a response.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};

use super::heartbeat::Heartbeat;
use super::in_progress::{InProgress, NextPiece, ResponseAborted, UpstreamAnswer};
use super::made::{MadeBody, NextMade};
use super::shared::{SharedAnswer, SharedBody};
use super::stall_sweeper::{PollOutcome, StallSweeper, SweepHandle, TerminationReason};
use super::stream::sse_tail::SseTail;
use crate::gateway::accounting::record::Record;
use crate::gateway::bounds::RETRY_AFTER_UNKNOWN;
use crate::refusal::{Refusal, Shape};

/// A body that the gateway sends.
pub enum ResponseBody {
    /// Made by the gateway.
    Local(Option<Bytes>, RecordGuard),
    /// Passed on from llama-server.
    Proxied(ProxiedBody),
    /// Begun before its outcome was known.
    Heartbeat(Box<Heartbeat>),
    /// Made by the gateway, piece by piece.
    Made(MadeBody),
    /// Read from an answer that others read too, or that was kept.
    Shared(SharedBody),
}

/// The record of a response that the gateway made itself.
pub struct RecordGuard(#[expect(dead_code, reason = "held for its drop")] Option<Record>);

/// A response on its way from llama-server to the client.
pub struct ProxiedBody {
    handle: SweepHandle<InProgress>,
    shape: Shape,
    /// Whether an error can still be sent as an event.
    ends_with_event: bool,
    /// Whether a line is whole without a blank one after it.
    is_lines: bool,
    /// The last bytes that were sent, if an event may follow them.
    tail: SseTail,
    /// Whether the last piece has been sent, or there never was one.
    is_over: bool,
    /// Whether the end mark of a stream has been sent; no error may follow it.
    has_sent_end_mark: bool,
    /// The abort to return at the next poll.
    pending_abort: Option<ResponseAborted>,
    hint: SizeHint,
}

impl ResponseBody {
    /// Returns a body that the gateway made, and completes its record.
    pub(crate) fn local(bytes: Bytes, mut record: Record) -> Self {
        if !record.is_head_request() {
            record.add_bytes_out(bytes.len());
        }
        record.complete = true;
        Self::Local((!bytes.is_empty()).then_some(bytes), RecordGuard(Some(record)))
    }

    /// Passes on a response whose head has arrived. If its whole body has too, the request has ended: it waits for nothing
    /// more, and gives up its slot before its client reads.
    pub(crate) fn proxied(mut answer: UpstreamAnswer<'_>) -> Self {
        answer.body.read_what_is_there();
        match answer.ends_at_once() {
            true => Self::Local(InProgress::new(answer).into_whole(), RecordGuard(None)),
            false => Self::Proxied(ProxiedBody::new(answer)),
        }
    }

    /// Returns a body that the gateway makes piece by piece, for a client that has to read them.
    pub(crate) fn made(next: NextMade, record: Record, sweeper: &Arc<StallSweeper>) -> Self {
        Self::Made(MadeBody::new(next, record, sweeper))
    }

    /// Returns the body of one client of a shared answer. The record is `None` if the work that makes the answer has it.
    pub(crate) fn shared(answer: SharedAnswer, record: Option<Record>, sweeper: &Arc<StallSweeper>) -> Self {
        Self::Shared(SharedBody::new(answer, record, sweeper))
    }

    /// Returns a body without a record, for the health port.
    pub(crate) fn unrecorded(bytes: Bytes) -> Self {
        Self::Local((!bytes.is_empty()).then_some(bytes), RecordGuard(None))
    }
}

impl ProxiedBody {
    /// Takes over a response whose head has arrived, and registers it with the sweeper.
    pub(crate) fn new(answer: UpstreamAnswer<'_>) -> Self {
        let (shape, is_lines) = (answer.shape(), answer.lines.is_some());
        let timeouts = &answer.timeouts;
        let ends_with_event = timeouts.idle_timeout.is_some();
        let may_change = ends_with_event || answer.whole_mend.is_some();
        let hint = if may_change { SizeHint::default() } else { answer.body.size_hint() };
        let (sweeper, deadline) = (timeouts.sweeper, (!ends_with_event).then_some(timeouts.deadline));
        let response = InProgress::new(answer);
        let is_over = response.is_over();
        let handle = SweepHandle::new(sweeper, response, deadline);
        Self {
            handle,
            shape,
            ends_with_event,
            is_lines,
            tail: SseTail::new(),
            is_over,
            has_sent_end_mark: false,
            pending_abort: None,
            hint,
        }
    }

    /// Turns the body into one event, for a client that has been promised a stream. The record then shows the status
    /// that this client sees.
    pub(super) fn into_single_event(mut self, status: StatusCode) -> Self {
        self.handle.update(|response| response.wrap_as_event(status));
        (self.ends_with_event, self.is_over, self.hint) = (true, false, SizeHint::default());
        self
    }

    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<NextPiece> {
        if let Some(abort) = self.pending_abort.take() {
            return Poll::Ready(Some(Err(abort)));
        }
        let tail = self.tail;
        let mut has_sent_end_mark = self.has_sent_end_mark;
        let step = self.handle.poll_with(|response| {
            let step = response.next_piece(context, tail);
            has_sent_end_mark |= response.has_sent_end_mark();
            step
        });
        self.has_sent_end_mark = has_sent_end_mark;
        let next = match ready!(step) {
            PollOutcome::Item(next) => next,
            PollOutcome::Last(next) => {
                self.is_over = true;
                next
            }
            PollOutcome::Ended(reason) => self.after_termination(reason),
        };
        if let Some(Ok(piece)) = &next
            && self.ends_with_event
            && !self.is_lines
        {
            self.tail.push(piece);
        }
        self.hint = SizeHint::default();
        if let Some(Err(abort)) = next {
            // When a body fails, hyper drops what it has not sent yet, perhaps even the head; the client could then not
            // tell an aborted response from no response. hyper sends its buffer when a body is pending, so the error
            // waits for one poll.
            self.pending_abort = Some(abort);
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(next)
    }

    /// Returns the last item for the client after the sweeper has dropped the response.
    fn after_termination(&mut self, reason: Option<TerminationReason>) -> NextPiece {
        let reason = reason.filter(|_| !self.is_over && !self.has_sent_end_mark);
        self.is_over = true;
        let reason = reason?;
        let refusal = match reason {
            TerminationReason::Stalled => return Some(Err(ResponseAborted("the client did not read it"))),
            TerminationReason::TimedOut => Refusal::BackendTimeout,
            TerminationReason::ShutDown => Refusal::ShuttingDown(RETRY_AFTER_UNKNOWN),
        };
        Some(if self.ends_with_event {
            Ok(self.tail.separated(refusal.event(self.shape)))
        } else {
            Err(ResponseAborted(refusal.code()))
        })
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = ResponseAborted;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseAborted>>> {
        match self.get_mut() {
            Self::Local(bytes, _) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Proxied(proxied) => {
                proxied.poll_piece(context).map(|piece| piece.map(|piece| piece.map(Frame::data)))
            }
            Self::Heartbeat(heartbeat) => heartbeat.poll_frame(context),
            Self::Made(made) => made.poll_frame(context),
            Self::Shared(shared) => shared.poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Local(bytes, _) => bytes.is_none(),
            Self::Proxied(proxied) => proxied.is_over && proxied.pending_abort.is_none(),
            Self::Shared(shared) => shared.is_over(),
            Self::Heartbeat(_) | Self::Made(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Local(bytes, _) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Proxied(proxied) => proxied.hint,
            Self::Heartbeat(_) | Self::Made(_) | Self::Shared(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
#[path = "body_tests.rs"]
mod tests;
