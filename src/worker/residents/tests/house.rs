//! Some workers that share memory, for the tests of it.

use super::super::super::bell::Bell;
use super::super::super::endpoint::in_flight::InFlight;
use super::super::super::endpoint::{Endpoint, Errand};
use super::super::super::wants::{Want, Wants};
use super::super::Residents;
use super::super::book::Lodger;
use super::super::room::Room;
use crate::awake::Instant;
use crate::telemetry::metrics::Metrics;
use http::HeaderValue;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::{JoinHandle, yield_now};
use tokio_util::task::TaskTracker;

pub(super) const BUDGET: u64 = 100;
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Some workers and the memory that they share.
pub(super) struct House {
    pub(super) residents: Residents,
    models: AtomicU64,
    bell: Arc<Bell>,
}

/// One worker.
pub(super) struct Worker {
    pub(super) lodger: Lodger,
    bell: Arc<Bell>,
    residents: Residents,
}

/// One that serves.
pub(super) struct Loaded {
    pub(super) room: Room,
    pub(super) endpoint: Arc<Endpoint>,
}

pub(super) fn metrics() -> Arc<Metrics> {
    Arc::new(Metrics::new("test"))
}

impl House {
    pub(super) fn new() -> Self {
        let bell = Arc::<Bell>::default();
        Self {
            residents: Residents::new(Some(BUDGET), PATIENCE, Arc::clone(&bell), metrics()),
            models: AtomicU64::new(0),
            bell,
        }
    }

    /// The only worker of a model.
    pub(super) fn worker(&self, need: u64) -> Worker {
        self.replica(&format!("m{}", self.models.fetch_add(1, Ordering::Relaxed)), need)
    }

    pub(super) fn replica(&self, model: &str, need: u64) -> Worker {
        let wants = Arc::new(Wants::new(Arc::clone(&self.bell)));
        let lodger = Lodger { model: model.to_owned(), need, is_pinned: false, is_preloaded: false, wants };
        Worker { lodger, bell: Arc::clone(&self.bell), residents: self.residents.clone() }
    }

    pub(super) fn taken(&self) -> u64 {
        self.residents.0.book().seats.iter().map(|seat| seat.lodger.need).sum()
    }
}

impl Worker {
    pub(super) fn want(&self) -> Want {
        Wants::want(&self.lodger.wants)
    }

    pub(super) fn asks(&self) -> JoinHandle<Room> {
        let (residents, lodger) = (self.residents.clone(), self.lodger.clone());
        TaskTracker::new().spawn(async move { residents.room(lodger).await.expect("no pinned model is in the way") })
    }

    pub(super) async fn granted(&self) -> Room {
        granted(self.asks()).await
    }

    /// It is wanted for so long and finds no room.
    pub(super) async fn waits_in_vain(&self, duration: Duration) {
        let (_want, asking) = (self.want(), self.asks());
        settle().await;
        tokio::time::advance(duration).await;
        settle().await;
        assert!(!asking.is_finished());
        asking.abort();
        settle().await;
    }

    /// It gets no room from one that has been in use for long before it has waited for all of the patience.
    pub(super) async fn has_to_wait_from_the_start(&self, house: &House) {
        let busy = house.worker(BUDGET).load().await;
        let _request = busy.begin();
        tokio::time::advance(2 * PATIENCE).await;
        let (_want, asking, began) = (self.want(), self.asks(), Instant::now());
        busy.room.dismissed().await;
        assert_eq!(began.elapsed().as_secs(), PATIENCE.as_secs());
        asking.abort();
    }

    pub(super) async fn load(&self) -> Loaded {
        self.opens(self.granted().await)
    }

    pub(super) fn opens(&self, room: Room) -> Loaded {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let endpoint = Endpoint::new(address, HeaderValue::from_static("x"), Arc::default()).unwrap();
        let endpoint = Arc::new(endpoint.ringing(Arc::clone(&self.bell)));
        room.is_ready(&endpoint);
        Loaded { room, endpoint }
    }
}

impl Loaded {
    pub(super) fn begin(&self) -> InFlight {
        Arc::clone(&self.endpoint).begin(Errand::Work(None)).ok().unwrap()
    }

    pub(super) fn has_to_go(&self) -> bool {
        self.room.dismissed.is_cancelled()
    }
}

/// What is asked for, which is to be had before patience ends.
pub(super) async fn granted(asking: JoinHandle<Room>) -> Room {
    tokio::time::timeout(PATIENCE / 2, asking).await.expect("there is room").unwrap()
}

/// Lets all tasks do what they can without time passing.
pub(super) async fn settle() {
    for _ in 0..100 {
        yield_now().await;
    }
}
