//! One life of a process: its start, and its end with everything that it left.
//!
//! What happens between the two is in `watch.rs`.

use std::collections::BTreeSet;
use std::io;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::owner::{LifeEnd, Owner, StartFailure};
use super::peers::LifePeers;
use crate::dial::{DialTarget, OpenConnections};
use crate::os::here;
use crate::os::oom_kills::{OomCounters, OomKill};
use crate::settings::values::GpuLayers;
use crate::telemetry::files::{LogTail, pump};
use crate::telemetry::log::{CLOCK, queued_writer};
use crate::worker::bounds::LOG_PUMP_GRACE;
use crate::worker::demand::{Demand, DemandChange};
use crate::worker::diagnosis::diagnose;
use crate::worker::diagnosis::ending::is_ended_from_outside;
use crate::worker::diagnosis::evidence::{Evidence, KillReason};
use crate::worker::diagnosis::gpu_use::{GPU_TOPIC, NO_GPU_WARNING, says_no_gpu};
use crate::worker::diagnosis::log::says_it_was_told_to_end;
use crate::worker::endpoint::Endpoint;
use crate::worker::handle::LastExit;
use crate::worker::health::load_progress::is_about_a_request;
use crate::worker::load_phases::LoadPhases;
use crate::worker::memory::gpu;
use crate::worker::memory::reservation::Reservation;
use crate::worker::plan::Program;
use crate::worker::process::command::Launch;
use crate::worker::process::cpus::Cpus;
use crate::worker::process::leftovers;
use crate::worker::process::ports::BackendPort;
use crate::worker::process::runtime_dir::RuntimeDir;
use crate::worker::process::spawner::{Process, code_and_signal};
use crate::worker::state::{WorkerEvent, WorkerState};

/// A running process and its resources.
pub(super) struct ProcessLife {
    pub(super) process: Process,
    pub(super) endpoint: Arc<Endpoint>,
    /// The last lines of its log.
    pub(super) log_tail: Arc<Mutex<LogTail>>,
    /// The phases of its load, according to its log.
    pub(super) phases: Arc<Mutex<LoadPhases>>,
    /// Notified when its log says that it may be ready.
    pub(super) says_ready: Arc<Notify>,
    /// How long the prefetch of the model took, if there was one.
    pub(super) prefetch: Option<Duration>,
    runtime_dir: RuntimeDir,
    /// The task that reads its output. In a set of this life, so that it is aborted with it.
    log_pumps: JoinSet<()>,
    /// The kernel's count of OOM kills before its start.
    oom_kills: OomCounters,
    /// The memory that it may use.
    pub(super) reservation: Reservation,
    /// Keeps the port from other workers as long as this process may listen on it.
    pub(super) port: BackendPort,
    /// The `rpc-server`s of its model, and what watches them.
    pub(super) peers: LifePeers,
}

impl ProcessLife {
    /// Whether another program or an operator ended this llama-server, whose owner did not kill it.
    async fn is_ended_from_outside(&mut self, code: Option<i32>, signal: Option<i32>, now: &OomCounters) -> bool {
        if code == Some(0) {
            // The line that says so may still be in the pipe. Until it is read, requests wait for the next process.
            self.endpoint.close_to_new();
            let _ = tokio::time::timeout(LOG_PUMP_GRACE, self.log_pumps.join_next()).await;
        }
        let tail = self.log_tail.lock().unwrap_or_else(PoisonError::into_inner);
        is_ended_from_outside((code, signal), (&self.oom_kills, now), &tail)
    }

    /// Whether its log says that it was told to end.
    fn was_told_to_end(&self) -> bool {
        says_it_was_told_to_end(&self.log_tail.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Why watching a process ended.
pub(super) enum WatchEnd {
    /// It has ended by itself.
    Exited(io::Result<ExitStatus>),
    /// It must be killed.
    Kill(KillReason),
    /// The worker is to be stopped for good.
    StopAsked,
    /// It was not used for `IDLE_UNLOAD`; its endpoint is closed.
    Unused,
    /// It was evicted or unloaded by an order, and has finished its requests in flight.
    PutAway,
}

impl Owner {
    /// Prepares and starts a process. Safe to cancel.
    ///
    /// # Errors
    ///
    /// The preparation or the start failed, or the demand went while it was prepared.
    pub(super) async fn start_process(&mut self, stop: &CancellationToken) -> Result<ProcessLife, StartFailure> {
        let (reservation, prefetch) = self.prepare_while_wanted(stop).await?;
        let peers = LifePeers::of(std::mem::take(&mut self.peers.known));
        let mut runtime_dir = RuntimeDir::new().map_err(io::Error::other)?;
        let port = match &self.plan.program {
            Program::RpcServer(program) => BackendPort::chosen(program.address.into()),
            Program::LlamaServer { .. } | Program::Command { .. } => {
                self.shared.ports.take(self.plan.engine.port_backend)?
            }
        };
        // A command does not get the key, so requests to it carry none.
        let is_llama_server = matches!(self.plan.program, Program::LlamaServer { .. });
        let authorization = is_llama_server.then(|| runtime_dir.authorization());
        let target = DialTarget::local(port.address(), authorization).map_err(io::Error::other)?;
        let connections = OpenConnections::for_slots(self.plan.engine.parallel.get());
        let (model, has_many_connections) = (self.plan.backend_name(), is_llama_server);
        let target = DialTarget { model, connections, has_many_connections, ..target };
        let endpoint = Endpoint::at(target, Arc::clone(&self.crash_suspects));
        let endpoint = Arc::new(endpoint.with_signal(Arc::clone(&self.shared.change_signal)));
        let plan = &self.plan;
        let help = match &plan.program {
            Program::LlamaServer { binary, .. } => self.shared.help.read(binary, &plan.environment).await,
            Program::Command { .. } | Program::RpcServer(_) => None,
        };
        let (address, cpus) = (port.address(), Cpus::here());
        let launch = Launch { plan, address, runtime_dir: &runtime_dir, cpus, help: help.as_deref() };
        // Counted before the start, so that a process that is killed at once is seen too.
        let oom_kills = here::oom_counters();
        let phases = Arc::new(Mutex::new(LoadPhases::begin(Instant::now())));
        let mut process = self.shared.spawner.spawn(launch.command_line()).await?;
        if let Err(error) = runtime_dir.record_process(process.pid()) {
            warn!(
                model = plan.model,
                %error,
                "no file holds the pid of this {}: after a crash, the next gateway finds it by its environment alone",
                plan.program.name()
            );
        }
        let (worker, pid) = (plan.number, process.pid());
        info!(model = plan.model, worker, pid, port = port.address().port(), "{} started", plan.program.name());
        let (log_tail, says_ready, mut log_pumps) = (Arc::default(), Arc::default(), JoinSet::new());
        if let Some(log_pump) = self.log_pump(&mut process, &log_tail, &phases, &says_ready) {
            log_pumps.spawn(log_pump);
        }
        Ok(ProcessLife {
            process,
            endpoint,
            log_tail,
            phases,
            says_ready,
            prefetch,
            runtime_dir,
            log_pumps,
            oom_kills,
            reservation,
            port,
            peers,
        })
    }

    /// Ends the process, if it has not ended by itself, and all processes that it left.
    pub(super) async fn end_life(&mut self, life: ProcessLife, end: WatchEnd) -> LifeEnd {
        match end {
            WatchEnd::Exited(status) => self.collect_exit(life, status, None).await,
            // The error is replaced by the exit status after the kill.
            WatchEnd::Kill(why) => self.collect_exit(life, Err(io::ErrorKind::TimedOut.into()), Some(why)).await,
            WatchEnd::Unused => {
                let name = self.plan.program.name();
                info!(model = self.plan.model, "{name} was not used for IDLE_UNLOAD and is stopped");
                self.stop_unneeded(life, true).await;
                LifeEnd::Asleep
            }
            WatchEnd::PutAway => {
                self.stop_unneeded(life, true).await;
                LifeEnd::Asleep
            }
            WatchEnd::StopAsked => {
                self.stop_unneeded(life, false).await;
                LifeEnd::Stopped
            }
        }
    }

    /// Collects the exit status of a process that has ended or must be killed, and finds the cause.
    async fn collect_exit(
        &mut self,
        mut life: ProcessLife,
        mut status: io::Result<ExitStatus>,
        killed: Option<KillReason>,
    ) -> LifeEnd {
        let has_served = self.state().has_served();
        // A preloaded or pinned worker is restarted without demand, unless it was draining anyway.
        if matches!(self.state(), WorkerState::Ready | WorkerState::Unhealthy)
            && (self.plan.preload || self.demand.shared().pin().is_on())
        {
            self.demand.set_autostart();
        }
        life.reservation.mark_leaving();
        let oom_kills = here::oom_counters();
        let memory = OomKill::between(&life.oom_kills, &oom_kills);
        let (code, signal) = status.as_ref().map_or((None, None), |status| code_and_signal(*status));
        // Of other programs it is not known how they end: vLLM and SGLang kill themselves because of a request.
        let is_llama_server = matches!(self.plan.program, Program::LlamaServer { .. });
        let is_from_outside = match killed {
            Some(KillReason::PeerLost) => life.peers.is_network_broken(),
            // Its log has to say that it was told to end: the port is closed too if it has crashed behind a script that
            // goes on.
            Some(KillReason::Closed) => is_llama_server && life.was_told_to_end(),
            Some(_) => false,
            None => is_llama_server && life.is_ended_from_outside(code, signal, &oom_kills).await,
        };
        // The endpoint is closed before anything that may take long, so that requests in flight fail at once and
        // waiting requests go to the next process.
        self.crash_key = match killed {
            _ if is_from_outside => {
                life.endpoint.close();
                None
            }
            // Only the requests that it failed to compute become suspects, not those in flight.
            Some(KillReason::CannotCompute) => life.endpoint.record_compute_failure(),
            // It may hang on a request that was given up before, so these become suspects too.
            Some(KillReason::Hung(_) | KillReason::Mute(_) | KillReason::Silent) => life.endpoint.record_hang(),
            // The end of an rpc-server accuses them too: one of them may have caused it.
            _ => life.endpoint.record_exit(),
        };
        if let Some(key) = &self.crash_key {
            // Before the status: a waiting request of a suspended key must not get the next process.
            self.shared.key_suspensions.record_crash(key);
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
                self.log_missing_exit(life.process.pid(), &error);
                (None, None)
            }
        };
        let ended = leftovers::clear(&mut life.runtime_dir, life.process.pid()).await;
        // The last lines, which name the cause, may still be in the pipe.
        let _ = tokio::time::timeout(LOG_PUMP_GRACE, life.log_pumps.join_next()).await;
        // Before other machines are looked at, which takes seconds: other models may wait for this memory.
        self.release_memory(life.reservation, ended);
        let lost_peers = self.stop.run_until_cancelled(self.lost_peers(&mut life.peers)).await.unwrap_or_default();
        let tail = life.log_tail.lock().unwrap_or_else(PoisonError::into_inner);
        let diagnosis = diagnose(&Evidence {
            is_rpc_server: matches!(self.plan.program, Program::RpcServer(_)),
            code,
            signal,
            tail: &tail,
            has_served,
            killed,
            memory,
            lost_peers: &lost_peers,
        });
        drop(tail);
        LifeEnd::Exited(LastExit::new(&self.plan, code, signal, diagnosis))
    }

    /// Stops a process that is not needed any more, until there is demand (`to_sleep`) or for good.
    async fn stop_unneeded(&mut self, mut life: ProcessLife, to_sleep: bool) {
        life.endpoint.close();
        life.reservation.mark_leaving();
        self.apply_with(WorkerEvent::StopAsked, |status| {
            status.endpoint = None;
            status.asleep = to_sleep;
        });
        if to_sleep {
            // It may use more memory now than right after its load.
            self.measure_memory(life.process.pid(), self.measured_memory, &life.reservation).await;
        }
        if let Err(error) = life.process.stop().await {
            self.log_missing_exit(life.process.pid(), &error);
        }
        let ended = leftovers::clear(&mut life.runtime_dir, life.process.pid()).await;
        let _ = tokio::time::timeout(LOG_PUMP_GRACE, life.log_pumps.join_next()).await;
        self.release_memory(life.reservation, ended);
        self.apply(WorkerEvent::Stopped);
        info!(model = self.plan.model, "{} stopped", self.plan.program.name());
    }

    fn log_missing_exit(&self, pid: i32, error: &io::Error) {
        error!(model = self.plan.model, pid, %error, "the exit status of {} is unknown", self.plan.program.name());
    }

    /// Drops the reservation once the memory of these processes, which have ended, is released.
    fn release_memory(&mut self, reservation: Reservation, ended: BTreeSet<i32>) {
        let stop = self.stop.clone();
        // In a task of its own: the GPU driver frees memory later than the process ends, and the status must not wait.
        self.memory_release = Some(self.tasks.spawn(async move {
            gpu::released(ended, &stop).await;
            drop(reservation);
        }));
    }

    /// Prepares a start as long as there is demand for it.
    ///
    /// # Errors
    ///
    /// The preparation failed, or the demand went before it was done.
    async fn prepare_while_wanted(
        &mut self,
        stop: &CancellationToken,
    ) -> Result<(Reservation, Option<Duration>), StartFailure> {
        let (demand, autostart) = (Arc::clone(self.demand.shared()), self.demand.is_autostart());
        let mut woken = None;
        let unwanted = async {
            loop {
                let change = tokio::select! {
                    () = demand.wait_until_empty(), if !autostart => return,
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
            () = unwanted => None,
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

    /// Returns what reads a line of the log of a load, and raises a warning if it says that layers which should be on a
    /// GPU are not. A warning of an earlier process is taken back.
    fn gpu_watch(&self) -> impl Fn(&[u8]) + use<> {
        let (metrics, model) = (Arc::clone(&self.shared.metrics), self.plan.model.clone());
        let is_llama_server = matches!(self.plan.program, Program::LlamaServer { .. });
        let is_asked = is_llama_server && matches!(self.plan.engine.ngl, GpuLayers::Count(1..));
        metrics.warnings.clear(GPU_TOPIC, &model);
        move |line| {
            if is_asked && says_no_gpu(line) {
                metrics.warnings.raise(GPU_TOPIC, &model, NO_GPU_WARNING);
            }
        }
    }

    /// Returns the task that writes the output of the process to a log file of its own, keeps the last lines in `tail`,
    /// and records the phases of the load. `None` if the output was taken before.
    fn log_pump(
        &self,
        process: &mut Process,
        tail: &Arc<Mutex<LogTail>>,
        phases: &Arc<Mutex<LoadPhases>>,
        says_ready: &Arc<Notify>,
    ) -> Option<impl Future<Output = ()> + use<>> {
        let output = process.take_output()?;
        let (writer, guard) = queued_writer(self.plan.logs.create("server", &self.plan.instance, CLOCK));
        let (dropped, errors) = (writer.error_counter(), self.plan.logs.errors());
        let (tail, phases, says_ready) = (Arc::clone(tail), Arc::clone(phases), Arc::clone(says_ready));
        let gpu = self.gpu_watch();
        let observe = move |line: &[u8]| {
            let mut phases = phases.lock().unwrap_or_else(PoisonError::into_inner);
            if !phases.are_over() {
                gpu(line);
            }
            if phases.read_line(line, Instant::now()) {
                says_ready.notify_one();
            }
            !is_about_a_request(line)
        };
        Some(async move {
            pump(output, writer, tail, observe).await;
            drop(guard);
            errors.add_overflow(dropped.dropped_lines() as u64);
        })
    }
}
