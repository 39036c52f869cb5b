use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use http::HeaderValue;
use tokio::task::{JoinHandle, yield_now};
use tokio_util::task::TaskTracker;

use super::super::eviction::{EvictionMode, HolderStage};
use super::super::ledger::NoLongerIdle;
use super::*;
use crate::worker::bounds::CLAIM_GRACE;
use crate::worker::change_signal::ChangeSignal;
use crate::worker::demand::{Demand, DemandGuard};
use crate::worker::endpoint::in_flight::InFlight;
use crate::worker::endpoint::{Endpoint, RequestClass};
use crate::worker::pin::Pin;

pub(super) const BUDGET: u64 = 100;
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// A scheduler and the workers that share its memory.
pub(super) struct Fixture {
    pub(super) scheduler: MemoryScheduler,
    models: AtomicU64,
    change_signal: Arc<ChangeSignal>,
}

/// A worker that reserves memory.
pub(super) struct Worker {
    pub(super) request: MemoryRequest,
    change_signal: Arc<ChangeSignal>,
    scheduler: MemoryScheduler,
}

/// A worker that is ready.
pub(super) struct Loaded {
    pub(super) reservation: Reservation,
    pub(super) endpoint: Arc<Endpoint>,
}

fn metrics() -> Arc<Metrics> {
    Arc::new(Metrics::new("test"))
}

impl Fixture {
    pub(super) fn new() -> Self {
        let change_signal = Arc::<ChangeSignal>::default();
        Self {
            scheduler: MemoryScheduler::new(Some(BUDGET), PATIENCE, Arc::clone(&change_signal), metrics()),
            models: AtomicU64::new(0),
            change_signal,
        }
    }

    /// Creates the only worker of a model.
    pub(super) fn worker(&self, need: u64) -> Worker {
        self.replica(&format!("m{}", self.models.fetch_add(1, Ordering::Relaxed)), need)
    }

    fn replica(&self, model: &str, need: u64) -> Worker {
        let demand = Arc::new(Demand::new(Arc::clone(&self.change_signal), Pin::Off));
        let request = MemoryRequest { model: model.to_owned(), need, is_preloaded: false, demand };
        Worker { request, change_signal: Arc::clone(&self.change_signal), scheduler: self.scheduler.clone() }
    }

    /// Returns the bytes that are granted.
    pub(super) fn used(&self) -> u64 {
        self.scheduler.0.ledger().grants.iter().map(|grant| grant.request.need).sum()
    }
}

impl Worker {
    pub(super) fn take_demand(&self) -> DemandGuard {
        Demand::guard(&self.request.demand)
    }

    pub(super) fn spawn_reserve(&self) -> JoinHandle<Reservation> {
        let (scheduler, request) = (self.scheduler.clone(), self.request.clone());
        TaskTracker::new()
            .spawn(async move { scheduler.reserve(request).await.expect("no pinned model is in the way") })
    }

    async fn granted(&self) -> Reservation {
        granted(self.spawn_reserve()).await
    }

    /// Waits with demand for `duration`, is granted nothing and gives up.
    async fn wait_ungranted(&self, duration: Duration) {
        let (_demand, reserving) = (self.take_demand(), self.spawn_reserve());
        settle().await;
        tokio::time::advance(duration).await;
        settle().await;
        assert!(!reserving.is_finished());
        reserving.abort();
        settle().await;
    }

    /// Checks that a worker that has been in use for long is evicted for this one only after all of [`PATIENCE`].
    async fn assert_waits_from_the_start(&self, fixture: &Fixture) {
        let busy = fixture.worker(BUDGET).load().await;
        let _request = busy.begin();
        tokio::time::advance(2 * PATIENCE).await;
        let (_demand, reserving, began) = (self.take_demand(), self.spawn_reserve(), ActiveInstant::now());
        busy.evicted().await;
        assert_eq!(began.elapsed().as_secs(), PATIENCE.as_secs());
        reserving.abort();
    }

    pub(super) async fn load(&self) -> Loaded {
        self.mark_ready(self.granted().await)
    }

    pub(super) fn mark_ready(&self, reservation: Reservation) -> Loaded {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let endpoint = Endpoint::new(address, HeaderValue::from_static("x"), Arc::default()).unwrap();
        let endpoint = Arc::new(endpoint.with_signal(Arc::clone(&self.change_signal)));
        reservation.mark_ready(&endpoint);
        Loaded { reservation, endpoint }
    }
}

impl Loaded {
    pub(super) fn begin(&self) -> InFlight {
        self.try_begin().unwrap()
    }

    pub(super) fn try_begin(&self) -> Option<InFlight> {
        Arc::clone(&self.endpoint).begin(RequestClass::Inference(None), None).ok()
    }

    pub(super) fn is_evicted(&self) -> bool {
        *self.reservation.evicted.borrow()
    }

    /// Waits until it is evicted.
    async fn evicted(&self) {
        let mut evicted = self.reservation.evicted.clone();
        evicted.wait_for(|is_evicted| *is_evicted).await.unwrap();
    }
}

/// Returns the reservation, which must be granted well before `PATIENCE` has passed.
pub(super) async fn granted(reserving: JoinHandle<Reservation>) -> Reservation {
    tokio::time::timeout(PATIENCE / 2, reserving).await.expect("memory is granted in time").unwrap()
}

/// Runs all tasks as far as they get without time passing.
pub(super) async fn settle() {
    for _ in 0..100 {
        yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn models_that_fit_are_loaded_and_the_least_recently_used_idle_worker_is_evicted() {
    let fixture = Fixture::new();
    let (a, b, c) = (fixture.worker(50), fixture.worker(50), fixture.worker(40));
    let (first, second) = (a.load().await, b.load().await);
    tokio::time::advance(Duration::from_secs(1)).await;
    drop(first.begin());
    let _demand = c.take_demand();
    let reserving = c.spawn_reserve();
    settle().await;
    assert!(second.is_evicted() && !first.is_evicted() && !reserving.is_finished(), "its memory is not released yet");
    assert!(Arc::clone(&second.endpoint).begin(RequestClass::Inference(None), None).is_err());
    drop(second);
    let _third = c.mark_ready(granted(reserving).await);
    assert_eq!(fixture.used(), 90);
}

#[tokio::test(start_paused = true)]
async fn pinned_busy_loading_and_wanted_workers_are_not_evicted_until_they_are_idle() {
    let fixture = Fixture::new();
    let pinned = fixture.worker(20);
    pinned.request.demand.set_pin(Pin::Configured);
    let (busy, wanted, waits) = (fixture.worker(40), fixture.worker(40), fixture.worker(60));
    let pinned = pinned.load().await;
    let busy = busy.load().await;
    let request = busy.begin();
    let demand = wanted.take_demand();
    let loading = wanted.granted().await;
    let _demand = waits.take_demand();
    let reserving = waits.spawn_reserve();
    settle().await;
    assert!(!reserving.is_finished());
    let loaded = wanted.mark_ready(loading);
    settle().await;
    assert!(!loaded.is_evicted() && !busy.is_evicted(), "one is wanted, the other busy");
    drop(request);
    settle().await;
    assert!(!busy.is_evicted(), "it is idle, but its memory is not enough");
    drop(demand);
    settle().await;
    assert!(loaded.is_evicted() && busy.is_evicted(), "both are idle, and both are needed");
    drop((loaded, busy));
    granted(reserving).await;
    assert!(!pinned.is_evicted());
}

#[tokio::test(start_paused = true)]
async fn a_busy_worker_is_drained_for_a_load_that_has_waited_and_then_the_two_take_turns() {
    let fixture = Fixture::new();
    let (a, b) = (fixture.worker(60), fixture.worker(60));
    let (_demand_a, _demand_b) = (a.take_demand(), b.take_demand());
    let first = a.load().await;
    let request = first.begin();
    let began = ActiveInstant::now();
    let reserving = b.spawn_reserve();
    first.evicted().await;
    assert_eq!(began.elapsed().as_secs(), PATIENCE.as_secs());
    assert!(
        Arc::clone(&first.endpoint).begin(RequestClass::Inference(None), None).is_err(),
        "its own requests wait in the queue"
    );
    assert!(!reserving.is_finished(), "what is in flight finishes");
    drop(request);
    first.endpoint.idle().await;
    drop(first);
    let second = b.mark_ready(granted(reserving).await);
    // The first model has demand again at once, and waits for its turn.
    let (again, began) = (a.spawn_reserve(), ActiveInstant::now());
    second.evicted().await;
    assert_eq!(began.elapsed().as_secs(), PATIENCE.as_secs());
    drop(second);
    granted(again).await;
}

#[tokio::test(start_paused = true)]
async fn loads_with_demand_come_first_and_the_longest_wait_before_the_others() {
    let fixture = Fixture::new();
    let [holder, ahead, large, small] = [100, 60, 100, 10].map(|need| fixture.worker(need));
    let held = holder.granted().await;
    let ahead_reserving = ahead.spawn_reserve();
    settle().await;
    let _demands = [large.take_demand(), small.take_demand()];
    let (large_reserving, small_reserving) = (large.spawn_reserve(), small.spawn_reserve());
    settle().await;
    drop(held);
    let reservation = granted(large_reserving).await;
    settle().await;
    assert!(!small_reserving.is_finished() && !ahead_reserving.is_finished());
    drop(reservation);
    let _small = granted(small_reserving).await;
    let _ahead = granted(ahead_reserving).await;
    assert_eq!(fixture.used(), 70);
}

#[tokio::test(start_paused = true)]
async fn a_load_that_gives_up_lets_the_next_in_the_queue_go_on() {
    let fixture = Fixture::new();
    let [holder, large, small] = [50, 80, 50].map(|need| fixture.worker(need));
    let _held = holder.granted().await;
    let _demands = [large.take_demand(), small.take_demand()];
    let large_reserving = large.spawn_reserve();
    settle().await;
    let small_reserving = small.spawn_reserve();
    settle().await;
    assert!(!small_reserving.is_finished(), "it is behind the large load");
    large_reserving.abort();
    let _small = granted(small_reserving).await;
    assert!(fixture.scheduler.0.ledger().waiting.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_model_larger_than_the_budget_runs_alone_and_a_model_without_need_does_not_wait() {
    let fixture = Fixture::new();
    let [large, small, none] = [10 * BUDGET, 10, 0].map(|need| fixture.worker(need));
    let large = large.granted().await;
    let small = small.spawn_reserve();
    settle().await;
    assert!(!small.is_finished());
    let _none = none.granted().await;
    drop(large);
    granted(small).await;
    let unlimited = MemoryScheduler::new(None, PATIENCE, Arc::default(), metrics());
    let both = [fixture.worker(u64::MAX), fixture.worker(u64::MAX)].map(|worker| worker.request);
    let [first, second] = both.map(|request| unlimited.reserve(request));
    let (first, second) = tokio::join!(first, second);
    assert!(first.is_ok() && second.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_request_that_begins_before_the_eviction_keeps_its_worker() {
    let fixture = Fixture::new();
    let (a, b) = (fixture.worker(60), fixture.worker(60));
    let first = a.load().await;
    // It was selected while it was idle; by now it is in use.
    let request = first.begin();
    let selected = [(first.reservation.id, EvictionMode::Idle)];
    {
        let mut ledger = fixture.scheduler.0.ledger();
        assert!(matches!(ledger.grants[0].holder().stage, HolderStage::InUse { .. }));
        assert!(matches!(ledger.evict(&selected), Err(NoLongerIdle)));
    }
    assert!(!first.is_evicted());
    let _demand = b.take_demand();
    let reserving = b.spawn_reserve();
    settle().await;
    assert!(!first.is_evicted() && !reserving.is_finished());
    drop(request);
    settle().await;
    assert!(first.is_evicted(), "it is idle now, and the waiting load is notified at once");
    drop(first);
    granted(reserving).await;
}

#[tokio::test(start_paused = true)]
async fn a_replica_waits_while_its_model_is_loaded_and_queues_behind_the_load_that_evicts_it() {
    let fixture = Fixture::new();
    let [first, second] = ["a", "a"].map(|model| fixture.replica(model, 60));
    let (other, small) = (fixture.worker(60), fixture.worker(40));
    let _demands = [&first, &second, &other, &small].map(Worker::take_demand);
    let loaded = first.load().await;
    let request = loaded.begin();
    let replica = second.spawn_reserve();
    settle().await;
    let _small = granted(small.spawn_reserve()).await;
    tokio::time::advance(10 * PATIENCE).await;
    settle().await;
    assert!(!loaded.is_evicted() && !replica.is_finished(), "replacing a worker of the same model gains nothing");
    let (reserving, began) = (other.spawn_reserve(), ActiveInstant::now());
    loaded.evicted().await;
    assert_eq!(began.elapsed().as_secs(), PATIENCE.as_secs());
    drop(request);
    drop(loaded);
    let other = other.mark_ready(granted(reserving).await);
    settle().await;
    assert!(!replica.is_finished(), "it has waited longer, but its model has had its turn");
    let began = ActiveInstant::now();
    other.evicted().await;
    assert_eq!(began.elapsed().as_secs(), PATIENCE.as_secs());
    drop(other);
    granted(replica).await;
}

#[tokio::test(start_paused = true)]
async fn a_load_that_is_retried_soon_keeps_its_age_until_it_is_ready() {
    let fixture = Fixture::new();
    let (a, b) = (fixture.worker(60), fixture.worker(60));
    let first = a.load().await;
    let request = first.begin();
    for _ in 0..2 {
        b.wait_ungranted(PATIENCE / 3).await;
        tokio::time::advance(Duration::from_secs(5)).await;
    }
    assert!(!first.is_evicted(), "the other model has no demand now");
    let _demand = b.take_demand();
    let reserving = b.spawn_reserve();
    settle().await;
    assert!(first.is_evicted(), "the other model has waited long enough");
    drop((first, request));
    // Its load is given up once more before it is ready.
    drop(granted(reserving).await);
    let other = fixture.worker(60);
    let held = other.load().await;
    let request = held.begin();
    tokio::time::advance(PATIENCE).await;
    let reserving = b.spawn_reserve();
    settle().await;
    assert!(held.is_evicted(), "the other worker has served for as long");
    drop((held, request));
    let second = b.mark_ready(granted(reserving).await);
    drop(second);
    b.assert_waits_from_the_start(&fixture).await;
}

#[tokio::test(start_paused = true)]
async fn a_load_that_is_retried_late_waits_from_the_start() {
    let fixture = Fixture::new();
    let b = fixture.worker(60);
    let held = fixture.worker(60).load().await;
    b.wait_ungranted(PATIENCE / 2).await;
    drop(held);
    tokio::time::advance(CLAIM_GRACE).await;
    b.assert_waits_from_the_start(&fixture).await;
}

#[tokio::test(start_paused = true)]
async fn a_load_without_demand_for_which_nothing_can_be_evicted_blocks_no_other() {
    let fixture = Fixture::new();
    let [busy, large, small] = [50, 80, 50].map(|need| fixture.worker(need));
    let busy = busy.load().await;
    let request = busy.begin();
    let large_reserving = large.spawn_reserve();
    settle().await;
    let _small = granted(small.spawn_reserve()).await;
    assert!(!large_reserving.is_finished());
    drop(request);
    settle().await;
    assert!(!busy.is_evicted(), "evicting it would not release enough");
    drop(_small);
    settle().await;
    assert!(busy.is_evicted());
    drop(busy);
    granted(large_reserving).await;
}

#[tokio::test(start_paused = true)]
async fn a_model_that_does_not_fit_beside_pinned_ones_is_reported_once_until_it_fits() {
    let fixture = Fixture::new();
    let pinned = fixture.worker(60);
    pinned.request.demand.set_pin(Pin::Configured);
    let held = pinned.load().await;
    let (large, small) = (fixture.worker(50), fixture.worker(40));
    let reported = || fixture.scheduler.0.ledger().reported_crowded_out.iter().cloned().collect::<Vec<_>>();
    let _small = granted(small.spawn_reserve()).await;
    assert!(reported().is_empty());
    for _ in 0..2 {
        let refused = fixture.scheduler.reserve(large.request.clone()).await.err().unwrap();
        assert_eq!(refused.0, [pinned.request.model.as_str()], "it is refused at once");
        assert!(reported().iter().eq([&large.request.model]));
    }
    let (scheduler, request) = (fixture.scheduler.clone(), large.request.clone());
    let waiting = TaskTracker::new().spawn(async move { scheduler.wait_until_admissible(&request).await });
    settle().await;
    assert!(!waiting.is_finished());
    held.reservation.mark_leaving();
    settle().await;
    assert!(waiting.is_finished(), "the pinned worker is leaving");
    drop((held, _small));
    granted(large.spawn_reserve()).await;
    assert!(reported().is_empty());
}
