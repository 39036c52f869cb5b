//! Work that may be stuck in the kernel, such as reading a file of a network volume that is gone.

use crate::pause_clock;
use std::time::Duration;
use tokio::task::{JoinHandle, spawn_blocking};

/// Work of one kind on a thread of its own. Whoever waits for it may give up, and whoever asks for it next waits for
/// the same: a volume that stays away costs one thread, not one for each try.
pub(crate) struct BlockingTask<T>(Option<JoinHandle<T>>);

/// Why there is no outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoOutcome {
    /// It takes too long, and goes on.
    Late,
    /// It panicked, or the program is about to end.
    Interrupted,
}

impl<T> Default for BlockingTask<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Send + 'static> BlockingTask<T> {
    /// The outcome of `work`, or of what is already under way, if it comes in time. May be cancelled.
    pub(crate) async fn run(
        &mut self,
        work: impl FnOnce() -> T + Send + 'static,
        longest: Duration,
    ) -> Result<T, NoOutcome> {
        let working = self.0.get_or_insert_with(|| spawn_blocking(work));
        let ended = pause_clock::timeout(longest, working).await.map_err(|_| NoOutcome::Late)?;
        self.0 = None;
        ended.map_err(|_| NoOutcome::Interrupted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    const SOON: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn stuck_work_is_left_and_not_begun_twice() {
        let (release, held) = mpsc::sync_channel::<u32>(1);
        let mut aside = BlockingTask::default();
        let first = aside.run(move || held.recv().unwrap(), Duration::ZERO).await;
        assert_eq!(first, Err(NoOutcome::Late));
        release.send(1).unwrap();
        assert_eq!(aside.run(|| 2, SOON).await, Ok(1), "the same work, now done");
        assert_eq!(aside.run(|| 3, SOON).await, Ok(3));
        assert_eq!(aside.run(|| panic!("on purpose"), SOON).await, Err(NoOutcome::Interrupted));
        assert_eq!(aside.run(|| 4, SOON).await, Ok(4));
    }
}
