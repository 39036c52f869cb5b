//! Work that may block in the kernel, such as reading a file of a network volume that is gone.

use std::time::Duration;

use tokio::task::{JoinHandle, spawn_blocking};

use crate::pause_clock;

/// Work of one kind on a thread of its own. A caller may stop waiting; the next call then waits for the same work. So a
/// volume that does not answer blocks one thread, not one for each attempt.
pub(crate) struct BlockingTask<T>(Option<JoinHandle<T>>);

/// Why the work has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoOutcome {
    /// It takes too long, and goes on.
    Late,
    /// It panicked, or the runtime shuts down.
    Interrupted,
}

impl<T> Default for BlockingTask<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Send + 'static> BlockingTask<T> {
    /// Returns the result of `work`, or of earlier work that is still running; `work` is dropped then. Safe to cancel.
    ///
    /// # Errors
    ///
    /// The work takes longer than `longest`, or it was interrupted.
    pub(crate) async fn run(
        &mut self,
        work: impl FnOnce() -> T + Send + 'static,
        longest: Duration,
    ) -> Result<T, NoOutcome> {
        let running = self.0.get_or_insert_with(|| spawn_blocking(work));
        let result = pause_clock::timeout(longest, running).await.map_err(|_| NoOutcome::Late)?;
        self.0 = None;
        result.map_err(|_| NoOutcome::Interrupted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    const SOON: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn stuck_work_is_left_and_not_begun_twice() {
        let (release, blocked) = mpsc::sync_channel::<u32>(1);
        let mut task = BlockingTask::default();
        let first = task.run(move || blocked.recv().unwrap(), Duration::ZERO).await;
        assert_eq!(first, Err(NoOutcome::Late));
        release.send(1).unwrap();
        assert_eq!(task.run(|| 2, SOON).await, Ok(1), "the first work, done now");
        assert_eq!(task.run(|| 3, SOON).await, Ok(3));
        assert_eq!(task.run(|| panic!("on purpose"), SOON).await, Err(NoOutcome::Interrupted));
        assert_eq!(task.run(|| 4, SOON).await, Ok(4));
    }
}
