//! The composition root: creates all parts of the service, and owns the order of startup and shutdown.
//!
//! Startup: sockets, health port, gateway, then the models. Their files are read and loaded after the ports are open,
//! so that a platform's probe is always answered. Shutdown: refuse new requests, let those in flight finish, close the
//! gateway's port, stop llama-server, close the health port. If both ports are the same, nothing listens while
//! llama-server is stopped.
//!
//! - `bounds.rs`: waits, lengths and names that no user needs to choose
//! - `ending.rs`: the main wait, and why the service stops
//! - `listeners/`: the listeners of the gateway port and the health port, and their certificate
//! - `llama_help.rs`: what llama-server says of its arguments, without a service
//! - `log_folder.rs`: the names of the log folders of workers
//! - `models/`: the models that are served, their workers, and what is said about them
//! - `reload/`: what is read again while the service runs, and when
//! - `reports.rs`: what the service reports about itself while it runs
//! - `requests/`: what the application does for requests that no worker serves
//! - `rpc_server/`: `llamagate rpc`
//! - `shutdown.rs`: the order in which everything ends
//! - `signals.rs`: the signals that the service handles
//! - `stages.rs`: what each stage of the startup passes to the next

mod bounds;
mod ending;
mod listeners;
mod llama_help;
mod log_folder;
mod models;
mod reload;
mod reports;
mod requests;
mod rpc_server;
mod shutdown;
mod signals;
mod stages;

pub use ending::RunOutcome;
pub use llama_help::read_llama_help;
pub use rpc_server::{BadRpcAddress, BadRpcArgument, RpcAddress, RpcArguments, RpcRole, run_rpc_server};
pub use signals::{Signals, StopSignals};
pub use stages::Startup;

use std::io;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::cores::{self, CoreThreads};
use crate::download::DownloadRegistry;
use crate::fleet::{Fleet, KeySuspensions};
use crate::gateway::{
    Accounting, AppServices, Authenticator, Gateway, HeadLimits, ModelQueues, QueueTimeouts, RecentActs, SecurePort,
    WireLimits, listen,
};
use crate::ledger::{BudgetUse, LedgerSettings, UsageLedger};
use crate::models::LAST_USED_FILE;
use crate::pause_clock::PauseClock;
use crate::platform::{self, Platform};
use crate::preflight::Prepared;
use crate::runpod::QueueWorker;
use crate::settings::bounds::{CLIENT_WRITE_STALL, HEALTH_CONNECTIONS};
use crate::settings::{Inputs, Resolved, Settings, options};
use crate::shared_limits;
use crate::telemetry::access::AccessLog;
use crate::telemetry::files::{LogFolder, LogRules};
use crate::telemetry::log::LogGuard;
use crate::telemetry::metrics::Metrics;
use crate::tls::{CertificateRenewal, CertificateStore};
use crate::traces::{TraceSettings, Tracer, export_spans};
use crate::worker::{self, Spawner, WorkerContext};
use bounds::LEARNED_MEMORY_FILE;
use ending::{StopCause, wait_for_stop};
use listen::ServedPort;
use listeners::{Listeners, certificates, serve_gateway, serve_health_on_its_own_thread, write_port_file};
use models::reconciler::{ModelReconciler, ReconcilerParts};
use reload::config_watch::ConfigFiles;
use reload::reloader::{Followed, Reloader};
use reload::shelf_watch::{scan_after_download, watch_shelf};
use reports::{log_when_ready, note_last_used, report_lost_lines};
use requests::{model_removal, operator_api, served_files};
use shutdown::{Running, shut_down};
use stages::{Accounts, ModelServices, RunContext, Service};

/// Runs the service until it is stopped or cannot continue.
///
/// # Errors
///
/// Returns an error if a part of the service cannot be started, for example if a port is in use.
pub async fn run(startup: Startup, mut signals: Signals) -> io::Result<RunOutcome> {
    let Startup { inputs, resolved, ready, platform, log } = startup;
    let context = create_context(&resolved.config.settings, ready, platform, log)?;
    let listeners = bind(&context.settings, &inputs)?;
    let budget_use = read_budget_use(&context);
    let accounts = open_accounts(&context)?;
    let source = context.ready.certificate_source.as_ref();
    let certificates = certificates::open(source, &accounts.accounting.metrics, listeners.gateway.local_addr()?)?;
    let models = start_models(&context, &accounts, certificates.clone(), inputs, resolved)?;
    let service = serve(&context, listeners, certificates, &accounts, &models, budget_use)?;
    let idle_limit = context.settings.service.shutdown_timeout.duration();
    let StopCause { outcome, reason } =
        wait_for_stop(&mut signals, &context.cores, &models.fleet, &models.reloader, &service.gateway, idle_limit)
            .await;
    let running = Running { service, models, accounts, context };
    shut_down(running, reason, &mut signals.stop).await;
    Ok(outcome)
}

/// Creates the state that lives for the whole run. Opens nothing.
fn create_context(
    settings: &Settings,
    ready: Prepared,
    platform: Platform,
    log: Arc<LogGuard>,
) -> io::Result<RunContext> {
    Ok(RunContext {
        settings: Arc::new(settings.clone()),
        ready,
        platform,
        log,
        tasks: TaskTracker::new(),
        cores: CoreThreads::start(cores::count_of_machine())?,
        stop_gateway: CancellationToken::new(),
        stop_rest: CancellationToken::new(),
        _pause_clock: PauseClock::start()?,
    })
}

/// Opens the ports. Connections wait until [`serve`] accepts them.
fn bind(settings: &Settings, inputs: &Inputs) -> io::Result<Listeners> {
    let listeners = Listeners::bind(settings)?;
    listeners.log_public_addresses(settings, inputs);
    Ok(listeners)
}

/// Returns what budgets had used at this time, before anything is recorded.
fn read_budget_use(context: &RunContext) -> (Vec<BudgetUse>, Timestamp) {
    let now = Timestamp::now();
    let Some(path) = &context.settings.usage.usage_db.0 else { return (Vec::new(), now) };
    let used = UsageLedger::budget_use(path, now).unwrap_or_else(|error| {
        warn!(%error, "what budgets have used before is unknown: they begin with nothing used");
        Vec::new()
    });
    (used, now)
}

/// Creates the metrics, opens the access log, and starts the usage ledger and the export of traces.
fn open_accounts(context: &RunContext) -> io::Result<Accounts> {
    let metrics = Arc::new(Metrics::new(&context.platform.kind.to_string()));
    for (topic, warning) in context.settings.exposures() {
        metrics.warnings.show(topic, &warning);
    }
    let (access, access_guard) = AccessLog::open(&context.settings.logs);
    let options::Usage { usage_db, usage_keep, price_per_hour } = &context.settings.usage;
    let (ledger, ledger_guard) = match &usage_db.0 {
        Some(path) => {
            let settings = LedgerSettings { path: path.clone(), keep: usage_keep.0, price_per_hour: price_per_hour.0 };
            let (ledger, guard) = UsageLedger::start(settings, Arc::clone(&metrics))?;
            (ledger, Some(guard))
        }
        None => (UsageLedger::off(), None),
    };
    let tracer = match TraceSettings::read(&context.settings.traces) {
        Some(traces) => {
            let (tracer, export) = export_spans(&traces, &context.settings.logs.instance_id, &metrics)?;
            context.tasks.spawn(export.run(context.stop_rest.clone()));
            tracer
        }
        None => Tracer::default(),
    };
    Ok(Accounts {
        accounting: Arc::new(Accounting { metrics, access, ledger, acts: RecentActs::default(), tracer }),
        access_guard,
        ledger_guard,
    })
}

/// Creates what runs the workers. The model files are read later, by [`wait_for_stop`].
fn start_models(
    context: &RunContext,
    accounts: &Accounts,
    certificates: Option<Arc<CertificateStore>>,
    inputs: Inputs,
    resolved: Resolved,
) -> io::Result<ModelServices> {
    let RunContext { settings, ready, platform, tasks, stop_rest, .. } = context;
    let metrics = &accounts.accounting.metrics;
    let spawner = Spawner::start(Handle::current(), ready.descriptors.found)?;
    // From the start: as process 1 of a container this process inherits orphans before any worker runs.
    tasks.spawn(worker::reap_orphans(spawner.clone(), stop_rest.clone()));
    let worker_logs = LogFolder::open(log_folder::service_log_dir(&settings.logs), LogRules::from(&settings.logs));
    let key_suspensions = Arc::new(KeySuspensions::new(settings.engine.restart_window.0));
    let wait_before_drain = settings.routing.max_wait_before_drain.0;
    let worker_context =
        WorkerContext::new(spawner, Arc::clone(metrics), Arc::clone(&key_suspensions), wait_before_drain);
    let worker_context = Arc::new(worker_context?);
    let fleet = Arc::new(Fleet::empty());
    let timeouts = QueueTimeouts {
        queue: settings.queue.queue_timeout.duration(),
        request: settings.limits.request_timeout.0,
        priority: settings.queue.max_priority_wait.0,
    };
    let queues = Arc::new(ModelQueues::new(settings.queue.max_queue_size.0, timeouts, Arc::clone(metrics)));
    let parts = ReconcilerParts {
        worker_context,
        fleet: Arc::clone(&fleet),
        queues: Arc::clone(&queues),
        environment: inputs.environment.clone(),
        metrics: Arc::clone(metrics),
        logs: worker_logs.clone(),
    };
    let reconciler = Arc::new(ModelReconciler::new(parts, settings));
    // In the background: the ports must answer while the available memory is determined.
    let learned_file = settings.files.data_dir.join(LEARNED_MEMORY_FILE);
    let finding =
        Arc::clone(&reconciler).find_memory_budget(settings.routing.memory_budget, learned_file, stop_rest.clone());
    tasks.spawn(finding);
    // The first check of the models needs llama-server's help. It is read on a core, which has no request yet: llama-server
    // prints it while this thread opens the ports.
    let (reading, config, stop) = (Arc::clone(&reconciler), resolved.config.clone(), stop_rest.clone());
    let reading = async move { stop.run_until_cancelled(reading.llama_help(&config)).await };
    tasks.spawn_on(reading, context.cores.cores().least_busy().runtime());
    let downloads = Arc::new(DownloadRegistry::new(Arc::clone(settings), Arc::clone(metrics)));
    let followed = Followed { keys: ready.keys.clone(), certificates };
    let (config_files, of_reloader) = (ConfigFiles::of(&resolved), Arc::clone(&reconciler));
    let reloader = Reloader::new(inputs, platform.clone(), followed, of_reloader, resolved, Arc::clone(&downloads));
    let reloader = Arc::new(reloader);
    downloads.set_after(scan_after_download(&reloader));
    tasks.spawn(config_files.watch(Arc::clone(&reloader), stop_rest.clone()));
    tasks.spawn(watch_shelf(Arc::clone(&reloader), queues.rescan(), Arc::clone(&fleet), stop_rest.clone()));
    Ok(ModelServices { fleet, key_suspensions, queues, reconciler, reloader, worker_logs })
}

/// Serves the ports and polls for jobs.
fn serve(
    context: &RunContext,
    listeners: Listeners,
    certificates: Option<Arc<CertificateStore>>,
    accounts: &Accounts,
    models: &ModelServices,
    (used_budgets, at): (Vec<BudgetUse>, Timestamp),
) -> io::Result<Service> {
    let RunContext { settings, ready, platform, tasks, stop_gateway, stop_rest, .. } = context;
    let (accounting, fleet) = (&accounts.accounting, &models.fleet);
    let is_behind_edge = platform.kind == platform::PlatformKind::RunpodServerless;
    let hosts: Vec<String> =
        platform.hosts().into_iter().chain(settings.ui.ui_hosts.names().map(str::to_owned)).collect();
    let limits_store = shared_limits::connect(&settings.access, &context.cores.cores(), &accounting.metrics)?;
    if limits_store.is_some() && ready.keys.is_none() {
        warn!("LIMITS_STORE has no effect: there are no API keys whose limits could be shared");
    }
    let store_of_gateway = limits_store.clone();
    let authenticator =
        Authenticator::new(ready.keys.clone(), &settings.access, is_behind_edge, &hosts, store_of_gateway);
    let operator_api = operator_api::build(context, accounts, models, &authenticator);
    authenticator.accounts().restore(used_budgets, at);
    let queues = Arc::clone(&models.queues);
    let app = AppServices {
        local_responder: operator_api::local_responder(Arc::clone(&operator_api)),
        downloads: Arc::clone(&models.reloader.downloads),
        remove_model: model_removal::removal_order(&models.reloader, fleet, &models.queues, tasks),
        served_file: served_files::lookup(&models.reloader),
    };
    let suspensions = Arc::clone(&models.key_suspensions);
    let (fleet_of_gateway, accounting_of_gateway) = (Arc::clone(fleet), Arc::clone(accounting));
    let gateway =
        Gateway::new(settings, authenticator, queues, fleet_of_gateway, suspensions, accounting_of_gateway, app);
    let gateway = Arc::new(gateway);
    let (sweeper, stop) = (Arc::clone(&gateway), stop_rest.clone());
    tasks.spawn(async move { sweeper.sweep(stop).await });

    // Before the note, so that a certificate that is replaced meanwhile gets into it.
    let leaf = certificates.as_ref().map(|store| store.leaf());
    let note = listeners.publish_note(settings, certificates.as_deref()).map(Arc::new);
    if let Some(store) = &certificates {
        tasks.spawn(Arc::clone(store).watch(stop_rest.clone()));
        if let Some(renewal) = CertificateRenewal::of_store(store, &accounting.metrics) {
            tasks.spawn(renewal.run(stop_rest.clone()));
        }
    }
    if let Some((leaf, note)) = leaf.zip(note.as_ref()) {
        tasks.spawn(certificates::keep_note(leaf, Arc::clone(note), stop_rest.clone()));
    }
    let metrics = &accounting.metrics;
    let secure = |limits: listen::ListenerLimits| {
        certificates.clone().map(|certificates| SecurePort::new(certificates, limits.max_connections, metrics))
    };
    let limits = connection_limits(context);
    let port = listeners.gateway.local_addr()?.port();
    let health_thread = listeners.health.map(|listener| {
        let limits = listen::ListenerLimits { max_connections: HEALTH_CONNECTIONS, ..limits };
        let tls = if settings.has_health_tls() { secure(limits) } else { None };
        let port = ServedPort { listener, limits, tls };
        serve_health_on_its_own_thread(port, Arc::clone(&gateway), stop_rest.clone())
    });
    let health_thread = health_thread.transpose()?;
    start_accounting_tasks(context, accounts, models);
    if let Some(path) = &settings.listen.port_file {
        write_port_file(path, port)?;
    }
    tasks.spawn(log_when_ready(Arc::clone(fleet), Arc::clone(&accounting.metrics), port, stop_rest.clone()));
    let served = ServedPort { listener: listeners.gateway, limits, tls: secure(limits) };
    let listening = serve_gateway(context.cores.cores(), served, Arc::clone(&gateway), stop_gateway.clone());
    let listening = tasks.spawn(listening);

    if ready.queue.is_some() && ready.keys.is_none() && settings.access.auth_enabled {
        warn!("there is no key file: jobs are run, and requests over HTTP are refused");
    }
    let jobs = ready.queue.as_ref().map(|queue| QueueWorker::start(queue, Arc::clone(&gateway), Arc::clone(fleet)));
    Ok(Service { jobs: jobs.transpose()?, gateway, operator_api, listening, health_thread, note, limits_store })
}

/// Returns the limits for each connection of a client.
fn connection_limits(context: &RunContext) -> listen::ListenerLimits {
    let limits = &context.settings.limits;
    let wire = WireLimits {
        head: HeadLimits::new(limits),
        header_timeout: limits.client_header_timeout.0,
        idle_timeout: limits.client_idle_timeout.0,
        write_stall: CLIENT_WRITE_STALL,
    };
    listen::ListenerLimits { wire, max_connections: context.ready.descriptors.connections }
}

/// Starts the tasks that watch the key file, write the access log and report lost log lines.
fn start_accounting_tasks(context: &RunContext, accounts: &Accounts, models: &ModelServices) {
    let RunContext { ready, log, tasks, stop_rest, .. } = context;
    if let Some(keys) = ready.keys.clone() {
        let stop = stop_rest.clone();
        tasks.spawn(async move { keys.watch(stop).await });
    }
    let (accounting, stop) = (Arc::clone(&accounts.accounting), stop_rest.clone());
    tasks.spawn(async move { accounting.access.flush_periodically(&stop).await });
    let last_used = context.settings.files.data_dir.join(LAST_USED_FILE);
    tasks.spawn(note_last_used(Arc::clone(&models.reconciler), last_used, stop_rest.clone()));
    let (accounting, errors) = (Arc::clone(&accounts.accounting), models.worker_logs.errors());
    tasks.spawn(report_lost_lines(accounting, Arc::clone(log), errors, stop_rest.clone()));
}
