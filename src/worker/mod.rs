//! A worker's journey: start a process, watch it, keep its logs, restart it or give up.
//!
//! [`supervise`] starts the one task that owns a worker. Everybody else holds a [`Handle`] and sees a [`Status`].
//! Nothing here names an HTTP request of a client.

mod command;
mod diagnosis;
mod health;
mod process;
mod shortage;
mod state;
mod supervisor;

pub use process::Spawner;
pub use state::State;
pub use supervisor::{Plan, supervise};

use http::HeaderValue;
use serde::Serialize;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{Notify, watch};

/// Where a ready llama-server listens, and the key it asks for.
pub struct Endpoint {
    /// Its address, always on the loopback interface.
    pub address: SocketAddr,
    /// The value of `Authorization` that it takes; marked sensitive, so it never shows in debug output.
    pub authorization: HeaderValue,
    doubted: AtomicBool,
    doubts: Notify,
}

impl Endpoint {
    fn new(address: SocketAddr, authorization: HeaderValue) -> Self {
        Self { address, authorization, doubted: AtomicBool::new(false), doubts: Notify::new() }
    }

    /// Says that it broke a connection, and so may be about to end: nothing more is sent to it until its owner has
    /// looked.
    pub fn doubt(&self) {
        if !self.doubted.swap(true, Ordering::SeqCst) {
            self.doubts.notify_one();
        }
    }

    /// Says why a request to it failed: a doubt, unless the reason lies with us.
    pub fn failed(&self, error: &(dyn Error + 'static)) {
        if shortage::shortage(error).is_none() {
            self.doubt();
        }
    }

    /// Waits until somebody doubts it.
    async fn doubted(&self) {
        self.doubts.notified().await;
    }

    /// Clears a doubt; whether there was one.
    fn trust(&self) -> bool {
        self.doubted.swap(false, Ordering::SeqCst)
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
        self.0.borrow().endpoint.as_ref().filter(|endpoint| !endpoint.doubted.load(Ordering::SeqCst)).cloned()
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
