//! Bounds of RunPod's queue worker: each wait, queue and buffer whose size no user needs to choose.

use crate::gateway::bounds::SWEEP_INTERVAL;
use crate::settings::bounds::CLIENT_WRITE_STALL;
use std::time::Duration;

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

/// How often a ping is tried before its time is over.
pub const PING_TRIES: u32 = 4;

/// Longest wait for the answer to the word that this worker is unhealthy.
pub const UNHEALTHY_PATIENCE: Duration = Duration::from_secs(2);

/// Most characters of the reason that is given with it.
pub const UNHEALTHY_REASON: usize = 256;
