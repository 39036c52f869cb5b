//! Bounds of the gateway: timeouts, queue lengths and buffer sizes that no user needs to choose.

use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::time::Duration;

use jiff::SignedDuration;

/// Longest time that an idle connection to llama-server stays in the pool. llama-server closes an idle connection after
/// 5 s, and a request must not be sent on a connection that is just being closed.
pub const UPSTREAM_IDLE: Duration = Duration::from_secs(3);

/// Most idle connections that one request tries, if the worker has just closed each of them.
pub const MOST_STALE_CONNECTIONS: usize = 32;

/// Most bytes that are read at once from a worker, into the stack of the thread.
pub const WORKER_READ: usize = 16 * 1024;

/// Most bytes of a response of known length that are read at once if more than [`WORKER_READ`] follow.
pub const WORKER_BULK_READ: usize = 64 * 1024;

/// Most header lines in the head of a worker's response.
pub const WORKER_HEADERS: usize = 100;

/// Most bytes of the heads of a worker's response, those of informational responses before it included.
pub const WORKER_HEAD_SIZE: usize = 400 * 1024;

/// Longest head of a worker's response that is remembered, in bytes: llama-server's are shorter.
pub const KNOWN_HEAD_SIZE: usize = 1024;

/// How many headers the map of a response has room for if it is kept for the next one, one map for each thread: what
/// `http::HeaderMap` holds in 16 and in 128 places. A smaller one would have to grow.
pub const KEPT_HEADERS: RangeInclusive<usize> = 12..=96;

/// Largest buffer of a head and of the short pieces of a body after it, in bytes, that is kept for the next head, one for
/// each thread.
pub const KEPT_HEAD_BUFFER: usize = 16 * 1024;

/// Longest wait for the response of a llama-server that has just ended: it may have sent the response before.
pub const DEAD_WORKER_RESPONSE_WAIT: Duration = Duration::from_millis(500);

/// Longest wait of a request without a slot for a llama-server that is being probed. By then the server has answered
/// the probe, or counts as unhealthy.
pub const PROBED_WORKER_WAIT: Duration = Duration::from_secs(5);

/// Shortest time between the end of a scan of the models folder for an unknown name and the next such scan.
pub const RESCAN_PAUSE: Duration = Duration::from_secs(2);

/// Longest wait of a request for a scan of the models folder. The scan itself goes on: the folder may be on a volume that
/// does not answer.
pub const RESCAN_WAIT: Duration = Duration::from_secs(1);

/// When a client may ask again for a download while too many have not ended.
pub const DOWNLOADS_FULL_RETRY: Duration = Duration::from_secs(30);

/// Most secrets of API keys that are made over HTTP in a minute.
pub const NEW_SECRETS_PER_MINUTE: NonZeroU32 = NonZeroU32::new(30).unwrap();

/// Longest wait of a request that changes a key for those before it. One edit of the key file may wait for another program.
pub const KEY_EDIT_TURN_WAIT: Duration = Duration::from_secs(15);

/// Most keys of one page of the list.
pub const KEYS_PAGE: usize = 1_000;

/// Longest body of a request about keys, in bytes.
pub const KEY_ORDER_SIZE: usize = 64 * 1024;

/// Pause after `accept` has failed, for instance because all file descriptors are in use.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Connections that the kernel may hold before they are accepted.
pub const LISTEN_BACKLOG: u32 = 1024;

/// Longest part of a server-sent event that is held back until the event is complete. A longer event is passed on
/// in pieces.
pub const MAX_BUFFERED_EVENT: usize = 64 * 1024;

/// Most bytes of the data of one event that are read for the end of its stream.
pub const READ_EVENT: usize = 1024 * 1024;

/// Most bytes of one event that are held while it is changed. A longer one is passed on as it is.
pub const TRANSFORMED_EVENT: usize = 1024 * 1024;

/// Most bytes of a whole answer that are held while it is changed. A longer one is passed on as it is.
pub const MENDED_ANSWER: usize = 4 * 1024 * 1024;

/// Most output items of a response that are told apart.
pub const MOST_OUTPUT_ITEMS: usize = 1024;

/// Most bytes of a request's member that is read for the mends of its answer, such as `stop_sequences`.
pub const MEND_MEMBER: usize = 64 * 1024;

/// Longest name of a person, in bytes. A longer one in a body is replaced by its hash.
pub const PERSON_NAME: usize = 128;

/// Longest value of a member of a body, in bytes, in which a person is looked for.
pub const PERSON_VALUE: usize = 4 * 1024;

/// Longest value of a member of a body, in bytes, that is one of a few words.
pub const SHORT_TEXT: usize = 64;

/// Tokens that are reserved of a budget for an answer whose length neither the request nor the model limits.
pub const DEFAULT_ANSWER_TOKENS: u64 = 1024;

/// How many answers as large as the largest that is kept fit into the cache.
pub const LARGEST_KEPT_SHARE: usize = 16;

/// Most bytes of an answer that is too large to be kept, by which the fastest of its readers may be ahead of the slowest.
pub const SHARED_LEAD: usize = 1024 * 1024;

/// Most answers that wait to be kept on disk, and the memory that they may take, in bytes. Further ones are kept in memory
/// only.
pub const WAITING_ANSWERS: usize = 1024;
/// See [`WAITING_ANSWERS`].
pub const WAITING_ANSWER_BYTES: usize = 64 << 20;

/// Largest answer that is kept on disk, in bytes.
pub const LARGEST_ON_DISK: usize = 32 << 20;

/// Size of the answers that are written to disk in one step, in bytes: the first that reaches it is the last.
pub const DISK_BATCH: usize = 4 << 20;

/// How long a statement waits for another process that has locked the file of answers.
pub const DISK_LOCK_WAIT: Duration = Duration::from_millis(500);

/// Time between two attempts at a file of answers that cannot be used.
pub const DISK_RETRY: Duration = Duration::from_secs(5);

/// Shortest time between two removals of old answers from the disk.
pub const LEAST_PRUNE_WAIT: Duration = Duration::from_secs(60);

/// Longest wait for the last write to the file of answers when the service stops.
pub const DISK_LAST_WRITE_WAIT: Duration = Duration::from_secs(5);

/// Most clients that read one answer in flight.
pub const MOST_READERS: usize = 1024;

/// Longest id of a session, in bytes, that is used to find the worker that has served the session before.
pub const SESSION_ID: usize = 256;

/// Most bytes of the data of one event that becomes a line of Ollama's API. A longer one ends the stream with an error.
pub const LINE_EVENT: usize = 4 * 1024 * 1024;

/// How far ahead lies the time at which a model is unloaded that nothing unloads, for Ollama's clients.
pub const NEVER_UNLOADED: SignedDuration = SignedDuration::from_hours(100 * 365 * 24);

/// Most choices of one stream that are told apart.
pub const MOST_CHOICES: usize = 1024;

/// Most bytes of a response that is not a stream and is sent as one event, because heartbeats were sent before it.
pub const WRAPPED_ANSWER: usize = 1024 * 1024;

/// Most bytes of a worker's answer to a call that is made for a translated request.
pub const CALL_ANSWER: usize = 64 * 1024 * 1024;

/// Most bytes of the answers to all calls of one translated request together: what is read of them is kept until the last
/// one has come. About 50,000 vectors of 1,024 numbers.
pub const CALL_ANSWERS: usize = 256 * 1024 * 1024;

/// Most calls to workers that are made at the same time for one translated request.
pub const CALLS_AT_ONCE: usize = 16;

/// Most inputs of one call for embeddings. A request with more becomes several calls, so that others get their turn in
/// between, and so that [`CALL_ANSWER`] holds the vectors of any model.
pub const INPUTS_PER_CALL: usize = 64;

/// Most tokens of the inputs of one call for the vectors of all tokens, if it has several inputs: llama-server holds the whole
/// answer, some 40 bytes for each number of it.
pub const TOKENS_PER_CALL: usize = 4096;

/// Most numbers of the vectors of tokens that are kept for one request. One text of the longest context of BGE-M3 has half of
/// them.
pub const TOKEN_NUMBERS: usize = 16 * 1024 * 1024;

/// Most requests whose vectors of tokens are put through a head, or written, at the same time: each takes a processor.
pub const HEAD_JOBS_AT_ONCE: usize = 4;

/// Longest wait of a request for its turn at that.
pub const HEAD_JOB_WAIT: Duration = Duration::from_secs(60);

/// Most attempts at cutting a text so that the tokenizer finds no more tokens in it than there is room for.
pub const CUT_ATTEMPTS: usize = 4;

/// Bytes of a request body that are scanned for its members before the task yields to others.
pub const SCANNED_AT_ONCE: usize = 256 * 1024;

/// Bytes of a packed request body that are unpacked before what came out is counted: they may become a megabyte.
pub const UNPACKED_AT_ONCE: usize = 1024;

/// Steps in which a packed answer is unpacked before the task yields to others, if nothing comes out of them. Each reads or
/// gives at most `content_coding::LARGEST_STEP` bytes.
pub const UNPACK_STEPS: usize = 16;

/// Longest name of a JSON member that the gateway compares, in bytes as the name is written.
pub const MEMBER_NAME: usize = 256;

/// Longest number of a parameter that is read, in bytes as it is written.
pub const NUMBER_LENGTH: usize = 64;

/// Most members of a request's JSON object, or parts of its form.
pub const MOST_MEMBERS: usize = 1024;

/// Most bytes of the headers of one part of a form.
pub const PART_HEAD: usize = 8 * 1024;

/// Longest value of `stream_options`, in bytes, that is changed to ask for token counts.
pub const STREAM_OPTIONS_SIZE: usize = 4 * 1024;

/// Bytes for each token where a backend reports no tokens: an estimate, for English text.
pub const BYTES_PER_TOKEN: u64 = 4;

/// The shortest mean length of a token of a prompt that is learned from answers, in bytes of the body.
pub const LEAST_BYTES_PER_TOKEN: f64 = 1.0;

/// The longest one.
pub const MOST_BYTES_PER_TOKEN: f64 = 16.0;

/// Lengths of the prompt prefixes that are hashed for prefix affinity, in bytes.
pub const PREFIX_LENGTHS: [usize; 4] = [256, 1024, 4 * 1024, 16 * 1024];

/// Pieces of a request body that are shorter than this, in bytes, are joined.
pub const SMALL_PIECE: usize = 1024;

/// Most bytes of an answer's pieces that are copied into one: each piece costs more to send than to copy.
pub const JOINED_PIECES: usize = 16 * 1024;

/// Most bytes of the body of a refused request that are read and discarded to keep the connection.
pub const DISCARDED_BODY: usize = 64 * 1024;

/// How often such a body is polled for the bytes that have already arrived.
pub const DISCARD_TURNS: usize = 2;

/// Bytes that the buffered bodies of all requests may take together. A request whose body does not fit is refused with
/// `queue_full`.
pub const BUFFERED_BODIES: usize = 256 * 1024 * 1024;

/// Bytes at the beginning of a server-sent event, or of an error, that suffice to classify it. They are kept for an
/// event that does not arrive in one piece.
pub const EVENT_HEAD: usize = 512;

/// Most bytes of a backend's error (5xx) that are read to find out whose fault it is.
pub const ERROR_BODY: usize = 64 * 1024;

/// Longest wait for those bytes.
pub const ERROR_BODY_WAIT: Duration = Duration::from_secs(5);

/// Shortest key of a backend that is looked for in its answers, in bytes. A shorter one would be found in any text.
pub const LEAST_KEY_LENGTH: usize = 8;

/// Most characters of a backend's own words that an error repeats.
pub const ERROR_WORDS: usize = 1024;

/// How often a waiting request is overtaken by requests of its key that a worker can compute together with others.
pub const MOST_OVERTAKES: usize = 4;

/// Waiting requests of a key among which one is looked for that may overtake.
pub const BATCH_LOOKAHEAD: usize = 64;

/// Most requests for a model that need no slot and wait for their turn.
pub const MAX_WAITING_SLOTLESS_REQUESTS: usize = 1024;

/// `Retry-After` of a refusal for which nothing has been measured yet.
pub const RETRY_AFTER_UNKNOWN: Duration = Duration::from_secs(5);

/// Longest `Retry-After` that is estimated from a measurement.
pub const RETRY_AFTER_LONGEST: Duration = Duration::from_secs(600);

/// Most different API keys of one request that are looked up. Every guess costs a hash.
pub const OFFERED_KEYS: usize = 8;

/// Number of key meters above which unused ones are looked for and dropped.
pub const METERS_BEFORE_SWEEP: usize = 1024;

/// Wrong keys per minute that one client address may send before it has to wait.
pub const AUTH_FAILURES_PER_MINUTE: u32 = 60;

/// Most client addresses whose wrong keys are counted at once.
pub const MAX_FAILING_ADDRESSES: usize = 4096;

/// Addresses in one bucket; a new address replaces the one with the fewest failures in its bucket. Divides
/// [`MAX_FAILING_ADDRESSES`].
pub const FAILING_ADDRESSES_PER_BUCKET: usize = 8;

/// Client addresses that are remembered for each key.
pub const KNOWN_ADDRESSES_PER_KEY: usize = 8;

/// How long an address is remembered as one that a key is used from.
pub const KNOWN_ADDRESS_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// How long browsers may cache the response to a CORS preflight. No browser caches it longer than Chromium's two hours.
pub const PREFLIGHT_MAX_AGE: Duration = Duration::from_secs(2 * 60 * 60);

/// Longest list of header names, in bytes, that the response to a CORS preflight repeats.
pub const PREFLIGHT_HEADER_NAMES: usize = 1024;

/// Most bytes of a request head, unless the limits of the request line and of a header line add up to more. It bounds
/// the memory that a client can use before it has authenticated.
pub const HEAD_SIZE: usize = 32 * 1024;

/// Most header lines that `MAX_HEADERS` can allow; `http::HeaderMap` takes not many more.
pub const MOST_HEADERS: usize = 16 * 1024;

/// Initial size in bytes of a connection's buffer for heads that do not arrive whole. It grows for longer heads.
pub const HELD_BYTES: usize = 4 * 1024;

/// Most bytes of pipelined requests that are buffered, in whole heads of the largest size.
pub const EARLY_HEADS: usize = 2;

/// The longest request, head and body, that is read at once, into the stack of the thread, in bytes. A longer one is read
/// by hyper.
pub const WHOLE_REQUEST: usize = 16 * 1024;

/// The longest such request, in bytes, whose buffer is kept for a later one, and the size of each of these buffers.
pub const KEPT_REQUEST_SIZE: usize = 1024;

/// Most buffers of such requests that are kept for each thread.
pub const KEPT_REQUEST_BUFFERS: usize = 64;

/// Most header lines of a request that is read at once. hyper reads one that has more.
pub const WHOLE_REQUEST_HEADERS: usize = 64;

/// How long a body is awaited whose head has arrived without it, before hyper reads both. Many clients write the two one
/// right after the other. A refusal that needs no body comes this much later at most.
pub const PROMPT_BODY: Duration = Duration::from_millis(20);

/// The longest piece of a response, in bytes, that is copied to what is sent with it: a write of its own would cost more.
pub const COPIED_PIECE: usize = 4 * 1024;

/// Most bytes of a response that are gathered before they are sent, apart from the last piece.
pub const GATHERED_RESPONSE: usize = 16 * 1024;

/// Most bytes of responses that TLS keeps until the socket takes them: a record (RFC 8446, section 5.1). While it has room, a
/// client that has stopped reading is not noticed.
pub const UNSENT_TLS: usize = 16 * 1024;

/// Longest size line of a chunk in bytes, its extensions included (RFC 9112, section 7.1).
pub const CHUNK_LINE_SIZE: usize = 256;

/// Most bytes of trailers after a chunked body.
pub const TRAILERS_SIZE: usize = 8 * 1024;

/// Most bytes of a chunked body that are read at once; they may include what follows the body.
pub const CHUNKED_READ: usize = 16 * 1024;

/// Time between two sweeps for responses that their clients do not read; a response may end this much after its
/// timeout.
pub const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Time between two sweeps once all responses are being aborted. A small part of `CONNECTION_GRACE`.
pub const SWEEP_INTERVAL_ABORT: Duration = Duration::from_millis(50);

/// How long a closed connection is still read, so that its client can read the response.
pub const LINGER_TIME: Duration = Duration::from_secs(2);

/// Most bytes that are read from a closed connection.
pub const LINGER_BYTES: usize = 64 * 1024 * 1024;

/// Bytes that are read at once from a closed connection.
pub const LINGER_READ: usize = 16 * 1024;

/// Idle time of a connection after which the kernel sends a keep-alive probe (`TCP_KEEPIDLE`).
pub const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);

/// Time between two keep-alive probes (`TCP_KEEPINTVL`).
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// Unanswered keep-alive probes after which a connection is broken (`TCP_KEEPCNT`).
pub const KEEPALIVE_TRIES: u32 = 4;

/// Most bytes of a file for browsers that is packed in the source tree, unpacked.
pub const MAX_UNPACKED_ASSET: u64 = 8 * 1024 * 1024;

/// Most concurrent streams on one HTTP/2 connection.
pub const HTTP2_STREAMS: u32 = 128;

/// Bytes of a response over HTTP/2 that are buffered for sending. A client that reads fewer bytes in
/// `CLIENT_WRITE_STALL` counts as stalled.
pub const HTTP2_PIECE: usize = 16 * 1024;

/// Time between two pings on an HTTP/2 connection.
pub const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(30);

/// Longest wait for the response to a ping on an HTTP/2 connection.
pub const HTTP2_PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Longest time for which a remote backend gets no requests because it asks for that with `Retry-After`. After it, one
/// request tries the backend.
pub const MAX_BACKEND_RETRY_AFTER: Duration = Duration::from_secs(10 * 60);

/// Longest pause before the second attempt of a request. It doubles before each further attempt.
pub const RETRY_PAUSE_FIRST: Duration = Duration::from_millis(50);
