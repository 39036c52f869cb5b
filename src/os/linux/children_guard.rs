//! The kernel ends the children of this process with it, and makes it the parent of orphans.

use std::io;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};

/// Returns whether a child may have ended whose status was not collected yet. The status stays where it is.
pub(crate) fn may_have_ended_child() -> bool {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    // Any other error is about a child that has ended, by a signal without a name.
    !matches!(waitid(Id::All, flags), Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD))
}

/// Children get SIGKILL when the thread that started them ends, which happens however this program ends
/// (`PR_SET_PDEATHSIG`). Orphans among their descendants become children of this process (a subreaper) instead of pid 1.
#[derive(Clone)]
pub(crate) struct KernelGuard;

impl KernelGuard {
    /// Makes this process the one that orphans are given to.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub(crate) fn start() -> io::Result<Self> {
        nix::sys::prctl::set_child_subreaper(true)?;
        Ok(Self)
    }

    /// Returns what the next child must do between `fork` and `exec`: plain system calls without allocation and locks.
    ///
    /// # Errors
    ///
    /// None.
    pub(crate) fn in_child(&self) -> io::Result<impl Fn() -> io::Result<()> + Send + Sync + use<>> {
        let parent = nix::unistd::getpid();
        Ok(move || {
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            // If the parent died before `prctl`, the signal will never come, and the child has another parent by now.
            if nix::unistd::getppid() == parent { Ok(()) } else { Err(io::Error::from(Errno::ESRCH)) }
        })
    }

    /// Does nothing and returns false: the kernel does not end.
    ///
    /// # Errors
    ///
    /// None.
    pub(crate) fn renew(&self) -> io::Result<bool> {
        Ok(false)
    }

    /// Takes note of a child that was started.
    pub(crate) fn add(&self, _group: i32) {}

    /// Forgets the last child, which has ended before it became its program.
    pub(crate) fn forget_failed(&self) {}

    /// Forgets a child that has ended, with its group.
    pub(crate) fn forget(&self, _group: i32) {}
}
