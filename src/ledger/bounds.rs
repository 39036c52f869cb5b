//! Bounds of the ledger: waits, queues and rows that no user needs to choose.

use std::time::Duration;

/// Longest time that an event waits to be written together with others.
pub const LEDGER_BATCH_TIME: Duration = Duration::from_millis(250);

/// Time between two writes of what idling has cost, while nothing else is written.
pub const IDLE_COST_TIME: Duration = Duration::from_secs(60);

/// Most events that wait for the writer. Further ones are dropped and counted.
pub const WAITING_EVENTS: usize = 64 * 1024;

/// Events for which the queue keeps its memory after it was emptied.
pub const KEPT_EVENTS: usize = 256;

/// Most rows of sums that are held while the file cannot be written. Events for further rows are dropped and counted.
pub const PENDING_ROWS: usize = 16 * 1024;

/// Most acts of administrators that are held while the file cannot be written. Further ones are dropped and counted.
pub const PENDING_ACTS: usize = 4 * 1024;

/// How long a statement waits for another program that has locked the file.
pub const LOCK_WAIT: Duration = Duration::from_secs(2);

/// Time between two attempts at a file that could not be written.
pub const WRITE_RETRY: Duration = Duration::from_secs(2);

/// Longest wait of a reader for what was recorded before it asked.
pub const FLUSH_WAIT: Duration = Duration::from_secs(1);

/// Longest wait for the last write when the service stops.
pub const LAST_WRITE_WAIT: Duration = Duration::from_secs(5);

/// The highest count that a row can have. Counts come from answers and may have any size; the sum of any rows that there
/// can be fits into SQLite's integers.
pub const HIGHEST_COUNT: u64 = 1 << 50;

/// Most rows of one page.
pub const MOST_ROWS: usize = 10_000;

/// Rows of a page if the request does not say how many.
pub const DEFAULT_ROWS: usize = 1_000;

/// Reads of the file at the same time.
pub const READS_AT_ONCE: usize = 2;

/// Longest wait of a request for its turn to read the file.
pub const READ_TURN_WAIT: Duration = Duration::from_secs(5);

/// Most rows that a command reads.
pub const COMMAND_ROWS: usize = 1_000_000;

/// Longest text of a column in bytes, such as the address of a client or the name of a model that is to be removed.
pub const LONGEST_TEXT: usize = 512;
