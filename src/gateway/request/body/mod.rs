//! The limits of what a client may send: the request body, counted while it is read, and the heads of HTTP/2 requests.
//! (`connection/wire/` checks the heads of HTTP/1.1 requests.)
//!
//! The whole body is read before the request waits for a slot, so a slow sender never holds one. The pieces of the body
//! are passed on as they arrived, without a copy; only very small ones are joined.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::poll_fn;
use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher, RandomState};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use std::{iter, mem};

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http::request::Parts;
use http::{HeaderMap, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::content_coding::{ACCEPTED_CODINGS, ContentCodings, UnpackError, Unpacker, UnsupportedCoding};
use crate::fleet::Fingerprint;
use crate::gateway::bounds::{BUFFERED_BODIES, RETRY_AFTER_UNKNOWN, SCANNED_AT_ONCE, SMALL_PIECE, UNPACKED_AT_ONCE};
use crate::gateway::connection::discard::InboundBody;
use crate::gateway::connection::head::{HeadLimits, parse_content_length};
use crate::gateway::routes::route::Route;
use crate::pause_clock::LazyTimer;
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

/// A body that is being read.
struct ArrivingBody<'a> {
    limits: &'a BodyLimits,
    body: RequestBody,
    /// Small pieces at its end that are being joined.
    joining: BytesMut,
    /// Hashes route and body, if the request needs a slot.
    hasher: Option<DefaultHasher>,
}

impl<'a> ArrivingBody<'a> {
    /// Begins a body within these limits that has no fingerprint.
    fn new(limits: &'a BodyLimits) -> Self {
        Self { limits, body: RequestBody::default(), joining: BytesMut::new(), hasher: None }
    }

    /// Begins a body for this route.
    fn for_route(route: &Route, limits: &'a BodyLimits) -> Self {
        let hasher = route.needs_slot.then(|| {
            let mut hasher = limits.fingerprint_seed.build_hasher();
            route.path.hash(&mut hasher);
            hasher
        });
        Self { hasher, ..Self::new(limits) }
    }

    /// Adds a piece, if the buffer budget has room for it beside all other bodies.
    fn push(&mut self, piece: Bytes) -> Result<(), Refusal> {
        if piece.is_empty() {
            return Ok(());
        }
        let permit = Arc::clone(&self.limits.buffer_budget).try_acquire_many_owned(permits_for(&piece));
        self.push_with_permit(permit.map_err(|_| Refusal::QueueFull(RETRY_AFTER_UNKNOWN)), piece)
    }

    /// Adds a piece whose share of the budget was acquired, or refused, before.
    fn push_with_permit(&mut self, permit: Result<OwnedSemaphorePermit, Refusal>, piece: Bytes) -> Result<(), Refusal> {
        let body = &mut self.body;
        body.length += piece.len() as u64;
        if body.length > self.limits.max_size as u64 {
            return Err(Refusal::PayloadTooLarge(self.limits.max_size));
        }
        let permit = permit?;
        // No copy of the body exists while it is being read, so `get_mut` succeeds from the second piece on.
        match body.permit.as_mut().and_then(Arc::get_mut) {
            Some(first) => first.merge(permit),
            None => body.permit = Some(Arc::new(permit)),
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.write(&piece);
        }
        self.append(piece);
        Ok(())
    }

    /// Adds a piece as it is, or what it is unpacked to.
    async fn push_or_unpack(&mut self, piece: Bytes, unpacker: &mut Option<Unpacker>) -> Result<(), Refusal> {
        match unpacker {
            None => self.push(piece),
            Some(unpacker) => self.push_unpacked(&piece, unpacker).await,
        }
    }

    /// Unpacks a piece and adds what comes out, if the buffer budget has room for it.
    async fn push_unpacked(&mut self, packed: &[u8], unpacker: &mut Unpacker) -> Result<(), Refusal> {
        let mut since_yield = 0;
        for packed in packed.chunks(UNPACKED_AT_ONCE) {
            let piece = unpacker.push(packed).map_err(|error| unpack_refusal(error, self.limits))?;
            since_yield += piece.len();
            self.push(piece.into())?;
            // Unpacking takes time, and other tasks use this thread too.
            if since_yield > SCANNED_AT_ONCE {
                since_yield = 0;
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    /// Appends a piece. Small pieces are joined, because a body of single bytes would take many times its size. A
    /// single piece stays as it is.
    fn append(&mut self, piece: Bytes) {
        let is_small = piece.len() < SMALL_PIECE;
        if is_small && self.joining.is_empty() {
            self.joining.extend(self.body.take_small_end());
        }
        if is_small && !self.joining.is_empty() {
            self.joining.extend_from_slice(&piece);
        } else {
            self.flush_joining();
            self.body.add(piece);
        }
    }

    fn flush_joining(&mut self) {
        if !self.joining.is_empty() {
            self.body.add(self.joining.split().freeze());
        }
    }

    /// Returns the body, which has arrived.
    fn finish(mut self) -> RequestBody {
        self.flush_joining();
        self.body.fingerprint = self.hasher.map(|hasher| Fingerprint(hasher.finish()));
        self.body
    }
}

#[cfg(test)]
impl RequestBody {
    /// Returns a body in these pieces, for tests of other files.
    pub(crate) fn from_pieces(pieces: &[&str]) -> Self {
        let limits = BodyLimits::new(usize::MAX, Duration::MAX);
        let mut arriving = ArrivingBody::new(&limits);
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

/// Returns the refusal of a body that cannot be unpacked.
fn unpack_refusal(error: UnpackError, limits: &BodyLimits) -> Refusal {
    match error {
        UnpackError::TooLarge => Refusal::PayloadTooLarge(limits.max_size),
        UnpackError::Malformed(_) => Refusal::bad_request(format!("the body cannot be unpacked: {error}")),
    }
}

/// Returns the permits that a piece needs from the buffer budget: one for each byte.
fn permits_for(piece: &Bytes) -> u32 {
    u32::try_from(piece.len()).unwrap_or(u32::MAX)
}

/// Reads the whole body within the limits, which count after it is unpacked.
///
/// The body of a job, which is already in memory, waits for the buffer budget instead of being refused. This cannot
/// deadlock: only whole bodies wait, and every other body gives its share back when its request has been served.
///
/// # Errors
/// [`Refusal::PayloadTooLarge`], [`Refusal::RequestTimeout`] if the client stops sending, [`Refusal::QueueFull`] if the
/// buffer budget is used up, or [`Refusal::BadRequest`] if the body is malformed or incomplete.
pub(crate) async fn read_body(
    body: Option<InboundBody>,
    route: &Route,
    codings: &ContentCodings,
    limits: &BodyLimits,
) -> Result<RequestBody, Refusal> {
    match body {
        Some(InboundBody::Whole(piece)) if codings.is_identity() => {
            let mut arriving = ArrivingBody::for_route(route, limits);
            arriving.push(piece)?;
            Ok(arriving.finish())
        }
        // Boxed, because each request would carry the state of what is read in parts.
        body => Box::pin(read_in_parts(body, route, codings, limits)).await,
    }
}

/// Reads a body as [`read_body`] does, if it has not arrived or has to be unpacked.
async fn read_in_parts(
    body: Option<InboundBody>,
    route: &Route,
    codings: &ContentCodings,
    limits: &BodyLimits,
) -> Result<RequestBody, Refusal> {
    let mut arriving = ArrivingBody::for_route(route, limits);
    let unpacker = || Unpacker::new(codings, limits.max_size).map_err(|error| unpack_refusal(error, limits));
    let mut unpacker = if codings.is_identity() { None } else { Some(unpacker()?) };
    match body {
        None => return Ok(arriving.finish()),
        Some(InboundBody::Job(piece)) => {
            if piece.len() > limits.max_size {
                return Err(Refusal::PayloadTooLarge(limits.max_size));
            }
            let permit = Arc::clone(&limits.buffer_budget).acquire_many_owned(permits_for(&piece)).await;
            arriving.push_with_permit(permit.map_err(|_| Refusal::QueueFull(RETRY_AFTER_UNKNOWN)), piece)?;
            return Ok(arriving.finish());
        }
        Some(InboundBody::Whole(piece)) => arriving.push_or_unpack(piece, &mut unpacker).await?,
        Some(InboundBody::Streamed(mut body)) => {
            let mut timer = LazyTimer::default();
            while !body.is_end_stream() {
                let frame = match next_frame(&mut body, &mut timer, limits.idle_timeout).await? {
                    None => break,
                    Some(frame) => frame.map_err(|_| Refusal::bad_request("the body is malformed or incomplete"))?,
                };
                // Trailers are not passed on.
                let Ok(piece) = frame.into_data() else { continue };
                arriving.push_or_unpack(piece, &mut unpacker).await?;
            }
        }
    }
    if let Some(unpacker) = unpacker {
        let last = unpacker.finish().map_err(|error| unpack_refusal(error, limits))?;
        arriving.push(last.into())?;
    }
    Ok(arriving.finish())
}

/// Waits for the next frame of a body; `None` at its end. `timer` is used again for each, and only for those that have not
/// arrived.
///
/// # Errors
/// [`Refusal::RequestTimeout`] if none arrives for `idle_timeout`.
async fn next_frame(
    body: &mut Incoming,
    timer: &mut LazyTimer,
    idle_timeout: Duration,
) -> Result<Option<Result<Frame<Bytes>, hyper::Error>>, Refusal> {
    timer.stop();
    poll_fn(|context| {
        if let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(context) {
            return Poll::Ready(Ok(frame));
        }
        if !timer.is_running() {
            timer.start(idle_timeout);
        }
        timer.poll(context).map(|()| Err(Refusal::RequestTimeout("CLIENT_BODY_TIMEOUT")))
    })
    .await
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
    use super::*;
    use crate::gateway::routes::lookup;
    use http::Method;
    use proptest::prelude::*;
    use std::pin::pin;

    /// Returns a body in these pieces for this route.
    fn body<'a>(limits: &BodyLimits, path: &str, pieces: impl IntoIterator<Item = &'a [u8]>) -> RequestBody {
        let mut arriving = ArrivingBody::for_route(lookup::find(&Method::POST, path).unwrap(), limits);
        for piece in pieces {
            arriving.push(Bytes::copy_from_slice(piece)).unwrap();
        }
        arriving.finish()
    }

    #[test]
    fn a_fingerprint_depends_on_route_body_and_process() {
        let limits = BodyLimits::new(100, Duration::ZERO);
        let of = |limits: &BodyLimits, path: &str, text: &[u8]| {
            body(limits, path, [text]).fingerprint().map(|Fingerprint(number)| number)
        };
        let one = of(&limits, "/completion", b"{}");
        assert!(one.is_some());
        assert_eq!(one, of(&limits, "/completion", b"{}"));
        assert_ne!(one, of(&limits, "/completions", b"{}"));
        assert_ne!(one, of(&limits, "/completion", b"{ }"));
        assert_ne!(one, of(&limits, "/completion", b"{}\0"));
        assert_ne!(
            one,
            of(&BodyLimits::new(100, Duration::ZERO), "/completion", b"{}"),
            "it cannot be computed outside the process"
        );
        assert_eq!(of(&limits, "/tokenize", b"{}"), None, "it needs no slot");
    }

    proptest! {
        #[test]
        fn a_fingerprint_does_not_depend_on_the_pieces_in_which_the_body_came(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..20),
        ) {
            let limits = BodyLimits::new(1 << 20, Duration::ZERO);
            let whole = pieces.concat();
            let path = "/v1/chat/completions";
            let in_pieces = body(&limits, path, pieces.iter().map(Vec::as_slice)).fingerprint();
            prop_assert_eq!(in_pieces, body(&limits, path, [whole.as_slice()]).fingerprint());
            prop_assert_eq!(in_pieces, body(&limits, path, whole.chunks(1)).fingerprint());
        }
    }

    #[test]
    fn all_bodies_share_one_buffer_budget_and_give_it_back() {
        let limits = BodyLimits { buffer_budget: Arc::new(Semaphore::new(15)), ..BodyLimits::new(10, Duration::ZERO) };
        let (mut first, mut second) = (ArrivingBody::new(&limits), ArrivingBody::new(&limits));
        first.push(Bytes::from_static(b"01234")).unwrap();
        first.push(Bytes::from_static(b"56789")).unwrap();
        assert_eq!(first.push(Bytes::from_static(b"x")), Err(Refusal::PayloadTooLarge(10)));
        assert_eq!(second.push(Bytes::from_static(b"012345")), Err(Refusal::QueueFull(RETRY_AFTER_UNKNOWN)));
        drop(first);
        second.push(Bytes::from_static(b"0123")).unwrap();
    }

    /// Regression: a job failed when the buffer budget had no room for its body.
    #[tokio::test]
    async fn the_body_of_a_job_waits_for_the_buffer_budget() {
        let limits = BodyLimits { buffer_budget: Arc::new(Semaphore::new(10)), ..BodyLimits::new(10, Duration::ZERO) };
        let route = lookup::find(&Method::POST, "/completion").unwrap();
        let plain = ContentCodings::default();
        let job = |text: &'static [u8]| Some(InboundBody::Job(Bytes::from_static(text)));
        let first = read_body(job(b"0123456"), route, &plain, &limits).await.unwrap();
        let mut second = pin!(read_body(job(b"01234567"), route, &plain, &limits));
        tokio::select! {
            biased;
            _ = &mut second => panic!("the budget has no room"),
            () = std::future::ready(()) => {}
        }
        drop(first);
        assert_eq!(second.await.unwrap().length(), 8);
        let refused = read_body(job(b"0123456789x"), route, &plain, &limits).await;
        assert!(matches!(refused, Err(Refusal::PayloadTooLarge(10))));
    }

    #[test]
    fn a_body_of_single_bytes_takes_no_more_than_its_size_and_one_piece_stays_as_it_is() {
        let limits = BodyLimits::new(1 << 20, Duration::ZERO);
        let mut arriving = ArrivingBody::new(&limits);
        let first = Bytes::from_static(b"{\"a\":1}");
        arriving.push(first.clone()).unwrap();
        assert_eq!(arriving.body.first.as_ptr(), first.as_ptr(), "it is not copied");
        for byte in 0..10_000_u32 {
            arriving.push(Bytes::copy_from_slice(&[byte as u8])).unwrap();
        }
        arriving.push(Bytes::from(vec![b'x'; SMALL_PIECE])).unwrap();
        arriving.push(Bytes::from_static(b"end")).unwrap();
        assert_eq!(arriving.finish().pieces().map(Bytes::len).collect::<Vec<_>>(), [10_007, SMALL_PIECE, 3]);
    }

    #[test]
    fn a_second_attempt_shares_the_bytes_and_their_permit_until_the_last_is_dropped() {
        let limits = BodyLimits { buffer_budget: Arc::new(Semaphore::new(15)), ..BodyLimits::new(100, Duration::ZERO) };
        let first = body(&limits, "/completion", [&b"0123"[..], b"", &[b'x'; 8]]);
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
