//! Connects the gateway's local routes with the [`OperatorApi`], and the [`OperatorApi`] with the parts that it reports
//! on.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::runtime::Handle;

use crate::app::stages::{Accounts, ModelServices, RunContext};
use crate::gateway::{Authenticator, LocalResponder, LocalRoute};
use crate::operator::{OperatorApi, QueueCounts, ReloadOrder};

/// Creates the operator API.
pub(in crate::app) fn build(
    context: &RunContext,
    accounts: &Accounts,
    models: &ModelServices,
    authenticator: &Authenticator,
) -> Arc<OperatorApi> {
    let RunContext { settings, ready, platform, .. } = context;
    let (reloader, queues, reconciler) =
        (Arc::clone(&models.reloader), Arc::clone(&models.queues), Arc::clone(&models.reconciler));
    // Workers live on the runtime that starts them. That of a request would end before them, so orders run on this one. An
    // order that has begun ends, even if its client leaves.
    let main = Handle::current();
    let reload: ReloadOrder = Box::new(move || {
        let reloader = Arc::clone(&reloader);
        let reloaded = main.spawn(async move { reloader.reload().await });
        Box::pin(async move { reloaded.await.unwrap_or_else(|_| Err("the reload was interrupted".to_owned())) })
    });
    let queue_counts: QueueCounts = Box::new(move |model| queues.counts(model));
    Arc::new(OperatorApi {
        fleet: Arc::clone(&models.fleet),
        key_suspensions: Arc::clone(&models.key_suspensions),
        metrics: Arc::clone(&accounts.accounting.metrics),
        downloads: Arc::clone(&models.reloader.downloads),
        budgets_left: Box::new(authenticator.accounts().budgets_left(ready.keys.clone())),
        reload,
        queue_counts,
        platform: platform.kind.to_string(),
        auth_enabled: settings.access.auth_enabled,
        max_concurrent: Box::new(move || reconciler.max_concurrent()),
        max_queue_size: settings.queue.max_queue_size.0.unwrap_or(0),
        stopping: AtomicBool::new(false),
    })
}

/// Returns the responder for the routes that the gateway answers itself.
pub(in crate::app) fn local_responder(api: Arc<OperatorApi>) -> LocalResponder {
    Box::new(move |local, id, parts| {
        let response = match local {
            LocalRoute::Ping | LocalRoute::Livez => api.alive(),
            LocalRoute::Probe => api.probe(),
            LocalRoute::Readyz => api.ready(),
            LocalRoute::Root => api.root(),
            LocalRoute::Hello => api.hello(),
            LocalRoute::Health => api.health(),
            LocalRoute::Metrics => api.metrics(parts),
            LocalRoute::LbStats => api.lb_stats(),
            LocalRoute::ResumeKey => {
                let response = api.resume_key(id);
                return Box::pin(async move { response });
            }
            LocalRoute::Reload => {
                let api = Arc::clone(&api);
                return Box::pin(async move { api.reload().await });
            }
        };
        Box::pin(async move { Ok(response) })
    })
}
