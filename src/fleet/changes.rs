//! What happens to workers, for somebody who waits for them.

use super::member::Member;
use crate::awake;
use crate::worker::Handle;
use std::future::{Future, pending, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use tokio::sync::watch;

/// What happens from now on to some workers.
pub struct Changes(Vec<Seen>);

/// A worker that is looked at.
struct Seen {
    member: Arc<Member>,
    handle: Handle,
    standing: Option<watch::Receiver<()>>,
}

impl Changes {
    pub(super) fn of<'a>(members: impl Iterator<Item = &'a Arc<Member>>) -> Self {
        let seen = |member: &'a Arc<Member>| Seen {
            member: Arc::clone(member),
            handle: member.handle().clone(),
            standing: member.standing(),
        };
        Self(members.map(seen).collect())
    }

    /// Loads that have failed since the service started.
    pub fn failed_loads(&self) -> u64 {
        self.0.iter().map(|seen| seen.handle.status().failed_loads).sum()
    }

    /// Waits for the next change. False when there will be none.
    pub async fn next(&mut self) -> bool {
        any(self.0.iter_mut().map(Seen::changes)).await
    }

    /// Waits until no request under suspicion is in flight at one of them, at the latest until the next change. False
    /// when there will be none.
    pub async fn suspect_left(&mut self) -> bool {
        let endpoints = self.0.iter().filter_map(|seen| seen.handle.endpoint());
        let endpoints: Vec<_> = endpoints.filter(|endpoint| endpoint.has_suspect()).collect();
        let left = async {
            let lefts = endpoints.iter().map(|endpoint| async {
                endpoint.suspect_left().await;
                true
            });
            // False where it has left already.
            any(lefts).await;
        };
        tokio::select! {
            () = left => true,
            more = self.next() => more,
        }
    }
}

impl Seen {
    async fn changes(&mut self) -> bool {
        let Some(standing) = &mut self.standing else { return self.handle.changed().await };
        let opens = self.member.opens_in();
        let opened = async {
            match opens {
                Some(wait) => awake::sleep(wait).await,
                None => pending().await,
            }
        };
        tokio::select! {
            more = self.handle.changed() => more,
            Ok(()) = standing.changed() => true,
            () = opened => true,
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
