//! An answer in flight: the work that makes it, and what has come of it so far.
//!
//! Every client that reads the answer owns the flight. The work is done by whichever of them polls while nothing new has
//! come, so a client that is slow, or leaves, holds back no other. With the last of them the flight is dropped, and with
//! it the work: the request is cancelled upstream, or leaves its queue.

use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use http::Response;
use http::header::CONTENT_LENGTH;
use http_body::Body as _;

use super::flight_terms::FlightTerms;
use super::flight_waiters::FlightWaiters;
use super::kept_answer::SharedHead;
use super::open_flights::OpenFlights;
use super::shared_pieces::{Seat, SharedPieces};
use crate::gateway::accounting::record::Record;
use crate::gateway::accounting::verdict::Verdict;
use crate::gateway::response::body::ResponseBody;
use crate::gateway::response::heartbeat::PendingResponse;
use crate::gateway::response::in_progress::ResponseAborted;
use crate::refusal::Refusal;
use crate::short_value::number_value;

/// An answer in flight.
pub(in crate::gateway) struct Flight {
    terms: FlightTerms,
    open: Arc<OpenFlights<Self>>,
    verdict: Arc<Verdict>,
    state: Mutex<FlightState>,
    waiters: Arc<FlightWaiters>,
    /// Wakes them.
    waker: Waker,
}

struct FlightState {
    work: FlightWork,
    head: Option<FlightHead>,
    /// The outcome for the client that began the flight, if it is for no other.
    own: Option<FlightOutcome>,
    pieces: SharedPieces,
    end: Option<FlightEnd>,
}

/// What is left to be done.
enum FlightWork {
    NotBegun,
    /// The stages from the queue to the head of the response.
    Head(PendingResponse),
    Body(ResponseBody),
    /// Nothing, or it has panicked.
    Over,
}

/// The outcome of the stages from the queue on.
pub(super) type FlightOutcome = Result<Response<ResponseBody>, (Refusal, Record)>;

/// What a flight has come to.
#[derive(Clone)]
pub(super) enum FlightHead {
    /// Every reader gets this answer.
    Shared(Arc<SharedHead>),
    /// Every reader gets this refusal.
    Refused(Refusal),
    /// What came of it is for the client that began it; the others go on alone.
    Alone,
}

/// How the pieces end.
#[derive(Clone, Copy)]
pub(super) enum FlightEnd {
    /// Regularly, perhaps with an error of this code as the last event.
    Whole(Option<&'static str>),
    /// In the middle, for this reason.
    Cut(&'static str),
}

impl Flight {
    /// Opens a flight, whose work is still to begin.
    pub(super) fn open(terms: FlightTerms, open: &Arc<OpenFlights<Self>>) -> Arc<Self> {
        let waiters = Arc::<FlightWaiters>::default();
        let state = FlightState {
            work: FlightWork::NotBegun,
            head: None,
            own: None,
            pieces: SharedPieces::new(open.store.largest()),
            end: None,
        };
        let (verdict, waker) = (Arc::default(), Waker::from(Arc::clone(&waiters)));
        Arc::new(Self { terms, open: Arc::clone(open), verdict, state: Mutex::new(state), waiters, waker })
    }

    /// Returns how the answer has ended, for the record of the request that makes it.
    pub(super) fn verdict(&self) -> Arc<Verdict> {
        Arc::clone(&self.verdict)
    }

    /// Adds a reader; `None` if the answer cannot be read from its beginning any more, or has too many.
    pub(super) fn join(&self) -> Option<Seat> {
        self.lock().pieces.join()
    }

    /// Begins the work. The readers do it from now on.
    pub(super) fn begin(&self, work: PendingResponse) {
        self.lock().work = FlightWork::Head(work);
        self.waiters.wake_others(Waker::noop());
    }

    /// Lets the readers that have joined go on alone, if the work never began.
    pub(super) fn abandon(&self) {
        let mut state = self.lock();
        if !matches!(state.work, FlightWork::NotBegun) {
            return;
        }
        (state.work, state.head) = (FlightWork::Over, Some(FlightHead::Alone));
        drop(state);
        self.open.close(&self.terms.key, self);
        self.waiters.wake_others(Waker::noop());
    }

    /// Returns whether it is known what the flight has come to.
    pub(super) fn has_head(&self) -> bool {
        self.lock().head.is_some()
    }

    /// Returns what the flight has come to, and does its work until that is known.
    pub(super) fn poll_head(&self, context: &mut Context<'_>) -> Poll<FlightHead> {
        let mut state = self.lock();
        loop {
            if let Some(head) = &state.head {
                return Poll::Ready(head.clone());
            }
            self.waiters.add(context.waker());
            // Taken for the poll: if that panics, there is no work left, and the next reader finds that.
            match mem::replace(&mut state.work, FlightWork::Over) {
                FlightWork::Head(mut work) => match work.as_mut().poll(&mut Context::from_waker(&self.waker)) {
                    Poll::Pending => {
                        state.work = FlightWork::Head(work);
                        return Poll::Pending;
                    }
                    Poll::Ready(outcome) => self.take_outcome(&mut state, outcome),
                },
                FlightWork::NotBegun => {
                    state.work = FlightWork::NotBegun;
                    return Poll::Pending;
                }
                FlightWork::Body(_) | FlightWork::Over => state.head = Some(FlightHead::Alone),
            }
            // Unlocked: a task that ends by being woken may be a reader.
            drop(state);
            self.waiters.wake_others(context.waker());
            state = self.lock();
        }
    }

    /// Returns the outcome that is for the client alone that began the flight, once.
    pub(super) fn take_own(&self) -> Option<FlightOutcome> {
        self.lock().own.take()
    }

    /// Returns the next piece of a reader, and does the work until it has come.
    pub(super) fn poll_piece(
        &self,
        seat: Seat,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<bytes::Bytes, ResponseAborted>>> {
        let mut state = self.lock();
        loop {
            let was_full = state.pieces.is_full();
            if let Some(piece) = state.pieces.next(seat) {
                let has_room = was_full && !state.pieces.is_full();
                drop(state);
                if has_room {
                    self.waiters.wake_others(context.waker());
                }
                return Poll::Ready(Some(Ok(piece)));
            }
            match state.end {
                Some(FlightEnd::Whole(_)) => return Poll::Ready(None),
                Some(FlightEnd::Cut(why)) => return Poll::Ready(Some(Err(ResponseAborted(why)))),
                None => {}
            }
            self.waiters.add(context.waker());
            if was_full {
                return Poll::Pending;
            }
            let FlightWork::Body(mut body) = mem::replace(&mut state.work, FlightWork::Over) else {
                state.end = Some(FlightEnd::Cut("it has failed"));
                continue;
            };
            match Pin::new(&mut body).poll_frame(&mut Context::from_waker(&self.waker)) {
                Poll::Pending => {
                    state.work = FlightWork::Body(body);
                    return Poll::Pending;
                }
                Poll::Ready(next) => self.take_frame(&mut state, next, body),
            }
            // Unlocked: a task that ends by being woken may be a reader.
            drop(state);
            self.waiters.wake_others(context.waker());
            state = self.lock();
        }
    }

    /// Returns whether a reader has read all pieces, and none will follow.
    pub(super) fn is_over(&self, seat: Seat) -> bool {
        let state = self.lock();
        matches!(state.end, Some(FlightEnd::Whole(_))) && state.pieces.has_read_all(seat)
    }

    /// Returns the code of the error with which the answer has ended.
    pub(super) fn error_code(&self) -> Option<&'static str> {
        match self.lock().end {
            Some(FlightEnd::Whole(code)) => code,
            Some(FlightEnd::Cut(_)) | None => None,
        }
    }

    /// Removes a reader. Those that were held back by it go on.
    pub(super) fn leave(&self, seat: Seat) {
        self.lock().pieces.leave(seat);
        self.waiters.wake_others(Waker::noop());
    }

    fn take_outcome(&self, state: &mut FlightState, outcome: FlightOutcome) {
        state.head = Some(match outcome {
            Ok(response) if self.terms.fit(&response) => {
                let (mut head, body) = response.into_parts();
                // The bodies of the readers do not know it.
                if let Some(length) = body.size_hint().exact() {
                    head.headers.entry(CONTENT_LENGTH).or_insert_with(|| number_value(length));
                }
                state.work = FlightWork::Body(body);
                FlightHead::Shared(Arc::new(SharedHead { status: head.status, headers: head.headers }))
            }
            Err((refusal, record)) if !is_of_caller(&refusal) => {
                state.own = Some(Err((refusal.clone(), record)));
                FlightHead::Refused(refusal)
            }
            outcome => {
                state.own = Some(outcome);
                FlightHead::Alone
            }
        });
        if !matches!(state.head, Some(FlightHead::Shared(_))) {
            self.open.close(&self.terms.key, self);
        }
    }

    /// Takes what the body has given. It is dropped with its last piece: its record closes, and says how it has ended.
    fn take_frame(
        &self,
        state: &mut FlightState,
        next: Option<Result<http_body::Frame<bytes::Bytes>, ResponseAborted>>,
        body: ResponseBody,
    ) {
        let is_over = match next {
            Some(Ok(frame)) => {
                if let Ok(piece) = frame.into_data() {
                    state.pieces.push(piece);
                }
                body.is_end_stream()
            }
            Some(Err(abort)) => {
                state.end = Some(FlightEnd::Cut(abort.0));
                true
            }
            None => true,
        };
        if !is_over {
            if state.pieces.whole().is_none() {
                self.open.close(&self.terms.key, self);
            }
            state.work = FlightWork::Body(body);
            return;
        }
        drop(body);
        if state.end.is_none() {
            self.keep_if_good(state);
            state.end = Some(FlightEnd::Whole(self.verdict.code()));
        }
        self.open.close(&self.terms.key, self);
    }

    /// Keeps the answer if it has ended well.
    fn keep_if_good(&self, state: &FlightState) {
        if let (Some(FlightHead::Shared(head)), true) = (&state.head, self.verdict.is_good()) {
            self.open.keep(&self.terms, head, &state.pieces);
        }
    }

    fn lock(&self) -> MutexGuard<'_, FlightState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns whether a refusal is about who asked, which is no answer to others.
fn is_of_caller(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::KeySuspended(_) | Refusal::RateLimited(..) | Refusal::ModelNotAllowed(_))
}

impl Drop for Flight {
    /// Keeps an answer that was whole when its last reader left: many clients leave at the end mark of a stream, before
    /// the end of its body.
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let FlightWork::Body(body) = mem::replace(&mut state.work, FlightWork::Over) {
            drop(body);
            self.keep_if_good(&self.lock());
        }
        self.open.close(&self.terms.key, self);
    }
}

#[cfg(test)]
#[path = "flight_tests.rs"]
mod tests;
