//! A worker's journey: start a process, watch it, keep its logs, restart it or give up.
//!
//! [`supervise`] starts the one task that owns a worker. Everybody else holds a [`Handle`] and sees a [`Status`].
//! Nothing here names an HTTP request of a client.

mod command;
mod den;
mod diagnosis;
mod gpu;
mod health;
mod leftovers;
mod process;
mod procfs;
mod reaper;
mod shortage;
mod state;
mod supervisor;

pub use process::Spawner;
pub use reaper::reap_orphans;
pub use state::State;
pub use supervisor::{Plan, supervise};

use http::HeaderValue;
use http::uri::Authority;
use serde::Serialize;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{Notify, watch};

/// Where a ready llama-server listens, and the key it asks for.
pub struct Endpoint {
    /// Its address, always on the loopback interface.
    pub address: SocketAddr,
    /// The address as a request's target names it.
    pub authority: Authority,
    /// The value of `Authorization` that it takes; marked sensitive, so it never shows in debug output.
    pub authorization: HeaderValue,
    /// Doubts since its start, and how many of them have been looked into.
    doubts: AtomicU64,
    dispelled: AtomicU64,
    raised: Notify,
}

impl Endpoint {
    fn new(address: SocketAddr, authorization: HeaderValue) -> Result<Self, http::uri::InvalidUri> {
        let authority = Authority::try_from(address.to_string())?;
        let (doubts, dispelled) = (AtomicU64::new(0), AtomicU64::new(0));
        Ok(Self { address, authority, authorization, doubts, dispelled, raised: Notify::new() })
    }

    /// Says that it broke a connection, and so may be about to end: nothing more is sent to it until its owner has
    /// looked.
    pub fn doubt(&self) {
        self.doubts.fetch_add(1, Ordering::SeqCst);
        self.raised.notify_one();
    }

    /// Says why a request to it failed: a doubt, unless the reason lies with us.
    pub fn failed(&self, error: &(dyn Error + 'static)) {
        if shortage::shortage(error).is_none() {
            self.doubt();
        }
    }

    /// Waits until somebody doubts it.
    async fn doubted(&self) {
        self.raised.notified().await;
    }

    /// How often it has been doubted.
    fn doubts(&self) -> u64 {
        self.doubts.load(Ordering::SeqCst)
    }

    /// Whether a doubt is left.
    fn is_doubted(&self) -> bool {
        // In this order: a doubt that comes between the two is seen.
        self.dispelled.load(Ordering::SeqCst) != self.doubts()
    }

    /// Clears the first so many doubts: those that had been raised when it was asked. Its owner alone does that.
    fn dispel(&self, doubts: u64) {
        self.dispelled.store(doubts, Ordering::SeqCst);
    }
}

/// How a llama-server ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LastExit {
    /// The exit code, unless a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// One sentence on the cause and what to do, where the log tells.
    pub hint: Option<String>,
}

/// What others may know of a worker at this moment.
#[derive(Clone)]
pub struct Status {
    /// The state of its state machine.
    pub state: State,
    /// How to reach it; only while it is [`State::Ready`].
    pub endpoint: Option<Arc<Endpoint>>,
    /// Restarts since the service started.
    pub restarts: u64,
    /// Processes that ended before they were ready, since the service started.
    pub failed_loads: u64,
    /// How the process before ended.
    pub last_exit: Option<LastExit>,
}

/// A worker as others see it.
#[derive(Clone)]
pub struct Handle(watch::Receiver<Status>);

impl Handle {
    /// The present status.
    pub fn status(&self) -> Status {
        self.0.borrow().clone()
    }

    /// The present state.
    pub fn state(&self) -> State {
        self.0.borrow().state
    }

    /// The endpoint, if the worker is ready and nobody doubts it.
    pub fn endpoint(&self) -> Option<Arc<Endpoint>> {
        self.0.borrow().endpoint.as_ref().filter(|endpoint| !endpoint.is_doubted()).cloned()
    }

    /// Waits for the next change of the status. False when its owner has ended.
    pub async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }

    /// Waits until the worker has given up for good. Never returns if its owner ends otherwise.
    pub async fn failed(&mut self) -> Option<LastExit> {
        match self.0.wait_for(|status| status.state == State::Failed).await {
            Ok(status) => status.last_exit.clone(),
            Err(_) => std::future::pending().await,
        }
    }
}

#[cfg(test)]
impl Handle {
    /// A ready worker at this address, for the tests of others; it changes as the sender says.
    pub(crate) fn stub(address: SocketAddr) -> (watch::Sender<Status>, Self) {
        let endpoint = Arc::new(Endpoint::new(address, HeaderValue::from_static("Bearer stub")).unwrap());
        let status =
            Status { state: State::Ready, endpoint: Some(endpoint), restarts: 0, failed_loads: 0, last_exit: None };
        let (sender, receiver) = watch::channel(status);
        (sender, Self(receiver))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::errno::Errno;
    use std::io;

    #[tokio::test]
    async fn a_doubt_that_comes_while_it_is_asked_outlives_the_answer() {
        let endpoint = Endpoint::new(SocketAddr::from(([127, 0, 0, 1], 1)), HeaderValue::from_static("x")).unwrap();
        assert!(!endpoint.is_doubted());
        endpoint.doubt();
        endpoint.doubted().await;
        let when_asked = endpoint.doubts();
        endpoint.doubt();
        endpoint.dispel(when_asked);
        assert!(endpoint.is_doubted(), "the answer may be older than the second doubt");
        endpoint.doubted().await; // its owner hears of it at once
        endpoint.dispel(endpoint.doubts());
        assert!(!endpoint.is_doubted());
    }

    #[test]
    fn a_shortage_of_our_own_is_no_doubt() {
        let endpoint = Endpoint::new(SocketAddr::from(([127, 0, 0, 1], 1)), HeaderValue::from_static("x")).unwrap();
        endpoint.failed(&io::Error::from(Errno::EMFILE));
        assert!(!endpoint.is_doubted());
        endpoint.failed(&io::Error::from(Errno::ECONNRESET));
        assert!(endpoint.is_doubted());
    }
}
