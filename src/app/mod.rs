//! The composition root: the only module that knows both journeys, and the order of start and of stop.
//!
//! Start: sockets, health port, gateway, and then the models: their files are read and loaded when the ports are open, so
//! that a platform's probe is always answered. Stop: refuse new requests, let those in flight finish, close the gateway's
//! port, stop llama-server, close the health port. With one port for both, nothing listens while llama-server is stopped.
//!
//! - `bounds.rs`: waits and lengths that no user needs to choose
//! - `listeners.rs`: the listeners of gateway and health port, and how they are found
//! - `ending.rs`: what the service waits for once it runs, and why it stops
//! - `log_folder.rs`: the names of the folders of workers' logs
//! - `operator_api.rs`: the operator's routes, connected with what they report on
//! - `reload.rs`: configuration and keys read again, all of it or nothing
//! - `reports.rs`: what the service logs about itself while it runs
//! - `model_reconciler.rs`: the models that are served at present, and what a reload changes about them
//! - `signals.rs`: the signals that the service handles
//! - `stages.rs`: what each stage of the start hands to the next

mod bounds;
mod ending;
mod listeners;
mod log_folder;
mod model_reconciler;
mod operator_api;
mod reload;
mod reports;
mod signals;
mod stages;

pub use ending::Outcome;
pub use signals::{Signals, StopSignals};
pub use stages::Startup;

use crate::fleet::Fleet;
use crate::gateway::{Accounting, Authenticator, Gateway, HeadLimits, ModelQueues, QueueTimeouts, WireLimits, listen};
use crate::pause_clock::{self, PauseClock};
use crate::platform::{self, Platform};
use crate::preflight::Prepared;
use crate::runpod::QueueWorker;
use crate::settings::bounds::{CLIENT_WRITE_STALL, CONNECTION_GRACE, HEALTH_CONNECTIONS};
use crate::settings::{Inputs, Resolved, Settings};
use crate::telemetry::access::AccessLog;
use crate::telemetry::files::LogFolder;
use crate::telemetry::log::LogGuard;
use crate::telemetry::metrics::Metrics;
use crate::worker::{self, Spawner, WorkerContext};
use ending::{Ending, wait_for_end};
use listeners::{Listeners, serve_gateway, serve_health_on_its_own_thread, write_port_file};
use model_reconciler::{ModelReconciler, ShelvingParts};
use reload::Reloader;
use reports::{log_when_ready, report_lost_lines};
use stages::{Accounts, Loaded, Models, Service};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

/// Runs the service until it is told to stop or cannot go on.
///
/// # Errors
///
/// Returns an error if a part of the service cannot be started, such as a port that is taken.
pub async fn run(startup: Startup, mut signals: Signals) -> io::Result<Outcome> {
    let Startup { inputs, resolved, ready, platform, log } = startup;
    let loaded = load(&resolved.config.settings, ready, platform, log)?;
    let doors = bind(&loaded.settings, &inputs)?;
    let accounts = open_accounts(&loaded);
    let models = start_models(&loaded, &accounts, inputs, resolved)?;
    let service = serve(&loaded, doors, &accounts, &models)?;
    let least_quiet = loaded.settings.service.shutdown_timeout.duration();
    let Ending { outcome, reason } =
        wait_for_end(&mut signals, &models.fleet, &models.reload, &service.gateway, least_quiet).await;
    let running = Running { service, models, accounts, loaded };
    shut_down(running, reason, &mut signals.stop).await;
    Ok(outcome)
}

/// All that has to be stopped, in the order in which it goes.
struct Running {
    service: Service,
    models: Models,
    accounts: Accounts,
    loaded: Loaded,
}

/// Makes what holds for the whole run. Opens nothing.
fn load(settings: &Settings, ready: Prepared, platform: Platform, log: Arc<LogGuard>) -> io::Result<Loaded> {
    Ok(Loaded {
        settings: Arc::new(settings.clone()),
        ready,
        platform,
        log,
        tasks: TaskTracker::new(),
        stop_gateway: CancellationToken::new(),
        stop_rest: CancellationToken::new(),
        _beat: PauseClock::start()?,
    })
}

/// Opens the ports. Connections wait until [`serve`] accepts them.
fn bind(settings: &Settings, inputs: &Inputs) -> io::Result<Listeners> {
    let doors = Listeners::bind(settings)?;
    doors.log_public_addresses(inputs);
    Ok(doors)
}

/// Makes the metrics and opens the access log.
fn open_accounts(loaded: &Loaded) -> Accounts {
    let metrics = Arc::new(Metrics::new(&loaded.platform.kind.to_string()));
    let (access, access_guard) = AccessLog::open(&loaded.settings.logs);
    Accounts { books: Arc::new(Accounting { metrics, access }), access_guard }
}

/// Makes what runs workers. Which models there are is read from their files later, beside [`until_the_end`].
fn start_models(loaded: &Loaded, accounts: &Accounts, inputs: Inputs, resolved: Resolved) -> io::Result<Models> {
    let Loaded { settings, ready, platform, tasks, stop_rest, .. } = loaded;
    let metrics = &accounts.books.metrics;
    let spawner = Spawner::start(Handle::current(), ready.descriptors.found)?;
    tasks.spawn(worker::reap_orphans(spawner.clone(), stop_rest.clone()));
    let worker_logs = LogFolder::open(log_folder::of_service(&settings.logs), settings.logs.log_keep.get());
    let shared = WorkerContext::new(spawner, Arc::clone(metrics), settings.routing.max_wait_before_drain.0);
    let shared = Arc::new(shared?);
    let fleet = Arc::new(Fleet::empty());
    let patience =
        QueueTimeouts { queue: settings.queue.queue_timeout.duration(), request: settings.limits.request_timeout.0 };
    let lanes = Arc::new(ModelQueues::new(settings.queue.max_queue_size.0, patience, Arc::clone(metrics)));
    let parts = ShelvingParts {
        shared,
        fleet: Arc::clone(&fleet),
        lanes: Arc::clone(&lanes),
        environment: inputs.environment.clone(),
        metrics: Arc::clone(metrics),
        logs: worker_logs.clone(),
    };
    let shelving = Arc::new(ModelReconciler::new(parts, settings));
    // The ports answer while it looks.
    tasks.spawn(Arc::clone(&shelving).find_memory(settings.routing.memory_budget, stop_rest.clone()));
    let reload = Reloader::new(inputs, platform.clone(), ready.keys.clone(), Arc::clone(&shelving), resolved);
    let reload = Arc::new(reload);
    tasks.spawn(Arc::clone(&reload).watch(stop_rest.clone()));
    Ok(Models { fleet, lanes, shelving, reload, worker_logs })
}

/// Serves the ports and takes jobs.
fn serve(loaded: &Loaded, doors: Listeners, accounts: &Accounts, models: &Models) -> io::Result<Service> {
    let Loaded { settings, ready, platform, tasks, stop_gateway, stop_rest, .. } = loaded;
    let (books, fleet) = (&accounts.books, &models.fleet);
    let desk = operator_api::desk_of(loaded, accounts, models);
    let is_behind_edge = platform.kind == platform::PlatformKind::RunpodServerless;
    let gatekeeper = Authenticator::new(ready.keys.clone(), &settings.access, is_behind_edge);
    let (lanes, answers) = (Arc::clone(&models.lanes), operator_api::local_answers(Arc::clone(&desk)));
    let gateway = Gateway::new(settings, gatekeeper, lanes, Arc::clone(fleet), Arc::clone(books), answers);
    let gateway = Arc::new(gateway);
    let (sweeping, stop) = (Arc::clone(&gateway), stop_rest.clone());
    tasks.spawn(async move { sweeping.sweep(stop).await });

    let terms = terms_of_connections(loaded);
    let port = doors.gateway.local_addr()?.port();
    let health_thread = doors.health.map(|listener| {
        let terms = listen::ListenerLimits { max_connections: HEALTH_CONNECTIONS, ..terms };
        serve_health_on_its_own_thread(listener, terms, Arc::clone(&gateway), stop_rest.clone())
    });
    let health_thread = health_thread.transpose()?;
    keep_accounts(loaded, accounts, models);
    if let Some(path) = &settings.listen.port_file {
        write_port_file(path, port)?;
    }
    tasks.spawn(log_when_ready(Arc::clone(fleet), Arc::clone(&books.metrics), port, stop_rest.clone()));
    let listening = serve_gateway(doors.gateway, terms, Arc::clone(&gateway), stop_gateway.clone());
    let listening = tasks.spawn(listening);

    if ready.queue.is_some() && ready.keys.is_none() && settings.access.auth_enabled {
        warn!("there is no key file: jobs are done, and requests over HTTP are refused");
    }
    let jobs = ready.queue.as_ref().map(|queue| QueueWorker::start(queue, Arc::clone(&gateway), Arc::clone(fleet)));
    Ok(Service { jobs: jobs.transpose()?, gateway, desk, listening, health_thread })
}

/// Returns what each connection of a client is held to.
fn terms_of_connections(loaded: &Loaded) -> listen::ListenerLimits {
    let limits = &loaded.settings.limits;
    let wire = WireLimits {
        head: HeadLimits::new(limits),
        header_timeout: limits.client_header_timeout.0,
        write_stall: CLIENT_WRITE_STALL,
    };
    listen::ListenerLimits { wire, max_connections: loaded.ready.descriptors.connections }
}

/// Starts the tasks that follow the key file, write the access log and report lost log lines.
fn keep_accounts(loaded: &Loaded, accounts: &Accounts, models: &Models) {
    let Loaded { ready, log, tasks, stop_rest, .. } = loaded;
    if let Some(keys) = ready.keys.clone() {
        let stop = stop_rest.clone();
        tasks.spawn(async move { keys.watch(stop).await });
    }
    let (books, stop) = (Arc::clone(&accounts.books), stop_rest.clone());
    tasks.spawn(async move { books.access.keep_moving(&stop).await });
    let (books, errors) = (Arc::clone(&accounts.books), models.worker_logs.errors());
    tasks.spawn(report_lost_lines(books, Arc::clone(log), errors, stop_rest.clone()));
}

/// Stops the service. `reason` is why no job can be served any more, if that is why it stops.
async fn shut_down(running: Running, reason: Option<String>, stop: &mut StopSignals) {
    let Running { service, models, accounts, loaded } = running;
    let Service { gateway, desk, listening, health_thread, mut jobs } = service;
    let settings = &loaded.settings;
    desk.stopping.store(true, Ordering::Relaxed);
    if let (Some(jobs), Some(reason)) = (&mut jobs, reason) {
        jobs.give_up(&reason).await;
    }
    tokio::select! {
        () = drain(jobs.as_ref(), &gateway) => {}
        () = pause_clock::sleep(settings.service.drain_timeout.0) => {
            warn!("DRAIN_TIMEOUT is over: requests in flight are cut");
        }
        _ = stop.recv() => warn!("asked again to stop: requests in flight are cut"),
    }
    gateway.abort_in_flight();
    let _ = pause_clock::timeout(CONNECTION_GRACE, gateway.drain()).await;
    if let Some(jobs) = jobs {
        jobs.cut().await;
        jobs.end().await;
    }
    loaded.stop_gateway.cancel();
    let _ = listening.await;
    models.shelving.stop_all().await;
    loaded.stop_rest.cancel();
    loaded.tasks.close();
    if tokio::time::timeout(CONNECTION_GRACE * 3, loaded.tasks.wait()).await.is_err() {
        warn!("some tasks did not end in time");
    }
    if let Some(thread) = health_thread {
        let _ = tokio::task::spawn_blocking(move || thread.join()).await;
    }
    if let Some(path) = &settings.listen.port_file {
        let _ = std::fs::remove_file(path);
    }
    // The access log hands its last lines to the writer before that ends.
    let Accounts { books, access_guard } = accounts;
    drop((gateway, desk, models, books));
    drop(access_guard);
}

/// Waits until what is in flight has finished. Jobs first: one that was taken in the meantime still needs the gateway.
async fn drain(jobs: Option<&QueueWorker>, gateway: &Gateway) {
    if let Some(jobs) = jobs {
        gateway.close_to_clients();
        jobs.drain().await;
    }
    gateway.drain().await;
}
