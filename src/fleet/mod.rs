//! The seam between the two journeys: which models there are and which workers can serve.
//!
//! Hands out a [`Lease`] on a worker. Sees workers only as their [`Handle`]s and never names a request.

use crate::worker::{Endpoint, Handle, LastExit, State};
use serde::Serialize;
use std::error::Error;
use std::sync::Arc;

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
pub struct Lease {
    endpoint: Arc<Endpoint>,
}

/// Why no worker can be leased now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unavailable {
    /// It is starting or loading, or will be started again.
    Loading,
    /// It has broken a connection, and will be asked at once whether it still serves.
    Doubted,
    /// It does not answer, or is being stopped.
    Down,
    /// It has failed for good.
    Failed,
    /// There is none behind this service.
    Absent,
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

/// Whether the service as a whole can serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Overall {
    /// Requests are served.
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

    /// Every model with its state, and the sum of these states.
    pub fn report(&self) -> (Overall, Vec<ModelStatus>) {
        let report: Vec<ModelStatus> = self.models.iter().map(|model| model.status()).collect();
        let states = self.models.iter().zip(&report).filter(|(model, _)| model.has_worker());
        (Overall::of(&states.map(|(_, status)| status.state).collect::<Vec<_>>()), report)
    }

    /// The sum of all models' states.
    pub fn overall(&self) -> Overall {
        let states = self.models.iter().filter_map(|model| Some(model.worker.as_ref()?.state()));
        Overall::of(&states.collect::<Vec<_>>())
    }
}

impl Overall {
    /// Of the states of all workers; without any there is nothing to wait for.
    fn of(states: &[State]) -> Self {
        if states.contains(&State::Ready) || states.is_empty() {
            Self::Ok
        } else if states.iter().any(|state| matches!(state, State::Stopped | State::Starting | State::Loading)) {
            Self::Loading
        } else if states.iter().all(|state| *state == State::Failed) {
            Self::Failed
        } else {
            Self::Degraded
        }
    }
}

impl Model {
    /// A lease on a ready worker.
    pub fn lease(&self) -> Result<Lease, Unavailable> {
        let worker = self.worker.as_ref().ok_or(Unavailable::Absent)?;
        if let Some(endpoint) = worker.endpoint() {
            return Ok(Lease { endpoint });
        }
        match worker.state() {
            State::Ready => Err(Unavailable::Doubted),
            State::Starting | State::Loading | State::Backoff => Err(Unavailable::Loading),
            // Before the first start, which follows at once.
            State::Stopped if worker.status().restarts == 0 => Err(Unavailable::Loading),
            State::Failed => Err(Unavailable::Failed),
            _ => Err(Unavailable::Down),
        }
    }

    /// Whether there is any worker for it, be it ready or not.
    pub fn has_worker(&self) -> bool {
        self.worker.is_some()
    }

    /// Whether a lease would be granted now, without taking one.
    pub fn available(&self) -> Result<(), Unavailable> {
        self.lease().map(drop)
    }

    /// What happens from now on; nothing ever does to a model without a worker.
    pub fn changes(&self) -> Option<Changes> {
        self.worker.clone().map(Changes)
    }

    fn status(&self) -> ModelStatus {
        match self.worker.as_ref().map(Handle::status) {
            Some(status) => ModelStatus {
                id: self.id.clone(),
                state: status.state,
                restarts: status.restarts,
                last_exit: status.last_exit,
            },
            None => ModelStatus { id: self.id.clone(), state: State::Stopped, restarts: 0, last_exit: None },
        }
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
}

impl Lease {
    /// Says that the worker broke the connection.
    pub fn doubt(&self) {
        self.endpoint.doubt();
    }

    /// Says why a request to the worker failed; it is doubted, unless the reason lies with us.
    pub fn failed(&self, error: &(dyn Error + 'static)) {
        self.endpoint.failed(error);
    }

    /// Where to send the request.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }
}

#[cfg(test)]
pub(crate) use stub::Stub;

/// A worker for the tests of others.
#[cfg(test)]
mod stub {
    use super::{Arc, Handle, Model};
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
}
