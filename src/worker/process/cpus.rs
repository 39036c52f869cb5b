//! How many CPUs a worker may use: fewer than the machine has where a control group or an affinity mask limits them.

use std::num::NonZero;

use crate::os::here;

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
        Self { allowed, online: here::online_cpus().unwrap_or(allowed) }
    }

    /// Returns the number of threads for a llama-server without `THREADS`; `None` where its own default is right.
    /// llama-server knows the machine, but not quotas: more threads than the quota are all stopped until its next
    /// period.
    pub(crate) fn limit(self) -> Option<usize> {
        (self.allowed < self.online).then_some(self.allowed.max(1))
    }
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
}
