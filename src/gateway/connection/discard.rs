//! The body of a request before it is read, and of one that was answered without it: thrown away, or the end of its
//! connection.

use crate::gateway::bounds::{DISCARD_TURNS, DISCARDED_BODY};
use bytes::Bytes;
use http::header::{CONNECTION, EXPECT};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Version};
use http_body::Body;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use std::pin::Pin;
use std::task::Poll;

/// A request's body: from a client, or as a platform's queue had it.
pub(crate) type InboundBody = Either<Incoming, Full<Bytes>>;

/// A request whose body nobody has read when it is answered.
pub(crate) struct UnreadBody {
    /// Whether the next request comes on the same connection, behind the body.
    blocks_connection: bool,
    /// Whether the client waits to be told to send the body, which asking for it would do.
    expects_continue: bool,
}

impl UnreadBody {
    pub(crate) fn of(parts: &Parts) -> Self {
        Self {
            blocks_connection: parts.version != Version::HTTP_2,
            expects_continue: parts.headers.contains_key(EXPECT),
        }
    }

    /// Throws the body away if it is small and there already; else says that the connection ends with the answer
    /// (RFC 9112, section 9.6).
    pub(crate) async fn discard_or_close(&self, mut body: InboundBody, answer: &mut HeaderMap) {
        if self.blocks_connection && !body.is_end_stream() && (self.expects_continue || !try_discard(&mut body).await) {
            answer.insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }
}

async fn try_discard(body: &mut InboundBody) -> bool {
    let mut left = DISCARDED_BODY;
    for _ in 0..DISCARD_TURNS {
        let look = std::future::poll_fn(|context| {
            loop {
                match Pin::new(&mut *body).poll_frame(context) {
                    Poll::Ready(Some(Ok(frame))) => match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
                        Some(rest) => left = rest,
                        None => return Poll::Ready(Some(false)),
                    },
                    Poll::Ready(Some(Err(_))) => return Poll::Ready(Some(false)),
                    Poll::Ready(None) => return Poll::Ready(Some(true)),
                    Poll::Pending => return Poll::Ready(None),
                }
            }
        });
        if let Some(is_over) = look.await {
            return is_over;
        }
        // hyper reads the body only after it was asked for, when it has its turn.
        tokio::task::yield_now().await;
    }
    false
}
