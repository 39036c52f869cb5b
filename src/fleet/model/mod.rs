//! One model: what it is, how its workers are woken and put away, and what is shown of them.
//!
//! Which of them gets a request is `leasing.rs`'s.
//!
//! - `leasing.rs`: which worker gets a request, or why none does
//! - `unavailable.rs`: the reasons why no worker can serve, and which of several counts

pub(super) mod leasing;
pub(super) mod unavailable;

use super::choice::WorkerChoice;
use super::member::Member;
use super::model_info::{ModelInfo, RoutingPolicy};
use super::report::{ModelStatus, ServiceStatus};
use super::worker_changes::WorkerChanges;
use super::worker_counters::WorkerStats;
use crate::pause_clock::ActiveInstant;
use crate::worker::{self, Fingerprint, WorkerState, WorkerStatus};
use arc_swap::ArcSwap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;

/// One model and the workers that serve it.
pub struct Model {
    id: String,
    info: ArcSwap<ModelInfo>,
    policy: ArcSwap<RoutingPolicy>,
    members: Vec<Arc<Member>>,
    /// Whether some are remote and some are not.
    is_mixed: bool,
    choice: WorkerChoice,
    /// How many wait for it.
    waiting: Arc<AtomicUsize>,
    /// Told of each slot that is given back.
    slot_freed: Arc<Notify>,
}

/// Somebody who waits for a model: its workers that serve stay awake, and as many more are woken as are needed.
pub struct ModelDemand {
    waiting: Arc<AtomicUsize>,
    _guards: Vec<worker::DemandGuard>,
}

impl Model {
    /// A model with these workers; without any it serves nothing.
    pub fn new(card: ModelInfo, terms: RoutingPolicy, members: Vec<Arc<Member>>) -> Self {
        let id = card.id.clone();
        let (card, terms) = (ArcSwap::from_pointee(card), ArcSwap::from_pointee(terms));
        let choice = WorkerChoice::seeded(RandomState::new().hash_one(&id));
        let remotes = members.iter().filter(|member| member.is_remote()).count();
        let is_mixed = remotes > 0 && remotes < members.len();
        Self {
            id,
            info: card,
            policy: terms,
            members,
            is_mixed,
            choice,
            waiting: Arc::default(),
            slot_freed: Arc::default(),
        }
    }

    /// Gives it other names and other terms, which no worker has to be started anew for. The id stays.
    pub fn update(&self, card: ModelInfo, terms: RoutingPolicy) {
        self.info.store(Arc::new(card));
        self.policy.store(Arc::new(terms));
    }

    /// What it is.
    pub fn info(&self) -> Arc<ModelInfo> {
        self.info.load_full()
    }

    /// How its requests are treated.
    pub fn policy(&self) -> Arc<RoutingPolicy> {
        self.policy.load_full()
    }

    /// The id that clients use.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its workers, in the order of their numbers.
    pub fn members(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.members.iter()
    }

    /// Whether workers died each time they served the request with this fingerprint.
    pub fn is_blocked(&self, fingerprint: Fingerprint) -> bool {
        self.members().any(|member| member.handle().is_blocked(fingerprint))
    }

    /// Whether a worker died while it served the request with this fingerprint, which may have to wait for its turn.
    pub fn is_suspected(&self, fingerprint: Fingerprint) -> bool {
        self.members().any(|member| member.handle().is_suspected(fingerprint))
    }

    /// Wakes as many workers as are needed for one more who waits, and keeps them awake as long as what is returned
    /// lives.
    pub fn demand(&self) -> ModelDemand {
        let before = self.waiting.fetch_add(1, Ordering::SeqCst);
        let now = ActiveInstant::now();
        let mut covered = 0;
        let mut wants = Vec::new();
        for (_, member) in self.eligible(now, &[]) {
            let state = member.handle().state().state;
            // It is not woken by that, or serves already, or nobody knows when it will.
            let covers = !matches!(state, WorkerState::Failed | WorkerState::Ready | WorkerState::Backoff);
            if state == WorkerState::Ready || (state != WorkerState::Failed && covered <= before) {
                wants.push(member.handle().demand());
            }
            covered = covered.saturating_add(if covers { member.slots(now) } else { 0 });
        }
        ModelDemand { waiting: Arc::clone(&self.waiting), _guards: wants }
    }

    /// Starts its workers, also those that were given up. The state that it is in now, or goes to.
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

    /// Stops its workers once they have served what they are serving; who asks next starts them again. The state that
    /// those which run here go to.
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

    /// Whether others run all its workers, which are neither started nor stopped here.
    pub fn is_remote(&self) -> bool {
        self.has_worker() && self.local_members().next().is_none()
    }

    /// How many requests its workers would serve at once, be it that the first wakes them.
    pub fn capacity(&self, now: ActiveInstant) -> usize {
        self.members().map(|member| member.capacity(now)).fold(0, usize::saturating_add)
    }

    fn local_members(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.members().filter(|member| !member.is_remote())
    }

    /// Shows nothing of its workers in the metrics any more.
    pub fn remove_metrics(&self) {
        for member in self.members() {
            member.handle().remove_metrics();
        }
    }

    /// Whether there is any worker for it, be it ready or not.
    pub fn has_worker(&self) -> bool {
        !self.members.is_empty()
    }

    /// What happens from now on; nothing ever does to a model without a worker.
    pub fn subscribe(&self) -> Option<WorkerChanges> {
        self.has_worker().then(|| WorkerChanges::of(self.members()))
    }

    /// Whether a load that has failed leaves nobody to wait for: none serves, and no other is on its way, or will be as
    /// soon as it is wanted. Where one has found no room beside pinned models, those that sleep need not try: they are as
    /// large.
    pub fn is_hopeless(&self) -> bool {
        let is_crowded_out = self.members().any(|member| member.handle().is_crowded_out());
        let is_on_its_way = |member: &Arc<Member>| {
            let worker = member.handle().state();
            match worker.state {
                WorkerState::Starting | WorkerState::Loading | WorkerState::Ready => true,
                _ => worker.is_asleep && !is_crowded_out,
            }
        };
        let others = self.members.len() > 1 && self.members().any(is_on_its_way);
        self.open(ActiveInstant::now(), &[]).next().is_none() && !others
    }

    /// The state that is shown of it: that of the worker which is nearest to serving.
    pub fn state(&self) -> WorkerState {
        nearest(self.members().map(|member| member.handle().state().state))
    }

    /// What its workers have done, for `/lb/stats`.
    pub fn stats(&self) -> Vec<WorkerStats> {
        self.members().map(|member| member.snapshot()).collect()
    }

    /// What is shown of it, and the sum of that if there is a worker. Each worker is looked at once, so that the two
    /// agree.
    pub(super) fn report(&self) -> (Option<ServiceStatus>, ModelStatus) {
        let seen: Vec<WorkerStatus> = self.members().map(|member| member.handle().status()).collect();
        let sum = seen.iter().map(|status| ServiceStatus::of(status.worker_state())).min();
        let status = ModelStatus {
            id: self.id.clone(),
            state: nearest(seen.iter().map(|status| status.state)),
            restarts: seen.iter().map(|status| status.restarts).sum(),
            last_exit: seen.into_iter().find_map(|status| status.last_exit),
        };
        (sum, status)
    }
}

impl Drop for ModelDemand {
    fn drop(&mut self) {
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The state that is nearest to serving, of workers in these states.
fn nearest(states: impl Iterator<Item = WorkerState>) -> WorkerState {
    states.min_by_key(|state| distance(*state)).unwrap_or(WorkerState::Stopped)
}

/// How far a worker in this state is from serving.
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
