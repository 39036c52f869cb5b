//! The operator's routes: connects the gateway's local routes with the [`OperatorApi`], and the desk with what it reports on.

use super::stages::{Accounts, Loaded, Models};
use crate::gateway::{LocalResponder, LocalRoute};
use crate::operator::{OperatorApi, QueueCounts, ReloadOrder};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Makes the desk that answers the operator.
pub(super) fn desk_of(loaded: &Loaded, accounts: &Accounts, models: &Models) -> Arc<OperatorApi> {
    let Loaded { settings, platform, .. } = loaded;
    let (reload, lanes, shelving) =
        (Arc::clone(&models.reload), Arc::clone(&models.lanes), Arc::clone(&models.shelving));
    let reload: ReloadOrder = Box::new(move || {
        let reload = Arc::clone(&reload);
        Box::pin(async move { reload.run().await })
    });
    let lines: QueueCounts = Box::new(move |model| lanes.counts(model));
    Arc::new(OperatorApi {
        fleet: Arc::clone(&models.fleet),
        metrics: Arc::clone(&accounts.books.metrics),
        reload,
        queue_counts: lines,
        platform: platform.kind.to_string(),
        auth_enabled: settings.access.auth_enabled,
        max_concurrent: Box::new(move || shelving.max_concurrent()),
        max_queue_size: settings.queue.max_queue_size.0.unwrap_or(0),
        stopping: AtomicBool::new(false),
    })
}

/// Connects the routes that the gateway answers itself with the desk.
pub(super) fn local_answers(desk: Arc<OperatorApi>) -> LocalResponder {
    Box::new(move |local, parts| {
        let answer = match local {
            LocalRoute::Ping | LocalRoute::Livez => desk.alive(),
            LocalRoute::Probe => desk.probe(),
            LocalRoute::Readyz => desk.ready(),
            LocalRoute::Health => desk.health(),
            LocalRoute::Metrics => desk.metrics(parts),
            LocalRoute::LbStats => desk.lb_stats(),
            LocalRoute::Reload => {
                let desk = Arc::clone(&desk);
                return Box::pin(async move { desk.reload().await });
            }
        };
        Box::pin(async move { Ok(answer) })
    })
}
