//! The connection of one core, as requests use it: they never wait for it to be opened.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::aio::{ConnectionLike as _, MultiplexedConnection};
use redis::{ErrorKind, RedisError, RedisResult, ServerErrorKind, Value};
use tokio::sync::{Notify, mpsc};

use super::bounds::{FAILURES_IN_A_ROW, MOST_UNTOLD};
use super::health::{Fallback, StoreProblem};
use super::held::HeldTable;
use super::orders::{HoldId, LimitTake, LimitsTaken, Settlement};
use super::script_calls::{ScriptCall, ScriptName, StoreScript, read_taken};

/// A connection whose server has the scripts.
#[derive(Clone)]
pub(super) struct ScriptConnection {
    pub(super) connection: MultiplexedConnection,
    /// The hashes of the scripts, in the order of [`StoreScript::ALL`].
    pub(super) hashes: Arc<[String]>,
}

/// The link of one core to the store.
pub struct StoreLink {
    /// `None` while there is no connection that answers in time.
    open: Mutex<Option<ScriptConnection>>,
    /// Takes that have failed since the last answer.
    failures: AtomicU32,
    /// What has made requests give the connection up, for the keeper.
    given_up: Mutex<Option<StoreProblem>>,
    /// Wakes the keeper when they have.
    pub(super) broken: Notify,
    ended: mpsc::Sender<Settlement>,
    /// Taken by the keeper.
    pub(super) untold: Mutex<Option<mpsc::Receiver<Settlement>>>,
    pub(super) held: HeldTable,
}

impl ScriptConnection {
    /// Returns whether this is a clone of the other one: each connection that is opened has hashes of its own.
    fn is_same_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.hashes, &other.hashes)
    }

    /// Returns how this call names its script.
    pub(super) fn name_of<C: ScriptCall>(&self) -> ScriptName<'_> {
        let place = StoreScript::ALL.iter().position(|script| *script == C::SCRIPT);
        place.and_then(|place| self.hashes.get(place)).map_or(ScriptName::Text, |hash| ScriptName::Hash(hash))
    }

    /// Makes a call. A server that has forgotten the scripts gets the text, in a second round trip.
    pub(super) async fn run<C: ScriptCall>(&mut self, call: &C, gateway: &str) -> RedisResult<Value> {
        let command = call.command(self.name_of::<C>(), gateway);
        match self.connection.req_packed_command(&command).await.and_then(Value::extract_error) {
            Err(error) if is_without_script(&error) => {
                let command = call.command(ScriptName::Text, gateway);
                self.connection.req_packed_command(&command).await.and_then(Value::extract_error)
            }
            answer => answer,
        }
    }
}

/// Returns whether the server has forgotten the scripts.
pub(super) fn is_without_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

impl StoreLink {
    /// Returns a link without a connection.
    pub(super) fn new() -> Self {
        let (ended, untold) = mpsc::channel(MOST_UNTOLD);
        Self {
            open: Mutex::default(),
            failures: AtomicU32::new(0),
            given_up: Mutex::default(),
            broken: Notify::new(),
            ended,
            untold: Mutex::new(Some(untold)),
            held: HeldTable::default(),
        }
    }

    /// Asks for the limits of a request, and waits for the answer until this time has passed.
    ///
    /// # Errors
    /// Why the limits of this replica alone count.
    pub(super) async fn take(
        &self,
        take: &LimitTake,
        gateway: &str,
        longest: Duration,
    ) -> Result<LimitsTaken, Fallback> {
        let Some(mut connection) = self.lock().clone() else { return Err(Fallback::Away) };
        let asked = tokio::time::timeout(longest, connection.run(take, gateway)).await;
        let taken = asked.map(|answer| answer.and_then(|answer| read_taken(answer, take.accounts.len())));
        match taken {
            Ok(Ok(taken)) => {
                self.failures.store(0, Ordering::Relaxed);
                Ok(taken)
            }
            Ok(Err(error)) => {
                self.record_failure(&connection, StoreProblem::of(&error), error.is_unrecoverable_error());
                Err(Fallback::Error)
            }
            Err(_) => {
                let problem = format!("{FAILURES_IN_A_ROW} requests in a row had no answer within {longest:?}");
                self.record_failure(&connection, StoreProblem::Away(problem), false);
                Err(Fallback::Slow)
            }
        }
    }

    /// Gives this connection up after too many failures in a row, or at once if it is broken. A late failure of an earlier
    /// connection says nothing about the one that is open.
    fn record_failure(&self, connection: &ScriptConnection, problem: StoreProblem, is_broken: bool) {
        let mut open = self.lock();
        if open.as_ref().is_none_or(|open| !open.is_same_as(connection)) {
            return;
        }
        let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        if is_broken || failures >= FAILURES_IN_A_ROW {
            *open = None;
            *self.given_up.lock().unwrap_or_else(PoisonError::into_inner) = Some(problem);
            self.broken.notify_one();
        }
    }

    /// Adds what has ended to what the keeper tells. Returns whether there was room for it.
    #[must_use = "what is lost is counted"]
    pub(super) fn end(&self, settlement: Settlement) -> bool {
        self.ended.try_send(settlement).is_ok()
    }

    /// Lets requests use this connection.
    pub(super) fn open(&self, connection: ScriptConnection) {
        self.failures.store(0, Ordering::Relaxed);
        self.given_up.lock().unwrap_or_else(PoisonError::into_inner).take();
        *self.lock() = Some(connection);
    }

    /// Lets requests use no connection. Returns what has made them give it up, if they have.
    pub(super) fn close(&self) -> Option<StoreProblem> {
        self.lock().take();
        self.given_up.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Forgets what a request held.
    pub(super) fn forget(&self, hold: HoldId) {
        self.held.remove(hold);
    }

    fn lock(&self) -> MutexGuard<'_, Option<ScriptConnection>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
