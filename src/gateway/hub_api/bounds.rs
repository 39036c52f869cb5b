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
/// Most different models of a repository of which it is said whether they fit. Each costs a header.
pub(super) const FITTED_FAMILIES: usize = 4;
/// Longest time in which their headers are read.
pub(super) const FITS_TIME: Duration = Duration::from_secs(60);
/// Most of these requests at the same time. Each may hold a header of some MiB.
pub(super) const MOST_LOOKUPS: usize = 8;
/// When a client may ask again while too many ask.
pub(super) const LOOKUPS_FULL_RETRY: Duration = Duration::from_secs(5);
/// Longest wait for a look at the disk: the folders may be on a volume that does not answer.
pub(super) const LOOK_WAIT: Duration = Duration::from_secs(10);
