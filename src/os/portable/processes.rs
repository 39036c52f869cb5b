//! Processes, as the crate `sysinfo` tells of them.

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use nix::unistd::{SysconfVar, getpgid, sysconf};
use sysinfo::{Pid, Process, ProcessRefreshKind, ProcessStatus, ProcessesToUpdate, System, UpdateKind};

use crate::os::process::{LoadCounters, ProcessStat};

/// Returns what `sysinfo` tells of nothing but the id, the parent, the status and the start of a process.
fn little() -> ProcessRefreshKind {
    ProcessRefreshKind::nothing().without_tasks()
}

/// Reads one process; `None` if there is no such process.
fn read<T>(pid: i32, kind: ProcessRefreshKind, look: impl FnOnce(&Process) -> T) -> Option<T> {
    let pid = Pid::from_u32(u32::try_from(pid).ok()?);
    let mut system = System::new();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), true, kind);
    system.process(pid).map(look)
}

/// Reads one process, for callers that want a reason.
///
/// # Errors
///
/// `NotFound` when there is no such process.
fn find<T>(pid: i32, kind: ProcessRefreshKind, look: impl FnOnce(&Process) -> T) -> io::Result<T> {
    read(pid, kind, look).ok_or_else(|| io::ErrorKind::NotFound.into())
}

fn stat_of(process: &Process) -> ProcessStat {
    let pid = id_of(process.pid());
    ProcessStat {
        has_ended: matches!(process.status(), ProcessStatus::Zombie | ProcessStatus::Dead),
        parent: process.parent().map_or(0, id_of),
        group: getpgid(Some(nix::unistd::Pid::from_raw(pid))).map_or(0, nix::unistd::Pid::as_raw),
        computed: process.accumulated_cpu_time().saturating_mul(ticks_per_second()) / 1000,
        start: process.start_time(),
    }
}

fn id_of(pid: Pid) -> i32 {
    i32::try_from(pid.as_u32()).unwrap_or(0)
}

fn ticks_per_second() -> u64 {
    sysconf(SysconfVar::CLK_TCK).ok().flatten().map_or(100, |ticks| ticks.unsigned_abs())
}

/// Reads the process with this id. On macOS `sysinfo` shows no process that has ended and whose status was not collected
/// (a zombie): it is not found.
///
/// # Errors
///
/// `NotFound` when there is no such process.
pub(crate) fn stat(pid: i32) -> io::Result<ProcessStat> {
    find(pid, little().with_cpu(), stat_of)
}

/// Returns all processes that can be seen, with their ids.
///
/// # Errors
///
/// The system shows none.
pub(crate) fn stats() -> io::Result<Vec<(i32, ProcessStat)>> {
    let mut system = System::new();
    match system.refresh_processes_specifics(ProcessesToUpdate::All, true, little().with_cpu()) {
        0 => Err(io::Error::other("the system shows no process")),
        _ => Ok(system.processes().values().map(|process| (id_of(process.pid()), stat_of(process))).collect()),
    }
}

/// Returns the CPU time of a process in clock ticks as that of one thread: those of its threads are not told. None if there
/// is no such process.
pub(crate) fn threads(pid: i32) -> Vec<(i32, u64)> {
    stat(pid).ok().filter(|stat| !stat.has_ended).map(|stat| (pid, stat.computed)).into_iter().collect()
}

/// Returns the resident memory of a process in bytes, pages of files included; `None` where it cannot be read.
pub(crate) fn resident(pid: i32) -> Option<u64> {
    read(pid, little().with_memory(), Process::memory)
}

/// Returns the counters by which a load shows progress. Only reads from storage are told, and no page faults.
pub(crate) fn load_counters(pid: i32) -> LoadCounters {
    let counters = |process: &Process| LoadCounters {
        resident: process.memory(),
        read_from_storage: process.disk_usage().total_read_bytes,
        ..LoadCounters::default()
    };
    read(pid, little().with_memory().with_disk_usage(), counters).unwrap_or_default()
}

/// Returns whether a process has a GPU open. Not known, so false: one busy process counts as computing.
pub(crate) fn has_gpu_open(_pid: i32) -> bool {
    false
}

/// Returns the TCP addresses on which these processes listen. Not known, so none: a command that listens on another port
/// than it was told is not found before `LOAD_TIMEOUT`.
pub(crate) fn listening(_pids: &[i32]) -> Vec<SocketAddr> {
    Vec::new()
}

/// Returns whether one of these processes has taken a connection to this port of its own. Not known.
pub(crate) fn find_connection(_pids: &[i32], _port: u16) -> Option<bool> {
    None
}

/// Returns a variable of the environment that a process of this user was started with; `None` for a process of another
/// user, and for a process that has ended.
pub(crate) fn variable(pid: i32, name: &str) -> Option<PathBuf> {
    let kind = little().with_user(UpdateKind::Always).with_environ(UpdateKind::Always);
    let value = |process: &Process| {
        let is_ours = process.user_id().is_some_and(|user| **user == nix::unistd::geteuid().as_raw());
        let entries = process.environ().iter().filter(|_| is_ours).map(|entry| entry.as_bytes());
        let mut values = entries.filter_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"="));
        values.next().map(|value| PathBuf::from(OsString::from_vec(value.to_vec())))
    };
    read(pid, kind, value)?
}

/// Returns the words of the command line of a process, see [`is_command_line_exact`].
///
/// # Errors
///
/// `NotFound` when there is no such process, or it is another user's.
pub(crate) fn command_line(pid: i32) -> io::Result<Vec<OsString>> {
    let words = find(pid, little().with_cmd(UpdateKind::Always), |process| process.cmd().to_vec())?;
    if words.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(words) }
}

/// Returns whether [`command_line`] tells an empty word. `sysinfo` leaves it out on macOS without counting it, so that the
/// beginning of the environment, which may be a secret, takes the place of the last words.
pub(crate) fn is_command_line_exact() -> bool {
    false
}

/// Returns the folder that a process is in.
///
/// # Errors
///
/// `NotFound` when there is no such process, or it is another user's.
pub(crate) fn working_directory(pid: i32) -> io::Result<PathBuf> {
    let folder = find(pid, little().with_cwd(UpdateKind::Always), |process| process.cwd().map(Path::to_owned))?;
    folder.ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Returns the name of the program of a process; empty where it cannot be read.
pub(crate) fn program_name(pid: i32) -> String {
    read(pid, little(), |process| process.name().to_string_lossy().into_owned()).unwrap_or_default()
}

/// Returns where a process id is valid. On macOS there are no namespaces, and the time of a process's start, which counts
/// from a fixed day, is never that of one of an earlier boot.
///
/// # Errors
///
/// None.
pub(crate) fn pid_namespace() -> io::Result<String> {
    Ok("one-for-all".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    /// Ends a test that would fail: two ticks are a fiftieth of a second of work.
    const DEADLINE: Duration = Duration::from_secs(30);

    #[test]
    fn the_command_line_and_the_folder_of_this_process_are_read() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(command_line(own).unwrap(), std::env::args_os().collect::<Vec<_>>());
        assert_eq!(working_directory(own).unwrap(), std::env::current_dir().unwrap());
        assert!(!program_name(own).is_empty());
        assert_eq!(command_line(i32::MAX).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(working_directory(-1).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn the_counters_of_this_process_are_read() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(load_counters(own).resident > 0 && resident(own).is_some_and(|bytes| bytes > 0));
        assert_eq!((load_counters(i32::MAX), resident(-1), threads(-1)), (LoadCounters::default(), None, Vec::new()));
        let begin = Instant::now();
        let before = threads(own)[0].1;
        while threads(own)[0].1 <= before + 1 && begin.elapsed() < DEADLINE {
            std::hint::black_box((0..100_000).fold(0u64, |sum, number| sum.wrapping_mul(31) ^ number));
        }
        assert!(threads(own)[0].1 > before + 1, "it has computed");
    }

    #[test]
    fn a_variable_of_this_process_is_found_by_its_whole_name() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(variable(own, "PATH").is_some_and(|value| value.as_os_str().as_bytes().contains(&b'/')));
        assert_eq!((variable(own, "PAT"), variable(own, ""), variable(-1, "PATH")), (None, None, None));
    }
}
