//! Responses over HTTP/2, of which a client can leave one unread and read the others.
//!
//! hyper polls the body of such a response only when the client's flow-control window has room (RFC 9113, section 5.2).
//! A body that is not polled cannot notice that it has stalled, and would hold its slot for ever. So the wire checks
//! all responses of its connection.

use std::error::Error;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::Version;
use http_body::{Body, Frame, SizeHint};

use super::requests::{ConnectionRequests, RequestGuard, StallCheck, lock};
use crate::gateway::bounds::HTTP2_PIECE;
use crate::pause_clock::ActiveInstant;

/// A response body that holds its [`RequestGuard`].
pub(crate) enum GuardedBody<B> {
    /// HTTP/1.1: a client that does not read stalls the whole connection, which the write timeout notices.
    Plain(B, #[expect(dead_code, reason = "held for its drop")] RequestGuard),
    Multiplexed(MultiplexedBody<B>),
}

/// The body of an HTTP/2 response, which the wire can abandon.
pub(crate) struct MultiplexedBody<B> {
    /// Its key in [`ConnectionRequests`].
    number: u32,
    requests: Arc<ConnectionRequests>,
    response: Arc<Mutex<Http2Response<B>>>,
}

struct Http2Response<B> {
    /// `None` once it has been abandoned.
    body: Option<(B, RequestGuard)>,
    /// The rest of a large piece. Only small pieces ([`HTTP2_PIECE`]) show whether the client reads on.
    rest: Bytes,
    /// Since when the response has been waiting for the client; `None` while it waits for the backend.
    unread_since: Option<ActiveInstant>,
}

type SentFrame = Result<Frame<Bytes>, Box<dyn Error + Send + Sync>>;

/// The error of a body that was abandoned because its client did not read on.
#[derive(Debug, thiserror::Error)]
#[error("the client does not read the response")]
struct ResponseStalled;

impl RequestGuard {
    /// Attaches the guard to the body of the response, which is sent over this version of HTTP.
    pub(crate) fn guard_body<B: Send + 'static>(self, body: B, version: Version) -> GuardedBody<B> {
        match version {
            Version::HTTP_2 => GuardedBody::Multiplexed(MultiplexedBody::new(Arc::clone(&self.0), self, body)),
            _ => GuardedBody::Plain(body, self),
        }
    }
}

impl<B: Send + 'static> MultiplexedBody<B> {
    pub(super) fn new(requests: Arc<ConnectionRequests>, guard: RequestGuard, body: B) -> Self {
        let response =
            Http2Response { body: Some((body, guard)), rest: Bytes::new(), unread_since: Some(ActiveInstant::now()) };
        let response = Arc::new(Mutex::new(response));
        let checked: Arc<dyn StallCheck> = Arc::clone(&response) as _;
        let mut responses = lock(&requests.responses.0);
        // A number only has to be unused: the highest one in use, plus one.
        let number = responses.last_key_value().map_or(0, |(last, _)| last.wrapping_add(1));
        responses.insert(number, Arc::downgrade(&checked));
        drop(responses);
        Self { number, requests, response }
    }
}

impl<B> Drop for MultiplexedBody<B> {
    fn drop(&mut self) {
        lock(&self.requests.responses.0).remove(&self.number);
    }
}

impl<B: Send> StallCheck for Mutex<Http2Response<B>> {
    fn abandon_if_stalled(&self, stall: Duration) -> Option<Duration> {
        let mut response = lock(self);
        let left = stall.saturating_sub(response.unread_since?.elapsed());
        if !left.is_zero() {
            return Some(left);
        }
        (response.rest, response.unread_since) = (Bytes::new(), None);
        let body = response.body.take();
        // Unlock first: dropping the body runs foreign code, which gives back the slot and closes the record.
        drop(response);
        drop(body);
        None
    }
}

impl<B: Body<Data = Bytes> + Unpin> Http2Response<B>
where
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    /// Polls the body for at most [`HTTP2_PIECE`] bytes.
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<SentFrame>> {
        let Some((body, _)) = &mut self.body else { return Poll::Ready(Some(Err(ResponseStalled.into()))) };
        if self.rest.is_empty() {
            // While the body is pending, it is the backend that is slow, not the client.
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
        let response = lock(&self.response);
        response.rest.is_empty() && response.body.as_ref().is_some_and(|(body, _)| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let response = lock(&self.response);
        match &response.body {
            Some((body, _)) if response.rest.is_empty() => body.size_hint(),
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
            Self::Multiplexed(response) => Pin::new(response).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Plain(body, _) => body.is_end_stream(),
            Self::Multiplexed(response) => response.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Plain(body, _) => body.size_hint(),
            Self::Multiplexed(response) => response.size_hint(),
        }
    }
}
