//! The composition root: the only file that knows both journeys, and the order of start and of stop.
//!
//! Start: sockets, health port, gateway, and then the models: their files are looked at and loaded when the ports are open,
//! so a platform's probe always finds somebody. Stop: refuse new requests, let those in flight finish, close the gateway's
//! port, stop llama-server, close the health port. With one port for both nobody listens while llama-server is stopped.

mod bounds;
mod doors;
mod ending;
mod reload;
mod reports;
mod shelving;
mod signals;

pub use ending::Outcome;
pub use signals::{Signals, StopSignals};

use crate::awake::{self, Beat};
use crate::fleet::Fleet;
use crate::gateway::{
    Books, Gatekeeper, Gateway, HeadLimits, Lanes, Local, LocalAnswer, Patience, Refuse, WireTerms, listen,
};
use crate::operator::Desk;
use crate::platform::{self, Platform};
use crate::preflight::Ready;
use crate::runpod::QueueWorker;
use crate::settings::bounds::{CLIENT_WRITE_STALL, CONNECTION_GRACE, HEALTH_CONNECTIONS};
use crate::settings::{Inputs, Resolved, Settings};
use crate::telemetry::access::AccessLog;
use crate::telemetry::files::Folder;
use crate::telemetry::log::LogGuard;
use crate::telemetry::metrics::Metrics;
use crate::worker::{self, Allowance, Spawner, Yard};
use doors::{Doors, serve_health_on_its_own_thread, write_port_file};
use ending::until_the_end;
use http::Request;
use hyper::body::Incoming;
use reload::Reload;
use reports::{report_lost_lines, say_when_ready};
use shelving::Shelving;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

/// Runs the service until it is told to stop or cannot go on.
pub async fn run(
    inputs: Inputs,
    resolved: Resolved,
    ready: Ready,
    platform: Platform,
    log: Arc<LogGuard>,
    mut signals: Signals,
) -> io::Result<Outcome> {
    let settings = Arc::new(resolved.settings.clone());
    let _beat = Beat::start()?;
    let stop_gateway = CancellationToken::new();
    let stop_rest = CancellationToken::new();
    let tasks = TaskTracker::new();

    let doors = Doors::open(&settings)?;

    doors.say_where(&inputs);

    let metrics = Arc::new(Metrics::new(&platform.kind.to_string()));
    let (access, access_guard) = AccessLog::open(&settings.logs);
    let books = Arc::new(Books { metrics: Arc::clone(&metrics), access });

    let spawner = Spawner::start(tokio::runtime::Handle::current(), ready.descriptors.found)?;
    tasks.spawn(worker::reap_orphans(spawner.clone(), stop_rest.clone()));
    let llama_logs = Folder::open(worker_log_dir(&settings), settings.logs.log_keep.get());
    let yard = Yard::new(spawner, Arc::clone(&metrics), settings.routing.max_wait_before_drain.0);
    let yard = yard?;
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
    let is_behind_edge = platform.kind == platform::Kind::RunpodServerless;
    let gatekeeper = Gatekeeper::new(ready.keys.clone(), &settings.access, is_behind_edge);
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
    let port = doors.gateway.local_addr()?.port();
    let health_thread = doors.health.map(|listener| {
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
    if let Some(path) = &port_file {
        write_port_file(path, port)?;
    }
    tasks.spawn(say_when_ready(Arc::clone(&fleet), Arc::clone(&metrics), port, stop_rest.clone()));
    let serving = {
        let (gateway, at_the_door) = (Arc::clone(&gateway), Arc::clone(&gateway));
        let service = move |request: Request<Incoming>, client: IpAddr| {
            let gateway = Arc::clone(&gateway);
            async move { gateway.serve(request, client).await }
        };
        let refuse: Refuse = Arc::new(move |raw_head, refusal| at_the_door.turn_away(raw_head, refusal));
        tasks.spawn(listen::serve(doors.gateway, terms, service, refuse, stop_gateway.clone()))
    };

    if ready.queue.is_some() && ready.keys.is_none() && settings.access.auth_enabled {
        warn!("there is no key file: jobs are done, and requests over HTTP are refused");
    }
    let jobs = ready.queue.map(|queue| QueueWorker::start(&queue, Arc::clone(&gateway), Arc::clone(&fleet)));
    let mut jobs = jobs.transpose()?;

    let unused = async {
        match settings.service.shutdown_timeout.duration() {
            Some(least) => gateway.quiet_for(least).await,
            None => std::future::pending().await,
        }
    };
    let stocking = Arc::clone(&reload).stock();
    let (outcome, reason) = until_the_end(&mut signals, &fleet, &reload, stocking, unused).await;

    desk.stopping.store(true, Ordering::Relaxed);
    if let (Some(jobs), Some(reason)) = (&mut jobs, reason) {
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
