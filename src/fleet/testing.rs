//! A worker for the tests of others.

use super::{Fingerprint, Member, Model, ModelInfo, Rank, RoutingPolicy, WorkerKind};
use crate::worker::{WorkerHandle, WorkerState, WorkerStatus};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::watch;

/// Changes a worker that is no process.
pub(crate) struct StubWorker(watch::Sender<WorkerStatus>, SocketAddr);

impl StubWorker {
    /// A model whose worker is ready at this address.
    pub(crate) fn ready(address: impl Into<SocketAddr>) -> (Self, Arc<Model>) {
        let address = address.into();
        let (sender, handle) = WorkerHandle::stub(address);
        let member = Member::local(handle, WorkerKind::Local, 0, usize::MAX, Rank { weight: 1.0, priority: 0 });
        (
            Self(sender, address),
            Arc::new(Model::new(ModelInfo::named("m"), RoutingPolicy::default(), vec![Arc::new(member)])),
        )
    }

    /// The worker no longer answers.
    pub(crate) fn stop(&self) {
        self.0.send_modify(|status| (status.state, status.endpoint) = (WorkerState::Unhealthy, None));
    }

    /// Another life of the worker, which nobody doubts.
    pub(crate) fn restart(&self) {
        let (sender, _) = WorkerHandle::stub(self.1);
        self.0.send_replace(sender.borrow().clone());
    }
}

impl Model {
    /// Has its workers die while they serve this.
    pub(crate) fn record_death_by(&self, fingerprint: Fingerprint) {
        for member in self.members() {
            member.handle().record_crash_by(fingerprint);
        }
    }
}
