//! Systems other than Linux, which means macOS: what the crate `sysinfo` and POSIX tell.
//!
//! Built on Linux too with `--cfg llamagate_portable`, where `scripts/test-portable.sh` tests it. What no portable call
//! tells is said to be unknown; each function says what follows.
//!
//! - `children.rs`: a shell that ends the children when this process has ended
//! - `files.rs`: files; which process has one open is not known
//! - `memory.rs`: memory, CPUs, the bound on open files
//! - `processes.rs`: processes
//! - `sockets.rs`: options of sockets

mod children;
mod files;
mod memory;
mod processes;
mod sockets;

pub(crate) use children::{ShellGuard, may_have_ended_child};
pub(crate) use files::{advise_sequential, is_on_this_machine, mapped_among, memory_folder, opened_among, reserve};
pub(crate) use memory::{memory_available, memory_capacity, most_open_files, online_cpus, oom_counters};
pub(crate) use processes::{
    command_line, find_connection, has_gpu_open, is_command_line_exact, listening, load_counters, pid_namespace,
    program_name, resident, stat, stats, threads, variable, working_directory,
};
pub(crate) use sockets::without_user_timeout;
