//! Answers over HTTP/2, of which a client can leave one unread and go on with the others.
//!
//! hyper asks such an answer for more only when its client has said that it takes more, so the answer cannot see for
//! itself that it stands still, and would hold its slot for ever. The wire looks after all answers of its connection.

use super::turns::{Turn, Turns, Unread, lock};
use crate::awake::ActiveInstant;
use crate::gateway::bounds::HTTP2_PIECE;
use bytes::Bytes;
use http::Version;
use http_body::{Body, Frame, SizeHint};
use std::error::Error;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// An answer's body that holds its turn.
pub(crate) enum InTurn<B> {
    Alone(B, #[expect(dead_code, reason = "held for its drop")] Turn),
    Multiplexed(Multiplexed<B>),
}

/// An answer that the wire can give up.
pub(crate) struct Multiplexed<B> {
    number: u32,
    turns: Arc<Turns>,
    answer: Arc<Mutex<Answer<B>>>,
}

struct Answer<B> {
    /// None once it is given up.
    body: Option<(B, Turn)>,
    /// What is left of a large piece: only small ones tell how far the client is.
    rest: Bytes,
    /// Since when it is the client that is waited for.
    unread_since: Option<ActiveInstant>,
}

type Sent = Result<Frame<Bytes>, Box<dyn Error + Send + Sync>>;

/// The client has not read on.
#[derive(Debug, thiserror::Error)]
#[error("the client does not read the answer")]
struct GivenUp;

impl Turn {
    /// Goes on with the answer, in this version.
    pub(crate) fn with<B: Send + 'static>(self, body: B, version: Version) -> InTurn<B> {
        match version {
            Version::HTTP_2 => InTurn::Multiplexed(Multiplexed::new(Arc::clone(&self.0), self, body)),
            _ => InTurn::Alone(body, self),
        }
    }
}

impl<B: Send + 'static> Multiplexed<B> {
    pub(super) fn new(turns: Arc<Turns>, turn: Turn, body: B) -> Self {
        let answer = Answer { body: Some((body, turn)), rest: Bytes::new(), unread_since: Some(ActiveInstant::now()) };
        let answer = Arc::new(Mutex::new(answer));
        let unread: Arc<dyn Unread> = Arc::clone(&answer) as _;
        let mut list = lock(&turns.answers.0);
        let number = list.last_key_value().map_or(0, |(last, _)| last.wrapping_add(1));
        list.insert(number, Arc::downgrade(&unread));
        drop(list);
        Self { number, turns, answer }
    }
}

impl<B> Drop for Multiplexed<B> {
    fn drop(&mut self) {
        lock(&self.turns.answers.0).remove(&self.number);
    }
}

impl<B: Send> Unread for Mutex<Answer<B>> {
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

impl<B: Body<Data = Bytes> + Unpin> Answer<B>
where
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Sent>> {
        let Some((body, _)) = &mut self.body else { return Poll::Ready(Some(Err(GivenUp.into()))) };
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

impl<B: Body<Data = Bytes> + Unpin> Body for Multiplexed<B>
where
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Sent>> {
        lock(&self.answer).poll_piece(context)
    }

    fn is_end_stream(&self) -> bool {
        let answer = lock(&self.answer);
        answer.rest.is_empty() && answer.body.as_ref().is_some_and(|(body, _)| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let answer = lock(&self.answer);
        match &answer.body {
            Some((body, _)) if answer.rest.is_empty() => body.size_hint(),
            _ => SizeHint::default(),
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for InTurn<B>
where
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.get_mut() {
            Self::Alone(body, _) => {
                Pin::new(body).poll_frame(context).map(|frame| frame.map(|frame| frame.map_err(Into::into)))
            }
            Self::Multiplexed(answer) => Pin::new(answer).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Alone(body, _) => body.is_end_stream(),
            Self::Multiplexed(answer) => answer.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Alone(body, _) => body.size_hint(),
            Self::Multiplexed(answer) => answer.size_hint(),
        }
    }
}
