//! The child processes that tokio waits for, and reaping all others that have ended.
//!
//! [`TrackedChildren`] lives on the thread that forks, so that no child is started while it searches.

use std::io;

use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::os::here;

/// The children that tokio waits for.
#[derive(Default)]
pub(super) struct TrackedChildren(Vec<TrackedChild>);

struct TrackedChild {
    pid: i32,
    /// Time of its start; `None` where it could not be read, and then the pid alone counts.
    start: Option<u64>,
}

impl TrackedChildren {
    /// Adds a child that has just been started and whose status has not been collected.
    pub(super) fn add(&mut self, pid: i32) {
        self.0.push(TrackedChild { pid, start: here::stat(pid).ok().map(|stat| stat.start) });
    }

    /// Reaps all other children that have ended, and returns their number.
    ///
    /// # Errors
    ///
    /// The processes cannot be listed.
    pub(super) fn reap_orphans(&mut self) -> io::Result<usize> {
        // A tracked child whose pid is gone, or belongs to a later process, was collected by tokio.
        self.0.retain(|child| match here::stat(child.pid) {
            Ok(stat) => child.start.is_none_or(|start| start == stat.start),
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        });
        // A look at all processes of the machine takes milliseconds, in which this thread starts none.
        if !here::may_have_ended_child() {
            return Ok(0);
        }
        let own = nix::unistd::getpid().as_raw();
        let mut reaped = 0;
        for (pid, stat) in here::stats()? {
            let is_ours = stat.parent == own && stat.has_ended;
            // `waitpid` on a child of tokio would take its exit status, and tokio would never see the end.
            if is_ours && !self.0.iter().any(|child| child.pid == pid) {
                reaped += usize::from(waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG)).is_ok());
            }
        }
        Ok(reaped)
    }
}
