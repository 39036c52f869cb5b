//! Which child processes tokio waits for, and reaping all others that have ended.
//!
//! [`TrackedChildren`] lives on the thread that forks, so that no child is started or reaped by tokio while it looks.

use crate::worker::procfs::{self, ProcStat};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use std::io;

/// The children that tokio waits for.
#[derive(Default)]
pub(super) struct TrackedChildren(Vec<Child>);

struct Child {
    pid: i32,
    /// When it was started; nothing where the kernel could not be asked, and then its number alone counts.
    start: Option<u64>,
}

impl TrackedChildren {
    /// Adds one that has just been started and that nobody has waited for.
    pub(super) fn add(&mut self, pid: i32) {
        self.0.push(Child { pid, start: ProcStat::of(pid).ok().map(|stat| stat.start) });
    }

    /// Asks for the status of all others that have ended; gives how many.
    pub(super) fn reap_orphans(&mut self) -> io::Result<usize> {
        self.0.retain(|child| match ProcStat::of(child.pid) {
            Ok(stat) => child.start.is_none_or(|start| start == stat.start),
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        });
        let own = nix::unistd::getpid().as_raw();
        let mut reaped = 0;
        for pid in procfs::pids()? {
            let is_ours = ProcStat::of(pid).is_ok_and(|stat| stat.parent == own && stat.has_ended());
            if is_ours && !self.0.iter().any(|child| child.pid == pid) {
                reaped += usize::from(waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG)).is_ok());
            }
        }
        Ok(reaped)
    }
}
