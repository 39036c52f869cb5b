//! How many CPUs a worker may use: fewer than the machine has where a control group or an affinity mask limits them.

use std::fs;
use std::num::NonZero;

/// The kernel's list of the machine's CPUs, such as `0-15`.
const ONLINE: &str = "/sys/devices/system/cpu/online";

/// The numbers of CPUs of this machine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cpus {
    /// The CPUs that this process may use, rounded down.
    pub(crate) allowed: usize,
    /// All CPUs that are online.
    pub(crate) online: usize,
}

impl Cpus {
    /// Reads the current numbers; a quota may change while the service runs.
    pub(crate) fn here() -> Self {
        // Respects the affinity mask, and the quotas of both versions of control groups.
        let allowed = std::thread::available_parallelism().map_or(1, NonZero::get);
        let online = fs::read_to_string(ONLINE).ok().and_then(|list| count(&list));
        Self { allowed, online: online.unwrap_or(allowed) }
    }

    /// Returns the number of threads for a llama-server without `THREADS`; `None` where its own default is right.
    /// llama-server knows the machine, but not quotas: more threads than the quota are all stopped until its next
    /// period.
    pub(crate) fn limit(self) -> Option<usize> {
        (self.allowed < self.online).then_some(self.allowed.max(1))
    }
}

/// Returns the number of CPUs in a list such as `0-3,8,10-11`; `None` if it is malformed.
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
    fn threads_are_limited_only_if_fewer_cpus_are_allowed_than_online() {
        for (allowed, online, limit) in [(4, 16, Some(4)), (0, 16, Some(1)), (16, 16, None), (2, 1, None)] {
            assert_eq!(Cpus { allowed, online }.limit(), limit, "{allowed} of {online}");
        }
        let here = Cpus::here();
        assert!(here.allowed > 0 && here.online > 0, "{here:?}");
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
