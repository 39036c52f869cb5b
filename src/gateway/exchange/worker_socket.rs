//! The socket of a connection to a worker, with or without TLS.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::{BufMut, BytesMut};
use hyper_rustls::MaybeHttpsStream;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::io::poll_read_buf;

use crate::dial::Link;
use crate::gateway::bounds::WORKER_READ;

/// A socket that is read into the stack, because most that arrives is short, and a connection that waits shall hold no
/// buffer.
pub(super) enum WorkerSocket {
    Plain(TcpStream),
    /// Boxed: the state of TLS takes a kilobyte.
    Tls(Box<TokioIo<Link>>),
}

impl WorkerSocket {
    pub(super) fn new(link: Link) -> Self {
        match link {
            MaybeHttpsStream::Http(stream) => Self::Plain(stream.into_inner()),
            link @ MaybeHttpsStream::Https(_) => Self::Tls(Box::new(TokioIo::new(link))),
        }
    }

    /// Reads once, at most `limit` bytes, and shows them to `take`: none at the end of the stream.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn poll_read<T>(
        &mut self,
        context: &mut Context<'_>,
        limit: usize,
        take: impl FnOnce(&[u8]) -> T,
    ) -> Poll<io::Result<T>> {
        let mut storage = [const { MaybeUninit::uninit() }; WORKER_READ];
        let mut buffer = ReadBuf::uninit(&mut storage[..limit.min(WORKER_READ)]);
        ready!(match self {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, &mut buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, &mut buffer),
        })?;
        Poll::Ready(Ok(take(buffer.filled())))
    }

    /// Returns whether there is something to read: bytes, the end of the stream, or an error. A byte of it may be lost. No
    /// task is woken when that changes, which takes a third of the time of [`Self::poll_read`].
    pub(super) fn has_arrival(&mut self) -> bool {
        match self {
            Self::Plain(stream) => {
                !matches!(stream.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
            }
            Self::Tls(_) => self.poll_read(&mut Context::from_waker(Waker::noop()), 1, |_| ()).is_ready(),
        }
    }

    /// Reads once into `buffer`, at most `limit` bytes, which must be more than none. Returns their number: 0 at the end
    /// of the stream.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn poll_read_into(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut BytesMut,
        limit: usize,
    ) -> Poll<io::Result<usize>> {
        let buffer = &mut buffer.limit(limit);
        match self {
            Self::Plain(stream) => poll_read_buf(Pin::new(stream), context, buffer),
            Self::Tls(stream) => poll_read_buf(Pin::new(stream), context, buffer),
        }
    }

    /// Writes some of these bytes. Returns how many.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn poll_write(&mut self, context: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, pieces),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, pieces),
        }
    }

    /// Sends what TLS has gathered.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }
}
