//! Whether the kernel's OOM killer ended a process between two moments. It only counts; the diagnosis decides what a kill
//! means.

const MIB: u64 = 1024 * 1024;

/// The OOM kill counters at one moment. One that cannot be read is left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct OomCounters {
    /// Kills in our control group.
    pub(crate) group: Option<u64>,
    /// Kills on this machine.
    pub(crate) machine: Option<u64>,
    /// The smallest limit of our control groups, in bytes.
    pub(crate) limit: Option<u64>,
}

impl OomCounters {
    /// Whether these counters show that the kernel has killed no process since `before`: at least one can be read, and
    /// none has grown. Stricter than [`OomKill::between`], for which the counter of our group decides alone.
    pub(crate) fn show_no_kill_since(&self, before: &Self) -> bool {
        let grown = [has_grown(before.group, self.group), has_grown(before.machine, self.machine)];
        grown.contains(&Some(false)) && !grown.contains(&Some(true))
    }
}

/// Whether a counter has grown between two moments. `None` if it could not be read at one of them.
fn has_grown(before: Option<u64>, now: Option<u64>) -> Option<bool> {
    Some(now? > before?)
}

/// Whether the OOM killer ended a process between two moments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OomKill {
    /// A process of our control group.
    InGroup {
        /// The smallest limit that applies, in MiB; `None` if there is no limit.
        limit_mib: Option<u64>,
    },
    /// A process of this machine; our group has no counter.
    OnMachine,
    /// No process.
    No,
    /// The system shows no counter.
    NotKnown,
}

impl OomKill {
    /// Compares the counters of two moments.
    pub(crate) fn between(before: &OomCounters, now: &OomCounters) -> Self {
        match (has_grown(before.group, now.group), has_grown(before.machine, now.machine)) {
            (Some(true), _) => Self::InGroup { limit_mib: now.limit.map(|limit| limit / MIB) },
            // The kernel counts a kill in the group of the killed process, even if another group or the machine was out
            // of memory. So our group's counter decides when there is one.
            (Some(false), _) | (None, Some(false)) => Self::No,
            (None, Some(true)) => Self::OnMachine,
            (None, None) => Self::NotKnown,
        }
    }
}
