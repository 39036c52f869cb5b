//! The health port of `llamagate rpc`: that of a service whose only worker is the rpc-server.
//!
//! It is served by a gateway without a port of its own, so that paths, answers and limits are those of a service.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::app::listeners::serve_health_on_its_own_thread;
use crate::app::requests::operator_api;
use crate::download::DownloadRegistry;
use crate::fleet::{Fleet, KeySuspensions};
use crate::gateway::listen::{ListenerLimits, ServedPort};
use crate::gateway::{
    Accounting, AppServices, Authenticator, Gateway, HeadLimits, ModelQueues, NotRemoved, QueueTimeouts, RecentActs,
    WireLimits,
};
use crate::ledger::UsageLedger;
use crate::operator::OperatorApi;
use crate::platform::Platform;
use crate::settings::Settings;
use crate::settings::bounds::{CLIENT_WRITE_STALL, HEALTH_CONNECTIONS};
use crate::telemetry::access::AccessLog;
use crate::telemetry::metrics::Metrics;
use crate::traces::Tracer;

/// What answers on the health port.
pub(super) struct HealthPort {
    gateway: Arc<Gateway>,
    operator_api: Arc<OperatorApi>,
}

impl HealthPort {
    /// Builds what answers about these workers.
    pub(super) fn build(
        settings: &Arc<Settings>,
        platform: &Platform,
        fleet: &Arc<Fleet>,
        suspensions: &Arc<KeySuspensions>,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let downloads = Arc::new(DownloadRegistry::new(Arc::clone(settings), Arc::clone(metrics)));
        let authenticator = Authenticator::new(None, &settings.access, false, &[], None);
        let timeouts = QueueTimeouts {
            queue: settings.queue.queue_timeout.duration(),
            request: settings.limits.request_timeout.0,
            priority: settings.queue.max_priority_wait.0,
        };
        let queues = Arc::new(ModelQueues::new(settings.queue.max_queue_size.0, timeouts, Arc::clone(metrics)));
        let operator_api = Arc::new(OperatorApi {
            fleet: Arc::clone(fleet),
            key_suspensions: Arc::clone(suspensions),
            metrics: Arc::clone(metrics),
            downloads: Arc::clone(&downloads),
            budgets_left: Box::new(authenticator.accounts().budgets_left(None)),
            reload: Box::new(|| Box::pin(async { Err("llamagate rpc reloads nothing".to_owned()) })),
            queue_counts: Box::new(|_| (0, 0)),
            platform: platform.kind.to_string(),
            auth_enabled: settings.access.auth_enabled,
            max_concurrent: Box::new(|| 0),
            max_queue_size: 0,
            stopping: AtomicBool::new(false),
        });
        let app = AppServices {
            local_responder: operator_api::local_responder(Arc::clone(&operator_api)),
            downloads,
            remove_model: Box::new(|_| Box::pin(async { Err(NotRemoved::InUse("there are no models".to_owned())) })),
            served_file: Box::new(|_| Box::pin(async { None })),
        };
        // Requests on the health port are not recorded.
        let mut logs = settings.logs.clone();
        logs.log_to_file = false;
        let (access, _) = AccessLog::open(&logs);
        let accounting = Accounting {
            metrics: Arc::clone(metrics),
            access,
            ledger: UsageLedger::off(),
            acts: RecentActs::default(),
            tracer: Tracer::default(),
        };
        let (fleet, suspensions) = (Arc::clone(fleet), Arc::clone(suspensions));
        let gateway = Gateway::new(settings, authenticator, queues, fleet, suspensions, Arc::new(accounting), app);
        Self { gateway: Arc::new(gateway), operator_api }
    }

    /// Serves the port on a thread of its own until `stop` is cancelled.
    ///
    /// # Errors
    ///
    /// The thread or its runtime cannot be created.
    pub(super) fn serve(
        &self,
        listener: TcpListener,
        settings: &Settings,
        stop: CancellationToken,
    ) -> io::Result<std::thread::JoinHandle<()>> {
        let wire = WireLimits {
            head: HeadLimits::new(&settings.limits),
            header_timeout: settings.limits.client_header_timeout.0,
            idle_timeout: settings.limits.client_idle_timeout.0,
            write_stall: CLIENT_WRITE_STALL,
        };
        let limits = ListenerLimits { wire, max_connections: HEALTH_CONNECTIONS };
        serve_health_on_its_own_thread(ServedPort { listener, limits, tls: None }, Arc::clone(&self.gateway), stop)
    }

    /// Answers from now on that the program stops.
    pub(super) fn begin_stop(&self) {
        self.operator_api.stopping.store(true, Ordering::Relaxed);
    }
}
