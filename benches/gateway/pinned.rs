//! Starts processes on chosen CPUs. The proxies use one CPU; the driver and the mock share another.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

/// The CPU of the proxy that is measured.
pub(crate) const PROXY_CPU: usize = 1;

/// The CPU of everything else.
pub(crate) const DRIVER_CPU: usize = 0;

/// Returns a command that runs a program on one CPU. The program is killed when this process ends.
pub(crate) fn command(cpu: usize, program: impl AsRef<OsStr>) -> Command {
    command_on(&[cpu], program)
}

/// The same on several CPUs.
pub(crate) fn command_on(cpus: &[usize], program: impl AsRef<OsStr>) -> Command {
    let list: Vec<String> = cpus.iter().map(usize::to_string).collect();
    let mut command = Command::new(own_program());
    command.args(["pinned", &list.join(",")]).arg(program);
    command
}

/// Returns the path of this program.
pub(crate) fn own_program() -> std::path::PathBuf {
    std::env::current_exe().expect("a program knows its file")
}

/// Pins this process and replaces it with the program, which may open as many files as the system allows.
pub(crate) fn run(arguments: &[String]) {
    set_pdeathsig(Signal::SIGKILL).expect("a signal for the end of the parent");
    pin(&arguments[0].split(',').map(|cpu| cpu.parse().expect("a CPU")).collect::<Vec<usize>>());
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("the limit of files");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("the limit of files can be raised");
    let error = Command::new(&arguments[1]).args(&arguments[2..]).exec();
    panic!("cannot run {}: {error}", arguments[1]);
}

/// Restricts this process to these CPUs.
pub(crate) fn pin(cpus: &[usize]) {
    let mut set = CpuSet::new();
    cpus.iter().for_each(|cpu| set.set(*cpu).expect("a CPU that a set can hold"));
    sched_setaffinity(Pid::from_raw(0), &set).unwrap_or_else(|error| panic!("CPUs {cpus:?} cannot be used: {error}"));
}

/// Counts the CPUs that this process may use.
pub(crate) fn cpus() -> usize {
    let set = sched_getaffinity(Pid::from_raw(0)).expect("the CPUs of this process");
    (0..CpuSet::count()).filter(|&cpu| set.is_set(cpu).unwrap_or(false)).count()
}

/// Whether this process may use both CPUs.
pub(crate) fn both_cpus_are_there() -> bool {
    let set = sched_getaffinity(Pid::from_raw(0)).expect("the CPUs of this process");
    set.is_set(PROXY_CPU).unwrap_or(false) && set.is_set(DRIVER_CPU).unwrap_or(false)
}
