//! What is known on both sides of the queue in front of the writer.

use std::sync::atomic::{AtomicBool, AtomicUsize};

/// The answers that wait for the writer.
#[derive(Debug, Default)]
pub(super) struct WaitingAnswers {
    /// The memory that they take.
    pub(super) bytes: AtomicUsize,
    /// Whether no further ones come.
    pub(super) is_closed: AtomicBool,
}
