//! Reads the body of a request: counted against its limits, unpacked, hashed, with small pieces joined.
//!
//! The whole body is read before the request waits for a slot, so a slow sender never holds one.

use std::future::poll_fn;
use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;

use super::{BodyLimits, RequestBody};
use crate::content_coding::{ContentCodings, UnpackError, Unpacker};
use crate::fleet::Fingerprint;
use crate::gateway::bounds::{RETRY_AFTER_UNKNOWN, SCANNED_AT_ONCE, SMALL_PIECE, UNPACKED_AT_ONCE};
use crate::gateway::connection::discard::InboundBody;
use crate::gateway::routes::route::Route;
use crate::pause_clock::LazyTimer;
use crate::refusal::Refusal;

/// A body that is being read.
pub(super) struct ArrivingBody<'a> {
    limits: &'a BodyLimits,
    body: RequestBody,
    /// Small pieces at its end that are being joined.
    joining: BytesMut,
    /// Hashes route and body, if the request needs a slot.
    hasher: Option<DefaultHasher>,
}

impl<'a> ArrivingBody<'a> {
    /// Begins a body within these limits that has no fingerprint.
    pub(super) fn new(limits: &'a BodyLimits) -> Self {
        Self { limits, body: RequestBody::default(), joining: BytesMut::new(), hasher: None }
    }

    /// Begins a body for this route.
    pub(super) fn for_route(route: &Route, limits: &'a BodyLimits) -> Self {
        let hasher = route.needs_slot.then(|| {
            let mut hasher = limits.fingerprint_seed.build_hasher();
            route.path.hash(&mut hasher);
            hasher
        });
        Self { hasher, ..Self::new(limits) }
    }

    /// Adds a piece, if the buffer budget has room for it beside all other bodies.
    pub(super) fn push(&mut self, piece: Bytes) -> Result<(), Refusal> {
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
    pub(super) fn finish(mut self) -> RequestBody {
        self.flush_joining();
        self.body.fingerprint = self.hasher.map(|hasher| Fingerprint(hasher.finish()));
        self.body
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::routes::lookup;
    use http::Method;
    use proptest::prelude::*;
    use std::pin::pin;
    use tokio::sync::Semaphore;

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
}
