//! What happens to workers, for somebody who waits for them.

use super::member::Member;
use crate::worker::Handle;
use std::future::{Future, pending, poll_fn};
use std::pin::Pin;
use std::task::Poll;

/// What happens from now on to some workers.
pub struct Changes(Vec<Handle>);

impl Changes {
    pub(super) fn of<'a>(members: impl Iterator<Item = &'a Member>) -> Self {
        Self(members.map(|member| member.handle().clone()).collect())
    }

    /// Loads that have failed since the service started.
    pub fn failed_loads(&self) -> u64 {
        self.0.iter().map(|handle| handle.status().failed_loads).sum()
    }

    /// Waits for the next change. False when there will be none.
    pub async fn next(&mut self) -> bool {
        any(self.0.iter_mut().map(Handle::changed)).await
    }

    /// Waits until no request under suspicion is in flight at one of them, at the latest until the next change. False
    /// when there will be none.
    pub async fn suspect_left(&mut self) -> bool {
        let endpoints: Vec<_> = self.0.iter().filter_map(Handle::endpoint).collect();
        let left = async {
            let lefts = endpoints.iter().map(|endpoint| async {
                endpoint.suspect_left().await;
                true
            });
            if !any(lefts).await {
                pending::<()>().await;
            }
        };
        tokio::select! {
            () = left => true,
            more = self.next() => more,
        }
    }
}

/// Waits for the first of them that is true. False when all have turned out false.
async fn any<F: Future<Output = bool>>(futures: impl Iterator<Item = F>) -> bool {
    let mut futures: Vec<Pin<Box<F>>> = futures.map(Box::pin).collect();
    poll_fn(|context| {
        let mut found = false;
        futures.retain_mut(|future| match future.as_mut().poll(context) {
            Poll::Ready(outcome) => {
                found |= outcome;
                false
            }
            Poll::Pending => true,
        });
        match found || futures.is_empty() {
            true => Poll::Ready(found),
            false => Poll::Pending,
        }
    })
    .await
}
