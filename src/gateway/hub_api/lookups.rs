//! The threads of lookups: a few at the same time, and each within a time.

use std::future::Future;

use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::bounds::{ANSWER_TIME, LOOKUP_TURN_WAIT, LOOKUPS_FULL_RETRY, MOST_LOOKUPS};
use crate::blocking_pool::BlockingPool;
use crate::refusal::Refusal;

/// Looks things up on blocking threads.
pub(super) struct LookupThreads {
    turns: BlockingPool,
}

impl LookupThreads {
    /// Creates them. Must be called on the runtime that outlives all requests.
    pub(super) fn new() -> Self {
        Self { turns: BlockingPool::new(MOST_LOOKUPS, LOOKUP_TURN_WAIT) }
    }

    /// Looks something up, in a way that may block. If the client leaves, it ends at its next wait. Its turn ends with its
    /// thread, which on a volume that does not answer is later than its answer.
    ///
    /// # Errors
    /// That of the lookup; or too many others go on, there is no answer in time, or the program has a fault or ends.
    pub(super) async fn look_up<T, F, L>(&self, lookup: F) -> Result<T, Refusal>
    where
        T: Send + 'static,
        F: FnOnce() -> L + Send + 'static,
        L: Future<Output = Result<T, Refusal>>,
    {
        let turn = self.turns.turn().await.map_err(|_| Refusal::TooManyLookups(LOOKUPS_FULL_RETRY))?;
        let left = CancellationToken::new();
        let _leaving = left.clone().drop_guard();
        let work = turn.run(move || Handle::current().block_on(left.run_until_cancelled(lookup())));
        match timeout(ANSWER_TIME, work).await {
            Ok(Ok(Some(outcome))) => outcome,
            Ok(Ok(None) | Err(_)) => Err(Refusal::Internal("the lookup broke off before its end".to_owned())),
            Err(_) => {
                let waited = ANSWER_TIME.as_secs();
                let message =
                    format!("there was no answer in {waited} s: the hub, or the disk with the models, is too slow");
                Err(Refusal::HubUnanswered(message))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;
    use std::sync::{Arc, Barrier};

    use tokio::sync::mpsc;

    use super::*;

    /// Regression: the turn of a lookup on a volume that does not answer ended before its thread, so that any number of threads
    /// hung there.
    #[tokio::test]
    async fn a_lookup_that_hangs_keeps_its_turn_also_if_its_client_leaves() {
        let threads = LookupThreads::new();
        let (begun, mut begins) = mpsc::channel(MOST_LOOKUPS);
        let volume = Arc::new(Barrier::new(MOST_LOOKUPS + 1));
        for _ in 0..MOST_LOOKUPS {
            let (begun, volume) = (begun.clone(), Arc::clone(&volume));
            let hangs = threads.look_up(move || async move {
                let _ = begun.send(()).await;
                volume.wait();
                Ok(())
            });
            tokio::select! {
                _ = hangs => {}
                _ = begins.recv() => {}
            }
        }
        let refused = threads.look_up(|| async { Ok(1) }).await;
        // The volume answers.
        volume.wait();
        assert_eq!(refused, Err(Refusal::TooManyLookups(LOOKUPS_FULL_RETRY)));
        assert_eq!(threads.look_up(|| async { Ok(2) }).await, Ok(2));
    }

    /// Regression: a fault of the program was told as a disk that gave no answer.
    #[tokio::test]
    async fn a_fault_of_the_program_is_not_told_as_a_late_answer() {
        let told = LookupThreads::new().look_up(|| async { Ok([0_u8][black_box(1)]) }).await;
        assert_eq!(told, Err(Refusal::Internal("the lookup broke off before its end".to_owned())));
    }
}
