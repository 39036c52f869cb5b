//! Looks at the service: fills a [`View`] from the parts that know. Nothing here waits, and nothing is changed.

use std::future::Future;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::bounds::LISTED_WAITERS;
use super::throughput::WorkCounts;
use super::view::{MemoryView, ModelMemory, ModelView, QueueView, View, WaiterView};
use crate::download::DownloadRegistry;
use crate::fleet::{Fleet, Model, WorkerKind, WorkerReport, WorkerState};
use crate::gateway::accounting::record::Accounting;
use crate::gateway::queue::ModelQueue;
use crate::gateway::queue::model_queues::ModelQueues;
use crate::gateway::queue::waiting_list::ListedWaiter;
use crate::telemetry::access::AccessLog;
use crate::telemetry::metrics::{Metrics, ModelLabels};

/// The parts of the service that are looked at.
pub(super) struct FeedSources {
    pub(super) fleet: Arc<Fleet>,
    pub(super) queues: Arc<ModelQueues>,
    pub(super) downloads: Arc<DownloadRegistry>,
    pub(super) accounting: Arc<Accounting>,
}

impl FeedSources {
    /// Returns the service as it is now.
    pub(super) fn look(&self) -> View {
        let metrics = &self.accounting.metrics;
        let snapshot = self.fleet.snapshot();
        let models: Vec<ModelView> = snapshot.models().iter().map(|model| model_view(model, metrics)).collect();
        let queues = self.queues.current();
        View {
            status: self.fleet.report().shown,
            queues: queues.queues().iter().map(|entry| self.queue_view(entry)).collect(),
            downloads: self.downloads.revisions(),
            memory: memory_view(&models, metrics),
            acts: self.accounting.acts.list(),
            models,
        }
    }

    /// Returns what has been done so far.
    pub(super) fn counts(&self) -> WorkCounts {
        let metrics = &self.accounting.metrics;
        WorkCounts { models: metrics.model_counts(), running: metrics.active.get(), waiting: metrics.queue_depth.get() }
    }

    /// Waits for the next change of a worker, the models or a queue, from this call on.
    pub(super) fn changed(&self) -> impl Future<Output = ()> {
        // Created here, so that no change before the first poll is missed.
        let (of_fleet, of_queues) = (self.fleet.changed(), self.queues.changed());
        async move {
            tokio::select! {
                () = of_fleet => {}
                () = of_queues => {}
            }
        }
    }

    fn queue_view(&self, entry: &ModelQueue) -> QueueView {
        let look = entry.queue.look(LISTED_WAITERS, |_| true);
        let now = Timestamp::now();
        let access = &self.accounting.access;
        QueueView {
            model: entry.model.id().to_owned(),
            active: look.active,
            slots: look.slots,
            waiting: look.waiting,
            waiters: look.listed.into_iter().map(|waiter| waiter_view(waiter, access, now)).collect(),
        }
    }
}

/// Returns a request that waits, with the person as the access log shows it.
pub(super) fn waiter_view(waiter: ListedWaiter, access: &AccessLog, now: Timestamp) -> WaiterView {
    let ListedWaiter { position, turn, waited } = waiter;
    let passed = SignedDuration::try_from(waited).unwrap_or(SignedDuration::MAX);
    let person = (!turn.person.is_empty()).then(|| access.shown_person(&turn.key, &turn.person));
    WaiterView {
        position,
        key: (!turn.key.is_empty()).then(|| turn.key.into_string()),
        person,
        since: now.checked_sub(passed).unwrap_or(now),
        waiting_seconds: waited.as_millis() as f64 / 1000.0,
    }
}

fn model_view(model: &Model, metrics: &Metrics) -> ModelView {
    let info = model.info();
    ModelView {
        id: info.id.clone(),
        kind: info.kind,
        state: model.state(),
        pin: model.pin(),
        memory_bytes: memory_of(metrics, &info.id),
        context_length: info.context_length,
        size_bytes: info.size_bytes,
        workers: model.members().map(|member| member.report()).collect(),
    }
}

/// Returns the memory of a loaded worker of this model, if it is known.
fn memory_of(metrics: &Metrics, model: &str) -> Option<u64> {
    let bytes = metrics.model_memory.get(&ModelLabels { model: model.to_owned() })?.get();
    u64::try_from(bytes).ok().filter(|bytes| *bytes > 0)
}

fn memory_view(models: &[ModelView], metrics: &Metrics) -> MemoryView {
    let has_memory = |worker: &&WorkerReport| {
        let is_there = !matches!(worker.state, WorkerState::Stopped | WorkerState::Failed | WorkerState::Backoff);
        worker.kind != WorkerKind::Remote && is_there
    };
    let of_model = |model: &ModelView| {
        let workers = model.workers.iter().filter(has_memory).count() as u64;
        let bytes = model.memory_bytes?.saturating_mul(workers);
        (bytes > 0).then(|| ModelMemory { model: model.id.clone(), bytes })
    };
    MemoryView {
        budget_bytes: u64::try_from(metrics.memory_budget.get()).ok().filter(|budget| *budget > 0),
        used_bytes: u64::try_from(metrics.memory_used.get()).unwrap_or(0),
        models: models.iter().filter_map(of_model).collect(),
    }
}
