//! What a system tells about one process.

/// A process at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProcessStat {
    /// Whether it has ended and only its exit status is left (a zombie).
    pub(crate) has_ended: bool,
    /// The id of the parent process.
    pub(crate) parent: i32,
    /// The id of the process group.
    pub(crate) group: i32,
    /// CPU time of all its threads in clock ticks, user and system.
    pub(crate) computed: u64,
    /// Time of its start, in a unit of the system: only equality counts.
    pub(crate) start: u64,
}

/// Counters that grow while a process loads a model. A counter that cannot be read is 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LoadCounters {
    /// Resident memory in bytes, pages of files included.
    pub(crate) resident: u64,
    /// Bytes read by system calls.
    pub(crate) read: u64,
    /// Bytes read from storage, by calls or page faults. May be in `read` too.
    pub(crate) read_from_storage: u64,
    /// Page faults that read storage (major faults).
    pub(crate) faults: u64,
}
