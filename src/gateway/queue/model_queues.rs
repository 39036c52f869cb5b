//! The line of each model, and which model a request means.
//!
//! A lane is a model with the requests that wait for it. A reload puts another table of lanes in place of this one; a
//! model that stays keeps its lane, and a lane that is left out serves whoever is in it.

use super::job_capacity::{QueueLoad, job_capacity};
use super::{Queue, QueueTimeouts};
use crate::fleet::names::{ModelNames, NameEntry, Unresolved};
use crate::fleet::{Model, ModelInfo};
use crate::gateway::admission::auth::Caller;
use crate::gateway::bounds::RETRY_AFTER_UNKNOWN;
use crate::models::ModelKind;
use crate::pause_clock::{self, ActiveInstant};
use crate::refusal::Refusal;
use crate::telemetry::metrics::Metrics;
use arc_swap::{ArcSwap, Guard};
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Notify, SetOnce};

/// The lanes of all models.
pub struct ModelQueues {
    snapshot: ArcSwap<Snapshot>,
    /// Those that are left out, as long as they may still hold somebody.
    retired: Mutex<Vec<Queue>>,
    /// Whether the service is being stopped.
    is_closed: AtomicBool,
    bound: Option<usize>,
    timeouts: QueueTimeouts,
    metrics: Arc<Metrics>,
    /// Told of each new table, and whenever more or fewer hold a slot of one or wait for it.
    changed: Arc<Notify>,
    /// Set once it is known which lanes there are, or that none will come.
    models_known: SetOnce<()>,
}

/// A model and its line.
pub struct ModelQueue {
    /// The model.
    pub model: Arc<Model>,
    /// Who waits for it.
    pub queue: Queue,
}

/// The lanes between two reloads.
pub(crate) struct Snapshot {
    queues: Vec<Arc<ModelQueue>>,
    names: ModelNames,
}

impl ModelQueues {
    /// No lanes yet. In each that comes, at most `bound` wait.
    pub fn new(bound: Option<usize>, patience: QueueTimeouts, metrics: Arc<Metrics>) -> Self {
        Self {
            snapshot: ArcSwap::from_pointee(Snapshot::of(Vec::new())),
            retired: Mutex::default(),
            is_closed: AtomicBool::new(false),
            bound,
            timeouts: patience,
            metrics,
            changed: Arc::default(),
            models_known: SetOnce::new(),
        }
    }

    /// Waits until it is known which models there are, as long as a request waits for a model that loads.
    pub(crate) async fn models_known(&self) -> Result<(), Refusal> {
        if self.models_known.initialized() {
            return Ok(());
        }
        let patience = self.timeouts.queue.unwrap_or(self.timeouts.request);
        let waits = pause_clock::timeout(patience, self.models_known.wait()).await;
        match waits {
            Ok(_) if self.current().queues.is_empty() && self.is_closed.load(Ordering::SeqCst) => {
                Err(Refusal::ShuttingDown(RETRY_AFTER_UNKNOWN))
            }
            Ok(_) => Ok(()),
            Err(_) => Err(Refusal::ModelLoading(RETRY_AFTER_UNKNOWN)),
        }
    }

    /// Serves these models from now on, in place of those before. Returns the lanes of models that are new, which
    /// somebody has to [follow](Queue::follow), and the lines of those that are left out, which
    /// [drain](Queue::drained).
    pub fn replace(&self, models: &[Arc<Model>]) -> (Vec<Arc<ModelQueue>>, Vec<Arc<ModelQueue>>) {
        let before = self.snapshot.load_full();
        let kept = |model: &Arc<Model>| before.queues.iter().find(|lane| Arc::ptr_eq(&lane.model, model)).cloned();
        let (mut lanes, mut new) = (Vec::with_capacity(models.len()), Vec::new());
        for model in models {
            let lane = kept(model).unwrap_or_else(|| {
                let lane = Arc::new(self.new_model_queue(Arc::clone(model)));
                new.push(Arc::clone(&lane));
                lane
            });
            lanes.push(lane);
        }
        let is_left_out = |lane: &&Arc<ModelQueue>| !lanes.iter().any(|kept| Arc::ptr_eq(kept, lane));
        let left_out: Vec<_> = before.queues.iter().filter(is_left_out).cloned().collect();
        self.snapshot.store(Arc::new(Snapshot::of(lanes)));
        // From then on whoever closes all lanes finds the new ones.
        if self.is_closed.load(Ordering::SeqCst) {
            new.iter().for_each(|lane| lane.queue.close());
        }
        let _ = self.models_known.set(()); // a second time is no news
        self.changed.notify_waiters();
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        retired.retain(|queue| !queue.is_drained());
        for lane in &left_out {
            lane.queue.retire();
            retired.push(lane.queue.clone());
        }
        (new, left_out)
    }

    fn new_model_queue(&self, model: Arc<Model>) -> ModelQueue {
        let counted = Arc::clone(&model);
        let (metrics, changed) = (Arc::clone(&self.metrics), Arc::clone(&self.changed));
        let queue = Queue::new(self.bound, self.timeouts, move || counted.slots(), metrics, changed);
        ModelQueue { model, queue }
    }

    /// Refuses every request from now on, those that wait too, and waits until those in flight have ended.
    pub(crate) async fn drain(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        let _ = self.models_known.set(()); // or never will be
        let mut queues: Vec<Queue> = self.current().queues.iter().map(|lane| lane.queue.clone()).collect();
        queues.extend(self.retired.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned());
        for queue in &queues {
            queue.close();
        }
        for queue in &queues {
            queue.drained().await;
        }
    }

    /// Requests of a model that hold a slot, and requests that wait for one.
    pub fn counts(&self, id: &str) -> (usize, usize) {
        let now = self.current();
        now.queues.iter().find(|lane| lane.model.id() == id).map_or((0, 0), |lane| lane.queue.counts())
    }

    /// How many more jobs may be taken, beside so many in hand: those that would be served at once. While there is no
    /// worker at all one, whose model says so.
    pub(crate) fn job_capacity(&self, in_hand: usize) -> usize {
        if !self.models_known.initialized() {
            return 0;
        }
        let (now, table) = (ActiveInstant::now(), self.current());
        if !table.queues.iter().any(|lane| lane.model.has_worker()) {
            return usize::from(in_hand == 0);
        }
        let load = |lane: &Arc<ModelQueue>| {
            let (active, waiting) = lane.queue.counts();
            QueueLoad { slots: lane.model.capacity(now), active, waiting }
        };
        job_capacity(&table.queues.iter().map(load).collect::<Vec<_>>(), in_hand)
    }

    /// Waits for the next change of what is in the lanes, or of the lanes, from the call on.
    pub(crate) fn changed(&self) -> impl Future<Output = ()> {
        self.changed.notified()
    }

    /// The lanes that there are now, to be kept over a wait.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Whether there has been no reload since these were looked at.
    pub(crate) fn is_current(&self, table: &Arc<Snapshot>) -> bool {
        Arc::ptr_eq(&self.current(), table)
    }

    pub(crate) fn current(&self) -> Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }
}

impl Snapshot {
    fn of(lanes: Vec<Arc<ModelQueue>>) -> Self {
        let cards: Vec<Arc<ModelInfo>> = lanes.iter().map(|lane| lane.model.info()).collect();
        let names = ModelNames::of(cards.iter().map(|card| NameEntry {
            id: &card.id,
            aliases: &card.aliases,
            tier: card.tier.as_deref(),
            kind: card.kind,
        }));
        Self { queues: lanes, names }
    }

    /// The lane of the only model, where there is but one: whatever a request names, it means that.
    pub(crate) fn only(&self) -> Option<&Arc<ModelQueue>> {
        match &*self.queues {
            [only] => Some(only),
            _ => None,
        }
    }

    /// The lane of the model that a request for this kind of work means. An only model is asked for all that its
    /// llama-server may have been told to do by arguments of its own.
    pub(crate) fn resolve(
        &self,
        asked: Option<&str>,
        needs: Option<ModelKind>,
        caller: &Caller,
    ) -> Result<&Arc<ModelQueue>, Refusal> {
        let model = |index: usize| self.queues.get(index).map(|lane| &lane.model);
        let is_ready = |index| model(index).is_some_and(|model| model.available().is_ok());
        let may_use = |index| model(index).is_some_and(|model| caller.check_model(&model.info()).is_ok());
        let found = match self.only() {
            Some(_) => Ok(0),
            None => self.names.resolve(asked, needs, is_ready, may_use),
        };
        let unknown = || self.model_not_found(asked, caller);
        match found {
            Ok(index) => self.queues.get(index).ok_or_else(unknown),
            Err(Unresolved::Unknown) => Err(unknown()),
            Err(Unresolved::WrongKind { index }) => match model(index).zip(needs) {
                Some((model, needs)) => {
                    caller.check_model(&model.info())?;
                    let (is, needs) = (model.info().kind.as_str(), needs.as_str());
                    Err(Refusal::WrongKind { model: model.id().to_owned(), is, needs })
                }
                None => Err(unknown()),
            },
        }
    }

    /// The lane of the model with this id or other name.
    pub(crate) fn find(&self, name: &str) -> Option<&Arc<ModelQueue>> {
        let is_alias = |lane: &&Arc<ModelQueue>| lane.model.info().aliases.iter().any(|alias| alias == name);
        self.queues.iter().find(|lane| lane.model.id() == name).or_else(|| self.queues.iter().find(is_alias))
    }

    /// The models that lists show to this caller: those that are listed and that its key may use.
    pub(crate) fn models_shown_to<'a>(&'a self, caller: &'a Caller) -> impl Iterator<Item = &'a Model> {
        self.queues.iter().map(|lane| &*lane.model).filter(|model| {
            let card = model.info();
            !card.unlisted && caller.check_model(&card).is_ok()
        })
    }

    /// The refusal of a request for a model that does not exist; it names the models that the caller may use.
    pub(crate) fn model_not_found(&self, name: Option<&str>, caller: &Caller) -> Refusal {
        let known = self.models_shown_to(caller).map(|model| model.id().to_owned()).collect();
        Refusal::ModelNotFound { name: name.map(str::to_owned), known, in_query: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn lanes(queue: Option<Duration>) -> ModelQueues {
        let patience = QueueTimeouts { queue, request: Duration::from_secs(300) };
        ModelQueues::new(None, patience, Arc::new(Metrics::new("test")))
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_before_any_model_is_known_waits_but_not_forever() {
        let lanes = lanes(Some(Duration::from_secs(7)));
        assert_eq!(lanes.models_known().await, Err(Refusal::ModelLoading(RETRY_AFTER_UNKNOWN)));
        let (waited, _) = tokio::join!(lanes.models_known(), async { lanes.replace(&[]) });
        assert_eq!(waited, Ok(()));
        assert_eq!(lanes.models_known().await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_before_any_model_is_known_refuses_waiting_requests() {
        let lanes = lanes(None);
        let (waited, ()) = tokio::join!(lanes.models_known(), lanes.drain());
        assert_eq!(waited, Err(Refusal::ShuttingDown(RETRY_AFTER_UNKNOWN)));
    }
}
