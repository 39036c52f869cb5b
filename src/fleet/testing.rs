//! A worker for the tests of others.

use super::{Card, Fingerprint, Member, Model, Rank, Terms, WorkerKind};
use crate::worker::{Handle, State, Status};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::watch;

/// Changes a worker that is no process.
pub(crate) struct Stub(watch::Sender<Status>, SocketAddr);

impl Stub {
    /// A model whose worker is ready at this address.
    pub(crate) fn ready(address: impl Into<SocketAddr>) -> (Self, Arc<Model>) {
        let address = address.into();
        let (sender, handle) = Handle::stub(address);
        let member = Member::own(handle, WorkerKind::Local, 0, usize::MAX, Rank { weight: 1.0, priority: 0 });
        (Self(sender, address), Arc::new(Model::new(Card::named("m"), Terms::default(), vec![Arc::new(member)])))
    }

    /// The worker no longer answers.
    pub(crate) fn is_down(&self) {
        self.0.send_modify(|status| (status.state, status.endpoint) = (State::Unhealthy, None));
    }

    /// Another life of the worker, which nobody doubts.
    pub(crate) fn starts_again(&self) {
        let (sender, _) = Handle::stub(self.1);
        self.0.send_replace(sender.borrow().clone());
    }
}

impl Model {
    /// Has its workers die while they serve this.
    pub(crate) fn dies_of(&self, fingerprint: Fingerprint) {
        for member in self.members() {
            member.handle().dies_of(fingerprint);
        }
    }
}
