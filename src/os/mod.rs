//! What the operating system tells and does in ways of its own: processes, memory, CPUs, files, the bound on open files,
//! sockets, the end of children.
//!
//! Nothing else in the crate names `/proc` or a system call of Linux alone (`tests/architecture`). It decides nothing: what
//! an answer means is the caller's. Both halves have the same functions, and [`here`] chooses one.
//!
//! - `here.rs`: chooses the system
//! - `identity.rs`: the identity of a process beyond its id; the members of a group
//! - `linux/`: Linux
//! - `oom_kills.rs`: whether the kernel killed a process because memory was short
//! - `portable/`: macOS, and on Linux the tests of that
//! - `process.rs`: what a system tells about one process

pub(crate) mod here;
pub(crate) mod identity;
#[cfg(all(target_os = "linux", not(llamagate_portable)))]
mod linux;
pub(crate) mod oom_kills;
#[cfg(not(all(target_os = "linux", not(llamagate_portable))))]
mod portable;
pub(crate) mod process;
