//! The boundary between gateway and workers: which models there are, and which of their workers can serve.
//!
//! Grants a [`Lease`] on a worker. Sees workers only as [`WorkerHandle`](crate::worker::WorkerHandle)s, and knows
//! nothing about HTTP requests.
//!
//! - `adapters.rs`: the LoRA adapters of a model, as requests see them
//! - `affinity.rs`: which worker last served which prompt prefix
//! - `bounds.rs`: sizes and fractions that no user needs to choose
//! - `breaker.rs`: the circuit breaker of a remote worker
//! - `choice/`: the routing strategies: which of the available workers gets a request
//! - `lease.rs`: the permission to send one request to one worker
//! - `member.rs`: one worker of a model: its slots, its breaker and its quota
//! - `model/`: one model and its workers
//! - `model_info.rs`: the description and the routing policy of a model, as configured
//! - `names/`: which model a request means
//! - `pool.rs`: which model of a pool gets a request that names none
//! - `quota.rs`: requests and tokens per minute of a remote worker
//! - `report.rs`: the reported states of models and service
//! - `testing.rs`: a worker without a process, for tests
//! - `worker_changes.rs`: waits for changes of workers
//! - `worker_counters.rs`: the counters of one worker, as `GET /lb/stats` shows them

mod adapters;
mod affinity;
pub mod bounds;
mod breaker;
mod choice;
mod lease;
mod member;
mod model;
mod model_info;
pub mod names;
mod pool;
mod quota;
mod report;
#[cfg(test)]
mod testing;
mod worker_changes;
mod worker_counters;

pub use crate::worker::{Fingerprint, IdleTime, KeySuspensions, Pin, RequestClass, WorkerState};
pub use crate::worker::{LastExit, LoadReport};
pub use adapters::ModelAdapters;
pub use breaker::{Breaker, BreakerState};
pub use lease::Lease;
pub use member::{Member, Rank};
pub use model::leasing::LeaseRequest;
pub use model::unavailable::Unavailable;
pub use model::{Model, ModelDemand, ModelRevision};
pub use model_info::{ModelInfo, ModelNumbers, PoolRank, RoutingPolicy};
pub use pool::ModelPool;
pub use quota::Quota;
pub use report::{FleetReport, ModelStatus, ServiceStatus, WorkerReport};
#[cfg(test)]
pub(crate) use testing::StubWorker;
pub use worker_changes::WorkerChanges;
pub use worker_counters::{WorkerKind, WorkerStats};

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, SetOnce};

use crate::worker::WorkerLoss;

/// All models that the service serves now.
pub struct Fleet {
    snapshot: ArcSwap<ModelSnapshot>,
    /// Notified when the snapshot is replaced.
    replaced: Notify,
    /// Set when the models are known for the first time.
    models_known: SetOnce<()>,
    /// Set when every worker that was started with the service has been ready or has failed. Never reset: a model that
    /// is woken later, or added by a reload, does not set the whole service back to `loading`.
    initial_load_done: AtomicBool,
}

/// The models as of one load of the configuration, in the order of the lists.
pub struct ModelSnapshot {
    models: Vec<Arc<Model>>,
}

impl Fleet {
    /// Creates a fleet whose models are not known yet.
    pub fn empty() -> Self {
        let snapshot = ArcSwap::from_pointee(ModelSnapshot { models: Vec::new() });
        Self {
            snapshot,
            replaced: Notify::new(),
            models_known: SetOnce::new(),
            initial_load_done: AtomicBool::new(false),
        }
    }

    /// Creates a fleet with these models.
    pub fn new(models: Vec<Arc<Model>>) -> Self {
        let fleet = Self::empty();
        fleet.replace(models);
        fleet
    }

    /// Returns the current models.
    pub fn snapshot(&self) -> Arc<ModelSnapshot> {
        self.snapshot.load_full()
    }

    /// Replaces the models.
    pub fn replace(&self, models: Vec<Arc<Model>>) {
        self.snapshot.store(Arc::new(ModelSnapshot { models }));
        // Fails from the second call on, which changes nothing.
        let _ = self.models_known.set(());
        self.replaced.notify_waiters();
    }

    /// Returns the state of every model and the status of the service. Each worker is read only once, because it may
    /// change its state at any moment.
    pub fn report(&self) -> FleetReport {
        let (statuses, models): (Vec<_>, Vec<_>) = self.snapshot().models.iter().map(|model| model.report()).unzip();
        let best = self.combined_status(statuses.iter().copied().flatten());
        let is_partly_served =
            best == ServiceStatus::Ok && statuses.iter().flatten().any(|status| *status >= ServiceStatus::Degraded);
        FleetReport { best, shown: if is_partly_served { ServiceStatus::Degraded } else { best }, models }
    }

    /// Returns the status of the service.
    pub fn service_status(&self) -> ServiceStatus {
        let snapshot = self.snapshot();
        self.combined_status(snapshot.members().map(|member| ServiceStatus::of(member.handle().state())))
    }

    fn combined_status(&self, workers: impl Iterator<Item = ServiceStatus>) -> ServiceStatus {
        // The workers are read before this check, so their statuses are never newer than it.
        let best = ServiceStatus::best(workers);
        if self.is_initial_load_done() { best } else { ServiceStatus::Loading }
    }

    /// Whether every worker that is started with the service has been ready or has failed.
    fn is_initial_load_done(&self) -> bool {
        let is_done_now =
            || self.models_known.initialized() && !self.snapshot().members().any(|member| member.is_awaited());
        if !self.initial_load_done.load(Ordering::Relaxed) && is_done_now() {
            self.initial_load_done.store(true, Ordering::Relaxed);
        }
        self.initial_load_done.load(Ordering::Relaxed)
    }

    /// Waits for the end of the initial load: requests can be served, and every worker that is started with the service
    /// has been ready or has failed. Returns false if no worker will ever serve.
    pub async fn initial_load(&self) -> bool {
        self.models_known.wait().await;
        let serves = |member: &Arc<Member>| member.handle().has_been_ready() || member.handle().state().is_asleep;
        loop {
            // Created before the state is checked, so that no change in between is missed.
            let changes = self.changed();
            let snapshot = self.snapshot();
            // Without any worker there is nothing to wait for.
            let may_serve = snapshot.members().next().is_none() || snapshot.members().any(serves);
            if may_serve && self.is_initial_load_done() {
                return true;
            }
            if snapshot.loss().is_some() {
                return false;
            }
            changes.await;
        }
    }

    /// Whether a worker can serve requests at once, or all workers sleep until their first request. False until the
    /// initial load is done.
    pub fn is_ready(&self) -> bool {
        let snapshot = self.snapshot();
        if !self.is_initial_load_done() {
            return false;
        }
        let mut members = snapshot.members().peekable();
        members.peek().is_none() || members.any(|member| member.handle().is_ready()) || snapshot.is_all_on_demand()
    }

    /// Waits for the next change of a worker or of the set of models after this call.
    pub fn changed(&self) -> impl Future<Output = ()> {
        // Created before the snapshot is read, so that no replacement in between is missed.
        let replaced = self.replaced.notified();
        let mut changes = WorkerChanges::of(self.snapshot().members());
        async move {
            tokio::pin!(replaced);
            tokio::select! {
                () = &mut replaced => {}
                goes_on = changes.next() => if !goes_on {
                    replaced.await;
                },
            }
        }
    }

    /// Returns the number of loads that have failed since the service started, over all workers that there are now.
    pub fn failed_loads(&self) -> u64 {
        self.snapshot().members().map(|member| member.handle().status().failed_loads).sum()
    }

    /// Whether there are workers and all are lost now.
    pub fn is_lost(&self) -> bool {
        self.snapshot().loss().is_some()
    }

    /// Waits until all workers are lost, that is, until none will serve again without being woken explicitly. Returns
    /// how the last one was lost.
    pub async fn lost(&self) -> WorkerLoss {
        loop {
            // Created before the snapshot is read, so that no replacement in between is missed.
            let mut replaced = pin!(self.replaced.notified());
            let snapshot = self.snapshot();
            let mut changes = WorkerChanges::of(snapshot.members());
            if let Some(loss) = snapshot.loss() {
                return loss;
            }
            tokio::select! {
                () = &mut replaced => {}
                goes_on = changes.next() => if !goes_on && snapshot.loss().is_none() {
                    replaced.await;
                },
            }
        }
    }
}

impl ModelSnapshot {
    /// Returns the models in the order of the lists.
    pub fn models(&self) -> &[Arc<Model>] {
        &self.models
    }

    fn members(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.models.iter().flat_map(|model| model.members())
    }

    /// Whether every worker waits for its first request, and none has been started yet.
    fn is_all_on_demand(&self) -> bool {
        self.members().all(|member| member.handle().state().is_asleep && !member.handle().has_been_ready())
    }

    /// Returns how the last worker was lost, if there are workers and all are lost.
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

    /// Sets a state of a worker that has not been ready.
    fn set_new(owner: &watch::Sender<WorkerStatus>, state: WorkerState, asleep: bool) {
        owner.send_modify(|status| {
            (status.state, status.asleep, status.has_been_ready, status.endpoint) = (state, asleep, false, None);
        });
    }

    fn set_ready(owner: &watch::Sender<WorkerStatus>) {
        owner.send_modify(|status| {
            (status.state, status.asleep, status.has_been_ready) = (WorkerState::Ready, false, true);
        });
    }

    fn set_failed(owner: &watch::Sender<WorkerStatus>) {
        owner.send_modify(|status| (status.state, status.failed_loads) = (WorkerState::Backoff, 1));
    }

    fn service_status(fleet: &Fleet) -> ServiceStatus {
        let FleetReport { best, shown, .. } = fleet.report();
        assert_eq!((best, shown == ServiceStatus::Loading), (fleet.service_status(), best == ServiceStatus::Loading));
        best
    }

    /// Regression: a sleeping model counts as servable, so the service was ready while another model, which is started
    /// with it, was still loading.
    #[test]
    fn the_initial_load_waits_for_workers_that_are_started_with_the_service_and_only_once() {
        type FinishLoad = fn(&watch::Sender<WorkerStatus>);
        for finish_load in [set_ready as FinishLoad, set_failed] {
            let ((early, one), (lazy, two)) = (member(WorkerKind::Local), member(WorkerKind::Local));
            set_new(&early, WorkerState::Stopped, false);
            set_new(&lazy, WorkerState::Stopped, true);
            let fleet = Fleet::new(vec![model(&one), model(&two)]);
            let mut context = Context::from_waker(Waker::noop());
            let mut initial_load = pin!(fleet.initial_load());
            for state in [WorkerState::Starting, WorkerState::Loading] {
                set_new(&early, state, false);
                assert!(initial_load.as_mut().poll(&mut context).is_pending(), "{state}");
                assert_eq!((service_status(&fleet), fleet.is_ready()), (ServiceStatus::Loading, false), "{state}");
            }
            set_new(&lazy, WorkerState::Loading, true);
            assert!(initial_load.as_mut().poll(&mut context).is_pending());
            finish_load(&early);
            assert_eq!(
                initial_load.as_mut().poll(&mut context),
                Poll::Ready(true),
                "a worker that is woken is not waited for"
            );

            // From now on the best worker decides.
            set_ready(&early);
            assert_eq!((service_status(&fleet), fleet.is_ready()), (ServiceStatus::Ok, true));
            set_new(&early, WorkerState::Loading, false);
            set_new(&lazy, WorkerState::Stopped, true);
            assert_eq!(service_status(&fleet), ServiceStatus::Ok, "a worker that restarts leaves the others ready");
            let (newcomer, three) = member(WorkerKind::Local);
            set_new(&newcomer, WorkerState::Loading, false);
            fleet.replace(vec![model(&two), model(&three)]);
            assert_eq!(service_status(&fleet), ServiceStatus::Ok, "and so does a worker that a reload adds");
        }
    }

    #[test]
    fn the_initial_load_waits_for_the_first_probe_of_a_remote_worker() {
        for state in [WorkerState::Unhealthy, WorkerState::Loading, WorkerState::Ready] {
            let ((far, one), (lazy, two)) = (member(WorkerKind::Remote), member(WorkerKind::Local));
            set_new(&far, WorkerState::Starting, false);
            set_new(&lazy, WorkerState::Stopped, true);
            let fleet = Fleet::new(vec![model(&one), model(&two)]);
            assert_eq!(service_status(&fleet), ServiceStatus::Loading);
            set_new(&far, state, false);
            assert!(fleet.service_status() == ServiceStatus::Ok, "{state}");
        }
    }

    #[test]
    fn the_initial_load_does_not_wait_for_a_worker_that_has_lost_its_owner() {
        let ((early, one), (lazy, two)) = (member(WorkerKind::Local), member(WorkerKind::Local));
        set_new(&early, WorkerState::Loading, false);
        set_new(&lazy, WorkerState::Stopped, true);
        let fleet = Fleet::new(vec![model(&one), model(&two)]);
        assert_eq!(service_status(&fleet), ServiceStatus::Loading);
        drop(early);
        assert_eq!(fleet.service_status(), ServiceStatus::Ok);
    }
}
