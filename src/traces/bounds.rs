//! Bounds of traces: waits and sizes that no user needs to choose.

use std::time::Duration;

/// Longest time to connect to the collector.
pub(super) const COLLECTOR_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an idle connection to the collector is kept.
pub(super) const COLLECTOR_IDLE: Duration = Duration::from_secs(30);

/// Largest answer of a collector in bytes. It says little more than how many spans it has refused.
pub(super) const LONGEST_COLLECTOR_ANSWER: usize = 64 * 1024;

/// Longest wait for the last export when the service stops.
pub(super) const LAST_EXPORT_WAIT: Duration = Duration::from_secs(2);

/// Most stages of one request that are recorded. A request has more only if it was tried very often.
pub(super) const MOST_STAGES: usize = 64;
