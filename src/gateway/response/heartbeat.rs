//! `SSE_HEARTBEAT`: signs of life for a client whose streaming request still waits for its turn.
//!
//! The answer begins before it is known: a 200 and a comment now and then, until the rest of the journey brings either
//! llama-server's own stream, which follows, or something else, which can only be an event by then. Off by default for
//! that reason.

use super::body::Answer;
use super::in_progress::Cut;
use super::stall_sweeper::{Given, Held, Hold, Holdings, Step, Taken};
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
pub(super) type Rest = Pin<Box<dyn Future<Output = Result<Response<Answer>, (Refusal, Record)>> + Send>>;

/// A comment, which every client of server-sent events skips (HTML standard, section 9.2.6).
const COMMENT: &[u8] = b": waiting\n\n";

/// The body of an answer that has begun before its time.
pub struct Heartbeat {
    state: State,
    ticks: Interval,
    shape: Shape,
}

enum State {
    Waiting(Hold<Waiting>),
    /// llama-server answers.
    Answering(Answer),
    /// One more event, and the record that closes with it.
    Last(Bytes, Option<Record>),
    Over,
}

/// A place in the line, a slot, or a request to llama-server.
struct Waiting(Rest);

impl Held for Waiting {
    fn is_taken(&mut self, _: Taken) {}
}

/// Waits for the rest of the journey, and begins the answer when that takes longer than an interval.
pub(crate) async fn keep_company(
    mut rest: Rest,
    interval: Duration,
    shape: Shape,
    holdings: &Arc<Holdings>,
) -> Result<Response<Answer>, (Refusal, Record)> {
    if let Ok(outcome) = tokio::time::timeout(interval, &mut rest).await {
        return outcome;
    }
    let mut ticks = tokio::time::interval_at(Instant::now(), interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let state = State::Waiting(Hold::new(holdings, Waiting(rest), None));
    let mut response = Response::new(Answer::Early(Box::new(Heartbeat { state, ticks, shape })));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(response)
}

impl Heartbeat {
    pub(super) fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        loop {
            self.state = match &mut self.state {
                State::Waiting(hold) => {
                    let ticks = &mut self.ticks;
                    let step = hold.step(|waiting| match waiting.0.as_mut().poll(context) {
                        Poll::Ready(outcome) => Step::Ends(Some(outcome)),
                        Poll::Pending if ticks.poll_tick(context).is_ready() => Step::Gives(None),
                        Poll::Pending => Step::Waits,
                    });
                    match ready!(step) {
                        Given::One(_) => return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(COMMENT))))),
                        Given::Last(Some(Ok(answer))) => State::Answering(fit_for_a_stream(answer)),
                        Given::Last(Some(Err((refusal, record)))) => self.last(&refusal, Some(record)),
                        Given::Gone(Some(Taken::Cut)) => self.last(&Refusal::ShuttingDown(RETRY_AFTER_UNKNOWN), None),
                        Given::Last(None) | Given::Gone(_) => {
                            self.state = State::Over;
                            return Poll::Ready(Some(Err(Cut("the client did not read it"))));
                        }
                    }
                }
                State::Answering(answer) => return Pin::new(answer).poll_frame(context),
                State::Last(event, record) => {
                    let event = std::mem::take(event);
                    if let Some(record) = record {
                        record.sends(event.len());
                    }
                    self.state = State::Over;
                    return Poll::Ready(Some(Ok(Frame::data(event))));
                }
                State::Over => return Poll::Ready(None),
            };
        }
    }

    fn last(&self, refusal: &Refusal, mut record: Option<Record>) -> State {
        if let Some(record) = &mut record {
            record.status = Some(StatusCode::OK);
            record.code = Some(refusal.code());
            record.complete = true;
        }
        State::Last(refusal.event(self.shape), record)
    }
}

/// llama-server's answer as it may follow comments: a stream as it is, anything else as one event.
fn fit_for_a_stream(answer: Response<Answer>) -> Answer {
    let (head, answer) = answer.into_parts();
    match answer {
        Answer::Passed(passed)
            if head.status != StatusCode::OK || ContentKind::of(&head.headers) != ContentKind::Stream =>
        {
            Answer::Passed(passed.wrapped(head.status))
        }
        answer => answer,
    }
}

#[cfg(test)]
#[path = "heartbeat_tests.rs"]
mod tests;
