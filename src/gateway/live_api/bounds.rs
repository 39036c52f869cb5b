//! How many may listen, how much is kept for them, and how often is looked.

use std::time::Duration;

/// Most clients that listen to the feed at the same time.
pub(super) const MOST_LISTENERS: usize = 32;

/// Most clients that follow logs at the same time.
pub(super) const MOST_LOG_FOLLOWERS: usize = 16;

/// When a client may ask again while too many listen.
pub(super) const LISTENERS_FULL_RETRY: Duration = Duration::from_secs(30);

/// Most events that are kept for those who come back.
pub(super) const HISTORY_EVENTS: usize = 1024;

/// Most bytes of these events.
pub(super) const HISTORY_BYTES: usize = 1024 * 1024;

/// Most events that a listener may be behind. One that is further behind gets a snapshot in their place.
pub(super) const MOST_BEHIND: u64 = 512;

/// Most bytes of events that are passed on at once, unless a single one is larger.
pub(super) const EVENTS_AT_ONCE: usize = 64 * 1024;

/// Shortest time between two looks at the service.
pub(super) const LOOK_GAP: Duration = Duration::from_millis(250);

/// Longest time between two looks: progress of loads and downloads wakes no task.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// Time over which throughput is measured.
pub(super) const THROUGHPUT_INTERVAL: Duration = Duration::from_secs(1);

/// Longest time in which a listener hears nothing.
pub(super) const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(15);

/// Most waiting requests of each model that the feed lists.
pub(super) const LISTED_WAITERS: usize = 50;

/// Most waiting requests of each queue among which those of a key are looked for.
pub(super) const SEARCHED_WAITERS: usize = 1024;

/// Most of the last failures that a snapshot has.
pub(super) const KEPT_FAILURES: usize = 32;

/// Two times of one arrival differ by less than this, because they are computed from the time that has passed.
pub(super) const SAME_ARRIVAL: Duration = Duration::from_millis(500);

/// Most lines of a log that are asked for at once.
pub(super) const MOST_LINES: usize = 10_000;

/// Lines of a log that a client gets that does not say how many.
pub(super) const DEFAULT_LINES: usize = 200;

/// Most bytes of a log that are read at once.
pub(super) const LOG_BYTES: usize = 1024 * 1024;

/// Time between two looks at a log that is followed.
pub(super) const LOG_LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// Most reads of logs at the same time.
pub(super) const LOG_READS_AT_ONCE: usize = 2;

/// Longest wait for the turn of a read.
pub(super) const LOG_READ_WAIT: Duration = Duration::from_secs(5);
