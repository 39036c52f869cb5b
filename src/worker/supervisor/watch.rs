//! Watching one life of a llama-server: until it ends by itself, has to be ended, or is not needed any more.

use super::life::{Ending, Life};
use super::owner::Owner;
use crate::awake::{self, ActiveInstant};
use crate::telemetry::trouble::ThrottledWarning;
use crate::worker::bounds::{PROBE_INTERVAL_DOUBTED, PROBE_INTERVAL_LOADING, PROBE_INTERVAL_READY};
use crate::worker::demand::DemandChange;
use crate::worker::diagnosis::evidence::Killed;
use crate::worker::endpoint::Endpoint;
use crate::worker::health::cpu_time::Threads;
use crate::worker::health::hang::{Finding, Pulse};
use crate::worker::health::load_progress::{Progress, Signs};
use crate::worker::health::probe::{LLAMA_HEALTH, Probe, Silence, Verdict};
use crate::worker::load_phases::Phases;
use crate::worker::memory::reservation::Room;
use crate::worker::plan::Program;
use crate::worker::state::{Event, State};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// What is known of a load beside what the probes say.
#[derive(Clone, Copy)]
struct Load<'a> {
    /// What its log tells.
    phases: &'a Mutex<Phases>,
    /// How long the model was read before the process was started, if it was.
    prefetch: Option<Duration>,
}

/// What has been seen of one life so far.
struct Seen<'a> {
    load: Load<'a>,
    progress: Progress,
    silence: Silence,
    pulse: Pulse,
    unasked: ThrottledWarning,
    ticks: Interval,
}

impl Owner {
    /// Probes a running process until there is a reason to stop that.
    pub(super) async fn watch(&mut self, life: &mut Life, stop: &CancellationToken) -> Ending {
        let Life { process, endpoint, tail, phases, prefetch, room, .. } = life;
        let load = Load { phases, prefetch: *prefetch };
        let started = ActiveInstant::now();
        let mut seen = Seen {
            load,
            progress: Progress::new(started),
            silence: Silence::default(),
            pulse: Pulse::new(started, None),
            unasked: ThrottledWarning::default(),
            ticks: every(PROBE_INTERVAL_LOADING, Duration::ZERO),
        };
        let mut is_leaving = false;
        loop {
            let asks_soon = endpoint.is_doubted() || seen.silence.is_refused();
            let is_due = tokio::select! {
                status = process.wait() => return Ending::Exited(status),
                () = stop.cancelled() => return Ending::StopAsked,
                () = self.unused(endpoint) => return Ending::Unused,
                () = endpoint.emptied(), if is_leaving => return Ending::PutAway,
                () = room.dismissed(), if !is_leaving => {
                    is_leaving = true;
                    self.begin_to_leave(endpoint, room);
                    continue;
                }
                change = self.demand.shared().next_change() => {
                    match change {
                        DemandChange::PutAway if !is_leaving => {
                            info!(model = self.plan.model, "{} is put away", self.plan.program.name());
                            is_leaving = true;
                            self.begin_to_leave(endpoint, room);
                        }
                        DemandChange::PutAway => self.demand.release(),
                        // It is ready, or comes back when it has gone.
                        DemandChange::Wake if self.state() == State::Ready => {}
                        DemandChange::Wake => self.demand.hold(),
                    }
                    continue;
                }
                () = endpoint.raised() => false,
                () = tokio::time::sleep(PROBE_INTERVAL_DOUBTED), if asks_soon => false,
                _ = seen.ticks.tick() => true,
            };
            if endpoint.cannot_compute() {
                return Ending::MustDie(Killed::CannotCompute);
            }
            let was_ready = self.state().has_served();
            let looking = self.look(process.pid(), endpoint, is_due, &mut seen);
            let why = tokio::select! {
                why = looking => why,
                status = process.wait() => return Ending::Exited(status),
                () = stop.cancelled() => return Ending::StopAsked,
            };
            if let Some(why) = why {
                return Ending::MustDie(why);
            }
            if self.state() == State::Ready {
                self.demand.release();
                if !was_ready {
                    room.is_ready(endpoint);
                    self.learn(process.pid(), None).await;
                }
            }
            let load_timeout = self.plan.engine.load_timeout.0;
            if !self.state().has_served() {
                let stalled = seen.progress.stalled_for(Signs::of(process.pid(), tail), ActiveInstant::now());
                if stalled >= load_timeout {
                    return Ending::MustDie(Killed::LoadStalled(load_timeout));
                }
            }
        }
    }

    /// Asks once how it is, and draws the conclusions.
    async fn look(&self, pid: i32, endpoint: &Arc<Endpoint>, is_due: bool, seen: &mut Seen<'_>) -> Option<Killed> {
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
                Some(_) => self.shared.prober.vitals(endpoint).await,
                None => None,
            }
        };
        let (health, vitals) = tokio::join!(health, vitals);
        match health {
            Probe::Ready => {
                seen.silence = Silence::default();
                endpoint.dispel(doubts);
                if endpoint.is_doubted() {
                    // Somebody did so while it was asked; the answer may be older than what it broke.
                    return None;
                }
                if was_doubted {
                    // Whoever waits for it is told.
                    self.publish.send_modify(|_| {});
                }
                if !matches!(state, State::Ready | State::Draining) {
                    self.become_ready(endpoint, seen.load, state.has_served());
                    let interval = self.probe_interval();
                    seen.ticks = every(interval, interval);
                    seen.pulse = Pulse::new(ActiveInstant::now(), Threads::of_group(pid));
                }
            }
            Probe::Stranger => return Some(Killed::Stranger),
            Probe::Loading if !state.has_served() => {
                seen.load.phases.lock().unwrap_or_else(PoisonError::into_inner).is_loading(tokio::time::Instant::now());
                self.happen(Event::AnswersLoading);
            }
            Probe::Loading | Probe::Silent | Probe::Refused if state.has_served() => {
                let verdict = seen.silence.goes_on(asked, was_doubted, health == Probe::Refused);
                match verdict {
                    Verdict::Restart => return Some(Killed::Silent),
                    Verdict::Closed => return Some(Killed::Closed),
                    Verdict::Wait | Verdict::Unhealthy => {}
                }
                if verdict == Verdict::Unhealthy && state == State::Ready {
                    warn!(model = self.plan.model, "{} no longer answers its probes", self.plan.program.name());
                    self.happen_and(Event::ProbesFailed, |status| status.endpoint = None);
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
        match seen.pulse.feel(vitals, Threads::of_group(pid), hang_timeout, ActiveInstant::now()) {
            Finding::Lives if endpoint.resume() => self.publish.send_modify(|_| {}),
            Finding::Lives => {}
            Finding::Suspicious if endpoint.hold() => {
                warn!(model = self.plan.model, "{} makes no progress, new requests wait", self.plan.program.name());
            }
            Finding::Suspicious => {}
            Finding::Stopped(why) => return Some(why),
        }
        None
    }

    /// Has nothing new sent to it, and lets it finish what it serves.
    fn begin_to_leave(&mut self, endpoint: &Endpoint, room: &Room) {
        endpoint.close_to_new();
        room.leaves();
        self.demand.clear();
        self.happen_and(Event::StopAsked, |status| {
            status.endpoint = None;
            status.asleep = true;
        });
    }

    /// Waits until nobody has used it for `IDLE_UNLOAD`; from then on nobody can. Never returns before it is ready.
    async fn unused(&self, endpoint: &Endpoint) {
        let Some(least) = self.plan.engine.idle_unload.duration().filter(|_| self.state() == State::Ready) else {
            return std::future::pending().await;
        };
        loop {
            let since = endpoint.idle_since().filter(|_| self.demand.shared().is_empty());
            if since.is_some_and(|since| since.elapsed() >= least) && endpoint.close_if_idle(least) {
                return;
            }
            // When it is in use now, it cannot be unused for so long any sooner.
            awake::sleep(least - since.map_or(Duration::ZERO, ActiveInstant::elapsed).min(least)).await;
        }
    }

    fn become_ready(&self, endpoint: &Arc<Endpoint>, load: Load<'_>, has_served: bool) {
        endpoint.begins_to_serve();
        self.happen_and(Event::AnswersReady, |status| {
            status.endpoint = Some(Arc::clone(endpoint));
            status.asleep = false;
            status.has_been_ready = true;
        });
        if has_served {
            info!(model = self.plan.model, "{} answers its probes again", self.plan.program.name());
        } else {
            self.account_for(load);
        }
    }

    /// Shows and logs how long a load took that has just ended well.
    fn account_for(&self, load: Load<'_>) {
        let times = load.phases.lock().unwrap_or_else(PoisonError::into_inner).end(tokio::time::Instant::now());
        self.board.loaded(&times, load.prefetch);
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
