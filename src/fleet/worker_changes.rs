//! Waits for changes of workers.

use std::future::{Future, pending, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use tokio::sync::watch;

use super::member::Member;
use crate::pause_clock;
use crate::worker::WorkerHandle;

/// The changes of some workers from now on.
pub struct WorkerChanges(Vec<WatchedMember>);

/// A worker that is being watched.
struct WatchedMember {
    member: Arc<Member>,
    handle: WorkerHandle,
    remote_changes: Option<watch::Receiver<()>>,
}

impl WorkerChanges {
    pub(super) fn of<'a>(members: impl Iterator<Item = &'a Arc<Member>>) -> Self {
        let watched = |member: &'a Arc<Member>| WatchedMember {
            member: Arc::clone(member),
            handle: member.handle().subscribe(),
            remote_changes: member.remote_changes(),
        };
        Self(members.map(watched).collect())
    }

    /// Returns the number of failed loads since the service started.
    pub fn failed_loads(&self) -> u64 {
        self.0.iter().map(|watched| watched.handle.status().failed_loads).sum()
    }

    /// Waits for the next change. Returns false if there will be none.
    pub async fn next(&mut self) -> bool {
        any(self.0.iter_mut().map(WatchedMember::changed)).await
    }

    /// Waits until one of the workers has no suspected request in flight any more, at the latest until the next change.
    /// Returns false if there will be none.
    pub async fn suspect_left(&mut self) -> bool {
        let endpoints = self.0.iter().filter_map(|watched| watched.handle.endpoint());
        let endpoints: Vec<_> = endpoints.filter(|endpoint| endpoint.has_suspect()).collect();
        let left = async {
            let waits = endpoints.iter().map(|endpoint| async {
                endpoint.no_suspect_in_flight().await;
                true
            });
            // `any` returns false at once if no worker has a suspect in flight.
            any(waits).await;
        };
        tokio::select! {
            () = left => true,
            more = self.next() => more,
        }
    }
}

impl WatchedMember {
    async fn changed(&mut self) -> bool {
        let Some(remote_changes) = &mut self.remote_changes else { return self.handle.changed().await };
        // The end of a cooldown and the refill of a quota are no events: they are waited for by time.
        let available_in = self.member.available_in();
        let available = async {
            match available_in {
                Some(wait) => pause_clock::sleep(wait).await,
                None => pending().await,
            }
        };
        tokio::select! {
            more = self.handle.changed() => more,
            Ok(()) = remote_changes.changed() => true,
            () = available => true,
        }
    }
}

/// Waits for the first future that returns true. Returns false if all return false.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::{Fleet, Member, Model, Rank, RoutingPolicy, WorkerKind, model_info::ModelInfo};
    use crate::worker::{WorkerState, WorkerStatus};
    use std::pin::pin;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::{Context, Wake};

    const RANK: Rank = Rank { weight: 1.0, priority: 0 };

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    #[tokio::test]
    async fn the_initial_load_may_be_that_of_models_from_a_reload() {
        let model = || {
            let (owner, handle) = WorkerHandle::stub(([127, 0, 0, 1], 1).into());
            let member = Arc::new(Member::local(handle, WorkerKind::Local, 0, 1, RANK));
            let is = |state, has_been_ready| {
                move |status: &mut WorkerStatus| {
                    (status.state, status.has_been_ready) = (state, has_been_ready);
                }
            };
            owner.send_modify(is(WorkerState::Loading, false));
            (owner, Arc::new(Model::new(ModelInfo::named("m"), RoutingPolicy::default(), vec![member])), is)
        };
        for serves in [true, false] {
            let fleet = Fleet::empty();
            let mut context = Context::from_waker(std::task::Waker::noop());
            let mut first_load = pin!(fleet.initial_load());
            assert!(first_load.as_mut().poll(&mut context).is_pending(), "there are no models yet");
            let ((_before, before, _), (owner, now, is)) = (model(), model());
            fleet.replace(vec![before]);
            assert!(first_load.as_mut().poll(&mut context).is_pending());
            fleet.replace(vec![now]);
            assert!(first_load.as_mut().poll(&mut context).is_pending());
            owner.send_modify(is(if serves { WorkerState::Ready } else { WorkerState::Failed }, serves));
            assert_eq!(first_load.as_mut().poll(&mut context), std::task::Poll::Ready(serves));
        }
        let without_workers = Arc::new(Model::new(ModelInfo::named("m"), RoutingPolicy::default(), Vec::new()));
        assert!(Fleet::new(vec![without_workers]).initial_load().await, "a model without workers is not waited for");
    }

    /// Regression: changes from before the call counted, so that a task that waited for a loss used a whole CPU.
    #[tokio::test]
    async fn a_task_that_waits_for_a_loss_sleeps_until_a_change() {
        let (owner, handle) = WorkerHandle::stub(([127, 0, 0, 1], 1).into());
        let member = Arc::new(Member::local(handle, WorkerKind::Local, 0, 1, RANK));
        let model = Model::new(ModelInfo::named("m"), RoutingPolicy::default(), vec![Arc::clone(&member)]);
        let fleet = Fleet::new(vec![Arc::new(model)]);
        owner.send_modify(|status| status.restarts += 1);
        let woken = Arc::new(Woken::default());
        let waker = Arc::clone(&woken).into();
        let mut context = Context::from_waker(&waker);
        let mut is_lost = pin!(fleet.lost());
        assert!(is_lost.as_mut().poll(&mut context).is_pending());
        assert!(!woken.0.load(Ordering::SeqCst), "the task was woken without a change");
        owner.send_modify(|status| status.state = WorkerState::Failed);
        assert!(woken.0.load(Ordering::SeqCst));
        assert!(is_lost.as_mut().poll(&mut context).is_ready());
    }
}
