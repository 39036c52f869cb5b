//! The seam between the two journeys: which models there are, and which of their workers can serve.
//!
//! Hands out a [`Lease`] on a worker. Sees workers only as their [`Handle`](crate::worker::Handle)s and never names a
//! request.

mod affinity;
mod breaker;
mod card;
mod changes;
mod choice;
mod lease;
mod member;
mod model;
pub mod names;
mod quota;
mod report;
#[cfg(test)]
mod stub;
mod tally;

pub use crate::worker::{Errand, Fingerprint, State};
pub use breaker::Breaker;
pub use card::{Card, Terms};
pub use changes::Changes;
pub use lease::Lease;
pub use member::{Member, Rank};
pub use model::{Model, Unavailable, Want, Wish};
pub use quota::Quota;
pub use report::{ModelStatus, Overall};
#[cfg(test)]
pub(crate) use stub::Stub;
pub use tally::{Snapshot, WorkerKind};

use crate::worker::Loss;
use arc_swap::ArcSwap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use tokio::sync::{Notify, SetOnce};

/// Every model that this service knows at present.
pub struct Fleet {
    shelf: ArcSwap<Shelf>,
    /// Told of each new shelf.
    swapped: Notify,
    /// Set once it is known which models there are.
    stocked: SetOnce<()>,
}

/// The models between two reloads of the configuration, in the order in which they are listed.
pub struct Shelf {
    models: Vec<Arc<Model>>,
}

impl Fleet {
    /// A fleet of which nobody knows yet what models it has.
    pub fn unknown() -> Self {
        let shelf = ArcSwap::from_pointee(Shelf { models: Vec::new() });
        Self { shelf, swapped: Notify::new(), stocked: SetOnce::new() }
    }

    /// A fleet of these models, for now.
    pub fn new(models: Vec<Arc<Model>>) -> Self {
        let fleet = Self::unknown();
        fleet.replace(models);
        fleet
    }

    /// The models that there are now.
    pub fn shelf(&self) -> Arc<Shelf> {
        self.shelf.load_full()
    }

    /// Puts other models in place of those that there were.
    pub fn replace(&self, models: Vec<Arc<Model>>) {
        self.shelf.store(Arc::new(Shelf { models }));
        // A second time is no news.
        let _ = self.stocked.set(());
        self.swapped.notify_waiters();
    }

    /// Every model with its state, and what these states come to, in one look: a worker may change its state at any
    /// moment. First whether requests are served at all, then the word that is shown: a service that serves some models
    /// and not others is degraded.
    pub fn report(&self) -> (Overall, Overall, Vec<ModelStatus>) {
        let (sums, report): (Vec<_>, Vec<_>) = self.shelf().models.iter().map(|model| model.report()).unzip();
        let best = self.sum(sums.iter().copied().flatten());
        let is_partial = best == Overall::Ok && sums.iter().flatten().any(|sum| *sum >= Overall::Degraded);
        (best, if is_partial { Overall::Degraded } else { best }, report)
    }

    /// The sum of all models' states.
    pub fn overall(&self) -> Overall {
        let shelf = self.shelf();
        self.sum(shelf.members().map(|member| Overall::of(member.handle().state())))
    }

    fn sum(&self, workers: impl Iterator<Item = Overall>) -> Overall {
        if self.stocked.initialized() { Overall::best(workers) } else { Overall::Loading }
    }

    /// Waits until requests can be served for the first time: true; or never will be: false.
    pub async fn first_load(&self) -> bool {
        self.stocked.wait().await;
        let serves = |member: &Arc<Member>| member.handle().has_been_ready() || member.handle().state().1;
        loop {
            let changes = self.changes();
            let shelf = self.shelf();
            // Models without any worker wait for none.
            if shelf.members().next().is_none() || shelf.members().any(serves) {
                return true;
            }
            if shelf.loss().is_some() {
                return false;
            }
            changes.await;
        }
    }

    /// Whether a model serves requests at once, without being started for them; also where none is meant to before it
    /// is asked for.
    pub fn is_awake(&self) -> bool {
        let shelf = self.shelf();
        if !self.stocked.initialized() {
            return false;
        }
        let mut members = shelf.members().peekable();
        members.peek().is_none() || members.any(|member| member.handle().is_ready()) || shelf.waits_to_be_asked()
    }

    /// Waits for the next change of a worker, or of the models, from the call on.
    pub fn changes(&self) -> impl Future<Output = ()> {
        let swapped = self.swapped.notified();
        let mut changes = Changes::of(self.shelf().members());
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
    pub async fn is_lost(&self) -> Loss {
        loop {
            let mut swapped = pin!(self.swapped.notified());
            let shelf = self.shelf();
            let mut changes = Changes::of(shelf.members());
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

impl Shelf {
    /// The models, as they are listed.
    pub fn models(&self) -> &[Arc<Model>] {
        &self.models
    }

    fn members(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.models.iter().flat_map(|model| model.members())
    }

    /// Whether every worker was left to be started by its first request, and none has been yet.
    fn waits_to_be_asked(&self) -> bool {
        self.members().all(|member| member.handle().state().1 && !member.handle().has_been_ready())
    }

    /// How the last one was lost, if all workers are, and there are any.
    fn loss(&self) -> Option<Loss> {
        let losses: Option<Vec<Loss>> = self.members().map(|member| member.handle().loss()).collect();
        losses?.pop()
    }
}
