//! `llamagate rpc`: supervises llama.cpp's rpc-server, which computes parts of models for llama-servers of other machines.
//!
//! The rpc-server is a worker like any other, the only one of this process. There is no gateway port: no request reaches it
//! but over its own protocol. The health port answers as that of a service does.
//!
//! - `address.rs`: where it may listen, and what is said of that
//! - `arguments.rs`: what it is told, checked against its own help
//! - `health_port.rs`: the health port

mod address;
mod arguments;
mod health_port;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

pub use address::{BadRpcAddress, RpcAddress};
pub use arguments::{BadRpcArgument, RpcArguments};

use super::bounds::{RPC_CACHE_FOLDER, RPC_LOG_FOLDER, RPC_WORKER};
use super::ending::RunOutcome;
use super::listeners::bind_health;
use super::signals::Signals;
use crate::fleet::{Fleet, KeySuspensions, Member, Model, ModelInfo, Rank, RoutingPolicy, WorkerKind};
use crate::pause_clock::PauseClock;
use crate::platform::Platform;
use crate::settings::bounds::CONNECTION_GRACE;
use crate::settings::catalogue::LoadMode;
use crate::settings::{Environment, Settings};
use crate::telemetry::files::{LogFolder, LogRules, look_at_log_files};
use crate::telemetry::metrics::Metrics;
use crate::worker::{
    self, CompanionFiles, HelpReader, LearnedMemory, MemoryBudget, Need, Plan, Program, ServedFiles, Spawner,
    WorkerContext, WorkerLoss,
};
use health_port::HealthPort;

/// The variable that names the folder of rpc-server's cache.
const CACHE_VARIABLE: &str = "LLAMA_CACHE";

/// What `llamagate rpc` was told.
pub struct RpcRole {
    /// Its settings.
    pub settings: Settings,
    /// The environment of this process.
    pub environment: Environment,
    /// The platform that it runs on.
    pub platform: Platform,
    /// The rpc-server.
    pub binary: PathBuf,
    /// Where it listens.
    pub address: RpcAddress,
    /// What else it is told.
    pub arguments: RpcArguments,
}

/// Runs an rpc-server until a signal stops it, or it cannot be kept running.
///
/// # Errors
///
/// The health port or the address of the rpc-server cannot be used, the rpc-server does not know an argument, or a part of
/// this program cannot be started.
pub async fn run_rpc_server(role: RpcRole, mut signals: Signals) -> io::Result<RunOutcome> {
    let RpcRole { settings, environment, platform, binary, address, arguments } = role;
    let settings = Arc::new(settings);
    let _pause_clock = PauseClock::start()?;
    let metrics = Arc::new(Metrics::new(&platform.kind.to_string()));
    let warning = address.warning();
    if let Some(warning) = &warning {
        warn!("{warning}");
        metrics.warnings.show("rpc_open_to_network", warning);
    }
    let listener = bind_health(&settings)?;
    address.check_free()?;
    let (tasks, workers, stop) = (TaskTracker::new(), TaskTracker::new(), CancellationToken::new());
    let spawner = Spawner::start(Handle::current(), None)?;
    tasks.spawn(worker::reap_orphans(spawner.clone(), stop.clone()));
    let mut inherited = environment.for_rpc_server();
    inherited.extend(cache_variable(&inherited, &settings.files.data_dir));
    let help = HelpReader::new(spawner.clone()).text(&binary, &inherited).await;
    let program = arguments.program(binary, address, help.as_deref()).map_err(io::Error::other)?;

    let suspensions = Arc::new(KeySuspensions::new(settings.engine.restart_window.0));
    let wait_before_drain = settings.routing.max_wait_before_drain.0;
    let context = WorkerContext::new(spawner, Arc::clone(&metrics), Arc::clone(&suspensions), wait_before_drain)?;
    // It takes its memory only when a llama-server loads a model into it, and offers what is free.
    context.set_memory_budget(MemoryBudget::unlimited(), LearnedMemory::without_file());
    let logs = LogFolder::open(settings.logs.log_dir.join(RPC_LOG_FOLDER), LogRules::from(&settings.logs));
    let plan = Plan {
        model: RPC_WORKER.to_owned(),
        number: 0,
        program: Program::RpcServer(program),
        engine: settings.engine.clone(),
        load_mode: LoadMode::default(),
        projector: None,
        companions: CompanionFiles::default(),
        files: ServedFiles::default(),
        gives_token_vectors: false,
        environment: inherited,
        logs,
        instance: settings.logs.instance_id.clone(),
        preload: true,
        pinned: false,
        need: Need::Configured(0),
    };
    let worker_stop = stop.child_token();
    let handle = worker::supervise(plan, &Arc::new(context), Arc::default(), worker_stop.clone(), &workers);
    let rank = Rank { weight: 1.0, priority: 0 };
    let member = Arc::new(Member::local(handle, WorkerKind::Command, 0, 1, rank));
    let model = Model::new(ModelInfo::named(RPC_WORKER), RoutingPolicy::default(), vec![member]);
    let fleet = Arc::new(Fleet::new(vec![Arc::new(model)]));

    let health = HealthPort::build(&settings, &platform, &fleet, &suspensions, &metrics);
    let thread = health.serve(listener, &settings, stop.clone())?;
    tasks.spawn(log_each_ready(Arc::clone(&fleet), address, stop.clone()));
    let outcome = wait_for_stop(&mut signals, &fleet).await;

    health.begin_stop();
    // The llama-servers that use it keep their connections as long as they are loaded, so there is nothing to wait for.
    worker_stop.cancel();
    workers.close();
    workers.wait().await;
    stop.cancel();
    tasks.close();
    if tokio::time::timeout(CONNECTION_GRACE * 3, tasks.wait()).await.is_err() {
        warn!("some tasks did not end in time");
    }
    // `join` blocks.
    let _ = tokio::task::spawn_blocking(move || thread.join()).await;
    Ok(outcome)
}

/// Returns the variable that has an rpc-server keep its cache below `DATA_DIR`; `None` if one that it has says where. Its own
/// choice would be below `HOME`, which containers lack.
fn cache_variable(inherited: &[(String, String)], data_dir: &Path) -> Option<(String, String)> {
    if inherited.iter().any(|(name, _)| [CACHE_VARIABLE, "XDG_CACHE_HOME"].contains(&name.as_str())) {
        return None;
    }
    let folder = std::path::absolute(data_dir.join(RPC_CACHE_FOLDER)).ok()?;
    Some((CACHE_VARIABLE.to_owned(), folder.to_str()?.to_owned()))
}

/// Waits for a signal that stops the program, or until the rpc-server is given up. SIGHUP opens renamed log files again.
async fn wait_for_stop(signals: &mut Signals, fleet: &Fleet) -> RunOutcome {
    let lost = fleet.lost();
    tokio::pin!(lost);
    loop {
        tokio::select! {
            signal = signals.stop.recv() => {
                info!("{signal} received, stopping");
                return RunOutcome::Stopped;
            }
            _ = signals.hangup.recv() => look_at_log_files(),
            loss = &mut lost => {
                let WorkerLoss::GivenUp(exit) = loss else {
                    error!("fatal: the rpc-server is no longer watched; this is a defect, please report it");
                    return RunOutcome::Broken;
                };
                let hint = exit.and_then(|exit| exit.hint).unwrap_or_else(|| "no cause found in its log".to_owned());
                error!("fatal: rpc-server could not be kept running: {hint}");
                return RunOutcome::BackendFailed;
            }
        }
    }
}

/// Logs each time that the rpc-server has become ready.
async fn log_each_ready(fleet: Arc<Fleet>, address: RpcAddress, stop: CancellationToken) {
    let mut was_ready = false;
    loop {
        // Made before the state is read, so that no change in between is missed.
        let changed = fleet.changed();
        let is_ready = fleet.is_ready();
        if is_ready && !was_ready {
            info!("ready: rpc-server computes for llama-servers that connect to {address}");
        }
        was_ready = is_ready;
        if stop.run_until_cancelled(changed).await.is_none() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In this project's images, which have no home, each start with `--cache` once failed.
    #[test]
    fn a_cache_without_a_home_is_in_the_data_folder() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let of = |inherited: &[(String, String)]| cache_variable(inherited, Path::new("/data"));
        assert_eq!(of(&[pair("HOME", "/nonexistent")]), Some(pair("LLAMA_CACHE", "/data/rpc-cache")));
        assert_eq!(of(&[pair("LLAMA_CACHE", "/cache")]), None);
        assert_eq!(of(&[pair("XDG_CACHE_HOME", "/cache")]), None);
    }
}
