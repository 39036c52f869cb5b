use super::super::eviction::{EvictionMode, HolderStage};
use super::super::ledger::NoLongerIdle;
use super::*;
use crate::worker::bounds::CLAIM_GRACE;
use crate::worker::change_signal::ChangeSignal;
use crate::worker::demand::{Demand, DemandGuard};
use crate::worker::endpoint::in_flight::InFlight;
use crate::worker::endpoint::{Endpoint, RequestClass};
use http::HeaderValue;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::task::{JoinHandle, yield_now};
use tokio_util::task::TaskTracker;

const BUDGET: u64 = 100;
const PATIENCE: Duration = Duration::from_secs(30);

/// Some workers and the memory that they share.
struct House {
    residents: MemoryScheduler,
    models: AtomicU64,
    bell: Arc<ChangeSignal>,
}

/// One worker.
struct Worker {
    lodger: MemoryRequest,
    bell: Arc<ChangeSignal>,
    residents: MemoryScheduler,
}

/// One that serves.
struct Loaded {
    room: Reservation,
    endpoint: Arc<Endpoint>,
}

fn metrics() -> Arc<Metrics> {
    Arc::new(Metrics::new("test"))
}

impl House {
    fn new() -> Self {
        let bell = Arc::<ChangeSignal>::default();
        Self {
            residents: MemoryScheduler::new(Some(BUDGET), PATIENCE, Arc::clone(&bell), metrics()),
            models: AtomicU64::new(0),
            bell,
        }
    }

    /// The only worker of a model.
    fn worker(&self, need: u64) -> Worker {
        self.replica(&format!("m{}", self.models.fetch_add(1, Ordering::Relaxed)), need)
    }

    fn replica(&self, model: &str, need: u64) -> Worker {
        let demand = Arc::new(Demand::new(Arc::clone(&self.bell)));
        let lodger = MemoryRequest { model: model.to_owned(), need, is_pinned: false, is_preloaded: false, demand };
        Worker { lodger, bell: Arc::clone(&self.bell), residents: self.residents.clone() }
    }

    fn taken(&self) -> u64 {
        self.residents.0.ledger().grants.iter().map(|seat| seat.request.need).sum()
    }
}

impl Worker {
    fn want(&self) -> DemandGuard {
        Demand::guard(&self.lodger.demand)
    }

    fn asks(&self) -> JoinHandle<Reservation> {
        let (residents, lodger) = (self.residents.clone(), self.lodger.clone());
        TaskTracker::new().spawn(async move { residents.reserve(lodger).await.expect("no pinned model is in the way") })
    }

    async fn granted(&self) -> Reservation {
        granted(self.asks()).await
    }

    /// It is wanted for so long and finds no room.
    async fn waits_in_vain(&self, duration: Duration) {
        let (_want, asking) = (self.want(), self.asks());
        settle().await;
        tokio::time::advance(duration).await;
        settle().await;
        assert!(!asking.is_finished());
        asking.abort();
        settle().await;
    }

    /// It gets no room from one that has been in use for long before it has waited for all of the patience.
    async fn has_to_wait_from_the_start(&self, house: &House) {
        let busy = house.worker(BUDGET).load().await;
        let _request = busy.begin();
        tokio::time::advance(2 * PATIENCE).await;
        let (_want, asking, began) = (self.want(), self.asks(), ActiveInstant::now());
        busy.room.evicted().await;
        assert_eq!(began.elapsed().as_secs(), PATIENCE.as_secs());
        asking.abort();
    }

    async fn load(&self) -> Loaded {
        self.opens(self.granted().await)
    }

    fn opens(&self, room: Reservation) -> Loaded {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let endpoint = Endpoint::new(address, HeaderValue::from_static("x"), Arc::default()).unwrap();
        let endpoint = Arc::new(endpoint.with_signal(Arc::clone(&self.bell)));
        room.mark_ready(&endpoint);
        Loaded { room, endpoint }
    }
}

impl Loaded {
    fn begin(&self) -> InFlight {
        Arc::clone(&self.endpoint).begin(RequestClass::Inference(None)).ok().unwrap()
    }

    fn has_to_go(&self) -> bool {
        self.room.evicted.is_cancelled()
    }
}

/// What is asked for, which is to be had before patience ends.
async fn granted(asking: JoinHandle<Reservation>) -> Reservation {
    tokio::time::timeout(PATIENCE / 2, asking).await.expect("there is room").unwrap()
}

/// Lets all tasks do what they can without time passing.
async fn settle() {
    for _ in 0..100 {
        yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_fits_is_loaded_and_what_is_idle_goes_the_longest_unused_first() {
    let house = House::new();
    let (a, b, c) = (house.worker(50), house.worker(50), house.worker(40));
    let (first, second) = (a.load().await, b.load().await);
    tokio::time::advance(Duration::from_secs(1)).await;
    drop(first.begin());
    let _want = c.want();
    let asking = c.asks();
    settle().await;
    assert!(second.has_to_go() && !first.has_to_go() && !asking.is_finished(), "its memory is not there yet");
    assert!(Arc::clone(&second.endpoint).begin(RequestClass::Inference(None)).is_err());
    drop(second);
    let _third = c.opens(granted(asking).await);
    assert_eq!(house.taken(), 90);
}

#[tokio::test(start_paused = true)]
async fn what_is_pinned_busy_loading_or_wanted_stays_until_it_is_idle() {
    let house = House::new();
    let mut pinned = house.worker(20);
    pinned.lodger.is_pinned = true;
    let (busy, wanted, waits) = (house.worker(40), house.worker(40), house.worker(60));
    let pinned = pinned.load().await;
    let busy = busy.load().await;
    let request = busy.begin();
    let want = wanted.want();
    let loading = wanted.granted().await;
    let _want = waits.want();
    let asking = waits.asks();
    settle().await;
    assert!(!asking.is_finished());
    let loaded = wanted.opens(loading);
    settle().await;
    assert!(!loaded.has_to_go() && !busy.has_to_go(), "one is wanted, the other busy");
    drop(request);
    settle().await;
    assert!(!busy.has_to_go(), "it is idle, but not enough");
    drop(want);
    settle().await;
    assert!(loaded.has_to_go() && busy.has_to_go(), "both are idle, and both are needed");
    drop((loaded, busy));
    granted(asking).await;
    assert!(!pinned.has_to_go());
}

#[tokio::test(start_paused = true)]
async fn a_busy_one_is_drained_once_for_whoever_has_waited_and_then_they_take_turns() {
    let house = House::new();
    let (a, b) = (house.worker(60), house.worker(60));
    let (_want_a, _want_b) = (a.want(), b.want());
    let first = a.load().await;
    let request = first.begin();
    let began = ActiveInstant::now();
    let asking = b.asks();
    first.room.evicted().await;
    assert_eq!(began.elapsed().as_secs(), PATIENCE.as_secs());
    assert!(Arc::clone(&first.endpoint).begin(RequestClass::Inference(None)).is_err(), "its own requests wait in line");
    assert!(!asking.is_finished(), "what is in flight finishes");
    drop(request);
    first.endpoint.idle().await;
    drop(first);
    let second = b.opens(granted(asking).await);
    // It is wanted again at once, and waits its turn.
    let (again, began) = (a.asks(), ActiveInstant::now());
    second.room.evicted().await;
    assert_eq!(began.elapsed().as_secs(), PATIENCE.as_secs());
    drop(second);
    granted(again).await;
}

#[tokio::test(start_paused = true)]
async fn who_came_first_is_first_and_who_is_wanted_comes_before_who_is_not() {
    let house = House::new();
    let [holder, ahead, large, small] = [100, 60, 100, 10].map(|need| house.worker(need));
    let held = holder.granted().await;
    let ahead_asks = ahead.asks();
    settle().await;
    let _wants = [large.want(), small.want()];
    let (large_asks, small_asks) = (large.asks(), small.asks());
    settle().await;
    drop(held);
    let room = granted(large_asks).await;
    settle().await;
    assert!(!small_asks.is_finished() && !ahead_asks.is_finished());
    drop(room);
    let _small = granted(small_asks).await;
    let _ahead = granted(ahead_asks).await;
    assert_eq!(house.taken(), 70);
}

#[tokio::test(start_paused = true)]
async fn whoever_gives_up_lets_the_next_in_line_go_on() {
    let house = House::new();
    let [holder, large, small] = [50, 80, 50].map(|need| house.worker(need));
    let _held = holder.granted().await;
    let _wants = [large.want(), small.want()];
    let large_asks = large.asks();
    settle().await;
    let small_asks = small.asks();
    settle().await;
    assert!(!small_asks.is_finished(), "it is behind the other");
    large_asks.abort();
    let _small = granted(small_asks).await;
    assert!(house.residents.0.ledger().waiting.is_empty());
}

#[tokio::test(start_paused = true)]
async fn who_needs_more_than_there_is_runs_alone_and_who_needs_nothing_waits_for_nobody() {
    let house = House::new();
    let [large, small, none] = [10 * BUDGET, 10, 0].map(|need| house.worker(need));
    let large = large.granted().await;
    let small = small.asks();
    settle().await;
    assert!(!small.is_finished());
    let _none = none.granted().await;
    drop(large);
    granted(small).await;
    let unlimited = MemoryScheduler::new(None, PATIENCE, Arc::default(), metrics());
    let both = [house.worker(u64::MAX), house.worker(u64::MAX)].map(|worker| worker.lodger);
    let [first, second] = both.map(|lodger| unlimited.reserve(lodger));
    let (first, second) = tokio::join!(first, second);
    assert!(first.is_ok() && second.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_quicker_than_the_eviction_keeps_its_worker() {
    let house = House::new();
    let (a, b) = (house.worker(60), house.worker(60));
    let first = a.load().await;
    // The plan was made while it was idle; by now it is not.
    let request = first.begin();
    let going = [(first.room.id, EvictionMode::Idle)];
    {
        let mut book = house.residents.0.ledger();
        assert!(matches!(book.grants[0].holder().stage, HolderStage::InUse { .. }));
        assert!(matches!(book.evict(&going), Err(NoLongerIdle)));
    }
    assert!(!first.has_to_go());
    let _want = b.want();
    let asking = b.asks();
    settle().await;
    assert!(!first.has_to_go() && !asking.is_finished());
    drop(request);
    settle().await;
    assert!(first.has_to_go(), "it is idle now, and that is heard of at once");
    drop(first);
    granted(asking).await;
}

#[tokio::test(start_paused = true)]
async fn a_replica_waits_beside_its_model_and_comes_after_those_for_whom_its_model_goes() {
    let house = House::new();
    let [first, second] = ["a", "a"].map(|model| house.replica(model, 60));
    let (other, small) = (house.worker(60), house.worker(40));
    let _wants = [&first, &second, &other, &small].map(Worker::want);
    let loaded = first.load().await;
    let request = loaded.begin();
    let replica = second.asks();
    settle().await;
    let _small = granted(small.asks()).await;
    tokio::time::advance(10 * PATIENCE).await;
    settle().await;
    assert!(!loaded.has_to_go() && !replica.is_finished(), "nothing would be won");
    let (asking, began) = (other.asks(), ActiveInstant::now());
    loaded.room.evicted().await;
    assert_eq!(began.elapsed().as_secs(), PATIENCE.as_secs());
    drop(request);
    drop(loaded);
    let other = other.opens(granted(asking).await);
    settle().await;
    assert!(!replica.is_finished(), "it has waited for longer, but its model has had its turn");
    let began = ActiveInstant::now();
    other.room.evicted().await;
    assert_eq!(began.elapsed().as_secs(), PATIENCE.as_secs());
    drop(other);
    granted(replica).await;
}

#[tokio::test(start_paused = true)]
async fn whoever_is_wanted_again_soon_goes_on_waiting_from_when_it_began_until_it_is_loaded() {
    let house = House::new();
    let (a, b) = (house.worker(60), house.worker(60));
    let first = a.load().await;
    let request = first.begin();
    for _ in 0..2 {
        b.waits_in_vain(PATIENCE / 3).await;
        tokio::time::advance(Duration::from_secs(5)).await;
    }
    assert!(!first.has_to_go(), "nobody wants the other one now");
    let _want = b.want();
    let asking = b.asks();
    settle().await;
    assert!(first.has_to_go(), "it has been wanted for long enough");
    drop((first, request));
    // Its load is left once more before it is over.
    drop(granted(asking).await);
    let other = house.worker(60);
    let held = other.load().await;
    let request = held.begin();
    tokio::time::advance(PATIENCE).await;
    let asking = b.asks();
    settle().await;
    assert!(held.has_to_go(), "the other one has served for as long");
    drop((held, request));
    let second = b.opens(granted(asking).await);
    drop(second);
    b.has_to_wait_from_the_start(&house).await;
}

#[tokio::test(start_paused = true)]
async fn whoever_is_wanted_again_late_waits_from_the_start() {
    let house = House::new();
    let b = house.worker(60);
    let held = house.worker(60).load().await;
    b.waits_in_vain(PATIENCE / 2).await;
    drop(held);
    tokio::time::advance(CLAIM_GRACE).await;
    b.has_to_wait_from_the_start(&house).await;
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_behind_one_that_nobody_waits_for_and_for_which_nothing_can_go() {
    let house = House::new();
    let [busy, large, small] = [50, 80, 50].map(|need| house.worker(need));
    let busy = busy.load().await;
    let request = busy.begin();
    let large_asks = large.asks();
    settle().await;
    let _small = granted(small.asks()).await;
    assert!(!large_asks.is_finished());
    drop(request);
    settle().await;
    assert!(!busy.has_to_go(), "it would not help");
    drop(_small);
    settle().await;
    assert!(busy.has_to_go());
    drop(busy);
    granted(large_asks).await;
}

#[tokio::test(start_paused = true)]
async fn that_there_is_no_room_beside_what_is_pinned_is_noted_once_until_there_is() {
    let house = House::new();
    let mut pinned = house.worker(60);
    pinned.lodger.is_pinned = true;
    let held = pinned.load().await;
    let (large, small) = (house.worker(50), house.worker(40));
    let noted = || house.residents.0.ledger().reported_crowded_out.iter().cloned().collect::<Vec<_>>();
    let _small = granted(small.asks()).await;
    assert!(noted().is_empty());
    for _ in 0..2 {
        let refused = house.residents.reserve(large.lodger.clone()).await.err().unwrap();
        assert_eq!(refused.0, [pinned.lodger.model.as_str()], "and not only after a while");
        assert!(noted().iter().eq([&large.lodger.model]));
    }
    let (residents, lodger) = (house.residents.clone(), large.lodger.clone());
    let hopes = TaskTracker::new().spawn(async move { residents.wait_until_admissible(&lodger).await });
    settle().await;
    assert!(!hopes.is_finished());
    held.room.mark_leaving();
    settle().await;
    assert!(hopes.is_finished(), "it is on its way out");
    drop((held, _small));
    granted(large.asks()).await;
    assert!(noted().is_empty());
}
