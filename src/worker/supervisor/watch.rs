//! Watching one life of a llama-server: until it ends by itself, has to be ended, or is not needed any more.

use super::life::{ProcessLife, WatchEnd};
use super::owner::Owner;
use crate::pause_clock::{self, ActiveInstant};
use crate::telemetry::throttled_warning::ThrottledWarning;
use crate::worker::bounds::{PROBE_INTERVAL_DOUBTED, PROBE_INTERVAL_LOADING, PROBE_INTERVAL_READY};
use crate::worker::demand::DemandChange;
use crate::worker::diagnosis::evidence::KillReason;
use crate::worker::endpoint::Endpoint;
use crate::worker::health::cpu_time::ThreadTimes;
use crate::worker::health::hang::{HangDetector, HangFinding};
use crate::worker::health::load_progress::{LoadProgress, LoadSigns};
use crate::worker::health::probe::{LLAMA_HEALTH, Probe, ProbeOutcome, Silence};
use crate::worker::load_phases::LoadPhases;
use crate::worker::memory::reservation::Reservation;
use crate::worker::plan::Program;
use crate::worker::state::{WorkerEvent, WorkerState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// What is known of a load beside what the probes say.
#[derive(Clone, Copy)]
struct LoadInfo<'a> {
    /// What its log tells.
    phases: &'a Mutex<LoadPhases>,
    /// How long the model was read before the process was started, if it was.
    prefetch: Option<Duration>,
}

/// What has been seen of one life so far.
struct WatchState<'a> {
    load: LoadInfo<'a>,
    progress: LoadProgress,
    silence: Silence,
    pulse: HangDetector,
    unasked: ThrottledWarning,
    ticks: Interval,
}

impl Owner {
    /// Probes a running process until there is a reason to stop that.
    pub(super) async fn watch(&mut self, life: &mut ProcessLife, stop: &CancellationToken) -> WatchEnd {
        let ProcessLife { process, endpoint, tail, phases, prefetch, room, .. } = life;
        let load = LoadInfo { phases, prefetch: *prefetch };
        let started = ActiveInstant::now();
        let mut seen = WatchState {
            load,
            progress: LoadProgress::new(started),
            silence: Silence::default(),
            pulse: HangDetector::new(started, None),
            unasked: ThrottledWarning::default(),
            ticks: every(PROBE_INTERVAL_LOADING, Duration::ZERO),
        };
        let mut is_leaving = false;
        loop {
            let asks_soon = endpoint.is_doubted() || seen.silence.is_refused();
            let is_due = tokio::select! {
                status = process.wait() => return WatchEnd::Exited(status),
                () = stop.cancelled() => return WatchEnd::StopAsked,
                () = self.unused(endpoint) => return WatchEnd::Unused,
                () = endpoint.idle(), if is_leaving => return WatchEnd::PutAway,
                () = room.evicted(), if !is_leaving => {
                    is_leaving = true;
                    self.begin_leaving(endpoint, room);
                    continue;
                }
                change = self.demand.shared().next_change() => {
                    match change {
                        DemandChange::PutAway if !is_leaving => {
                            info!(model = self.plan.model, "{} is put away", self.plan.program.name());
                            is_leaving = true;
                            self.begin_leaving(endpoint, room);
                        }
                        DemandChange::PutAway => self.demand.release(),
                        // It is ready, or comes back when it has gone.
                        DemandChange::Wake if self.state() == WorkerState::Ready => {}
                        DemandChange::Wake => self.demand.hold(),
                    }
                    continue;
                }
                () = endpoint.attention_needed() => false,
                () = tokio::time::sleep(PROBE_INTERVAL_DOUBTED), if asks_soon => false,
                _ = seen.ticks.tick() => true,
            };
            if endpoint.cannot_compute() {
                return WatchEnd::MustDie(KillReason::CannotCompute);
            }
            let was_ready = self.state().has_served();
            let looking = self.probe(process.pid(), endpoint, is_due, &mut seen);
            let why = tokio::select! {
                why = looking => why,
                status = process.wait() => return WatchEnd::Exited(status),
                () = stop.cancelled() => return WatchEnd::StopAsked,
            };
            if let Some(why) = why {
                return WatchEnd::MustDie(why);
            }
            if self.state() == WorkerState::Ready {
                self.demand.release();
                if !was_ready {
                    room.mark_ready(endpoint);
                    self.learn(process.pid(), None).await;
                }
            }
            let load_timeout = self.plan.engine.load_timeout.0;
            if !self.state().has_served() {
                let stalled = seen.progress.stalled_for(LoadSigns::of(process.pid(), tail), ActiveInstant::now());
                if stalled >= load_timeout {
                    return WatchEnd::MustDie(KillReason::LoadStalled(load_timeout));
                }
            }
        }
    }

    /// Asks once how it is, and draws the conclusions.
    async fn probe(
        &self,
        pid: i32,
        endpoint: &Arc<Endpoint>,
        is_due: bool,
        seen: &mut WatchState<'_>,
    ) -> Option<KillReason> {
        let (asked, doubts, was_doubted) = (ActiveInstant::now(), endpoint.doubts(), endpoint.is_doubted());
        let state = self.state();
        // Other programs do not say what they do.
        let may_tell = matches!(self.plan.program, Program::LlamaServer { .. });
        let hang_timeout =
            self.plan.engine.hang_timeout.duration().filter(|_| may_tell && state.has_served() && is_due);
        let health = async {
            match &self.plan.program {
                Program::Command { health, .. } => self.shared.prober.probe(endpoint, health).await,
                Program::LlamaServer { .. } if state.has_served() => {
                    self.shared.prober.probe(endpoint, LLAMA_HEALTH).await
                }
                Program::LlamaServer { .. } => self.shared.prober.first_probe(endpoint).await,
            }
        };
        let vitals = async {
            match hang_timeout {
                Some(_) => self.shared.prober.hang_sample(endpoint).await,
                None => None,
            }
        };
        let (health, vitals) = tokio::join!(health, vitals);
        match health {
            Probe::Ready => {
                seen.silence = Silence::default();
                endpoint.clear_doubts(doubts);
                if endpoint.is_doubted() {
                    // Somebody did so while it was asked; the answer may be older than what it broke.
                    return None;
                }
                if was_doubted {
                    // Whoever waits for it is told.
                    self.publish.send_modify(|_| {});
                }
                if !matches!(state, WorkerState::Ready | WorkerState::Draining) {
                    self.mark_ready(endpoint, seen.load, state.has_served());
                    let interval = self.probe_interval();
                    seen.ticks = every(interval, interval);
                    seen.pulse = HangDetector::new(ActiveInstant::now(), ThreadTimes::of_group(pid));
                }
            }
            Probe::Stranger => return Some(KillReason::Stranger),
            Probe::Loading if !state.has_served() => {
                seen.load
                    .phases
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .begin_loading(tokio::time::Instant::now());
                self.apply(WorkerEvent::AnswersLoading);
            }
            Probe::Loading | Probe::Silent | Probe::Refused if state.has_served() => {
                let verdict = seen.silence.record(asked, was_doubted, health == Probe::Refused);
                match verdict {
                    ProbeOutcome::Restart => return Some(KillReason::Silent),
                    ProbeOutcome::Closed => return Some(KillReason::Closed),
                    ProbeOutcome::Wait | ProbeOutcome::Unhealthy => {}
                }
                if verdict == ProbeOutcome::Unhealthy && state == WorkerState::Ready {
                    warn!(model = self.plan.model, "{} no longer answers its probes", self.plan.program.name());
                    self.apply_with(WorkerEvent::ProbesFailed, |status| status.endpoint = None);
                }
            }
            Probe::Loading | Probe::Silent | Probe::Refused => {}
            // Not even a reason to give up a load: what it has to say is not known.
            Probe::Unasked(cause) => {
                if let Some(times) = seen.unasked.report_due() {
                    warn!(model = self.plan.model, %cause, times, "{} could not be asked how it is", self.plan.program.name());
                }
                return None;
            }
        }
        let hang_timeout = hang_timeout?;
        match seen.pulse.sample(vitals, ThreadTimes::of_group(pid), hang_timeout, ActiveInstant::now()) {
            HangFinding::Lives if endpoint.resume_requests() => self.publish.send_modify(|_| {}),
            HangFinding::Lives => {}
            HangFinding::Suspicious if endpoint.pause_requests() => {
                warn!(model = self.plan.model, "{} makes no progress, new requests wait", self.plan.program.name());
            }
            HangFinding::Suspicious => {}
            HangFinding::Stopped(why) => return Some(why),
        }
        None
    }

    /// Has nothing new sent to it, and lets it finish what it serves.
    fn begin_leaving(&mut self, endpoint: &Endpoint, room: &Reservation) {
        endpoint.close_to_new();
        room.mark_leaving();
        self.demand.clear();
        self.apply_with(WorkerEvent::StopAsked, |status| {
            status.endpoint = None;
            status.asleep = true;
        });
    }

    /// Waits until nobody has used it for `IDLE_UNLOAD`; from then on nobody can. Never returns before it is ready.
    async fn unused(&self, endpoint: &Endpoint) {
        let Some(least) = self.plan.engine.idle_unload.duration().filter(|_| self.state() == WorkerState::Ready) else {
            return std::future::pending().await;
        };
        loop {
            let since = endpoint.idle_since().filter(|_| self.demand.shared().is_empty());
            if since.is_some_and(|since| since.elapsed() >= least) && endpoint.close_if_idle(least) {
                return;
            }
            // When it is in use now, it cannot be unused for so long any sooner.
            pause_clock::sleep(least - since.map_or(Duration::ZERO, ActiveInstant::elapsed).min(least)).await;
        }
    }

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

    /// Shows and logs how long a load took that has just ended well.
    fn record_load(&self, load: LoadInfo<'_>) {
        let times = load.phases.lock().unwrap_or_else(PoisonError::into_inner).end(tokio::time::Instant::now());
        self.board.record_load(&times, load.prefetch);
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

    /// Several probes must fit into `HANG_TIMEOUT`.
    fn probe_interval(&self) -> Duration {
        let hang_timeout = self.plan.engine.hang_timeout.duration().unwrap_or(Duration::MAX);
        (hang_timeout / 4).clamp(PROBE_INTERVAL_LOADING, PROBE_INTERVAL_READY)
    }
}

fn every(interval: Duration, first_in: Duration) -> Interval {
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + first_in, interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
