//! Requests and answers of every kind, and streams in any pieces.

mod answers;
mod requests;

use std::time::Duration;

use jiff::Timestamp;

use super::Moment;

/// Returns the moment at which this many milliseconds have passed.
fn after(milliseconds: u64) -> Moment {
    Moment { at: Timestamp::UNIX_EPOCH, elapsed: Duration::from_millis(milliseconds) }
}
