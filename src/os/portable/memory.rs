//! Memory and CPUs of this machine, and the bound on open files.

use sysinfo::{MemoryRefreshKind, RefreshKind, System};

use crate::os::oom_kills::OomCounters;

/// `OPEN_MAX` of macOS, which refuses a higher soft limit on open files.
const OPEN_MAX: u64 = 10_240;

/// The share of the memory that a GPU can use where it has none of its own, in per cent: Metal's
/// `recommendedMaxWorkingSetSize` is about three quarters of it on Apple silicon.
#[cfg(target_os = "macos")]
const UNIFIED_SHARE: u64 = 75;
/// All of it elsewhere.
#[cfg(not(target_os = "macos"))]
const UNIFIED_SHARE: u64 = 100;

fn machine() -> System {
    System::new_with_specifics(RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram()))
}

/// Returns the bytes that models can have of this machine's memory (`hw.memsize` of macOS). `None` if unknown.
pub(crate) fn memory_capacity() -> Option<u64> {
    let total = machine().total_memory();
    (total > 0).then_some(total / 100 * UNIFIED_SHARE)
}

/// Returns the bytes that are available on this machine, and no more than models can have: on macOS all pages that were
/// used lately count as available. `None` if unknown.
pub(crate) fn memory_available() -> Option<u64> {
    let available = Some(machine().available_memory()).filter(|bytes| *bytes > 0)?;
    Some(available.min(memory_capacity()?))
}

/// Returns how many open files a process can be allowed under this hard limit.
pub(crate) fn most_open_files(hard: u64) -> u64 {
    hard.min(OPEN_MAX)
}

/// Returns the counters of OOM kills: there are none, so the cause of a SIGKILL is not known.
pub(crate) fn oom_counters() -> OomCounters {
    OomCounters::default()
}

/// Returns the number of all CPUs of this machine; not known apart from those that this process may use, which on macOS
/// are all.
pub(crate) fn online_cpus() -> Option<usize> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_more_memory_than_is_available() {
        let (all, available) = (memory_capacity().unwrap(), memory_available().unwrap());
        assert!(available > 1 << 20 && all > 1 << 26, "{available} {all}");
        assert!(available <= all, "{available} {all}");
    }
}
