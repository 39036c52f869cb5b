//! How many CPUs a worker may use, of those that the machine has: fewer where a control group or an affinity mask says so.

use std::fs;
use std::num::NonZero;

/// Where the kernel lists the machine's CPUs, such as `0-15`.
const ONLINE: &str = "/sys/devices/system/cpu/online";

/// CPUs of this machine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cpus {
    /// Those that this process may use, rounded down.
    pub(crate) allowed: usize,
    /// All of them.
    pub(crate) there: usize,
}

impl Cpus {
    /// As it is now: a quota may change while the service runs.
    pub(crate) fn here() -> Self {
        // Knows the affinity mask, and the quotas of both versions of control groups.
        let allowed = std::thread::available_parallelism().map_or(1, NonZero::get);
        let there = fs::read_to_string(ONLINE).ok().and_then(|list| count(&list));
        Self { allowed, there: there.unwrap_or(allowed) }
    }

    /// Threads for a llama-server that is free to choose. None where its own choice is right: it knows the machine better,
    /// but nothing of quotas, and threads beyond a quota stop all others until the next period.
    pub(crate) fn limit(self) -> Option<usize> {
        (self.allowed < self.there).then_some(self.allowed.max(1))
    }
}

/// The CPUs in a list such as `0-3,8,10-11`.
fn count(list: &str) -> Option<usize> {
    list.trim().split(',').try_fold(0, |sum: usize, range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        sum.checked_add(last.checked_sub(first)?.checked_add(1)?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_limit_below_the_machine_is_one() {
        for (allowed, there, limit) in [(4, 16, Some(4)), (0, 16, Some(1)), (16, 16, None), (2, 1, None)] {
            assert_eq!(Cpus { allowed, there }.limit(), limit, "{allowed} of {there}");
        }
        let here = Cpus::here();
        assert!(here.allowed > 0 && here.there > 0, "{here:?}");
    }

    #[test]
    fn a_list_of_cpus_is_counted() {
        for (list, cpus) in
            [("0\n", Some(1)), ("0-15\n", Some(16)), ("0-3,8,10-11", Some(7)), ("", None), ("3-0", None)]
        {
            assert_eq!(count(list), cpus, "{list:?}");
        }
    }
}
