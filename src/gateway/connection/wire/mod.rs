//! The stream between a client's socket and hyper: no byte of an HTTP/1.1 head reaches hyper before the whole head has
//! arrived and has been checked.
//!
//! Owns the limits and the timeout of heads, the response to a malformed one, the end of each body (so that pipelined
//! heads are checked too), the write timeout of clients that do not read, and the close of the connection. Does not
//! know what a request means. Requests that have arrived whole are answered by `whole_server.rs`, which reads and writes
//! through the wire as hyper does; what is said of hyper here holds for it too. A connection that begins with the HTTP/2
//! preface passes unchecked: it is only watched for stalled writes, for stalled responses, and for times without a request
//! in flight.
//!
//! A client that closes its sending side while a response is on its way counts as gone, as it does for nginx. The wire
//! notices that itself, at each flush: hyper would need a buffer for it.
//!
//! # Who writes when
//!
//! Both hyper and the wire write to the socket, and the wire must not write into hyper's response.
//! [`ConnectionRequests`] counts the requests that come out of hyper and their responses, the wire counts the heads
//! that it has passed to hyper, and a flush by hyper says that its own buffer is empty. If both counts agree at a
//! flush, no response is on its way.
//!
//! # Why not hyper alone
//!
//! hyper 1.x answers a malformed head by itself, with a bare 400, 414 or 431 (`on_error` in its
//! `src/proto/h1/role.rs`). The service never sees such a request. There is no 408: when `header_read_timeout` is over,
//! hyper closes the connection without a response. What this folder and `head/` add:
//!
//! - a JSON error with a request id, CORS headers and a line in the access log, for malformed heads too;
//! - exact limits for the request line, for each header line and for the whole head (hyper limits only its buffer and
//!   the number of lines);
//! - a 408 in time for a head that never ends, and a clock that leaves out pauses of the process;
//! - detection of clients that stall: hyper waits without limit for a client that does not read its response, and the
//!   response holds a slot of llama-server until then;
//! - a lingering close (RFC 9112, section 9.6): a close with unread bytes in the socket sends a reset, and a reset can
//!   destroy the response before the client has read it. hyper shuts down and drops the socket.
//!
//! It is *not* here to protect llama-server or a remote backend from request smuggling. Requests to them are serialised
//! again in `exchange/`, so no byte of a client's framing reaches them. The grammar is strict because the wire and
//! hyper read the same bytes one after the other and must agree on them.
//!
//! With a hook in hyper that lets the service answer parse errors and timeouts of heads, about half of this could go:
//! the head scanner, the chunk scanner and the replaced responses. Stall detection and the lingering close would stay.
//!
//! # Files
//!
//! - `incoming.rs`: what hyper gets of the bytes from the client
//! - `heads.rs`: waits for heads, and reads ahead
//! - `read_ahead.rs`: bytes from the client that have not been passed to hyper
//! - `request_buffer.rs`: the memory of requests that have arrived whole
//! - `requests.rs`: counts the requests and responses of a connection
//! - `multiplexed.rs`: responses over HTTP/2, each of which may stall by itself
//! - `outgoing.rs`: writes, and the close of the connection
//! - `whole_requests.rs`: requests that have arrived whole, which do without hyper

mod heads;
mod incoming;
mod multiplexed;
mod outgoing;
mod read_ahead;
mod request_buffer;
pub(super) mod requests;
pub(super) mod whole_requests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, Take};

use super::head::{Framing, HeadLimits, HeadScanner};
use crate::gateway::scan::chunked_body::ChunkedBody;
use crate::pause_clock::{ActiveInstant, LazyTimer};
use crate::refusal::Refusal;
use read_ahead::ReadAhead;
use request_buffer::RequestBuffer;
use requests::ConnectionRequests;

/// Builds the whole response to a refused head, as bytes, from as much of the head as has arrived.
pub(super) type RefusalWriter = Arc<dyn Fn(&[u8], &Refusal) -> Bytes + Send + Sync>;

/// Limits of one connection.
#[derive(Debug, Clone, Copy)]
pub struct WireLimits {
    /// Limits of a request head.
    pub head: HeadLimits,
    /// Longest time for a request head, from the start of the connection or from the first byte of a later head
    /// (`CLIENT_HEADER_TIMEOUT`). With HTTP/2, the longest time until the first request.
    pub header_timeout: Duration,
    /// Longest time from the end of a response to the first byte of the next head (`CLIENT_IDLE_TIMEOUT`). With HTTP/2, the
    /// longest time without a request in flight after the first one.
    pub idle_timeout: Duration,
    /// Longest time without any progress while a response is written to a client.
    pub write_stall: Duration,
}

/// A client's socket as hyper sees it: an `AsyncRead` of checked requests and an `AsyncWrite` of responses.
pub(super) struct WireStream<S> {
    /// The limit is set before each read. It keeps the read of a body from taking bytes of the next head.
    socket: Take<S>,
    limits: WireLimits,
    refuse: RefusalWriter,
    requests: Arc<ConnectionRequests>,
    read_state: ReadState,
    read_ahead: ReadAhead,
    /// The current request, if it does without hyper.
    request_buffer: RequestBuffer,
    /// Heads that have been passed to hyper. Wraps around, as the counters of `requests` do.
    passed_heads: u32,
    /// Whether the response to the last of them is still on its way.
    is_responding: bool,
    /// Times out the next head, or the wait for its first byte; with HTTP/2, the connection without requests; at the
    /// close, the lingering.
    read_timer: LazyTimer,
    /// Runs while a write waits for the client to read.
    write_timer: LazyTimer,
    /// When a write last went on after it had waited for the client.
    write_resumed_at: Option<ActiveInstant>,
    /// The response to a refused head, written at the close; then what is left of it.
    refusal_bytes: Bytes,
    close_phase: ClosePhase,
    /// Whether the client has closed its sending side.
    is_client_gone: bool,
    /// Whether the wire has stopped reading although the client may still be sending.
    has_stopped_reading: bool,
}

/// What the next bytes from the client are. A request goes through `Head`, `PassingHead` and, if it has a body,
/// `Length` or `Chunked`; then the next `Head` begins.
enum ReadState {
    /// The first bytes of a connection, which may be the HTTP/2 preface.
    Start,
    /// A head that is not complete yet.
    Head(HeadScanner),
    /// The rest of a request without hyper, which is this long in bytes. Its head has been read ahead.
    Rest(usize),
    /// The rest of a checked head, this many bytes long, then its body.
    PassingHead(usize, Framing),
    /// The rest of a body with `Content-Length`, this many bytes long.
    Length(u64),
    Chunked(ChunkedBody),
    /// More pipelined input than is read ahead. Discarded, up to this many bytes, until the current response is out.
    Excess(usize),
    /// HTTP/2 frames, which pass unchecked.
    Http2,
    /// Nothing is read any more; hyper is told that the stream has ended.
    Done,
}

impl ReadState {
    /// What follows a head whose body is framed so, if this many bytes of the body have passed.
    fn body(framing: Framing, passed: u64) -> Self {
        match framing {
            Framing::Length(length) if length > passed => Self::Length(length - passed),
            Framing::Length(_) | Framing::None => Self::Head(HeadScanner::default()),
            Framing::Chunked => Self::Chunked(ChunkedBody::default()),
        }
    }
}

/// The phases of a close, in this order.
enum ClosePhase {
    /// Writes `refusal_bytes`.
    Refusal,
    /// Closes the sending side.
    Shutdown,
    /// Discards up to this many bytes, so that the client can read the response.
    Linger(usize),
    Done,
}

/// The connection preface of HTTP/2 with prior knowledge (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

impl<S: AsyncRead + AsyncWrite + Unpin> WireStream<S> {
    pub(super) fn new(socket: S, limits: WireLimits, refuse: RefusalWriter, requests: Arc<ConnectionRequests>) -> Self {
        let mut read_timer = LazyTimer::default();
        read_timer.start(limits.header_timeout);
        Self {
            socket: socket.take(u64::MAX),
            limits,
            refuse,
            requests,
            read_state: ReadState::Start,
            read_ahead: ReadAhead::default(),
            request_buffer: RequestBuffer::default(),
            passed_heads: 0,
            is_responding: false,
            read_timer,
            write_timer: LazyTimer::default(),
            write_resumed_at: None,
            refusal_bytes: Bytes::new(),
            close_phase: ClosePhase::Refusal,
            is_client_gone: false,
            has_stopped_reading: false,
        }
    }
}

#[cfg(test)]
mod tests;
