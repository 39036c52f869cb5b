//! No worker is evicted for nothing: only for a load that needs its memory, and that begins unless it gives up.

use proptest::prelude::*;

use super::super::eviction::EvictionMode;
use super::tests::{BUDGET, Fixture, Loaded, PATIENCE, Worker, granted, settle};
use super::*;
use crate::worker::demand::DemandGuard;
use crate::worker::endpoint::in_flight::InFlight;

/// Regression: a worker that had finished its requests was stopped although the load that it was evicted for had given up.
#[tokio::test(start_paused = true)]
async fn a_busy_worker_is_recalled_when_the_load_that_it_was_evicted_for_gives_up() {
    let fixture = Fixture::new();
    let (a, b) = (fixture.worker(60), fixture.worker(60));
    let mut first = a.load().await;
    let request = first.begin();
    tokio::time::advance(PATIENCE).await;
    let (demand, reserving) = (b.take_demand(), b.spawn_reserve());
    settle().await;
    tokio::time::advance(PATIENCE).await;
    settle().await;
    assert!(first.is_evicted() && first.reservation.eviction_change().await);
    reserving.abort();
    settle().await;
    assert!(!first.is_evicted() && !first.reservation.eviction_change().await);
    drop((demand, request));
    assert!(!first.reservation.confirm_leaving(), "it is not to stop");
    assert_eq!(fixture.used(), 60);
}

#[tokio::test(start_paused = true)]
async fn a_busy_worker_is_recalled_when_the_load_finds_memory_elsewhere() {
    let fixture = Fixture::new();
    let (a, b, c) = (fixture.worker(50), fixture.worker(50), fixture.worker(40));
    let (first, second) = (a.load().await, b.load().await);
    let requests = [first.begin(), second.begin()];
    let (_demand, reserving) = (c.take_demand(), c.spawn_reserve());
    settle().await;
    tokio::time::advance(PATIENCE).await;
    settle().await;
    assert!(first.is_evicted() && !second.is_evicted());
    // The other one crashes, or is unloaded by an order.
    second.reservation.mark_leaving();
    assert!(!first.is_evicted(), "its memory is not needed any more");
    drop((second, requests));
    let _third = granted(reserving).await;
    assert!(!first.reservation.confirm_leaving());
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_stops_already_is_not_recalled() {
    let fixture = Fixture::new();
    let (a, b) = (fixture.worker(60), fixture.worker(60));
    let first = a.load().await;
    let (_demand, reserving) = (b.take_demand(), b.spawn_reserve());
    settle().await;
    assert!(first.is_evicted() && first.reservation.confirm_leaving());
    reserving.abort();
    settle().await;
    assert!(first.is_evicted() && first.reservation.confirm_leaving());
}

/// Regression: when one of several idle workers was in use again, those before it had been evicted already, although
/// the load could not begin without all of them.
#[tokio::test(start_paused = true)]
async fn no_worker_is_evicted_if_another_that_is_needed_too_is_in_use_again() {
    let fixture = Fixture::new();
    let workers = [50, 50].map(|need| fixture.worker(need));
    let (first, second) = (workers[0].load().await, workers[1].load().await);
    let selected = [&first, &second].map(|loaded| (loaded.reservation.id, EvictionMode::Idle));
    let request = second.begin();
    assert!(fixture.scheduler.0.ledger().evict(&selected).is_err());
    assert!(!first.is_evicted() && !second.is_evicted());
    drop(first.begin());
    drop(request);
    let demand = workers[1].take_demand();
    assert!(fixture.scheduler.0.ledger().evict(&selected).is_err());
    assert!(!first.is_evicted() && !second.is_evicted());
    drop(demand);
    assert!(fixture.scheduler.0.ledger().evict(&selected).is_ok());
    assert!(first.is_evicted() && second.is_evicted());
}

/// Regression: the small worker was evicted for a load that gave up, and stayed evicted when the next load, which was too
/// large beside the others, evicted those: with them gone it fits beside the small one.
#[tokio::test(start_paused = true)]
async fn a_busy_worker_is_recalled_when_larger_ones_are_evicted_after_it() {
    use SimulationStep::{GiveUp, Loaded, Wait, Want};
    let mut simulation = Simulation::new(&[46, 62, 7, 39, 55]);
    let small_and_medium = [(2, Want), (2, Loaded), (3, Want), (3, Loaded)];
    let waiting = [(4, Want), (0, Want), (1, Want), (0, Wait), (0, Wait), (4, GiveUp)];
    for (at, step) in small_and_medium.iter().chain(&waiting) {
        simulation.apply(*at, step).await;
        simulation.grant_waiting();
        simulation.check();
    }
    simulation.run_to_end().await;
}

/// What happens to one of the workers.
#[derive(Debug, Clone)]
enum SimulationStep {
    /// A request waits for it.
    Want,
    /// No request waits for it any more.
    GiveUp,
    /// It is started without demand.
    StartAhead,
    Loaded,
    LoadFails,
    Begin,
    Finish,
    /// Its owner looks at its eviction.
    Owner,
    Crash,
    /// Its memory is released.
    Stopped,
    Wait,
}

/// A worker with the part of its owner, step by step.
struct Simulated {
    worker: Worker,
    demand: Option<DemandGuard>,
    life: SimulatedLife,
}

enum SimulatedLife {
    Asleep,
    Waiting(u64),
    Loading(Reservation),
    Ready(Loaded, Vec<InFlight>),
    Stopping(#[expect(dead_code, reason = "held for its drop")] Reservation),
}

struct Simulation {
    fixture: Fixture,
    workers: Vec<Simulated>,
}

impl Simulation {
    fn new(needs: &[u64]) -> Self {
        let fixture = Fixture::new();
        let asleep =
            |need: &u64| Simulated { worker: fixture.worker(*need), demand: None, life: SimulatedLife::Asleep };
        Self { workers: needs.iter().map(asleep).collect(), fixture }
    }

    fn shared(&self) -> &SharedLedger {
        &self.fixture.scheduler.0
    }

    async fn apply(&mut self, at: usize, step: &SimulationStep) {
        let scheduler = self.fixture.scheduler.clone();
        let shared = &scheduler.0;
        let Simulated { worker, demand, life } = &mut self.workers[at];
        let before = std::mem::replace(life, SimulatedLife::Asleep);
        *life = match (step, before) {
            (SimulationStep::Want, SimulatedLife::Asleep) => {
                *demand = Some(worker.take_demand());
                SimulatedLife::Waiting(shared.join(worker.request.clone()))
            }
            (SimulationStep::Want, life) => {
                *demand = Some(worker.take_demand());
                life
            }
            (SimulationStep::StartAhead, SimulatedLife::Asleep) => {
                SimulatedLife::Waiting(shared.join(worker.request.clone()))
            }
            (SimulationStep::GiveUp, SimulatedLife::Waiting(id)) => {
                *demand = None;
                drop(WaitingGuard { id, shared });
                SimulatedLife::Asleep
            }
            (SimulationStep::GiveUp, life) => {
                *demand = None;
                life
            }
            (SimulationStep::Loaded, SimulatedLife::Loading(reservation)) => {
                SimulatedLife::Ready(worker.mark_ready(reservation), Vec::new())
            }
            (SimulationStep::LoadFails, SimulatedLife::Loading(_)) => SimulatedLife::Asleep,
            (SimulationStep::Begin, SimulatedLife::Ready(loaded, mut requests)) => {
                requests.extend(loaded.try_begin());
                SimulatedLife::Ready(loaded, requests)
            }
            (SimulationStep::Finish, SimulatedLife::Ready(loaded, mut requests)) => {
                requests.pop();
                SimulatedLife::Ready(loaded, requests)
            }
            (SimulationStep::Crash, SimulatedLife::Ready(loaded, _)) => {
                loaded.reservation.mark_leaving();
                SimulatedLife::Stopping(loaded.reservation)
            }
            (SimulationStep::Owner, SimulatedLife::Ready(loaded, requests)) => {
                if !loaded.is_evicted() {
                    loaded.endpoint.reopen();
                } else if requests.is_empty() {
                    let is_needed = is_needed_now(shared, loaded.reservation.id);
                    if loaded.reservation.confirm_leaving() {
                        assert!(is_needed, "it is stopped for nothing");
                        self.workers[at].life = SimulatedLife::Stopping(loaded.reservation);
                        return;
                    }
                }
                SimulatedLife::Ready(loaded, requests)
            }
            (SimulationStep::Stopped, SimulatedLife::Stopping(_)) => SimulatedLife::Asleep,
            (SimulationStep::Wait, life) => {
                tokio::time::advance(PATIENCE / 2).await;
                life
            }
            (_, life) => life,
        };
    }

    /// Lets all waiting loads take their next steps, as the change signal does.
    fn grant_waiting(&mut self) {
        loop {
            let mut is_changed = false;
            for worker in &mut self.workers {
                let SimulatedLife::Waiting(id) = worker.life else { continue };
                if let Ok(reservation) = self.fixture.scheduler.try_grant(id) {
                    worker.life = SimulatedLife::Loading(reservation);
                    is_changed = true;
                }
            }
            if !is_changed {
                return;
            }
        }
    }

    fn check(&self) {
        assert!(self.fixture.used() <= BUDGET);
        let ids: Vec<u64> = self.shared().ledger().evicted().iter().map(|evicted| evicted.id).collect();
        for id in ids {
            assert!(is_needed_now(self.shared(), id), "{id} stays evicted for nothing");
        }
    }

    /// Lets everything end that has begun: afterwards no load with demand waits.
    async fn run_to_end(&mut self) {
        for _ in 0..6 * self.workers.len() {
            for at in 0..self.workers.len() {
                if matches!(self.workers[at].life, SimulatedLife::Ready(..)) {
                    // It has served what waited for it.
                    self.workers[at].demand = None;
                }
                for step in [
                    SimulationStep::Loaded,
                    SimulationStep::Finish,
                    SimulationStep::Finish,
                    SimulationStep::Owner,
                    SimulationStep::Stopped,
                    SimulationStep::Wait,
                ] {
                    self.apply(at, &step).await;
                    self.grant_waiting();
                    self.check();
                }
            }
        }
        for worker in &self.workers {
            let waits = matches!(worker.life, SimulatedLife::Waiting(_)) && worker.demand.is_some();
            assert!(!waits, "a load never begins that workers were evicted for");
        }
    }
}

/// Whether a waiting load does not fit beside this evicted worker and those that stay.
fn is_needed_now(shared: &SharedLedger, evicted: u64) -> bool {
    let ledger = shared.ledger();
    let holders = ledger.holders();
    let of_evicted = ledger.evicted();
    let Some(own) = of_evicted.iter().find(|holder| holder.id == evicted) else { return false };
    let is_staying = |holder: &&MemoryHolder<'_>| holder.stage != super::super::eviction::HolderStage::Leaving;
    let staying: u64 = holders.iter().filter(is_staying).map(|holder| holder.need).sum();
    ledger.waiting.iter().any(|waiter| {
        waiter.request.model != own.model && staying + own.need + waiter.request.need.min(BUDGET) > BUDGET
    })
}

proptest! {
    #[test]
    fn no_worker_is_evicted_without_a_load_that_needs_it_and_begins(
        needs in proptest::collection::vec(1..=BUDGET, 2..6),
        steps in proptest::collection::vec((0..6usize, step()), 0..80),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut simulation = Simulation::new(&needs);
            for (at, step) in &steps {
                simulation.apply(at % needs.len(), step).await;
                simulation.grant_waiting();
                simulation.check();
            }
            simulation.run_to_end().await;
        });
    }
}

fn step() -> impl Strategy<Value = SimulationStep> {
    prop_oneof![
        6 => Just(SimulationStep::Want),
        3 => Just(SimulationStep::GiveUp),
        1 => Just(SimulationStep::StartAhead),
        6 => Just(SimulationStep::Loaded),
        1 => Just(SimulationStep::LoadFails),
        5 => Just(SimulationStep::Begin),
        4 => Just(SimulationStep::Finish),
        5 => Just(SimulationStep::Owner),
        1 => Just(SimulationStep::Crash),
        4 => Just(SimulationStep::Stopped),
        5 => Just(SimulationStep::Wait),
    ]
}
