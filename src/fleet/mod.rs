//! The seam between the two journeys: which models there are, and which of their workers can serve.
//!
//! Hands out a [`Lease`] on a worker. Sees workers only as their [`WorkerHandle`](crate::worker::WorkerHandle)s and never names a
//! request.
//!
//! - `affinity.rs`: which worker served which beginning of a prompt last
//! - `bounds.rs`: sizes and shares that no user needs to choose
//! - `breaker.rs`: the circuit breaker of a remote worker
//! - `model_info.rs`: what a model is and how its requests are treated, as configured
//! - `worker_changes.rs`: waiting for changes of workers
//! - `choice/`: which of the workers that can serve gets a request: the routing strategies
//! - `lease.rs`: the right to send one request to one worker
//! - `member.rs`: one worker of a model: its slots, its breaker and its quota
//! - `model/`: one model and its workers
//! - `names/`: which model a request means
//! - `quota.rs`: requests and tokens per minute of a remote worker
//! - `report.rs`: the states of models, as they are reported
//! - `worker_counters.rs`: the counters of one worker, as `GET /lb/stats` shows them

mod affinity;
pub mod bounds;
mod breaker;
mod choice;
mod lease;
mod member;
mod model;
mod model_info;
pub mod names;
mod quota;
mod report;
#[cfg(test)]
mod testing;
mod worker_changes;
mod worker_counters;

pub use crate::worker::{Fingerprint, RequestClass, WorkerState};
pub use breaker::{Breaker, BreakerState};
pub use lease::Lease;
pub use member::{Member, Rank};
pub use model::leasing::LeaseRequest;
pub use model::unavailable::Unavailable;
pub use model::{Model, ModelDemand};
pub use model_info::{ModelInfo, RoutingPolicy};
pub use quota::Quota;
pub use report::{FleetReport, ModelStatus, ServiceStatus};
#[cfg(test)]
pub(crate) use testing::StubWorker;
pub use worker_changes::WorkerChanges;
pub use worker_counters::{WorkerKind, WorkerStats};

use crate::worker::WorkerLoss;
use arc_swap::ArcSwap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{Notify, SetOnce};

/// Every model that this service knows at present.
pub struct Fleet {
    snapshot: ArcSwap<ModelSnapshot>,
    /// Told of each new shelf.
    replaced: Notify,
    /// Set once it is known which models there are.
    models_known: SetOnce<()>,
    /// Set once every worker that was started with the service has been ready or has failed. It stays so: neither a model
    /// that is woken later nor one that comes with a reload has the whole service load again.
    initial_load_done: AtomicBool,
}

/// The models between two reloads of the configuration, in the order in which they are listed.
pub struct ModelSnapshot {
    models: Vec<Arc<Model>>,
}

impl Fleet {
    /// A fleet of which nobody knows yet what models it has.
    pub fn empty() -> Self {
        let shelf = ArcSwap::from_pointee(ModelSnapshot { models: Vec::new() });
        Self {
            snapshot: shelf,
            replaced: Notify::new(),
            models_known: SetOnce::new(),
            initial_load_done: AtomicBool::new(false),
        }
    }

    /// A fleet of these models, for now.
    pub fn new(models: Vec<Arc<Model>>) -> Self {
        let fleet = Self::empty();
        fleet.replace(models);
        fleet
    }

    /// The models that there are now.
    pub fn snapshot(&self) -> Arc<ModelSnapshot> {
        self.snapshot.load_full()
    }

    /// Puts other models in place of those that there were.
    pub fn replace(&self, models: Vec<Arc<Model>>) {
        self.snapshot.store(Arc::new(ModelSnapshot { models }));
        // A second time is no news.
        let _ = self.models_known.set(());
        self.replaced.notify_waiters();
    }

    /// Returns the state of every model and what these states come to. Each worker is looked at once, because it may
    /// change its state at any moment.
    pub fn report(&self) -> FleetReport {
        let (sums, models): (Vec<_>, Vec<_>) = self.snapshot().models.iter().map(|model| model.report()).unzip();
        let best = self.combined_status(sums.iter().copied().flatten());
        let is_partial = best == ServiceStatus::Ok && sums.iter().flatten().any(|sum| *sum >= ServiceStatus::Degraded);
        FleetReport { best, shown: if is_partial { ServiceStatus::Degraded } else { best }, models }
    }

    /// The sum of all models' states.
    pub fn service_status(&self) -> ServiceStatus {
        let shelf = self.snapshot();
        self.combined_status(shelf.members().map(|member| ServiceStatus::of(member.handle().state())))
    }

    fn combined_status(&self, workers: impl Iterator<Item = ServiceStatus>) -> ServiceStatus {
        // What is seen of the workers is no newer than that.
        let best = ServiceStatus::best(workers);
        if self.is_initial_load_done() { best } else { ServiceStatus::Loading }
    }

    /// Whether all that was to be loaded with the start of the service has been, as far as it can be.
    fn is_initial_load_done(&self) -> bool {
        let has_now =
            || self.models_known.initialized() && !self.snapshot().members().any(|member| member.is_awaited());
        if !self.initial_load_done.load(Ordering::Relaxed) && has_now() {
            self.initial_load_done.store(true, Ordering::Relaxed);
        }
        self.initial_load_done.load(Ordering::Relaxed)
    }

    /// Waits until requests can be served for the first time, and every worker that is started with the service has been
    /// ready or has failed: true; or none will ever serve: false.
    pub async fn initial_load(&self) -> bool {
        self.models_known.wait().await;
        let serves = |member: &Arc<Member>| member.handle().has_been_ready() || member.handle().state().is_asleep;
        loop {
            let changes = self.changed();
            let shelf = self.snapshot();
            // Models without any worker wait for none.
            let may_serve = shelf.members().next().is_none() || shelf.members().any(serves);
            if may_serve && self.is_initial_load_done() {
                return true;
            }
            if shelf.loss().is_some() {
                return false;
            }
            changes.await;
        }
    }

    /// Whether a model serves requests at once, without being started for them; also where none is meant to before it
    /// is asked for. Not before all that is started with the service has been.
    pub fn is_ready(&self) -> bool {
        let shelf = self.snapshot();
        if !self.is_initial_load_done() {
            return false;
        }
        let mut members = shelf.members().peekable();
        members.peek().is_none() || members.any(|member| member.handle().is_ready()) || shelf.is_all_on_demand()
    }

    /// Waits for the next change of a worker, or of the models, from the call on.
    pub fn changed(&self) -> impl Future<Output = ()> {
        let swapped = self.replaced.notified();
        let mut changes = WorkerChanges::of(self.snapshot().members());
        async move {
            tokio::pin!(swapped);
            tokio::select! {
                () = &mut swapped => {}
                more = changes.next() => if !more {
                    swapped.await;
                },
            }
        }
    }

    /// Waits until no worker of any model will serve again though nobody has asked for that.
    pub async fn lost(&self) -> WorkerLoss {
        loop {
            let mut swapped = pin!(self.replaced.notified());
            let shelf = self.snapshot();
            let mut changes = WorkerChanges::of(shelf.members());
            if let Some(loss) = shelf.loss() {
                return loss;
            }
            tokio::select! {
                () = &mut swapped => {}
                more = changes.next() => if !more && shelf.loss().is_none() {
                    swapped.await;
                },
            }
        }
    }
}

impl ModelSnapshot {
    /// The models, as they are listed.
    pub fn models(&self) -> &[Arc<Model>] {
        &self.models
    }

    fn members(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.models.iter().flat_map(|model| model.members())
    }

    /// Whether every worker was left to be started by its first request, and none has been yet.
    fn is_all_on_demand(&self) -> bool {
        self.members().all(|member| member.handle().state().is_asleep && !member.handle().has_been_ready())
    }

    /// How the last one was lost, if all workers are, and there are any.
    fn loss(&self) -> Option<WorkerLoss> {
        let losses: Option<Vec<WorkerLoss>> = self.members().map(|member| member.handle().loss()).collect();
        losses?.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::{WorkerHandle, WorkerStatus};
    use std::num::NonZeroU32;
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;
    use tokio::sync::watch;

    fn member(kind: WorkerKind) -> (watch::Sender<WorkerStatus>, Arc<Member>) {
        let (owner, handle) = WorkerHandle::stub(([127, 0, 0, 1], 1).into());
        let rank = Rank { weight: 1.0, priority: 0 };
        let member = match kind {
            WorkerKind::Remote => {
                let breaker = Breaker::new(NonZeroU32::MIN, Duration::ZERO);
                Member::remote(handle, 0, 1, rank, breaker, Quota::new(None, None))
            }
            _ => Member::local(handle, kind, 0, 1, rank),
        };
        (owner, Arc::new(member))
    }

    fn model(member: &Arc<Member>) -> Arc<Model> {
        Arc::new(Model::new(ModelInfo::named("m"), RoutingPolicy::default(), vec![Arc::clone(member)]))
    }

    /// One that has not been ready, in this state.
    fn is_new(owner: &watch::Sender<WorkerStatus>, state: WorkerState, asleep: bool) {
        owner.send_modify(|status| {
            (status.state, status.asleep, status.has_been_ready, status.endpoint) = (state, asleep, false, None);
        });
    }

    fn is_ready(owner: &watch::Sender<WorkerStatus>) {
        owner.send_modify(|status| {
            (status.state, status.asleep, status.has_been_ready) = (WorkerState::Ready, false, true);
        });
    }

    fn has_failed(owner: &watch::Sender<WorkerStatus>) {
        owner.send_modify(|status| (status.state, status.failed_loads) = (WorkerState::Backoff, 1));
    }

    fn overall(fleet: &Fleet) -> ServiceStatus {
        let FleetReport { best, shown, .. } = fleet.report();
        assert_eq!((best, shown == ServiceStatus::Loading), (fleet.service_status(), best == ServiceStatus::Loading));
        best
    }

    /// Regression: a model that sleeps counts as one that serves, so the service was ready while another, which is started
    /// with it, was still being loaded.
    #[test]
    fn all_that_is_started_with_the_service_is_waited_for_once_and_what_is_not_is_never() {
        type Outcome = fn(&watch::Sender<WorkerStatus>);
        for comes_to_an_end in [is_ready as Outcome, has_failed] {
            let ((early, one), (lazy, two)) = (member(WorkerKind::Local), member(WorkerKind::Local));
            is_new(&early, WorkerState::Stopped, false);
            is_new(&lazy, WorkerState::Stopped, true);
            let fleet = Fleet::new(vec![model(&one), model(&two)]);
            let mut context = Context::from_waker(Waker::noop());
            let mut first_load = pin!(fleet.initial_load());
            for state in [WorkerState::Starting, WorkerState::Loading] {
                is_new(&early, state, false);
                assert!(first_load.as_mut().poll(&mut context).is_pending(), "{state}");
                assert_eq!((overall(&fleet), fleet.is_ready()), (ServiceStatus::Loading, false), "{state}");
            }
            is_new(&lazy, WorkerState::Loading, true);
            assert!(first_load.as_mut().poll(&mut context).is_pending());
            comes_to_an_end(&early);
            assert_eq!(
                first_load.as_mut().poll(&mut context),
                Poll::Ready(true),
                "it does not wait for one that is woken"
            );

            // From now on the best there is counts.
            is_ready(&early);
            assert_eq!((overall(&fleet), fleet.is_ready()), (ServiceStatus::Ok, true));
            is_new(&early, WorkerState::Loading, false);
            is_new(&lazy, WorkerState::Stopped, true);
            assert_eq!(overall(&fleet), ServiceStatus::Ok, "started again, it leaves others ready");
            let (newcomer, three) = member(WorkerKind::Local);
            is_new(&newcomer, WorkerState::Loading, false);
            fleet.replace(vec![model(&two), model(&three)]);
            assert_eq!(overall(&fleet), ServiceStatus::Ok, "and so does one that a reload brings");
        }
    }

    #[test]
    fn a_remote_worker_is_waited_for_until_it_was_asked_once() {
        for told in [WorkerState::Unhealthy, WorkerState::Loading, WorkerState::Ready] {
            let ((far, one), (lazy, two)) = (member(WorkerKind::Remote), member(WorkerKind::Local));
            is_new(&far, WorkerState::Starting, false);
            is_new(&lazy, WorkerState::Stopped, true);
            let fleet = Fleet::new(vec![model(&one), model(&two)]);
            assert_eq!(overall(&fleet), ServiceStatus::Loading);
            is_new(&far, told, false);
            assert!(fleet.service_status() == ServiceStatus::Ok, "{told}");
        }
    }

    #[test]
    fn who_has_lost_its_owner_is_not_waited_for() {
        let ((early, one), (lazy, two)) = (member(WorkerKind::Local), member(WorkerKind::Local));
        is_new(&early, WorkerState::Loading, false);
        is_new(&lazy, WorkerState::Stopped, true);
        let fleet = Fleet::new(vec![model(&one), model(&two)]);
        assert_eq!(overall(&fleet), ServiceStatus::Loading);
        drop(early);
        assert_eq!(fleet.service_status(), ServiceStatus::Ok);
    }
}
