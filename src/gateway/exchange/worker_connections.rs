//! Sends a request to a worker, on an idle connection or a new one, and waits for the head of its response.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use foldhash::fast::RandomState;
use http::Response;
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::worker_body::{HeldConnection, WorkerBody};
use super::worker_connection::{BrokenConnection, WorkerConnection};
use super::worker_pool::{Opener, WorkerPool};
use super::worker_request::WorkerRequest;
use crate::cores::PerCore;
use crate::dial::{BoxError, DialTarget, Dialer, TargetId};
use crate::gateway::bounds::MOST_STALE_CONNECTIONS;
use crate::gateway::content_kind::ContentKind;
use crate::pause_clock::{self, ActiveInstant};

/// The pools of one core.
type Pools = HashMap<TargetId, Arc<WorkerPool>, RandomState>;

/// The connections to all workers.
pub(crate) struct WorkerConnections {
    opener: Arc<Opener>,
    /// Of each core its own: no core drives the connections of another.
    pools: PerCore<Mutex<Pools>>,
}

/// Why there is no response.
#[derive(Debug, Error)]
pub(crate) enum ExchangeError {
    /// No connection could be opened, so no byte of the request was sent.
    #[error("no connection could be opened")]
    Connect(#[source] BoxError),
    /// The connection broke, or what came was no response.
    #[error("the connection broke")]
    Broken(#[source] BrokenConnection),
    #[error("the response has not begun in time")]
    TimedOut,
}

impl ExchangeError {
    /// Returns whether no byte of the request was written.
    pub(crate) fn is_unsent(&self) -> bool {
        match self {
            Self::Connect(_) => true,
            Self::Broken(error) => matches!(error, BrokenConnection::Unsent),
            Self::TimedOut => false,
        }
    }
}

impl WorkerConnections {
    /// Keeps no connection yet. `connect_timeout` is the longest time until a new one can be used.
    pub(crate) fn new(connect_timeout: Duration) -> Self {
        let opener =
            Opener { dialer: Dialer::new(connect_timeout), tasks: TaskTracker::new(), stop: CancellationToken::new() };
        Self { opener: Arc::new(opener), pools: PerCore::new(Mutex::default) }
    }

    /// Sends a request to this worker, which has ended once `gone` is cancelled, and waits until `deadline` for the head of the
    /// response.
    ///
    /// # Errors
    /// [`ExchangeError`]. A request that met connections which the worker had just closed is sent on the next one, as long
    /// as no byte of it was written.
    pub(crate) fn exchange<'a>(
        &'a self,
        target: &DialTarget,
        gone: &CancellationToken,
        deadline: ActiveInstant,
        request: WorkerRequest,
    ) -> impl Future<Output = Result<Response<WorkerBody>, ExchangeError>> + use<'a> {
        let pool = self.pool(target, gone);
        // Nearly every request is begun here, so that the wait does not hold it. The others are boxed, because each request
        // would carry their size.
        let begun = match pool.take() {
            Some(mut connection) => match connection.begin(request) {
                None => Ok(connection),
                Some(unsent) => Err(Box::pin(self.exchange_on_next(Arc::clone(&pool), deadline, unsent, 1))),
            },
            None => Err(Box::pin(self.exchange_on_next(Arc::clone(&pool), deadline, request, 0))),
        };
        async move {
            match begun {
                Ok(connection) => respond(connection, pool, deadline).await,
                Err(exchange) => exchange.await,
            }
        }
    }

    /// Sends a request after this many idle connections have proved closed.
    async fn exchange_on_next(
        &self,
        pool: Arc<WorkerPool>,
        deadline: ActiveInstant,
        mut request: WorkerRequest,
        mut stale: usize,
    ) -> Result<Response<WorkerBody>, ExchangeError> {
        loop {
            let idle = if stale < MOST_STALE_CONNECTIONS { pool.take() } else { None };
            let is_new = idle.is_none();
            stale += 1;
            let mut connection = match idle {
                Some(connection) => connection,
                None => {
                    self.make_room(pool.target());
                    let opened = pause_clock::timeout_at(deadline, self.opener.open(pool.target())).await;
                    opened.map_err(|_| ExchangeError::TimedOut)?.map_err(ExchangeError::Connect)?
                }
            };
            match connection.begin(request) {
                None => return respond(connection, pool, deadline).await,
                Some(_) if is_new => return Err(ExchangeError::Broken(BrokenConnection::Unsent)),
                Some(unsent) => request = unsent,
            }
        }
    }

    /// Closes all idle connections, and waits until that is done.
    pub(crate) async fn close(&self) {
        self.opener.stop.cancel();
        self.opener.tasks.close();
        self.opener.tasks.wait().await;
    }

    /// Returns whether no connection is idle and none is being opened.
    #[cfg(test)]
    pub(super) fn has_no_tasks(&self) -> bool {
        self.opener.tasks.is_empty()
    }

    /// Closes an idle connection of any core if no more may be open. llama-server has a thread for each connection, so one
    /// too many would wait for the end of another.
    fn make_room(&self, target: &DialTarget) {
        if !target.connections.are_complete() {
            return;
        }
        let pools =
            |all: &Mutex<Pools>| all.lock().unwrap_or_else(PoisonError::into_inner).get(&target.id).map(Arc::clone);
        drop(self.pools.made().filter_map(pools).find_map(|pool| pool.take_oldest()));
    }

    fn pool(&self, target: &DialTarget, gone: &CancellationToken) -> Arc<WorkerPool> {
        let mut pools = self.pools.get().lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = pools.get(&target.id) {
            return Arc::clone(pool);
        }
        pools.retain(|_, pool| !pool.is_gone());
        let pool = WorkerPool::new(target.clone(), gone.clone(), Arc::clone(&self.opener));
        pools.insert(target.id, Arc::clone(&pool));
        pool
    }
}

/// Waits until `deadline` for the head of the response on a connection that has begun the request. Hands the connection to the body that it
/// goes on to read.
async fn respond(
    mut connection: Box<WorkerConnection>,
    pool: Arc<WorkerPool>,
    deadline: ActiveInstant,
) -> Result<Response<WorkerBody>, ExchangeError> {
    let response = poll_fn(|context| connection.poll_response_until(context, deadline)).await;
    let response = response.ok_or(ExchangeError::TimedOut)?.map_err(ExchangeError::Broken)?;
    // llama-server announces keep-alive but closes the connection after each stream, so no request must be sent on it.
    let may_be_kept = ContentKind::of(response.headers()) != ContentKind::Stream;
    Ok(response.map(|body| WorkerBody::new(body, HeldConnection { connection, pool, may_be_kept })))
}
