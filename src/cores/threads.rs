//! Starts and ends the serving threads.

use std::future::Future;
use std::io;
use std::num::NonZeroUsize;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::bounds::{CORE_BLOCKING_THREADS, MOST_CORES};
use super::choice::Cores;
use super::per_core;

/// The serving threads. Each ends when this is dropped; [`CoreThreads::stop`] waits for that.
pub struct CoreThreads {
    cores: Cores,
    threads: Vec<JoinHandle<()>>,
    stop: CancellationToken,
    /// Cancelled when any thread has ended.
    ended: CancellationToken,
}

impl CoreThreads {
    /// Starts this many threads, or [`MOST_CORES`] if that is fewer.
    ///
    /// # Errors
    ///
    /// The system cannot start a thread or create a runtime; the error says so. The threads that run already end.
    pub fn start(count: NonZeroUsize) -> io::Result<Self> {
        let (stop, ended) = (CancellationToken::new(), CancellationToken::new());
        let stop_on_error = stop.clone().drop_guard();
        let (mut threads, mut runtimes) = (Vec::new(), Vec::new());
        let thread_error =
            |number, error: io::Error| io::Error::new(error.kind(), format!("serving thread {number}: {error}"));
        for number in 0..count.get().min(MOST_CORES) {
            let stopped = stop.clone().cancelled_owned();
            let (thread, runtime) =
                start_thread(number, stopped, ended.clone()).map_err(|error| thread_error(number, error))?;
            threads.push(thread);
            runtimes.push(runtime);
        }
        // Only now: the threads create their runtimes at the same time.
        let runtimes = runtimes.iter().enumerate().map(|(number, runtime)| {
            let created = runtime.recv().unwrap_or_else(|_| Err(io::Error::other("it ended at once")));
            created.map_err(|error| thread_error(number, error))
        });
        let runtimes = runtimes.collect::<io::Result<Vec<_>>>()?;
        stop_on_error.disarm();
        Ok(Self { cores: Cores::new(runtimes), threads, stop, ended })
    }

    /// Returns the cores, to serve connections on.
    pub fn cores(&self) -> Cores {
        self.cores.clone()
    }

    /// Waits until a thread has ended by itself, which is a defect: its connections are closed, and new ones would hang.
    pub async fn failed(&self) {
        self.ended.cancelled().await;
    }

    /// Drops everything that still runs on the cores, and waits until the threads have ended, for this time at most.
    pub async fn stop(mut self, longest: Duration) {
        self.stop.cancel();
        let threads = std::mem::take(&mut self.threads);
        // `join` blocks. What a panic has to say has been said by its thread.
        let joined = tokio::task::spawn_blocking(move || threads.into_iter().for_each(|thread| _ = thread.join()));
        if tokio::time::timeout(longest, joined).await.is_err() {
            warn!("some serving threads did not end in time");
        }
    }
}

impl Drop for CoreThreads {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Starts a thread that drives a runtime of its own until `stopped`, and cancels `ended` at its end, even if that is a
/// panic. Returns the thread, and where it sends its runtime.
fn start_thread(
    number: usize,
    stopped: impl Future<Output = ()> + Send + 'static,
    ended: CancellationToken,
) -> io::Result<(JoinHandle<()>, mpsc::Receiver<io::Result<Handle>>)> {
    let (report, started) = mpsc::channel();
    // The runtime is created on its thread: where another runtime runs, it must not even be dropped after an error.
    let thread = thread::Builder::new().name(format!("core-{number}")).spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(CORE_BLOCKING_THREADS).build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => {
                let _ = report.send(Err(error));
                return;
            }
        };
        let _ended = ended.drop_guard();
        per_core::enter(number);
        let _ = report.send(Ok(runtime.handle().clone()));
        runtime.block_on(stopped);
        // Drops the tasks, and does not wait for work on blocking threads.
        runtime.shutdown_background();
    })?;
    Ok((thread, started))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::oneshot;

    use super::*;
    use crate::cores::PerCore;

    const SOON: Duration = Duration::from_secs(10);

    fn two() -> CoreThreads {
        CoreThreads::start(NonZeroUsize::new(2).unwrap()).unwrap()
    }

    #[tokio::test]
    async fn tasks_of_two_connections_run_on_two_threads_with_values_of_their_own() {
        let threads = two();
        let made = AtomicUsize::new(0);
        let values = Arc::new(PerCore::new(move || made.fetch_add(1, Ordering::Relaxed)));
        let cores = [threads.cores().least_busy(), threads.cores().least_busy()];
        let mut seen = Vec::new();
        for core in &cores {
            let values = Arc::clone(&values);
            let on_core = async move { (thread::current().name().map(str::to_owned), *values.get()) };
            seen.push(core.runtime().spawn(on_core).await.unwrap());
        }
        assert_eq!(seen, [(Some("core-0".to_owned()), 0), (Some("core-1".to_owned()), 1)]);
        threads.stop(SOON).await;
    }

    #[tokio::test]
    async fn a_stop_drops_what_still_runs() {
        let threads = two();
        let (held, dropped) = oneshot::channel::<()>();
        let core = threads.cores().least_busy();
        let _task = core.runtime().spawn(async move {
            let _held = held;
            std::future::pending::<()>().await;
        });
        threads.stop(SOON).await;
        assert!(dropped.await.is_err(), "the task is dropped");
    }

    #[tokio::test]
    async fn a_panic_in_a_task_ends_no_thread() {
        let threads = two();
        let core = threads.cores().least_busy();
        core.runtime().spawn(async { panic!("as a defect in the service would") }).await.unwrap_err();
        assert_eq!(core.runtime().spawn(async { 7 }).await.unwrap(), 7);
        assert!(!threads.ended.is_cancelled());
        threads.stop(SOON).await;
    }

    #[tokio::test]
    async fn a_thread_that_ends_by_a_panic_is_reported() {
        let ended = CancellationToken::new();
        let (thread, _) = start_thread(0, async { panic!("as a defect in the runtime would") }, ended.clone()).unwrap();
        tokio::time::timeout(SOON, ended.cancelled()).await.unwrap();
        thread.join().unwrap_err();
    }
}
