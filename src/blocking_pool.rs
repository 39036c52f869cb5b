//! Work that would hold a serving thread, such as reading a file: done by blocking threads of the main runtime.
//!
//! Owns the wait for a turn: each pool does a few pieces of work at the same time, and the others wait without a thread.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::pause_clock;

/// Does work that blocks. Clones share the turns.
#[derive(Debug, Clone)]
pub struct BlockingPool {
    runtime: Handle,
    turns: Arc<Semaphore>,
    longest_wait: Duration,
}

/// The turn of one piece of work.
#[derive(Debug)]
pub struct BlockingTurn {
    runtime: Handle,
    permit: OwnedSemaphorePermit,
}

/// Why a piece of work was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotDone {
    /// Others took all turns.
    #[error("others are busy with it, try again later")]
    Busy,
    /// The runtime has ended before the work.
    #[error("the service is shutting down")]
    Stopping,
}

impl BlockingPool {
    /// Creates a pool that does this many pieces of work at the same time, on threads of the present runtime. Work waits for
    /// its turn at most for `longest_wait`.
    pub fn new(at_once: usize, longest_wait: Duration) -> Self {
        Self { runtime: Handle::current(), turns: Arc::new(Semaphore::new(at_once)), longest_wait }
    }

    /// Waits for a turn.
    ///
    /// # Errors
    /// [`NotDone::Busy`] if others take too long.
    pub async fn turn(&self) -> Result<BlockingTurn, NotDone> {
        let permit = pause_clock::timeout(self.longest_wait, Arc::clone(&self.turns).acquire_owned()).await;
        let permit = permit.ok().and_then(Result::ok).ok_or(NotDone::Busy)?;
        Ok(BlockingTurn { runtime: self.runtime.clone(), permit })
    }

    /// Does this work once it is its turn. Work that has begun ends, also if the client leaves.
    ///
    /// # Errors
    /// [`NotDone`] if others take too long, or the service ends before it is done.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, NotDone> {
        self.turn().await?.run(work).await
    }
}

impl BlockingTurn {
    /// Does this work.
    ///
    /// # Errors
    /// [`NotDone::Stopping`] if the service ends before it is done.
    pub async fn run<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, NotDone> {
        let Self { runtime, permit } = self;
        let done = runtime.spawn_blocking(move || {
            // Held until the work has ended, also if the client leaves.
            let _permit = permit;
            work()
        });
        done.await.map_err(|_| NotDone::Stopping)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// Longest wait for what happens at once.
    const SOON: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn work_waits_for_its_turn_up_to_a_bound_and_ends_without_its_client() {
        let impatient = BlockingPool::new(1, Duration::from_millis(10));
        let pool = BlockingPool { longest_wait: SOON, ..impatient.clone() };
        let (release, held) = mpsc::channel::<()>();
        let (tell, told) = mpsc::channel();
        let work = pool.turn().await.unwrap().run(move || {
            let _ = held.recv();
            tell.send("done").unwrap();
        });
        // The client leaves as soon as the work has begun.
        assert!(pause_clock::timeout(Duration::ZERO, work).await.is_err());
        assert_eq!(impatient.run(|| 1).await, Err(NotDone::Busy));
        release.send(()).unwrap();
        assert_eq!(told.recv_timeout(SOON), Ok("done"));
        assert_eq!(pool.run(|| 2).await, Ok(2));
    }
}
