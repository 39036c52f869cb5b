//! Bounds of the RunPod queue worker: waits, queues and buffers whose size no user needs to choose.

use std::time::Duration;

use crate::gateway::bounds::SWEEP_INTERVAL;
use crate::settings::bounds::CLIENT_WRITE_STALL;

/// Maximum duration of a poll for jobs or cancellations: RunPod holds such a request open until it has something to
/// return.
pub const LONG_POLL: Duration = Duration::from_secs(90);

/// How long a poll that is open at shutdown may still return jobs if no job is in flight: the platform may just have
/// assigned one.
pub const LAST_POLL_GRACE: Duration = Duration::from_secs(5);

/// After [`LONG_POLL`], the maximum wait for a response that arrived while this process was paused.
pub const LATE_RESPONSE_GRACE: Duration = Duration::from_secs(1);

/// Maximum time for the rest of a poll's response once it has begun.
pub const POLL_BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// Maximum size of a poll's response, in bytes, that is parsed on the polling task; larger ones are parsed on a
/// blocking thread.
pub const INLINE_PARSE_SIZE: usize = 256 * 1024;

/// Maximum number of jobs per poll.
pub const MAX_JOBS_PER_POLL: usize = 16;

/// Maximum number of jobs in flight, however many slots there are.
pub const MAX_JOBS_IN_FLIGHT: usize = 256;

/// Maximum size of a job in bytes: the 20 MB that RunPod accepts from its callers, plus what it adds.
pub const JOB_SIZE: usize = 21 * 1024 * 1024;

/// Maximum length of a job's id, in bytes.
pub const JOB_ID: usize = 256;

/// Maximum length of the route in a job, in bytes.
pub const JOB_ROUTE: usize = 2048;

/// Minimum time between two polls for jobs if the platform does not hold them open.
pub const POLL_PAUSE: Duration = Duration::from_millis(250);

/// Minimum time between two polls for cancellations.
pub const CANCELLATION_POLL_PAUSE: Duration = Duration::from_secs(1);

/// Pause after RunPod has answered 429 (too many requests).
pub const RATE_LIMITED_PAUSE: Duration = Duration::from_secs(5);

/// Backoff after the first failed request to RunPod; it doubles with each further failure in a row.
pub const PLATFORM_BACKOFF_FIRST: Duration = Duration::from_millis(500);

/// Maximum backoff.
pub const PLATFORM_BACKOFF_LONGEST: Duration = Duration::from_secs(30);

/// Maximum size of the list of cancelled jobs, in bytes.
pub const CANCELLATIONS_SIZE: usize = 1024 * 1024;

/// Maximum size of a response of which only the status matters, in bytes.
pub const ACKNOWLEDGEMENT_SIZE: usize = 64 * 1024;

/// Connect timeout for RunPod.
pub const PLATFORM_CONNECT: Duration = Duration::from_secs(10);

/// How long an idle connection to RunPod stays in the pool.
pub const PLATFORM_IDLE: Duration = Duration::from_secs(15);

/// Attempts to post a result. It would be lost afterwards.
pub const RESULT_ATTEMPTS: u32 = 6;

/// Attempts to post a chunk of a stream. The result contains it too.
pub const CHUNK_ATTEMPTS: u32 = 3;

/// Time to post the results of jobs that were cut off at the end of the drain.
pub const RESULT_GRACE: Duration = Duration::from_secs(5);

/// Timeout of one attempt to post a result or a chunk.
pub const POST_TIMEOUT: Duration = Duration::from_secs(60);

/// Timeout of all attempts to post one chunk. Little of the stream is read during a post, and the gateway must not take
/// that for a client that reads nothing (`CLIENT_WRITE_STALL`, checked every `SWEEP_INTERVAL`).
pub const CHUNK_TIMEOUT: Duration = Duration::from_secs(40);
const _: () = assert!(CHUNK_TIMEOUT.as_secs() + SWEEP_INTERVAL.as_secs() < CLIENT_WRITE_STALL.as_secs());

/// Timeout for posting a job's progress: the result of the job waits for it.
pub const PROGRESS_TIMEOUT: Duration = Duration::from_secs(3);

/// Minimum time between two posts of chunks, unless there is much to post.
pub const CHUNK_INTERVAL: Duration = Duration::from_millis(50);

/// Number of bytes of a stream that are posted without further waiting.
pub const CHUNK_TARGET_SIZE: usize = 64 * 1024;

/// Maximum size of a chunk as it is posted, in bytes; RunPod accepts 1 MB.
pub const CHUNK_MAX_SIZE: usize = 960 * 1024;

/// Maximum number of bytes of a stream that are read ahead of the posts.
pub const CHUNK_BUFFER_SIZE: usize = 2 * 1024 * 1024;

/// Maximum size of a whole result as it is posted, in bytes; RunPod keeps 20 MB for synchronous calls.
pub const RESULT_SIZE: usize = 19 * 1024 * 1024;

/// Attempts per ping.
pub const PING_ATTEMPTS: u32 = 4;

/// Timeout of the report that this worker is unhealthy.
pub const UNHEALTHY_TIMEOUT: Duration = Duration::from_secs(2);

/// Maximum length of the reason in that report, in characters.
pub const UNHEALTHY_REASON: usize = 256;
