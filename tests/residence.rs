//! Which workers are loaded, as their owners decide it: on demand, within a memory budget, by order. With the fake
//! llama-server and without a gateway.
//!
//! A program of its own: whoever starts workers becomes the parent of all orphans, which tests of other things must not.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what is wrong by panicking")]
#![allow(clippy::disallowed_methods, reason = "the environment of the test is the one that workers inherit from")]

#[path = "support/mod.rs"]
mod support;

use llamagate::platform;
use llamagate::settings::{Environment, Inputs, options::Engine, resolve};
use llamagate::telemetry::files::LogFolder;
use llamagate::telemetry::metrics::{Metrics, ModelLabels};
use llamagate::worker::{
    InFlight, MemoryBudget, Need, NotAccepted, Plan, Program, RequestClass, Spawner, WorkerCondition, WorkerContext,
    WorkerHandle, WorkerLoss, WorkerState, supervise,
};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use support::model_file::Kind;
use support::resources::{cmdline, environ, pid_gone};
use support::scripted::{Journal, ScriptedModel};
use support::wait::{READY, SOON, STOPS, eventually, patient};
use support::{fake_server, gateway};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const BUDGET: u64 = 100;
/// No test waits for that.
const LONG: Duration = Duration::from_secs(600);
/// Every test that needs it waits for that.
const SHORT: Duration = Duration::from_millis(300);

/// What all tests share, for there is one thread that forks in a program.
fn shared() -> &'static (Runtime, Spawner) {
    static SHARED: OnceLock<(Runtime, Spawner)> = OnceLock::new();
    SHARED.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let spawner = Spawner::start(runtime.handle().clone(), None).unwrap();
        (runtime, spawner)
    })
}

/// The workers of one test.
struct House {
    workers: Arc<WorkerContext>,
    metrics: Arc<Metrics>,
    folder: TempDir,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// One of them.
struct Worker {
    handle: WorkerHandle,
    model: ScriptedModel,
}

impl House {
    fn new(patience: Duration) -> Self {
        let house = Self::unmeasured(patience);
        house.measured();
        house
    }

    /// One of which nobody knows yet how much memory it has.
    fn unmeasured(patience: Duration) -> Self {
        let metrics = Arc::new(Metrics::new("test"));
        let (runtime, spawner) = shared();
        let _entered = runtime.enter();
        let workers = Arc::new(WorkerContext::new(spawner.clone(), Arc::clone(&metrics), patience).unwrap());
        let folder = tempfile::tempdir().unwrap();
        Self { workers, metrics, folder, stop: CancellationToken::new(), tasks: TaskTracker::new() }
    }

    fn measured(&self) {
        self.workers.set_memory_budget(MemoryBudget { bytes: Some(BUDGET), is_of_gpus: false });
    }

    /// A worker that does what the script says, and whose plan is changed before it is supervised.
    fn worker(&self, name: &str, script: Value, change: impl FnOnce(&mut Plan)) -> Worker {
        let model = ScriptedModel::create(self.folder.path(), &format!("{name}.gguf"), Kind::Chat, &script);
        Worker { handle: self.replica(name, 0, &model, change), model }
    }

    fn replica(&self, name: &str, number: u32, model: &ScriptedModel, change: impl FnOnce(&mut Plan)) -> WorkerHandle {
        let mut plan = Plan {
            model: name.to_owned(),
            number,
            program: Program::LlamaServer {
                binary: fake_server::program().into(),
                file: model.path.clone(),
                kind: llamagate::models::ModelKind::Chat,
            },
            engine: engine(),
            environment: Environment::capture().for_child(),
            logs: LogFolder::open(self.folder.path().join("logs"), 3),
            instance: "test".to_owned(),
            preload: false,
            pinned: false,
            need: Need::Configured(60),
        };
        change(&mut plan);
        let _entered = shared().0.enter();
        supervise(plan, &self.workers, Arc::default(), self.stop.clone(), &self.tasks)
    }

    fn ready_of(&self, model: &str) -> i64 {
        self.metrics.workers_ready.get_or_create(&ModelLabels { model: model.to_owned() }).get()
    }
}

impl Drop for House {
    fn drop(&mut self) {
        self.stop.cancel();
        self.tasks.close();
        let ended = shared().0.block_on(async { tokio::time::timeout(patient(STOPS), self.tasks.wait()).await });
        assert!(ended.is_ok() || std::thread::panicking(), "every owner ends");
    }
}

impl Worker {
    #[track_caller]
    fn is(&self, state: WorkerState) {
        eventually(&format!("it is {state}"), READY, || self.handle.state().state == state);
    }

    #[track_caller]
    fn ready(&self) {
        eventually("it serves", READY, || self.handle.endpoint().is_some());
    }

    #[track_caller]
    fn sleeps(&self) {
        eventually("it sleeps", STOPS, || {
            self.handle.state() == WorkerCondition { state: WorkerState::Stopped, is_asleep: true }
        });
    }

    fn begin(&self) -> Result<InFlight, Option<NotAccepted>> {
        self.handle.endpoint().ok_or(None)?.begin(RequestClass::Inference(None)).map_err(Some)
    }

    fn journal(&self) -> Journal {
        self.model.journal()
    }

    fn pid(&self) -> u32 {
        self.journal().starts().pop().unwrap()["pid"].as_u64().unwrap() as u32
    }
}

/// How workers run unless a test says otherwise.
fn engine() -> Engine {
    let port = gateway::backend_port().to_string();
    let environment = Environment::from([("MODEL_PATH", "/m.gguf"), ("HOME", "/tmp"), ("PORT_BACKEND", &port)]);
    let platform = platform::detect(|name| environment.get(name), Path::new("/nowhere"));
    resolve(&Inputs { environment, ..Inputs::default() }, &platform).unwrap().config.settings.engine
}

#[test]
fn nothing_is_started_before_it_is_known_how_much_memory_there_is() {
    let (house, other) = (House::unmeasured(LONG), House::new(LONG));
    let preloaded = house.worker("a", json!({}), |plan| plan.preload = true);
    let wanted = house.worker("b", json!({}), |_| {});
    let _want = wanted.handle.demand();
    // By the time that this one serves, those would have been started.
    other.worker("a", json!({}), |plan| plan.preload = true).ready();
    assert_eq!(
        (preloaded.handle.state(), wanted.handle.state()),
        (
            WorkerCondition { state: WorkerState::Stopped, is_asleep: false },
            WorkerCondition { state: WorkerState::Stopped, is_asleep: true }
        )
    );
    assert!(preloaded.journal().starts().is_empty() && wanted.journal().starts().is_empty());
    house.measured();
    wanted.ready();
}

#[test]
fn a_worker_ends_though_it_was_never_known_how_much_memory_there_is() {
    let house = House::unmeasured(LONG);
    let worker = house.worker("a", json!({}), |plan| plan.preload = true);
    house.stop.cancel();
    eventually("its owner ends", SOON, || house.tasks.is_empty());
    assert!(worker.journal().starts().is_empty());
}

#[test]
fn one_that_is_not_preloaded_sleeps_until_it_is_wanted() {
    let house = House::new(LONG);
    let worker = house.worker("a", json!({}), |_| {});
    assert_eq!(worker.handle.state(), WorkerCondition { state: WorkerState::Stopped, is_asleep: true });
    assert!(worker.journal().starts().is_empty() && !worker.handle.has_been_ready());
    let want = worker.handle.demand();
    worker.ready();
    drop(want);
    assert!(worker.begin().is_ok(), "it stays");
}

#[test]
fn an_idle_model_makes_room_for_one_that_is_wanted_and_comes_back() {
    let house = House::new(LONG);
    let (a, b) = (house.worker("a", json!({}), |_| {}), house.worker("b", json!({}), |_| {}));
    for (this, other) in [(&a, &b), (&b, &a), (&a, &b)] {
        let _want = this.handle.demand();
        this.ready();
        assert!(other.handle.endpoint().is_none());
        assert!(other.journal().starts().is_empty() || pid_gone(other.pid()), "its memory was given back first");
    }
    assert_eq!((a.journal().starts().len(), b.journal().starts().len()), (2, 1));
    assert_eq!(a.handle.status().restarts, 0, "it did not die");
}

#[test]
fn what_is_pinned_busy_or_wanted_stays_and_the_wait_ends_when_nobody_wants_it() {
    let house = House::new(LONG);
    let busy = house.worker("busy", json!({}), |plan| plan.need = Need::Configured(40));
    let pinned = house.worker("pinned", json!({}), |plan| (plan.need, plan.pinned) = (Need::Configured(40), true));
    let waits = house.worker("waits", json!({}), |_| {});
    drop((busy.handle.demand(), pinned.handle.demand()));
    let wants = [busy.handle.demand(), pinned.handle.demand()];
    busy.ready();
    pinned.ready();
    let request = busy.begin().ok().unwrap();
    drop(wants);
    let want = waits.handle.demand();
    waits.is(WorkerState::Starting);
    drop(want);
    waits.sleeps();
    let _want = waits.handle.demand();
    waits.is(WorkerState::Starting);
    assert!(busy.handle.endpoint().is_some() && waits.journal().starts().is_empty());
    drop(request);
    waits.ready();
    assert!(pinned.handle.endpoint().is_some());
    busy.sleeps();
}

#[test]
fn what_does_not_fit_beside_a_pinned_model_fails_at_once_and_is_loaded_when_there_is_room() {
    let house = House::new(LONG);
    let pinned = house.worker("pinned", json!({}), |plan| (plan.preload, plan.pinned) = (true, true));
    pinned.ready();
    let ahead = house.worker("ahead", json!({}), |plan| (plan.preload, plan.pinned) = (true, true));
    let asked = house.worker("asked", json!({}), |_| {});
    let want = asked.handle.demand();
    for worker in [&ahead, &asked] {
        eventually("it has failed", SOON, || worker.handle.status().failed_loads > 0);
        worker.sleeps();
        let status = worker.handle.status();
        let hint = status.last_exit.unwrap().hint.unwrap();
        assert_eq!(hint, "it does not fit beside the pinned models (pinned); raise memory_budget or unpin one");
        assert!(status.restarts == 0 && worker.journal().starts().is_empty());
    }
    drop(want);
    let failed = asked.handle.status().failed_loads;
    let _want = asked.handle.demand();
    eventually("it is tried again", SOON, || asked.handle.status().failed_loads > failed);
    asked.sleeps();
    pinned.handle.unload();
    ahead.ready();
    assert_eq!(ahead.handle.status().restarts, 0);
}

#[test]
fn the_metrics_show_how_much_memory_there_is_is_taken_and_is_needed() {
    let house = House::new(LONG);
    let worker = house.worker("a", json!({}), |_| {});
    let need = || house.metrics.model_memory.get_or_create(&ModelLabels { model: "a".to_owned() }).get();
    eventually("its need is shown", SOON, || need() == 60);
    assert_eq!((house.metrics.memory_budget.get(), house.metrics.memory_used.get()), (100, 0));
    drop({
        let want = worker.handle.demand();
        worker.ready();
        want
    });
    assert_eq!(house.metrics.memory_used.get(), 60);
    worker.handle.unload();
    worker.sleeps();
    eventually("it has been given back", SOON, || house.metrics.memory_used.get() == 0);
}

#[test]
fn a_command_that_cannot_be_started_is_called_by_its_name() {
    let house = House::new(LONG);
    let argv = vec!["/nowhere/server".to_owned()];
    let worker = house.worker("a", json!({}), |plan| {
        plan.program = Program::Command { argv, health: "/health".to_owned(), model: None };
    });
    let _want = worker.handle.demand();
    eventually("it has failed", SOON, || worker.handle.status().last_exit.is_some());
    let hint = worker.handle.status().last_exit.unwrap().hint.unwrap();
    assert_eq!(hint, "`command` (server), or the interpreter that it names, is missing: check the file");
}

#[test]
fn a_busy_model_finishes_and_goes_when_another_has_waited_long_enough() {
    let house = House::new(SHORT);
    let (a, b) = (house.worker("a", json!({}), |_| {}), house.worker("b", json!({}), |_| {}));
    let want_a = a.handle.demand();
    a.ready();
    let request = a.begin().ok().unwrap();
    let _want_b = b.handle.demand();
    a.is(WorkerState::Draining);
    assert_eq!(a.begin().err(), Some(None), "its requests wait in line");
    assert_eq!(a.handle.state(), WorkerCondition { state: WorkerState::Draining, is_asleep: true });
    let gone = request.gone();
    assert!(b.journal().starts().is_empty() && !pid_gone(a.pid()));
    drop(request);
    b.ready();
    shared().0.block_on(async { tokio::time::timeout(patient(SOON), gone).await }).expect("it is told in the end");
    // Its requests still wait, and have their turn too.
    a.ready();
    drop(want_a);
}

#[test]
fn one_that_dies_while_it_finishes_is_not_started_for_nobody() {
    let house = House::new(LONG);
    let a = house.worker("a", json!({}), |plan| plan.preload = true);
    a.ready();
    let request = a.begin().ok().unwrap();
    a.handle.unload();
    a.is(WorkerState::Draining);
    a.model.control().tell("die code 1").unwrap();
    a.sleeps();
    assert_eq!(a.journal().starts().len(), 1);
    drop(request);
}

#[test]
fn orders_put_a_model_away_and_wake_it() {
    let house = House::new(LONG);
    let a = house.worker("a", json!({}), |plan| plan.preload = true);
    a.ready();
    a.handle.unload();
    a.sleeps();
    a.handle.unload();
    a.handle.wake();
    a.ready();
    let request = a.begin().ok().unwrap();
    a.handle.unload();
    a.is(WorkerState::Draining);
    assert!(!pid_gone(a.pid()), "it finishes what it serves");
    a.handle.wake();
    drop(request);
    a.ready();
    assert_eq!(a.journal().starts().len(), 3);
}

#[test]
fn one_that_was_given_up_can_be_woken_and_its_restarts_count_anew() {
    let house = House::new(LONG);
    let dies = json!({"exit_at_start": {"code": 1}});
    let script = json!({"starts": [dies, dies, dies, {}]});
    let a = house.worker("a", script, |plan| {
        plan.preload = true;
        plan.engine.restart_limit = 1;
    });
    a.is(WorkerState::Failed);
    assert!(matches!(a.handle.loss(), Some(WorkerLoss::GivenUp(Some(_)))));
    drop(a.handle.demand());
    assert_eq!((a.handle.state().state, a.journal().starts().len()), (WorkerState::Failed, 2));
    a.handle.wake();
    a.ready();
    assert_eq!(a.journal().starts().len(), 4);
}

#[test]
fn workers_that_start_together_have_ports_of_their_own_and_all_count_as_ready() {
    let house = House::new(LONG);
    let none = |plan: &mut Plan| (plan.preload, plan.need) = (true, Need::Configured(1));
    let a = house.worker("a", json!({}), none);
    let replicas: Vec<WorkerHandle> = (1..4).map(|number| house.replica("a", number, &a.model, none)).collect();
    eventually("all are ready", READY, || house.ready_of("a") == 4);
    let mut addresses: Vec<_> = replicas
        .iter()
        .chain([&a.handle])
        .map(|handle| handle.endpoint().unwrap().target.authority.to_string())
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    assert_eq!(addresses.len(), 4);
    replicas[0].unload();
    eventually("one less is", STOPS, || house.ready_of("a") == 3);
}

#[test]
fn what_a_load_took_counts_for_the_next_one() {
    let house = House::new(LONG);
    let small = house.worker("small", json!({}), |plan| plan.need = Need::Estimated(40));
    let other = house.worker("other", json!({}), |plan| plan.need = Need::Configured(40));
    drop(small.handle.demand());
    let wants = [small.handle.demand(), other.handle.demand()];
    small.ready();
    other.ready();
    drop(wants);
    small.handle.unload();
    small.sleeps();
    // It has turned out to take far more than 60 bytes.
    let _want = small.handle.demand();
    small.ready();
    other.sleeps();
}

#[test]
fn a_command_lives_the_same_life() {
    let house = House::new(LONG);
    let script = json!({"daemon": "lingers", "load_ms": 300});
    let model = ScriptedModel::create(house.folder.path(), "c.gguf", Kind::Chat, &script);
    let path = model.path.to_str().unwrap();
    let argv = [fake_server::program(), "-m", path, "--host", "127.0.0.1", "--port", "{port}"];
    let home = ("HOME".to_owned(), "/home/somebody".to_owned());
    let program =
        Program::Command { argv: argv.map(str::to_owned).to_vec(), health: "/v1/models".to_owned(), model: None };
    let handle = house.replica("c", 0, &model, |plan| {
        (plan.program, plan.preload) = (program, true);
        plan.environment.push(home);
    });
    let worker = Worker { handle, model };
    worker.ready();
    let (first, daemon) = (worker.pid(), worker.journal().wait_for_event("grandchild")["grandchild"].clone());
    let daemon = daemon.as_u64().unwrap() as u32;
    assert!(environ(first).contains(&"HOME=/home/somebody".to_owned()));
    assert!(!cmdline(first).iter().any(|word| word.contains("key")), "{:?}", cmdline(first));
    assert!(worker.journal().requests("/metrics").is_empty() && worker.journal().requests("/props").is_empty());
    assert!(!worker.journal().requests("/v1/models").is_empty());
    worker.model.control().tell("die code 1").unwrap();
    eventually("it is started again", READY, || worker.journal().starts().len() == 2);
    assert!(pid_gone(daemon), "what it left is gone before");
    worker.ready();
    worker.handle.unload();
    worker.sleeps();
    assert!(pid_gone(worker.pid()));
}
