//! Whether a llama-server that works gets anywhere: the counters it shows, and for how long they have stood still.
//!
//! `/health` answers well while the computation hangs. What tells is that requests are being processed and no counter
//! moves. Its log tells nothing: it writes a line for each client that leaves, hung or not. One batch may take long on a
//! CPU, where threads compute; how much they did is [`super::cpu_time`]'s to measure.

use super::cpu_time::ThreadTimes;
use crate::pause_clock::ActiveInstant;
use crate::worker::bounds::COMPUTING_PATIENCE;
use crate::worker::diagnosis::evidence::KillReason;
use std::time::Duration;

/// What llama-server says of its work (`GET /metrics`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HangSample {
    /// Requests that it works on, or that wait in it for others.
    pub(crate) taken: u64,
    /// Grows with each batch that is done, those of a long prompt included.
    pub(crate) work: u64,
}

impl HangSample {
    /// Counters that grow as it works, from `tools/server/server.cpp` of llama.cpp.
    const WORK: [&str; 3] = ["n_decode_total", "prompt_tokens_total", "tokens_predicted_total"];

    /// Reads Prometheus' text; nothing when it says nothing of requests.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let samples = text.lines().filter_map(|line| line.strip_prefix("llamacpp:")?.split_once(' '));
        let (mut processing, mut deferred, mut work) = (None, 0, 0);
        for (name, value) in samples {
            // Large counters may come as 1e+06.
            let value = value.trim().parse::<f64>().ok().filter(|value| *value >= 0.0).map(|value| value as u64);
            match name {
                "requests_processing" => processing = value,
                "requests_deferred" => deferred = value.unwrap_or(0),
                _ if Self::WORK.contains(&name) => work += value.unwrap_or(0),
                _ => {}
            }
        }
        Some(Self { taken: processing?.saturating_add(deferred), work })
    }
}

/// What the pulse of a llama-server says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HangFinding {
    /// It gets somewhere, has nothing to do, or computes.
    Lives,
    /// It has stood still for so long that nothing new should be sent to it.
    Suspicious,
    /// It has stood still for longer than it may.
    Stopped(KillReason),
}

/// The silence of a llama-server at work.
#[derive(Debug)]
pub(crate) struct HangDetector {
    /// When it was last seen to get somewhere, or to have nothing to do.
    since: ActiveInstant,
    work: u64,
    /// Whether it had something to do when it last told.
    is_busy: bool,
    /// What its threads had used by `since`.
    threads: Option<ThreadTimes>,
}

impl HangDetector {
    pub(crate) fn new(now: ActiveInstant, threads: Option<ThreadTimes>) -> Self {
        Self { since: now, work: 0, is_busy: false, threads }
    }

    /// Takes what it says at this moment, nothing when it did not answer, and what its threads have used by now.
    pub(crate) fn sample(
        &mut self,
        vitals: Option<HangSample>,
        threads: Option<ThreadTimes>,
        hang_timeout: Duration,
        now: ActiveInstant,
    ) -> HangFinding {
        // It answers this even while it computes, but not when the loop that would do the work stands still.
        if let Some(vitals) = vitals {
            self.is_busy = vitals.taken > 0;
            if !self.is_busy || vitals.work != self.work {
                *self = Self { since: now, work: vitals.work, is_busy: self.is_busy, threads };
                return HangFinding::Lives;
            }
        }
        let stalled = now - self.since;
        if !is_suspicious(stalled, hang_timeout) || self.may_compute(stalled, threads.as_ref(), hang_timeout) {
            HangFinding::Lives
        } else if stalled < hang_timeout {
            HangFinding::Suspicious
        } else {
            HangFinding::Stopped(if self.is_busy { KillReason::Hung(stalled) } else { KillReason::Mute(stalled) })
        }
    }

    /// Whether its threads compute, and have not for longer than they may. It is their time on the CPU that counts: on a
    /// busy machine a batch takes longer. Where that cannot be measured, the time on the clock has to do.
    fn may_compute(&self, stalled: Duration, threads: Option<&ThreadTimes>, hang_timeout: Duration) -> bool {
        let computed = match (threads, &self.threads) {
            (Some(now), Some(before)) => now.computed_since(before, stalled),
            _ => Some(stalled),
        };
        computed.is_some_and(|computed| computed < hang_timeout * COMPUTING_PATIENCE)
    }
}

/// Whether one that has got nowhere for so long may be hanging.
fn is_suspicious(stalled: Duration, hang_timeout: Duration) -> bool {
    stalled >= hang_timeout / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const IDLE: Option<HangSample> = Some(HangSample { taken: 0, work: 0 });

    fn works(work: u64) -> Option<HangSample> {
        Some(HangSample { taken: 1, work })
    }

    /// One with a `HANG_TIMEOUT` of 20 s that is asked at these seconds, and whose threads sleep.
    fn sleeper() -> impl FnMut(Option<HangSample>, u32) -> HangFinding {
        let start = ActiveInstant::now();
        let mut pulse = HangDetector::new(start, Some(ThreadTimes::stub(&[7, 7], false)));
        move |vitals, at| {
            pulse.sample(vitals, Some(ThreadTimes::stub(&[7, 7], false)), 20 * SECOND, start + at * SECOND)
        }
    }

    #[test]
    fn the_counters_of_a_real_llama_server_are_read() {
        let text = "# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed.\n\
             # TYPE llamacpp:prompt_tokens_total counter\nllamacpp:prompt_tokens_total 1.5e+03\n\
             llamacpp:tokens_predicted_total 20\nllamacpp:n_decode_total 21\n\
             llamacpp:predicted_tokens_seconds 38.0119\nllamacpp:requests_processing 2\nllamacpp:requests_deferred 3\n";
        assert_eq!(HangSample::read(text), Some(HangSample { taken: 5, work: 1541 }));
        assert_eq!(HangSample::read("llamacpp:requests_processing 2\n"), Some(HangSample { taken: 2, work: 0 }));
        assert_eq!(HangSample::read("llamacpp:n_decode_total 21\n"), None);
        assert_eq!(HangSample::read("llamacpp:requests_processing much\n"), None);
    }

    #[test]
    fn only_work_without_progress_is_silence() {
        let mut feel = sleeper();
        assert_eq!(feel(IDLE, 100), HangFinding::Lives, "nothing to do");
        assert_eq!(feel(works(1), 101), HangFinding::Lives, "a batch was done");
        assert_eq!(feel(works(1), 110), HangFinding::Lives);
        assert_eq!(feel(works(1), 111), HangFinding::Suspicious, "half of the time");
        assert_eq!(feel(works(2), 120), HangFinding::Lives);
        assert_eq!(feel(works(2), 139), HangFinding::Suspicious);
        assert_eq!(feel(works(2), 140), HangFinding::Stopped(KillReason::Hung(20 * SECOND)));
        assert_eq!(feel(Some(HangSample { taken: 0, work: 2 }), 150), HangFinding::Lives, "the client has left");
    }

    #[test]
    fn a_crowd_that_comes_and_goes_is_no_progress() {
        let mut feel = sleeper();
        for at in 1..=19 {
            feel(Some(HangSample { taken: 1 + u64::from(at) % 3, work: 0 }), at);
        }
        assert_eq!(feel(works(0), 20), HangFinding::Stopped(KillReason::Hung(20 * SECOND)));
    }

    #[test]
    fn one_that_no_longer_answers_is_said_to_have_worked_only_if_it_did() {
        let mut feel = sleeper();
        assert_eq!(feel(None, 10), HangFinding::Suspicious);
        assert_eq!(feel(None, 20), HangFinding::Stopped(KillReason::Mute(20 * SECOND)));
        assert_eq!(feel(works(1), 30), HangFinding::Lives);
        assert_eq!(feel(None, 50), HangFinding::Stopped(KillReason::Hung(20 * SECOND)));
    }

    #[test]
    fn computing_threads_get_longer_and_a_spinning_one_beside_a_gpu_does_not() {
        let stopped = |has_gpu, stalled: u32, times: &[u64]| {
            let start = ActiveInstant::now();
            let mut pulse = HangDetector::new(start, None);
            pulse.sample(works(1), Some(ThreadTimes::stub(&[700, 0, 0], has_gpu)), 10 * SECOND, start);
            let now = start + stalled * SECOND;
            match pulse.sample(works(1), Some(ThreadTimes::stub(times, has_gpu)), 10 * SECOND, now) {
                HangFinding::Lives => false,
                HangFinding::Suspicious => panic!("it computes, or it is late"),
                HangFinding::Stopped(_) => true,
            }
        };
        assert!(!stopped(true, 4, &[700, 0]), "there is time");
        assert!(stopped(true, 10, &[1700, 3, 0]), "one thread waits busily");
        assert!(!stopped(false, 10, &[1700, 3, 0]), "there is no GPU to wait for");
        assert!(stopped(false, 10, &[700, 0, 0]), "it sleeps");
        assert!(stopped(false, 10, &[710, 10, 0]), "it hardly does anything");
        assert!(!stopped(true, 5, &[1200, 490, 0]), "two compute, and nothing is kept from it");
        assert!(!stopped(true, 50, &[5600, 4999, 0, 4700]));
        assert!(!stopped(true, 400, &[5600, 4999, 0]), "the machine is busy with something else");
        assert!(stopped(true, 50, &[5700, 5000, 0]), "there is an end to that too");
        assert!(stopped(false, 50, &[5700, 0, 0]));
    }

    #[test]
    fn where_threads_cannot_be_seen_there_is_patience_with_an_end() {
        let start = ActiveInstant::now();
        let mut pulse = HangDetector::new(start, None);
        let mut feel = |at: u32| pulse.sample(works(0), None, 10 * SECOND, start + at * SECOND);
        assert_eq!(feel(49), HangFinding::Lives);
        assert_eq!(feel(50), HangFinding::Stopped(KillReason::Hung(50 * SECOND)));
    }
}
