//! How much is asked at once, and for how long.

use std::time::Duration;

/// Most repositories that a search returns.
pub(super) const MOST_FOUND: usize = 50;
/// Repositories that a search returns that does not say how many.
pub(super) const DEFAULT_FOUND: usize = 20;
/// Most bytes of the words of a search.
pub(super) const SEARCHED_BYTES: usize = 200;
/// The longest context that is asked about, in tokens.
pub(super) const LONGEST_CTX: u64 = 1 << 30;
/// Most of these requests at the same time. Each may hold a header of some MiB.
pub(super) const MOST_LOOKUPS: usize = 8;
/// When a client may ask again while too many ask.
pub(super) const LOOKUPS_FULL_RETRY: Duration = Duration::from_secs(5);
/// Longest wait for a look at the disk: the folders may be on a volume that does not answer.
pub(super) const LOOK_WAIT: Duration = Duration::from_secs(10);
