//! One HTTP/1.1 connection to a worker, read and written by the task that polls it.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::{Method, Request, Response};
use thiserror::Error;

use super::body_reader::BodyReader;
use super::request_writer::RequestWriter;
use super::response_head::{self, ResponseHead};
use super::worker_socket::WorkerSocket;
use crate::dial::{Link, NotHttp, OpenConnection};
use crate::gateway::bounds::{WORKER_BULK_READ, WORKER_HEAD_SIZE, WORKER_READ};
use crate::gateway::request::body::RequestBody;
use crate::gateway::scan::chunked_body::MalformedChunk;

/// A connection to a worker. Dropping it closes it.
pub(super) struct WorkerConnection {
    socket: WorkerSocket,
    /// What is left to be written of the request.
    request: RequestWriter,
    /// What has arrived after the head of the response, and is not passed on yet.
    arrived: Bytes,
    /// Whether the worker leaves the connection open after the response.
    keeps_open: bool,
    /// Counts it as open.
    _open: OpenConnection,
}

/// Why a request has no response, or none that is whole.
#[derive(Debug, Error)]
pub(crate) enum BrokenConnection {
    /// The worker closed the connection before a byte of the request was written.
    #[error("the worker closed the connection")]
    Unsent,
    #[error("the socket failed")]
    Socket(#[from] io::Error),
    #[error("the response is malformed")]
    Malformed(#[from] NotHttp),
}

/// An exchange without a response.
pub(super) enum FailedExchange {
    /// No byte of this request was written.
    Unsent(Box<Request<RequestBody>>),
    Broken(BrokenConnection),
}

impl From<BrokenConnection> for FailedExchange {
    fn from(broken: BrokenConnection) -> Self {
        Self::Broken(broken)
    }
}

impl BrokenConnection {
    /// The worker has closed the connection too early.
    pub(super) fn closed() -> Self {
        Self::Socket(io::ErrorKind::UnexpectedEof.into())
    }
}

impl WorkerConnection {
    /// Takes over a stream on which nothing has been sent, and which `open` counts.
    pub(super) fn new(link: Link, open: OpenConnection) -> Self {
        Self {
            socket: WorkerSocket::new(link),
            request: RequestWriter::default(),
            arrived: Bytes::new(),
            keeps_open: true,
            _open: open,
        }
    }

    /// Returns whether the next request can be sent: the last one and its response are whole, and the worker has neither
    /// closed the connection nor announced it. If so, `task` is woken when that changes.
    pub(super) fn is_idle(&mut self, task: &Waker) -> bool {
        let is_whole = self.keeps_open && self.arrived.is_empty() && self.request.is_done();
        // Whatever arrives now is the end, or belongs to no request.
        is_whole && self.socket.poll_read(&mut Context::from_waker(task), 1, |_| ()).is_pending()
    }

    /// Sends a request and waits for the head of its response, whose body this connection goes on to read.
    ///
    /// # Errors
    /// [`FailedExchange`].
    pub(super) async fn exchange(
        mut self,
        request: Request<RequestBody>,
    ) -> Result<(Response<BodyReader>, Self), FailedExchange> {
        let method = request.method().clone();
        let mut unsent = Some(request);
        let mut head = BytesMut::new();
        let response = poll_fn(|context| {
            if let Some(request) = unsent.take() {
                if !self.is_idle(context.waker()) {
                    return Poll::Ready(Err(FailedExchange::Unsent(Box::new(request))));
                }
                self.request = RequestWriter::new(request);
            }
            self.request.poll(context, &mut self.socket);
            Poll::Ready(Ok(ready!(self.poll_head(context, &mut head, &method))?))
        });
        let ResponseHead { response, body, keeps_open, .. } = response.await?;
        self.keeps_open = keeps_open;
        Ok((response.map(|()| body), self))
    }

    /// Reads the head of the response. `head` keeps what there is of it.
    fn poll_head(
        &mut self,
        context: &mut Context<'_>,
        head: &mut BytesMut,
        method: &Method,
    ) -> Poll<Result<ResponseHead, BrokenConnection>> {
        loop {
            let known = head.len();
            let count = ready!(self.socket.poll_read(context, WORKER_READ, |arrived| {
                head.extend_from_slice(arrived);
                arrived.len()
            }))?;
            if count == 0 {
                return Poll::Ready(Err(BrokenConnection::closed()));
            }
            if response_head::has_end(head, known) {
                let bytes = std::mem::take(head).freeze();
                if let Some(found) = response_head::read(&bytes, method)? {
                    self.arrived = after(&bytes, found.length);
                    return Poll::Ready(Ok(found));
                }
                *head = BytesMut::from(bytes);
            }
            if head.len() > WORKER_HEAD_SIZE {
                return Poll::Ready(Err(NotHttp.into()));
            }
        }
    }

    /// Returns the next piece of the body, which is not complete, or `None` if it has ended. What is left of the request is
    /// written meanwhile.
    ///
    /// # Errors
    /// [`BrokenConnection`]: the worker closed the connection too early, or the body is malformed.
    pub(super) fn poll_piece(
        &mut self,
        context: &mut Context<'_>,
        body: &mut BodyReader,
    ) -> Poll<Result<Option<Bytes>, BrokenConnection>> {
        self.request.poll(context, &mut self.socket);
        while !body.is_complete() {
            let piece = match body.length() {
                _ if !self.arrived.is_empty() => {
                    let (piece, used) = body.take(&self.arrived).map_err(|_| NotHttp)?;
                    self.arrived.advance(used);
                    piece
                }
                Some(left) if left > WORKER_READ as u64 => ready!(self.poll_bulk(context, body, left))?,
                _ => match ready!(self.poll_arrived(context, body))? {
                    Some(piece) => piece,
                    None if *body == BodyReader::UntilClose => return Poll::Ready(Ok(None)),
                    None => return Poll::Ready(Err(BrokenConnection::closed())),
                },
            };
            if !piece.is_empty() {
                return Poll::Ready(Ok(Some(piece)));
            }
        }
        Poll::Ready(Ok(None))
    }

    /// Reads once, and returns what of it is the body; `None` at the end of the connection.
    fn poll_arrived(
        &mut self,
        context: &mut Context<'_>,
        body: &mut BodyReader,
    ) -> Poll<Result<Option<Bytes>, BrokenConnection>> {
        let limit = body.length().map_or(WORKER_READ, |left| usize::try_from(left).unwrap_or(WORKER_READ));
        let arrived = &mut self.arrived;
        let piece = ready!(self.socket.poll_read(context, limit, |bytes| {
            if bytes.is_empty() {
                return Ok(None);
            }
            let (piece, used) = body.take(bytes)?;
            *arrived = Bytes::copy_from_slice(&bytes[used..]);
            Ok(Some(piece))
        }))?;
        Poll::Ready(piece.map_err(|MalformedChunk| NotHttp.into()))
    }

    /// Reads a part of a long body without a copy.
    fn poll_bulk(
        &mut self,
        context: &mut Context<'_>,
        body: &mut BodyReader,
        left: u64,
    ) -> Poll<Result<Bytes, BrokenConnection>> {
        let limit = usize::try_from(left).unwrap_or(WORKER_BULK_READ).min(WORKER_BULK_READ);
        let mut piece = BytesMut::with_capacity(limit);
        let count = ready!(self.socket.poll_read_into(context, &mut piece, limit))?;
        if count == 0 {
            return Poll::Ready(Err(BrokenConnection::closed()));
        }
        body.pass(count);
        // A short piece does not keep a long buffer.
        Poll::Ready(Ok(if count > WORKER_READ { piece.freeze() } else { Bytes::copy_from_slice(&piece) }))
    }
}

/// Returns what follows the head in these bytes, apart from it: the head lives as long as its headers.
fn after(bytes: &Bytes, length: usize) -> Bytes {
    Bytes::copy_from_slice(&bytes[length..])
}
