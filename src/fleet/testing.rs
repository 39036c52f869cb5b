//! A worker without a process, for tests in other modules.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;

use super::{Fingerprint, Member, Model, ModelInfo, Rank, RoutingPolicy, WorkerKind};
use crate::worker::{WorkerHandle, WorkerState, WorkerStatus};

/// Controls the state of a worker without a process.
pub(crate) struct StubWorker(watch::Sender<WorkerStatus>, SocketAddr);

impl StubWorker {
    /// Creates a model whose worker is ready at this address.
    pub(crate) fn ready(address: impl Into<SocketAddr>) -> (Self, Arc<Model>) {
        let address = address.into();
        let (sender, handle) = WorkerHandle::stub(address);
        let member = Member::local(handle, WorkerKind::Local, 0, usize::MAX, Rank { weight: 1.0, priority: 0 });
        (
            Self(sender, address),
            Arc::new(Model::new(ModelInfo::named("m"), RoutingPolicy::default(), vec![Arc::new(member)])),
        )
    }

    /// Makes the worker stop answering.
    pub(crate) fn stop(&self) {
        self.0.send_modify(|status| (status.state, status.endpoint) = (WorkerState::Unhealthy, None));
    }

    /// Restarts the worker; its new endpoint is healthy.
    pub(crate) fn restart(&self) {
        let (sender, _) = WorkerHandle::stub(self.1);
        self.0.send_replace(sender.borrow().clone());
    }
}

impl Model {
    /// Records that each worker crashed while it served this request.
    pub(crate) fn record_crash_by(&self, fingerprint: Fingerprint) {
        for member in self.members() {
            member.handle().record_crash_by(fingerprint);
        }
    }
}
