//! The one task that owns a remote worker: a backend that this service did not start. It probes the backend and
//! publishes each change of its state.
//!
//! There is no process to start or to end. A remote worker may come back at any time, so it is never given up.
//!
//! - `probe.rs`: one probe of a remote backend, and what its response means

mod probe;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use crate::dial::{BadRemote, DialTarget, Trust};
use crate::settings::catalogue::RemoteSettings;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::throttled_warning::ThrottledWarning;
use crate::worker::bounds::{
    PROBE_INTERVAL_DOUBTED, REMOTE_BACKOFF_FIRST, REMOTE_BACKOFF_LONGEST, REMOTE_INTERVAL_LOADING, SHORTAGE_PAUSE,
};
use crate::worker::endpoint::Endpoint;
use crate::worker::endpoint::crash_suspects::CrashSuspects;
use crate::worker::handle::{WorkerHandle, WorkerStatus};
use crate::worker::health::probe::Prober;
use crate::worker::state::{WorkerEvent, WorkerState};
use crate::worker::worker_metrics::WorkerMetrics;
use probe::{RemoteProbe, health_uri, probe};

/// The configuration of one remote worker.
#[derive(Debug, Clone)]
pub struct RemotePlan {
    /// The model's id.
    pub model: String,
    /// The number of the worker among those of its model.
    pub number: u32,
    /// The address, key, health path and limits of the backend.
    pub remote: RemoteSettings,
    /// Time between two probes while the backend is ready (`HEALTH_CHECK_INTERVAL`). Zero: no probe before a failure.
    pub health_check_interval: Duration,
    /// Timeout of a connection to the backend, TLS included.
    pub connect_timeout: Duration,
}

/// Starts the owner of a remote worker on `tasks`; it ends after `stop` is cancelled.
///
/// # Errors
///
/// The address or the health path is invalid, or the HTTP client for probes cannot be built.
pub fn supervise_remote(
    plan: RemotePlan,
    crash_suspects: Arc<CrashSuspects>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    tasks: &TaskTracker,
) -> Result<WorkerHandle, BadRemote> {
    supervise_with_trust(Trust::Machine, plan, crash_suspects, metrics, stop, tasks)
}

fn supervise_with_trust(
    trust: Trust,
    plan: RemotePlan,
    crash_suspects: Arc<CrashSuspects>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    tasks: &TaskTracker,
) -> Result<WorkerHandle, BadRemote> {
    let target = DialTarget::remote(&plan.remote)?;
    let health = health_uri(&target, &plan.remote.health)?;
    let prober = Prober::remote(&trust.for_addresses([plan.remote.api_base.as_str()]), plan.connect_timeout)?;
    let endpoint = Arc::new(Endpoint::at(target, Arc::clone(&crash_suspects)));
    let (sender, status) = watch::channel(WorkerStatus::initial(false));
    let metrics = WorkerMetrics::register(metrics, plan.model.clone(), plan.number, status.borrow().state);
    let handle = WorkerHandle {
        status,
        demand: Arc::default(),
        suspects: crash_suspects,
        metrics: Some(Arc::clone(&metrics)),
        local: None,
    };
    // That a vendor's API has no such path says nothing about its address.
    let has_warned_of_path = !plan.remote.api.has_health() && plan.remote.health == plan.remote.api.health();
    let owner = RemoteOwner {
        plan,
        prober,
        health,
        endpoint,
        status: sender,
        metrics,
        failures: 0,
        warning: ThrottledWarning::default(),
        has_warned_of_key: false,
        has_warned_of_path,
    };
    tasks.spawn(owner.run(stop));
    Ok(handle)
}

/// The state of the task that owns a remote worker.
struct RemoteOwner {
    plan: RemotePlan,
    prober: Prober,
    /// The URI of its health path.
    health: Uri,
    /// Never replaced: requests in flight may succeed even while probes fail.
    endpoint: Arc<Endpoint>,
    status: watch::Sender<WorkerStatus>,
    metrics: Arc<WorkerMetrics>,
    /// Consecutive failed probes.
    failures: u32,
    /// For probes that could not be sent.
    warning: ThrottledWarning,
    has_warned_of_key: bool,
    has_warned_of_path: bool,
}

impl RemoteOwner {
    async fn run(mut self, stop: CancellationToken) {
        self.apply(WorkerEvent::StartBegun, |_| {});
        if !self.probes_regularly() {
            // A probe would wake a backend that sleeps while it is not used.
            self.mark_serving(self.endpoint.doubts());
            tokio::select! {
                () = self.endpoint.attention_needed() => {}
                () = stop.cancelled() => {}
            }
        }
        while !stop.is_cancelled() {
            // Counted before the probe is sent: its response clears only doubts that are older than itself.
            let doubts = self.endpoint.doubts();
            let probe = probe(&self.prober, &self.endpoint.target, &self.health);
            let Some(outcome) = stop.run_until_cancelled(probe).await else { break };
            let pause = self.apply_probe(outcome, doubts);
            tokio::select! {
                () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => {}
                // A broken connection is worth a probe at once only while the worker counts as ready.
                () = self.endpoint.attention_needed(), if self.state() == WorkerState::Ready => {}
                () = stop.cancelled() => break,
            }
        }
        self.endpoint.close();
        self.apply(WorkerEvent::StopAsked, |status| status.endpoint = None);
        self.apply(WorkerEvent::Stopped, |_| {});
    }

    /// Whether the backend is probed while nothing is wrong with it.
    fn probes_regularly(&self) -> bool {
        !self.plan.health_check_interval.is_zero()
    }

    /// Applies the outcome of a probe, and returns the pause before the next one; `None` if there is none before the
    /// next failure. `doubts` is the number of doubts before the probe was sent.
    fn apply_probe(&mut self, outcome: RemoteProbe, doubts: u64) -> Option<Duration> {
        let interval = match self.plan.health_check_interval {
            Duration::ZERO => REMOTE_BACKOFF_LONGEST,
            // There is always a pause between two probes.
            interval => interval.max(REMOTE_BACKOFF_FIRST),
        };
        Some(match outcome {
            RemoteProbe::Ready { takes_our_key, has_path } => {
                self.failures = 0;
                if !takes_our_key && !self.has_warned_of_key {
                    self.has_warned_of_key = true;
                    let (model, worker, host) = (&self.plan.model, self.plan.number, self.host());
                    warn!(model, worker, host, "the remote backend refuses its probe: its api_key may be wrong");
                }
                if !has_path && !self.has_warned_of_path {
                    self.has_warned_of_path = true;
                    // The backend may serve without that path, so it counts as ready.
                    let (model, worker, url) = (&self.plan.model, self.plan.number, &self.health);
                    warn!(model, worker, %url, "the remote backend answers its probe with 404: api_base may be wrong");
                }
                match self.mark_serving(doubts) {
                    true if !self.probes_regularly() => return None,
                    true => interval,
                    false => PROBE_INTERVAL_DOUBTED,
                }
            }
            RemoteProbe::Loading => {
                self.failures = 0;
                self.apply(WorkerEvent::AnswersLoading, |status| {
                    status.endpoint = None;
                    status.last_error = None;
                });
                REMOTE_INTERVAL_LOADING
            }
            RemoteProbe::Failed(why) => {
                self.failures = self.failures.saturating_add(1);
                self.mark_failed(why);
                backoff(self.failures, interval)
            }
            // A probe that was not sent says nothing about the backend.
            RemoteProbe::NotSent(cause) => {
                if let Some(times) = self.warning.report_due() {
                    let (model, worker) = (&self.plan.model, self.plan.number);
                    warn!(model, worker, %cause, times, "a remote backend could not be probed");
                }
                SHORTAGE_PAUSE
            }
        })
    }

    /// Marks the backend as ready after a good response. Returns false if a connection broke after the probe was sent:
    /// the response may be older than that.
    fn mark_serving(&self, doubts: u64) -> bool {
        let was_doubted = self.endpoint.is_doubted();
        self.endpoint.clear_doubts(doubts);
        if self.endpoint.is_doubted() {
            return false;
        }
        if self.state() != WorkerState::Ready {
            let (model, worker, host) = (&self.plan.model, self.plan.number, self.host());
            info!(model, worker, host, "the remote backend is ready");
            self.endpoint.mark_ready();
            self.apply(WorkerEvent::AnswersReady, |status| {
                status.endpoint = Some(Arc::clone(&self.endpoint));
                status.has_been_ready = true;
                status.last_error = None;
            });
        } else if was_doubted {
            // The status itself is unchanged, but requests wait for the endpoint to accept them again.
            self.status.send_modify(|_| {});
        }
        true
    }

    /// Publishes that a probe failed; logs only a reason that is new.
    fn mark_failed(&self, why: String) {
        if self.status.borrow().last_error.as_ref() != Some(&why) {
            warn!(model = self.plan.model, worker = self.plan.number, error = why, "the remote backend cannot serve");
        }
        self.apply(WorkerEvent::ProbesFailed, |status| {
            status.endpoint = None;
            status.last_error = Some(why);
        });
    }

    /// Returns host and port, for logs.
    fn host(&self) -> &str {
        self.endpoint.target.authority.as_str()
    }

    fn state(&self) -> WorkerState {
        self.status.borrow().state
    }

    /// Applies an event together with other changes of the status. A reader sees all of them at once, or none.
    fn apply(&self, event: WorkerEvent, change: impl FnOnce(&mut WorkerStatus)) {
        let from = self.state();
        let to = from.after(event).unwrap_or(from);
        if to != from {
            debug!(model = self.plan.model, worker = self.plan.number, %from, %to, ?event, "worker state");
        }
        self.status.send_modify(|status| {
            status.state = to;
            change(status);
        });
        self.metrics.set_state(to);
    }
}

/// Returns the backoff after `failures` consecutive failures. It doubles with each, and is never longer than
/// `interval`, the pause between two probes of a ready backend.
fn backoff(failures: u32, interval: Duration) -> Duration {
    let doubled = REMOTE_BACKOFF_FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled.min(REMOTE_BACKOFF_LONGEST).min(interval)
}
