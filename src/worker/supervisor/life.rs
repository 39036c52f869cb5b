//! One life of a llama-server: its start, and its end.

use super::super::command::Launch;
use super::super::den::Den;
use super::super::diagnosis::{Evidence, Killed};
use super::super::endpoint::Endpoint;
use super::super::phases::Phases;
use super::super::process::{Process, code_and_signal};
use super::super::progress::is_about_a_request;
use super::super::state::Event;
use super::super::{LastExit, diagnosis, leftovers, memory};
use super::watch::Ending;
use super::{End, Owner, Unstarted};
use crate::settings::bounds::{BACKEND_PORT_TRIES, LOG_PUMP_GRACE};
use crate::telemetry::files::{Tail, pump};
use crate::telemetry::log::{CLOCK, behind_a_queue};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// A process that runs, and all that is kept for it.
pub(super) struct Life {
    pub(super) process: Process,
    pub(super) endpoint: Arc<Endpoint>,
    /// The end of its log.
    pub(super) tail: Arc<Mutex<Tail>>,
    /// How its load went, as its log tells.
    pub(super) phases: Arc<Mutex<Phases>>,
    /// How long the model was read before the start, if it was.
    pub(super) prefetch: Option<Duration>,
    den: Den,
    /// On a set of its own, so that it ends with this life whatever happens.
    pumps: JoinSet<()>,
    /// What the kernel had killed before.
    kills: (memory::Roots, memory::Kills),
}

impl Owner {
    /// Starts a process, once all is prepared for it. May be cancelled.
    pub(super) async fn begin(&mut self, stop: &CancellationToken) -> Result<Life, Unstarted> {
        let prefetch = self.prepare(stop).await?;
        let mut den = Den::new().map_err(io::Error::other)?;
        let address = self.choose_address()?;
        let endpoint = Endpoint::new(address, den.authorization(), Arc::clone(&self.deaths));
        let endpoint = Arc::new(endpoint.map_err(io::Error::other)?);
        let plan = &self.plan;
        let launch = Launch {
            engine: &plan.engine,
            program: &plan.program,
            model: &plan.file,
            id: &plan.model,
            kind: plan.kind,
            address,
            den: &den,
            inherited: &plan.environment,
        };
        let roots = memory::Roots::here();
        let kills = memory::Kills::count(&roots);
        let phases = Arc::new(Mutex::new(Phases::begin(Instant::now())));
        let mut process = self.spawner.spawn(launch.command_line()).await?;
        if let Err(error) = den.inhabit(process.pid()) {
            warn!(model = plan.model, %error, "there is no note of this llama-server for a gateway after a crash of this one");
        }
        info!(model = plan.model, pid = process.pid(), port = address.port(), "llama-server started");
        let (tail, mut pumps) = (Arc::default(), JoinSet::new());
        if let Some(keeping) = self.keep_log(&mut process, &tail, &phases) {
            pumps.spawn(keeping);
        }
        Ok(Life { process, endpoint, tail, phases, prefetch, den, pumps, kills: (roots, kills) })
    }

    /// Ends it, if it has not ended by itself, and all that it left.
    pub(super) async fn end(&mut self, life: Life, ending: Ending) -> End {
        match ending {
            Ending::Exited(status) => self.bury(life, status, None).await,
            Ending::MustDie(why) => self.bury(life, Err(io::ErrorKind::TimedOut.into()), Some(why)).await,
            Ending::Unused => {
                info!(model = self.plan.model, "nobody has used llama-server for IDLE_UNLOAD, it is put to sleep");
                self.put_down(life, true).await;
                End::Asleep
            }
            Ending::StopAsked => {
                self.put_down(life, false).await;
                End::Asked
            }
        }
    }

    /// Ends one that has died, or must, and finds out why.
    async fn bury(&mut self, mut life: Life, mut status: io::Result<ExitStatus>, killed: Option<Killed>) -> End {
        let has_served = self.state().has_served();
        // At once, and before anything that may take its time: its requests fail, and those that wait wait for the next.
        match killed {
            // No fault of those in flight.
            Some(Killed::CannotCompute) => life.endpoint.has_failed_to_compute(),
            // Nor need it be one of them on which it hangs.
            Some(Killed::Hung(_) | Killed::Mute(_) | Killed::Silent) => life.endpoint.has_hung(),
            _ => life.endpoint.has_died(),
        }
        self.happen_and(Event::Ended, |status| {
            status.endpoint = None;
            status.failed_loads += u64::from(!has_served);
        });
        if killed.is_some() {
            status = life.process.kill().await;
        }
        let (code, signal) = match status {
            Ok(status) => code_and_signal(status),
            Err(error) => {
                error!(model = self.plan.model, pid = life.process.pid(), %error, "the end of llama-server was not seen");
                (None, None)
            }
        };
        self.departed = leftovers::clear(&mut life.den, life.process.pid()).await;
        // The last lines may still be in the pipe, and they are the ones that tell the cause.
        let _ = tokio::time::timeout(LOG_PUMP_GRACE, life.pumps.join_next()).await;
        let (roots, kills) = &life.kills;
        let memory = kills.since(roots);
        let tail = life.tail.lock().unwrap_or_else(PoisonError::into_inner);
        let found = diagnosis::diagnose(&Evidence { code, signal, tail: &tail, has_served, killed, memory });
        End::Died(LastExit::of(code, signal, found))
    }

    /// Stops one that is not needed, for now or for ever.
    async fn put_down(&mut self, mut life: Life, to_sleep: bool) {
        life.endpoint.close();
        self.happen_and(Event::StopAsked, |status| {
            status.endpoint = None;
            status.asleep = to_sleep;
        });
        if let Err(error) = life.process.stop().await {
            error!(model = self.plan.model, pid = life.process.pid(), %error, "the end of llama-server was not seen");
        }
        self.departed = leftovers::clear(&mut life.den, life.process.pid()).await;
        let _ = tokio::time::timeout(LOG_PUMP_GRACE, life.pumps.join_next()).await;
        self.happen(Event::Stopped);
        info!(model = self.plan.model, "llama-server stopped");
    }

    /// Writes what the process says to a log file of its own, keeps the end of it, and notes how its load goes on.
    fn keep_log(
        &self,
        process: &mut Process,
        tail: &Arc<Mutex<Tail>>,
        phases: &Arc<Mutex<Phases>>,
    ) -> Option<impl Future<Output = ()> + use<>> {
        let output = process.take_output()?;
        let (writer, guard) = behind_a_queue(self.plan.logs.create("server", &self.plan.instance, CLOCK));
        let (dropped, errors) = (writer.error_counter(), self.plan.logs.errors());
        let (tail, phases) = (Arc::clone(tail), Arc::clone(phases));
        let observe = move |line: &[u8]| {
            phases.lock().unwrap_or_else(PoisonError::into_inner).says(line, Instant::now());
            !is_about_a_request(line)
        };
        Some(async move {
            pump(output, writer, tail, observe).await;
            drop(guard);
            errors.overflow(dropped.dropped_lines() as u64);
        })
    }

    /// The next free port from `PORT_BACKEND` upwards, a different one at each start so that nothing which still
    /// talks to the old process reaches the new one.
    fn choose_address(&mut self) -> io::Result<SocketAddr> {
        let first = self.plan.engine.port_backend;
        for _ in 0..BACKEND_PORT_TRIES {
            let port = self.next_port;
            let last = first.saturating_add(BACKEND_PORT_TRIES - 1);
            self.next_port = if port >= last { first } else { port + 1 };
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            if port != 0 && TcpListener::bind(address).is_ok() {
                return Ok(address);
            }
        }
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
    }
}
