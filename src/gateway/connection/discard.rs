//! The body of a request before it is read. If the request is answered without it, the body is read and discarded, or
//! the connection is closed.

use std::pin::Pin;
use std::task::Poll;

use bytes::Bytes;
use http::header::{CONNECTION, EXPECT};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Version};
use http_body::Body;
use hyper::body::Incoming;

use crate::gateway::bounds::{DISCARD_TURNS, DISCARDED_BODY};

/// A request's body before it is read.
pub enum InboundBody {
    /// It arrives while it is read.
    Streamed(Incoming),
    /// All of it has arrived with the head.
    Whole(Bytes),
    /// That of a job of a platform's queue, which waits for memory in place of being refused.
    Job(Bytes),
}

/// What to know about a request whose body has not been read when the request is answered.
pub(crate) struct UnreadBody {
    /// Whether the next request arrives on the same connection, after the body. HTTP/2 has a stream for each request.
    blocks_connection: bool,
    /// Whether the client waits for `100 Continue` before it sends the body. hyper sends one as soon as the body is
    /// polled.
    expects_continue: bool,
}

impl UnreadBody {
    pub(crate) fn of(parts: &Parts) -> Self {
        Self {
            blocks_connection: parts.version != Version::HTTP_2,
            expects_continue: parts.headers.contains_key(EXPECT),
        }
    }

    /// Discards the body if it is small and has already arrived. Otherwise adds `Connection: close` to the response
    /// (RFC 9112, section 9.6).
    pub(crate) async fn discard_or_close(&self, body: InboundBody, response: &mut HeaderMap) {
        let InboundBody::Streamed(mut body) = body else { return };
        // A client that expects `100 Continue` must not be told to send a body that is of no use any more.
        if self.blocks_connection && !body.is_end_stream() && (self.expects_continue || !try_discard(&mut body).await) {
            response.insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }
}

/// Reads what has arrived of the body; returns whether that was all of it, and at most [`DISCARDED_BODY`] bytes.
async fn try_discard(body: &mut Incoming) -> bool {
    let mut left = DISCARDED_BODY;
    for _ in 0..DISCARD_TURNS {
        let arrived = std::future::poll_fn(|context| {
            loop {
                match Pin::new(&mut *body).poll_frame(context) {
                    Poll::Ready(Some(Ok(frame))) => match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
                        Some(rest) => left = rest,
                        None => return Poll::Ready(Some(false)),
                    },
                    // After an error, such as a malformed chunk, the next head cannot be found.
                    Poll::Ready(Some(Err(_))) => return Poll::Ready(Some(false)),
                    Poll::Ready(None) => return Poll::Ready(Some(true)),
                    Poll::Pending => return Poll::Ready(None),
                }
            }
        });
        if let Some(is_complete) = arrived.await {
            return is_complete;
        }
        // The first poll only tells hyper that the body is wanted. Its connection task reads the socket when it runs
        // next.
        tokio::task::yield_now().await;
    }
    false
}
