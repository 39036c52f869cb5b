//! The line of each model, and which model a request means.
//!
//! A lane is a model with the requests that wait for it. A reload puts another table of lanes in place of this one; a
//! model that stays keeps its lane, and a lane that is left out serves whoever is in it.

use super::job_capacity::{Load, room};
use super::{Patience, Queue};
use crate::awake::{self, ActiveInstant};
use crate::fleet::names::{ModelNames, NameEntry, Unresolved};
use crate::fleet::{Model, ModelInfo};
use crate::gateway::admission::auth::Caller;
use crate::gateway::bounds::RETRY_AFTER_UNKNOWN;
use crate::models::ModelKind;
use crate::refusal::Refusal;
use crate::telemetry::metrics::Metrics;
use arc_swap::{ArcSwap, Guard};
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Notify, SetOnce};

/// The lanes of all models.
pub struct Lanes {
    table: ArcSwap<Table>,
    /// Those that are left out, as long as they may still hold somebody.
    retired: Mutex<Vec<Queue>>,
    /// Whether the service is being stopped.
    is_closed: AtomicBool,
    bound: Option<usize>,
    patience: Patience,
    metrics: Arc<Metrics>,
    /// Told of each new table, and whenever more or fewer hold a slot of one or wait for it.
    changed: Arc<Notify>,
    /// Set once it is known which lanes there are, or that none will come.
    stocked: SetOnce<()>,
}

/// A model and its line.
pub struct Lane {
    /// The model.
    pub model: Arc<Model>,
    /// Who waits for it.
    pub queue: Queue,
}

/// The lanes between two reloads.
pub(crate) struct Table {
    lanes: Vec<Arc<Lane>>,
    names: ModelNames,
}

impl Lanes {
    /// No lanes yet. In each that comes, at most `bound` wait.
    pub fn new(bound: Option<usize>, patience: Patience, metrics: Arc<Metrics>) -> Self {
        Self {
            table: ArcSwap::from_pointee(Table::of(Vec::new())),
            retired: Mutex::default(),
            is_closed: AtomicBool::new(false),
            bound,
            patience,
            metrics,
            changed: Arc::default(),
            stocked: SetOnce::new(),
        }
    }

    /// Waits until it is known which models there are, as long as a request waits for a model that loads.
    pub(crate) async fn stocked(&self) -> Result<(), Refusal> {
        if self.stocked.initialized() {
            return Ok(());
        }
        let patience = self.patience.queue.unwrap_or(self.patience.request);
        let waits = awake::timeout(patience, self.stocked.wait()).await;
        match waits {
            Ok(_) if self.now().lanes.is_empty() && self.is_closed.load(Ordering::SeqCst) => {
                Err(Refusal::ShuttingDown(RETRY_AFTER_UNKNOWN))
            }
            Ok(_) => Ok(()),
            Err(_) => Err(Refusal::ModelLoading(RETRY_AFTER_UNKNOWN)),
        }
    }

    /// Serves these models from now on, in place of those before. Returns the lanes of models that are new, which
    /// somebody has to [follow](Queue::follow), and the lines of those that are left out, which
    /// [drain](Queue::drained).
    pub fn replace(&self, models: &[Arc<Model>]) -> (Vec<Arc<Lane>>, Vec<Arc<Lane>>) {
        let before = self.table.load_full();
        let kept = |model: &Arc<Model>| before.lanes.iter().find(|lane| Arc::ptr_eq(&lane.model, model)).cloned();
        let (mut lanes, mut new) = (Vec::with_capacity(models.len()), Vec::new());
        for model in models {
            let lane = kept(model).unwrap_or_else(|| {
                let lane = Arc::new(self.lane(Arc::clone(model)));
                new.push(Arc::clone(&lane));
                lane
            });
            lanes.push(lane);
        }
        let is_left_out = |lane: &&Arc<Lane>| !lanes.iter().any(|kept| Arc::ptr_eq(kept, lane));
        let left_out: Vec<_> = before.lanes.iter().filter(is_left_out).cloned().collect();
        self.table.store(Arc::new(Table::of(lanes)));
        // From then on whoever closes all lanes finds the new ones.
        if self.is_closed.load(Ordering::SeqCst) {
            new.iter().for_each(|lane| lane.queue.close());
        }
        let _ = self.stocked.set(()); // a second time is no news
        self.changed.notify_waiters();
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        retired.retain(|queue| !queue.is_drained());
        for lane in &left_out {
            lane.queue.retire();
            retired.push(lane.queue.clone());
        }
        (new, left_out)
    }

    fn lane(&self, model: Arc<Model>) -> Lane {
        let counted = Arc::clone(&model);
        let (metrics, changed) = (Arc::clone(&self.metrics), Arc::clone(&self.changed));
        let queue = Queue::new(self.bound, self.patience, move || counted.slots(), metrics, changed);
        Lane { model, queue }
    }

    /// Refuses every request from now on, those that wait too, and waits until those in flight have ended.
    pub(crate) async fn drain(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        let _ = self.stocked.set(()); // or never will be
        let mut queues: Vec<Queue> = self.now().lanes.iter().map(|lane| lane.queue.clone()).collect();
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
        let now = self.now();
        now.lanes.iter().find(|lane| lane.model.id() == id).map_or((0, 0), |lane| lane.queue.counts())
    }

    /// How many more jobs may be taken, beside so many in hand: those that would be served at once. While there is no
    /// worker at all one, whose model says so.
    pub(crate) fn room(&self, in_hand: usize) -> usize {
        if !self.stocked.initialized() {
            return 0;
        }
        let (now, table) = (ActiveInstant::now(), self.now());
        if !table.lanes.iter().any(|lane| lane.model.has_worker()) {
            return usize::from(in_hand == 0);
        }
        let load = |lane: &Arc<Lane>| {
            let (active, waiting) = lane.queue.counts();
            Load { slots: lane.model.capacity(now), active, waiting }
        };
        room(&table.lanes.iter().map(load).collect::<Vec<_>>(), in_hand)
    }

    /// Waits for the next change of what is in the lanes, or of the lanes, from the call on.
    pub(crate) fn changes(&self) -> impl Future<Output = ()> {
        self.changed.notified()
    }

    /// The lanes that there are now, to be kept over a wait.
    pub(crate) fn table(&self) -> Arc<Table> {
        self.table.load_full()
    }

    /// Whether there has been no reload since these were looked at.
    pub(crate) fn are_still(&self, table: &Arc<Table>) -> bool {
        Arc::ptr_eq(&self.now(), table)
    }

    pub(crate) fn now(&self) -> Guard<Arc<Table>> {
        self.table.load()
    }
}

impl Table {
    fn of(lanes: Vec<Arc<Lane>>) -> Self {
        let cards: Vec<Arc<ModelInfo>> = lanes.iter().map(|lane| lane.model.info()).collect();
        let names = ModelNames::of(cards.iter().map(|card| NameEntry {
            id: &card.id,
            aliases: &card.aliases,
            tier: card.tier.as_deref(),
            kind: card.kind,
        }));
        Self { lanes, names }
    }

    /// The lane of the only model, where there is but one: whatever a request names, it means that.
    pub(crate) fn only(&self) -> Option<&Arc<Lane>> {
        match &*self.lanes {
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
    ) -> Result<&Arc<Lane>, Refusal> {
        let model = |index: usize| self.lanes.get(index).map(|lane| &lane.model);
        let is_ready = |index| model(index).is_some_and(|model| model.available().is_ok());
        let may_use = |index| model(index).is_some_and(|model| caller.may_use(&model.info()).is_ok());
        let found = match self.only() {
            Some(_) => Ok(0),
            None => self.names.resolve(asked, needs, is_ready, may_use),
        };
        let unknown = || self.model_not_found(asked, caller);
        match found {
            Ok(index) => self.lanes.get(index).ok_or_else(unknown),
            Err(Unresolved::Unknown) => Err(unknown()),
            Err(Unresolved::WrongKind { index }) => match model(index).zip(needs) {
                Some((model, needs)) => {
                    caller.may_use(&model.info())?;
                    let (is, needs) = (model.info().kind.as_str(), needs.as_str());
                    Err(Refusal::WrongKind { model: model.id().to_owned(), is, needs })
                }
                None => Err(unknown()),
            },
        }
    }

    /// The lane of the model with this id or other name.
    pub(crate) fn named(&self, name: &str) -> Option<&Arc<Lane>> {
        let is_alias = |lane: &&Arc<Lane>| lane.model.info().aliases.iter().any(|alias| alias == name);
        self.lanes.iter().find(|lane| lane.model.id() == name).or_else(|| self.lanes.iter().find(is_alias))
    }

    /// The models that lists show to this caller: those that are listed and that its key may use.
    pub(crate) fn models_shown_to<'a>(&'a self, caller: &'a Caller) -> impl Iterator<Item = &'a Model> {
        self.lanes.iter().map(|lane| &*lane.model).filter(|model| {
            let card = model.info();
            !card.unlisted && caller.may_use(&card).is_ok()
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

    fn lanes(queue: Option<Duration>) -> Lanes {
        let patience = Patience { queue, request: Duration::from_secs(300) };
        Lanes::new(None, patience, Arc::new(Metrics::new("test")))
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_before_any_model_is_known_waits_for_it_but_not_for_ever() {
        let lanes = lanes(Some(Duration::from_secs(7)));
        assert_eq!(lanes.stocked().await, Err(Refusal::ModelLoading(RETRY_AFTER_UNKNOWN)));
        let (waited, _) = tokio::join!(lanes.stocked(), async { lanes.replace(&[]) });
        assert_eq!(waited, Ok(()));
        assert_eq!(lanes.stocked().await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_before_any_model_is_known_answers_who_waits() {
        let lanes = lanes(None);
        let (waited, ()) = tokio::join!(lanes.stocked(), lanes.drain());
        assert_eq!(waited, Err(Refusal::ShuttingDown(RETRY_AFTER_UNKNOWN)));
    }
}
