//! Bounds of the gateway: each wait, queue and buffer whose size no user needs to choose.

use std::time::Duration;

/// Longest stay of an idle connection to llama-server in the pool. llama-server closes one after 5 s, and a
/// request must not meet a connection that is just being closed.
pub const UPSTREAM_IDLE: Duration = Duration::from_secs(3);

/// Longest wait for the answer of a llama-server whose end has been found out: it may have been sent before.
pub const DEAD_WORKER_RESPONSE_WAIT: Duration = Duration::from_millis(500);

/// Longest wait of a request that needs no slot for a llama-server that is doubted. By then it has answered a probe, or
/// counts as unhealthy.
pub const PROBED_WORKER_WAIT: Duration = Duration::from_secs(5);

/// Pause after `accept` failed, for instance because all file descriptors are in use.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Connections that the kernel may hold before they are accepted.
pub const LISTEN_BACKLOG: u32 = 1024;

/// Longest part of a server-sent event that is held back until the event is complete. A longer event is passed on
/// in pieces.
pub const MAX_BUFFERED_EVENT: usize = 64 * 1024;

/// Most bytes of an answer that is no stream and becomes one event, because heartbeats came before it.
pub const WRAPPED_ANSWER: usize = 1024 * 1024;

/// Bytes of a request body that are searched for its members before others get their turn.
pub const SCANNED_AT_ONCE: usize = 256 * 1024;

/// Longest name of a member of a request or an answer that can matter, in bytes as it is written there.
pub const MEMBER_NAME: usize = 256;

/// Most members of a request, or parts of a form.
pub const MOST_MEMBERS: usize = 1024;

/// Most bytes of the head of a part of a form.
pub const PART_HEAD: usize = 8 * 1024;

/// Lengths of a prompt's beginning by which requests are recognised that continue each other, in bytes.
pub const PREFIX_LENGTHS: [usize; 4] = [256, 1024, 4 * 1024, 16 * 1024];

/// Pieces of a request body that are shorter than this are joined.
pub const SMALL_PIECE: usize = 1024;

/// Most bytes of the body of a refused request that are read and thrown away to keep the connection.
pub const DISCARDED_BODY: usize = 64 * 1024;

/// How often such a body is asked for what has come of it.
pub const DISCARD_TURNS: usize = 2;

/// Bytes that the bodies of all requests together may take before they are sent on. A body that finds no room is
/// refused with `queue_full`.
pub const BUFFERED_BODIES: usize = 256 * 1024 * 1024;

/// Bytes of the beginning of a server-sent event, or of an error, that tell what it is for. Kept of an event that does not
/// come in one piece.
pub const EVENT_HEAD: usize = 512;

/// Most requests in flight that need no slot, such as those for the list of models. Each may take a connection to
/// llama-server, which slots do not bound.
pub const MAX_SLOTLESS_REQUESTS: usize = 32;

/// Retry-After of a refusal for which nothing has been measured yet.
pub const RETRY_AFTER_UNKNOWN: Duration = Duration::from_secs(5);

/// Longest Retry-After that is estimated from a measurement.
pub const RETRY_AFTER_LONGEST: Duration = Duration::from_secs(600);

/// Meters of keys that are kept before those no longer asked for are looked for and dropped.
pub const METERS_BEFORE_SWEEP: usize = 1024;

/// Wrong keys a minute that one client address may send before it has to wait.
pub const AUTH_FAILURES_PER_MINUTE: u32 = 60;

/// Most client addresses whose wrong keys are counted at once.
pub const MAX_FAILING_ADDRESSES: usize = 4096;

/// Suspects among which a new one takes the place of the least suspicious. Divides [`MAX_SUSPECTS`].
pub const FAILING_ADDRESSES_PER_BUCKET: usize = 8;

/// Addresses that a key is remembered to have been used from.
pub const KNOWN_ADDRESSES_PER_KEY: usize = 8;

/// How long an address counts as one that a key is used from.
pub const KNOWN_ADDRESS_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// How long browsers may keep the answer to a CORS preflight. None keeps it longer than Chromium's two hours.
pub const PREFLIGHT_MAX_AGE: Duration = Duration::from_secs(2 * 60 * 60);

/// Longest list of header names, in bytes, that a CORS preflight repeats.
pub const PREFLIGHT_HEADER_NAMES: usize = 1024;

/// Most bytes of a request head, unless the limits of the request line and of a header line add up to more. Whoever has
/// not yet said who they are makes the gateway hold no more than this.
pub const HEAD_SIZE: usize = 32 * 1024;

/// Most header lines that `MAX_HEADERS` can allow; `http::HeaderMap` takes not many more.
pub const MOST_HEADERS: usize = 16 * 1024;

/// Bytes of a connection's buffer for heads; it grows for longer heads, and for a client that sends before its turn.
pub const HELD_BYTES: usize = 4 * 1024;

/// What a client may send before its turn, in whole heads of the largest size.
pub const EARLY_HEADS: usize = 2;

/// Longest first line of a chunk, its extensions included.
pub const CHUNK_LINE_SIZE: usize = 256;

/// Most bytes of trailers after a chunked body.
pub const TRAILERS_SIZE: usize = 8 * 1024;

/// Most bytes of a chunked body that are read at once; what follows the body is among them.
pub const CHUNKED_READ: u64 = 16 * 1024;

/// Time between two looks for answers that their clients do not read, and so how much later than its bound one may end.
pub const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// The same once what is in flight is cut; many times within [`CONNECTION_GRACE`].
pub const SWEEP_INTERVAL_ABORT: Duration = Duration::from_millis(50);

/// How long a closed connection is still read, so that its client gets to read the answer.
pub const LINGER_TIME: Duration = Duration::from_secs(2);

/// Most bytes that are read from a closed connection.
pub const LINGER_BYTES: usize = 64 * 1024 * 1024;

/// Bytes that are read at once from a closed connection.
pub const LINGER_READ: usize = 16 * 1024;

/// Silence of a connection after which the kernel asks whether the other side is still there.
pub const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);

/// Time between two such questions.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// Questions without an answer after which a connection is broken.
pub const KEEPALIVE_TRIES: u32 = 4;

/// Most requests at once on one HTTP/2 connection.
pub const HTTP2_STREAMS: u32 = 128;

/// Bytes of an answer over HTTP/2 that are sent at once; a client that has not read so many in [`CLIENT_WRITE_STALL`] does
/// not read it.
pub const HTTP2_PIECE: usize = 16 * 1024;

/// Time between two pings on an HTTP/2 connection.
pub const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(30);

/// Longest wait for the answer to a ping.
pub const HTTP2_PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Longest time for which a remote backend is left alone because it asks for that with `Retry-After`; then one request
/// tries it.
pub const MAX_BACKEND_RETRY_AFTER: Duration = Duration::from_secs(10 * 60);

/// Longest pause before the second try of a request; before each further one it is twice as long.
pub const RETRY_PAUSE_FIRST: Duration = Duration::from_millis(50);
