//! Bounds of the fleet: sizes and shares that no user needs to choose.

use std::time::Duration;

/// Fraction of the requests that `latency-based-routing` sends to a random worker, to learn its current latency.
pub const EXPLORED_PART: f64 = 0.05;

/// Weight of the newest time to first byte in a worker's moving average, from 0 to 1.
pub const NEWEST_FIRST_BYTE: f64 = 0.2;

/// Maximum difference in load (the fraction of slots in use) by which the worker that knows a prompt's prefix may
/// exceed the least busy worker before `prefix-affinity` prefers the latter.
pub const AFFINITY_MARGIN: f64 = 0.5;

/// Maximum number of prompt prefixes that are remembered per model.
pub const MOST_PREFIXES: usize = 16 * 1024;

/// Longest time that a remote backend gets no requests because its responses used more tokens than its quota. The
/// backend reports the number of tokens itself and may be wrong.
pub const LONGEST_DEBT: Duration = Duration::from_secs(60 * 60);

/// Maximum length of a worker's last error, in characters.
pub const LAST_ERROR_LENGTH: usize = 200;
