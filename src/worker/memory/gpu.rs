//! The GPU's memory: how much there is, how much a process takes, and whether one that has ended has given it back.
//!
//! The driver frees memory a moment after the process is gone, and a model that is loaded before then finds too little.
//! NVML is looked for at run time; without it nobody waits. In a container it may show no process, or only numbers that
//! mean nothing there: so what counts as well is that the memory in use has stopped falling.

use crate::worker::bounds::{GPU_RELEASE_INTERVAL, GPU_RELEASE_PATIENCE, GPU_RELEASE_STILL};
use nvml_wrapper::Nvml;
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;
use std::collections::BTreeSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Waits until processes that have ended have given back their memory on every GPU, for no longer than
/// [`GPU_RELEASE_PATIENCE`]. Returns early when `stop` is cancelled.
pub(crate) async fn released(pids: BTreeSet<i32>, stop: &CancellationToken) {
    tokio::select! {
        _ = wait_for_release(Gpus(None), pids.into_iter().collect()) => {}
        () = stop.cancelled() => {}
    }
}

/// What can tell how GPUs are used. Asking may block.
trait Gauge: Send + 'static {
    /// Nothing when it cannot be told.
    fn sample(&mut self, pids: &[i32]) -> Option<Sample>;
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    /// Bytes in use, over all GPUs.
    used: u64,
    /// Whether one of the processes still counts as using a GPU.
    is_listed: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum MemoryRelease {
    /// There is nobody to ask.
    Unknown,
    Complete,
    /// So many bytes were in use when patience ended.
    Awaited(u64),
}

async fn wait_for_release(gauge: impl Gauge, pids: Vec<i32>) -> MemoryRelease {
    let mut last = None;
    let release = timeout(GPU_RELEASE_PATIENCE, until_still(gauge, pids, &mut last)).await;
    let release = release.unwrap_or_else(|_| last.map_or(MemoryRelease::Unknown, MemoryRelease::Awaited));
    if let MemoryRelease::Awaited(used) = release {
        let (used_mib, waited_s) = (used / (1024 * 1024), GPU_RELEASE_PATIENCE.as_secs());
        warn!(used_mib, waited_s, "the GPU may not have all its memory back, llama-server is started all the same");
    }
    release
}

/// The last number of bytes in use is left in `last`.
async fn until_still<G: Gauge>(mut gauge: G, pids: Vec<i32>, last: &mut Option<u64>) -> MemoryRelease {
    let mut still = 0;
    loop {
        let asked = pids.clone();
        let asking = tokio::task::spawn_blocking(move || {
            let sample = gauge.sample(&asked);
            (gauge, sample)
        });
        let Ok((returned, Some(sample))) = asking.await else { return MemoryRelease::Unknown };
        gauge = returned;
        let has_fallen = last.is_none_or(|before| sample.used < before);
        *last = Some(sample.used);
        still = if sample.is_listed || has_fallen { 0 } else { still + 1 };
        if still >= GPU_RELEASE_STILL {
            return MemoryRelease::Complete;
        }
        sleep(GPU_RELEASE_INTERVAL).await;
    }
}

/// NVIDIA's GPUs, through a library that is opened with the first sample and closed with the last.
struct Gpus(Option<Nvml>);

impl Gauge for Gpus {
    fn sample(&mut self, pids: &[i32]) -> Option<Sample> {
        if self.0.is_none() {
            self.0 = Nvml::init().ok();
        }
        usage(self.0.as_ref()?, pids).ok()
    }
}

/// Bytes of memory of all GPUs; nothing where there is none that can be asked. May block.
pub(crate) fn capacity() -> Option<u64> {
    let nvml = Nvml::init().ok()?;
    let of_device = |index| nvml.device_by_index(index)?.memory_info().map(|memory| memory.total);
    let totals: Result<Vec<u64>, NvmlError> = (0..nvml.device_count().ok()?).map(of_device).collect();
    totals.ok().map(|totals| totals.into_iter().fold(0, u64::saturating_add))
}

/// Bytes that these processes take on all GPUs; nothing where the driver does not tell, or not of them. May block.
pub(crate) fn taken_by(pids: &[i32]) -> Option<u64> {
    let nvml = Nvml::init().ok()?;
    let mut taken: Option<u64> = None;
    for index in 0..nvml.device_count().ok()? {
        for process in nvml.device_by_index(index).ok()?.running_compute_processes().ok()? {
            let is_one = i32::try_from(process.pid).is_ok_and(|pid| pids.contains(&pid));
            if let (true, UsedGpuMemory::Used(bytes)) = (is_one, process.used_gpu_memory) {
                taken = Some(taken.unwrap_or(0).saturating_add(bytes));
            }
        }
    }
    taken
}

fn usage(nvml: &Nvml, pids: &[i32]) -> Result<Sample, NvmlError> {
    let mut sample = Sample { used: 0, is_listed: false };
    for index in 0..nvml.device_count()? {
        let device = nvml.device_by_index(index)?;
        sample.used = sample.used.saturating_add(device.memory_info()?.used);
        // A driver too old to tell about processes still tells about memory.
        let compute = device.running_compute_processes().unwrap_or_default();
        let graphics = device.running_graphics_processes().unwrap_or_default();
        let mut users = compute.iter().chain(&graphics).filter_map(|process| i32::try_from(process.pid).ok());
        sample.is_listed |= users.any(|pid| pids.contains(&pid));
    }
    Ok(sample)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;
    use tokio::time::Instant;

    const PID: i32 = 4321;

    /// Tells one step of a script at each sample, and then the last one again and again.
    #[derive(Clone)]
    struct Scripted {
        steps: Vec<Option<(u64, bool)>>,
        asked: Arc<AtomicUsize>,
    }

    impl Scripted {
        fn new(steps: &[Option<(u64, bool)>]) -> Self {
            Self { steps: steps.to_vec(), asked: Arc::default() }
        }
    }

    impl Gauge for Scripted {
        fn sample(&mut self, pids: &[i32]) -> Option<Sample> {
            assert_eq!(pids, [PID]);
            let nth = self.asked.fetch_add(1, Ordering::Relaxed).min(self.steps.len() - 1);
            self.steps[nth].map(|(used, is_listed)| Sample { used, is_listed })
        }
    }

    async fn release(steps: &[Option<(u64, bool)>]) -> (MemoryRelease, usize, Duration) {
        let gauge = Scripted::new(steps);
        let (asked, begin) = (Arc::clone(&gauge.asked), Instant::now());
        let release = wait_for_release(gauge, vec![PID]).await;
        (release, asked.load(Ordering::Relaxed), begin.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn without_anybody_to_ask_nobody_waits() {
        assert_eq!(release(&[None]).await, (MemoryRelease::Unknown, 1, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn memory_that_falls_is_waited_for_until_it_stands_still() {
        let falling = [Some((900, false)), Some((900, false)), Some((500, false)), Some((100, false))];
        assert_eq!(release(&falling).await, (MemoryRelease::Complete, 6, 5 * GPU_RELEASE_INTERVAL));
    }

    #[tokio::test(start_paused = true)]
    async fn memory_that_somebody_else_takes_is_not_waited_for() {
        let rising = [Some((100, false)), Some((200, false)), Some((900, false))];
        assert_eq!(release(&rising).await, (MemoryRelease::Complete, 3, 2 * GPU_RELEASE_INTERVAL));
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_is_listed_is_waited_for_whatever_the_memory_does() {
        let (release, asked, _) =
            release(&[Some((9, true)); 7].into_iter().chain([Some((9, false))]).collect::<Vec<_>>()).await;
        assert_eq!((release, asked), (MemoryRelease::Complete, 9));
    }

    #[tokio::test(start_paused = true)]
    async fn patience_ends() {
        let (release, _, waited) = release(&[Some((7 * 1024 * 1024, true))]).await;
        assert_eq!((release, waited), (MemoryRelease::Awaited(7 * 1024 * 1024), GPU_RELEASE_PATIENCE));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_ends_the_wait() {
        let stop = CancellationToken::new();
        stop.cancel();
        let begin = Instant::now();
        released(BTreeSet::from([PID]), &stop).await;
        assert_eq!(begin.elapsed(), Duration::ZERO);
    }
}
