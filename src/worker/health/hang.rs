//! Hang detection: whether a llama-server that processes requests makes progress, by its counters.
//!
//! `/health` responds with 200 even while the computation hangs. A hang shows in requests that are being processed
//! while no counter grows. The log does not show it: it gets a line for each client that leaves, hung or not. One batch
//! may take long on a CPU; [`super::cpu_time`] measures whether threads compute.

use std::time::Duration;

use super::cpu_time::ThreadTimes;
use crate::pause_clock::ActiveInstant;
use crate::worker::bounds::{COMPUTING_PATIENCE, IDLE_TIMES_KEPT};
use crate::worker::diagnosis::evidence::KillReason;

/// The counters of llama-server's work (`GET /metrics`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HangSample {
    /// Requests in its slots and in its own queue.
    pub(crate) requests: u64,
    /// The sum of counters that grow with each batch, those of a long prompt included.
    pub(crate) work: u64,
}

impl HangSample {
    /// Counters that grow as it busy, from `tools/server/server.cpp` of llama.cpp, without the prefix `llamacpp:`.
    const WORK: [&str; 3] = ["n_decode_total", "prompt_tokens_total", "tokens_predicted_total"];

    /// Parses Prometheus' text format; `None` without a number of requests.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let samples = text.lines().filter_map(|line| line.strip_prefix("llamacpp:")?.split_once(' '));
        let (mut processing, mut deferred, mut work) = (None, 0, 0);
        for (name, value) in samples {
            // llama-server writes large counters as `1e+06`.
            let value = value.trim().parse::<f64>().ok().filter(|value| *value >= 0.0).map(|value| value as u64);
            match name {
                "requests_processing" => processing = value,
                "requests_deferred" => deferred = value.unwrap_or(0),
                _ if Self::WORK.contains(&name) => work += value.unwrap_or(0),
                _ => {}
            }
        }
        Some(Self { requests: processing?.saturating_add(deferred), work })
    }
}

/// The result of one check for a hang.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HangFinding {
    /// It makes progress, has nothing to do, or computes.
    Alive,
    /// It has made no progress for half of `HANG_TIMEOUT`: no new request should be sent to it.
    Suspicious,
    /// It has made no progress for too long and must be killed.
    Stopped(KillReason),
}

/// Measures how long a llama-server has made no progress although it has requests.
#[derive(Debug)]
pub(crate) struct HangDetector {
    /// When it last made progress, or had nothing to do.
    since: ActiveInstant,
    work: u64,
    /// Whether it had requests according to its last response.
    is_busy: bool,
    /// The CPU times of its threads at `since`, or at most [`IDLE_TIMES_KEPT`] before if it has had nothing to do since then.
    threads: Option<ThreadTimes>,
    /// When these were read.
    threads_read: ActiveInstant,
}

impl HangDetector {
    /// Returns a detector for a process that makes progress at `now`.
    pub(crate) fn new(now: ActiveInstant, threads: Option<ThreadTimes>) -> Self {
        Self { since: now, work: 0, is_busy: false, threads, threads_read: now }
    }

    /// Records the counters of this moment, `None` when there was no response. `threads` reads the CPU times of its threads;
    /// it is only called where they matter.
    pub(crate) fn sample(
        &mut self,
        sample: Option<HangSample>,
        threads: impl FnOnce() -> Option<ThreadTimes>,
        hang_timeout: Duration,
        now: ActiveInstant,
    ) -> HangFinding {
        // llama-server answers `/metrics` even while it computes, but not when its work loop hangs.
        if let Some(sample) = sample {
            let has_worked = sample.work != self.work;
            let was_busy = std::mem::replace(&mut self.is_busy, sample.requests > 0);
            if !self.is_busy || has_worked {
                (self.since, self.work) = (now, sample.work);
                if was_busy || self.is_busy || has_worked || now - self.threads_read >= IDLE_TIMES_KEPT {
                    (self.threads, self.threads_read) = (threads(), now);
                }
                return HangFinding::Alive;
            }
        }
        let stalled = now - self.since;
        if !is_suspicious(stalled, hang_timeout) || self.may_compute(threads().as_ref(), hang_timeout, now) {
            HangFinding::Alive
        } else if stalled < hang_timeout {
            HangFinding::Suspicious
        } else {
            HangFinding::Stopped(if self.is_busy { KillReason::Hung(stalled) } else { KillReason::Mute(stalled) })
        }
    }

    /// Returns whether its threads compute, and have not computed for too long yet. CPU time counts, because a batch
    /// takes longer on a busy machine. Where CPU time cannot be measured, the time on the clock counts instead.
    fn may_compute(&self, threads: Option<&ThreadTimes>, hang_timeout: Duration, now: ActiveInstant) -> bool {
        let computed = match (threads, &self.threads) {
            // They may have been read before the stall began.
            (Some(times), Some(before)) => times.computed_since(before, now - self.threads_read),
            _ => Some(now - self.since),
        };
        computed.is_some_and(|computed| computed < hang_timeout * COMPUTING_PATIENCE)
    }
}

/// Returns whether a process without progress for this time may be hanging.
fn is_suspicious(stalled: Duration, hang_timeout: Duration) -> bool {
    stalled >= hang_timeout / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const IDLE: Option<HangSample> = Some(HangSample { requests: 0, work: 0 });

    fn busy(work: u64) -> Option<HangSample> {
        Some(HangSample { requests: 1, work })
    }

    /// Returns a function that samples at a second after the start, with a `HANG_TIMEOUT` of 20 s and sleeping threads.
    fn sampler() -> impl FnMut(Option<HangSample>, u32) -> HangFinding {
        let start = ActiveInstant::now();
        let mut detector = HangDetector::new(start, Some(ThreadTimes::stub(&[7, 7], false)));
        move |counters, at| {
            detector.sample(counters, || Some(ThreadTimes::stub(&[7, 7], false)), 20 * SECOND, start + at * SECOND)
        }
    }

    #[test]
    fn the_counters_of_a_real_llama_server_are_read() {
        let text = "# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed.\n\
             # TYPE llamacpp:prompt_tokens_total counter\nllamacpp:prompt_tokens_total 1.5e+03\n\
             llamacpp:tokens_predicted_total 20\nllamacpp:n_decode_total 21\n\
             llamacpp:predicted_tokens_seconds 38.0119\nllamacpp:requests_processing 2\nllamacpp:requests_deferred 3\n";
        assert_eq!(HangSample::read(text), Some(HangSample { requests: 5, work: 1541 }));
        assert_eq!(HangSample::read("llamacpp:requests_processing 2\n"), Some(HangSample { requests: 2, work: 0 }));
        assert_eq!(HangSample::read("llamacpp:n_decode_total 21\n"), None);
        assert_eq!(HangSample::read("llamacpp:requests_processing much\n"), None);
    }

    #[test]
    fn only_requests_without_progress_count_as_a_hang() {
        let mut sample = sampler();
        assert_eq!(sample(IDLE, 100), HangFinding::Alive, "nothing to do");
        assert_eq!(sample(busy(1), 101), HangFinding::Alive, "a batch was done");
        assert_eq!(sample(busy(1), 110), HangFinding::Alive);
        assert_eq!(sample(busy(1), 111), HangFinding::Suspicious, "half of the time");
        assert_eq!(sample(busy(2), 120), HangFinding::Alive);
        assert_eq!(sample(busy(2), 139), HangFinding::Suspicious);
        assert_eq!(sample(busy(2), 140), HangFinding::Stopped(KillReason::Hung(20 * SECOND)));
        assert_eq!(sample(Some(HangSample { requests: 0, work: 2 }), 150), HangFinding::Alive, "the client has left");
    }

    #[test]
    fn a_changing_number_of_requests_is_no_progress() {
        let mut sample = sampler();
        for at in 1..=19 {
            sample(Some(HangSample { requests: 1 + u64::from(at) % 3, work: 0 }), at);
        }
        assert_eq!(sample(busy(0), 20), HangFinding::Stopped(KillReason::Hung(20 * SECOND)));
    }

    #[test]
    fn a_silent_process_counts_as_hung_only_if_it_had_requests() {
        let mut sample = sampler();
        assert_eq!(sample(None, 10), HangFinding::Suspicious);
        assert_eq!(sample(None, 20), HangFinding::Stopped(KillReason::Mute(20 * SECOND)));
        assert_eq!(sample(busy(1), 30), HangFinding::Alive);
        assert_eq!(sample(None, 50), HangFinding::Stopped(KillReason::Hung(20 * SECOND)));
    }

    #[test]
    fn computing_threads_may_take_longer_but_one_busy_thread_beside_a_gpu_may_not() {
        let stopped = |has_gpu, stalled: u32, times: &[u64]| {
            let start = ActiveInstant::now();
            let mut detector = HangDetector::new(start, None);
            detector.sample(busy(1), || Some(ThreadTimes::stub(&[700, 0, 0], has_gpu)), 10 * SECOND, start);
            let now = start + stalled * SECOND;
            match detector.sample(busy(1), || Some(ThreadTimes::stub(times, has_gpu)), 10 * SECOND, now) {
                HangFinding::Alive => false,
                HangFinding::Suspicious => panic!("it computes, or it is late"),
                HangFinding::Stopped(_) => true,
            }
        };
        assert!(!stopped(true, 4, &[700, 0]), "it is early");
        assert!(stopped(true, 10, &[1700, 3, 0]), "one thread waits busily");
        assert!(!stopped(false, 10, &[1700, 3, 0]), "there is no GPU to wait for");
        assert!(stopped(false, 10, &[700, 0, 0]), "it sleeps");
        assert!(stopped(false, 10, &[710, 10, 0]), "it hardly computes");
        assert!(!stopped(true, 5, &[1200, 490, 0]), "two threads compute, so requests are not paused");
        assert!(!stopped(true, 50, &[5600, 4999, 0, 4700]));
        assert!(!stopped(true, 400, &[5600, 4999, 0]), "the machine is busy with something else");
        assert!(stopped(true, 50, &[5700, 5000, 0]), "computing may not last forever");
        assert!(stopped(false, 50, &[5700, 0, 0]));
    }

    #[test]
    fn without_thread_times_the_clock_bounds_the_time_without_progress() {
        let start = ActiveInstant::now();
        let mut detector = HangDetector::new(start, None);
        let mut sample = |at: u32| detector.sample(busy(0), || None, 10 * SECOND, start + at * SECOND);
        assert_eq!(sample(49), HangFinding::Alive);
        assert_eq!(sample(50), HangFinding::Stopped(KillReason::Hung(50 * SECOND)));
    }

    #[test]
    fn the_threads_of_an_idle_process_are_seldom_read() {
        let (start, mut reads) = (ActiveInstant::now(), 0);
        let mut detector = HangDetector::new(start, None);
        let mut reads_at = |counters, at: u32| {
            reads = 0;
            let read = || {
                reads += 1;
                None
            };
            detector.sample(counters, read, 20 * SECOND, start + at * SECOND);
            reads
        };
        assert_eq!([5, 30, 59, 60, 65].map(|at| reads_at(IDLE, at)), [0, 0, 0, 1, 0]);
        assert_eq!(reads_at(busy(0), 70), 0, "it has only begun");
        assert_eq!(reads_at(busy(1), 75), 1, "a batch was done");
        assert_eq!(reads_at(Some(HangSample { requests: 0, work: 1 }), 80), 1, "the last request has ended");
        assert_eq!(reads_at(Some(HangSample { requests: 0, work: 1 }), 85), 0);
    }
}
