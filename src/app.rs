//! The composition root: the only file that knows both journeys, and the order of start and of stop.
//!
//! Start: sockets, health port, gateway, and then the models: their files are looked at and loaded when the ports are
//! open, so a platform's probe always finds somebody. Stop: refuse new requests, let those in flight finish, close the
//! gateway's port, stop llama-server, close the health port. With one port for both nobody listens while llama-server is stopped.

mod reload;
mod shelving;
mod signals;

pub use signals::{Signals, StopSignals};

use crate::awake::{self, Beat};
use crate::fleet::Fleet;
use crate::gateway::{
    Books, Gatekeeper, Gateway, HeadLimits, Lanes, Local, LocalAnswer, Patience, Refuse, WireTerms, listen,
};
use crate::operator::Desk;
use crate::platform::Platform;
use crate::preflight::Ready;
use crate::runpod::QueueWorker;
use crate::settings::bounds::{CLIENT_WRITE_STALL, CONNECTION_GRACE, HEALTH_CONNECTIONS, REPORT_INTERVAL};
use crate::settings::{Inputs, Problem, Resolved, Settings};
use crate::telemetry::access::AccessLog;
use crate::telemetry::files::{Folder, WriteErrors};
use crate::telemetry::log::LogGuard;
use crate::telemetry::metrics::{FolderLabels, Metrics};
use crate::worker::{self, Allowance, Loss, Spawner, Yard};
use http::Request;
use hyper::body::Incoming;
use reload::Reload;
use shelving::Shelving;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

/// How the service ended.
#[derive(Debug)]
pub enum Outcome {
    /// It was asked to.
    Stopped,
    /// No worker could be kept running.
    BackendFailed,
    /// Something in here failed that must not.
    Broken,
    /// The models cannot be served as they are configured.
    Misconfigured(Vec<Problem>),
}

/// Runs the service until it is told to stop or cannot go on.
pub async fn run(
    inputs: Inputs,
    resolved: Resolved,
    ready: Ready,
    platform: Platform,
    log: LogGuard,
    mut signals: Signals,
) -> io::Result<Outcome> {
    let settings = Arc::new(resolved.settings.clone());
    let _beat = Beat::start()?;
    let stop_gateway = CancellationToken::new();
    let stop_rest = CancellationToken::new();
    let tasks = TaskTracker::new();

    let gateway_listener = open(&settings, settings.listen.port, "gateway")?;
    let one_listener = settings.listen.port == settings.listen.port_health && settings.listen.port != 0;
    let health_listener =
        if one_listener { None } else { Some(open(&settings, settings.listen.port_health, "health port")?) };

    let metrics = Arc::new(Metrics::new(&platform.kind.to_string()));
    let (access, access_guard) = AccessLog::open(&settings.logs);
    let books = Arc::new(Books { metrics: Arc::clone(&metrics), access });

    let spawner = Spawner::start(tokio::runtime::Handle::current(), ready.descriptors.found)?;
    tasks.spawn(worker::reap_orphans(spawner.clone(), stop_rest.clone()));
    let llama_logs = Folder::open(worker_log_dir(&settings), settings.logs.log_keep.get());
    let yard = Yard::new(spawner, Arc::clone(&metrics), settings.routing.max_wait_before_drain.0);
    let yard = yard.map_err(io::Error::other)?;
    let fleet = Arc::new(Fleet::unknown());
    let line = &settings.queue;
    let patience = Patience { queue: line.queue_timeout.duration(), request: settings.limits.request_timeout.0 };
    let lanes = Arc::new(Lanes::new(line.max_queue_size.0, patience, Arc::clone(&metrics)));
    let logs = (llama_logs.clone(), &*settings);
    let environment = inputs.environment.clone();
    let shelving = Shelving::new(yard, Arc::clone(&fleet), Arc::clone(&lanes), environment, Arc::clone(&metrics), logs);
    let shelving = Arc::new(shelving);
    {
        // Beside everything else: the ports answer meanwhile.
        let (shelving, budget, stop) = (Arc::clone(&shelving), settings.routing.memory_budget, stop_rest.clone());
        tasks.spawn(async move {
            if let Some(allowance) = stop.run_until_cancelled(Allowance::find(budget)).await {
                shelving.yard.allow(allowance);
            }
        });
    }
    let reload = Reload::new(inputs, platform.clone(), ready.keys.clone(), Arc::clone(&shelving), resolved);
    let reload = Arc::new(reload);
    tasks.spawn(Arc::clone(&reload).watch(stop_rest.clone()));

    let desk = Arc::new(Desk {
        fleet: Arc::clone(&fleet),
        metrics: Arc::clone(&metrics),
        reload: {
            let reload = Arc::clone(&reload);
            Box::new(move || {
                let reload = Arc::clone(&reload);
                Box::pin(async move { reload.run().await })
            })
        },
        lines: {
            let lanes = Arc::clone(&lanes);
            Box::new(move |model| lanes.counts(model))
        },
        platform: platform.kind.to_string(),
        auth_enabled: settings.access.auth_enabled,
        max_concurrent: {
            let shelving = Arc::clone(&shelving);
            Box::new(move || shelving.max_concurrent())
        },
        max_queue_size: settings.queue.max_queue_size.0.unwrap_or(0),
        stopping: AtomicBool::new(false),
    });
    let gatekeeper = Gatekeeper::new(ready.keys.clone(), &settings.access);
    let answers = answers_of(Arc::clone(&desk));
    let gateway = Arc::new(Gateway::new(&settings, gatekeeper, lanes, Arc::clone(&fleet), Arc::clone(&books), answers));

    let (sweeping, stop) = (Arc::clone(&gateway), stop_rest.clone());
    tasks.spawn(async move { sweeping.sweep(stop).await });

    let terms = listen::Terms {
        wire: WireTerms {
            head: HeadLimits::new(&settings.limits),
            header_timeout: settings.limits.client_header_timeout.0,
            write_stall: CLIENT_WRITE_STALL,
        },
        connections: ready.descriptors.connections,
    };
    let health_thread = health_listener.map(|listener| {
        let terms = listen::Terms { connections: HEALTH_CONNECTIONS, ..terms };
        serve_health_on_its_own_thread(listener, terms, Arc::clone(&gateway), stop_rest.clone())
    });
    let health_thread = health_thread.transpose()?;
    if let Some(keys) = ready.keys.clone() {
        let stop = stop_rest.clone();
        tasks.spawn(async move { keys.watch(stop).await });
    }
    {
        let (books, stop) = (Arc::clone(&books), stop_rest.clone());
        tasks.spawn(async move { books.access.keep_moving(&stop).await });
    }
    tasks.spawn(report_lost_lines(Arc::clone(&books), log, llama_logs.errors(), stop_rest.clone()));
    let port_file = settings.listen.port_file.clone();
    if let (Some(path), Ok(address)) = (&port_file, gateway_listener.local_addr()) {
        write_port_file(path, address.port())?;
    }
    let serving = {
        let (gateway, at_the_door) = (Arc::clone(&gateway), Arc::clone(&gateway));
        let service = move |request: Request<Incoming>, client: IpAddr| {
            let gateway = Arc::clone(&gateway);
            async move { gateway.serve(request, client).await }
        };
        let refuse: Refuse = Arc::new(move |raw_head, refusal| at_the_door.turn_away(raw_head, refusal));
        tasks.spawn(listen::serve(gateway_listener, terms, service, refuse, stop_gateway.clone()))
    };

    if ready.queue.is_some() && ready.keys.is_none() && settings.access.auth_enabled {
        warn!("there is no key file: jobs are done, and requests over HTTP are refused");
    }
    let jobs = ready.queue.map(|queue| QueueWorker::start(&queue, Arc::clone(&gateway), Arc::clone(&fleet)));
    let jobs = jobs.transpose()?;

    let unused = async {
        match settings.service.shutdown_timeout.duration() {
            Some(least) => gateway.quiet_for(least).await,
            None => std::future::pending().await,
        }
    };
    let stocking = Arc::clone(&reload).stock();
    let (outcome, reason) = until_the_end(&mut signals, &fleet, &reload, stocking, unused).await;

    desk.stopping.store(true, Ordering::Relaxed);
    if let (Some(jobs), Some(reason)) = (&jobs, reason) {
        jobs.give_up(&reason).await;
    }
    tokio::select! {
        () = drain(jobs.as_ref(), &gateway) => {}
        () = awake::sleep(settings.service.drain_timeout.0) => {
            warn!("DRAIN_TIMEOUT is over: requests in flight are cut");
        }
        _ = signals.stop.recv() => warn!("asked again to stop: requests in flight are cut"),
    }
    gateway.cut();
    let _ = awake::timeout(CONNECTION_GRACE, gateway.drain()).await;
    if let Some(jobs) = jobs {
        jobs.cut().await;
        jobs.end().await;
    }
    stop_gateway.cancel();
    let _ = serving.await;
    shelving.clear().await;
    stop_rest.cancel();
    tasks.close();
    if tokio::time::timeout(CONNECTION_GRACE * 3, tasks.wait()).await.is_err() {
        warn!("some tasks did not end in time");
    }
    if let Some(thread) = health_thread {
        let _ = tokio::task::spawn_blocking(move || thread.join()).await;
    }
    if let Some(path) = port_file {
        let _ = std::fs::remove_file(path);
    }
    drop((gateway, desk, reload, shelving, books));
    drop(access_guard);
    Ok(outcome)
}

/// Lets what is in flight finish. Jobs first: one that was taken meanwhile still needs the gateway.
async fn drain(jobs: Option<&QueueWorker>, gateway: &Gateway) {
    if let Some(jobs) = jobs {
        gateway.close();
        jobs.drain().await;
    }
    gateway.drain().await;
}

fn open(settings: &Settings, port: u16, name: &str) -> io::Result<TcpListener> {
    let address = SocketAddr::new(settings.listen.host, port);
    let listener = listen::bind(address)
        .map_err(|error| io::Error::new(error.kind(), format!("{name} cannot listen on {address}: {error}")))?;
    info!("{name} listens on http://{}", listener.local_addr()?);
    Ok(listener)
}

fn worker_log_dir(settings: &Settings) -> std::path::PathBuf {
    let logs = &settings.logs;
    logs.log_dir.join(match &logs.worker_type {
        Some(kind) => format!("llama-{kind}"),
        None => logs.log_name.clone(),
    })
}

/// Connects the routes that the gateway answers itself with the operator's desk.
fn answers_of(desk: Arc<Desk>) -> LocalAnswer {
    Box::new(move |local, parts| {
        let answer = match local {
            Local::Ping | Local::Livez => desk.alive(),
            Local::Probe => desk.probe(),
            Local::Readyz => desk.ready(),
            Local::Health => desk.health(),
            Local::Metrics => desk.metrics(parts),
            Local::LbStats => desk.lb_stats(),
            Local::Reload => {
                let desk = Arc::clone(&desk);
                return Box::pin(async move { desk.reload().await });
            }
        };
        Box::pin(async move { Ok(answer) })
    })
}

/// The health port has a thread and a runtime of its own, so that it answers while the gateway is saturated.
fn serve_health_on_its_own_thread(
    listener: TcpListener,
    terms: listen::Terms,
    gateway: Arc<Gateway>,
    stop: CancellationToken,
) -> io::Result<std::thread::JoinHandle<()>> {
    let listener = listener.into_std()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("health-port".to_owned()).spawn(move || {
        runtime.block_on(async move {
            let at_the_door = Arc::clone(&gateway);
            let refuse: Refuse =
                Arc::new(move |raw_head, refusal| at_the_door.turn_away_from_health(raw_head, refusal));
            let service = move |request: Request<Incoming>, client: IpAddr| {
                let gateway = Arc::clone(&gateway);
                async move { gateway.serve_health(request, client).await }
            };
            match TcpListener::from_std(listener) {
                Ok(listener) => listen::serve(listener, terms, service, refuse, stop).await,
                Err(error) => error!(%error, "the health port cannot be served"),
            }
        });
    })
}

/// Has the models served, and waits for a signal to stop, for nobody to use the service any more, or for all workers to
/// be given up; reloads on the way. With the reason where nobody can serve any more.
async fn until_the_end(
    signals: &mut Signals,
    fleet: &Fleet,
    reload: &Arc<Reload>,
    stocking: impl Future<Output = Result<(), Vec<Problem>>>,
    unused: impl Future<Output = ()>,
) -> (Outcome, Option<String>) {
    let lost = fleet.is_lost();
    tokio::pin!(lost, stocking, unused);
    let mut is_stocked = false;
    loop {
        tokio::select! {
            stocked = &mut stocking, if !is_stocked => match stocked {
                Ok(()) => is_stocked = true,
                Err(problems) => {
                    let reason = problems.first().map(|problem| format!("{}: {}", problem.subject, problem.fault));
                    return (Outcome::Misconfigured(problems), reason);
                }
            },
            signal = signals.stop.recv() => {
                info!("{signal} received, stopping");
                return (Outcome::Stopped, None);
            }
            () = &mut unused => {
                info!("no request for SHUTDOWN_TIMEOUT, stopping");
                return (Outcome::Stopped, None);
            }
            loss = &mut lost => {
                let Loss::GivenUp(exit) = loss else {
                    error!("fatal: a worker is no longer watched; this is a defect, please report it");
                    return (Outcome::Broken, Some("a worker is no longer watched".to_owned()));
                };
                let (program, model, hint) =
                    exit.map_or_else(Default::default, |exit| (exit.program, exit.model, exit.hint));
                let hint = hint.unwrap_or_else(|| "no cause found in its log".to_owned());
                error!(model, "fatal: {program} could not be kept running: {hint}");
                return (Outcome::BackendFailed, Some(hint));
            }
            _ = signals.hangup.recv(), if is_stocked => {
                if let Err(problem) = reload.run().await {
                    error!("SIGHUP received, but all stays as it was: {problem}");
                }
            }
        }
    }
}

/// Reports, at most once a minute, what full queues and disks have cost. Keeps the log's writers alive.
async fn report_lost_lines(books: Arc<Books>, log: LogGuard, llama: Arc<WriteErrors>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(REPORT_INTERVAL);
    loop {
        let is_last = stop.run_until_cancelled(ticks.tick()).await.is_none();
        let sources = [
            ("_boot", &log.errors, log.dropped.dropped_lines() as u64),
            ("access", &books.access.errors, books.access.dropped_lines()),
            ("llama", &llama, 0),
        ];
        for (folder, errors, dropped) in sources {
            let lost = errors.lost().saturating_add(dropped);
            let gauge = books.metrics.log_lines_lost.get_or_create(&FolderLabels { folder }).clone();
            gauge.set(i64::try_from(lost).unwrap_or(i64::MAX));
            if let Some(report) = errors.report_due(jiff::Timestamp::now()) {
                warn!("{report}");
            }
        }
        if is_last {
            return;
        }
    }
}

fn write_port_file(path: &std::path::Path, port: u16) -> io::Result<()> {
    // By rename, so that whoever waits for the file never reads half of it.
    let named = |error: io::Error| io::Error::new(error.kind(), format!("PORT_FILE {}: {error}", path.display()));
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    std::fs::write(&temporary, format!("{port}\n")).map_err(named)?;
    std::fs::rename(&temporary, path).map_err(named)
}
