//! `SSE_HEARTBEAT`: comments for a client whose streaming request still waits in a queue.
//!
//! The response begins before its outcome is known: with a 200, and a comment (on `/v1/messages` a `ping`) at each interval. llama-server's stream
//! follows when it arrives. Any other outcome can then only be sent as an event, so heartbeats are off by default.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use http_body::{Body, Frame};
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::body::ResponseBody;
use super::in_progress::ResponseAborted;
use super::stall_sweeper::{PollOutcome, PollStep, StallSweeper, SweepHandle, Sweepable, TerminationReason};
use crate::gateway::accounting::record::Record;
use crate::gateway::bounds::RETRY_AFTER_UNKNOWN;
use crate::gateway::content_kind::ContentKind;
use crate::refusal::{Refusal, Shape};

/// The remaining stages of a request, from the queue to the response.
pub(crate) type PendingResponse =
    Pin<Box<dyn Future<Output = Result<Response<ResponseBody>, (Refusal, Record)>> + Send>>;

/// A comment, which every client of server-sent events skips (HTML standard, section 9.2.6).
const COMMENT: &[u8] = b": waiting\n\n";

/// The event that Anthropic's API sends while a client waits. Its clients count it as a sign of life.
const PING: &[u8] = b"event: ping\ndata: {\"type\": \"ping\"}\n\n";

/// The body of a response that began before its outcome was known.
pub struct Heartbeat {
    state: HeartbeatState,
    comment_timer: Interval,
    shape: Shape,
}

enum HeartbeatState {
    Waiting(SweepHandle<WaitingRequest>),
    /// llama-server's response is being passed on.
    Responding(ResponseBody),
    /// One last event, and the record that closes with it.
    FinalEvent(Bytes, Option<Record>),
    Done,
}

/// A request that has a queue entry, a slot, or an attempt at llama-server.
struct WaitingRequest(PendingResponse);

impl Sweepable for WaitingRequest {
    fn terminate(&mut self, _: TerminationReason) {}
}

/// Waits for the remaining stages, and begins the response if they take longer than `interval`.
///
/// # Errors
/// The refusal of the remaining stages, if it comes within the first interval; a later one becomes an event.
pub(crate) async fn respond_with_heartbeats(
    mut rest: PendingResponse,
    interval: Duration,
    shape: Shape,
    sweeper: &Arc<StallSweeper>,
) -> Result<Response<ResponseBody>, (Refusal, Record)> {
    if let Ok(outcome) = tokio::time::timeout(interval, &mut rest).await {
        return outcome;
    }
    let mut timer = tokio::time::interval_at(Instant::now(), interval);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let state = HeartbeatState::Waiting(SweepHandle::new(sweeper, WaitingRequest(rest), None));
    let mut response =
        Response::new(ResponseBody::Heartbeat(Box::new(Heartbeat { state, comment_timer: timer, shape })));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    Ok(response)
}

impl Heartbeat {
    pub(super) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseAborted>>> {
        loop {
            self.state = match &mut self.state {
                HeartbeatState::Waiting(handle) => {
                    let timer = &mut self.comment_timer;
                    let step = handle.poll_with(|waiting| match waiting.0.as_mut().poll(context) {
                        Poll::Ready(outcome) => PollStep::Last(Some(outcome)),
                        Poll::Pending if timer.poll_tick(context).is_ready() => PollStep::Item(None),
                        Poll::Pending => PollStep::Pending,
                    });
                    match ready!(step) {
                        PollOutcome::Item(_) => return Poll::Ready(Some(Ok(Frame::data(heartbeat(self.shape))))),
                        PollOutcome::Last(Some(Ok(response))) => {
                            HeartbeatState::Responding(into_event_stream(response))
                        }
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
                HeartbeatState::Responding(response) => return Pin::new(response).poll_frame(context),
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

/// Returns what a client that expects errors of this shape gets while it waits.
fn heartbeat(shape: Shape) -> Bytes {
    Bytes::from_static(match shape {
        Shape::OpenAi | Shape::Retrieval | Shape::Voyage | Shape::Tei => COMMENT,
        Shape::Anthropic => PING,
        // A blank line, which readers of lines of JSON skip.
        Shape::Ollama => b"\n",
    })
}

/// Returns llama-server's response in a form that may follow comments: a stream as it is, any other as one event.
fn into_event_stream(response: Response<ResponseBody>) -> ResponseBody {
    let (head, response) = response.into_parts();
    match response {
        ResponseBody::Proxied(proxied)
            if head.status != StatusCode::OK || ContentKind::of(&head.headers) != ContentKind::Stream =>
        {
            ResponseBody::Proxied(proxied.into_single_event(head.status))
        }
        response => response,
    }
}

#[cfg(test)]
#[path = "heartbeat_tests.rs"]
mod tests;
