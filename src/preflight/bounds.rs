//! Bounds on what the checks report.

/// Most broken files that are reported one by one if there is no other.
pub(super) const MOST_BROKEN: usize = 5;

/// Most models that a warning names.
pub(super) const MOST_NAMED: usize = 5;

/// Most bad lines of the key file that are reported one by one.
pub(super) const MOST_BAD_LINES: usize = 20;
