//! How much a client may send: the request body, counted while it is read, and the heads of HTTP/2 requests. (The wire
//! has checked those of HTTP/1.1 before.)
//!
//! The body is read whole before the request waits for a slot, so a slow sender never holds one. Its pieces are passed
//! on as they came, without a copy.

use super::head::HeadLimits;
use crate::refusal::Refusal;
use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::request::Parts;
use http::{HeaderMap, Version};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// Limits of a request body.
#[derive(Debug, Clone, Copy)]
pub(super) struct BodyLimits {
    /// Largest body, in bytes.
    pub(super) size: usize,
    /// Longest silence while it arrives.
    pub(super) silence: Duration,
}

/// A request body that is within its limits, in the pieces in which it came.
#[derive(Debug, Default)]
pub(super) struct Bounded {
    pieces: VecDeque<Bytes>,
    length: u64,
}

impl Bounded {
    /// The length in bytes.
    pub(super) fn length(&self) -> u64 {
        self.length
    }
}

/// Refuses an HTTP/2 head that would be too large as an HTTP/1.1 head of the same content.
pub(super) fn check_head(parts: &Parts, limits: &HeadLimits) -> Result<(), Refusal> {
    if parts.version != Version::HTTP_2 {
        return Ok(());
    }
    let target = parts.uri.path_and_query().map_or(0, |target| target.as_str().len());
    let request_line = parts.method.as_str().len() + target + "  HTTP/1.1".len();
    limits.check_request_line(request_line)?;
    limits.check_headers(parts.headers.len())?;
    let mut size = request_line;
    for (name, value) in &parts.headers {
        let line = name.as_str().len() + ": ".len() + value.len();
        limits.check_header_line(line)?;
        size = size.saturating_add(line);
    }
    limits.check_size(size)
}

/// Refuses a body that says itself that it is too large, before any of it is read.
pub(super) fn check_announced(headers: &HeaderMap, limits: BodyLimits) -> Result<(), Refusal> {
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limits.size as u64) {
        return Err(Refusal::PayloadTooLarge(limits.size));
    }
    Ok(())
}

/// Reads the body, as far as the limits allow.
pub(super) async fn read_body(mut body: Incoming, limits: BodyLimits) -> Result<Bounded, Refusal> {
    let mut bounded = Bounded::default();
    loop {
        let frame = tokio::time::timeout(limits.silence, body.frame()).await.map_err(|_| Refusal::RequestTimeout)?;
        match frame {
            None => return Ok(bounded),
            Some(Err(_)) => return Err(Refusal::BadRequest("the body is malformed or incomplete".to_owned())),
            Some(Ok(frame)) => {
                // Trailers are not passed on.
                let Ok(piece) = frame.into_data() else { continue };
                bounded.length += piece.len() as u64;
                if bounded.length > limits.size as u64 {
                    return Err(Refusal::PayloadTooLarge(limits.size));
                }
                bounded.pieces.push_back(piece);
            }
        }
    }
}

impl Body for Bounded {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = self.pieces.pop_front();
        self.length -= piece.as_ref().map_or(0, |piece| piece.len() as u64);
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length)
    }
}
