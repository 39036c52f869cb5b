//! The order in which everything ends. First new requests are refused, so that those in flight can finish.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tracing::warn;

use super::signals::StopSignals;
use super::stages::{Accounts, ModelServices, RunContext, Service};
use crate::gateway::Gateway;
use crate::pause_clock;
use crate::runpod::QueueWorker;
use crate::settings::bounds::CONNECTION_GRACE;

/// Everything that the shutdown stops, in the order in which it is stopped.
pub(super) struct Running {
    pub(super) service: Service,
    pub(super) models: ModelServices,
    pub(super) accounts: Accounts,
    pub(super) context: RunContext,
}

/// Shuts the service down. `reason` says why no job can be served any more, if that is why it stops.
pub(super) async fn shut_down(running: Running, reason: Option<String>, stop: &mut StopSignals) {
    let Running { service, models, accounts, context } = running;
    let Service { gateway, operator_api, listening, health_thread, mut jobs, note, limits_store } = service;
    let settings = &context.settings;
    operator_api.stopping.store(true, Ordering::Relaxed);
    // First: what has arrived is kept, and those who follow a download leave.
    models.reloader.downloads.stop().await;
    gateway.end_live().await;
    if let (Some(jobs), Some(reason)) = (&mut jobs, reason) {
        // Before the drain, so that the platform sends no further jobs to this worker.
        jobs.give_up(&reason).await;
    }
    tokio::select! {
        () = drain(jobs.as_ref(), &gateway) => {}
        () = pause_clock::sleep(settings.service.drain_timeout.0) => {
            warn!("DRAIN_TIMEOUT has passed: requests in flight are cut");
        }
        _ = stop.recv() => warn!("second stop signal: requests in flight are cut"),
    }
    gateway.abort_in_flight();
    // Aborted responses still have to send their last event.
    let _ = pause_clock::timeout(CONNECTION_GRACE, gateway.drain()).await;
    if let Some(jobs) = jobs {
        jobs.finish().await;
        jobs.end().await;
    }
    // Only now: until here the open port refuses new requests with 503, which a client understands better than a
    // refused connection.
    context.stop_gateway.cancel();
    let _ = listening.await;
    if let Some(store) = limits_store {
        // On the cores, while they still run: other replicas need not wait for what this one held.
        store.close().await;
    }
    context.cores.stop(CONNECTION_GRACE).await;
    models.reconciler.stop_all().await;
    context.stop_rest.cancel();
    context.tasks.close();
    if tokio::time::timeout(CONNECTION_GRACE * 3, context.tasks.wait()).await.is_err() {
        warn!("some tasks did not end in time");
    }
    if let Some(thread) = health_thread {
        // `join` blocks.
        let _ = tokio::task::spawn_blocking(move || thread.join()).await;
    }
    if let Some(path) = &settings.listen.port_file {
        let _ = std::fs::remove_file(path);
    }
    drop(note);
    // Waits for the disk.
    let closing = Arc::clone(&gateway);
    let _ = tokio::task::spawn_blocking(move || closing.close_cache()).await;
    // Dropped in this order: the access log passes its last lines to the writer, and dropping the guard writes them.
    let Accounts { accounting, access_guard, ledger_guard, .. } = accounts;
    drop((gateway, operator_api, models, accounting));
    drop(access_guard);
    // Waits for the disk.
    let _ = tokio::task::spawn_blocking(move || drop(ledger_guard)).await;
}

/// Waits until the requests in flight have finished. Jobs first: a poll that is open may still return jobs, and these
/// need the gateway.
async fn drain(jobs: Option<&QueueWorker>, gateway: &Gateway) {
    if let Some(jobs) = jobs {
        gateway.close_to_clients();
        jobs.drain().await;
    }
    gateway.drain().await;
}
