//! Answers requests that arrive whole, or as a head and right after it the body, one after the other.
//!
//! hyper would hand the body over through a channel, poll the service once more for that, and keep two buffers. It takes
//! over the connection, to its end, with the first request that it is needed for: one with
//!
//! - a method that is neither GET nor POST, another version than HTTP/1.1, or empty lines before the head;
//! - `Expect`, `Upgrade`, or a `Connection` other than `keep-alive`;
//! - a head that arrives in parts, or is malformed;
//! - a body in chunks, a body that comes later than its head by `PROMPT_BODY`, or more than `WHOLE_REQUEST` bytes or
//!   `WHOLE_REQUEST_HEADERS` header lines in all.
//!
//! No byte of that request has been passed on by then.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::Poll;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::closing::Closing;
use super::response_sender::ResponseSender;
use super::wire::WireStream;
use super::wire::whole_requests::NextRequest;

/// What becomes of a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ConnectionFate {
    /// It goes on, and hyper is needed.
    NeedsHyper,
    Closed,
}

/// Answers requests until one needs hyper, or the connection ends.
///
/// # Errors
/// The client has left, or the response has failed: the connection is to be dropped.
pub(super) async fn serve_whole<W, F, B>(
    wire: &mut WireStream<W>,
    closing: &Closing,
    respond: impl Fn(Request<Bytes>) -> F,
) -> io::Result<ConnectionFate>
where
    W: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = Response<B>>,
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut closing_begins = pin!(closing.begun());
    let mut must_ask = true;
    loop {
        let next = poll_fn(|context| {
            // A task has the same waker at each poll, so it is woken by the wait that was polled first.
            if std::mem::take(&mut must_ask) {
                _ = closing_begins.as_mut().poll(context);
            }
            // A request that has begun is answered.
            if closing.has_begun() && !wire.awaits_body() {
                return Poll::Ready(Ok(NextRequest::End));
            }
            wire.poll_request(context)
        });
        let request = match next.await? {
            NextRequest::Whole(request) => request,
            NextRequest::Other => return Ok(ConnectionFate::NeedsHyper),
            NextRequest::End => break,
        };
        // Dropped before the response is sent, which may take long.
        let response = {
            let mut response = pin!(respond(request));
            poll_fn(|context| {
                if let Poll::Ready(response) = response.as_mut().poll(context) {
                    return Poll::Ready(Ok(response));
                }
                // Notices that the client leaves.
                match Pin::new(&mut *wire).poll_flush(context) {
                    Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                    _ => Poll::Pending,
                }
            })
            .await?
        };
        let mut sender = ResponseSender::new(response, closing.has_begun());
        poll_fn(|context| sender.poll_send(context, wire)).await?;
        if sender.is_last() {
            break;
        }
    }
    wire.shutdown().await?;
    Ok(ConnectionFate::Closed)
}

#[cfg(test)]
#[path = "whole_server_tests.rs"]
mod tests;
