//! `SSE_HEARTBEAT`: signs of life for a client whose streaming request still waits for its turn.
//!
//! The answer begins before it is known: a 200 and a comment now and then, until the rest of the journey brings either
//! llama-server's own stream, which follows, or an error, which can only be an event by then. Off by default for that
//! reason.

use super::body::{Answer, Cut};
use super::limits::Bounded;
use super::record::Record;
use crate::refusal::{Refusal, Shape};
use crate::settings::bounds::HELD_EVENT;
use bytes::{Bytes, BytesMut};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use http_body::{Body, Frame};
use serde::Deserialize;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Interval, MissedTickBehavior};

/// The rest of a journey, from the line to the answer.
pub(super) type Rest = Pin<Box<dyn Future<Output = Result<Response<Answer>, (Refusal, Box<Record>)>> + Send>>;

/// A comment, which every client of server-sent events skips (HTML standard, section 9.2.6).
const COMMENT: &[u8] = b": waiting\n\n";

/// The body of an answer that has begun before its time.
pub struct Heartbeat {
    state: State,
    ticks: Interval,
    shape: Shape,
}

enum State {
    Waiting(Rest),
    /// llama-server streams.
    Streaming(Answer),
    /// llama-server refused; its error is gathered.
    Refused(Answer, BytesMut),
    /// One more event, and the record that closes with it.
    Last(Bytes, Option<Box<Record>>),
    Over,
}

/// What has to be known of a request's body.
#[derive(Deserialize)]
struct Peek {
    stream: Option<bool>,
}

/// Whether the client asks for a stream. A body that cannot be read is llama-server's to refuse.
pub(super) fn asks_for_stream(body: &Bounded) -> bool {
    serde_json::from_reader(body.reader()).is_ok_and(|peek: Peek| peek.stream == Some(true))
}

/// Waits for the rest of the journey, and begins the answer when that takes longer than an interval.
pub(super) async fn keep_company(
    mut rest: Rest,
    interval: Duration,
    shape: Shape,
) -> Result<Response<Answer>, (Refusal, Box<Record>)> {
    if let Ok(outcome) = tokio::time::timeout(interval, &mut rest).await {
        return outcome;
    }
    let mut ticks = tokio::time::interval_at(Instant::now(), interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut response = Response::new(Answer::Early(Box::new(Heartbeat { state: State::Waiting(rest), ticks, shape })));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(response)
}

impl Heartbeat {
    pub(super) fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        loop {
            self.state = match &mut self.state {
                State::Waiting(rest) => match rest.as_mut().poll(context) {
                    Poll::Pending => {
                        ready!(self.ticks.poll_tick(context));
                        return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(COMMENT)))));
                    }
                    Poll::Ready(Ok(answer)) if answer.status() == StatusCode::OK => {
                        State::Streaming(answer.into_body())
                    }
                    Poll::Ready(Ok(answer)) => State::Refused(answer.into_body(), BytesMut::new()),
                    Poll::Ready(Err((refusal, record))) => self.last(&refusal, Some(record)),
                },
                State::Streaming(answer) => return Pin::new(answer).poll_frame(context),
                State::Refused(answer, text) => match ready!(Pin::new(answer).poll_frame(context)) {
                    Some(Ok(frame)) if text.len() <= HELD_EVENT => {
                        text.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data.as_ref()));
                        continue;
                    }
                    None => match one_line(text) {
                        Some(error) => State::Last(event(self.shape, &error), None),
                        None => self.last(&Refusal::BackendError, None),
                    },
                    Some(_) => self.last(&Refusal::BackendError, None),
                },
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

    fn last(&self, refusal: &Refusal, mut record: Option<Box<Record>>) -> State {
        if let Some(record) = &mut record {
            record.status = Some(StatusCode::OK);
            record.code = Some(refusal.code());
            record.complete = true;
        }
        State::Last(refusal.event(self.shape), record)
    }
}

fn event(shape: Shape, data: &str) -> Bytes {
    Bytes::from(match shape {
        Shape::OpenAi => format!("data: {data}\n\n"),
        Shape::Anthropic => format!("event: error\ndata: {data}\n\n"),
    })
}

/// llama-server's error as one line of JSON, if it is JSON.
fn one_line(text: &[u8]) -> Option<String> {
    let error: serde_json::Value = serde_json::from_slice(text).ok()?;
    error.get("error").map(|_| error.to_string())
}
