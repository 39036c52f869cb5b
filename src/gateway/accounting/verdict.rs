//! How an answer has ended, for others than its own client.

use std::sync::OnceLock;

/// What became of one answer. It is known once the record of its request has closed.
#[derive(Debug, Default)]
pub(crate) struct Verdict(OnceLock<Option<&'static str>>);

impl Verdict {
    /// Records the end of the answer, with the code of what went wrong.
    pub(super) fn close(&self, code: Option<&'static str>) {
        let _ = self.0.set(code); // a record closes once
    }

    /// Returns whether the answer was whole, and nothing went wrong.
    pub(crate) fn is_good(&self) -> bool {
        self.0.get() == Some(&None)
    }

    /// Returns the code of what went wrong, if it is known.
    pub(crate) fn code(&self) -> Option<&'static str> {
        self.0.get().copied().flatten()
    }
}
