//! The CPUs of this machine.

use std::fs;

/// The kernel's list of the machine's CPUs, such as `0-15`.
const ONLINE: &str = "/sys/devices/system/cpu/online";

/// Returns the number of all CPUs that are online; `None` if unknown.
pub(crate) fn online_cpus() -> Option<usize> {
    count(&fs::read_to_string(ONLINE).ok()?)
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
    fn a_list_of_cpus_is_counted() {
        for (list, cpus) in
            [("0\n", Some(1)), ("0-15\n", Some(16)), ("0-3,8,10-11", Some(7)), ("", None), ("3-0", None)]
        {
            assert_eq!(count(list), cpus, "{list:?}");
        }
    }
}
