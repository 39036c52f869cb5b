//! The seam between the two journeys: which models there are and which workers can serve.
//!
//! Hands out a [`Lease`] on a worker. Sees workers only as their [`Handle`]s and never names a request.

pub mod affinity;
pub mod breaker;
pub mod choice;
pub mod names;
pub mod quota;
pub mod tally;

use crate::worker::{Endpoint, Handle, InFlight, LastExit, NotNow, State, Status};
use serde::Serialize;
use std::error::Error;
use std::sync::Arc;
use tokio::task::JoinSet;
use tokio_util::sync::WaitForCancellationFutureOwned;

pub use crate::worker::{Errand, Fingerprint, Want};

/// Every model that this service knows.
pub struct Fleet {
    models: Vec<Arc<Model>>,
}

/// One model and the workers that serve it.
pub struct Model {
    /// The id that clients use.
    pub id: String,
    /// None when there is no llama-server behind this service.
    worker: Option<Handle>,
}

/// The right to send one request to one worker.
pub struct Lease(InFlight);

/// Why no worker can be leased now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unavailable {
    /// It is starting or loading, or will be started again.
    Loading,
    /// It was put away because nobody used it, and is started for whoever wants it.
    Asleep,
    /// It has broken a connection, and will be asked at once whether it still serves.
    Doubted,
    /// It does not answer, or is being stopped.
    Down,
    /// It has failed for good.
    Failed,
    /// There is none behind this service.
    Absent,
    /// Workers died each time they served this request.
    Poisonous,
    /// A worker died while it served this request, and another of which that is true is in flight.
    Suspected,
}

/// What happens to a model's workers, for somebody who waits for them.
pub struct Changes(Handle);

/// What is shown of a model.
#[derive(Debug, Serialize)]
pub struct ModelStatus {
    /// The id that clients use.
    pub id: String,
    /// The worker's state.
    pub state: State,
    /// Restarts since the service started.
    pub restarts: u64,
    /// How the process before ended.
    pub last_exit: Option<LastExit>,
}

/// Whether the service as a whole can serve, from the best to the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Overall {
    /// Requests are served, at once or as soon as a model that sleeps has been woken.
    Ok,
    /// No request is served yet.
    Loading,
    /// No request is served now, which may pass.
    Degraded,
    /// No request will be served again.
    Failed,
}

impl Fleet {
    /// A fleet of one model; without a worker it serves nothing.
    pub fn of_one(id: String, worker: Option<Handle>) -> Self {
        Self { models: vec![Arc::new(Model { id, worker })] }
    }

    /// The model that a request means: there is only one, whatever the request calls it.
    pub fn model(&self) -> Option<&Arc<Model>> {
        self.models.first()
    }

    /// Every model with its state, and the sum of these states, in one look: a worker may change its state at any
    /// moment.
    pub fn report(&self) -> (Overall, Vec<ModelStatus>) {
        let (sums, report): (Vec<_>, Vec<_>) = self.models.iter().map(|model| model.report()).unzip();
        (Overall::best(sums.into_iter().flatten()), report)
    }

    /// The sum of all models' states.
    pub fn overall(&self) -> Overall {
        Overall::best(self.workers().map(|worker| Overall::of(worker.state())))
    }

    /// Waits until requests can be served for the first time, or never will be.
    pub async fn first_load(&self) {
        let mut loads: JoinSet<bool> = self.workers().cloned().map(load).collect();
        while let Some(is_ready) = loads.join_next().await {
            if is_ready.unwrap_or_default() {
                return;
            }
        }
    }

    /// Whether a model serves requests at once, without being started for them.
    pub fn is_awake(&self) -> bool {
        self.workers().count() == 0 || self.workers().any(|worker| worker.state().0 == State::Ready)
    }

    fn workers(&self) -> impl Iterator<Item = &Handle> {
        self.models.iter().filter_map(|model| model.worker.as_ref())
    }
}

/// Waits until this worker has been ready once, or never will be. Whether it has.
async fn load(mut worker: Handle) -> bool {
    while !worker.has_been_ready() {
        if worker.state().0 == State::Failed || !worker.changed().await {
            return false;
        }
    }
    true
}

impl Overall {
    /// Of a worker in this state; whether it sleeps or is being woken.
    fn of((state, asleep): (State, bool)) -> Self {
        match state {
            State::Ready => Self::Ok,
            // A request starts it.
            State::Stopped | State::Draining if asleep => Self::Ok,
            State::Stopped | State::Starting | State::Loading => Self::Loading,
            State::Unhealthy | State::Backoff | State::Draining => Self::Degraded,
            State::Failed => Self::Failed,
        }
    }

    /// The service serves as well as the best worker; one without workers lacks none.
    fn best(workers: impl Iterator<Item = Self>) -> Self {
        workers.min().unwrap_or(Self::Ok)
    }
}

impl Model {
    /// A lease on a ready worker.
    pub fn lease(&self, errand: Errand) -> Result<Lease, Unavailable> {
        let worker = self.worker.as_ref().ok_or(Unavailable::Absent)?;
        if let Errand::Work(Some(fingerprint)) = errand
            && worker.refuses(fingerprint)
        {
            return Err(Unavailable::Poisonous);
        }
        let endpoint = worker.endpoint().ok_or_else(|| why_not(worker))?;
        endpoint.begin(errand).map(Lease).map_err(|reason| match reason {
            NotNow::Closed => why_not(worker),
            NotNow::Suspected => Unavailable::Suspected,
        })
    }

    /// Whether a lease would be granted now, without taking one.
    pub fn available(&self) -> Result<(), Unavailable> {
        let worker = self.worker.as_ref().ok_or(Unavailable::Absent)?;
        worker.endpoint().map(drop).ok_or_else(|| why_not(worker))
    }

    /// Whether workers died each time they served the request with this fingerprint.
    pub fn refuses(&self, fingerprint: Fingerprint) -> bool {
        self.worker.as_ref().is_some_and(|worker| worker.refuses(fingerprint))
    }

    /// Whether a worker died while it served the request with this fingerprint, which may have to wait for its turn.
    pub fn suspects(&self, fingerprint: Fingerprint) -> bool {
        self.worker.as_ref().is_some_and(|worker| worker.suspects(fingerprint))
    }

    /// Whether the worker is put to sleep, sleeps, or is being woken.
    pub fn sleeps(&self) -> bool {
        self.worker.as_ref().is_some_and(|worker| worker.state().1)
    }

    /// Wakes the worker if it sleeps, and keeps it awake as long as what is returned lives.
    pub fn want(&self) -> Option<Want> {
        self.worker.as_ref().map(Handle::want)
    }

    /// Whether there is any worker for it, be it ready or not.
    pub fn has_worker(&self) -> bool {
        self.worker.is_some()
    }

    /// What happens from now on; nothing ever does to a model without a worker.
    pub fn changes(&self) -> Option<Changes> {
        self.worker.clone().map(Changes)
    }

    /// What is shown of it, and the sum of that if there is a worker.
    fn report(&self) -> (Option<Overall>, ModelStatus) {
        let id = self.id.clone();
        let Some(status) = self.worker.as_ref().map(Handle::status) else {
            return (None, ModelStatus { id, state: State::Stopped, restarts: 0, last_exit: None });
        };
        let Status { state, asleep, restarts, last_exit, .. } = status;
        (Some(Overall::of((state, asleep))), ModelStatus { id, state, restarts, last_exit })
    }
}

impl Changes {
    /// Loads that have failed since the service started.
    pub fn failed_loads(&self) -> u64 {
        self.0.status().failed_loads
    }

    /// Waits for the next change. False when there will be none.
    pub async fn next(&mut self) -> bool {
        self.0.changed().await
    }

    /// Waits until no request under suspicion is in flight, at the latest until the next change. False when there will be
    /// none.
    pub async fn suspect_left(&mut self) -> bool {
        let endpoint = self.0.endpoint();
        let left = async {
            match endpoint {
                Some(endpoint) => endpoint.suspect_left().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = left => true,
            more = self.next() => more,
        }
    }
}

/// Why no request may be sent to this worker now.
fn why_not(worker: &Handle) -> Unavailable {
    match worker.state() {
        (State::Failed, _) => Unavailable::Failed,
        (_, true) => Unavailable::Asleep,
        // It has broken a connection, or is just being put to sleep or found dead.
        (State::Ready, _) => Unavailable::Doubted,
        (State::Stopped | State::Starting | State::Loading | State::Backoff, _) => Unavailable::Loading,
        (State::Unhealthy | State::Draining, _) => Unavailable::Down,
    }
}

impl Lease {
    /// Waits until the worker has ended or is being ended, whatever its connections do.
    pub fn gone(&self) -> WaitForCancellationFutureOwned {
        self.0.gone()
    }

    /// Says that the worker broke the connection.
    pub fn doubt(&mut self) {
        self.0.doubt();
    }

    /// Says why a request to the worker failed; it is doubted, unless the reason lies with us.
    pub fn failed(&mut self, error: &(dyn Error + 'static)) {
        self.0.failed(error);
    }

    /// Says that the worker has answered to the end, well or with an error of its own.
    pub fn answered(&mut self) {
        self.0.answered();
    }

    /// Says that the worker answered well, to the end.
    pub fn succeeded(&mut self) {
        self.0.succeeded();
    }

    /// Says that the worker could not compute an answer, which is no fault of the request.
    pub fn could_not_be_computed(&mut self) {
        self.0.could_not_be_computed();
    }

    /// Where to send the request.
    pub fn endpoint(&self) -> &Endpoint {
        self.0.endpoint()
    }
}

#[cfg(test)]
pub(crate) use stub::Stub;

/// A worker for the tests of others.
#[cfg(test)]
mod stub {
    use super::{Arc, Fingerprint, Handle, Model};
    use crate::worker::Status;
    use std::net::SocketAddr;
    use tokio::sync::watch;

    /// Changes a worker that is no process.
    pub(crate) struct Stub(watch::Sender<Status>, SocketAddr);

    impl Stub {
        /// A model whose worker is ready at this address.
        pub(crate) fn ready(address: impl Into<SocketAddr>) -> (Self, Arc<Model>) {
            let address = address.into();
            let (sender, handle) = Handle::stub(address);
            (Self(sender, address), Arc::new(Model { id: "m".to_owned(), worker: Some(handle) }))
        }

        /// Another life of the worker, which nobody doubts.
        pub(crate) fn starts_again(&self) {
            let (sender, _) = Handle::stub(self.1);
            self.0.send_replace(sender.borrow().clone());
        }
    }

    impl Model {
        /// Has its worker die while it serves this.
        pub(crate) fn dies_of(&self, fingerprint: Fingerprint) {
            self.worker.as_ref().unwrap().dies_of(fingerprint);
        }
    }
}
