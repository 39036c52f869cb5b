//! How hyper serves connections: what the wire does in its place, and within which limits.

use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::wire::WireLimits;
use crate::gateway::bounds::{HTTP2_PING_INTERVAL, HTTP2_PING_TIMEOUT, HTTP2_STREAMS};
use crate::pause_clock;

/// Header lines that hyper accepts by default (`DEFAULT_MAX_HEADERS` in its `src/proto/h1/role.rs`).
const HYPER_MAX_HEADERS: usize = 100;

/// Bytes of a head that hyper accepts by default, at least (`DEFAULT_MAX_BUFFER_SIZE` in its `src/proto/h1/io.rs`).
const HYPER_MAX_HEAD_SIZE: usize = 400 * 1024;

/// Configures hyper for HTTP/1.1 within `limits`.
pub(super) fn http1_builder(limits: &WireLimits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    // The wire has its own timeout for heads, which answers 408; hyper's would only close the connection. hyper's
    // limits are raised where the settings allow more, since it must accept every head that the wire has checked.
    builder.timer(TokioTimer::new()).header_read_timeout(None);
    // The wire itself notices that a client leaves: hyper would reserve a second buffer for that while it answers.
    builder.half_close(true);
    if limits.head.headers() > HYPER_MAX_HEADERS {
        builder.max_headers(limits.head.headers());
    }
    if limits.head.size() > HYPER_MAX_HEAD_SIZE {
        builder.max_buf_size(limits.head.size());
    }
    builder
}

/// Configures hyper for HTTP/2 with prior knowledge, within `limits`.
pub(super) fn http2_builder(limits: &WireLimits) -> http2::Builder<TokioExecutor> {
    // The pipeline checks the limits. h2 answers larger heads by itself, with a bare 431: twice the size leaves the
    // pipeline room to answer with a JSON error.
    let head_size = u32::try_from(limits.head.size().saturating_mul(2)).unwrap_or(u32::MAX);
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        // With a timer that counts pauses of the process, a ping would time out after one, before its answer is read.
        .timer(pause_clock::ActiveTimer)
        .max_concurrent_streams(HTTP2_STREAMS)
        .max_header_list_size(head_size)
        .keep_alive_interval(HTTP2_PING_INTERVAL)
        .keep_alive_timeout(HTTP2_PING_TIMEOUT);
    builder
}
