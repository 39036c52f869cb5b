//! Bounds of the serving threads: how many there are, and what each takes.

use std::num::NonZeroUsize;
use std::thread;

/// Most serving threads. Each serves tens of thousands of requests a second, so more would only take memory from the models.
pub const MOST_CORES: usize = 16;

/// File descriptors that a serving thread holds for itself: its epoll and a duplicate of it, the event that wakes it, and the
/// socket of signals.
pub const CORE_DESCRIPTORS: usize = 4;

/// Most blocking threads of a serving thread, for names of hosts that are looked up and files that are read for requests.
pub const CORE_BLOCKING_THREADS: usize = 64;

/// Returns how many cores serve connections on this machine: one for each CPU that this program may use, and [`MOST_CORES`]
/// at most.
pub fn count_of_machine() -> NonZeroUsize {
    let cpus = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    NonZeroUsize::new(MOST_CORES).map_or(cpus, |most| cpus.min(most))
}
