//! A request body within its limits, and the limits of what a client may send: those of a body, and those of the heads of
//! HTTP/2 requests. (`connection/wire/` checks the heads of HTTP/1.1 requests.)
//!
//! The pieces of a body are passed on as they arrived, without a copy; only very small ones are joined.
//!
//! - `arriving_body.rs`: reads the body of a request

pub(crate) mod arriving_body;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::hash::RandomState;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use std::{iter, mem};

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http::request::Parts;
use http::{HeaderMap, Version};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::content_coding::{ACCEPTED_CODINGS, ContentCodings, UnsupportedCoding};
use crate::fleet::Fingerprint;
use crate::gateway::bounds::{BUFFERED_BODIES, SMALL_PIECE};
use crate::gateway::connection::head::{HeadLimits, parse_content_length};
use crate::refusal::Refusal;

/// Limits of a request body.
#[derive(Debug)]
pub(crate) struct BodyLimits {
    /// Largest body, in bytes.
    pub(super) max_size: usize,
    /// Longest time without a byte while the body arrives (`CLIENT_BODY_TIMEOUT`).
    pub(super) idle_timeout: Duration,
    /// One permit for each byte that the bodies of all requests may still take.
    buffer_budget: Arc<Semaphore>,
    /// Random for each process, so that no client can construct two requests with the same fingerprint.
    fingerprint_seed: RandomState,
}

impl BodyLimits {
    /// Limits bodies to `max_size` bytes that arrive without a pause longer than `idle_timeout`.
    pub(crate) fn new(max_size: usize, idle_timeout: Duration) -> Self {
        // The budget must at least cover one body of the largest size.
        let budget = BUFFERED_BODIES.max(max_size).min(Semaphore::MAX_PERMITS);
        Self {
            max_size,
            idle_timeout,
            buffer_budget: Arc::new(Semaphore::new(budget)),
            fingerprint_seed: RandomState::new(),
        }
    }
}

/// A request body that is within its limits, in the pieces in which it arrived, none of which is empty.
#[derive(Debug, Default)]
pub(crate) struct RequestBody {
    /// The first piece, which nearly always is all of it; empty if there is none.
    first: Bytes,
    /// The pieces after it.
    rest: VecDeque<Bytes>,
    /// Bytes in all pieces.
    length: u64,
    /// The hash of route and body as it arrived, if the request needs a slot.
    fingerprint: Option<Fingerprint>,
    /// This body's share of the buffer budget.
    permit: Option<Arc<OwnedSemaphorePermit>>,
}

impl RequestBody {
    /// Returns the hash of the route and of every byte, independent of the pieces in which they arrived. `None` if the
    /// route needs no slot.
    pub(super) fn fingerprint(&self) -> Option<Fingerprint> {
        self.fingerprint
    }

    /// Returns the length in bytes.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Returns the pieces without taking them.
    pub(super) fn pieces(&self) -> impl Iterator<Item = &Bytes> {
        iter::once(&self.first).filter(|first| !first.is_empty()).chain(&self.rest)
    }

    /// Returns the whole body in one piece. A body that arrived in one piece is not copied.
    pub(crate) fn to_bytes(&self) -> Bytes {
        match self.rest.is_empty() {
            true => self.first.clone(),
            false => self.pieces().flat_map(|piece| piece.iter().copied()).collect(),
        }
    }

    /// Returns a copy for another attempt. Both share the bytes and their share of the budget.
    pub(super) fn duplicate(&self) -> Self {
        let Self { first, rest, length, fingerprint, permit } = self;
        Self {
            first: first.clone(),
            rest: rest.clone(),
            length: *length,
            fingerprint: *fingerprint,
            permit: permit.clone(),
        }
    }

    /// Returns a body with these pieces instead. The fingerprint and the share of the budget stay the same.
    pub(crate) fn with_pieces(&self, mut pieces: VecDeque<Bytes>) -> Self {
        pieces.retain(|piece| !piece.is_empty());
        let length = pieces.iter().map(|piece| piece.len() as u64).sum();
        let first = pieces.pop_front().unwrap_or_default();
        Self { first, rest: pieces, length, fingerprint: self.fingerprint, permit: self.permit.clone() }
    }

    /// Adds a piece at the end.
    fn add(&mut self, piece: Bytes) {
        if self.first.is_empty() {
            self.first = piece;
        } else {
            self.rest.push_back(piece);
        }
    }

    /// Takes the last piece, if it is a small one.
    fn take_small_end(&mut self) -> Option<Bytes> {
        let is_small = |piece: &Bytes| (1..SMALL_PIECE).contains(&piece.len());
        match self.rest.back() {
            Some(last) if is_small(last) => self.rest.pop_back(),
            None if is_small(&self.first) => Some(mem::take(&mut self.first)),
            _ => None,
        }
    }
}

#[cfg(test)]
impl RequestBody {
    /// Returns a body in these pieces, for tests of other files.
    pub(crate) fn from_pieces(pieces: &[&str]) -> Self {
        let limits = BodyLimits::new(usize::MAX, Duration::MAX);
        let mut arriving = arriving_body::ArrivingBody::new(&limits);
        for piece in pieces {
            arriving.push(Bytes::copy_from_slice(piece.as_bytes())).unwrap();
        }
        arriving.finish()
    }
}

/// Refuses an HTTP/2 head that would be too large as an HTTP/1.1 head of the same content.
///
/// # Errors
/// The refusal for the limit that the head exceeds.
pub(crate) fn check_head(parts: &Parts, limits: &HeadLimits) -> Result<(), Refusal> {
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

/// Refuses a body whose `Content-Length` is too large, before any of it is read.
///
/// # Errors
/// [`Refusal::PayloadTooLarge`].
pub(crate) fn check_content_length(headers: &HeaderMap, limits: &BodyLimits) -> Result<(), Refusal> {
    let content_length = headers.get(CONTENT_LENGTH).and_then(|value| parse_content_length(value.as_bytes()));
    if content_length.is_some_and(|length| length > limits.max_size as u64) {
        return Err(Refusal::PayloadTooLarge(limits.max_size));
    }
    Ok(())
}

/// Returns how a body with these headers is packed.
///
/// # Errors
/// [`Refusal::UnsupportedContentEncoding`] if it is packed in a way that is not unpacked.
pub(crate) fn content_codings(headers: &HeaderMap) -> Result<ContentCodings, Refusal> {
    ContentCodings::of(headers)
        .map_err(|UnsupportedCoding(coding)| Refusal::UnsupportedContentEncoding { coding, accepted: ACCEPTED_CODINGS })
}

/// Returns how a body with these headers is packed, and takes the header that says so: the body is passed on unpacked.
///
/// # Errors
/// As [`content_codings`].
pub(crate) fn take_request_codings(headers: &mut HeaderMap) -> Result<ContentCodings, Refusal> {
    // Few bodies are packed. The name is a standard one, so one look-up costs less than a list and a removal.
    if !headers.contains_key(CONTENT_ENCODING) {
        return Ok(ContentCodings::default());
    }
    let codings = content_codings(headers)?;
    headers.remove(CONTENT_ENCODING);
    Ok(codings)
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = self.rest.pop_front().unwrap_or_default();
        let piece = mem::replace(&mut self.first, next);
        self.length -= piece.len() as u64;
        Poll::Ready((!piece.is_empty()).then(|| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::arriving_body::ArrivingBody;
    use super::*;
    use crate::gateway::routes::lookup;
    use http::Method;

    #[test]
    fn a_second_attempt_shares_the_bytes_and_their_permit_until_the_last_is_dropped() {
        let limits = BodyLimits { buffer_budget: Arc::new(Semaphore::new(15)), ..BodyLimits::new(100, Duration::ZERO) };
        let route = lookup::find(&Method::POST, "/completion").unwrap();
        let mut arriving = ArrivingBody::for_route(route, &limits);
        for piece in [&b"0123"[..], b"", &[b'x'; 8]] {
            arriving.push(Bytes::copy_from_slice(piece)).unwrap();
        }
        let first = arriving.finish();
        let (again, other) =
            (first.duplicate(), first.with_pieces(VecDeque::from([Bytes::from_static(b"longer than that")])));
        assert_eq!(again.first.as_ptr(), first.first.as_ptr(), "it is not copied");
        assert_eq!((again.length(), other.length()), (12, 16));
        assert_eq!(limits.buffer_budget.available_permits(), 3);
        for copy in [&again, &other] {
            assert!(copy.fingerprint().is_some() && copy.fingerprint() == first.fingerprint());
        }
        drop((first, other));
        assert_eq!(limits.buffer_budget.available_permits(), 3);
        drop(again);
        assert_eq!(limits.buffer_budget.available_permits(), 15);
    }
}
