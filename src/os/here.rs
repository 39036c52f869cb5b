//! Chooses the system: everything else in the crate names what it needs of it through this file.
//!
//! `--cfg llamagate_portable` takes the portable half on Linux too, for its tests.

#[cfg(all(target_os = "linux", not(llamagate_portable)))]
pub(crate) use super::linux::{
    KernelGuard as ChildrenGuard, advise_sequential, command_line, find_connection, has_gpu_open,
    is_command_line_exact, is_on_this_machine, listening, load_counters, mapped_among, may_have_ended_child,
    memory_available, memory_capacity, memory_folder, most_open_files, online_cpus, oom_counters, opened_among,
    pid_namespace, program_name, reserve, resident, stat, stats, threads, variable, without_user_timeout,
    working_directory,
};
#[cfg(not(all(target_os = "linux", not(llamagate_portable))))]
pub(crate) use super::portable::{
    ShellGuard as ChildrenGuard, advise_sequential, command_line, find_connection, has_gpu_open, is_command_line_exact,
    is_on_this_machine, listening, load_counters, mapped_among, may_have_ended_child, memory_available,
    memory_capacity, memory_folder, most_open_files, online_cpus, oom_counters, opened_among, pid_namespace,
    program_name, reserve, resident, stat, stats, threads, variable, without_user_timeout, working_directory,
};
