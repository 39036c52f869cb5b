//! Starts, signals and ends processes, each with everything it forked. The only file with `unsafe`.
//!
//! Linux ends a child with the *thread* that forked it, not with the process (`PR_SET_PDEATHSIG` in
//! `prctl(2)`). So one thread, which lives as long as the program, forks all children; [`Spawner`] sends it the orders.

use std::ffi::OsString;
use std::io::{self, PipeReader};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::mpsc;

use nix::errno::Errno;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tracing::warn;

use super::children::TrackedChildren;
use crate::os::here::ChildrenGuard;
use crate::worker::bounds::{KILL_GRACE, SPAWN_QUEUE, STOP_GRACE};

/// A complete command line: the child gets this environment and no other variables.
pub(crate) struct CommandLine {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) environment: Vec<(String, OsString)>,
}

/// An order to the thread that forks, with the channel for its result.
enum SpawnerOrder {
    Spawn(CommandLine, oneshot::Sender<io::Result<Process>>),
    Reap(oneshot::Sender<()>),
}

/// Sends orders to the thread that forks. That thread reaps orphans too, so that no child is started during the search.
#[derive(Clone)]
pub struct Spawner(mpsc::SyncSender<SpawnerOrder>);

impl Spawner {
    /// Starts the thread. A program must do this only once, because two threads would reap each other's children. The
    /// thread ends when the last `Spawner` is dropped, and its children end with it. `descriptors` is the soft and the
    /// hard limit on open files of the children. From now on orphans of the children become children of this process, where
    /// the system can do that.
    ///
    /// # Errors
    ///
    /// The thread cannot be started.
    pub fn start(runtime: tokio::runtime::Handle, descriptors: Option<(u64, u64)>) -> io::Result<Self> {
        let guard = ChildrenGuard::start()?;
        let (orders, queue) = mpsc::sync_channel(SPAWN_QUEUE);
        std::thread::Builder::new().name("spawner".to_owned()).spawn(move || {
            let _runtime = runtime.enter();
            let mut children = TrackedChildren::default();
            while let Ok(order) = queue.recv() {
                match order {
                    SpawnerOrder::Spawn(line, answer) => {
                        let process = Process::spawn(line, descriptors, &guard);
                        if let Ok(process) = &process {
                            children.add(process.pid());
                        }
                        // If the caller was cancelled, the process comes back as an error and is dropped, which kills
                        // it.
                        let _ = answer.send(process);
                    }
                    SpawnerOrder::Reap(done) => {
                        renew(&guard);
                        // An orphan that is missed now is found when the next child ends.
                        let _ = children.reap_orphans();
                        let _ = done.send(());
                    }
                }
            }
        })?;
        Ok(Self(orders))
    }

    /// Starts a process. If this call is cancelled, the process is killed.
    ///
    /// # Errors
    ///
    /// The process cannot be started, or the thread is gone or has too many orders.
    pub(crate) async fn spawn(&self, line: CommandLine) -> io::Result<Process> {
        let (answer, outcome) = oneshot::channel();
        let gone = || io::Error::other("the thread that starts processes is gone");
        self.0.try_send(SpawnerOrder::Spawn(line, answer)).map_err(|_| gone())?;
        outcome.await.map_err(|_| gone())?
    }

    /// Reaps every child that has ended and that tokio does not wait for. Returns false when the thread has too many
    /// orders.
    pub(crate) async fn reap(&self) -> bool {
        let (done, outcome) = oneshot::channel();
        self.0.try_send(SpawnerOrder::Reap(done)).is_ok() && outcome.await.is_ok()
    }
}

/// A child process, the leader of a process group of its own. Dropping it kills the group.
pub(crate) struct Process {
    child: Child,
    group: Pid,
    /// The exit status, once the child has ended. The group must not be signalled after that.
    ended: Option<ExitStatus>,
    output: Option<pipe::Receiver>,
    /// Ends the group with this program.
    guard: ChildrenGuard,
}

impl Process {
    fn spawn(line: CommandLine, descriptors: Option<(u64, u64)>, guard: &ChildrenGuard) -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        // Converted before the start, so that no error afterwards leaves a child without a `Process`.
        let output = Some(receiver(reader)?);
        #[expect(clippy::disallowed_methods, reason = "the file that creates processes of the service")]
        let mut command = Command::new(&line.program);
        command
            .args(&line.arguments)
            .env_clear()
            .envs(line.environment)
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .process_group(0);
        prepare(&mut command, descriptors, guard.in_child()?);
        let child = command.spawn().inspect_err(|_| guard.forget_failed())?;
        // The command holds write ends of the pipe. While one is open, the reader never gets the end of the output.
        drop(command);
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).ok_or(Errno::ESRCH)?;
        guard.add(pid);
        Ok(Self { child, group: Pid::from_raw(pid), ended: None, output, guard: guard.clone() })
    }

    /// Returns the process id, which is also the id of its group.
    pub(crate) fn pid(&self) -> i32 {
        self.group.as_raw()
    }

    /// Returns the pipe with standard output and error of the process and its children; `None` after the first call.
    pub(crate) fn take_output(&mut self) -> Option<pipe::Receiver> {
        self.output.take()
    }

    /// Waits for the process to end, then kills the rest of its group. Safe to cancel and to call again.
    ///
    /// # Errors
    ///
    /// The exit status cannot be collected.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        if let Some(status) = self.ended {
            return Ok(status);
        }
        let status = self.child.wait().await?;
        // The kernel does not reuse the group id while a member lives, so this signal reaches only what the child
        // forked.
        let _ = killpg(self.group, Signal::SIGKILL);
        self.guard.forget(self.pid());
        self.ended = Some(status);
        Ok(status)
    }

    /// Sends SIGTERM to the whole group, and SIGKILL if the process has not ended after [`STOP_GRACE`].
    ///
    /// # Errors
    ///
    /// The exit status cannot be collected, or SIGKILL did not end the process in time.
    pub(crate) async fn stop(&mut self) -> io::Result<ExitStatus> {
        self.signal(Signal::SIGTERM);
        if let Ok(status) = tokio::time::timeout(STOP_GRACE, self.wait()).await {
            return status;
        }
        self.kill().await
    }

    /// Sends SIGKILL to the whole group and waits for the end, for [`KILL_GRACE`] at most.
    ///
    /// # Errors
    ///
    /// The exit status cannot be collected, or the process has not ended in time.
    pub(crate) async fn kill(&mut self) -> io::Result<ExitStatus> {
        self.signal(Signal::SIGKILL);
        let ended = tokio::time::timeout(KILL_GRACE, self.wait()).await;
        ended.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "SIGKILL has not ended it")))
    }

    fn signal(&self, signal: Signal) {
        if self.ended.is_none() {
            let _ = killpg(self.group, signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
        self.guard.forget(self.pid());
    }
}

/// Replaces what ends the children with this program, if it has ended itself.
fn renew(guard: &ChildrenGuard) {
    match guard.renew() {
        Ok(false) => {}
        Ok(true) => warn!("the shell that ends the children with this program was killed; another one was started"),
        Err(error) => warn!(%error, "the shell that ends the children with this program cannot be started again"),
    }
}

fn receiver(reader: PipeReader) -> io::Result<pipe::Receiver> {
    pipe::Receiver::from_owned_fd(OwnedFd::from(reader))
}

/// Makes the child end with this program, however it ends: `guarded` is what the child does for that. Also
/// sets the limits on open files that this program was started with, because a soft limit above 1024 breaks programs
/// that use `select(2)`, and turns off core dumps.
fn prepare(
    command: &mut Command,
    descriptors: Option<(u64, u64)>,
    guarded: impl Fn() -> io::Result<()> + Send + Sync + 'static,
) {
    let in_child = move || {
        if let Some((soft, hard)) = descriptors {
            setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?;
        }
        setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
        guarded()
    };
    #[expect(unsafe_code, reason = "pre_exec is the only way to make system calls in the child")]
    // SAFETY: between fork and exec only async-signal-safe calls are allowed. `in_child` makes only plain system
    // calls, allocates nothing and takes no lock, and neither does what `ChildrenGuard::in_child` returns.
    unsafe {
        command.pre_exec(in_child);
    }
}

/// Returns the exit code and the signal of a status; exactly one of them is set.
pub(crate) fn code_and_signal(status: ExitStatus) -> (Option<i32>, Option<i32>) {
    (status.code(), status.signal())
}
