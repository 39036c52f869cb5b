//! One life of a llama-server: its start, and its end.

use super::owner::{LifeEnd, Owner, StartFailure};
use crate::dial::DialTarget;
use crate::telemetry::files::{LogTail, pump};
use crate::telemetry::log::{CLOCK, queued_writer};
use crate::worker::bounds::LOG_PUMP_GRACE;
use crate::worker::demand::{Demand, DemandChange};
use crate::worker::diagnosis::diagnose;
use crate::worker::diagnosis::evidence::{Evidence, KillReason};
use crate::worker::endpoint::Endpoint;
use crate::worker::handle::LastExit;
use crate::worker::health::load_progress::is_about_a_request;
use crate::worker::load_phases::LoadPhases;
use crate::worker::memory::gpu;
use crate::worker::memory::kernel::KernelRoots;
use crate::worker::memory::oom_kills::OomKills;
use crate::worker::memory::reservation::Reservation;
use crate::worker::plan::Program;
use crate::worker::process::command::Launch;
use crate::worker::process::cpus::Cpus;
use crate::worker::process::leftovers;
use crate::worker::process::ports::BackendPort;
use crate::worker::process::runtime_dir::RuntimeDir;
use crate::worker::process::spawner::{Process, code_and_signal};
use crate::worker::state::{WorkerEvent, WorkerState};
use std::collections::BTreeSet;
use std::io;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// A process that runs, and all that is kept for it.
pub(super) struct ProcessLife {
    pub(super) process: Process,
    pub(super) endpoint: Arc<Endpoint>,
    /// The end of its log.
    pub(super) tail: Arc<Mutex<LogTail>>,
    /// How its load went, as its log tells.
    pub(super) phases: Arc<Mutex<LoadPhases>>,
    /// How long the model was read before the start, if it was.
    pub(super) prefetch: Option<Duration>,
    den: RuntimeDir,
    /// On a set of its own, so that it ends with this life whatever happens.
    pumps: JoinSet<()>,
    /// What the kernel had killed before.
    kills: (KernelRoots, OomKills),
    /// The memory that it may take.
    pub(super) room: Reservation,
    /// Given to nobody else as long as this process may listen on it.
    _port: BackendPort,
}

/// Why watching a process ended.
pub(super) enum WatchEnd {
    /// It has ended by itself.
    Exited(io::Result<ExitStatus>),
    /// It must be killed.
    MustDie(KillReason),
    /// Somebody wants it stopped for good.
    StopAsked,
    /// Nobody has used it for `IDLE_UNLOAD`, and nothing is sent to it any more.
    Unused,
    /// It was to go, be it for another or by an order, and has finished what it served.
    PutAway,
}

impl Owner {
    /// Starts a process, once all is prepared for it. May be cancelled.
    pub(super) async fn begin(&mut self, stop: &CancellationToken) -> Result<ProcessLife, StartFailure> {
        let (room, prefetch) = self.prepare_while_wanted(stop).await?;
        let mut den = RuntimeDir::new().map_err(io::Error::other)?;
        let port = self.shared.ports.take(self.plan.engine.port_backend)?;
        // Only llama-server was told of this key.
        let authorization = matches!(self.plan.program, Program::LlamaServer { .. }).then(|| den.authorization());
        let target = DialTarget::local(port.address(), authorization).map_err(io::Error::other)?;
        let target = DialTarget { model: self.plan.program.model().map(str::to_owned), ..target };
        let endpoint =
            Arc::new(Endpoint::at(target, Arc::clone(&self.deaths)).with_signal(Arc::clone(&self.shared.bell)));
        let plan = &self.plan;
        let launch = Launch { plan, address: port.address(), den: &den, cpus: Cpus::here() };
        let roots = KernelRoots::here();
        let kills = OomKills::count(&roots);
        let phases = Arc::new(Mutex::new(LoadPhases::begin(Instant::now())));
        let mut process = self.shared.spawner.spawn(launch.command_line()).await?;
        if let Err(error) = den.inhabit(process.pid()) {
            warn!(model = plan.model, %error, "there is no note of this {} for a gateway after a crash of this one", plan.program.name());
        }
        let (worker, pid) = (plan.number, process.pid());
        info!(model = plan.model, worker, pid, port = port.address().port(), "{} started", plan.program.name());
        let (tail, mut pumps) = (Arc::default(), JoinSet::new());
        if let Some(keeping) = self.keep_log(&mut process, &tail, &phases) {
            pumps.spawn(keeping);
        }
        Ok(ProcessLife {
            process,
            endpoint,
            tail,
            phases,
            prefetch,
            den,
            pumps,
            kills: (roots, kills),
            room,
            _port: port,
        })
    }

    /// Ends it, if it has not ended by itself, and all that it left.
    pub(super) async fn end(&mut self, life: ProcessLife, ending: WatchEnd) -> LifeEnd {
        match ending {
            WatchEnd::Exited(status) => self.collect_exit(life, status, None).await,
            WatchEnd::MustDie(why) => self.collect_exit(life, Err(io::ErrorKind::TimedOut.into()), Some(why)).await,
            WatchEnd::Unused => {
                info!(
                    model = self.plan.model,
                    "nobody has used {} for IDLE_UNLOAD, it is put to sleep",
                    self.plan.program.name()
                );
                self.stop_unneeded(life, true).await;
                LifeEnd::Asleep
            }
            WatchEnd::PutAway => {
                self.stop_unneeded(life, true).await;
                LifeEnd::Asleep
            }
            WatchEnd::StopAsked => {
                self.stop_unneeded(life, false).await;
                LifeEnd::Asked
            }
        }
    }

    /// Ends one that has died, or must, and finds out why.
    async fn collect_exit(
        &mut self,
        mut life: ProcessLife,
        mut status: io::Result<ExitStatus>,
        killed: Option<KillReason>,
    ) -> LifeEnd {
        let has_served = self.state().has_served();
        // One that is to be there for the next request is started again though nobody wants it now, unless it was to go.
        if matches!(self.state(), WorkerState::Ready | WorkerState::Unhealthy)
            && (self.plan.preload || self.plan.pinned)
        {
            self.demand.set_autostart();
        }
        life.room.mark_leaving();
        // At once, and before anything that may take its time: its requests fail, and those that wait wait for the next.
        match killed {
            // No fault of those in flight.
            Some(KillReason::CannotCompute) => life.endpoint.record_compute_failure(),
            // Nor need it be one of them on which it hangs.
            Some(KillReason::Hung(_) | KillReason::Mute(_) | KillReason::Silent) => life.endpoint.record_hang(),
            _ => life.endpoint.record_exit(),
        }
        self.apply_with(WorkerEvent::Ended, |status| {
            status.endpoint = None;
            status.failed_loads += u64::from(!has_served);
        });
        if killed.is_some() {
            status = life.process.kill().await;
        }
        let (code, signal) = match status {
            Ok(status) => code_and_signal(status),
            Err(error) => {
                error!(model = self.plan.model, pid = life.process.pid(), %error, "the end of {} was not seen", self.plan.program.name());
                (None, None)
            }
        };
        let ended = leftovers::clear(&mut life.den, life.process.pid()).await;
        // The last lines may still be in the pipe, and they are the ones that tell the cause.
        let _ = tokio::time::timeout(LOG_PUMP_GRACE, life.pumps.join_next()).await;
        let (roots, kills) = &life.kills;
        let memory = kills.since(roots);
        let tail = life.tail.lock().unwrap_or_else(PoisonError::into_inner);
        let found = diagnose(&Evidence { code, signal, tail: &tail, has_served, killed, memory });
        drop(tail);
        self.release_memory(life.room, ended);
        LifeEnd::Died(LastExit::of(&self.plan, code, signal, found))
    }

    /// Stops one that is not needed, for now or for ever.
    async fn stop_unneeded(&mut self, mut life: ProcessLife, to_sleep: bool) {
        life.endpoint.close();
        life.room.mark_leaving();
        self.apply_with(WorkerEvent::StopAsked, |status| {
            status.endpoint = None;
            status.asleep = to_sleep;
        });
        if to_sleep {
            // It may have taken more since it was loaded.
            self.learn(life.process.pid(), self.learned).await;
        }
        if let Err(error) = life.process.stop().await {
            error!(model = self.plan.model, pid = life.process.pid(), %error, "the end of {} was not seen", self.plan.program.name());
        }
        let ended = leftovers::clear(&mut life.den, life.process.pid()).await;
        let _ = tokio::time::timeout(LOG_PUMP_GRACE, life.pumps.join_next()).await;
        self.release_memory(life.room, ended);
        self.apply(WorkerEvent::Stopped);
        info!(model = self.plan.model, "{} stopped", self.plan.program.name());
    }

    /// Has the room given back when these processes, which have ended, have given back their memory.
    fn release_memory(&mut self, room: Reservation, ended: BTreeSet<i32>) {
        let stop = self.stop.clone();
        self.release = Some(self.tasks.spawn(async move {
            gpu::released(ended, &stop).await;
            drop(room);
        }));
    }

    /// Prepares a start, unless it is not wanted any more before that is done.
    async fn prepare_while_wanted(
        &mut self,
        stop: &CancellationToken,
    ) -> Result<(Reservation, Option<Duration>), StartFailure> {
        let (demand, autostart) = (Arc::clone(self.demand.shared()), self.demand.is_autostart());
        let mut woken = None;
        let not_wanted = async {
            loop {
                let change = tokio::select! {
                    () = demand.none(), if !autostart => return,
                    change = demand.next_change() => change,
                };
                match change {
                    DemandChange::Wake => woken = Some(Demand::guard(&demand)),
                    DemandChange::PutAway => return,
                }
            }
        };
        let prepared = tokio::select! {
            prepared = self.prepare(stop) => Some(prepared),
            () = not_wanted => None,
        };
        match prepared {
            Some(prepared) => {
                if let Some(guard) = woken {
                    self.demand.hold_by(guard);
                }
                prepared
            }
            None => {
                self.demand.clear();
                Err(StartFailure::Unwanted)
            }
        }
    }

    /// Writes what the process says to a log file of its own, keeps the end of it, and notes how its load goes on.
    fn keep_log(
        &self,
        process: &mut Process,
        tail: &Arc<Mutex<LogTail>>,
        phases: &Arc<Mutex<LoadPhases>>,
    ) -> Option<impl Future<Output = ()> + use<>> {
        let output = process.take_output()?;
        let (writer, guard) = queued_writer(self.plan.logs.create("server", &self.plan.instance, CLOCK));
        let (dropped, errors) = (writer.error_counter(), self.plan.logs.errors());
        let (tail, phases) = (Arc::clone(tail), Arc::clone(phases));
        let observe = move |line: &[u8]| {
            phases.lock().unwrap_or_else(PoisonError::into_inner).read_line(line, Instant::now());
            !is_about_a_request(line)
        };
        Some(async move {
            pump(output, writer, tail, observe).await;
            drop(guard);
            errors.add_overflow(dropped.dropped_lines() as u64);
        })
    }
}
