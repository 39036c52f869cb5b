//! Bounds that are not settings: each wait, queue and buffer whose size no user needs to choose, by name.

use std::time::Duration;

/// Time between two signs of life of this program, from which it learns that it was paused.
pub const BEAT_INTERVAL: Duration = Duration::from_millis(250);

/// Shortest time without a sign of life that counts as a pause. Longer than [`BEAT_INTERVAL`].
pub const PAUSE_LEAST: Duration = Duration::from_secs(1);

/// Longest stay of an idle connection to llama-server in the pool. llama-server closes one after 5 s, and a
/// request must not meet a connection that is just being closed.
pub const UPSTREAM_IDLE: Duration = Duration::from_secs(3);

/// Longest wait for the answer of a llama-server whose end has been found out: it may have been sent before.
pub const LAST_WORDS: Duration = Duration::from_millis(500);

/// Most idle connections to one llama-server.
pub const UPSTREAM_IDLE_CONNECTIONS: usize = 32;

/// Time between two readiness probes while llama-server starts.
pub const PROBE_INTERVAL_LOADING: Duration = Duration::from_millis(100);

/// Bytes that a llama-server must have read for its load to count as moving. Answering probes may read a little too.
pub const LOAD_SIGN_READ: u64 = 64 * 1024;

/// Page faults that read storage and are needed for the same.
pub const LOAD_SIGN_FAULTS: u64 = 16;

/// Bytes of a model that are read at once before the start; whether to stop is looked at in between.
pub const PREFETCH_BUFFER: usize = 1024 * 1024;

/// Time between two looks at how far that reading is.
pub const PREFETCH_LOOK: Duration = Duration::from_millis(100);

/// Time between two lines of the log about that.
pub const PREFETCH_REPORT: Duration = Duration::from_secs(5);

/// Time between two probes of a ready llama-server.
pub const PROBE_INTERVAL_READY: Duration = Duration::from_secs(5);

/// Time between two probes of a llama-server that broke a connection, or closed its port, and has not answered since.
pub const PROBE_INTERVAL_DOUBTED: Duration = Duration::from_millis(100);

/// How long such a llama-server may leave its probes without a good answer before it counts as unhealthy. One that has
/// ended is found out sooner.
pub const DOUBT_GRACE: Duration = Duration::from_secs(1);

/// Longest wait of a request that needs no slot for a llama-server that is doubted. By then it has answered a probe, or
/// counts as unhealthy.
pub const DOUBT_PATIENCE: Duration = Duration::from_secs(5);

/// Longest wait for the answer to one probe.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// Longest wait for the answer to one probe of a remote worker, its connection included. Nothing but requests tells how
/// busy it is with others, so it gets more time than one of ours.
pub const REMOTE_PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// Most bytes that are read of the answer to such a probe.
pub const REMOTE_PROBE_BODY: usize = 4 * 1024;

/// Pause before the second probe of a remote worker that cannot serve; it doubles with each further one. The shortest time
/// between two probes of one that can.
pub const REMOTE_BACKOFF_FIRST: Duration = Duration::from_secs(1);

/// Longest such pause.
pub const REMOTE_BACKOFF_LONGEST: Duration = Duration::from_secs(30);

/// Time between two probes of a remote worker that says that it is loading.
pub const REMOTE_INTERVAL_LOADING: Duration = Duration::from_secs(1);

/// Most bytes that are read of llama-server's metrics.
pub const VITALS_SIZE: usize = 64 * 1024;

/// Pause before the next try to start llama-server when this machine was short of something, such as file descriptors.
pub const SHORTAGE_PAUSE: Duration = Duration::from_secs(1);

/// How long a load that waited for memory in vain keeps its age when nobody wants it any more: enough for whoever was
/// refused to try again.
pub const CLAIM_GRACE: Duration = Duration::from_secs(90);

/// How long a ready llama-server may leave its probes without a good answer before it counts as unhealthy: three of them.
pub const SILENCE_UNTIL_UNHEALTHY: Duration = Duration::from_secs(10);

/// How long it may before it is killed and restarted.
pub const SILENCE_UNTIL_RESTART: Duration = Duration::from_secs(60);

/// How long it may run on after it has closed its port: it was asked to end, and waits for its clients.
pub const REFUSAL_UNTIL_RESTART: Duration = Duration::from_secs(5);

/// Longest wait for a process to end that was sent SIGKILL. One that is stuck in the kernel, in the driver of a GPU for
/// instance, may never end.
pub const KILL_GRACE: Duration = Duration::from_secs(10);

/// How many times `HANG_TIMEOUT` the threads of a llama-server may compute, each of them, before anything has come of it:
/// one batch of a large model on a CPU.
pub const COMPUTING_PATIENCE: u32 = 5;

/// Requests in a row that llama-server could not compute, after which it is restarted.
pub const COMPUTE_ERRORS_UNTIL_RESTART: u32 = 3;

/// Deaths of llama-server while it served the same request, after which that request is refused.
pub const DEATHS_UNTIL_REFUSED: u32 = 2;

/// How long such a death is remembered.
pub const DEATHS_REMEMBERED: Duration = Duration::from_secs(10 * 60);

/// Most requests that are remembered for that.
pub const MOST_SUSPECTS: usize = 256;

/// Most requests that are remembered of those given up unanswered in one life of llama-server. Should it be killed because
/// it hangs, they are accused too.
pub const MOST_GIVEN_UP: usize = 64;

/// Backoff before the first restart; it doubles with each further restart in the window.
pub const BACKOFF_FIRST: Duration = Duration::from_millis(500);

/// Longest backoff between two restarts.
pub const BACKOFF_LONGEST: Duration = Duration::from_secs(30);

/// Time between SIGTERM and SIGKILL when llama-server is stopped. It does not drain, and may hang until its last
/// client is gone, so there is no point in waiting longer.
pub const STOP_GRACE: Duration = Duration::from_secs(5);

/// Longest time for which processes that llama-server left running are killed before those that do not end are left to
/// the next start.
pub const LEFTOVER_GRACE: Duration = Duration::from_secs(5);

/// Time between two looks for such processes.
pub const LEFTOVER_POLL: Duration = Duration::from_millis(10);

/// Longest wait for the search for such processes; longer than [`LEFTOVER_GRACE`], for a look may hang.
pub const LEFTOVER_SEARCH: Duration = Duration::from_secs(8);

/// Least time between two looks for orphans that have ended.
pub const REAP_PAUSE: Duration = Duration::from_millis(50);

/// Time between two questions how much memory of the GPUs is in use.
pub const GPU_RELEASE_INTERVAL: Duration = Duration::from_millis(200);

/// Answers in a row without a lower number after which the GPUs count as having their memory back.
pub const GPU_RELEASE_STILL: u32 = 2;

/// Longest wait for the GPUs to have their memory back before llama-server is started again.
pub const GPU_RELEASE_PATIENCE: Duration = Duration::from_secs(10);

/// The part of the memory that is there which `MEMORY_BUDGET=auto` leaves to everything else: one in so many.
pub const MEMORY_RESERVE: u64 = 20;

/// Longest wait for an answer how much memory a llama-server takes.
pub const FOOTPRINT_PATIENCE: Duration = Duration::from_secs(2);

/// Longest wait for the last output of a llama-server that has ended.
pub const LOG_PUMP_GRACE: Duration = Duration::from_secs(2);

/// Most characters of the sentence that says why a llama-server ended.
pub const HINT_LENGTH: usize = 400;

/// Most characters that such a sentence quotes of a line of llama-server's log.
pub const QUOTED_LINE: usize = 160;

/// Most bytes of one word of that log that it quotes: an option, a library, an architecture.
pub const QUOTED_WORD: usize = 64;

/// Ports tried from `PORT_BACKEND` upwards before the system picks one.
pub const BACKEND_PORT_TRIES: u16 = 100;

/// Orders that may wait for the owner of a process-spawning thread.
pub const SPAWN_QUEUE: usize = 16;

/// Time that connections get to finish what they are sending once everything else has stopped.
pub const CONNECTION_GRACE: Duration = Duration::from_secs(1);

/// Pause after `accept` failed, for instance because all file descriptors are in use.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Connections that the kernel may hold before they are accepted.
pub const LISTEN_BACKLOG: u32 = 1024;

/// Connections that the health port serves at once.
pub const HEALTH_CONNECTIONS: usize = 64;

/// File descriptors kept free of connections: listeners, logs, files that are read, what the runtime takes, pipes of
/// llama-server, and above all its probes.
pub const RESERVED_DESCRIPTORS: usize = 64;

/// Connections of clients below which the service does not start for want of file descriptors.
pub const FEWEST_CONNECTIONS: usize = 16;

/// Longest part of a server-sent event that is held back until the event is complete. A longer event is passed on
/// in pieces.
pub const HELD_EVENT: usize = 64 * 1024;

/// Most bytes of an answer that is no stream and becomes one event, because heartbeats came before it.
pub const WRAPPED_ANSWER: usize = 1024 * 1024;

/// Bytes of a request body that are searched for its members before others get their turn.
pub const SCANNED_AT_ONCE: usize = 256 * 1024;

/// Longest name of a member of a request or an answer that can matter, in bytes as it is written there.
pub const MEMBER_NAME: usize = 256;

/// Most members of a request, or parts of a form.
pub const MOST_MEMBERS: usize = 1024;

/// Longest name of a model that a request may ask for, in bytes as it is written there.
pub const MODEL_NAME: usize = 1024;

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

/// Access-log and boot-log lines that may wait for their writer; more are dropped and counted.
pub const LOG_QUEUE: usize = 8 * 1024;

/// Most characters of a request's path, and of its method, that a line of the access log shows.
pub const LOGGED_WORD: usize = 256;

/// Longest time that an access-log line waits in memory for others to be written with it.
pub const LOG_BATCH_TIME: Duration = Duration::from_millis(100);

/// Bytes of access-log lines that are written at once without waiting any longer.
pub const LOG_BATCH_SIZE: usize = 16 * 1024;

/// Least time between two reports of the same trouble: lost log lines, connections that could not be accepted, probes
/// that could not be made.
pub const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// Models, and keys, that have metric series of their own; more of them count as `other`.
pub const NAMED_SERIES: usize = 1024;

/// Most bytes of a configuration file.
pub const CONFIG_FILE_SIZE: u64 = 1024 * 1024;

/// Most mappings and lists within each other in a configuration file.
pub const CONFIG_FILE_DEPTH: usize = 64;

/// Most pieces of a configuration file that its aliases (`*name`) may repeat.
pub const CONFIG_FILE_ALIASED: usize = 64 * 1024;

/// Most models that a configuration may list.
pub const MOST_MODELS: usize = 1024;

/// Most other names of one model.
pub const MOST_ALIASES: usize = 64;

/// Longest id or other name of a model, and longest name of a tier, in bytes.
pub const MODEL_NAME_LENGTH: usize = 256;

/// Most llama-servers that are started for one model.
pub const MOST_REPLICAS: u32 = 64;

/// Most remote backends of one model.
pub const MOST_REMOTES: usize = 256;

/// Requests in flight to a remote backend for which the configuration sets no limit.
pub const REMOTE_SLOTS: usize = 64;

/// Longest key of a remote backend, in bytes.
pub const REMOTE_KEY_LENGTH: usize = 8 * 1024;

/// Most requests in flight that need no slot, such as those for the list of models. Each may take a connection to
/// llama-server, which slots do not bound.
pub const MOST_PASSES: usize = 32;

/// Retry-After of a refusal for which nothing has been measured yet.
pub const RETRY_AFTER_UNKNOWN: Duration = Duration::from_secs(5);

/// Longest Retry-After that is estimated from a measurement.
pub const RETRY_AFTER_LONGEST: Duration = Duration::from_secs(600);

/// Longest answer of the health port that `llamagate health` reads.
pub const HEALTH_CHECK_TIMEOUT: Duration = Duration::from_secs(3);

/// Meters of keys that are kept before those no longer asked for are looked for and dropped.
pub const METERS_BEFORE_SWEEP: usize = 1024;

/// Wrong keys a minute that one client address may send before it has to wait.
pub const GUESSES_PER_MINUTE: u32 = 60;

/// Most client addresses whose wrong keys are counted at once.
pub const MAX_SUSPECTS: usize = 4096;

/// Suspects among which a new one takes the place of the least suspicious. Divides [`MAX_SUSPECTS`].
pub const SUSPECTS_PER_BUCKET: usize = 8;

/// Addresses that a key is remembered to have been used from.
pub const PROVEN_ADDRESSES: usize = 8;

/// How long an address counts as one that a key is used from.
pub const PROVEN_FOR: Duration = Duration::from_secs(24 * 60 * 60);

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

/// Longest time in which a client that is being answered may read nothing, be it from its connection or from one HTTP/2
/// stream.
pub const CLIENT_WRITE_STALL: Duration = Duration::from_secs(60);

/// Time between two looks for answers that their clients do not read, and so how much later than its bound one may end.
pub const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// The same once what is in flight is cut; many times within [`CONNECTION_GRACE`].
pub const SWEEP_INTERVAL_CUT: Duration = Duration::from_millis(50);

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

/// Time between two looks at whether the configuration file has changed.
pub const CONFIG_LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// Looks in a row that do not find the configuration file before it is said to be gone.
pub const CONFIG_GONE_LOOKS: u32 = 2;

/// Longest time in which the service finds out how much memory there is for models. The driver of a GPU that nobody
/// else uses takes seconds to be loaded.
pub const MEMORY_LOOK_PATIENCE: Duration = Duration::from_secs(60);

/// Most models that an error names.
pub const MODELS_NAMED: usize = 50;

/// Longest part of a client's own text that an error repeats, in characters.
pub const REPEATED_TEXT: usize = 128;

/// Longest name that a folder of logs gets from a model's id, in bytes.
pub const LOG_FOLDER_NAME: usize = 200;

/// Part of the requests that `latency-based-routing` sends to a worker by chance, to learn how quick it is by now.
pub const EXPLORED_PART: f64 = 0.05;

/// Part that the newest time to a first byte has in a worker's mean; the older ones share the rest.
pub const NEWEST_FIRST_BYTE: f64 = 0.2;

/// How much more of its slots the worker that knows a prompt's beginning may have in use than the least busy one, before
/// `prefix-affinity` leaves it for that one.
pub const AFFINITY_MARGIN: f64 = 0.5;

/// Most beginnings of prompts that are remembered for a model.
pub const MOST_PREFIXES: usize = 16 * 1024;

/// Longest time for which a remote backend is left alone because answers took more tokens than it may be asked for. It
/// says itself how many there were, and may be wrong.
pub const LONGEST_DEBT: Duration = Duration::from_secs(60 * 60);

/// Longest time for which a remote backend is left alone because it asks for that with `Retry-After`; then one request
/// tries it.
pub const LONGEST_REST: Duration = Duration::from_secs(10 * 60);

/// Most characters that are kept of what a worker failed with last.
pub const LAST_ERROR_LENGTH: usize = 200;

/// Longest pause before the second try of a request; before each further one it is twice as long.
pub const RETRY_PAUSE_FIRST: Duration = Duration::from_millis(50);

/// Longest wait for a job, or for word of jobs to stop: RunPod holds such a request until there is something to say.
pub const LONG_POLL: Duration = Duration::from_secs(90);

/// How long a question for jobs that is under way may still bring some once the service is being stopped, though there is
/// no job left to finish: the platform may just have given one away.
pub const LAST_TAKE: Duration = Duration::from_secs(5);

/// Longest wait, once that time is over, for an answer that has arrived while this program was paused.
pub const LATE_ANSWER: Duration = Duration::from_secs(1);

/// Longest time in which the rest of such an answer arrives once it has begun.
pub const QUESTION_BODY: Duration = Duration::from_secs(60);

/// Bytes of jobs that are read where they arrive; more of them have a thread of their own.
pub const PARSED_AT_ONCE: usize = 256 * 1024;

/// Most jobs that are asked for at once.
pub const MOST_TAKEN: usize = 16;

/// Most jobs in hand, however many slots there are.
pub const MOST_JOBS: usize = 256;

/// Most bytes of one job: what RunPod takes of its callers (20 MB), and what it adds.
pub const JOB_SIZE: usize = 21 * 1024 * 1024;

/// Longest id of a job, in bytes.
pub const JOB_ID: usize = 256;

/// Longest path of ours that a job may ask for, in bytes.
pub const JOB_ROUTE: usize = 2048;

/// Least time between two questions for jobs to a platform that holds none of them.
pub const TAKE_PAUSE: Duration = Duration::from_millis(250);

/// Least time between two questions for jobs to stop.
pub const STOPS_PAUSE: Duration = Duration::from_secs(1);

/// Pause after RunPod has said that it is asked too often.
pub const TOO_MANY_PAUSE: Duration = Duration::from_secs(5);

/// Pause after the first question to RunPod that failed; it doubles with each further one in a row.
pub const PLATFORM_BACKOFF_FIRST: Duration = Duration::from_millis(500);

/// Longest such pause.
pub const PLATFORM_BACKOFF_LONGEST: Duration = Duration::from_secs(30);

/// Most bytes of the word of jobs to stop.
pub const STOPS_SIZE: usize = 1024 * 1024;

/// Most bytes that are read of an answer in which nothing matters but its status.
pub const ACKNOWLEDGEMENT: usize = 64 * 1024;

/// Longest wait until a connection to RunPod can be used.
pub const PLATFORM_CONNECT: Duration = Duration::from_secs(10);

/// Longest stay of an idle connection to RunPod in the pool.
pub const PLATFORM_IDLE: Duration = Duration::from_secs(15);

/// How often a result is posted before it is given up: nobody makes it again.
pub const RESULT_TRIES: u32 = 6;

/// How often a piece of a stream is posted before it is given up: the result holds it too.
pub const CHUNK_TRIES: u32 = 3;

/// Time to post the results of jobs that were cut at the end of the drain.
pub const RESULT_GRACE: Duration = Duration::from_secs(5);

/// Longest time that one try to post a result, or a piece of a stream, may take.
pub const POST_PATIENCE: Duration = Duration::from_secs(60);

/// Longest time that all tries to post one piece of a stream may take together. While one is posted little of the stream
/// is read, which must not be taken for a client that reads nothing.
pub const CHUNK_PATIENCE: Duration = Duration::from_secs(40);
const _: () = assert!(CHUNK_PATIENCE.as_secs() + SWEEP_INTERVAL.as_secs() < CLIENT_WRITE_STALL.as_secs());

/// Longest wait for the word of what is being done for a job to be posted: the answer waits for it.
pub const PROGRESS_PATIENCE: Duration = Duration::from_secs(3);

/// Time between two posts of pieces of a stream, unless there is much to post.
pub const CHUNK_INTERVAL: Duration = Duration::from_millis(50);

/// Bytes of a stream that are posted without waiting any longer.
pub const CHUNK_ENOUGH: usize = 64 * 1024;

/// Most bytes of a piece of a stream as it is posted; RunPod takes 1 MB.
pub const CHUNK_MOST: usize = 960 * 1024;

/// Most bytes of a stream that are read ahead of what has been posted.
pub const CHUNK_BUFFER: usize = 2 * 1024 * 1024;

/// Most bytes of a whole result as it is posted; RunPod keeps 20 MB of one that somebody waits for.
pub const RESULT_SIZE: usize = 19 * 1024 * 1024;

/// Time between two pings, where RunPod does not say.
pub const PING_INTERVAL_DEFAULT: Duration = Duration::from_secs(10);

/// Longest time between two pings that it may ask for.
pub const PING_INTERVAL_LONGEST: Duration = Duration::from_secs(60 * 60);

/// How often a ping is tried before its time is over.
pub const PING_TRIES: u32 = 4;

/// Longest wait for the answer to the word that this worker is unhealthy.
pub const UNHEALTHY_PATIENCE: Duration = Duration::from_secs(2);

/// Most characters of the reason that is given with it.
pub const UNHEALTHY_REASON: usize = 256;
