//! Probes one life of a process until it ends by itself, has to be killed, or is not needed any more.
//!
//! What the responses mean is decided in `health/`; the process is ended in `life.rs`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::life::{ProcessLife, WatchEnd};
use super::owner::Owner;
use crate::pause_clock::{self, ActiveInstant};
use crate::telemetry::throttled_warning::ThrottledWarning;
use crate::worker::bounds::{
    PROBE_INTERVAL_DOUBTED, PROBE_INTERVAL_FIRST, PROBE_INTERVAL_LOADING, PROBE_INTERVAL_READY,
};
use crate::worker::demand::DemandChange;
use crate::worker::diagnosis::evidence::KillReason;
use crate::worker::endpoint::Endpoint;
use crate::worker::handle::LocalFacts;
use crate::worker::health::cpu_time::ThreadTimes;
use crate::worker::health::hang::{HangDetector, HangFinding};
use crate::worker::health::listening;
use crate::worker::health::load_progress::{LoadProgress, LoadSigns};
use crate::worker::health::probe::{LLAMA_HEALTH, Probe, ProbeOutcome, Silence};
use crate::worker::health::rpc_server::RpcServerProbe;
use crate::worker::load_phases::LoadPhases;
use crate::worker::plan::Program;
use crate::worker::state::{WorkerEvent, WorkerState};

/// The times of a load that the probes do not tell.
#[derive(Clone, Copy)]
struct LoadInfo<'a> {
    /// The phases of the load, according to the log.
    phases: &'a Mutex<LoadPhases>,
    /// How long the prefetch of the model took, if there was one.
    prefetch: Option<Duration>,
}

/// Tells those who look at the worker how far its load is. Dropped at the end of the process.
struct LoadingGuard(Arc<LocalFacts>);

impl LoadingGuard {
    fn begin(local: &Arc<LocalFacts>, total: Option<u64>) -> Self {
        local.load.begin(total, Instant::now());
        Self(Arc::clone(local))
    }

    fn record(&self, phases: &Mutex<LoadPhases>, taken: u64) {
        let phase = phases.lock().unwrap_or_else(PoisonError::into_inner).current();
        self.0.load.record(phase, taken, Instant::now());
    }

    fn end(&self) {
        self.0.load.end();
    }
}

impl Drop for LoadingGuard {
    fn drop(&mut self) {
        self.end();
        self.0.kv_cache.reset();
    }
}

/// Why a worker accepts no new requests and stops once it has finished those in flight.
#[derive(Clone, Copy, PartialEq, Eq)]
enum DrainCause {
    /// Another load needs its memory. It is recalled if that changes.
    Evicted,
    /// An order to unload it.
    Ordered,
}

/// What was observed in one life so far.
struct WatchState<'a> {
    load: LoadInfo<'a>,
    progress: LoadProgress,
    silence: Silence,
    hang: HangDetector,
    /// For probes that could not be sent.
    warning: ThrottledWarning,
    rpc_server: RpcServerProbe,
    ticks: Interval,
}

impl WatchState<'_> {
    /// Has the next probe of a load come later than this one did.
    fn probe_less_often(&mut self) {
        let interval = self.ticks.period();
        if interval < PROBE_INTERVAL_LOADING {
            let longer = (interval * 2).min(PROBE_INTERVAL_LOADING);
            self.ticks = ticks_every(longer, longer);
        }
    }
}

impl Owner {
    /// Probes a running process until it has ended or must be ended.
    pub(super) async fn watch(&mut self, life: &mut ProcessLife, stop: &CancellationToken) -> WatchEnd {
        let ProcessLife { process, endpoint, log_tail, phases, says_ready, prefetch, reservation, port, peers, .. } =
            life;
        let load = LoadInfo { phases, prefetch: *prefetch };
        let started = ActiveInstant::now();
        let loading = LoadingGuard::begin(&self.local, self.file_size);
        let mut seen = WatchState {
            load,
            progress: LoadProgress::new(started),
            silence: Silence::default(),
            hang: HangDetector::new(started, None),
            warning: ThrottledWarning::default(),
            rpc_server: RpcServerProbe::default(),
            ticks: ticks_every(PROBE_INTERVAL_FIRST, PROBE_INTERVAL_FIRST),
        };
        let mut draining = None;
        loop {
            let is_doubtful = endpoint.is_doubted() || seen.silence.is_refused();
            // Hang samples are taken only in probes that are due by the clock: their interval is a part of
            // `HANG_TIMEOUT`.
            let is_due = tokio::select! {
                status = process.wait() => return WatchEnd::Exited(status),
                () = stop.cancelled() => return WatchEnd::StopAsked,
                () = peers.lost() => return WatchEnd::Kill(KillReason::PeerLost),
                () = self.unused(endpoint) => return WatchEnd::Unused,
                () = endpoint.idle(), if draining.is_some() => {
                    // Its memory may not be needed any more; then it is told so.
                    if draining == Some(DrainCause::Evicted) && !reservation.confirm_leaving() {
                        draining = None;
                        self.end_draining(endpoint);
                        continue;
                    }
                    return WatchEnd::PutAway;
                }
                is_evicted = reservation.eviction_change(), if draining != Some(DrainCause::Ordered) => {
                    match is_evicted {
                        true => {
                            draining = Some(DrainCause::Evicted);
                            self.begin_draining(endpoint);
                        }
                        false => {
                            draining = None;
                            self.end_draining(endpoint);
                        }
                    }
                    continue;
                }
                change = self.demand.shared().next_change() => {
                    match change {
                        DemandChange::PutAway if draining != Some(DrainCause::Ordered) => {
                            info!(model = self.plan.model, "{} is unloaded by an order", self.plan.program.name());
                            draining = Some(DrainCause::Ordered);
                            reservation.mark_leaving();
                            self.begin_draining(endpoint);
                        }
                        DemandChange::PutAway => self.demand.release(),
                        // A ready process needs no guard. One that drains is started again after its end.
                        DemandChange::Wake if self.state() == WorkerState::Ready => {}
                        DemandChange::Wake => self.demand.hold(),
                    }
                    continue;
                }
                // A connection broke or a computation failed: the worker is probed at once.
                () = endpoint.attention_needed() => false,
                () = tokio::time::sleep(PROBE_INTERVAL_DOUBTED), if is_doubtful => false,
                // Between two ticks a load may end, and requests wait for it.
                () = says_ready.notified(), if !self.state().has_served() => false,
                _ = seen.ticks.tick() => true,
            };
            if endpoint.cannot_compute() {
                return WatchEnd::Kill(KillReason::CannotCompute);
            }
            let had_served = self.state().has_served();
            let probe = self.probe(process.pid(), endpoint, is_due, &mut seen);
            // A probe takes up to its timeout; the end of the process and a stop must not wait for it.
            let why = tokio::select! {
                why = probe => why,
                status = process.wait() => return WatchEnd::Exited(status),
                () = stop.cancelled() => return WatchEnd::StopAsked,
            };
            if let Some(why) = why {
                return WatchEnd::Kill(why);
            }
            if self.state() == WorkerState::Ready {
                self.demand.release();
                if !had_served {
                    loading.end();
                    reservation.mark_ready(endpoint);
                    peers.begin_watch();
                    self.measure_memory(process.pid(), None, reservation).await;
                }
            }
            let load_timeout = self.plan.engine.load_timeout.0;
            if !self.state().has_served() {
                if is_due {
                    seen.probe_less_often();
                }
                let signs = LoadSigns::of(process.pid(), log_tail);
                loading.record(phases, signs.taken);
                let stalled = seen.progress.stalled_for(signs, ActiveInstant::now());
                if stalled >= load_timeout {
                    let expected = port.address();
                    let elsewhere = listening::elsewhere(process.pid(), expected);
                    let elsewhere = elsewhere.map(|found| KillReason::ListensElsewhere { found, expected });
                    return WatchEnd::Kill(elsewhere.unwrap_or(KillReason::LoadStalled(load_timeout)));
                }
            }
        }
    }

    /// Sends one probe and applies its outcome: changes the state, pauses or resumes requests, or returns the reason
    /// for a kill. With `is_due` it also checks for a hang.
    async fn probe(
        &self,
        pid: i32,
        endpoint: &Arc<Endpoint>,
        is_due: bool,
        seen: &mut WatchState<'_>,
    ) -> Option<KillReason> {
        // The doubts are counted before the probe is sent: a response clears only doubts that are older than itself.
        let (sent_at, doubts, was_doubted) = (ActiveInstant::now(), endpoint.doubts(), endpoint.is_doubted());
        let state = self.state();
        // Other programs do not have llama-server's counters.
        let has_counters = matches!(self.plan.program, Program::LlamaServer { .. });
        let hang_timeout =
            self.plan.engine.hang_timeout.duration().filter(|_| has_counters && state.has_served() && is_due);
        let health = async {
            match &self.plan.program {
                Program::Command { health, .. } => self.shared.prober.probe(endpoint, health).await,
                Program::RpcServer(program) => seen.rpc_server.probe(pid, program.address).await,
                Program::LlamaServer { .. } if state.has_served() => {
                    self.shared.prober.probe(endpoint, LLAMA_HEALTH).await
                }
                Program::LlamaServer { .. } => self.shared.prober.first_probe(endpoint).await,
            }
        };
        let hang_sample = async {
            match hang_timeout {
                Some(_) => self.shared.prober.hang_sample(endpoint).await,
                None => None,
            }
        };
        let kv_cache = async {
            if has_counters && state.has_served() && is_due {
                self.look_at_kv_cache(endpoint).await;
            }
        };
        let (health, hang_sample, ()) = tokio::join!(health, hang_sample, kv_cache);
        match health {
            Probe::Ready => {
                seen.silence = Silence::default();
                endpoint.clear_doubts(doubts);
                if endpoint.is_doubted() {
                    // A connection broke while the probe was in flight; the response may be older than that.
                    return None;
                }
                if was_doubted {
                    // The status itself is unchanged, but requests wait for the endpoint to accept them again.
                    self.status.send_modify(|_| {});
                }
                if !matches!(state, WorkerState::Ready | WorkerState::Draining) {
                    self.mark_ready(endpoint, seen.load, state.has_served());
                    let interval = self.probe_interval();
                    seen.ticks = ticks_every(interval, interval);
                    seen.hang = HangDetector::new(ActiveInstant::now(), ThreadTimes::of_group(pid));
                }
            }
            Probe::Stranger => return Some(KillReason::Stranger),
            Probe::Loading if !state.has_served() => {
                seen.load.phases.lock().unwrap_or_else(PoisonError::into_inner).begin_loading(Instant::now());
                self.apply(WorkerEvent::AnswersLoading);
            }
            Probe::Loading | Probe::Silent | Probe::Refused if state.has_served() => {
                let outcome = seen.silence.record(sent_at, was_doubted, health == Probe::Refused);
                match outcome {
                    ProbeOutcome::Restart => return Some(KillReason::Silent),
                    ProbeOutcome::Closed => return Some(KillReason::Closed),
                    ProbeOutcome::Wait | ProbeOutcome::Unhealthy => {}
                }
                if outcome == ProbeOutcome::Unhealthy && state == WorkerState::Ready {
                    warn!(model = self.plan.model, "{} no longer answers its probes", self.plan.program.name());
                    self.apply_with(WorkerEvent::ProbesFailed, |status| status.endpoint = None);
                }
            }
            // A process that does not listen yet. Whether its load has stalled is decided by `LoadProgress`.
            Probe::Loading | Probe::Silent | Probe::Refused => {}
            // A probe that was not sent says nothing about the process, so it counts neither as good nor as failed.
            Probe::NotSent(cause) => {
                if let Some(times) = seen.warning.report_due() {
                    warn!(model = self.plan.model, %cause, times, "{} could not be probed", self.plan.program.name());
                }
                return None;
            }
        }
        let hang_timeout = hang_timeout?;
        let threads = || ThreadTimes::of_group(pid);
        match seen.hang.sample(hang_sample, threads, hang_timeout, ActiveInstant::now()) {
            HangFinding::Alive if endpoint.resume_requests() => self.status.send_modify(|_| {}),
            HangFinding::Alive => {}
            HangFinding::Suspicious if endpoint.pause_requests() => {
                warn!(model = self.plan.model, "{} makes no progress, new requests wait", self.plan.program.name());
            }
            HangFinding::Suspicious => {}
            HangFinding::Stopped(why) => return Some(why),
        }
        None
    }

    /// Records how much of its KV cache llama-server uses. One without requests is asked only once; one that does not answer
    /// keeps its last value.
    async fn look_at_kv_cache(&self, endpoint: &Endpoint) {
        let engine = &self.plan.engine;
        if endpoint.idle_since().is_some() && !self.local.kv_cache.set_idle() {
            return;
        }
        let context = (engine.ctx.0 as u64).saturating_mul(engine.parallel.get() as u64);
        if let Some(usage) = self.shared.prober.kv_cache_usage(endpoint, context).await {
            self.local.kv_cache.set(usage);
        }
    }

    /// Closes the endpoint to new requests; requests in flight go on.
    fn begin_draining(&mut self, endpoint: &Endpoint) {
        endpoint.close_to_new();
        self.demand.clear();
        self.apply_with(WorkerEvent::StopAsked, |status| {
            status.endpoint = None;
            status.asleep = true;
        });
    }

    /// Lets a worker serve again that was evicted and is not to leave after all.
    fn end_draining(&self, endpoint: &Arc<Endpoint>) {
        endpoint.reopen();
        self.apply_with(WorkerEvent::Recalled, |status| {
            status.asleep = false;
            // Published even if the state is the same: requests wait for the endpoint to accept them again.
            if status.state == WorkerState::Ready {
                status.endpoint = Some(Arc::clone(endpoint));
            }
        });
    }

    /// Waits until a ready process was not used for `IDLE_UNLOAD`, or the time that a client has set, and closes its endpoint in the same step, so that no
    /// request can begin in between. Never returns while the process is not ready.
    async fn unused(&self, endpoint: &Endpoint) {
        if self.state() != WorkerState::Ready {
            return std::future::pending().await;
        }
        let demand = self.demand.shared();
        loop {
            let Some(least) = demand.idle_time(self.plan.engine.idle_unload.duration()) else {
                demand.idle_time_changed().await;
                continue;
            };
            let since = endpoint.idle_since().filter(|_| demand.is_empty());
            if since.is_some_and(|since| since.elapsed() >= least) && endpoint.close_if_idle(least) {
                return;
            }
            // A process that is in use now stays idle for `IDLE_UNLOAD` at the earliest after a whole `IDLE_UNLOAD`.
            let rest = least - since.map_or(Duration::ZERO, ActiveInstant::elapsed).min(least);
            tokio::select! {
                () = pause_clock::sleep(rest) => {}
                () = demand.idle_time_changed() => {}
            }
        }
    }

    /// Publishes that the process is ready, for the first time or again.
    fn mark_ready(&self, endpoint: &Arc<Endpoint>, load: LoadInfo<'_>, has_served: bool) {
        endpoint.mark_ready();
        self.apply_with(WorkerEvent::AnswersReady, |status| {
            status.endpoint = Some(Arc::clone(endpoint));
            status.asleep = false;
            status.has_been_ready = true;
        });
        if has_served {
            info!(model = self.plan.model, "{} answers its probes again", self.plan.program.name());
        } else {
            self.record_load(load);
        }
    }

    /// Logs how long the load took that has just succeeded, and adds it to the metrics.
    fn record_load(&self, load: LoadInfo<'_>) {
        let times = load.phases.lock().unwrap_or_else(PoisonError::into_inner).end(tokio::time::Instant::now());
        self.metrics.record_load(&times, load.prefetch);
        let ms = |time: Duration| time.as_millis() as u64;
        info!(
            model = self.plan.model,
            load_ms = ms(times.load),
            prefetch_ms = load.prefetch.map(ms),
            start_ms = times.start.map(ms),
            weights_ms = ms(times.weights),
            warm_up_ms = times.warm_up.map(ms),
            "{} is ready",
            self.plan.program.name()
        );
    }

    /// Returns the time between two probes of a ready process: short enough that several fit into `HANG_TIMEOUT`.
    fn probe_interval(&self) -> Duration {
        let hang_timeout = self.plan.engine.hang_timeout.duration().unwrap_or(Duration::MAX);
        (hang_timeout / 4).clamp(PROBE_INTERVAL_LOADING, PROBE_INTERVAL_READY)
    }
}

/// Returns ticks with this interval. A late tick delays the following ones, so that ticks never come in bursts.
fn ticks_every(interval: Duration, first_in: Duration) -> Interval {
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + first_in, interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
