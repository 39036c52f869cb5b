//! The state of a response in progress, and its next piece: bytes, an error as the last event, or an abort.
//!
//! Its drop records the outcome of the request in the lease. Whether the client still reads is not known here; see
//! `stall_sweeper.rs`.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body::Body;

use super::compute_failure::ComputeFailure;
use super::line_stream::{LineForm, LineStream};
use super::mend::WholeMend;
use super::piece_wait::PieceWait;
use super::rename::RenamedBody;
use super::stall_sweeper::{PollStep, StallSweeper, Sweepable, TerminationReason};
use super::stream::relay::{EventPath, StepReaders, StreamRelay};
use super::stream::sse_tail::{SseTail, data_event};
use super::stream::watcher::{StreamOutcome, StreamWatcher};
use super::upstream_body::{UpstreamBody, UpstreamError};
use crate::fleet::{Lease, WorkerKind};
use crate::gateway::accounting::record::Record;
use crate::gateway::admission::auth::Caller;
use crate::gateway::bounds::{MENDED_ANSWER, RETRY_AFTER_UNKNOWN, WRAPPED_ANSWER};
use crate::gateway::queue::ticket::Ticket;
use crate::gateway::request::answer_facts::AnswerFacts;
use crate::gateway::routes::route::Route;
use crate::pause_clock::ActiveInstant;
use crate::refusal::{Refusal, Shape, event_of_backend};

/// The response was aborted: the connection is closed, so that the client can tell the abort from a regular end.
#[derive(Debug, thiserror::Error)]
#[error("the answer was cut: {0}")]
pub struct ResponseAborted(pub(crate) &'static str);

impl ResponseAborted {
    /// Returns the refusal for a request whose own response has not begun.
    pub(crate) fn refusal(&self) -> Refusal {
        let likely = [Refusal::BackendTimeout, Refusal::ShuttingDown(RETRY_AFTER_UNKNOWN)];
        likely.into_iter().find(|refusal| refusal.code() == self.0).unwrap_or(Refusal::BackendError)
    }
}

/// A piece for the client, the end (`None`), or an abort.
pub(super) type NextPiece = Option<Result<Bytes, ResponseAborted>>;

/// How long a response may take.
pub(crate) struct ResponseTimeouts<'a> {
    /// When the whole response, or the first byte of a stream, must have been sent.
    pub(crate) deadline: ActiveInstant,
    /// For a stream: the longest time without a byte after each piece.
    pub(crate) idle_timeout: Option<Duration>,
    /// Ends the response if its client does not read it; also reports when the service aborts all responses.
    pub(crate) sweeper: &'a Arc<StallSweeper>,
}

/// A response that llama-server has begun, and what its request holds until the end.
pub(crate) struct UpstreamAnswer<'a> {
    pub(crate) status: StatusCode,
    pub(crate) body: RenamedBody<UpstreamBody>,
    pub(crate) route: &'static Route,
    /// Whether the event that only reports token counts is kept from the client.
    pub(crate) hides_usage: bool,
    /// What the request says about it.
    pub(crate) facts: AnswerFacts,
    /// What mends it, if it is one JSON value and may need that.
    pub(crate) whole_mend: Option<WholeMend>,
    /// How its events are written as lines, for a client of Ollama's API.
    pub(crate) lines: Option<LineForm>,
    pub(crate) timeouts: ResponseTimeouts<'a>,
    pub(crate) caller: Caller,
    pub(crate) record: Record,
    pub(crate) lease: Lease,
    /// After the lease, as in `InProgress`.
    pub(crate) ticket: Ticket,
}

impl UpstreamAnswer<'_> {
    /// Returns the shape in which the client expects an error.
    pub(super) fn shape(&self) -> Shape {
        if self.lines.is_some() { Shape::Ollama } else { self.route.shape }
    }

    /// Returns whether the whole body has arrived and is passed on as it is. Never for a client that asks for a stream: it
    /// may have been promised one before this response came.
    pub(super) fn ends_at_once(&self) -> bool {
        let is_stream = self.facts.asks_for_stream || self.timeouts.idle_timeout.is_some();
        !is_stream && self.whole_mend.is_none() && self.body.is_whole()
    }
}

/// A response in progress, with everything that it releases when it is dropped.
pub(super) struct InProgress {
    upstream: Option<RenamedBody<UpstreamBody>>,
    /// Pieces that may be sent to the client.
    ready: VecDeque<Bytes>,
    /// What becomes of the pieces, if they are a stream that is passed on as one.
    stream: Option<StreamRelay>,
    mode: RelayMode,
    /// What ends the wait for the next piece.
    wait: PieceWait,
    /// What the response shows about llama-server so far.
    compute_failure: ComputeFailure,
    shape: Shape,
    /// The error that follows the pieces in `ready`.
    final_error: Option<Refusal>,
    /// The end mark that follows them, if the worker has left it out.
    missing_mark: Option<Bytes>,
    record: Record,
    _caller: Caller,
    lease: Lease,
    /// Declared after the lease, because fields drop in order: the next request to get this slot must find the worker's
    /// slot free too.
    ticket: Ticket,
}

/// How a response is passed on.
enum RelayMode {
    /// What arrives is passed on: bytes, or the whole events of a stream.
    Plain,
    /// Heartbeats have promised the client a stream, but this is not one: the whole body becomes one event.
    Wrapped(StatusCode, Vec<u8>),
    /// The whole body is gathered, and may be changed.
    Mended(WholeMend, Vec<u8>),
}

impl InProgress {
    /// Takes over a response whose head has arrived.
    pub(super) fn new(answer: UpstreamAnswer<'_>) -> Self {
        let shape = answer.shape();
        let UpstreamAnswer { status, body, route, hides_usage, facts, whole_mend, lines, .. } = answer;
        let UpstreamAnswer { timeouts, caller, record, ticket, lease, .. } = answer;
        let is_local = lease.member().kind == WorkerKind::Local;
        let ResponseTimeouts { deadline, idle_timeout, sweeper } = timeouts;
        let stream = idle_timeout.map(|_| {
            let watcher = match is_local {
                true => StreamWatcher::new(route.stream_end),
                false => StreamWatcher::lenient(route.stream_end, hides_usage),
            };
            let may_mend = is_local && status.is_success();
            let events = if may_mend { EventPath::Undecided(Box::new(facts)) } else { EventPath::Unchanged };
            StreamRelay::new(watcher, events, lines.map(|lines| Box::new(LineStream::new(lines))), route)
        });
        let whole_mend = whole_mend.filter(|_| stream.is_none());
        let mut response = Self {
            upstream: Some(body),
            ready: VecDeque::new(),
            stream,
            mode: whole_mend.map_or(RelayMode::Plain, |mend| RelayMode::Mended(mend, Vec::new())),
            wait: PieceWait::new(deadline, idle_timeout, sweeper),
            compute_failure: ComputeFailure::of_head(status, route.needs_slot),
            shape,
            final_error: None,
            missing_mark: None,
            record,
            _caller: caller,
            lease,
            ticket,
        };
        // An empty body is complete at once, and hyper never polls it.
        response.record.complete = response.is_over();
        response
    }

    /// Ends a response that [ends at once](UpstreamAnswer::ends_at_once). Returns its body.
    pub(super) fn into_whole(mut self) -> Option<Bytes> {
        let piece = self.upstream.as_mut()?.take_whole()?;
        let piece = self.take(piece).ok()??;
        match self.deliver(piece) {
            PollStep::Last(Some(Ok(piece))) | PollStep::Item(Some(Ok(piece))) => Some(piece),
            _ => None,
        }
    }

    /// Turns the response into one event. The record then shows the status that the client sees.
    pub(super) fn wrap_as_event(&mut self, status: StatusCode) {
        self.mode = RelayMode::Wrapped(status, Vec::new());
        self.stream = None;
        self.wait.stop_idle_timeout();
        self.record.complete = false;
        self.record.status = Some(StatusCode::OK);
        if !status.is_success() {
            self.record.code = Some(Refusal::BackendError.code());
        }
    }

    /// Returns what the client gets next. `tail` holds the last bytes that it got.
    pub(super) fn next_piece(&mut self, context: &mut Context<'_>, tail: SseTail) -> PollStep<NextPiece> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return self.deliver(piece);
            }
            if let Some(refusal) = self.final_error.take() {
                let event = tail.separated(refusal.event(self.shape));
                self.record.add_bytes_out(event.len());
                return PollStep::Last(Some(Ok(event)));
            }
            if let Some(mark) = self.missing_mark.take() {
                let mark = tail.separated(mark);
                self.record.add_bytes_out(mark.len());
                return PollStep::Last(Some(Ok(mark)));
            }
            let Some(upstream) = &mut self.upstream else { return PollStep::Last(None) };
            let outcome = match Pin::new(upstream).poll_frame(context) {
                Poll::Pending => match self.wait.poll(context, &self.lease) {
                    Poll::Pending => return PollStep::Pending,
                    Poll::Ready(reason) => self.fail(reason),
                },
                Poll::Ready(Some(Ok(frame))) => match frame.into_data().map(|piece| self.take(piece)) {
                    Ok(Ok(Some(piece))) => return self.deliver(piece),
                    Ok(Err(abort)) => Err(abort),
                    // Trailers are not passed on.
                    Ok(Ok(None)) | Err(_) => Ok(()),
                },
                Poll::Ready(Some(Err(UpstreamError::Connection(_)))) => self.fail(Refusal::BackendError),
                Poll::Ready(Some(Err(UpstreamError::Packed(_)))) => {
                    // Some proxies leave out the end of the packed bytes. After the end mark nothing is missing.
                    if !self.has_sent_end_mark() {
                        self.lease.record_malformed_body();
                    }
                    self.close_with(Refusal::BackendError)
                }
                Poll::Ready(None) => self.end(),
            };
            if let Err(abort) = outcome {
                return PollStep::Last(Some(Err(abort)));
            }
        }
    }

    /// Returns whether there is nothing left to send.
    pub(super) fn is_over(&self) -> bool {
        let upstream = match (&self.upstream, &self.mode) {
            (None, _) => true,
            (Some(upstream), RelayMode::Plain) if self.stream.is_none() => upstream.is_end_stream(),
            // Streams and wrapped responses may still send something when the upstream ends.
            (Some(_), _) => false,
        };
        upstream && self.ready.is_empty() && self.final_error.is_none() && self.missing_mark.is_none()
    }

    /// Returns whether the end mark of a stream has been sent.
    pub(super) fn has_sent_end_mark(&self) -> bool {
        self.stream.as_ref().is_some_and(StreamRelay::has_end_mark) && self.ready.is_empty()
    }

    /// Returns a piece for the client.
    fn deliver(&mut self, piece: Bytes) -> PollStep<NextPiece> {
        self.record.add_bytes_out(piece.len());
        let is_over = self.is_over();
        // Clients often disconnect once they have seen the end mark; that is a complete response.
        self.record.complete |= is_over || self.has_sent_end_mark();
        if is_over { PollStep::Last(Some(Ok(piece))) } else { PollStep::Item(Some(Ok(piece))) }
    }

    /// Takes a piece from the worker, after all before it have been sent: has its tokens counted and its model renamed.
    /// Returns what may be sent of it; more may be ready.
    fn take(&mut self, piece: Bytes) -> Result<Option<Bytes>, ResponseAborted> {
        if self.compute_failure == ComputeFailure::Possible {
            self.compute_failure = ComputeFailure::of_error(&piece);
        }
        if let Some(stream) = &mut self.stream {
            let now = ActiveInstant::now();
            let renamer = self.upstream.as_mut().and_then(RenamedBody::stream_renamer);
            let readers = StepReaders { renamer, token_counter: self.record.token_counter() };
            let texts = stream.take(piece, readers, &mut self.ready);
            // Events that come together have no time between them, but each counts.
            (0..texts).for_each(|_| self.record.record_text(now.real().into_std()));
            self.wait.record_piece(now);
            return Ok(self.ready.pop_front());
        }
        if let Some(token_counter) = self.record.token_counter() {
            token_counter.read(&piece);
        }
        match &mut self.mode {
            RelayMode::Plain => Ok(Some(piece)),
            RelayMode::Wrapped(_, text) if text.len() + piece.len() > WRAPPED_ANSWER => {
                self.close_with(Refusal::BackendError).map(|()| None)
            }
            RelayMode::Mended(_, text) if text.len() + piece.len() > MENDED_ANSWER => {
                // An answer of this length is passed on as it is.
                let text = std::mem::take(text);
                self.mode = RelayMode::Plain;
                self.ready.extend([text.into(), piece].into_iter().filter(|piece: &Bytes| !piece.is_empty()));
                Ok(self.ready.pop_front())
            }
            RelayMode::Wrapped(_, text) | RelayMode::Mended(_, text) => {
                text.extend_from_slice(&piece);
                Ok(None)
            }
        }
    }

    /// Records that the upstream has failed, and ends the response with an error.
    fn fail(&mut self, refusal: Refusal) -> Result<(), ResponseAborted> {
        // After the end mark nothing is missing of the answer, so it is no failure of the worker. Of a llama-server it
        // may still be the first sign that its process is dying.
        let is_whole = self.has_sent_end_mark() && self.lease.member().kind != WorkerKind::Local;
        match refusal {
            _ if is_whole => self.lease.record_answer_end(),
            Refusal::BackendError => {
                self.lease.record_broken_connection();
                // A model that was removed or stopped closes its connections on purpose.
                return self.close_with(self.ticket.stop_refusal().unwrap_or(refusal));
            }
            Refusal::BackendTimeout => self.lease.mark_timed_out(),
            _ => {}
        }
        self.close_with(refusal)
    }

    /// Ends the response with an error: an event stream gets it as its last event, any other response is aborted.
    fn close_with(&mut self, refusal: Refusal) -> Result<(), ResponseAborted> {
        self.upstream = None;
        if self.has_sent_end_mark() {
            // The client has the whole stream; only the end of llama-server's HTTP body is missing.
            self.record.complete = true;
            return Ok(());
        }
        self.record.code = Some(refusal.code());
        self.record.complete = true;
        let ends_with_event = self.stream.is_some() || matches!(self.mode, RelayMode::Wrapped(..));
        if !ends_with_event {
            return Err(ResponseAborted(refusal.code()));
        }
        self.final_error = Some(refusal);
        Ok(())
    }

    /// Handles the regular end of a worker's body. A stream of llama-server without its end mark counts as broken: one
    /// that is being stopped ends its bodies like this. A stream of any other worker is whole if all that it began has
    /// finished; the end mark is added.
    fn end(&mut self) -> Result<(), ResponseAborted> {
        self.upstream = None;
        if let Some(stream) = &mut self.stream {
            match stream.end(&mut self.ready) {
                StreamOutcome::Cut => return self.fail(Refusal::BackendError),
                StreamOutcome::LacksMark(mark) => self.missing_mark = Some(mark),
                StreamOutcome::Complete => {}
            }
        }
        match &mut self.mode {
            RelayMode::Plain => {}
            RelayMode::Wrapped(status, text) => {
                let event = match status.is_success() {
                    true => data_event(text),
                    false => event_of_backend(self.shape, *status, text),
                };
                let Some(event) = event else { return self.close_with(Refusal::BackendError) };
                self.ready.push_back(event);
            }
            RelayMode::Mended(mend, text) => {
                let text = mend.apply(text).unwrap_or_else(|| std::mem::take(text));
                if !text.is_empty() {
                    self.ready.push_back(text.into());
                }
            }
        }
        self.lease.record_answer_end();
        self.record.complete = true;
        Ok(())
    }
}

impl Drop for InProgress {
    /// Records the outcome before the ticket is dropped, so that the next request does not get a llama-server that is
    /// about to be restarted.
    fn drop(&mut self) {
        self.record.streamed_text = self.stream.as_ref().map_or(0, StreamRelay::text_bytes);
        let in_band = self.stream.as_ref().and_then(StreamRelay::error);
        self.record.has_error_event = in_band.is_some();
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
    fn terminate(&mut self, reason: TerminationReason) {
        if self.record.complete {
            return;
        }
        // Without a code the record counts as `client_closed`, which fits a client that does not read.
        self.record.code = match reason {
            TerminationReason::Stalled => return,
            TerminationReason::TimedOut => Some(Refusal::BackendTimeout.code()),
            TerminationReason::ShutDown => Some(Refusal::ShuttingDown(RETRY_AFTER_UNKNOWN).code()),
        };
        self.record.complete = true;
    }
}
