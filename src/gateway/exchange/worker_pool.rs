//! Keeps idle connections of one core to one worker, closes them in time, and opens one ahead of need.
//!
//! A task, the keeper, runs while a connection is idle. It closes those that are too old, that the worker has closed, or
//! whose worker is gone. Requests do not wake it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::idle_connections::IdleConnections;
use super::worker_connection::WorkerConnection;
use crate::dial::{BoxError, DialTarget, Dialer};
use crate::gateway::bounds::UPSTREAM_IDLE;
use crate::pause_clock;

/// What opens connections, and the tasks that keep them.
pub(super) struct Opener {
    pub(super) dialer: Dialer,
    pub(super) tasks: TaskTracker,
    /// Cancelled when all idle connections have to be closed.
    pub(super) stop: CancellationToken,
}

/// The connections of one core to one worker.
pub(super) struct WorkerPool {
    target: DialTarget,
    /// Cancelled when the worker has ended.
    gone: CancellationToken,
    opener: Arc<Opener>,
    state: Mutex<PoolState>,
    attention: Arc<Attention>,
    /// The same, as connections take it.
    waker: Waker,
}

struct PoolState {
    idle: IdleConnections<Box<WorkerConnection>>,
    has_keeper: bool,
    /// Whether a connection is being opened that no request waits for.
    is_opening_spare: bool,
}

/// Wakes the keeper: an idle connection has something to say, which can only be its end.
#[derive(Default)]
struct Attention(Notify);

impl Wake for Attention {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.notify_one();
    }
}

impl Opener {
    /// Opens a connection to this worker.
    ///
    /// # Errors
    /// What [`crate::dial::explain`] turns into a sentence.
    pub(super) async fn open(&self, target: &DialTarget) -> Result<Box<WorkerConnection>, BoxError> {
        let open = target.connections.add();
        let link = self.dialer.connect(target).await?;
        Ok(WorkerConnection::new(link, open))
    }
}

impl WorkerPool {
    /// Creates an empty pool for this worker, which has ended once `gone` is cancelled.
    pub(super) fn new(target: DialTarget, gone: CancellationToken, opener: Arc<Opener>) -> Arc<Self> {
        let attention = Arc::<Attention>::default();
        let state = PoolState { idle: IdleConnections::default(), has_keeper: false, is_opening_spare: false };
        let waker = Waker::from(Arc::clone(&attention));
        Arc::new(Self { target, gone, opener, state: Mutex::new(state), attention, waker })
    }

    /// Returns where the worker is reached.
    pub(super) fn target(&self) -> &DialTarget {
        &self.target
    }

    /// Returns whether the worker has ended.
    pub(super) fn is_gone(&self) -> bool {
        self.gone.is_cancelled()
    }

    /// Takes the idle connection that was used last.
    pub(super) fn take(&self) -> Option<Box<WorkerConnection>> {
        self.lock().idle.take(pause_clock::kernel_now())
    }

    /// Takes a connection back whose response has ended. It is kept if another request may be sent on it; if not, the
    /// next one is opened in its place.
    pub(super) fn give_back(self: &Arc<Self>, mut connection: Box<WorkerConnection>, may_be_kept: bool) {
        if may_be_kept && self.target.has_many_connections && connection.is_idle(&self.waker) {
            self.keep_idle(connection);
        } else {
            drop(connection);
            self.open_spare();
        }
    }

    /// Takes the connection that has been idle longest, to close it.
    pub(super) fn take_oldest(&self) -> Option<Box<WorkerConnection>> {
        self.lock().idle.take_oldest()
    }

    /// Keeps a connection that is idle, and wakes the keeper, for the next request. Closes the oldest if more are open than may be.
    fn keep_idle(self: &Arc<Self>, connection: Box<WorkerConnection>) {
        let mut state = self.lock();
        state.idle.put(connection, pause_clock::kernel_now());
        let evicted = if self.target.connections.are_too_many() { state.idle.take_oldest() } else { None };
        let has_keeper = std::mem::replace(&mut state.has_keeper, true);
        drop(state);
        drop(evicted);
        if !has_keeper {
            self.opener.tasks.spawn(Arc::clone(self).keep(Instant::now() + UPSTREAM_IDLE));
        }
    }

    /// Closes idle connections in time, until there are none. The first one is due at `expiry`; it may be taken and
    /// replaced by others before, which is no reason to end.
    async fn keep(self: Arc<Self>, expiry: Instant) {
        let mut next = Some(expiry);
        while let Some(expiry) = next {
            tokio::select! {
                () = self.attention.0.notified() => {}
                () = sleep_until(expiry) => {}
                () = self.gone.cancelled() => {}
                () = self.opener.stop.cancelled() => {}
            }
            next = self.tidy();
        }
    }

    /// Closes the connections that have come to their end. Returns when the next one will; `None` if none is left, which
    /// ends the keeper.
    fn tidy(&self) -> Option<Instant> {
        let mut state = self.lock();
        if self.is_gone() || self.opener.stop.is_cancelled() {
            state.idle.clear();
        }
        let expiry = state.idle.tidy(Instant::now(), |connection| connection.is_idle(&self.waker));
        state.has_keeper = expiry.is_some();
        expiry
    }

    /// Opens a connection for the next request if there is none. llama-server closes the connection of each stream, so the
    /// next request would have to wait for a new one. Connections to remote backends are not opened unasked.
    fn open_spare(self: &Arc<Self>) {
        let mut state = self.lock();
        let may_have_spare = self.target.local_address.is_some() && self.target.has_many_connections;
        let is_wanted = may_have_spare && state.idle.is_empty() && !state.is_opening_spare;
        if !is_wanted || self.is_gone() || self.opener.stop.is_cancelled() {
            return;
        }
        state.is_opening_spare = true;
        drop(state);
        let pool = Arc::clone(self);
        self.opener.tasks.spawn(async move {
            let opened = tokio::select! {
                opened = pool.opener.open(&pool.target) => opened.ok(),
                () = pool.gone.cancelled() => None,
                () = pool.opener.stop.cancelled() => None,
            };
            pool.lock().is_opening_spare = false;
            // A failure is for the next request to find.
            if let Some(mut connection) = opened
                && connection.is_idle(&pool.waker)
            {
                pool.keep_idle(connection);
            }
        });
    }

    fn lock(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
