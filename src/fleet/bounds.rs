//! Bounds of the fleet: sizes and shares that no user needs to choose.

use std::time::Duration;

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

/// Most characters that are kept of what a worker failed with last.
pub const LAST_ERROR_LENGTH: usize = 200;
