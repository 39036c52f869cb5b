//! The store as a whole: one link for each core, and what they share.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use redis::{ProtocolVersion, RedisConnectionInfo};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::bounds::{CONNECT_TIME, LAST_TELL_TIME};
use super::health::StoreHealth;
use super::link::StoreLink;
use super::orders::{HoldId, LimitTake, LimitVerdict, LimitsTaken, Settlement};
use crate::cores::PerCore;
use crate::dial::Dialer;
use crate::hex::hex;
use crate::settings::options::Access;
use crate::settings::values::LimitsStoreAddress;
use crate::telemetry::metrics::Metrics;

/// The Valkey or Redis server through which replicas share the limits of keys.
pub struct LimitsStore {
    pub(super) address: LimitsStoreAddress,
    /// As whom a connection is used, and for which database.
    pub(super) login: RedisConnectionInfo,
    pub(super) dialer: Dialer,
    /// `LIMITS_STORE_TIMEOUT`
    pub(super) longest_wait: Duration,
    /// The name of this run of the program, under which its use is counted.
    pub(super) gateway: String,
    links: PerCore<Arc<StoreLink>>,
    pub(super) health: StoreHealth,
    next_hold: AtomicU64,
    /// By how much the store's clock is ahead of that of this machine, in microseconds.
    clock_ahead: AtomicI64,
    pub(super) stop: CancellationToken,
    pub(super) tasks: TaskTracker,
}

impl LimitsStore {
    /// Returns a store without a connection, for this many cores; `None` without `LIMITS_STORE`.
    ///
    /// # Errors
    /// There is no randomness for the name of this run.
    pub(super) fn new(access: &Access, cores: usize, metrics: &Arc<Metrics>) -> io::Result<Option<Self>> {
        let Some(address) = access.limits_store.clone() else { return Ok(None) };
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        Ok(Some(Self {
            login: login(&address),
            health: StoreHealth::new(address.to_string(), cores, Arc::clone(metrics)),
            address,
            dialer: Dialer::new(CONNECT_TIME),
            longest_wait: access.limits_store_timeout.0,
            gateway: hex(&random),
            links: PerCore::new(|| Arc::new(StoreLink::new())),
            next_hold: AtomicU64::new(0),
            clock_ahead: AtomicI64::new(0),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }))
    }

    /// Returns the link of the core that calls.
    pub fn link(&self) -> Arc<StoreLink> {
        Arc::clone(self.links.get())
    }

    /// Returns the number of a request that will hold something.
    pub fn new_hold(&self) -> HoldId {
        HoldId(self.next_hold.fetch_add(1, Ordering::Relaxed))
    }

    /// Asks the store for the limits of a request; `None` if those of this replica alone count, because no answer came in
    /// time. What it holds is renewed after that in either case, until [`LimitsStore::settle`].
    pub async fn take(&self, link: &StoreLink, take: &LimitTake) -> Option<LimitsTaken> {
        let answer = link.take(take, &self.gateway, self.longest_wait).await;
        // Not before the answer: a renewal in between would hold a place for a request that is refused.
        if answer.as_ref().map_or(true, |taken| taken.verdict == LimitVerdict::Taken) {
            link.held.add(take);
        }
        match answer {
            Ok(taken) => {
                self.set_clock(taken.time, Timestamp::now());
                Some(taken)
            }
            Err(fallback) => {
                self.health.count(fallback);
                None
            }
        }
    }

    /// Tells the store that a request has ended, in the background.
    pub fn settle(&self, link: &StoreLink, settlement: Settlement) {
        if let Some(hold) = settlement.hold {
            link.forget(hold);
        }
        if !link.end(settlement) {
            self.health.count_lost(1);
        }
    }

    /// Returns what the store's clock shows at this time of this machine's, so that days and months begin at the same moment
    /// for all replicas.
    pub fn wall_clock(&self, time: Timestamp) -> Timestamp {
        let ahead = SignedDuration::from_micros(self.clock_ahead.load(Ordering::Relaxed));
        time.saturating_add(ahead).unwrap_or(time)
    }

    pub(super) fn set_clock(&self, of_store: Timestamp, of_machine: Timestamp) {
        let ahead = of_store.duration_since(of_machine).as_micros();
        self.clock_ahead.store(i64::try_from(ahead).unwrap_or(0), Ordering::Relaxed);
    }

    /// Tells the store what has ended, and closes the connections. Takes a bounded time.
    pub async fn close(&self) {
        self.stop.cancel();
        self.tasks.close();
        let _ = tokio::time::timeout(LAST_TELL_TIME * 2, self.tasks.wait()).await;
    }
}

fn login(address: &LimitsStoreAddress) -> RedisConnectionInfo {
    let login = RedisConnectionInfo::default()
        .set_db(address.database)
        .set_protocol(ProtocolVersion::RESP2)
        .set_lib_name(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
    let login = match &address.user {
        Some(user) => login.set_username(user),
        None => login,
    };
    match &address.password {
        Some(password) => login.set_password(&password.0),
        None => login,
    }
}

impl fmt::Debug for LimitsStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LimitsStore").field("address", &self.address).finish_non_exhaustive()
    }
}
