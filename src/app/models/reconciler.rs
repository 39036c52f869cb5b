//! Creates the models that are served, and applies a reload to them by difference.
//!
//! A model that has not changed keeps its workers and its requests. A model that was removed, or that needs new
//! workers, gets no new requests; its workers are stopped once its requests have finished. The requests that wait for a
//! model that needs new workers wait for these.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use super::description::info_of;
use super::routing_policy::{PoolOrders, policy_of};
use super::worker_plan::WorkerPlans;
use crate::fleet::{Breaker, Fleet, Member, Model, ModelInfo, Pin, Quota, Rank, RoutingPolicy, WorkerKind};
use crate::gateway::{ModelQueue, ModelQueues};
use crate::pause_clock;
use crate::preflight::{self, CheckedModel};
use crate::settings::catalogue::{LocalSettings, Start};
use crate::settings::values::MemoryBudgetSetting;
use crate::settings::{Config, Environment, Settings};
use crate::telemetry::files::LogFolder;
use crate::telemetry::metrics::Metrics;
use crate::worker::bounds::LEARNED_FILE_PATIENCE;
use crate::worker::{self, LearnedMemory, LlamaHelp, MemoryBudget, RemotePlan, WorkerContext};

/// Creates, updates and retires models.
pub(in crate::app) struct ModelReconciler {
    worker_context: Arc<WorkerContext>,
    fleet: Arc<Fleet>,
    queues: Arc<ModelQueues>,
    pub(in crate::app) metrics: Arc<Metrics>,
    plans: WorkerPlans,
    remote: RemotePolicy,
    /// How long the requests of a model that is no longer served may take (`DRAIN_TIMEOUT`).
    drain_timeout: Duration,
    /// Cancelled when all workers are to be stopped.
    stop: CancellationToken,
    /// Tracks the tasks of the workers.
    workers: TaskTracker,
    served: Mutex<Vec<ServedModel>>,
    /// `MAX_CONCURRENT_REQUESTS` of the models that are served.
    max_concurrent: AtomicUsize,
}

/// The parts that a [`ModelReconciler`] is created from.
pub(in crate::app) struct ReconcilerParts {
    pub(in crate::app) worker_context: Arc<WorkerContext>,
    pub(in crate::app) fleet: Arc<Fleet>,
    pub(in crate::app) queues: Arc<ModelQueues>,
    pub(in crate::app) environment: Environment,
    pub(in crate::app) metrics: Arc<Metrics>,
    pub(in crate::app) logs: LogFolder,
}

/// Probe and breaker settings for remote backends.
struct RemotePolicy {
    health_check_interval: Duration,
    connect_timeout: Duration,
    allowed_fails: NonZeroU32,
    cooldown: Duration,
}

impl RemotePolicy {
    fn from_settings(settings: &Settings) -> Self {
        Self {
            health_check_interval: settings.routing.health_check_interval.0,
            connect_timeout: settings.limits.backend_connect_timeout.0,
            allowed_fails: settings.routing.allowed_fails,
            cooldown: settings.routing.cooldown_time.0,
        }
    }
}

/// A model that is served.
struct ServedModel {
    checked: CheckedModel,
    /// The policy that it was created with.
    policy: RoutingPolicy,
    model: Arc<Model>,
    /// Stops its workers when cancelled.
    stop: CancellationToken,
}

/// The changes of a reload, in numbers of models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::app) struct ReloadDifference {
    /// Unchanged.
    pub(in crate::app) kept: usize,
    /// With a new description or policy, on the same workers.
    pub(in crate::app) changed: usize,
    /// With new workers.
    pub(in crate::app) started: usize,
    /// No longer served.
    pub(in crate::app) removed: usize,
}

impl ModelReconciler {
    pub(in crate::app) fn new(parts: ReconcilerParts, settings: &Settings) -> Self {
        let ReconcilerParts { worker_context, fleet, queues, environment, metrics, logs } = parts;
        Self {
            worker_context,
            fleet,
            queues,
            metrics,
            plans: WorkerPlans { environment, logs, instance: settings.logs.instance_id.clone() },
            remote: RemotePolicy::from_settings(settings),
            drain_timeout: settings.service.drain_timeout.0,
            stop: CancellationToken::new(),
            workers: TaskTracker::new(),
            served: Mutex::default(),
            max_concurrent: AtomicUsize::new(settings.queue.max_concurrent_requests.get()),
        }
    }

    /// Determines the memory budget and passes it to the workers, which may load from then on, together with the memory that
    /// they used before, according to `learned_file`. Cancelling `stop` ends the search.
    pub(in crate::app) async fn find_memory_budget(
        self: Arc<Self>,
        budget: MemoryBudgetSetting,
        learned_file: PathBuf,
        stop: CancellationToken,
    ) {
        // On a blocking thread: the folder may be on a slow network volume.
        let learned = spawn_blocking(move || LearnedMemory::load(&learned_file));
        let learned = async {
            match tokio::time::timeout(LEARNED_FILE_PATIENCE, learned).await {
                Ok(Ok(learned)) => learned,
                _ => {
                    warn!("the file with the memory that models used before was not read in time");
                    LearnedMemory::without_file()
                }
            }
        };
        let found = async { tokio::join!(MemoryBudget::find(budget), learned) };
        if let Some((memory_budget, learned)) = stop.run_until_cancelled(found).await {
            self.worker_context.set_memory_budget(memory_budget, learned);
        }
    }

    /// Returns what the llama-server of this configuration says of its arguments; `None` if it serves no model or says
    /// nothing.
    pub(in crate::app) async fn llama_help(&self, config: &Config) -> Option<Arc<LlamaHelp>> {
        let binary = preflight::llama_server(config)?;
        self.worker_context.help_reader().read(&binary, &self.plans.environment.for_child()).await
    }

    /// Returns the number of requests in flight per worker for a model that does not configure it.
    pub(in crate::app) fn max_concurrent(&self) -> usize {
        self.max_concurrent.load(Ordering::Relaxed)
    }

    /// Returns how many requests there have been for each model file that is served, since its workers started.
    pub(in crate::app) fn requests_of_files(&self) -> HashMap<PathBuf, u64> {
        let served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        let of_model = |served: &ServedModel| {
            let local = served.model.stats().into_iter().filter(|worker| worker.kind != WorkerKind::Remote);
            let count = local.map(|worker| worker.served + worker.failures + worker.in_flight as u64).sum();
            Some((served.checked.file.as_ref()?.path.clone(), count))
        };
        served.iter().filter_map(of_model).collect()
    }

    /// Serves `models` from now on, in place of the previous ones, and returns the difference.
    pub(in crate::app) fn reconcile(&self, models: Vec<CheckedModel>, config: &Config) -> ReloadDifference {
        let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        self.max_concurrent.store(config.settings.queue.max_concurrent_requests.get(), Ordering::Relaxed);
        let mut before = std::mem::take(&mut *served);
        let mut difference = ReloadDifference::default();
        let is_alone = models.len() == 1;
        let pools = PoolOrders::of(&models, config.settings.routing.fallback_to_local);
        for model in models {
            let policy = policy_of(&model, config, &pools);
            let info = info_of(&model, config);
            let known = before.iter().position(|other| other.checked.id == model.id).map(|at| before.swap_remove(at));
            served.push(match known {
                Some(known) if known.checked == model && known.policy == policy && **known.model.info() == info => {
                    difference.kept += 1;
                    known
                }
                Some(known) if !needs_restart(&known.checked, &model) => {
                    difference.changed += 1;
                    known.model.update(info, policy.clone());
                    if let Some(local) = &model.settings.local {
                        let own = known.model.members().filter(|member| member.kind != WorkerKind::Remote);
                        own.for_each(|member| member.set_rank(rank_of(local)));
                    }
                    ServedModel { checked: model, policy, ..known }
                }
                other => {
                    difference.started += 1;
                    let is_pinned = other.as_ref().is_some_and(|known| known.model.pin() == Pin::Ordered);
                    if let Some(replaced) = other {
                        // Before the new workers start: they use the same metric labels.
                        replaced.model.remove_metrics();
                        before.push(replaced);
                    }
                    let started = self.start(model, info, policy, is_alone);
                    if is_pinned {
                        // The order lasts until it is taken back, and not until the next reload.
                        started.model.set_pin(Pin::Ordered);
                    }
                    started
                }
            });
        }
        for old in &before {
            old.model.remove_metrics();
            if !served.iter().any(|kept| kept.checked.id == old.checked.id) {
                difference.removed += 1;
                self.metrics.remove_model(&old.checked.id);
                self.metrics.warnings.clear_model(&old.checked.id);
            }
        }
        let models: Vec<Arc<Model>> = served.iter().map(|served| Arc::clone(&served.model)).collect();
        let (new, retired) = self.queues.replace(&models, serves_folder(config));
        self.fleet.replace(models);
        for added in new {
            let (queue, model, stop) = (added.queue.clone(), Arc::clone(&added.model), self.stop.clone());
            self.workers.spawn(queue.follow(model, stop));
        }
        for leaving in retired {
            let Some(old) = before.iter().find(|old| Arc::ptr_eq(&old.model, &leaving.model)) else { continue };
            let (stop, drain_timeout) = (old.stop.clone(), self.drain_timeout);
            self.workers.spawn(async move { retire(&leaving, drain_timeout, &stop).await });
        }
        difference
    }

    fn start(&self, checked: CheckedModel, info: ModelInfo, policy: RoutingPolicy, is_alone: bool) -> ServedModel {
        let stop = self.stop.child_token();
        let mut members = Vec::new();
        let crash_suspects = Arc::default();
        let mut number = 0..;
        if let Some(projector) = checked.file.as_ref().and_then(|file| file.projector.as_ref()) {
            let others = Some(checked.passed_over_names()).filter(|names| !names.is_empty());
            let preferred_to = others.map(tracing::field::display);
            info!(model = checked.id, projector = %projector.path.display(), preferred_to, "the model uses a multimodal projector");
        }
        if let Some(local) = &checked.settings.local {
            for number in number.by_ref().take(local.replicas as usize) {
                let plan = self.plans.plan(&checked, local, number, is_alone);
                let handle = worker::supervise(
                    plan,
                    &self.worker_context,
                    Arc::clone(&crash_suspects),
                    stop.clone(),
                    &self.workers,
                );
                let kind = match local.start {
                    Start::Command { .. } => WorkerKind::Command,
                    Start::Named(_) | Start::File(_) => WorkerKind::Local,
                };
                members.push(Arc::new(Member::local(handle, kind, number, local.slots, rank_of(local))));
            }
        }
        // Remote workers continue the numbering of the local ones.
        for (number, remote) in number.zip(&checked.settings.remotes) {
            let plan = RemotePlan {
                model: checked.id.clone(),
                number,
                remote: remote.clone(),
                health_check_interval: self.remote.health_check_interval,
                connect_timeout: self.remote.connect_timeout,
            };
            let metrics = Arc::clone(&self.metrics);
            let handle =
                match worker::supervise_remote(plan, Arc::clone(&crash_suspects), metrics, stop.clone(), &self.workers)
                {
                    Ok(handle) => handle,
                    Err(error) => {
                        error!(model = checked.id, %error, "a remote backend cannot be used");
                        continue;
                    }
                };
            let rank = Rank { weight: remote.weight, priority: remote.priority };
            let breaker = Breaker::new(self.remote.allowed_fails, self.remote.cooldown);
            let quota = Quota::new(remote.rpm, remote.tpm);
            let member = Member::remote(handle, number, remote.slots, rank, breaker, quota);
            members.push(Arc::new(member.speaking(remote.api)));
        }
        let model = Arc::new(Model::new(info, policy.clone(), members));
        ServedModel { checked, policy, model, stop }
    }

    /// Stops all workers and waits until they have ended.
    pub(in crate::app) async fn stop_all(&self) {
        self.stop.cancel();
        self.workers.close();
        self.workers.wait().await;
    }
}

/// Stops the workers of a model that is no longer served, once its requests have finished, at the latest after
/// `drain_timeout`.
async fn retire(retired: &ModelQueue, drain_timeout: Duration, stop: &CancellationToken) {
    let model = &retired.model;
    info!(model = model.id(), "workers are no longer needed; waiting for their requests to finish");
    if pause_clock::timeout(drain_timeout, retired.queue.drained()).await.is_err() {
        warn!(model = model.id(), "DRAIN_TIMEOUT has passed: requests at workers that are no longer needed are cut");
        retired.queue.close_for_worker_stop(model.id());
    }
    stop.cancel();
}

/// Whether the workers of a model must be restarted to apply its new configuration.
fn needs_restart(before: &CheckedModel, now: &CheckedModel) -> bool {
    before.kind != now.kind || before.file != now.file || before.settings.workers_differ(&now.settings)
}

/// Whether every model below `MODELS_DIR` is served, so that a scan may find more.
fn serves_folder(config: &Config) -> bool {
    config.catalogue.shelf.is_some() && !config.settings.engine.mock_backend
}

fn rank_of(local: &LocalSettings) -> Rank {
    Rank { weight: local.weight, priority: local.priority }
}
