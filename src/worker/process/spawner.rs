//! Processes: how one is started, signalled and ended with everything it forked. The only file with `unsafe`.
//!
//! Linux sends the parent-death signal when the *thread* that forked ends, not the process. So one thread, which lives
//! as long as the program, forks all children; [`Spawner`] sends it the commands.

use super::children::TrackedChildren;
use crate::worker::bounds::{KILL_GRACE, SPAWN_QUEUE, STOP_GRACE};
use nix::errno::Errno;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::ffi::OsString;
use std::io::{self, PipeReader};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::mpsc;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::sync::oneshot;

/// A command line, complete: the child gets this environment and no other.
pub(crate) struct CommandLine {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) environment: Vec<(String, OsString)>,
}

enum SpawnerOrder {
    Spawn(CommandLine, oneshot::Sender<io::Result<Process>>),
    Reap(oneshot::Sender<()>),
}

/// The thread that forks. It reaps orphans too: while it looks for them nobody is born.
#[derive(Clone)]
pub struct Spawner(mpsc::SyncSender<SpawnerOrder>);

impl Spawner {
    /// Starts the thread; once in a program, for two would reap each other's children. It ends when the last `Spawner`
    /// is dropped; the children it started end with it. They get these limits, soft and hard, on open files, if any.
    /// From now on orphans of these children become children of this process rather than of the machine's first one.
    pub fn start(runtime: tokio::runtime::Handle, descriptors: Option<(u64, u64)>) -> io::Result<Self> {
        nix::sys::prctl::set_child_subreaper(true)?;
        let (orders, inbox) = mpsc::sync_channel(SPAWN_QUEUE);
        std::thread::Builder::new().name("spawner".to_owned()).spawn(move || {
            let _runtime = runtime.enter();
            let mut children = TrackedChildren::default();
            while let Ok(order) = inbox.recv() {
                match order {
                    SpawnerOrder::Spawn(line, answer) => {
                        let process = Process::spawn(line, descriptors);
                        if let Ok(process) = &process {
                            children.add(process.pid());
                        }
                        // If nobody waits any more the process is dropped, and dropping it kills it.
                        let _ = answer.send(process);
                    }
                    SpawnerOrder::Reap(done) => {
                        // What cannot be read now is looked at when the next child ends.
                        let _ = children.reap_orphans();
                        let _ = done.send(());
                    }
                }
            }
        })?;
        Ok(Self(orders))
    }

    /// Starts a process.
    pub(crate) async fn spawn(&self, line: CommandLine) -> io::Result<Process> {
        let (answer, outcome) = oneshot::channel();
        let gone = || io::Error::other("the thread that starts processes is gone");
        self.0.try_send(SpawnerOrder::Spawn(line, answer)).map_err(|_| gone())?;
        outcome.await.map_err(|_| gone())?
    }

    /// Asks for the status of every child that has ended and that nobody else waits for. False when the thread has too
    /// much to do.
    pub(crate) async fn reap(&self) -> bool {
        let (done, outcome) = oneshot::channel();
        self.0.try_send(SpawnerOrder::Reap(done)).is_ok() && outcome.await.is_ok()
    }
}

/// A running child, leader of a process group of its own. Dropping it kills the group.
pub(crate) struct Process {
    child: Child,
    group: Pid,
    ended: Option<ExitStatus>,
    output: Option<pipe::Receiver>,
}

impl Process {
    fn spawn(line: CommandLine, descriptors: Option<(u64, u64)>) -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        // Nothing that may fail comes after the child is there.
        let output = Some(receiver(reader)?);
        #[expect(clippy::disallowed_methods, reason = "this file is the one that creates processes")]
        let mut command = Command::new(&line.program);
        command
            .args(&line.arguments)
            .env_clear()
            .envs(line.environment)
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .process_group(0);
        prepare(&mut command, descriptors);
        let child = command.spawn()?;
        // The command holds the write ends; while they are open the reader never sees the end.
        drop(command);
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).ok_or(Errno::ESRCH)?;
        Ok(Self { child, group: Pid::from_raw(pid), ended: None, output })
    }

    /// The process id, which is the id of its group too.
    pub(crate) fn pid(&self) -> i32 {
        self.group.as_raw()
    }

    /// What the process and its children write to standard output and error; once.
    pub(crate) fn take_output(&mut self) -> Option<pipe::Receiver> {
        self.output.take()
    }

    /// Waits for the process to end, then ends what it forked. May be called again, and cancelled.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        if let Some(status) = self.ended {
            return Ok(status);
        }
        let status = self.child.wait().await?;
        // Its group id stays taken while any member lives, so this reaches only what it forked.
        let _ = killpg(self.group, Signal::SIGKILL);
        self.ended = Some(status);
        Ok(status)
    }

    /// The stop ladder: SIGTERM, [`STOP_GRACE`], SIGKILL, each to the whole group.
    pub(crate) async fn stop(&mut self) -> io::Result<ExitStatus> {
        self.signal(Signal::SIGTERM);
        if let Ok(status) = tokio::time::timeout(STOP_GRACE, self.wait()).await {
            return status;
        }
        self.kill().await
    }

    /// SIGKILL to the whole group, and wait, but no longer than [`KILL_GRACE`].
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
    }
}

fn receiver(reader: PipeReader) -> io::Result<pipe::Receiver> {
    pipe::Receiver::from_owned_fd(OwnedFd::from(reader))
}

/// Has the kernel kill the child when the thread that forks it ends, and with it this program, however it ends. Gives
/// it the limits on open files that this program was started with: a soft one beyond 1024 breaks programs that use
/// select.
fn prepare(command: &mut Command, descriptors: Option<(u64, u64)>) {
    let parent = nix::unistd::getpid();
    let arm = move || {
        if let Some((soft, hard)) = descriptors {
            setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?;
        }
        setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        // The parent may have died before the signal was armed; then nobody would send it.
        if nix::unistd::getppid() == parent { Ok(()) } else { Err(io::Error::from(Errno::ESRCH)) }
    };
    #[expect(unsafe_code, reason = "pre_exec is the only way to run prctl and setrlimit in the child")]
    // SAFETY: between fork and exec only async-signal-safe calls are allowed. `arm` makes three plain system
    // calls, allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(arm);
    }
}

/// Exit code and signal of a status, of which exactly one is set.
pub(crate) fn code_and_signal(status: ExitStatus) -> (Option<i32>, Option<i32>) {
    (status.code(), status.signal())
}
