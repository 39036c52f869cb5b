//! The CPU time that the threads of a llama-server have used, and whether a GPU may be computing instead.
//!
//! It counts the whole process group, because llama-server may be the child of a script. [`super::hang`] decides what
//! that means for a hang.

use std::collections::HashMap;
use std::time::Duration;

use nix::unistd::{SysconfVar, sysconf};

use crate::os::here;
use crate::os::identity::members_of;

/// The smallest share of the time that counts as computing, as a divisor: 1/20. Less is housekeeping.
const LEAST_BUSY_SHARE: f64 = 20.0;

/// The threads of a process group at one moment.
#[derive(Debug)]
pub(crate) struct ThreadTimes {
    /// CPU time of each thread, in clock ticks.
    times: HashMap<i32, u64>,
    /// Whether a process of the group has a GPU open.
    has_gpu: bool,
}

impl ThreadTimes {
    /// Reads the threads of a process group; `None` where they cannot be read.
    pub(crate) fn of_group(group: i32) -> Option<Self> {
        let members = members_of(group).ok()?;
        let times: HashMap<i32, u64> = members.iter().flat_map(|pid| here::threads(*pid)).collect();
        let has_gpu = members.iter().any(|pid| here::has_gpu_open(*pid));
        (!times.is_empty()).then_some(Self { times, has_gpu })
    }

    /// Returns the CPU time that the threads used in the `time` since `before`, if that is more than housekeeping.
    /// Without a GPU one busy thread is enough. With a GPU one thread may only wait for it in a busy loop, so two
    /// threads must have used about the same time.
    pub(crate) fn computed_since(&self, before: &Self, time: Duration) -> Option<Duration> {
        let ticks_per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100) as f64;
        // A new thread has used all its time since `before`.
        let used = |(thread, time): (&i32, &u64)| time.saturating_sub(before.times.get(thread).copied().unwrap_or(0));
        let mut used: Vec<u64> = self.times.iter().map(used).collect();
        used.sort_unstable_by(|a, b| b.cmp(a));
        let ticks = match used[..] {
            [most, ..] if !self.has_gpu => most,
            [most, second, ..] if second * 2 >= most => second,
            _ => return None,
        };
        // No thread computes for longer than the time; a process does that stands for its threads where they are not told.
        let computed = Duration::from_secs_f64(ticks as f64 / ticks_per_second).min(time);
        (computed >= time.div_f64(LEAST_BUSY_SHARE)).then_some(computed)
    }
}

#[cfg(test)]
impl ThreadTimes {
    /// Returns threads that have used these clock ticks.
    pub(crate) fn stub(times: &[u64], has_gpu: bool) -> Self {
        Self { times: times.iter().enumerate().map(|(id, time)| (id as i32, *time)).collect(), has_gpu }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn one_busy_thread_counts_without_a_gpu_and_two_count_with_one() {
        let computed = |before: &[u64], now: &[u64], has_gpu| {
            ThreadTimes::stub(now, has_gpu).computed_since(&ThreadTimes::stub(before, has_gpu), 10 * SECOND)
        };
        assert_eq!(computed(&[700, 0], &[1700, 3], false), Some(10 * SECOND));
        assert_eq!(computed(&[700, 0], &[1700, 3], true), None, "it may be waiting for the GPU");
        assert_eq!(computed(&[700], &[1700], true), None);
        assert_eq!(computed(&[700, 0], &[1700, 980], true), Some(980 * SECOND / 100));
        assert_eq!(computed(&[700, 0], &[749, 49], false), None, "that is housekeeping");
        assert_eq!(computed(&[700], &[700, 50], false), Some(SECOND / 2), "a new thread");
        assert_eq!(computed(&[], &[], false), None);
    }

    #[test]
    fn the_threads_of_a_whole_group_are_read() {
        let own = std::process::id() as i32;
        let threads = ThreadTimes::of_group(here::stat(own).unwrap().group).unwrap();
        // The first thread of a process has its id.
        assert!(threads.times.contains_key(&own), "{threads:?}");
        assert!(ThreadTimes::of_group(i32::MAX).is_none());
    }
}
