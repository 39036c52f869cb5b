//! Whether a llama-server that works gets anywhere: the counters it shows, and for how long they have stood still.
//!
//! `/health` answers well while the computation hangs. What tells is that requests are being processed and that neither
//! a counter moves nor a line is logged. One batch may take long without any of that on a CPU, where several threads
//! compute; a hanging GPU leaves at most one thread busy waiting.

use crate::awake::Instant;
use crate::settings::bounds::COMPUTING_PATIENCE;
use nix::unistd::{SysconfVar, sysconf};
use std::collections::HashMap;
use std::fs;
use std::time::Duration;

/// What llama-server says of its work (`GET /metrics`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Vitals {
    /// Requests that it works on.
    pub(super) processing: u64,
    /// Grows with each batch that is done.
    pub(super) work: u64,
}

impl Vitals {
    /// Counters that grow as it works, from `tools/server/server.cpp` of llama.cpp.
    const WORK: [&str; 3] = ["n_decode_total", "prompt_tokens_total", "tokens_predicted_total"];

    /// Reads Prometheus' text; nothing when it says nothing of requests.
    pub(super) fn read(text: &str) -> Option<Self> {
        let samples = text.lines().filter_map(|line| line.strip_prefix("llamacpp:")?.split_once(' '));
        let (mut processing, mut work) = (None, 0);
        for (name, value) in samples {
            // Large counters may come as 1e+06.
            let value = value.trim().parse::<f64>().ok().filter(|value| *value >= 0.0).map(|value| value as u64);
            match name {
                "requests_processing" => processing = value,
                _ if Self::WORK.contains(&name) => work += value.unwrap_or(0),
                _ => {}
            }
        }
        Some(Self { processing: processing?, work })
    }
}

/// The silence of a llama-server at work.
#[derive(Debug)]
pub(super) struct Pulse {
    /// When it was last seen to get somewhere, or to have nothing to do.
    since: Instant,
    work: u64,
    lines: u64,
    /// What its threads had used by then.
    threads: Threads,
}

impl Pulse {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, work: 0, lines: 0, threads: Threads::default() }
    }

    /// Takes what it says at this moment, nothing when it did not answer, and the number of lines it has logged. For
    /// how long it has now got nowhere.
    pub(super) fn feel(
        &mut self,
        vitals: Option<Vitals>,
        lines: u64,
        threads: impl FnOnce() -> Threads,
        now: Instant,
    ) -> Duration {
        // It answers this even while it computes, but not when the loop that would do the work stands still.
        let moves = vitals.is_some_and(|vitals| vitals.processing == 0 || vitals.work != self.work);
        if moves || lines != self.lines {
            let work = vitals.map_or(self.work, |vitals| vitals.work);
            *self = Self { since: now, work, lines, threads: threads() };
        }
        now - self.since
    }

    /// Whether it has got nowhere for longer than it may. While several threads compute, it is their time on the CPU
    /// that counts: on a busy machine a batch takes longer.
    pub(super) fn has_stopped(
        &self,
        stalled: Duration,
        hang_timeout: Duration,
        threads: impl FnOnce() -> Threads,
    ) -> bool {
        if stalled < hang_timeout {
            return false;
        }
        let computed = threads().several_computed_since(&self.threads, stalled);
        computed.is_none_or(|computed| computed >= hang_timeout * COMPUTING_PATIENCE)
    }
}

/// CPU time of each thread of a process, in clock ticks.
#[derive(Debug, Default)]
pub(super) struct Threads(HashMap<i32, u64>);

impl Threads {
    /// Of a process; nothing where that cannot be read.
    pub(super) fn of(pid: i32) -> Self {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let times = tasks.filter_map(|task| {
            let stat = fs::read_to_string(task.path().join("stat")).ok()?;
            // The name before it may hold spaces and parentheses.
            let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
            let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
            Some((task.file_name().to_str()?.parse().ok()?, user + system))
        });
        Self(times.collect())
    }

    /// How long they have computed in this time, if at least two of them have used the CPU for a part of it that shows,
    /// and about as much as each other.
    fn several_computed_since(&self, before: &Self, time: Duration) -> Option<Duration> {
        let ticks_per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100) as f64;
        // A thread that is new since then has used all its time since then.
        let used = self.0.iter().map(|(thread, time)| time.saturating_sub(before.0.get(thread).copied().unwrap_or(0)));
        let mut used: Vec<u64> = used.collect();
        used.sort_unstable_by(|a, b| b.cmp(a));
        let [most, second, ..] = used[..] else { return None };
        let computed = Duration::from_secs_f64(second as f64 / ticks_per_second);
        (computed >= time.div_f64(PART_THAT_SHOWS) && second * 2 >= most).then_some(computed)
    }
}

/// A thread that uses the CPU for one part in so many of the time does more than housekeeping.
const PART_THAT_SHOWS: f64 = 20.0;

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn works(work: u64) -> Option<Vitals> {
        Some(Vitals { processing: 1, work })
    }

    fn threads(times: &[u64]) -> Threads {
        Threads(times.iter().enumerate().map(|(id, time)| (id as i32, *time)).collect())
    }

    #[test]
    fn the_counters_of_a_real_llama_server_are_read() {
        let text = "# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed.\n\
             # TYPE llamacpp:prompt_tokens_total counter\nllamacpp:prompt_tokens_total 1.5e+03\n\
             llamacpp:tokens_predicted_total 20\nllamacpp:n_decode_total 21\n\
             llamacpp:predicted_tokens_seconds 38.0119\nllamacpp:requests_processing 2\n";
        assert_eq!(Vitals::read(text), Some(Vitals { processing: 2, work: 1541 }));
        assert_eq!(Vitals::read("llamacpp:n_decode_total 21\n"), None);
        assert_eq!(Vitals::read("llamacpp:requests_processing much\n"), None);
    }

    #[test]
    fn only_work_without_progress_is_silence() {
        let start = Instant::now();
        let mut pulse = Pulse::new(start);
        let mut feel = |vitals, lines, at| pulse.feel(vitals, lines, Threads::default, start + at * SECOND);
        assert_eq!(feel(Some(Vitals { processing: 0, work: 0 }), 0, 100), Duration::ZERO, "nothing to do");
        assert_eq!(feel(works(1), 0, 110), Duration::ZERO, "a batch was done");
        assert_eq!(feel(works(1), 0, 120), 10 * SECOND);
        assert_eq!(feel(works(1), 1, 130), Duration::ZERO, "it logs how far it is");
        assert_eq!(feel(works(1), 1, 140), 10 * SECOND);
        assert_eq!(feel(None, 1, 150), 20 * SECOND, "not even an answer");
        assert_eq!(feel(works(2), 1, 160), Duration::ZERO);
        assert_eq!(feel(works(2), 1, 170), 10 * SECOND);
        assert_eq!(feel(Some(Vitals { processing: 0, work: 2 }), 1, 180), Duration::ZERO, "the client has left");
    }

    #[test]
    fn several_computing_threads_get_longer_and_a_spinning_one_does_not() {
        let start = Instant::now();
        let mut pulse = Pulse::new(start);
        pulse.feel(works(1), 0, || threads(&[700, 0, 0]), start);
        let stopped = |stalled: u32, times: &[u64]| pulse.has_stopped(stalled * SECOND, 10 * SECOND, || threads(times));
        assert!(!stopped(9, &[0, 0]), "there is time");
        assert!(stopped(10, &[1700, 3, 0]), "one thread waits busily");
        assert!(stopped(10, &[700, 0, 0]), "it sleeps");
        assert!(stopped(10, &[710, 10, 0]), "it hardly does anything");
        assert!(!stopped(10, &[1700, 980, 0]), "two compute");
        assert!(!stopped(50, &[5600, 4999, 0, 4700]));
        assert!(!stopped(400, &[5600, 4999, 0]), "the machine is busy with something else");
        assert!(stopped(50, &[5700, 5000, 0]), "there is an end to that too");
    }

    #[test]
    fn the_threads_of_this_process_can_be_read() {
        let pid = std::process::id() as i32;
        assert!(!Threads::of(pid).0.is_empty());
        assert!(Threads::of(-1).0.is_empty());
    }
}
