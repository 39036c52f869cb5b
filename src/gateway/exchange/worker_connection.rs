//! One HTTP/1.1 connection to a worker, read and written by the task that polls it.

use std::io;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::{Method, Response};
use thiserror::Error;

use super::body_reader::BodyReader;
use super::known_head;
use super::request_writer::RequestWriter;
use super::response_head::{self, ResponseHead};
use super::worker_request::WorkerRequest;
use super::worker_socket::WorkerSocket;
use crate::dial::{Link, NotHttp, OpenConnection};
use crate::gateway::bounds::{WORKER_BULK_READ, WORKER_HEAD_SIZE, WORKER_READ};
use crate::gateway::scan::chunked_body::MalformedChunk;
use crate::pause_clock::{ActiveInstant, LazyTimer};

/// A connection to a worker. Dropping it closes it.
pub(super) struct WorkerConnection {
    socket: WorkerSocket,
    /// What is left to be written of the request.
    request: RequestWriter,
    /// The method of the request.
    method: Method,
    /// What has arrived of the head of the response.
    head: BytesMut,
    /// What has arrived after it, and is not passed on yet.
    arrived: Bytes,
    /// Whether the worker leaves the connection open after the response.
    keeps_open: bool,
    /// Runs while the head of a response is waited for. It stays, because a timer of the runtime costs more to make than to
    /// move.
    timer: LazyTimer,
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

impl BrokenConnection {
    /// The worker has closed the connection too early.
    pub(super) fn closed() -> Self {
        Self::Socket(io::ErrorKind::UnexpectedEof.into())
    }
}

impl WorkerConnection {
    /// Takes over a stream on which nothing has been sent, and which `open` counts. It is boxed, because it is handed on
    /// with each request.
    pub(super) fn new(link: Link, open: OpenConnection) -> Box<Self> {
        Box::new(Self {
            socket: WorkerSocket::new(link),
            request: RequestWriter::default(),
            method: Method::GET,
            head: BytesMut::new(),
            arrived: Bytes::new(),
            keeps_open: true,
            timer: LazyTimer::default(),
            _open: open,
        })
    }

    /// Returns whether the next request can be sent: the last one and its response are whole, and the worker has neither
    /// closed the connection nor announced it. If so, `task` is woken when that changes.
    pub(super) fn is_idle(&mut self, task: &Waker) -> bool {
        // Whatever arrives now is the end, or belongs to no request.
        self.has_ended_response() && self.socket.poll_read(&mut Context::from_waker(task), 1, |_| ()).is_pending()
    }

    /// Returns whether the last request and its response are whole, and the worker leaves the connection open after them.
    fn has_ended_response(&self) -> bool {
        self.keeps_open && self.head.is_empty() && self.arrived.is_empty() && self.request.is_done()
    }

    /// Begins to send a request, whose response is waited for with [`Self::poll_response`]. Returns the request if the
    /// worker has closed the connection.
    pub(super) fn begin(&mut self, request: WorkerRequest) -> Option<WorkerRequest> {
        // The task that waits for the response is woken for it.
        if !self.has_ended_response() || self.socket.has_arrival() {
            return Some(request);
        }
        let WorkerRequest { method, head, body } = request;
        (self.method, self.request) = (method, RequestWriter::new(head, body));
        None
    }

    /// Does what [`Self::poll_response`] does until the deadline; returns `None` once that has passed. A response that is
    /// there wins.
    pub(super) fn poll_response_until(
        &mut self,
        context: &mut Context<'_>,
        deadline: ActiveInstant,
    ) -> Poll<Option<Result<Response<BodyReader>, BrokenConnection>>> {
        if let Poll::Ready(response) = self.poll_response(context) {
            return Poll::Ready(Some(response));
        }
        self.timer.start_at(deadline);
        self.timer.poll(context).map(|()| None)
    }

    /// Sends the request, and returns the head of its response, whose body this connection goes on to read.
    ///
    /// # Errors
    /// [`BrokenConnection`]: the worker closed the connection, or what came is no response.
    pub(super) fn poll_response(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Response<BodyReader>, BrokenConnection>> {
        self.request.poll(context, &mut self.socket);
        loop {
            let known = self.head.len();
            let head = &mut self.head;
            ready!(self.socket.poll_read(context, WORKER_READ, |bytes| head.extend_from_slice(bytes)))?;
            if self.head.len() == known {
                return Poll::Ready(Err(BrokenConnection::closed()));
            }
            // A head nearly always comes at once, and is not searched for its end before it is read.
            if known == 0 || response_head::has_end(&self.head, known) {
                let mut bytes = std::mem::take(&mut self.head).freeze();
                if let Some(found) = known_head::read(&bytes, &self.method)? {
                    let ResponseHead { response, body, keeps_open, length } = found;
                    // Not as a slice, which would have to count who holds the bytes.
                    bytes.advance(length);
                    self.arrived = if bytes.is_empty() { Bytes::new() } else { bytes };
                    self.keeps_open = keeps_open;
                    return Poll::Ready(Ok(response.map(|()| body)));
                }
                self.head = bytes.into();
            }
            if self.head.len() > WORKER_HEAD_SIZE {
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
                    let piece = body.take_shared(&mut self.arrived).map_err(|_| NotHttp)?;
                    if self.arrived.is_empty() {
                        // A connection that waits keeps no buffer.
                        self.arrived = Bytes::new();
                    }
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
