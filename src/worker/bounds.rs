//! Bounds of workers: each wait, queue and buffer whose size no user needs to choose.

use std::time::Duration;

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
pub const METRICS_BODY_SIZE: usize = 64 * 1024;

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

/// Longest time in which the service finds out how much memory there is for models. The driver of a GPU that nobody
/// else uses takes seconds to be loaded.
pub const MEMORY_LOOK_PATIENCE: Duration = Duration::from_secs(60);
