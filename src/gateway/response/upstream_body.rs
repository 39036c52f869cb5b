//! The body of a worker's response, of which a part may have been read before it is passed on.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::pause_clock::{self, ActiveInstant};

/// The body of a worker's response.
pub(crate) struct UpstreamBody {
    /// What has been read already.
    start: Bytes,
    /// What broke the connection while the start was read.
    failure: Option<hyper::Error>,
    rest: Incoming,
}

impl UpstreamBody {
    /// Takes over the body of a response whose head has arrived.
    pub(crate) fn new(body: Incoming) -> Self {
        Self { start: Bytes::new(), failure: None, rest: body }
    }

    /// Waits for the first `limit` bytes, for the end of the body, or until `deadline`. Returns what has arrived; it is
    /// passed on later like the rest.
    pub(crate) async fn read_start(&mut self, limit: usize, deadline: ActiveInstant) -> Bytes {
        let mut start = BytesMut::new();
        while start.len() < limit && self.failure.is_none() {
            match pause_clock::timeout_at(deadline, self.rest.frame()).await {
                Ok(Some(Ok(frame))) => start.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data)),
                Ok(Some(Err(error))) => self.failure = Some(error),
                Ok(None) | Err(_) => break,
            }
        }
        self.start = start.freeze();
        self.start.clone()
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        if !this.start.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut this.start)))));
        }
        match this.failure.take() {
            Some(failure) => Poll::Ready(Some(Err(failure))),
            None => Pin::new(&mut this.rest).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.start.is_empty() && self.failure.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, start) = (self.rest.size_hint(), self.start.len() as u64);
        let mut hint = SizeHint::new();
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + start);
        }
        hint.set_lower(rest.lower() + start);
        hint
    }
}
