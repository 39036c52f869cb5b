//! The answer's body, and with it everything that a request holds.
//!
//! The record, the ticket and the lease are held by the body that streams to the client, so the end of the answer, a
//! client that leaves and a llama-server that dies all release them by the same drop. From a client that does not read,
//! `stall_sweeper.rs` takes them. What is held, and what comes next of llama-server's answer, is `in_progress.rs`'s; this file
//! gives it to hyper, and says what is left to say once it is gone.

use super::heartbeat::Heartbeat;
use super::in_progress::{InProgress, NextPiece, ResponseAborted, UpstreamAnswer};
use super::sse::SseTail;
use super::stall_sweeper::{PollOutcome, SweepHandle, TerminationReason};
use crate::gateway::accounting::record::Record;
use crate::gateway::bounds::RETRY_AFTER_UNKNOWN;
use crate::refusal::{Refusal, Shape};
use bytes::Bytes;
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// A body that the gateway sends.
pub enum ResponseBody {
    /// Made by the gateway.
    Local(Option<Bytes>, RecordGuard),
    /// Passed on from llama-server.
    Proxied(ProxiedBody),
    /// Begun before its time.
    Heartbeat(Box<Heartbeat>),
}

/// The record of an answer that the gateway made itself.
pub struct RecordGuard(#[expect(dead_code, reason = "held for its drop")] Option<Record>);

/// An answer on its way from llama-server to the client.
pub struct ProxiedBody {
    handle: SweepHandle<InProgress>,
    shape: Shape,
    /// Whether its last word can be an event.
    ends_with_event: bool,
    /// Of what can end with an event: where the last piece has left the client.
    tail: SseTail,
    /// Whether the last piece has gone out, or there never was one.
    is_over: bool,
    /// Whether the end mark of a stream has gone out: no error may follow it.
    has_sent_end_mark: bool,
    /// The cut that comes next.
    pending_abort: Option<ResponseAborted>,
    hint: SizeHint,
}

impl ResponseBody {
    pub(crate) fn local(bytes: Bytes, mut record: Record) -> Self {
        if !record.is_head_request() {
            record.add_bytes_out(bytes.len());
        }
        record.complete = true;
        Self::Local((!bytes.is_empty()).then_some(bytes), RecordGuard(Some(record)))
    }

    /// A body that nobody keeps account of: the health port's.
    pub(crate) fn unrecorded(bytes: Bytes) -> Self {
        Self::Local((!bytes.is_empty()).then_some(bytes), RecordGuard(None))
    }
}

impl ProxiedBody {
    pub(crate) fn new(answer: UpstreamAnswer<'_>) -> Self {
        let shape = answer.route.shape;
        let timeouts = &answer.timeouts;
        let in_band = timeouts.idle_timeout.is_some();
        let hint = if in_band { SizeHint::default() } else { answer.body.size_hint() };
        let (holdings, deadline) = (timeouts.sweeper, (!in_band).then_some(timeouts.deadline));
        let holding = InProgress::new(answer);
        let over = holding.is_over();
        let hold = SweepHandle::new(holdings, holding, deadline);
        Self {
            handle: hold,
            shape,
            ends_with_event: in_band,
            tail: SseTail::new(),
            is_over: over,
            has_sent_end_mark: false,
            pending_abort: None,
            hint,
        }
    }

    /// Makes one event of it, for a client that has been promised a stream. The record says what this client sees.
    pub(super) fn into_single_event(mut self, status: StatusCode) -> Self {
        self.handle.update(|holding| holding.wrap_as_event(status));
        (self.ends_with_event, self.is_over, self.hint) = (true, false, SizeHint::default());
        self
    }

    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<NextPiece> {
        if let Some(cut) = self.pending_abort.take() {
            return Poll::Ready(Some(Err(cut)));
        }
        let tail = self.tail;
        let mut has_ended = self.has_sent_end_mark;
        let step = self.handle.poll_with(|holding| {
            let step = holding.next_piece(context, tail);
            has_ended |= holding.has_sent_end_mark();
            step
        });
        self.has_sent_end_mark = has_ended;
        let next = match ready!(step) {
            PollOutcome::Item(next) => next,
            PollOutcome::Last(next) => {
                self.is_over = true;
                next
            }
            PollOutcome::Ended(why) => self.after_termination(why),
        };
        if let Some(Ok(piece)) = &next
            && self.ends_with_event
        {
            self.tail.push(piece);
        }
        self.hint = SizeHint::default();
        if let Some(Err(cut)) = next {
            // hyper drops what it has not sent when a body fails. It sends when a body makes it wait, and without a head
            // the client could not tell a cut answer from none.
            self.pending_abort = Some(cut);
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(next)
    }

    /// What is left to say once nothing is held.
    fn after_termination(&mut self, why: Option<TerminationReason>) -> NextPiece {
        let why = why.filter(|_| !self.is_over && !self.has_sent_end_mark);
        self.is_over = true;
        let why = why?;
        let refusal = match why {
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
            Self::Proxied(passed) => passed.poll_piece(context).map(|piece| piece.map(|piece| piece.map(Frame::data))),
            Self::Heartbeat(heartbeat) => heartbeat.poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Local(bytes, _) => bytes.is_none(),
            Self::Proxied(passed) => passed.is_over && passed.pending_abort.is_none(),
            Self::Heartbeat(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Local(bytes, _) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Proxied(passed) => passed.hint,
            Self::Heartbeat(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
#[path = "body_tests.rs"]
mod tests;
