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
        let grew = |before: Option<u64>, now: Option<u64>| Some(now? > before?);
        match (grew(before.group, now.group), grew(before.machine, now.machine)) {
            (Some(true), _) => Self::InGroup { limit_mib: now.limit.map(|limit| limit / MIB) },
            // The kernel counts a kill in the group of the killed process, even if another group or the machine was out
            // of memory. So our group's counter decides when there is one.
            (Some(false), _) | (None, Some(false)) => Self::No,
            (None, Some(true)) => Self::OnMachine,
            (None, None) => Self::NotKnown,
        }
    }
}
