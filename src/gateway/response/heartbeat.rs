//! `SSE_HEARTBEAT`: signs of life for a client whose streaming request still waits for its turn.
//!
//! The answer begins before it is known: a 200 and a comment now and then, until the rest of the journey brings either
//! llama-server's own stream, which follows, or something else, which can only be an event by then. Off by default for
//! that reason.

use super::body::ResponseBody;
use super::in_progress::ResponseAborted;
use super::stall_sweeper::{PollOutcome, PollStep, StallSweeper, SweepHandle, Sweepable, TerminationReason};
use crate::gateway::accounting::record::Record;
use crate::gateway::bounds::RETRY_AFTER_UNKNOWN;
use crate::gateway::content_kind::ContentKind;
use crate::refusal::{Refusal, Shape};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use http_body::{Body, Frame};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Interval, MissedTickBehavior};

/// The rest of a journey, from the line to the answer.
pub(super) type PendingResponse =
    Pin<Box<dyn Future<Output = Result<Response<ResponseBody>, (Refusal, Record)>> + Send>>;

/// A comment, which every client of server-sent events skips (HTML standard, section 9.2.6).
const COMMENT: &[u8] = b": waiting\n\n";

/// The body of an answer that has begun before its time.
pub struct Heartbeat {
    state: HeartbeatState,
    comment_timer: Interval,
    shape: Shape,
}

enum HeartbeatState {
    Waiting(SweepHandle<WaitingRequest>),
    /// llama-server answers.
    Responding(ResponseBody),
    /// One more event, and the record that closes with it.
    FinalEvent(Bytes, Option<Record>),
    Done,
}

/// A place in the line, a slot, or a request to llama-server.
struct WaitingRequest(PendingResponse);

impl Sweepable for WaitingRequest {
    fn terminate(&mut self, _: TerminationReason) {}
}

/// Waits for the rest of the journey, and begins the answer when that takes longer than an interval.
pub(crate) async fn respond_with_heartbeats(
    mut rest: PendingResponse,
    interval: Duration,
    shape: Shape,
    holdings: &Arc<StallSweeper>,
) -> Result<Response<ResponseBody>, (Refusal, Record)> {
    if let Ok(outcome) = tokio::time::timeout(interval, &mut rest).await {
        return outcome;
    }
    let mut ticks = tokio::time::interval_at(Instant::now(), interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let state = HeartbeatState::Waiting(SweepHandle::new(holdings, WaitingRequest(rest), None));
    let mut response =
        Response::new(ResponseBody::Heartbeat(Box::new(Heartbeat { state, comment_timer: ticks, shape })));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(response)
}

impl Heartbeat {
    pub(super) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseAborted>>> {
        loop {
            self.state = match &mut self.state {
                HeartbeatState::Waiting(hold) => {
                    let ticks = &mut self.comment_timer;
                    let step = hold.poll_with(|waiting| match waiting.0.as_mut().poll(context) {
                        Poll::Ready(outcome) => PollStep::Last(Some(outcome)),
                        Poll::Pending if ticks.poll_tick(context).is_ready() => PollStep::Item(None),
                        Poll::Pending => PollStep::Pending,
                    });
                    match ready!(step) {
                        PollOutcome::Item(_) => return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(COMMENT))))),
                        PollOutcome::Last(Some(Ok(answer))) => HeartbeatState::Responding(into_event_stream(answer)),
                        PollOutcome::Last(Some(Err((refusal, record)))) => self.final_event(&refusal, Some(record)),
                        PollOutcome::Ended(Some(TerminationReason::ShutDown)) => {
                            self.final_event(&Refusal::ShuttingDown(RETRY_AFTER_UNKNOWN), None)
                        }
                        PollOutcome::Last(None) | PollOutcome::Ended(_) => {
                            self.state = HeartbeatState::Done;
                            return Poll::Ready(Some(Err(ResponseAborted("the client did not read it"))));
                        }
                    }
                }
                HeartbeatState::Responding(answer) => return Pin::new(answer).poll_frame(context),
                HeartbeatState::FinalEvent(event, record) => {
                    let event = std::mem::take(event);
                    if let Some(record) = record {
                        record.add_bytes_out(event.len());
                    }
                    self.state = HeartbeatState::Done;
                    return Poll::Ready(Some(Ok(Frame::data(event))));
                }
                HeartbeatState::Done => return Poll::Ready(None),
            };
        }
    }

    fn final_event(&self, refusal: &Refusal, mut record: Option<Record>) -> HeartbeatState {
        if let Some(record) = &mut record {
            record.status = Some(StatusCode::OK);
            record.code = Some(refusal.code());
            record.complete = true;
        }
        HeartbeatState::FinalEvent(refusal.event(self.shape), record)
    }
}

/// llama-server's answer as it may follow comments: a stream as it is, anything else as one event.
fn into_event_stream(answer: Response<ResponseBody>) -> ResponseBody {
    let (head, answer) = answer.into_parts();
    match answer {
        ResponseBody::Proxied(passed)
            if head.status != StatusCode::OK || ContentKind::of(&head.headers) != ContentKind::Stream =>
        {
            ResponseBody::Proxied(passed.into_single_event(head.status))
        }
        answer => answer,
    }
}

#[cfg(test)]
#[path = "heartbeat_tests.rs"]
mod tests;
