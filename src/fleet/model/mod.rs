//! One model: its description, the demand for its workers, and its reported state.
//!
//! Which worker gets a request is decided in `leasing.rs`.
//!
//! - `leasing.rs`: which worker gets a request, or why none can
//! - `unavailable.rs`: the reasons why no worker can serve, and which of several counts

pub(super) mod leasing;
pub(super) mod unavailable;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::{ArcSwap, Guard};
use http::HeaderValue;
use tokio::sync::Notify;

use super::choice::WorkerChoice;
use super::member::Member;
use super::model_info::{ModelInfo, RoutingPolicy};
use super::report::{ModelStatus, ServiceStatus};
use super::worker_changes::WorkerChanges;
use super::worker_counters::WorkerStats;
use crate::pause_clock::ActiveInstant;
use crate::settings::values::BackendApi;
use crate::worker::{self, Fingerprint, IdleTime, Pin, WorkerState, WorkerStatus};

/// One model and the workers that serve it.
pub struct Model {
    id: String,
    /// The id as the value of a header; `None` if it cannot be one.
    id_value: Option<HeaderValue>,
    info: ArcSwap<ModelInfo>,
    policy: ArcSwap<RoutingPolicy>,
    members: Vec<Arc<Member>>,
    /// Whether some workers are remote.
    has_remotes: bool,
    /// Whether some workers are remote and some are local.
    is_mixed: bool,
    /// Whether a worker answers requests for embeddings in OpenAI's API otherwise than OpenAI does, or not at all.
    has_other_embeddings: bool,
    /// Whether a worker speaks another API than OpenAI's.
    has_other_apis: bool,
    choice: WorkerChoice,
    /// When this value was made.
    made: ActiveInstant,
    /// Number of requests that wait for the model.
    waiting: Arc<AtomicUsize>,
    /// Notified of each slot that is released.
    slot_freed: Arc<Notify>,
}

/// Which form of a model answers: another answer may follow from any change of it. The same form has the same revision in
/// every run of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ModelRevision {
    /// That of its configuration.
    form: u64,
    /// That of the files of its workers.
    files: u64,
}

impl ModelRevision {
    /// Returns it as bytes, for a hash or a file.
    pub fn to_bytes(self) -> [u8; 16] {
        (u128::from(self.form) << 64 | u128::from(self.files)).to_be_bytes()
    }

    /// Returns the revision with these bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        let number = u128::from_be_bytes(bytes);
        Self { form: (number >> 64) as u64, files: number as u64 }
    }
}

#[cfg(test)]
impl ModelRevision {
    /// Returns that of a configuration with this number, for tests.
    pub(crate) const fn numbered(form: u64) -> Self {
        Self { form, files: 0 }
    }
}

/// A waiting request. Until it is dropped, ready workers stay awake, and as many sleeping ones are woken as the waiting
/// requests need.
pub struct ModelDemand {
    waiting: Arc<AtomicUsize>,
    _guards: Vec<worker::DemandGuard>,
}

impl Model {
    /// Creates a model with these workers. Without workers it cannot serve anything.
    pub fn new(info: ModelInfo, policy: RoutingPolicy, members: Vec<Arc<Member>>) -> Self {
        let id = info.id.clone();
        let id_value = HeaderValue::from_str(&id).ok();
        let (info, policy) = (ArcSwap::from_pointee(info), ArcSwap::from_pointee(policy));
        let choice = WorkerChoice::seeded(RandomState::new().hash_one(&id));
        let remotes = members.iter().filter(|member| member.is_remote()).count();
        let is_mixed = remotes > 0 && remotes < members.len();
        let has_other_embeddings = members.iter().any(|member| !member.api.has_openai_embeddings());
        let has_other_apis = members.iter().any(|member| member.api != BackendApi::OpenAi);
        Self {
            id,
            id_value,
            info,
            policy,
            members,
            has_remotes: remotes > 0,
            is_mixed,
            has_other_embeddings,
            has_other_apis,
            choice,
            made: ActiveInstant::now(),
            waiting: Arc::default(),
            slot_freed: Arc::default(),
        }
    }

    /// Replaces description and policy, without a restart of the workers. The id stays.
    pub fn update(&self, info: ModelInfo, policy: RoutingPolicy) {
        self.info.store(Arc::new(info));
        self.policy.store(Arc::new(policy));
    }

    /// Returns which form of the model answers now.
    pub fn revision(&self) -> ModelRevision {
        // In their order, so that no change of one is made up for by another.
        let add = |sum: u64, member: &Arc<Member>| sum.rotate_left(1) ^ member.handle().files();
        ModelRevision { form: self.info().form, files: self.local_members().fold(0, add) }
    }

    /// Returns the description of now, without a reference count, because most uses are short. Across a wait, hold a clone.
    pub fn info(&self) -> Guard<Arc<ModelInfo>> {
        self.info.load()
    }

    /// Returns the routing policy of now, as [`Model::info`] does.
    pub fn policy(&self) -> Guard<Arc<RoutingPolicy>> {
        self.policy.load()
    }

    /// Returns the id that clients use.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the id as the value of a header; `None` if it cannot be one.
    pub fn id_value(&self) -> Option<&HeaderValue> {
        self.id_value.as_ref()
    }

    /// Returns the workers in the order of their numbers.
    pub fn members(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.members.iter()
    }

    /// Whether the request with this fingerprint is blocked, because workers died each time they served it.
    pub fn is_blocked(&self, fingerprint: Fingerprint) -> bool {
        self.members().any(|member| member.handle().is_blocked(fingerprint))
    }

    /// Whether a worker died while it served the request with this fingerprint. Such a request may have to wait, so
    /// that two suspects are not in flight at the same worker.
    pub fn is_suspected(&self, fingerprint: Fingerprint) -> bool {
        self.members().any(|member| member.handle().is_suspected(fingerprint))
    }

    /// Wakes as many workers as one more waiting request needs, and keeps them awake until the returned guard is
    /// dropped.
    pub fn demand(&self) -> ModelDemand {
        self.demand_without(&[])
    }

    /// Does the same for a request that these workers cannot serve.
    pub fn demand_without(&self, unfit: &[u32]) -> ModelDemand {
        let before = self.waiting.fetch_add(1, Ordering::SeqCst);
        let now = ActiveInstant::now();
        let mut free_soon = 0;
        let mut guards = Vec::new();
        for (_, member) in self.eligible(now, unfit).filter(|(_, member)| !unfit.contains(&member.number)) {
            let state = member.handle().state().state;
            // Failed workers are not woken, ready ones already serve, and it is unknown when a worker in backoff will
            // serve.
            let will_serve = !matches!(state, WorkerState::Failed | WorkerState::Ready | WorkerState::Backoff);
            if state == WorkerState::Ready || (state != WorkerState::Failed && free_soon <= before) {
                guards.push(member.handle().demand());
            }
            free_soon = free_soon.saturating_add(if will_serve { member.slots(now) } else { 0 });
        }
        ModelDemand { waiting: Arc::clone(&self.waiting), _guards: guards }
    }

    /// Starts all workers, including those that were given up. Returns the current or the next state.
    pub fn wake(&self) -> WorkerState {
        let before = self.state();
        for member in self.members() {
            member.handle().wake();
        }
        match before {
            WorkerState::Ready | WorkerState::Loading => before,
            _ if self.has_worker() => WorkerState::Starting,
            _ => before,
        }
    }

    /// Stops the workers once their requests in flight have finished; the next request starts them again. Returns the
    /// next state of the local workers.
    pub fn unload(&self) -> WorkerState {
        let before =
            self.local_members().map(|member| member.handle().state().state).min_by_key(|state| distance(*state));
        for member in self.members() {
            member.handle().unload();
        }
        match before {
            None | Some(WorkerState::Backoff | WorkerState::Stopped) => WorkerState::Stopped,
            Some(WorkerState::Failed) => WorkerState::Failed,
            Some(_) => WorkerState::Draining,
        }
    }

    /// Sets how long the local workers stay loaded without a request, in place of `IDLE_UNLOAD`.
    pub fn set_idle_time(&self, time: IdleTime) {
        self.local_members().for_each(|member| member.handle().set_idle_time(time));
    }

    /// Returns whether, and why, the local workers keep their memory.
    pub fn pin(&self) -> Pin {
        self.local_members().map(|member| member.handle().pin()).max().unwrap_or_default()
    }

    /// Sets whether the local workers keep their memory. It loads nothing, and lasts until it is set again.
    pub fn set_pin(&self, pin: Pin) {
        self.local_members().for_each(|member| member.handle().set_pin(pin));
    }

    /// Whether all workers are remote, so that they are neither started nor stopped here.
    pub fn is_remote(&self) -> bool {
        self.has_worker() && self.local_members().next().is_none()
    }

    /// Returns whether requests for embeddings have to be translated for some of the workers.
    pub fn has_other_embeddings(&self) -> bool {
        self.has_other_embeddings
    }

    /// Returns whether some of the workers may have nothing for a request that others can serve.
    pub fn has_other_apis(&self) -> bool {
        self.has_other_apis
    }

    /// Returns how many requests the workers could serve at once, including sleeping workers that the first of them
    /// wakes.
    pub fn capacity(&self, now: ActiveInstant) -> usize {
        self.members().map(|member| member.capacity(now)).fold(0, usize::saturating_add)
    }

    fn local_members(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.members().filter(|member| !member.is_remote())
    }

    /// Removes the workers from the metrics.
    pub fn remove_metrics(&self) {
        for member in self.members() {
            member.handle().remove_metrics();
        }
    }

    /// Whether the model has a worker, ready or not.
    pub fn has_worker(&self) -> bool {
        !self.members.is_empty()
    }

    /// Returns the changes of the workers from now on; `None` if there are no workers.
    pub fn subscribe(&self) -> Option<WorkerChanges> {
        self.has_worker().then(|| WorkerChanges::of(self.members()))
    }

    /// Whether waiting is pointless after a failed load: no worker serves, and no other one is loading or will be when
    /// it is woken. If a worker found no memory beside pinned models, sleeping ones do not count, because they need as
    /// much.
    pub fn is_hopeless(&self) -> bool {
        let is_crowded_out = self.members().any(|member| member.handle().is_crowded_out());
        let is_starting = |member: &Arc<Member>| {
            let worker = member.handle().state();
            match worker.state {
                WorkerState::Starting | WorkerState::Loading | WorkerState::Ready => true,
                _ => worker.is_asleep && !is_crowded_out,
            }
        };
        let is_other_starting = self.members.len() > 1 && self.members().any(is_starting);
        self.open(ActiveInstant::now(), &[]).next().is_none() && !is_other_starting
    }

    /// Returns the reported state: that of the worker that is closest to serving.
    pub fn state(&self) -> WorkerState {
        closest_to_serving(self.members().map(|member| member.handle().state().state))
    }

    /// Returns the state as clients of llama.cpp's router mean it. A remote backend that does not answer has failed: unlike
    /// a llama-server in that state, nothing here has it loaded or is about to restart it.
    pub fn load_state(&self) -> WorkerState {
        closest_to_serving(self.members().map(|member| match member.handle().state().state {
            WorkerState::Unhealthy if member.is_remote() => WorkerState::Failed,
            state => state,
        }))
    }

    /// Returns the statistics of the workers, for `/lb/stats`.
    pub fn stats(&self) -> Vec<WorkerStats> {
        self.members().map(|member| member.snapshot()).collect()
    }

    /// Returns the reported state, and the status of the best worker if there are any. Each worker is read only once,
    /// so that the two agree.
    pub(super) fn report(&self) -> (Option<ServiceStatus>, ModelStatus) {
        let statuses: Vec<WorkerStatus> = self.members().map(|member| member.handle().status()).collect();
        let best = statuses.iter().map(|status| ServiceStatus::of(status.worker_state())).min();
        let status = ModelStatus {
            id: self.id.clone(),
            state: closest_to_serving(statuses.iter().map(|status| status.state)),
            restarts: statuses.iter().map(|status| status.restarts).sum(),
            last_exit: statuses.into_iter().find_map(|status| status.last_exit),
        };
        (best, status)
    }
}

impl Drop for ModelDemand {
    fn drop(&mut self) {
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Returns the state that is closest to serving.
fn closest_to_serving(states: impl Iterator<Item = WorkerState>) -> WorkerState {
    states.min_by_key(|state| distance(*state)).unwrap_or(WorkerState::Stopped)
}

/// Returns how far a worker in this state is from serving.
fn distance(state: WorkerState) -> u8 {
    match state {
        WorkerState::Ready => 0,
        WorkerState::Loading => 1,
        WorkerState::Starting => 2,
        WorkerState::Backoff => 3,
        WorkerState::Unhealthy => 4,
        WorkerState::Draining => 5,
        WorkerState::Stopped => 6,
        WorkerState::Failed => 7,
    }
}

#[cfg(test)]
mod tests;
