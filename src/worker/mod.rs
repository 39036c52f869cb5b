//! A worker's journey: start a process, watch it, keep its logs, restart it or give up.
//!
//! [`supervise`] starts the one task that owns a worker. Everybody else holds a [`Handle`] and sees a [`Status`].
//! Nothing here names an HTTP request of a client.

mod command;
mod diagnosis;
mod health;
mod process;
mod state;
mod supervisor;

pub use process::Spawner;
pub use state::State;
pub use supervisor::{Plan, supervise};

use http::HeaderValue;
use serde::Serialize;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::watch;

/// Where a ready llama-server listens, and the key it asks for.
pub struct Endpoint {
    /// Its address, always on the loopback interface.
    pub address: SocketAddr,
    /// The value of `Authorization` that it takes; marked sensitive, so it never shows in debug output.
    pub authorization: HeaderValue,
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

    /// The endpoint, if the worker is ready.
    pub fn endpoint(&self) -> Option<Arc<Endpoint>> {
        self.0.borrow().endpoint.clone()
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
