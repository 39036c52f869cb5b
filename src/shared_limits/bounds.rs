//! Waits and sizes of shared limits that no user needs to choose.

use std::time::Duration;

use crate::settings::bounds::LONGEST_LIMITS_STORE_TIMEOUT;

/// How long a request counts as in flight after its replica last said so, and what a killed replica held remains.
pub(super) const HOLD_TERM: Duration = Duration::from_secs(10);

/// Time between two renewals of the holds of requests that are still in flight.
pub(super) const RENEW_INTERVAL: Duration = Duration::from_secs(3);
// A renewal may be lost, and the next one late.
const _: () = assert!(2 * RENEW_INTERVAL.as_secs() < HOLD_TERM.as_secs());

/// Requests in a row without an answer in time after which a core asks no more until the server has proved itself.
pub(super) const FAILURES_IN_A_ROW: u32 = 3;

/// Longest time until a connection is open, and its server has the scripts and knows what is held.
pub(super) const CONNECT_TIME: Duration = Duration::from_secs(5);
// The server may take as long for its first answer as for any other.
const _: () = assert!(CONNECT_TIME.as_millis() > LONGEST_LIMITS_STORE_TIMEOUT.as_millis());

/// First pause before the next try to connect; it doubles up to [`LONGEST_PAUSE`].
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// Longest pause before the next try to connect. After a connection that has lasted longer, the pauses begin again with
/// [`FIRST_PAUSE`].
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Requests of one core that have ended and whose end is not told yet; further ones are lost and counted.
pub(super) const MOST_UNTOLD: usize = 4096;

/// Most ends of requests that are told together.
pub(super) const TOLD_TOGETHER: usize = 128;

/// Longest wait for the answers to ends and renewals, which no request waits for.
pub(super) const TELL_TIME: Duration = Duration::from_secs(3);
// It is the longest wait for any answer on a connection.
const _: () = assert!(TELL_TIME.as_millis() > LONGEST_LIMITS_STORE_TIMEOUT.as_millis());

/// Longest time in which the last ends are told when the service stops.
pub(super) const LAST_TELL_TIME: Duration = Duration::from_secs(1);
