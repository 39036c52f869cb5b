//! Answers over HTTP/2, of which a client can leave one unread and go on with the others.
//!
//! hyper asks such an answer for more only when its client has said that it takes more, so the answer cannot see for
//! itself that it stands still, and would hold its slot for ever. The wire looks after all answers of its connection.

use super::turns::{ConnectionRequests, RequestGuard, StallCheck, lock};
use crate::gateway::bounds::HTTP2_PIECE;
use crate::pause_clock::ActiveInstant;
use bytes::Bytes;
use http::Version;
use http_body::{Body, Frame, SizeHint};
use std::error::Error;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// An answer's body that holds its turn.
pub(crate) enum GuardedBody<B> {
    Plain(B, #[expect(dead_code, reason = "held for its drop")] RequestGuard),
    Multiplexed(MultiplexedBody<B>),
}

/// An answer that the wire can give up.
pub(crate) struct MultiplexedBody<B> {
    number: u32,
    requests: Arc<ConnectionRequests>,
    response: Arc<Mutex<Http2Response<B>>>,
}

struct Http2Response<B> {
    /// None once it is given up.
    body: Option<(B, RequestGuard)>,
    /// What is left of a large piece: only small ones tell how far the client is.
    rest: Bytes,
    /// Since when it is the client that is waited for.
    unread_since: Option<ActiveInstant>,
}

type SentFrame = Result<Frame<Bytes>, Box<dyn Error + Send + Sync>>;

/// The client has not read on.
#[derive(Debug, thiserror::Error)]
#[error("the client does not read the answer")]
struct ResponseStalled;

impl RequestGuard {
    /// Goes on with the answer, in this version.
    pub(crate) fn guard_body<B: Send + 'static>(self, body: B, version: Version) -> GuardedBody<B> {
        match version {
            Version::HTTP_2 => GuardedBody::Multiplexed(MultiplexedBody::new(Arc::clone(&self.0), self, body)),
            _ => GuardedBody::Plain(body, self),
        }
    }
}

impl<B: Send + 'static> MultiplexedBody<B> {
    pub(super) fn new(turns: Arc<ConnectionRequests>, turn: RequestGuard, body: B) -> Self {
        let answer =
            Http2Response { body: Some((body, turn)), rest: Bytes::new(), unread_since: Some(ActiveInstant::now()) };
        let answer = Arc::new(Mutex::new(answer));
        let unread: Arc<dyn StallCheck> = Arc::clone(&answer) as _;
        let mut list = lock(&turns.responses.0);
        let number = list.last_key_value().map_or(0, |(last, _)| last.wrapping_add(1));
        list.insert(number, Arc::downgrade(&unread));
        drop(list);
        Self { number, requests: turns, response: answer }
    }
}

impl<B> Drop for MultiplexedBody<B> {
    fn drop(&mut self) {
        lock(&self.requests.responses.0).remove(&self.number);
    }
}

impl<B: Send> StallCheck for Mutex<Http2Response<B>> {
    fn give_up(&self, stall: Duration) -> Option<Duration> {
        let mut answer = lock(self);
        let left = stall.saturating_sub(answer.unread_since?.elapsed());
        if !left.is_zero() {
            return Some(left);
        }
        (answer.rest, answer.unread_since) = (Bytes::new(), None);
        let body = answer.body.take();
        drop(answer);
        drop(body);
        None
    }
}

impl<B: Body<Data = Bytes> + Unpin> Http2Response<B>
where
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<SentFrame>> {
        let Some((body, _)) = &mut self.body else { return Poll::Ready(Some(Err(ResponseStalled.into()))) };
        if self.rest.is_empty() {
            self.unread_since = None;
            let frame = ready!(Pin::new(body).poll_frame(context));
            self.unread_since = Some(ActiveInstant::now());
            match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(piece))) => self.rest = piece,
                Some(Ok(Err(other))) => return Poll::Ready(Some(Ok(other))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                None => return Poll::Ready(None),
            }
        }
        self.unread_since = Some(ActiveInstant::now());
        let piece = self.rest.split_to(self.rest.len().min(HTTP2_PIECE));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for MultiplexedBody<B>
where
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<SentFrame>> {
        lock(&self.response).poll_piece(context)
    }

    fn is_end_stream(&self) -> bool {
        let answer = lock(&self.response);
        answer.rest.is_empty() && answer.body.as_ref().is_some_and(|(body, _)| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let answer = lock(&self.response);
        match &answer.body {
            Some((body, _)) if answer.rest.is_empty() => body.size_hint(),
            _ => SizeHint::default(),
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for GuardedBody<B>
where
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.get_mut() {
            Self::Plain(body, _) => {
                Pin::new(body).poll_frame(context).map(|frame| frame.map(|frame| frame.map_err(Into::into)))
            }
            Self::Multiplexed(answer) => Pin::new(answer).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Plain(body, _) => body.is_end_stream(),
            Self::Multiplexed(answer) => answer.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Plain(body, _) => body.size_hint(),
            Self::Multiplexed(answer) => answer.size_hint(),
        }
    }
}
