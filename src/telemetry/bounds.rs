//! Bounds of logs and metrics: each wait, queue and buffer whose size no user needs to choose.

use std::time::Duration;

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
