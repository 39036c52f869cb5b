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
use super::{End, Owner};
use crate::settings::bounds::{BACKEND_PORT_TRIES, LOG_PUMP_GRACE};
use crate::telemetry::files::{Tail, pump};
use crate::telemetry::log::{CLOCK, behind_a_queue};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::info;

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
    /// Starts a process.
    pub(super) async fn begin(&mut self, prefetch: Option<Duration>) -> io::Result<Life> {
        let mut den = Den::new()?;
        let endpoint = Endpoint::new(self.choose_address()?, den.write_new_key()?, Arc::clone(&self.deaths));
        let endpoint = Arc::new(endpoint.map_err(io::Error::other)?);
        let plan = &self.plan;
        let launch = Launch {
            engine: &plan.engine,
            program: &plan.program,
            model: &plan.file,
            id: &plan.model,
            kind: plan.kind,
            address: endpoint.address,
            den: &den,
            inherited: &plan.environment,
        };
        let roots = memory::Roots::here();
        let kills = memory::Kills::count(&roots);
        let phases = Arc::new(Mutex::new(Phases::begin(Instant::now())));
        let mut process = self.spawner.spawn(launch.command_line()).await?;
        den.inhabit(process.pid())?;
        info!(model = plan.model, pid = process.pid(), port = endpoint.address.port(), "llama-server started");
        let (tail, mut pumps) = (Arc::default(), JoinSet::new());
        if let Some(keeping) = self.keep_log(&mut process, &tail, &phases) {
            pumps.spawn(keeping);
        }
        Ok(Life { process, endpoint, tail, phases, prefetch, den, pumps, kills: (roots, kills) })
    }

    /// Ends it, if it has not ended by itself, and all that it left.
    pub(super) async fn end(&mut self, mut life: Life, ending: Ending) -> io::Result<End> {
        let is_unused = matches!(ending, Ending::Unused);
        self.publish.send_modify(|status| (status.endpoint, status.asleep) = (None, is_unused));
        let (status, killed) = match ending {
            Ending::Exited(status) => (status, None),
            Ending::MustDie(why) => (life.process.kill().await, Some(why)),
            Ending::Unused | Ending::StopAsked => return self.put_down(life, is_unused).await,
        };
        self.departed = leftovers::clear(&mut life.den, life.process.pid()).await;
        match killed {
            // No fault of those in flight.
            Some(Killed::CannotCompute) => life.endpoint.close(),
            // Nor need it be one of them on which it hangs.
            Some(Killed::Hung(_) | Killed::Silent) => life.endpoint.has_hung(),
            _ => life.endpoint.has_died(),
        }
        // The last lines may still be in the pipe, and they are the ones that tell the cause.
        let _ = tokio::time::timeout(LOG_PUMP_GRACE, life.pumps.join_next()).await;
        let (code, signal) = code_and_signal(status?);
        let (roots, kills) = &life.kills;
        let (has_served, memory) = (self.state().has_served(), kills.since(roots));
        let tail = life.tail.lock().unwrap_or_else(PoisonError::into_inner);
        let found = diagnosis::diagnose(&Evidence { code, signal, tail: &tail, has_served, killed, memory });
        Ok(End::Died(LastExit::of(code, signal, found)))
    }

    /// Stops one that is not needed, for now or for ever.
    async fn put_down(&mut self, mut life: Life, is_unused: bool) -> io::Result<End> {
        if is_unused {
            info!(model = self.plan.model, "nobody has used llama-server for IDLE_UNLOAD, it is put to sleep");
        }
        self.happen(Event::StopAsked);
        let stopped = life.process.stop().await;
        self.departed = leftovers::clear(&mut life.den, life.process.pid()).await;
        let _ = tokio::time::timeout(LOG_PUMP_GRACE, life.pumps.join_next()).await;
        self.happen(Event::Stopped);
        stopped?;
        info!(model = self.plan.model, "llama-server stopped");
        Ok(if is_unused { End::Asleep } else { End::Asked })
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
        let (tail, phases) = (Arc::clone(tail), Arc::clone(phases));
        let observe = move |line: &[u8]| {
            phases.lock().unwrap_or_else(PoisonError::into_inner).says(line, Instant::now());
            !is_about_a_request(line)
        };
        Some(async move {
            pump(output, writer, tail, observe).await;
            drop(guard);
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
