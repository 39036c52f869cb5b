//! The one task that owns a remote worker: a backend that somebody else runs. It asks how that is and reports each change.
//!
//! There is no process to start or to end: whatever happens to it, it may come back, so it is never given up. What a
//! probe is and what its answer means is `probe.rs`'s.
//!
//! - `probe.rs`: one probe of a remote backend, and what its answer means

mod probe;
#[cfg(test)]
mod tests;

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
use http::Uri;
use http::uri::Scheme;
use probe::{RemoteProbe, health_uri, probe};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

/// Everything that a remote worker is joined with.
#[derive(Debug, Clone)]
pub struct RemotePlan {
    /// The model's id.
    pub model: String,
    /// The number of the worker among those of its model.
    pub number: u32,
    /// Where it is.
    pub remote: RemoteSettings,
    /// Time between two probes while it is well.
    pub health_check_interval: Duration,
    /// Longest time until a connection to it can be used.
    pub connect_timeout: Duration,
}

/// Starts the owner of a remote worker on `tasks`; it ends after `stop` is cancelled.
pub fn supervise_remote(
    plan: RemotePlan,
    deaths: Arc<CrashSuspects>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    tasks: &TaskTracker,
) -> Result<WorkerHandle, BadRemote> {
    join_by(Trust::Machine, plan, deaths, metrics, stop, tasks)
}

fn join_by(
    trust: Trust,
    plan: RemotePlan,
    deaths: Arc<CrashSuspects>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    tasks: &TaskTracker,
) -> Result<WorkerHandle, BadRemote> {
    let target = DialTarget::remote(&plan.remote)?;
    let health = health_uri(&target, &plan.remote.health)?;
    // Plain HTTP needs no look at the disk for certificates.
    let trust = if target.scheme == Scheme::HTTPS { trust } else { Trust::None };
    let prober = Prober::remote(&trust, plan.connect_timeout)?;
    let endpoint = Arc::new(Endpoint::at(target, Arc::clone(&deaths)));
    let (publish, status) = watch::channel(WorkerStatus::first(false));
    let (trouble, failures, has_warned_of_key) = (ThrottledWarning::default(), 0, false);
    let board = WorkerMetrics::register(metrics, plan.model.clone(), plan.number, status.borrow().state);
    let shown = Some(Arc::clone(&board));
    let owner = Owner { plan, prober, health, endpoint, publish, board, failures, trouble, has_warned_of_key };
    tasks.spawn(owner.run(stop));
    Ok(WorkerHandle { status, demand: Arc::default(), suspects: deaths, metrics: shown })
}

struct Owner {
    plan: RemotePlan,
    prober: Prober,
    /// Where probes go.
    health: Uri,
    /// The same for ever: what is in flight may well be answered while probes are not.
    endpoint: Arc<Endpoint>,
    publish: watch::Sender<WorkerStatus>,
    board: Arc<WorkerMetrics>,
    /// Probes in a row that were not answered well.
    failures: u32,
    /// Probes that could not be made.
    trouble: ThrottledWarning,
    has_warned_of_key: bool,
}

impl Owner {
    async fn run(mut self, stop: CancellationToken) {
        self.apply(WorkerEvent::StartBegun, |_| {});
        loop {
            let doubts = self.endpoint.doubts();
            let probing = probe(&self.prober, &self.endpoint.target, &self.health);
            let Some(found) = stop.run_until_cancelled(probing).await else { break };
            let pause = self.conclude(found, doubts);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                // Where it is known not to serve, another broken connection says nothing new.
                () = self.endpoint.attention_needed(), if self.state() == WorkerState::Ready => {}
                () = stop.cancelled() => break,
            }
        }
        self.endpoint.close();
        self.apply(WorkerEvent::StopAsked, |status| status.endpoint = None);
        self.apply(WorkerEvent::Stopped, |_| {});
    }

    /// Draws the conclusions from a probe, before which it had been doubted so often. The pause before the next one.
    fn conclude(&mut self, found: RemoteProbe, doubts: u64) -> Duration {
        // Nobody is asked without a pause, whatever the settings say.
        let interval = self.plan.health_check_interval.max(REMOTE_BACKOFF_FIRST);
        match found {
            RemoteProbe::Ready { takes_our_key } => {
                self.failures = 0;
                if !takes_our_key && !self.has_warned_of_key {
                    self.has_warned_of_key = true;
                    let (model, worker, host) = (&self.plan.model, self.plan.number, self.host());
                    warn!(model, worker, host, "the remote backend refuses its probe: its api_key may be wrong");
                }
                if self.mark_serving(doubts) { interval } else { PROBE_INTERVAL_DOUBTED }
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
            // That says nothing about it.
            RemoteProbe::Unasked(cause) => {
                if let Some(times) = self.trouble.report_due() {
                    let (model, worker) = (&self.plan.model, self.plan.number);
                    warn!(model, worker, %cause, times, "a remote backend could not be asked how it is");
                }
                SHORTAGE_PAUSE
            }
        }
    }

    /// It has answered well. False where somebody has doubted it since it was asked: the answer may be older than that.
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
            // Whoever waits for it is told.
            self.publish.send_modify(|_| {});
        }
        true
    }

    fn mark_failed(&self, why: String) {
        if self.publish.borrow().last_error.as_ref() != Some(&why) {
            warn!(model = self.plan.model, worker = self.plan.number, error = why, "the remote backend cannot serve");
        }
        self.apply(WorkerEvent::ProbesFailed, |status| {
            status.endpoint = None;
            status.last_error = Some(why);
        });
    }

    /// Host and port, for logs.
    fn host(&self) -> &str {
        self.endpoint.target.authority.as_str()
    }

    fn state(&self) -> WorkerState {
        self.publish.borrow().state
    }

    /// Takes the step of the state machine with what else changes by it: nobody sees one without the other.
    fn apply(&self, event: WorkerEvent, change: impl FnOnce(&mut WorkerStatus)) {
        let from = self.state();
        let to = from.after(event).unwrap_or(from);
        if to != from {
            debug!(model = self.plan.model, worker = self.plan.number, %from, %to, ?event, "worker state");
        }
        self.publish.send_modify(|status| {
            status.state = to;
            change(status);
        });
        self.board.set_state(to);
    }
}

/// The pause after so many failures in a row; it doubles with each, and is never longer than while all is well.
fn backoff(failures: u32, interval: Duration) -> Duration {
    let doubled = REMOTE_BACKOFF_FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled.min(REMOTE_BACKOFF_LONGEST).min(interval)
}
