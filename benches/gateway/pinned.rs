//! Pins processes to CPUs. The proxies use one CPU; the driver and the mock share another.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

/// The CPU of the proxy that is measured.
pub(crate) const PROXY_CPU: usize = 1;

/// The CPU of everything else.
pub(crate) const DRIVER_CPU: usize = 0;

/// Returns a command that runs a program on one CPU. The program is killed when this process ends.
pub(crate) fn command(cpu: usize, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(own_program());
    command.args(["pinned", &cpu.to_string()]).arg(program);
    command
}

/// Returns the path of this program.
pub(crate) fn own_program() -> std::path::PathBuf {
    std::env::current_exe().expect("a program knows its file")
}

/// Pins this process and replaces it with the program.
pub(crate) fn run(arguments: &[String]) {
    set_pdeathsig(Signal::SIGKILL).expect("a signal for the end of the parent");
    pin(arguments[0].parse().expect("a CPU"));
    let error = Command::new(&arguments[1]).args(&arguments[2..]).exec();
    panic!("cannot run {}: {error}", arguments[1]);
}

/// Restricts this process to one CPU.
pub(crate) fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu).expect("a CPU that a set can hold");
    sched_setaffinity(Pid::from_raw(0), &set).unwrap_or_else(|error| panic!("CPU {cpu} cannot be used: {error}"));
}

/// Whether this process may use both CPUs.
pub(crate) fn both_cpus_are_there() -> bool {
    let set = sched_getaffinity(Pid::from_raw(0)).expect("the CPUs of this process");
    set.is_set(PROXY_CPU).unwrap_or(false) && set.is_set(DRIVER_CPU).unwrap_or(false)
}
