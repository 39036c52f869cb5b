//! The answer's body, and with it everything that a request holds.
//!
//! The record, the ticket and the lease are held by the body that streams to the client, so the end of the answer, a
//! client that leaves and a llama-server that dies all release them by the same drop. From a client that does not read,
//! `stall_sweeper.rs` takes them. What is held, and what comes next of llama-server's answer, is `in_progress.rs`'s; this file
//! gives it to hyper, and says what is left to say once it is gone.

use super::heartbeat::Heartbeat;
use super::in_progress::{Cut, Holding, Next, UpstreamAnswer};
use super::sse::Tail;
use super::stall_sweeper::{Given, Hold, Taken};
use crate::gateway::accounting::record::Record;
use crate::gateway::bounds::RETRY_AFTER_UNKNOWN;
use crate::refusal::{Refusal, Shape};
use bytes::Bytes;
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// A body that the gateway sends.
pub enum Answer {
    /// Made by the gateway.
    Own(Option<Bytes>, OwnRecord),
    /// Passed on from llama-server.
    Passed(Passed),
    /// Begun before its time.
    Early(Box<Heartbeat>),
}

/// The record of an answer that the gateway made itself.
pub struct OwnRecord(#[expect(dead_code, reason = "held for its drop")] Option<Record>);

/// An answer on its way from llama-server to the client.
pub struct Passed {
    hold: Hold<Holding>,
    shape: Shape,
    /// Whether its last word can be an event.
    in_band: bool,
    /// Of what can end with an event: where the last piece has left the client.
    tail: Tail,
    /// Whether the last piece has gone out, or there never was one.
    over: bool,
    /// Whether the end mark of a stream has gone out: no error may follow it.
    has_ended: bool,
    /// The cut that comes next.
    cut: Option<Cut>,
    hint: SizeHint,
}

impl Answer {
    pub(crate) fn own(bytes: Bytes, mut record: Record) -> Self {
        if !record.is_for_head() {
            record.sends(bytes.len());
        }
        record.complete = true;
        Self::Own((!bytes.is_empty()).then_some(bytes), OwnRecord(Some(record)))
    }

    /// A body that nobody keeps account of: the health port's.
    pub(crate) fn unrecorded(bytes: Bytes) -> Self {
        Self::Own((!bytes.is_empty()).then_some(bytes), OwnRecord(None))
    }
}

impl Passed {
    pub(crate) fn new(answer: UpstreamAnswer<'_>) -> Self {
        let shape = answer.route.shape;
        let patience = &answer.patience;
        let in_band = patience.silence.is_some();
        let hint = if in_band { SizeHint::default() } else { answer.body.size_hint() };
        let (holdings, deadline) = (patience.holdings, (!in_band).then_some(patience.deadline));
        let holding = Holding::new(answer);
        let over = holding.is_over();
        let hold = Hold::new(holdings, holding, deadline);
        Self { hold, shape, in_band, tail: Tail::new(), over, has_ended: false, cut: None, hint }
    }

    /// Makes one event of it, for a client that has been promised a stream. The record says what this client sees.
    pub(super) fn wrapped(mut self, status: StatusCode) -> Self {
        self.hold.change(|holding| holding.wrap(status));
        (self.in_band, self.over, self.hint) = (true, false, SizeHint::default());
        self
    }

    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Next> {
        if let Some(cut) = self.cut.take() {
            return Poll::Ready(Some(Err(cut)));
        }
        let tail = self.tail;
        let mut has_ended = self.has_ended;
        let step = self.hold.step(|holding| {
            let step = holding.next(context, tail);
            has_ended |= holding.has_ended();
            step
        });
        self.has_ended = has_ended;
        let next = match ready!(step) {
            Given::One(next) => next,
            Given::Last(next) => {
                self.over = true;
                next
            }
            Given::Gone(why) => self.without_holding(why),
        };
        if let Some(Ok(piece)) = &next
            && self.in_band
        {
            self.tail.follow(piece);
        }
        self.hint = SizeHint::default();
        if let Some(Err(cut)) = next {
            // hyper drops what it has not sent when a body fails. It sends when a body makes it wait, and without a head
            // the client could not tell a cut answer from none.
            self.cut = Some(cut);
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(next)
    }

    /// What is left to say once nothing is held.
    fn without_holding(&mut self, why: Option<Taken>) -> Next {
        let why = why.filter(|_| !self.over && !self.has_ended);
        self.over = true;
        let why = why?;
        let refusal = match why {
            Taken::Stalled => return Some(Err(Cut("the client did not read it"))),
            Taken::Late => Refusal::BackendTimeout,
            Taken::Cut => Refusal::ShuttingDown(RETRY_AFTER_UNKNOWN),
        };
        Some(if self.in_band { Ok(self.tail.before(refusal.event(self.shape))) } else { Err(Cut(refusal.code())) })
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        match self.get_mut() {
            Self::Own(bytes, _) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Passed(passed) => passed.poll_piece(context).map(|piece| piece.map(|piece| piece.map(Frame::data))),
            Self::Early(heartbeat) => heartbeat.poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(bytes, _) => bytes.is_none(),
            Self::Passed(passed) => passed.over && passed.cut.is_none(),
            Self::Early(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(bytes, _) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Passed(passed) => passed.hint,
            Self::Early(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
#[path = "body_tests.rs"]
mod tests;
