//! Bounds of workers: the waits, queues and buffers that no setting chooses.

use std::time::Duration;

/// Time from the start of llama-server to its first readiness probe. From there the time between two doubles, up to
/// [`PROBE_INTERVAL_LOADING`]: a process that is ready soon is found soon.
pub const PROBE_INTERVAL_FIRST: Duration = Duration::from_millis(2);

/// Longest time between two readiness probes while llama-server starts and loads.
pub const PROBE_INTERVAL_LOADING: Duration = Duration::from_millis(100);

/// Bytes that a llama-server must have read since the last sign of progress for its load to count as moving. A smaller
/// number may come from answering probes alone.
pub const LOAD_SIGN_READ: u64 = 64 * 1024;

/// Page faults that read storage (major faults) and that count as progress of a load, like [`LOAD_SIGN_READ`].
pub const LOAD_SIGN_FAULTS: u64 = 16;

/// Bytes of a model that one read of the prefetch takes; cancellation is checked between two reads.
pub const PREFETCH_BUFFER: usize = 1024 * 1024;

/// Time between two checks of how far the prefetch has come.
pub const PREFETCH_LOOK: Duration = Duration::from_millis(100);

/// Time between two log lines about the progress of the prefetch.
pub const PREFETCH_REPORT: Duration = Duration::from_secs(5);

/// Time between two probes of a ready llama-server.
pub const PROBE_INTERVAL_READY: Duration = Duration::from_secs(5);

/// Time between two probes of a llama-server that broke a connection, or closed its port, and has not answered since.
pub const PROBE_INTERVAL_DOUBTED: Duration = Duration::from_millis(100);

/// How long such a llama-server may fail its probes before it counts as unhealthy. A process that has ended is noticed
/// sooner.
pub const DOUBT_GRACE: Duration = Duration::from_secs(1);

/// Most connections to one llama-server that probes use at once: for its health, its slots and its metrics, and one that
/// has timed out and is not closed yet.
pub const PROBE_CONNECTIONS: usize = 4;

/// Timeout of one probe of a local worker.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// Timeout of one probe of a remote worker, its connection included. It is longer than that of a local worker, because
/// a remote backend may be busy with requests of other gateways.
pub const REMOTE_PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes that are read at most of the response to a probe of a remote worker.
pub const REMOTE_PROBE_BODY: usize = 4 * 1024;

/// Backoff before the second probe of a remote worker that cannot serve; it doubles with each further probe. Also the
/// shortest time between two probes of a remote worker that can serve.
pub const REMOTE_BACKOFF_FIRST: Duration = Duration::from_secs(1);

/// Longest backoff between two probes of a remote worker that cannot serve.
pub const REMOTE_BACKOFF_LONGEST: Duration = Duration::from_secs(30);

/// Time between two probes of a remote worker that responds that it is loading.
pub const REMOTE_INTERVAL_LOADING: Duration = Duration::from_secs(1);

/// Bytes that are read at most of llama-server's metrics.
pub const METRICS_BODY_SIZE: usize = 64 * 1024;

/// Bytes that are read at most of llama-server's list of slots; one slot takes about 2 KiB.
pub const SLOTS_BODY_SIZE: usize = 1024 * 1024;

/// Pause before the next attempt to start llama-server after this machine was short of something, such as file
/// descriptors.
pub const SHORTAGE_PAUSE: Duration = Duration::from_secs(1);

/// How long a load that did not get memory keeps its place in the wait after its last request has gone: enough for a
/// client to retry.
pub const CLAIM_GRACE: Duration = Duration::from_secs(90);

/// How long a ready llama-server may fail its probes before it counts as unhealthy: three probes.
pub const SILENCE_UNTIL_UNHEALTHY: Duration = Duration::from_secs(10);

/// How long a ready llama-server may fail its probes before it is killed and restarted.
pub const SILENCE_UNTIL_RESTART: Duration = Duration::from_secs(60);

/// How long llama-server may run on after it has closed its port. A closed port means that it received a signal to end
/// and waits for its clients.
pub const REFUSAL_UNTIL_RESTART: Duration = Duration::from_secs(5);

/// Longest wait for the end of a process that was sent SIGKILL. A process that is stuck in the kernel, for instance in
/// the driver of a GPU, may never end.
pub const KILL_GRACE: Duration = Duration::from_secs(10);

/// How many times `HANG_TIMEOUT` each thread of a llama-server may compute without progress: one batch of a large model
/// on a CPU takes that long.
pub const COMPUTING_PATIENCE: u32 = 5;

/// Longest time for which the CPU times of the threads of an idle llama-server are remembered. To read them again, all
/// processes of the machine are looked at.
pub const IDLE_TIMES_KEPT: Duration = Duration::from_secs(60);

/// Consecutive requests that llama-server failed to compute, after which it is restarted.
pub const COMPUTE_ERRORS_UNTIL_RESTART: u32 = 3;

/// Crashes of llama-server during the same request, after which that request is refused.
pub const DEATHS_UNTIL_REFUSED: u32 = 2;

/// How long such a crash is remembered.
pub const DEATHS_REMEMBERED: Duration = Duration::from_secs(10 * 60);

/// Requests that are remembered at most because llama-server crashed during them.
pub const MOST_SUSPECTS: usize = 256;

/// Requests that are remembered at most because their clients left before a response, for one life of llama-server.
/// They become crash suspects too if it is killed because it hangs.
pub const MOST_GIVEN_UP: usize = 64;

/// Crashes of workers while only requests of one API key were in flight, within `RESTART_WINDOW`, after which that key
/// is suspended.
pub const CRASHES_UNTIL_SUSPENDED: usize = 3;

/// How long a suspended API key is refused.
pub const KEY_SUSPENSION: Duration = Duration::from_secs(10 * 60);

/// API keys that are remembered at most because a worker crashed during their requests.
pub const MAX_CRASH_RECORDS: usize = 1024;

/// How long before a crash a request that was the last in flight may have been abandoned to count as its cause.
pub const ABANDONED_BEFORE_CRASH: Duration = Duration::from_secs(5);

/// Backoff before the first restart; it doubles with each further restart in the window.
pub const BACKOFF_FIRST: Duration = Duration::from_millis(500);

/// Longest backoff between two restarts.
pub const BACKOFF_LONGEST: Duration = Duration::from_secs(30);

/// Time between SIGTERM and SIGKILL when llama-server is stopped. It does not drain, and may hang until its last client
/// has gone, so a longer wait does not help.
pub const STOP_GRACE: Duration = Duration::from_secs(5);

/// How long leftover processes of a llama-server are killed again and again; those that still run then are left to the
/// next start.
pub const LEFTOVER_GRACE: Duration = Duration::from_secs(5);

/// Time between two searches for leftover processes.
pub const LEFTOVER_POLL: Duration = Duration::from_millis(10);

/// Longest wait for the whole search. Longer than [`LEFTOVER_GRACE`], because reading `/proc` may hang.
pub const LEFTOVER_SEARCH: Duration = Duration::from_secs(8);

/// Shortest time between two searches for orphans that have ended.
pub const REAP_PAUSE: Duration = Duration::from_millis(50);

/// Time between two queries of how much GPU memory is in use.
pub const GPU_RELEASE_INTERVAL: Duration = Duration::from_millis(200);

/// Consecutive answers without a lower number after which the GPU memory counts as released.
pub const GPU_RELEASE_STILL: u32 = 2;

/// Longest wait for the release of GPU memory before llama-server is started again.
pub const GPU_RELEASE_PATIENCE: Duration = Duration::from_secs(10);

/// The share of the available memory that `MEMORY_BUDGET=auto` leaves to other programs, as a divisor: 1/20.
pub const MEMORY_RESERVE: u64 = 20;

/// Longest wait for the answer to how much memory a llama-server uses.
pub const FOOTPRINT_PATIENCE: Duration = Duration::from_secs(2);

/// Workers whose memory is remembered for the next start of the service.
pub const LEARNED_MODELS: usize = 256;

/// Largest file of remembered memory that is read, in bytes.
pub const LEARNED_FILE_BYTES: u64 = 256 * 1024;

/// The share by which a measurement has to differ from the remembered one to replace it, as a divisor: 1/16.
pub const LEARNED_TOLERANCE: u64 = 16;

/// Longest wait for the file of remembered memory.
pub const LEARNED_FILE_PATIENCE: Duration = Duration::from_secs(5);

/// Longest wait for the last output of a llama-server that has ended.
pub const LOG_PUMP_GRACE: Duration = Duration::from_secs(2);

/// Longest hint, the sentence that says why a llama-server ended, in characters.
pub const HINT_LENGTH: usize = 400;

/// Characters that a hint quotes at most of one line of llama-server's log.
pub const QUOTED_LINE: usize = 160;

/// Bytes that a hint quotes at most of one word of that log: an option, a library, an architecture.
pub const QUOTED_WORD: usize = 64;

/// Ports that are tried from `PORT_BACKEND` upwards before the system picks one.
pub const BACKEND_PORT_TRIES: u16 = 100;

/// Longest wait for the end of `llama-server --help`. Loading the libraries of a GPU from a slow volume takes seconds.
pub const HELP_PATIENCE: Duration = Duration::from_secs(15);

/// Longest help that is read, in bytes; that of a current llama-server has 60 KB.
pub const HELP_SIZE: u64 = 1024 * 1024;

/// Binaries whose help is remembered.
pub const HELP_BINARIES: usize = 8;

/// Orders that may wait for the thread that forks.
pub const SPAWN_QUEUE: usize = 16;

/// Longest time for finding out how much memory models may take. Loading the driver of a GPU that no other program uses
/// takes seconds.
pub const MEMORY_LOOK_PATIENCE: Duration = Duration::from_secs(60);

/// Shortest time after which a client may have an idle worker stopped; a shorter one is taken as this. A load takes about
/// as long.
pub const SHORTEST_IDLE_TIME: Duration = Duration::from_secs(1);

/// Time between two greetings of an rpc-server on this machine that has no client. In between, that it listens is enough.
pub const RPC_GREETING_INTERVAL: Duration = Duration::from_secs(60);

/// Longest wait for a connection to an `rpc-server`.
pub const PEER_CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// Longest wait for the answer of an `rpc-server` to a greeting. One that has just lost its llama-server frees memory first.
pub const PEER_PATIENCE: Duration = Duration::from_secs(5);

/// Longest answer of an `rpc-server` to a greeting, in bytes; that of a current one has 28.
pub const PEER_ANSWER_SIZE: u64 = 256;

/// Pause before the second attempt to start a llama-server whose `rpc-server`s cannot be used; it doubles with each further
/// attempt.
pub const PEER_BACKOFF_FIRST: Duration = Duration::from_secs(1);

/// Longest pause between two such attempts.
pub const PEER_BACKOFF_LONGEST: Duration = Duration::from_secs(15);

/// Time until an `rpc-server` that no llama-server uses is looked at again.
pub const PEER_LOOK_INTERVAL: Duration = Duration::from_secs(30);

/// Looks in a row that find an `rpc-server` unused, after a llama-server has used it, until it counts as lost to that one.
pub const PEER_UNUSED_LOOKS: u32 = 2;

/// How long the connection that watches an `rpc-server` is silent before the kernel asks whether the other machine is there.
pub const PEER_KEEPALIVE_IDLE: Duration = Duration::from_secs(10);

/// Time between two such questions.
pub const PEER_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// Questions without an answer after which the other machine counts as gone.
pub const PEER_KEEPALIVE_TRIES: u32 = 3;

/// How long to wait for the watch of an `rpc-server` after the end of a llama-server, which may have been the first to notice.
pub const PEER_VERDICT_PATIENCE: Duration = Duration::from_secs(1);

/// Longest look at the `rpc-server`s after the end of a llama-server; a restart waits for it. Longer than
/// [`PEER_CONNECT_PATIENCE`] and [`PEER_PATIENCE`], so that each of them can run out.
pub const PEER_LAST_LOOK: Duration = Duration::from_secs(6);
