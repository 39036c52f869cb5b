//! What an answer holds while it is on its way, and what comes next of it: pieces, an error as the last event, or a cut.
//!
//! Its drop tells the lease what has become of the request. Whether the client asks for more is not known here.

use super::compute_failure::ComputeFailure;
use super::rename::RenamedBody;
use super::sse::{SseTail, StreamWatcher, data_event};
use super::stall_sweeper::{PollStep, StallSweeper, Sweepable, TerminationReason};
use crate::fleet::Lease;
use crate::gateway::accounting::record::Record;
use crate::gateway::admission::auth::Caller;
use crate::gateway::bounds::{RETRY_AFTER_UNKNOWN, WRAPPED_ANSWER};
use crate::gateway::queue::ticket::Ticket;
use crate::gateway::route::Route;
use crate::pause_clock::{ActiveInstant, ActiveSleep};
use crate::refusal::{Refusal, Shape, event_of_backend};
use bytes::Bytes;
use http::StatusCode;
use http_body::Body;
use hyper::body::Incoming;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio_util::sync::WaitForCancellationFutureOwned;

/// The answer was cut: the connection is closed so that the client can tell it from an end.
#[derive(Debug, thiserror::Error)]
#[error("the answer was cut: {0}")]
pub struct ResponseAborted(pub(crate) &'static str);

/// A piece for the client, the end, or a cut.
pub(super) type NextPiece = Option<Result<Bytes, ResponseAborted>>;

/// How long an answer may take.
pub(crate) struct ResponseTimeouts<'a> {
    /// The whole answer must be out by then; of a stream, its first byte.
    pub(crate) deadline: ActiveInstant,
    /// For a stream: how long it may be silent after each piece.
    pub(crate) idle_timeout: Option<Duration>,
    /// Where it is listed, lest its client does not read it; says too when the service gives up what is in flight.
    pub(crate) sweeper: &'a Arc<StallSweeper>,
}

/// An answer that llama-server has begun, and what its request holds until the end.
pub(crate) struct UpstreamAnswer<'a> {
    pub(crate) status: StatusCode,
    pub(crate) body: RenamedBody<Incoming>,
    pub(crate) route: &'static Route,
    pub(crate) timeouts: ResponseTimeouts<'a>,
    pub(crate) caller: Caller,
    pub(crate) record: Record,
    pub(crate) ticket: Ticket,
    pub(crate) lease: Lease,
}

/// What an answer holds while it is on its way.
pub(super) struct InProgress {
    upstream: Option<RenamedBody<Incoming>>,
    /// Pieces that may go out.
    ready: VecDeque<Bytes>,
    /// Of an event stream: watches for the ends of its events, and for its own.
    watch: Option<StreamWatcher>,
    mode: RelayMode,
    /// When the wait for the next piece ends.
    deadline: ActiveSleep,
    /// When the last piece of a stream came; none has before its first byte.
    last_piece_at: Option<ActiveInstant>,
    /// What it says of llama-server, as far as that is known.
    compute_failure: ComputeFailure,
    /// Ready when the drain is over.
    aborted: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Ready when llama-server has ended or is being ended, whatever its connections do.
    worker_gone: Pin<Box<WaitForCancellationFutureOwned>>,
    shape: Shape,
    /// The error that follows what is ready.
    final_error: Option<Refusal>,
    record: Record,
    _caller: Caller,
    lease: Lease,
    /// Behind the lease: whoever gets the slot next finds the worker's free too.
    ticket: Ticket,
}

/// How an answer is passed on.
enum RelayMode {
    /// Bytes are bytes.
    Plain,
    /// Whole events are passed on. Holds how long the stream may be silent.
    Stream(Duration),
    /// The client has been promised a stream that this is not: the whole becomes one event.
    Wrapped(StatusCode, Vec<u8>),
}

impl InProgress {
    pub(super) fn new(answer: UpstreamAnswer<'_>) -> Self {
        let UpstreamAnswer { status, body, route, timeouts, caller, record, ticket, lease } = answer;
        let mut holding = Self {
            upstream: Some(body),
            ready: VecDeque::new(),
            watch: timeouts.idle_timeout.map(|_| StreamWatcher::new(route.stream_end)),
            mode: timeouts.idle_timeout.map_or(RelayMode::Plain, RelayMode::Stream),
            deadline: ActiveSleep::until(timeouts.deadline),
            last_piece_at: None,
            compute_failure: ComputeFailure::of_head(status, route.needs_slot),
            aborted: Box::pin(timeouts.sweeper.aborted()),
            worker_gone: Box::pin(lease.gone()),
            shape: route.shape,
            final_error: None,
            record,
            _caller: caller,
            lease,
            ticket,
        };
        // Some bodies are over before anybody asks for more; hyper then never polls them.
        holding.record.complete = holding.is_over();
        holding
    }

    /// Makes one event of it. The record says what this client sees.
    pub(super) fn wrap_as_event(&mut self, status: StatusCode) {
        self.mode = RelayMode::Wrapped(status, Vec::new());
        self.record.complete = false;
        self.record.status = Some(StatusCode::OK);
        if !status.is_success() {
            self.record.code = Some(Refusal::BackendError.code());
        }
    }

    /// What the client gets next. `tail` is what it got last.
    pub(super) fn next_piece(&mut self, context: &mut Context<'_>, tail: SseTail) -> PollStep<NextPiece> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                self.record.add_bytes_out(piece.len());
                let over = self.is_over();
                // A client may well leave once it has seen the end mark.
                self.record.complete |= over || self.has_sent_end_mark();
                return if over { PollStep::Last(Some(Ok(piece))) } else { PollStep::Item(Some(Ok(piece))) };
            }
            if let Some(refusal) = self.final_error.take() {
                let event = tail.separated(refusal.event(self.shape));
                self.record.add_bytes_out(event.len());
                return PollStep::Last(Some(Ok(event)));
            }
            let Some(upstream) = &mut self.upstream else { return PollStep::Last(None) };
            let outcome = match Pin::new(upstream).poll_frame(context) {
                Poll::Pending => match self.poll_failure(context) {
                    Poll::Pending => return PollStep::Pending,
                    Poll::Ready(reason) => self.fail(reason),
                },
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(piece) => self.take(piece),
                    // Trailers are not passed on.
                    Err(_) => Ok(()),
                },
                Poll::Ready(Some(Err(_))) => self.fail(Refusal::BackendError),
                Poll::Ready(None) => self.end(),
            };
            if let Err(cut) = outcome {
                return PollStep::Last(Some(Err(cut)));
            }
        }
    }

    pub(super) fn is_over(&self) -> bool {
        let upstream = match (&self.upstream, &self.mode) {
            (None, _) => true,
            (Some(upstream), RelayMode::Plain) => upstream.is_end_stream(),
            // They have more to say when it ends.
            (Some(_), _) => false,
        };
        upstream && self.ready.is_empty() && self.final_error.is_none()
    }

    /// Whether the end mark of a stream has gone out.
    pub(super) fn has_sent_end_mark(&self) -> bool {
        let has_end_mark = self.stream_watch().is_some_and(StreamWatcher::has_end_mark);
        has_end_mark && self.ready.is_empty()
    }

    /// The watch of a stream that is passed on as one.
    fn stream_watch(&self) -> Option<&StreamWatcher> {
        self.watch.as_ref().filter(|_| matches!(self.mode, RelayMode::Stream(_)))
    }

    fn take(&mut self, piece: Bytes) -> Result<(), ResponseAborted> {
        let now = ActiveInstant::now();
        if self.compute_failure == ComputeFailure::Possible {
            self.compute_failure = ComputeFailure::of_error(&piece);
        }
        match &mut self.watch {
            Some(watch) => {
                let mut renamer = self.upstream.as_mut().and_then(RenamedBody::stream_renamer);
                let mut tally = self.record.token_counter();
                let mut with_text = false;
                watch.take(&piece, &mut self.ready, |step, out| {
                    if let Some(renamer) = &mut renamer {
                        renamer.take_step(step, out);
                    }
                    if let Some(tally) = &mut tally {
                        with_text |= tally.read_step(step);
                    }
                });
                if with_text {
                    self.record.record_text(now.real().into_std());
                }
            }
            None => {
                if let Some(tally) = self.record.token_counter() {
                    tally.read(&piece);
                }
                self.ready.push_back(piece);
            }
        }
        match self.mode {
            RelayMode::Plain => {}
            RelayMode::Stream(silence) => {
                if self.last_piece_at.replace(now).is_none() {
                    self.deadline.reset(now + silence);
                }
            }
            RelayMode::Wrapped(..) => {
                if !self.gather() {
                    return self.close_with(Refusal::BackendError);
                }
            }
        }
        Ok(())
    }

    /// Moves what may go out to the text of a wrapped answer. Returns whether it fits.
    fn gather(&mut self) -> bool {
        let RelayMode::Wrapped(_, text) = &mut self.mode else { return true };
        let length: usize = self.ready.iter().map(Bytes::len).sum();
        if text.len() + length > WRAPPED_ANSWER {
            self.ready.clear();
            return false;
        }
        self.ready.drain(..).for_each(|piece| text.extend_from_slice(&piece));
        true
    }

    /// The upstream has failed.
    fn fail(&mut self, refusal: Refusal) -> Result<(), ResponseAborted> {
        match refusal {
            Refusal::BackendError => {
                self.lease.record_broken_connection();
                // Perhaps no fault of the upstream's.
                return self.close_with(self.ticket.removal_refusal().unwrap_or(refusal));
            }
            Refusal::BackendTimeout => self.lease.mark_timed_out(),
            _ => {}
        }
        self.close_with(refusal)
    }

    /// There is no more to pass on: an event stream gets the error as its last event, anything else is cut.
    fn close_with(&mut self, refusal: Refusal) -> Result<(), ResponseAborted> {
        self.upstream = None;
        if self.has_sent_end_mark() {
            // The client has all of it; what is missing is the end of llama-server's own body.
            self.record.complete = true;
            return Ok(());
        }
        self.record.code = Some(refusal.code());
        self.record.complete = true;
        if matches!(self.mode, RelayMode::Plain) {
            return Err(ResponseAborted(refusal.code()));
        }
        self.final_error = Some(refusal);
        Ok(())
    }

    /// llama-server ended the body in order. A stream without its end mark was cut by a llama-server that stopped.
    fn end(&mut self) -> Result<(), ResponseAborted> {
        self.upstream = None;
        if let Some(watch) = &mut self.watch {
            watch.flush(&mut self.ready);
        }
        if !self.gather() {
            return self.close_with(Refusal::BackendError);
        }
        match &mut self.mode {
            RelayMode::Plain => {}
            RelayMode::Stream(_) => {
                if !self.watch.as_ref().is_none_or(StreamWatcher::is_complete) {
                    return self.fail(Refusal::BackendError);
                }
            }
            RelayMode::Wrapped(status, text) => {
                let event = match status.is_success() {
                    true => data_event(text),
                    false => event_of_backend(self.shape, *status, text),
                };
                let Some(event) = event else { return self.close_with(Refusal::BackendError) };
                self.ready.push_back(event);
            }
        }
        self.lease.record_answer_end();
        self.record.complete = true;
        Ok(())
    }

    /// Ready with the reason when there is no more waiting for the next piece. After the first piece of a stream, its
    /// timer is moved only when it fires, not with each further piece.
    fn poll_failure(&mut self, context: &mut Context<'_>) -> Poll<Refusal> {
        if self.aborted.as_mut().poll(context).is_ready() {
            return Poll::Ready(Refusal::ShuttingDown(RETRY_AFTER_UNKNOWN));
        }
        if self.worker_gone.as_mut().poll(context).is_ready() {
            return Poll::Ready(Refusal::BackendError);
        }
        loop {
            ready!(Pin::new(&mut self.deadline).poll(context));
            let due = match (&self.mode, self.last_piece_at) {
                (RelayMode::Stream(silence), Some(last_piece)) => Some(last_piece + *silence),
                _ => None,
            };
            match due {
                Some(due) if due > ActiveInstant::now() => self.deadline.reset(due),
                _ => return Poll::Ready(Refusal::BackendTimeout),
            }
        }
    }
}

impl Drop for InProgress {
    /// Before the ticket is given back: whoever is next must not meet a llama-server that is about to be restarted.
    fn drop(&mut self) {
        let in_band = self.stream_watch().and_then(StreamWatcher::error);
        let is_whole = self.record.complete && self.record.code.is_none();
        match in_band.unwrap_or(self.compute_failure) {
            ComputeFailure::Confirmed => self.lease.record_compute_failure(),
            ComputeFailure::RuledOut if is_whole => self.lease.record_success(),
            _ if is_whole => self.lease.record_answer_end(),
            _ => {}
        }
    }
}

impl Sweepable for InProgress {
    fn terminate(&mut self, why: TerminationReason) {
        if self.record.complete {
            return;
        }
        // A client that does not read counts as one that has left.
        self.record.code = match why {
            TerminationReason::Stalled => return,
            TerminationReason::TimedOut => Some(Refusal::BackendTimeout.code()),
            TerminationReason::ShutDown => Some(Refusal::ShuttingDown(RETRY_AFTER_UNKNOWN).code()),
        };
        self.record.complete = true;
    }
}
