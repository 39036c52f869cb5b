//! The body of a worker's response, unpacked, of which a part may have been read before it is passed on.
//!
//! Workers are asked not to pack their responses. Some do it all the same, or a proxy in front of them does. All that
//! reads a response reads it from here, so that none of it has to know. Packed bytes are not trusted: what they unpack
//! to is passed on in small pieces, each before the next is unpacked.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;

use crate::content_coding::{ContentCodings, UnpackError, Unpacker};
use crate::gateway::bounds::UNPACK_STEPS;
use crate::gateway::exchange::{BrokenConnection, WorkerBody};
use crate::pause_clock::{self, ActiveInstant};

/// The body of a worker's response.
pub(crate) struct UpstreamBody {
    /// What has been read already.
    start: Bytes,
    /// Whether nothing follows the start: the body ended while it was read, or was replaced.
    has_ended: bool,
    /// What broke the body while the start was read.
    failure: Option<UpstreamError>,
    /// For a packed body, until its end.
    unpacker: Option<Result<Unpacker, UnpackError>>,
    is_packed: bool,
    rest: WorkerBody,
}

/// What broke the body of a worker's response.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    #[error("the connection broke: {0}")]
    Connection(BrokenConnection),
    #[error("the body cannot be unpacked: {0}")]
    Packed(UnpackError),
}

/// The next bytes of a body, its end (`None`), or what broke it.
type NextBytes = Option<Result<Bytes, UpstreamError>>;

impl UpstreamBody {
    /// Takes over the body of a response whose head has arrived. It is unpacked if it has codings.
    pub(crate) fn new(body: WorkerBody, codings: Option<&ContentCodings>) -> Self {
        // No total: a piece is gone when the next one comes.
        let unpacker = codings.map(|codings| Unpacker::new(codings, usize::MAX));
        Self {
            start: Bytes::new(),
            has_ended: false,
            failure: None,
            is_packed: unpacker.is_some(),
            unpacker,
            rest: body,
        }
    }

    /// Waits for the first `limit` bytes, for the end of the body, or until `deadline`. Returns what has arrived; it is
    /// passed on later like the rest.
    pub(crate) async fn read_start(&mut self, limit: usize, deadline: ActiveInstant) -> Bytes {
        let mut start = BytesMut::new();
        while start.len() < limit && self.failure.is_none() {
            match pause_clock::timeout_at(deadline, self.frame()).await {
                Ok(Some(Ok(frame))) => start.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data)),
                Ok(Some(Err(error))) => self.failure = Some(error),
                Ok(None) => {
                    self.has_ended = true;
                    break;
                }
                Err(_) => break,
            }
        }
        self.start = start.freeze();
        self.start.clone()
    }

    /// Returns whether [`Self::read_start`] has read the whole body.
    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Returns the whole body, if [`Self::read_start`] has read it.
    pub(crate) fn whole_start(&self) -> Option<Bytes> {
        self.has_ended.then(|| self.start.clone())
    }

    /// Returns whether [`Self::read_start`] has found that there is no body.
    pub(crate) fn is_known_empty(&self) -> bool {
        self.has_ended && self.start.is_empty()
    }

    /// Gives the response this body in place of its own, of which nothing has been passed on.
    pub(crate) fn replace(&mut self, body: Bytes) {
        (self.start, self.has_ended, self.failure, self.unpacker) = (body, true, None, None);
    }

    /// Returns the next bytes of a packed body.
    fn poll_unpacked(&mut self, context: &mut Context<'_>) -> Poll<NextBytes> {
        let packed = |error| Poll::Ready(Some(Err(UpstreamError::Packed(error))));
        for _ in 0..UNPACK_STEPS {
            let unpacker = match &mut self.unpacker {
                Some(Ok(unpacker)) => unpacker,
                Some(Err(error)) => return packed(*error),
                None => return Poll::Ready(None),
            };
            match unpacker.step() {
                Some(Ok(bytes)) if bytes.is_empty() => {}
                Some(Ok(bytes)) => return Poll::Ready(Some(Ok(bytes))),
                Some(Err(error)) => {
                    self.unpacker = Some(Err(error));
                    return packed(error);
                }
                None => match ready!(Pin::new(&mut self.rest).poll_frame(context)) {
                    // Trailers are not passed on.
                    Some(Ok(frame)) => unpacker.feed(frame.into_data().unwrap_or_default()),
                    Some(Err(error)) => return Poll::Ready(Some(Err(UpstreamError::Connection(error)))),
                    None => match self.unpacker.take().map(|unpacker| unpacker.and_then(Unpacker::finish)) {
                        Some(Ok(bytes)) if !bytes.is_empty() => return Poll::Ready(Some(Ok(bytes.into()))),
                        Some(Ok(_)) | None => return Poll::Ready(None),
                        Some(Err(error)) => return packed(error),
                    },
                },
            }
        }
        // Packed bytes from which nothing comes out take time, and other tasks use this thread too.
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = UpstreamError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UpstreamError>>> {
        let this = self.get_mut();
        if !this.start.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut this.start)))));
        }
        if let Some(failure) = this.failure.take() {
            return Poll::Ready(Some(Err(failure)));
        }
        if this.has_ended {
            return Poll::Ready(None);
        }
        if this.is_packed {
            return this.poll_unpacked(context).map(|next| next.map(|bytes| bytes.map(Frame::data)));
        }
        let next = ready!(Pin::new(&mut this.rest).poll_frame(context));
        Poll::Ready(next.map(|frame| frame.map_err(UpstreamError::Connection)))
    }

    fn is_end_stream(&self) -> bool {
        let has_more = match &self.unpacker {
            Some(Ok(unpacker)) => unpacker.has_input(),
            Some(Err(_)) => true,
            None => false,
        };
        let is_read = self.has_ended || self.rest.is_end_stream();
        self.start.is_empty() && self.failure.is_none() && !has_more && is_read
    }

    /// Returns the length, which is unknown for a packed body.
    fn size_hint(&self) -> SizeHint {
        if self.has_ended {
            return SizeHint::with_exact(self.start.len() as u64);
        }
        if self.is_packed && !self.is_end_stream() {
            return SizeHint::default();
        }
        let (rest, start) = (self.rest.size_hint(), self.start.len() as u64);
        let mut hint = SizeHint::new();
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + start);
        }
        hint.set_lower(rest.lower() + start);
        hint
    }
}
