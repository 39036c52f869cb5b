//! What is known about the end of a process before a cause is found.

use crate::telemetry::files::LogTail;
use crate::worker::memory::oom_kills::OomKill;
use std::time::Duration;

/// All that is known about the end of a process.
pub(crate) struct Evidence<'a> {
    /// The exit code, unless a signal ended it.
    pub(crate) code: Option<i32>,
    /// The signal that ended it.
    pub(crate) signal: Option<i32>,
    /// What it wrote last.
    pub(crate) tail: &'a LogTail,
    /// Whether it was ready before: then its log may hold what clients wrote, and nothing of it is quoted.
    pub(crate) has_served: bool,
    /// Why its owner killed it, if it did.
    pub(crate) killed: Option<KillReason>,
    /// What the kernel's counters say.
    pub(crate) memory: OomKill,
}

/// Why the owner of a process killed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KillReason {
    /// Another server answered on its port.
    Stranger,
    /// It no longer answered its probes.
    Silent,
    /// It closed its port, and ran on.
    Closed,
    /// Its load made no progress for so long.
    LoadStalled(Duration),
    /// It worked for so long, and nothing came of it.
    Hung(Duration),
    /// It had nothing to do, and did not say for so long what it was doing.
    Mute(Duration),
    /// It failed one request after the other for want of a result.
    CannotCompute,
}
