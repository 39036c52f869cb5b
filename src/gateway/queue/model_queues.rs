//! The queues of all models, and which model a request means.
//!
//! A reload replaces the [`Snapshot`] of all of them. A model that stays keeps its queue; the queue of a removed model still
//! serves the requests in it. If another model takes over the id, the requests that wait move to its queue.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::{Notify, SetOnce};

use super::job_capacity::{QueueLoad, job_capacity};
use super::rescan::Rescan;
use super::{ModelQueue, Queue, QueueTimeouts};
use crate::fleet::names::{ModelNames, NameEntry, Unresolved};
use crate::fleet::{Model, ModelInfo, ModelPool};
use crate::gateway::admission::auth::Caller;
use crate::gateway::bounds::RETRY_AFTER_UNKNOWN;
use crate::models::ModelKind;
use crate::pause_clock::{self, ActiveInstant};
use crate::refusal::Refusal;
use crate::telemetry::metrics::Metrics;

/// The queues of all models.
pub struct ModelQueues {
    snapshot: ArcSwap<Snapshot>,
    /// The queues of removed models, until they are drained.
    retired: Mutex<Vec<Queue>>,
    /// Whether the service is being stopped.
    is_closed: AtomicBool,
    bound: Option<usize>,
    timeouts: QueueTimeouts,
    metrics: Arc<Metrics>,
    /// Notified of each new snapshot, and when the number of active or waiting requests of a queue changes.
    changed: Arc<Notify>,
    /// Set once the models are known, or the service stops before that.
    models_known: SetOnce<()>,
    /// The scans of the models folder.
    rescan: Arc<Rescan>,
}

/// The queues of all models between two reloads of the configuration.
pub(crate) struct Snapshot {
    queues: Vec<Arc<ModelQueue>>,
    names: ModelNames,
    pool: ModelPool,
    /// Whether a scan of the models folder may find more models.
    may_grow: bool,
    /// Whether each request means the only model; see [`Snapshot::only`].
    has_only: bool,
}

impl ModelQueues {
    /// Creates an empty set of queues. In each later one, at most `bound` requests wait.
    pub fn new(bound: Option<usize>, timeouts: QueueTimeouts, metrics: Arc<Metrics>) -> Self {
        Self {
            snapshot: ArcSwap::from_pointee(Snapshot::of(Vec::new(), false)),
            retired: Mutex::default(),
            is_closed: AtomicBool::new(false),
            bound,
            timeouts,
            metrics,
            changed: Arc::default(),
            models_known: SetOnce::new(),
            rescan: Arc::default(),
        }
    }

    /// Returns the orders for scans of the models folder.
    pub fn rescan(&self) -> Arc<Rescan> {
        Arc::clone(&self.rescan)
    }

    /// Scans the models folder, if it is served and no model has this name; without a name, in any case.
    pub(crate) async fn scan_for(&self, name: Option<&str>) {
        let is_due = {
            let now = self.current();
            now.may_grow && !name.is_some_and(|name| now.names.is_known(name))
        };
        if is_due {
            Box::pin(self.rescan.scan()).await;
        }
    }

    /// Waits until the models are known, at most as long as a request waits for a model that loads.
    ///
    /// # Errors
    /// `model_loading` when the wait times out, `shutting_down` when the service stops before any model is known.
    pub(crate) async fn models_known(&self) -> Result<(), Refusal> {
        if self.models_known.initialized() {
            return Ok(());
        }
        let timeout = self.timeouts.queue.unwrap_or(self.timeouts.request);
        match Box::pin(pause_clock::timeout(timeout, self.models_known.wait())).await {
            Ok(_) if self.current().queues.is_empty() && self.is_closed.load(Ordering::SeqCst) => {
                Err(Refusal::ShuttingDown(RETRY_AFTER_UNKNOWN))
            }
            Ok(_) => Ok(()),
            Err(_) => Err(Refusal::ModelLoading(RETRY_AFTER_UNKNOWN)),
        }
    }

    /// Replaces the models that are served; `may_grow` says whether a scan of the models folder may find more. Returns
    /// the queues of new models, which the caller must [follow](Queue::follow), and those of removed and replaced models,
    /// which [drain](Queue::drained).
    pub fn replace(&self, models: &[Arc<Model>], may_grow: bool) -> (Vec<Arc<ModelQueue>>, Vec<Arc<ModelQueue>>) {
        let before = self.snapshot.load_full();
        let kept = |model: &Arc<Model>| before.queues.iter().find(|entry| Arc::ptr_eq(&entry.model, model)).cloned();
        let (mut queues, mut new) = (Vec::with_capacity(models.len()), Vec::new());
        for model in models {
            let entry = kept(model).unwrap_or_else(|| {
                let entry = Arc::new(self.new_model_queue(Arc::clone(model)));
                new.push(Arc::clone(&entry));
                entry
            });
            queues.push(entry);
        }
        let is_removed = |entry: &&Arc<ModelQueue>| !queues.iter().any(|kept| Arc::ptr_eq(kept, entry));
        let removed: Vec<_> = before.queues.iter().filter(is_removed).cloned().collect();
        let current = Arc::new(Snapshot::of(queues, may_grow));
        self.snapshot.store(Arc::clone(&current));
        // After the store: a `drain` that starts later sees the new queues itself, and one that started before has set
        // `is_closed`.
        if self.is_closed.load(Ordering::SeqCst) {
            new.iter().for_each(|entry| entry.queue.close());
        }
        let _ = self.models_known.set(()); // fails on later reloads, which changes nothing
        self.changed.notify_waiters();
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        // Each reload drops the queues that have drained since the last one.
        retired.retain(|queue| !queue.is_drained());
        for entry in &removed {
            // After the store: a request that finds the queue replaced resolves its model again, with the new snapshot.
            entry.queue.retire(current.queues.iter().find(|other| other.model.id() == entry.model.id()));
            retired.push(entry.queue.clone());
        }
        (new, removed)
    }

    /// Creates the queue of a new model.
    fn new_model_queue(&self, model: Arc<Model>) -> ModelQueue {
        let counted = Arc::clone(&model);
        let (metrics, changed) = (Arc::clone(&self.metrics), Arc::clone(&self.changed));
        let queue = Queue::new(self.bound, self.timeouts, move || counted.slots(), metrics, changed);
        ModelQueue { model, queue }
    }

    /// Refuses all waiting and future requests, and waits until those in flight have ended.
    pub(crate) async fn drain(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        let _ = self.models_known.set(()); // wakes requests that wait for the first models
        let mut queues: Vec<Queue> = self.current().queues.iter().map(|entry| entry.queue.clone()).collect();
        queues.extend(self.retired.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned());
        // All are closed before the first is waited for, so that they drain at the same time.
        for queue in &queues {
            queue.close();
        }
        for queue in &queues {
            queue.drained().await;
        }
    }

    /// Returns the number of requests of a model that hold a slot, and of those that wait for one.
    pub fn counts(&self, id: &str) -> (usize, usize) {
        let now = self.current();
        now.queues.iter().find(|entry| entry.model.id() == id).map_or((0, 0), |entry| entry.queue.counts())
    }

    /// Returns how many more jobs would be served at once, with `in_flight` jobs taken and not finished. While no model has a
    /// worker, one job at a time is taken, so that it fails with an error that says so.
    pub(crate) fn job_capacity(&self, in_flight: usize) -> usize {
        if !self.models_known.initialized() {
            return 0;
        }
        let (now, snapshot) = (ActiveInstant::now(), self.current());
        if !snapshot.queues.iter().any(|entry| entry.model.has_worker()) {
            return usize::from(in_flight == 0);
        }
        let load = |entry: &Arc<ModelQueue>| {
            let (active, waiting) = entry.queue.counts();
            QueueLoad { slots: entry.model.capacity(now), active, waiting }
        };
        job_capacity(&snapshot.queues.iter().map(load).collect::<Vec<_>>(), in_flight)
    }

    /// Returns a future that waits for the next change of the models or of the requests in their queues, from this call on.
    pub(crate) fn changed(&self) -> impl Future<Output = ()> {
        self.changed.notified()
    }

    /// Returns the current snapshot, to be kept across a wait.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Whether `snapshot` is still the current one, so that no reload has happened since it was taken.
    pub(crate) fn is_current(&self, snapshot: &Arc<Snapshot>) -> bool {
        Arc::ptr_eq(&self.current(), snapshot)
    }

    /// Returns the current snapshot for a short use, without a reference count. Across a wait, hold
    /// [`ModelQueues::snapshot`] instead.
    pub(crate) fn current(&self) -> Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }
}

impl Snapshot {
    /// Returns the models with their queues, in the order of the lists.
    pub(crate) fn queues(&self) -> &[Arc<ModelQueue>] {
        &self.queues
    }

    /// Creates a snapshot of these queues, with an index of the models' names.
    fn of(queues: Vec<Arc<ModelQueue>>, may_grow: bool) -> Self {
        let infos: Vec<Guard<Arc<ModelInfo>>> = queues.iter().map(|entry| entry.model.info()).collect();
        let names = ModelNames::of(infos.iter().map(|info| NameEntry {
            id: &info.id,
            aliases: &info.aliases,
            hidden_aliases: &info.hidden_aliases,
            adapters: Some(&info.adapters),
            pattern: info.pattern.as_ref(),
            is_default: info.is_default,
            stand_in: info.stand_in,
            pool_role: info.pool.map(|rank| rank.role),
            tier: info.tier.as_deref(),
            kind: (!info.is_any_kind()).then_some(info.kind),
        }));
        let has_only = !may_grow && matches!(&*infos, [only] if only.pattern.is_none());
        Self { queues, names, pool: ModelPool::default(), may_grow, has_only }
    }

    /// Returns the queue of the only model, if there is exactly one. Every request then means it, whatever name it uses,
    /// unless it serves only names that match its pattern, and is refused if the model is known to be of another kind.
    /// While there may be more models, a name may mean one of those.
    pub(crate) fn only(&self) -> Option<&Arc<ModelQueue>> {
        self.queues.first().filter(|_| self.has_only)
    }

    /// Returns the queues of the models that share the requests of this kind without a model's name, in the order in which
    /// this one tries them; none if there is no such pool, or if the request names a model.
    pub(crate) fn pool(&self, asked: Option<&str>, needs: Option<ModelKind>, caller: &Caller) -> Vec<&Arc<ModelQueue>> {
        let Some(needs) = needs.filter(|_| asked.is_none_or(str::is_empty)) else { return Vec::new() };
        let pool = self.names.pool(needs);
        let usable: Vec<&Arc<ModelQueue>> = pool
            .into_iter()
            .filter_map(|index| self.queues.get(index))
            .filter(|entry| caller.check_model(&entry.model.info()).is_ok())
            .collect();
        let models: Vec<&Arc<Model>> = usable.iter().map(|entry| &entry.model).collect();
        self.pool.order(&models).into_iter().filter_map(|index| usable.get(index).copied()).collect()
    }

    /// Returns the queue of the model that a request means. `asked` is the requested name, `needs` the kind of model that the
    /// route needs.
    ///
    /// # Errors
    /// 404 when no model has the name, 400 when the model is of another kind, 403 when the caller's key may not use it.
    pub(crate) fn resolve(
        &self,
        asked: Option<&str>,
        needs: Option<ModelKind>,
        caller: &Caller,
    ) -> Result<&Arc<ModelQueue>, Refusal> {
        let model = |index: usize| self.queues.get(index).map(|entry| &entry.model);
        let is_ready = |index| model(index).is_some_and(|model| model.available().is_ok());
        let may_use = |index| model(index).is_some_and(|model| caller.check_model_as(&model.info(), asked).is_ok());
        let found = match self.only() {
            Some(_) if !asked.is_some_and(|asked| self.names.lacks_adapter(asked)) => Ok(0),
            _ => self.names.resolve(asked, needs, is_ready, may_use),
        };
        let unknown = || self.model_not_found(asked.filter(|asked| !asked.is_empty()), caller);
        let index = match found {
            Ok(index) | Err(Unresolved::WrongKind { index }) => index,
            Err(Unresolved::Unknown) => return Err(unknown()),
        };
        let entry = self.queues.get(index).ok_or_else(unknown)?;
        self.check_kind_of(entry, needs, caller)?;
        Ok(entry)
    }

    /// Checks that one of these models is of the kind that a route needs.
    ///
    /// # Errors
    /// As [`check_kind`].
    pub(crate) fn check_kind_of(
        &self,
        entry: &ModelQueue,
        needs: Option<ModelKind>,
        caller: &Caller,
    ) -> Result<(), Refusal> {
        match self.only() {
            Some(_) => check_single_kind(&entry.model.info(), needs, caller),
            None => check_kind(&entry.model.info(), needs, caller),
        }
    }

    /// Returns all models.
    pub(crate) fn models(&self) -> impl Iterator<Item = &Arc<Model>> {
        self.queues.iter().map(|entry| &entry.model)
    }

    /// Returns the queue of the model with this id, or else with this alias, or with this adapter.
    pub(crate) fn find(&self, name: &str) -> Option<&Arc<ModelQueue>> {
        let is_alias = |entry: &&Arc<ModelQueue>| {
            let info = entry.model.info();
            info.names().any(|alias| alias == name) || info.adapter_in(name).is_some()
        };
        self.queues.iter().find(|entry| entry.model.id() == name).or_else(|| self.queues.iter().find(is_alias))
    }

    /// Returns the name without the tag that Ollama's clients add to a name without one, unless a model has it with that.
    pub(crate) fn without_default_tag<'a>(&self, name: &'a str) -> &'a str {
        let bare = name.strip_suffix(":latest").filter(|bare| !bare.is_empty() && !self.names.is_known(name));
        bare.unwrap_or(name)
    }

    /// Returns the queue of the model that a request of this name means by its pattern, if the caller may use that.
    pub(crate) fn find_by_pattern(&self, name: &str, caller: &Caller) -> Option<&Arc<ModelQueue>> {
        let may_use = |index: usize| {
            let entry = self.queues.get(index);
            entry.is_some_and(|entry| caller.check_model_as(&entry.model.info(), Some(name)).is_ok())
        };
        self.queues.get(self.names.by_own_pattern(name, may_use)?)
    }

    /// Returns whether requests for embeddings have to be translated for some workers of a model.
    pub(crate) fn has_other_embeddings(&self) -> bool {
        self.queues.iter().any(|entry| entry.model.has_other_embeddings())
    }

    /// Returns the models that `GET /v1/models` shows to this caller: not unlisted, and allowed for its key.
    pub(crate) fn models_shown_to<'a>(&'a self, caller: &'a Caller) -> impl Iterator<Item = &'a Model> {
        self.queues.iter().map(|entry| &*entry.model).filter(|model| {
            let info = model.info();
            !info.unlisted && caller.check_model(&info).is_ok()
        })
    }

    /// Returns the names that `GET /v1/models` shows to this caller: each model, and each of its adapters, if it is not
    /// unlisted and the caller may use it. The adapter comes with its model.
    pub(crate) fn names_shown_to<'a>(
        &'a self,
        caller: &'a Caller,
    ) -> impl Iterator<Item = (&'a Model, Option<String>)> {
        let listed = self.queues.iter().map(|entry| &*entry.model).filter(|model| !model.info().unlisted);
        listed.flat_map(|model| {
            let info = model.info();
            let own = caller.check_model(&info).is_ok().then_some((model, None));
            let may_use = |adapter: &&str| caller.check_model_as(&info, Some(&info.id_with(adapter))).is_ok();
            let adapters: Vec<_> =
                info.adapters.names().filter(may_use).map(|adapter| (model, Some(adapter.to_owned()))).collect();
            own.into_iter().chain(adapters)
        })
    }

    /// Returns the refusal of a request for an unknown model, with the names of the models that the caller may use.
    pub(crate) fn model_not_found(&self, name: Option<&str>, caller: &Caller) -> Refusal {
        let shown = self.names_shown_to(caller);
        let known = shown.map(|(model, adapter)| match adapter {
            Some(adapter) => model.info().id_with(&adapter),
            None => model.id().to_owned(),
        });
        let known = known.collect();
        Refusal::ModelNotFound { name: name.map(str::to_owned), known, in_query: false }
    }
}

/// Checks that the single model is of the kind that a route needs, if its kind is known. A llama-server that gets a
/// request of another kind may crash, or answer 200 with meaningless numbers.
///
/// # Errors
/// As [`check_kind`].
pub(crate) fn check_single_kind(model: &ModelInfo, needs: Option<ModelKind>, caller: &Caller) -> Result<(), Refusal> {
    if model.has_known_kind { check_kind(model, needs, caller) } else { Ok(()) }
}

/// Checks that a model is of the kind that a route needs.
///
/// # Errors
/// 403 when the caller's key may not use the model, whose kind is then not revealed; 400 when it is of another kind.
fn check_kind(model: &ModelInfo, needs: Option<ModelKind>, caller: &Caller) -> Result<(), Refusal> {
    match needs {
        Some(needs) if needs != model.kind && !model.is_any_kind() => {
            caller.check_model(model)?;
            Err(Refusal::WrongKind { model: model.id.clone(), is: model.kind.as_str(), needs: needs.as_str() })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn queues(queue: Option<Duration>) -> ModelQueues {
        let timeouts = QueueTimeouts { queue, request: Duration::from_secs(300), priority: Duration::from_secs(60) };
        ModelQueues::new(None, timeouts, Arc::new(Metrics::new("test")))
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_before_any_model_is_known_waits_but_not_forever() {
        let queues = queues(Some(Duration::from_secs(7)));
        assert_eq!(queues.models_known().await, Err(Refusal::ModelLoading(RETRY_AFTER_UNKNOWN)));
        let (waited, _) = tokio::join!(queues.models_known(), async { queues.replace(&[], false) });
        assert_eq!(waited, Ok(()));
        assert_eq!(queues.models_known().await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_before_any_model_is_known_refuses_waiting_requests() {
        let queues = queues(None);
        let (waited, ()) = tokio::join!(queues.models_known(), queues.drain());
        assert_eq!(waited, Err(Refusal::ShuttingDown(RETRY_AFTER_UNKNOWN)));
    }
}
