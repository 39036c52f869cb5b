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
/// Most headers of a repository that cannot be read before no more are tried: the others would fail as well.
pub(super) const MOST_UNREAD_HEADERS: usize = 4;
/// When no further header of a repository is asked for, counted from the beginning of the lookup. What was read until then
/// is told.
pub(super) const FITS_TIME: Duration = Duration::from_secs(50);
/// Longest time until an answer, however many questions and looks at the disk it takes.
pub(super) const ANSWER_TIME: Duration = Duration::from_secs(60);
/// Most of these requests at the same time. Each has a thread, and may hold the text of a repository or a header, which are
/// up to 32 MiB, and while they are read as much again: about 256 MiB for all.
pub(super) const MOST_LOOKUPS: usize = 4;
/// Longest wait for one of those to end. One whose client has left ends at once.
pub(super) const LOOKUP_TURN_WAIT: Duration = Duration::from_secs(1);
/// When a client may ask again while too many ask.
pub(super) const LOOKUPS_FULL_RETRY: Duration = Duration::from_secs(5);
/// Longest wait for which models are served, which a reload that reads slow disks holds up.
pub(super) const SERVED_WAIT: Duration = Duration::from_secs(10);
