//! Bounds of logs and metrics: each wait, queue and buffer whose size no user needs to choose.

use std::time::Duration;

/// Maximum number of lines that wait for the writer of one log. Further ones are dropped and counted.
pub const LOG_QUEUE: usize = 8 * 1024;

/// Maximum number of batches that wait for the writer of the access log: 128 MiB, where all are of [`LOG_BATCH_SIZE`]. The
/// lines of further ones are dropped and counted.
pub const ACCESS_LOG_QUEUE: usize = LOG_QUEUE / 4;

/// Maximum length of a request's path, and of its method, in a line of the access log, in characters.
pub const LOGGED_WORD: usize = 256;

/// Longest time that an access-log line waits in memory to be written together with others.
pub const LOG_BATCH_TIME: Duration = Duration::from_millis(100);

/// Number of bytes of access-log lines that are written at once, without further waiting.
pub const LOG_BATCH_SIZE: usize = 64 * 1024;

/// Minimum time between two reports of the same problem: lost log lines, connections that could not be accepted, probes
/// that could not be made.
pub const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// Time between two looks at the writers of the logs: how late `/health` tells that a log cannot be written, or can be
/// again.
pub const LOG_LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Maximum number of warnings that are shown on `/health`; further ones are only logged.
pub const MOST_WARNINGS: usize = 64;

/// Maximum number of models, and of keys, with metric series of their own; further ones count as `other`.
pub const NAMED_SERIES: usize = 1024;

/// Maximum number of combinations, such as of route and status, that a model or a key finds again without a lookup among
/// all series; further ones are looked up.
pub const LISTED_SERIES: usize = 32;
