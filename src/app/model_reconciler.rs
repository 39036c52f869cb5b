//! The models that are served at present: made from what was found good, and changed by a reload, by difference.
//!
//! What stays the same keeps its workers and its requests. What is left out, or would have to be started anew, gets
//! nothing new and is stopped once it has served what it has.

use super::log_folder;
use crate::fleet::{Breaker, Fleet, Member, Model, ModelInfo, Quota, Rank, RoutingPolicy, WorkerKind};
use crate::gateway::{ModelQueue, ModelQueues};
use crate::models;
use crate::pause_clock;
use crate::preflight::{CheckedModel, ModelFile};
use crate::settings::catalogue::{LocalSettings, Start};
use crate::settings::values::MemoryBudgetSetting;
use crate::settings::{Config, Environment, Settings};
use crate::telemetry::files::LogFolder;
use crate::telemetry::metrics::Metrics;
use crate::worker::{self, MemoryBudget, Need, Plan, Program, RemotePlan, WorkerContext};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

/// Puts models on the shelf and takes them away.
pub(super) struct ModelReconciler {
    pub(super) shared: Arc<WorkerContext>,
    pub(super) fleet: Arc<Fleet>,
    pub(super) queues: Arc<ModelQueues>,
    pub(super) environment: Environment,
    pub(super) metrics: Arc<Metrics>,
    pub(super) remote: RemotePolicy,
    pub(super) logs: LogFolder,
    pub(super) instance: String,
    /// How long requests for a model that is no longer served may take.
    drain_timeout: Duration,
    /// Cancelled when all workers are to be stopped.
    pub(super) stop: CancellationToken,
    /// On which workers live.
    pub(super) workers: TaskTracker,
    served: Mutex<Vec<ServedModel>>,
    /// `MAX_CONCURRENT_REQUESTS` of the models that are served.
    max_concurrent: AtomicUsize,
}

/// What models are served with.
pub(super) struct ShelvingParts {
    pub(super) shared: Arc<WorkerContext>,
    pub(super) fleet: Arc<Fleet>,
    pub(super) lanes: Arc<ModelQueues>,
    pub(super) environment: Environment,
    pub(super) metrics: Arc<Metrics>,
    pub(super) logs: LogFolder,
}

/// How remote backends are treated.
pub(super) struct RemotePolicy {
    health_check_interval: Duration,
    connect_timeout: Duration,
    allowed_fails: NonZeroU32,
    cooldown: Duration,
}

impl RemotePolicy {
    pub(super) fn of(settings: &Settings) -> Self {
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
    /// The terms of all models that it was made with.
    policy: RoutingPolicy,
    model: Arc<Model>,
    /// Stops its workers.
    stop: CancellationToken,
}

/// What a reload has changed, in numbers of models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct ReloadDifference {
    /// As they were.
    pub(super) kept: usize,
    /// Described anew, beneath running workers.
    pub(super) changed: usize,
    /// With new workers.
    pub(super) started: usize,
    /// No longer served.
    pub(super) removed: usize,
}

impl ModelReconciler {
    pub(super) fn new(parts: ShelvingParts, settings: &Settings) -> Self {
        let ShelvingParts { shared, fleet, lanes, environment, metrics, logs } = parts;
        Self {
            shared,
            fleet,
            queues: lanes,
            environment,
            metrics,
            remote: RemotePolicy::of(settings),
            logs,
            instance: settings.logs.instance_id.clone(),
            drain_timeout: settings.service.drain_timeout.0,
            stop: CancellationToken::new(),
            workers: TaskTracker::new(),
            served: Mutex::default(),
            max_concurrent: AtomicUsize::new(settings.queue.max_concurrent_requests.get()),
        }
    }

    /// Finds out how much memory models may take, and lets workers be loaded into it. `stop` ends the search.
    pub(super) async fn find_memory(self: Arc<Self>, budget: MemoryBudgetSetting, stop: CancellationToken) {
        if let Some(allowance) = stop.run_until_cancelled(MemoryBudget::find(budget)).await {
            self.shared.set_memory_budget(allowance);
        }
    }

    /// Requests in flight per worker of a model that says nothing else.
    pub(super) fn max_concurrent(&self) -> usize {
        self.max_concurrent.load(Ordering::Relaxed)
    }

    /// Serves these models from now on, in place of those before.
    pub(super) fn reconcile(&self, shelved: Vec<CheckedModel>, config: &Config) -> ReloadDifference {
        let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        self.max_concurrent.store(config.settings.queue.max_concurrent_requests.get(), Ordering::Relaxed);
        let mut before = std::mem::take(&mut *served);
        let mut difference = ReloadDifference::default();
        let is_alone = shelved.len() == 1;
        for model in shelved {
            let terms = policy_of(&model, config);
            let known = before.iter().position(|other| other.checked.id == model.id).map(|at| before.swap_remove(at));
            served.push(match known {
                Some(known) if known.checked == model && known.policy == terms => {
                    difference.kept += 1;
                    known
                }
                Some(known) if !needs_restart(&known.checked, &model) => {
                    difference.changed += 1;
                    known.model.update(info_of(&model), terms.clone());
                    if let Some(local) = &model.settings.local {
                        let own = known.model.members().filter(|member| member.kind != WorkerKind::Remote);
                        own.for_each(|member| member.set_rank(rank_of(local)));
                    }
                    ServedModel { checked: model, policy: terms, ..known }
                }
                other => {
                    difference.started += 1;
                    if let Some(replaced) = other {
                        // Those that come are shown under the same names.
                        replaced.model.remove_metrics();
                        before.push(replaced);
                    }
                    self.start(model, terms, is_alone)
                }
            });
        }
        for gone in &before {
            gone.model.remove_metrics();
            if !served.iter().any(|kept| kept.checked.id == gone.checked.id) {
                difference.removed += 1;
                self.metrics.forget(&gone.checked.id);
            }
        }
        let models: Vec<Arc<Model>> = served.iter().map(|served| Arc::clone(&served.model)).collect();
        let (new, left_out) = self.queues.replace(&models);
        self.fleet.replace(models);
        for lane in new {
            let (queue, model, stop) = (lane.queue.clone(), Arc::clone(&lane.model), self.stop.clone());
            self.workers.spawn(queue.follow(model, stop));
        }
        for lane in left_out {
            let Some(gone) = before.iter().find(|gone| Arc::ptr_eq(&gone.model, &lane.model)) else { continue };
            let (stop, longest, fleet) = (gone.stop.clone(), self.drain_timeout, Arc::clone(&self.fleet));
            self.workers.spawn(async move { retire(&lane, longest, &fleet, &stop).await });
        }
        difference
    }

    fn start(&self, shelved: CheckedModel, terms: RoutingPolicy, is_alone: bool) -> ServedModel {
        let stop = self.stop.child_token();
        let mut members = Vec::new();
        let deaths = Arc::default();
        let mut number = 0..;
        if let Some(local) = &shelved.settings.local {
            for number in number.by_ref().take(local.replicas as usize) {
                let plan = self.plan(&shelved, local, number, is_alone);
                let handle = worker::supervise(plan, &self.shared, Arc::clone(&deaths), stop.clone(), &self.workers);
                let kind = match local.start {
                    Start::Command { .. } => WorkerKind::Command,
                    Start::Named(_) | Start::File(_) => WorkerKind::Local,
                };
                members.push(Arc::new(Member::local(handle, kind, number, local.slots, rank_of(local))));
            }
        }
        for (number, remote) in number.zip(&shelved.settings.remotes) {
            let plan = RemotePlan {
                model: shelved.id.clone(),
                number,
                remote: remote.clone(),
                health_check_interval: self.remote.health_check_interval,
                connect_timeout: self.remote.connect_timeout,
            };
            let metrics = Arc::clone(&self.metrics);
            let handle = match worker::supervise_remote(plan, Arc::clone(&deaths), metrics, stop.clone(), &self.workers)
            {
                Ok(handle) => handle,
                Err(error) => {
                    error!(model = shelved.id, %error, "a remote backend cannot be used");
                    continue;
                }
            };
            let rank = Rank { weight: remote.weight, priority: remote.priority };
            let breaker = Breaker::new(self.remote.allowed_fails, self.remote.cooldown);
            let quota = Quota::new(remote.rpm, remote.tpm);
            members.push(Arc::new(Member::remote(handle, number, remote.slots, rank, breaker, quota)));
        }
        let model = Arc::new(Model::new(info_of(&shelved), terms.clone(), members));
        ServedModel { checked: shelved, policy: terms, model, stop }
    }

    fn plan(&self, shelved: &CheckedModel, local: &LocalSettings, number: u32, is_alone: bool) -> Plan {
        let (program, environment, estimate) = match (&local.start, &shelved.file) {
            (Start::Command { argv, health, model }, _) => {
                let program = Program::Command { argv: argv.clone(), health: health.clone(), model: model.clone() };
                (program, self.environment.for_command(), 0)
            }
            (Start::Named(_) | Start::File(_), file) => {
                let file = file.as_ref();
                let binary = file.map_or_else(PathBuf::new, |file| file.binary.clone());
                let path = file.map_or_else(PathBuf::new, |file| file.path.clone());
                let program = Program::LlamaServer { binary, file: path, kind: shelved.kind };
                (program, self.environment.for_child(), file.map_or(0, |file| memory_need(file, local)))
            }
        };
        Plan {
            model: shelved.id.clone(),
            number,
            program,
            engine: local.engine.clone(),
            environment,
            logs: if is_alone && number == 0 {
                self.logs.clone()
            } else {
                self.logs.inside(&log_folder::of_worker(&shelved.id, number))
            },
            instance: self.instance.clone(),
            preload: local.preload,
            pinned: local.pinned,
            need: local.memory.map_or(Need::Estimated(estimate), |bytes| Need::Configured(bytes.get())),
        }
    }

    /// Stops all workers and waits until they have ended.
    pub(super) async fn stop_all(&self) {
        self.stop.cancel();
        self.workers.close();
        self.workers.wait().await;
    }
}

/// Stops the workers of a model that is no longer served, once those who use it are done, at the latest after so long.
async fn retire(lane: &ModelQueue, longest: Duration, fleet: &Fleet, stop: &CancellationToken) {
    let model = &lane.model;
    info!(model = model.id(), "the model is no longer served, its requests are finished");
    if pause_clock::timeout(longest, lane.queue.drained()).await.is_err() {
        warn!(model = model.id(), "DRAIN_TIMEOUT is over: requests for a model that is no longer served are cut");
        let is_there = fleet.snapshot().models().iter().any(|other| other.id() == model.id());
        lane.queue.close_for_worker_stop((!is_there).then_some(model.id()));
    }
    stop.cancel();
}

/// Whether the workers of a model would have to be started anew to be as it is configured now.
fn needs_restart(before: &CheckedModel, now: &CheckedModel) -> bool {
    before.kind != now.kind || before.file != now.file || before.settings.workers_differ(&now.settings)
}

/// What a llama-server takes for this file, as far as that is known before.
fn memory_need(file: &ModelFile, local: &LocalSettings) -> u64 {
    let slots = local.engine.parallel.get() as u64;
    let context = u64::from(local.engine.ctx.0).saturating_mul(slots);
    models::estimate::estimate(&file.model.metadata, file.model.size_bytes, context, slots)
}

fn rank_of(local: &LocalSettings) -> Rank {
    Rank { weight: local.weight, priority: local.priority }
}

fn policy_of(shelved: &CheckedModel, config: &Config) -> RoutingPolicy {
    let model = &shelved.settings;
    let Config { settings, catalogue } = config;
    let fallbacks = &catalogue.fallbacks;
    let of_tier = || model.tier.as_ref().and_then(|tier| fallbacks.get(tier));
    RoutingPolicy {
        rewrite: model.rewrite.clone(),
        strategy: model.strategy.unwrap_or(settings.routing.routing_strategy),
        remote_first: settings.routing.fallback_to_local,
        fallbacks: fallbacks.get(&shelved.id).or_else(of_tier).cloned().unwrap_or_default(),
    }
}

fn info_of(shelved: &CheckedModel) -> ModelInfo {
    let (settings, file) = (&shelved.settings, shelved.file.as_ref());
    let metadata = file.map(|file| &file.model.metadata);
    let configured = settings.local.as_ref().filter(|_| file.is_some()).map(|local| u64::from(local.engine.ctx.0));
    let trained = metadata.and_then(|metadata| metadata.context_length);
    ModelInfo {
        id: shelved.id.clone(),
        aliases: settings.aliases.clone(),
        kind: shelved.kind,
        tier: settings.tier.clone(),
        unlisted: settings.unlisted,
        size_bytes: file.map(|file| file.model.size_bytes),
        context_length: configured.map(|configured| trained.map_or(configured, |trained| trained.min(configured))),
        quantization: metadata.map(|metadata| metadata.quantization.clone()),
        architecture: metadata.map(|metadata| metadata.architecture.clone()),
        has_chat_template: metadata.map(|metadata| metadata.has_chat_template),
    }
}
