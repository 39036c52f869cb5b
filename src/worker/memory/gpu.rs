//! The wait until processes that have ended have released their GPU memory. What a GPU reports is read in `nvml.rs`.
//!
//! The driver frees memory a moment after the process has ended, and a model that is loaded before that finds too
//! little. Without NVML there is no wait. In a container NVML may list no process, or only pids of the host, so the wait
//! also ends when the memory in use has stopped falling.

use std::collections::BTreeSet;

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::nvml::{Gpus, Sample};
use crate::worker::bounds::{GPU_RELEASE_INTERVAL, GPU_RELEASE_PATIENCE, GPU_RELEASE_STILL};

/// Waits until processes that have ended have released their memory on every GPU, at most [`GPU_RELEASE_PATIENCE`].
/// Returns early when `stop` is cancelled.
pub(crate) async fn released(pids: BTreeSet<i32>, stop: &CancellationToken) {
    tokio::select! {
        _ = wait_for_release(Gpus::default(), pids.into_iter().collect()) => {}
        () = stop.cancelled() => {}
    }
}

/// Measures how GPUs are used.
trait Gauge: Send + 'static {
    /// Takes a sample; `None` if that is not possible. May block.
    fn sample(&mut self, pids: &[i32]) -> Option<Sample>;
}

impl Gauge for Gpus {
    fn sample(&mut self, pids: &[i32]) -> Option<Sample> {
        Gpus::sample(self, pids)
    }
}

#[derive(Debug, PartialEq, Eq)]
enum MemoryRelease {
    /// The use of the GPUs cannot be measured.
    Unknown,
    Complete,
    /// The wait ended with this many bytes in use.
    TimedOut(u64),
}

async fn wait_for_release(gauge: impl Gauge, pids: Vec<i32>) -> MemoryRelease {
    let mut last = None;
    let outcome = timeout(GPU_RELEASE_PATIENCE, wait_until_still(gauge, pids, &mut last)).await;
    let outcome = outcome.unwrap_or_else(|_| last.map_or(MemoryRelease::Unknown, MemoryRelease::TimedOut));
    if let MemoryRelease::TimedOut(used) = outcome {
        let (used_mib, waited_s) = (used / (1024 * 1024), GPU_RELEASE_PATIENCE.as_secs());
        warn!(used_mib, waited_s, "the GPU may not have all its memory back, llama-server is started anyway");
    }
    outcome
}

/// Waits until the memory in use has stopped falling and none of the processes is listed. Stores the last number of
/// bytes in `last`, where the caller finds it after a timeout.
async fn wait_until_still<G: Gauge>(mut gauge: G, pids: Vec<i32>, last: &mut Option<u64>) -> MemoryRelease {
    let mut still = 0;
    loop {
        let sampled_pids = pids.clone();
        // The gauge moves to the blocking thread and back: NVML stays open between two samples.
        let sampling = tokio::task::spawn_blocking(move || {
            let sample = gauge.sample(&sampled_pids);
            (gauge, sample)
        });
        let Ok((returned, Some(sample))) = sampling.await else { return MemoryRelease::Unknown };
        gauge = returned;
        let has_fallen = last.is_none_or(|before| sample.used < before);
        *last = Some(sample.used);
        // A rise counts as still: another program may allocate while we wait.
        still = if sample.is_listed || has_fallen { 0 } else { still + 1 };
        if still >= GPU_RELEASE_STILL {
            return MemoryRelease::Complete;
        }
        sleep(GPU_RELEASE_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;
    use tokio::time::Instant;

    const PID: i32 = 4321;

    /// Returns one step of a script at each sample, then repeats the last one.
    #[derive(Clone)]
    struct Scripted {
        steps: Vec<Option<(u64, bool)>>,
        queries: Arc<AtomicUsize>,
    }

    impl Scripted {
        fn new(steps: &[Option<(u64, bool)>]) -> Self {
            Self { steps: steps.to_vec(), queries: Arc::default() }
        }
    }

    impl Gauge for Scripted {
        fn sample(&mut self, pids: &[i32]) -> Option<Sample> {
            assert_eq!(pids, [PID]);
            let nth = self.queries.fetch_add(1, Ordering::Relaxed).min(self.steps.len() - 1);
            self.steps[nth].map(|(used, is_listed)| Sample { used, is_listed })
        }
    }

    async fn outcome(steps: &[Option<(u64, bool)>]) -> (MemoryRelease, usize, Duration) {
        let gauge = Scripted::new(steps);
        let (queries, begin) = (Arc::clone(&gauge.queries), Instant::now());
        let outcome = wait_for_release(gauge, vec![PID]).await;
        (outcome, queries.load(Ordering::Relaxed), begin.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_no_wait_if_gpus_cannot_be_measured() {
        assert_eq!(outcome(&[None]).await, (MemoryRelease::Unknown, 1, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_goes_on_until_the_memory_stops_falling() {
        let falling = [Some((900, false)), Some((900, false)), Some((500, false)), Some((100, false))];
        assert_eq!(outcome(&falling).await, (MemoryRelease::Complete, 6, 5 * GPU_RELEASE_INTERVAL));
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_ends_if_another_program_allocates_memory() {
        let rising = [Some((100, false)), Some((200, false)), Some((900, false))];
        assert_eq!(outcome(&rising).await, (MemoryRelease::Complete, 3, 2 * GPU_RELEASE_INTERVAL));
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_goes_on_while_a_process_is_listed() {
        let (outcome, queries, _) =
            outcome(&[Some((9, true)); 7].into_iter().chain([Some((9, false))]).collect::<Vec<_>>()).await;
        assert_eq!((outcome, queries), (MemoryRelease::Complete, 9));
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_for_gpu_memory_ends_after_its_time_limit() {
        let (outcome, _, waited) = outcome(&[Some((7 * 1024 * 1024, true))]).await;
        assert_eq!((outcome, waited), (MemoryRelease::TimedOut(7 * 1024 * 1024), GPU_RELEASE_PATIENCE));
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_ends_when_it_is_stopped() {
        let stop = CancellationToken::new();
        stop.cancel();
        let begin = Instant::now();
        released(BTreeSet::from([PID]), &stop).await;
        assert_eq!(begin.elapsed(), Duration::ZERO);
    }
}
