//! Requests that have arrived whole, which need no reader that waits for the rest of them.

use std::io;
use std::mem::MaybeUninit;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{ReadState, WireStream};
use crate::gateway::bounds::WHOLE_REQUEST;
use crate::gateway::connection::head::request::read_request;
use crate::gateway::connection::head::{Framing, HeadScanner};

/// What a client sends next.
#[expect(
    clippy::large_enum_variant,
    reason = "made once for each request and taken apart at once; a box would cost more"
)]
pub(in crate::gateway::connection) enum NextRequest {
    /// A request of which nothing is missing, and which asks for no more than a response.
    Whole(Request<Bytes>),
    /// Anything else, of which nothing has been passed on.
    Other,
    /// Nothing more.
    End,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WireStream<S> {
    /// Waits for what the client sends after the last response, or at the beginning.
    ///
    /// # Errors
    /// The system's.
    pub(in crate::gateway::connection) fn poll_request(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<NextRequest>> {
        match self.read_state {
            ReadState::Head(_) if !self.is_responding => {}
            ReadState::Done => return Poll::Ready(Ok(NextRequest::End)),
            _ => return Poll::Ready(Ok(NextRequest::Other)),
        }
        if !self.read_ahead.is_empty() {
            let found = whole_request(self.read_ahead.bytes(), &self.limits.head);
            return Poll::Ready(Ok(match found {
                Some((request, length)) => {
                    self.read_ahead.consume(length);
                    self.begin_request();
                    NextRequest::Whole(request)
                }
                None => NextRequest::Other,
            }));
        }
        let mut storage = [const { MaybeUninit::uninit() }; WHOLE_REQUEST];
        let mut buffer = ReadBuf::uninit(&mut storage);
        // What is read ahead has the same bound as in `poll_head`.
        let limit = WHOLE_REQUEST.min(self.limits.head.size());
        let Poll::Ready(received) = self.poll_socket(context, &mut buffer, limit)? else {
            return self.poll_head_timeout(context, false).map(|()| Ok(NextRequest::End));
        };
        if received.is_empty() {
            self.mark_client_gone();
            return Poll::Ready(Ok(NextRequest::End));
        }
        let found = whole_request(buffer.filled(), &self.limits.head);
        let length = found.as_ref().map_or(0, |(_, length)| *length);
        self.read_ahead.take_back(&mut buffer, length);
        Poll::Ready(Ok(match found {
            Some((request, _)) => {
                self.begin_request();
                NextRequest::Whole(request)
            }
            None => {
                self.start_head_time();
                NextRequest::Other
            }
        }))
    }
}

/// Returns the request with which these bytes begin, and its length, if nothing of it is missing.
fn whole_request(bytes: &[u8], limits: &super::HeadLimits) -> Option<(Request<Bytes>, usize)> {
    // What is malformed is found again by those who answer it.
    let head = HeadScanner::default().advance(bytes, limits).ok()??;
    let body = match head.framing {
        Framing::None => 0,
        Framing::Length(length) => usize::try_from(length).ok()?,
        Framing::Chunked => return None,
    };
    let length = head.length.checked_add(body)?;
    if head.has_upgrade || length > bytes.len() {
        return None;
    }
    Some((read_request(&Bytes::copy_from_slice(&bytes[..length]), head.length)?, length))
}
