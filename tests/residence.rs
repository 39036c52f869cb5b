//! Which workers are loaded: on demand, within the memory budget, and by commands of the operator. With the fake
//! llama-server and without a gateway.
//!
//! This is a separate test program, because a process that starts workers adopts all orphans, which would disturb other
//! tests.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "workers inherit the environment of the test")]

#[path = "support/mod.rs"]
mod support;

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use llamagate::platform;
use llamagate::settings::catalogue::LoadMode;
use llamagate::settings::{Environment, Inputs, options::Engine, resolve};
use llamagate::telemetry::files::{LogFolder, LogRules};
use llamagate::telemetry::metrics::{Metrics, ModelLabels};
use llamagate::worker::{
    CompanionFiles, InFlight, KeySuspensions, LearnedMemory, MemoryBudget, Need, NotAccepted, Plan, Program,
    RequestClass, ServedFiles, Spawner, WorkerCondition, WorkerContext, WorkerHandle, WorkerLoss, WorkerState,
    supervise,
};
use support::model_file::Kind;
use support::resources::{cmdline, environ, pid_gone};
use support::scripted::{Journal, ScriptedModel};
use support::wait::{READY, SOON, STOPS, eventually, patient};
use support::{fake_server, gateway};

/// The memory budget of each fixture, in bytes.
const BUDGET: u64 = 100;
/// A wait for memory that ends in no test.
const LONG: Duration = Duration::from_secs(600);
/// A wait for memory that the test sits out.
const SHORT: Duration = Duration::from_millis(300);

/// The runtime and the spawner that all tests share: a program has only one thread that forks.
fn shared() -> &'static (Runtime, Spawner) {
    static SHARED: OnceLock<(Runtime, Spawner)> = OnceLock::new();
    SHARED.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let spawner = Spawner::start(runtime.handle().clone(), None).unwrap();
        (runtime, spawner)
    })
}

/// What a test needs to supervise workers.
struct Fixture {
    workers: Arc<WorkerContext>,
    metrics: Arc<Metrics>,
    learned: LearnedMemory,
    folder: TempDir,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// A worker and its model file.
struct Worker {
    handle: WorkerHandle,
    model: ScriptedModel,
}

impl Fixture {
    fn new(patience: Duration) -> Self {
        let fixture = Self::without_budget(patience);
        fixture.set_budget();
        fixture
    }

    /// Makes a fixture whose memory budget is not known until `set_budget`.
    fn without_budget(patience: Duration) -> Self {
        let metrics = Arc::new(Metrics::new("test"));
        let (runtime, spawner) = shared();
        let _entered = runtime.enter();
        let suspensions = Arc::new(KeySuspensions::new(Duration::from_secs(600)));
        let workers =
            Arc::new(WorkerContext::new(spawner.clone(), Arc::clone(&metrics), suspensions, patience).unwrap());
        let (folder, learned) = (tempfile::tempdir().unwrap(), LearnedMemory::without_file());
        Self { workers, metrics, learned, folder, stop: CancellationToken::new(), tasks: TaskTracker::new() }
    }

    fn set_budget(&self) {
        self.workers.set_memory_budget(MemoryBudget { bytes: Some(BUDGET), is_of_gpus: false }, self.learned.clone());
    }

    /// Starts to supervise a worker with this script; `change` adapts its plan.
    fn add_worker(&self, name: &str, script: Value, change: impl FnOnce(&mut Plan)) -> Worker {
        let model = ScriptedModel::create(self.folder.path(), &format!("{name}.gguf"), Kind::Chat, &script);
        Worker { handle: self.add_replica(name, 0, &model, change), model }
    }

    /// Starts to supervise replica `number` of a model.
    fn add_replica(
        &self,
        name: &str,
        number: u32,
        model: &ScriptedModel,
        change: impl FnOnce(&mut Plan),
    ) -> WorkerHandle {
        let mut plan = Plan {
            model: name.to_owned(),
            number,
            program: Program::LlamaServer {
                binary: fake_server::program().into(),
                file: model.path.clone(),
                kind: llamagate::models::ModelKind::Chat,
            },
            engine: engine(),
            load_mode: LoadMode::default(),
            projector: None,
            companions: CompanionFiles::default(),
            files: ServedFiles::default(),
            gives_token_vectors: false,
            environment: Environment::capture().for_child(),
            logs: LogFolder::open(
                self.folder.path().join("logs"),
                LogRules { is_written: true, keep: 3, part_size: None },
            ),
            instance: "test".to_owned(),
            preload: false,
            pinned: false,
            need: Need::Configured(60),
        };
        change(&mut plan);
        let _entered = shared().0.enter();
        supervise(plan, &self.workers, Arc::default(), self.stop.clone(), &self.tasks)
    }

    fn ready_workers(&self, model: &str) -> i64 {
        self.metrics.workers_ready.get_or_create(&ModelLabels { model: model.to_owned() }).get()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.stop.cancel();
        self.tasks.close();
        let ended = shared().0.block_on(async { tokio::time::timeout(patient(STOPS), self.tasks.wait()).await });
        assert!(ended.is_ok() || std::thread::panicking(), "all supervisors end");
    }
}

impl Worker {
    #[track_caller]
    fn wait_state(&self, state: WorkerState) {
        eventually(&format!("the worker is {state}"), READY, || self.handle.state().state == state);
    }

    #[track_caller]
    fn wait_ready(&self) {
        eventually("the worker serves", READY, || self.handle.endpoint().is_some());
    }

    #[track_caller]
    fn wait_asleep(&self) {
        eventually("the worker sleeps", STOPS, || {
            self.handle.state() == WorkerCondition { state: WorkerState::Stopped, is_asleep: true }
        });
    }

    fn begin(&self) -> Result<InFlight, Option<NotAccepted>> {
        self.handle.endpoint().ok_or(None)?.begin(RequestClass::Inference(None), None).map_err(Some)
    }

    fn journal(&self) -> Journal {
        self.model.journal()
    }

    fn pid(&self) -> u32 {
        self.journal().starts().pop().unwrap()["pid"].as_u64().unwrap() as u32
    }
}

/// The settings of workers, unless a test changes them.
fn engine() -> Engine {
    let port = gateway::backend_port().to_string();
    let environment = Environment::from([("MODEL_PATH", "/m.gguf"), ("HOME", "/tmp"), ("PORT_BACKEND", &port)]);
    let platform = platform::detect(|name| environment.get(name), Path::new("/nowhere"));
    resolve(&Inputs { environment, ..Inputs::default() }, &platform).unwrap().config.settings.engine
}

#[test]
fn no_worker_starts_before_the_memory_budget_is_known() {
    let (fixture, other) = (Fixture::without_budget(LONG), Fixture::new(LONG));
    let preloaded = fixture.add_worker("a", json!({}), |plan| plan.preload = true);
    let on_demand = fixture.add_worker("b", json!({}), |_| {});
    let _want = on_demand.handle.demand();
    // By the time this worker serves, the others would have been started.
    other.add_worker("a", json!({}), |plan| plan.preload = true).wait_ready();
    assert_eq!(
        (preloaded.handle.state(), on_demand.handle.state()),
        (
            WorkerCondition { state: WorkerState::Stopped, is_asleep: false },
            WorkerCondition { state: WorkerState::Stopped, is_asleep: true }
        )
    );
    assert!(preloaded.journal().starts().is_empty() && on_demand.journal().starts().is_empty());
    fixture.set_budget();
    on_demand.wait_ready();
}

#[test]
fn a_worker_ends_although_the_memory_budget_was_never_known() {
    let fixture = Fixture::without_budget(LONG);
    let worker = fixture.add_worker("a", json!({}), |plan| plan.preload = true);
    fixture.stop.cancel();
    eventually("its supervisor ends", SOON, || fixture.tasks.is_empty());
    assert!(worker.journal().starts().is_empty());
}

#[test]
fn a_model_without_preload_sleeps_until_there_is_demand() {
    let fixture = Fixture::new(LONG);
    let worker = fixture.add_worker("a", json!({}), |_| {});
    assert_eq!(worker.handle.state(), WorkerCondition { state: WorkerState::Stopped, is_asleep: true });
    assert!(worker.journal().starts().is_empty() && !worker.handle.has_been_ready());
    let want = worker.handle.demand();
    worker.wait_ready();
    drop(want);
    assert!(worker.begin().is_ok(), "the worker stays loaded");
}

#[test]
fn an_idle_model_is_evicted_for_a_model_in_demand_and_loaded_again_later() {
    let fixture = Fixture::new(LONG);
    let (a, b) = (fixture.add_worker("a", json!({}), |_| {}), fixture.add_worker("b", json!({}), |_| {}));
    for (this, other) in [(&a, &b), (&b, &a), (&a, &b)] {
        let _want = this.handle.demand();
        this.wait_ready();
        assert!(other.handle.endpoint().is_none());
        assert!(
            other.journal().starts().is_empty() || pid_gone(other.pid()),
            "the other worker ends before this one starts"
        );
    }
    assert_eq!((a.journal().starts().len(), b.journal().starts().len()), (2, 1));
    assert_eq!(a.handle.status().restarts, 0, "an eviction is no restart");
}

#[test]
fn pinned_and_busy_models_and_those_in_demand_stay_and_the_wait_ends_with_the_demand() {
    let fixture = Fixture::new(LONG);
    let busy = fixture.add_worker("busy", json!({}), |plan| plan.need = Need::Configured(40));
    let pinned =
        fixture.add_worker("pinned", json!({}), |plan| (plan.need, plan.pinned) = (Need::Configured(40), true));
    let waits = fixture.add_worker("waits", json!({}), |_| {});
    drop((busy.handle.demand(), pinned.handle.demand()));
    let wants = [busy.handle.demand(), pinned.handle.demand()];
    busy.wait_ready();
    pinned.wait_ready();
    let request = busy.begin().ok().unwrap();
    drop(wants);
    let want = waits.handle.demand();
    waits.wait_state(WorkerState::Starting);
    drop(want);
    waits.wait_asleep();
    let _want = waits.handle.demand();
    waits.wait_state(WorkerState::Starting);
    assert!(busy.handle.endpoint().is_some() && waits.journal().starts().is_empty());
    drop(request);
    waits.wait_ready();
    assert!(pinned.handle.endpoint().is_some());
    busy.wait_asleep();
}

#[test]
fn a_model_that_does_not_fit_beside_a_pinned_one_fails_at_once_and_is_loaded_when_memory_is_free() {
    let fixture = Fixture::new(LONG);
    let pinned = fixture.add_worker("pinned", json!({}), |plan| (plan.preload, plan.pinned) = (true, true));
    pinned.wait_ready();
    let ahead = fixture.add_worker("ahead", json!({}), |plan| (plan.preload, plan.pinned) = (true, true));
    let asked = fixture.add_worker("asked", json!({}), |_| {});
    let want = asked.handle.demand();
    for worker in [&ahead, &asked] {
        eventually("the load has failed", SOON, || worker.handle.status().failed_loads > 0);
        worker.wait_asleep();
        let status = worker.handle.status();
        let hint = status.last_exit.unwrap().hint.unwrap();
        assert_eq!(hint, "it does not fit beside the pinned models (pinned); raise memory_budget or unpin one");
        assert!(status.restarts == 0 && worker.journal().starts().is_empty());
    }
    drop(want);
    let failed = asked.handle.status().failed_loads;
    let _want = asked.handle.demand();
    eventually("the load is tried again", SOON, || asked.handle.status().failed_loads > failed);
    asked.wait_asleep();
    pinned.handle.unload();
    ahead.wait_ready();
    assert_eq!(ahead.handle.status().restarts, 0);
}

#[test]
fn the_metrics_show_the_memory_budget_the_used_and_the_needed_memory() {
    let fixture = Fixture::new(LONG);
    let worker = fixture.add_worker("a", json!({}), |_| {});
    let need = || fixture.metrics.model_memory.get_or_create(&ModelLabels { model: "a".to_owned() }).get();
    eventually("the needed memory is shown", SOON, || need() == 60);
    assert_eq!((fixture.metrics.memory_budget.get(), fixture.metrics.memory_used.get()), (100, 0));
    drop({
        let want = worker.handle.demand();
        worker.wait_ready();
        want
    });
    assert_eq!(fixture.metrics.memory_used.get(), 60);
    worker.handle.unload();
    worker.wait_asleep();
    eventually("the memory is free again", SOON, || fixture.metrics.memory_used.get() == 0);
}

#[test]
fn the_hint_for_a_command_that_cannot_be_started_names_it() {
    let fixture = Fixture::new(LONG);
    let argv = vec!["/nowhere/server".to_owned()];
    let worker = fixture.add_worker("a", json!({}), |plan| {
        plan.program = Program::Command { argv, health: "/health".to_owned(), model: None };
    });
    let _want = worker.handle.demand();
    eventually("the start has failed", SOON, || worker.handle.status().last_exit.is_some());
    let hint = worker.handle.status().last_exit.unwrap().hint.unwrap();
    assert_eq!(hint, "`command` (server), or the interpreter that it names, is missing: check the file");
}

/// Regression: it was stopped after its requests although the load that it was evicted for had given up, and was loaded
/// again for the next request.
#[test]
fn a_draining_model_serves_on_without_a_restart_when_the_load_that_it_was_evicted_for_gives_up() {
    let fixture = Fixture::new(SHORT);
    let (a, b) = (fixture.add_worker("a", json!({}), |_| {}), fixture.add_worker("b", json!({}), |_| {}));
    let want_a = a.handle.demand();
    a.wait_ready();
    let request = a.begin().ok().unwrap();
    let want_b = b.handle.demand();
    a.wait_state(WorkerState::Draining);
    assert_eq!(a.begin().err(), Some(None), "new requests wait in the queue");
    drop(want_b);
    a.wait_ready();
    assert_eq!(a.handle.state(), WorkerCondition { state: WorkerState::Ready, is_asleep: false });
    let more = a.begin().ok().unwrap();
    b.wait_asleep();
    drop((request, more, want_a));
    assert_eq!((a.journal().starts().len(), b.journal().starts().len()), (1, 0));
    let _want_b = b.handle.demand();
    b.wait_ready();
    a.wait_asleep();
}

#[test]
fn a_busy_model_drains_and_is_evicted_when_another_has_waited_long_enough() {
    let fixture = Fixture::new(SHORT);
    let (a, b) = (fixture.add_worker("a", json!({}), |_| {}), fixture.add_worker("b", json!({}), |_| {}));
    let want_a = a.handle.demand();
    a.wait_ready();
    let request = a.begin().ok().unwrap();
    let _want_b = b.handle.demand();
    a.wait_state(WorkerState::Draining);
    assert_eq!(a.begin().err(), Some(None), "new requests wait in the queue");
    assert_eq!(a.handle.state(), WorkerCondition { state: WorkerState::Draining, is_asleep: true });
    let gone = request.gone();
    assert!(b.journal().starts().is_empty() && !pid_gone(a.pid()));
    drop(request);
    b.wait_ready();
    shared()
        .0
        .block_on(async { tokio::time::timeout(patient(SOON), gone).await })
        .expect("the request is told that its worker is gone");
    // There is still demand for the first model, so it is loaded again in its turn.
    a.wait_ready();
    drop(want_a);
}

#[test]
fn a_worker_that_dies_while_it_drains_is_not_restarted_without_demand() {
    let fixture = Fixture::new(LONG);
    let a = fixture.add_worker("a", json!({}), |plan| plan.preload = true);
    a.wait_ready();
    let request = a.begin().ok().unwrap();
    a.handle.unload();
    a.wait_state(WorkerState::Draining);
    a.model.control().tell("die code 1").unwrap();
    a.wait_asleep();
    assert_eq!(a.journal().starts().len(), 1);
    drop(request);
}

#[test]
fn the_operator_can_unload_a_model_and_wake_it() {
    let fixture = Fixture::new(LONG);
    let a = fixture.add_worker("a", json!({}), |plan| plan.preload = true);
    a.wait_ready();
    a.handle.unload();
    a.wait_asleep();
    a.handle.unload();
    a.handle.wake();
    a.wait_ready();
    let request = a.begin().ok().unwrap();
    a.handle.unload();
    a.wait_state(WorkerState::Draining);
    assert!(!pid_gone(a.pid()), "the request in flight is finished");
    a.handle.wake();
    drop(request);
    a.wait_ready();
    assert_eq!(a.journal().starts().len(), 3);
}

#[test]
fn a_failed_worker_can_be_woken_and_its_restarts_are_counted_from_zero() {
    let fixture = Fixture::new(LONG);
    let dies = json!({"exit_at_start": {"code": 1}});
    let script = json!({"starts": [dies, dies, dies, {}]});
    let a = fixture.add_worker("a", script, |plan| {
        plan.preload = true;
        plan.engine.restart_limit = 1;
    });
    a.wait_state(WorkerState::Failed);
    assert!(matches!(a.handle.loss(), Some(WorkerLoss::GivenUp(Some(_)))));
    drop(a.handle.demand());
    assert_eq!((a.handle.state().state, a.journal().starts().len()), (WorkerState::Failed, 2));
    a.handle.wake();
    a.wait_ready();
    assert_eq!(a.journal().starts().len(), 4);
}

#[test]
fn workers_that_start_at_the_same_time_get_different_ports_and_all_count_as_ready() {
    let fixture = Fixture::new(LONG);
    let none = |plan: &mut Plan| (plan.preload, plan.need) = (true, Need::Configured(1));
    let a = fixture.add_worker("a", json!({}), none);
    let replicas: Vec<WorkerHandle> = (1..4).map(|number| fixture.add_replica("a", number, &a.model, none)).collect();
    eventually("all are ready", READY, || fixture.ready_workers("a") == 4);
    let mut addresses: Vec<_> = replicas
        .iter()
        .chain([&a.handle])
        .map(|handle| handle.endpoint().unwrap().target.authority.to_string())
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    assert_eq!(addresses.len(), 4);
    replicas[0].unload();
    eventually("one replica less is ready", STOPS, || fixture.ready_workers("a") == 3);
}

#[test]
fn the_memory_that_a_load_used_counts_for_the_next_load() {
    let fixture = Fixture::new(LONG);
    let small = fixture.add_worker("small", json!({}), |plan| plan.need = Need::Estimated(40));
    let other = fixture.add_worker("other", json!({}), |plan| plan.need = Need::Configured(40));
    drop(small.handle.demand());
    let want_other = other.handle.demand();
    other.wait_ready();
    let want_small = small.handle.demand();
    small.wait_ready();
    // The load has used far more than 60 bytes, so the other model no longer fits beside it.
    eventually("the memory in use is known", SOON, || fixture.metrics.memory_used.get() == 140);
    drop((want_other, want_small));
    small.handle.unload();
    small.wait_asleep();
    assert!(other.handle.endpoint().is_some(), "nothing is evicted for memory that is already in use");
    let _want = small.handle.demand();
    small.wait_ready();
    other.wait_asleep();
}

/// Regression: after a restart of the service the first load of each model counted for the estimate again.
#[test]
fn the_memory_that_a_load_used_counts_after_a_restart_of_the_service() {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("learned.json");
    let model = ScriptedModel::create(data.path(), "small.gguf", Kind::Chat, &json!({}));
    for is_restarted in [false, true] {
        let mut fixture = Fixture::without_budget(LONG);
        fixture.learned = LearnedMemory::load(&file);
        fixture.set_budget();
        let handle = fixture.add_replica("small", 0, &model, |plan| plan.need = Need::Estimated(40));
        let small = Worker { handle, model: model.clone() };
        let other = fixture.add_worker("other", json!({}), |plan| plan.need = Need::Configured(40));
        drop(other.handle.demand());
        other.handle.wake();
        other.wait_ready();
        let _want = small.handle.demand();
        small.wait_ready();
        match is_restarted {
            false => assert!(other.handle.endpoint().is_some(), "the estimate fits beside it"),
            true => other.wait_asleep(),
        }
        eventually("the memory is kept", SOON, || file.exists());
    }
    // Another context is another memory.
    let mut fixture = Fixture::without_budget(LONG);
    fixture.learned = LearnedMemory::load(&file);
    fixture.set_budget();
    let change = |plan: &mut Plan| (plan.need, plan.engine.ctx.0) = (Need::Estimated(40), plan.engine.ctx.0 + 1);
    let handle = fixture.add_replica("small", 0, &model, change);
    let small = Worker { handle, model: model.clone() };
    let other = fixture.add_worker("other", json!({}), |plan| plan.need = Need::Configured(40));
    other.handle.wake();
    other.wait_ready();
    let _want = small.handle.demand();
    small.wait_ready();
    assert!(other.handle.endpoint().is_some(), "nothing is known about this context");
}

#[test]
fn a_command_without_memory_counts_for_what_it_uses_from_its_first_load_on() {
    let fixture = Fixture::new(LONG);
    let model = ScriptedModel::create(fixture.folder.path(), "c.gguf", Kind::Chat, &json!({}));
    let path = model.path.to_str().unwrap();
    let argv = [fake_server::program(), "-m", path, "--host", "127.0.0.1", "--port", "{port}"];
    let program =
        Program::Command { argv: argv.map(str::to_owned).to_vec(), health: "/v1/models".to_owned(), model: None };
    let handle = fixture.add_replica("c", 0, &model, |plan| (plan.program, plan.need) = (program, Need::Estimated(0)));
    let command = Worker { handle, model };
    let large = fixture.add_worker("large", json!({}), |plan| plan.need = Need::Configured(100));
    large.handle.wake();
    large.wait_ready();
    command.handle.wake();
    command.wait_ready();
    assert!(large.handle.endpoint().is_some(), "its memory is not known before it was loaded");
    eventually("its memory counts at once", SOON, || fixture.metrics.memory_used.get() == 200);
    large.handle.unload();
    large.wait_asleep();
    let want = large.handle.demand();
    large.wait_ready();
    command.wait_asleep();
    drop(want);
    command.handle.wake();
    command.wait_ready();
    large.wait_asleep();
}

#[test]
fn a_command_is_started_restarted_and_unloaded_like_llama_server() {
    let fixture = Fixture::new(LONG);
    let script = json!({"daemon": "lingers", "load_ms": 300});
    let model = ScriptedModel::create(fixture.folder.path(), "c.gguf", Kind::Chat, &script);
    let path = model.path.to_str().unwrap();
    let argv = [fake_server::program(), "-m", path, "--host", "127.0.0.1", "--port", "{port}"];
    let home = ("HOME".to_owned(), "/home/user".to_owned());
    let program =
        Program::Command { argv: argv.map(str::to_owned).to_vec(), health: "/v1/models".to_owned(), model: None };
    let handle = fixture.add_replica("c", 0, &model, |plan| {
        (plan.program, plan.preload) = (program, true);
        plan.environment.push(home);
    });
    let worker = Worker { handle, model };
    worker.wait_ready();
    let (first, daemon) = (worker.pid(), worker.journal().wait_for_event("grandchild")["grandchild"].clone());
    let daemon = daemon.as_u64().unwrap() as u32;
    assert!(environ(first).contains(&"HOME=/home/user".to_owned()));
    assert!(!cmdline(first).iter().any(|word| word.contains("key")), "{:?}", cmdline(first));
    assert!(worker.journal().requests("/metrics").is_empty() && worker.journal().requests("/props").is_empty());
    assert!(!worker.journal().requests("/v1/models").is_empty());
    worker.model.control().tell("die code 1").unwrap();
    eventually("the command is started again", READY, || worker.journal().starts().len() == 2);
    assert!(pid_gone(daemon), "its daemon is killed before the restart");
    worker.wait_ready();
    worker.handle.unload();
    worker.wait_asleep();
    assert!(pid_gone(worker.pid()));
}
