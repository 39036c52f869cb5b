//! The state of processes and ports, from /proc.

use std::{fs, net::TcpListener, path::Path, process::Command};

/// Whether the process has ended. A zombie counts as gone, because the machine's init may be slow to reap it.
pub(crate) fn pid_gone(pid: u32) -> bool {
    stat(pid).is_none_or(|(state, _)| state == 'Z' || state == 'X')
}

/// Whether the process has ended and was not reaped.
pub(crate) fn is_zombie(pid: u32) -> bool {
    stat(pid).is_some_and(|(state, _)| state == 'Z')
}

/// Whether the process is stopped (SIGSTOP).
pub(crate) fn is_stopped(pid: u32) -> bool {
    stat(pid).is_some_and(|(state, _)| state == 'T')
}

/// Returns when the process was started, in clock ticks since boot.
pub(crate) fn start_time(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    let after_name = text.rsplit_once(") ").expect("the kernel writes the name in brackets").1;
    after_name.split(' ').nth(19).and_then(|start| start.parse().ok()).expect("the 22nd field is a number")
}

/// Whether this loopback port could be bound now.
pub(crate) fn port_is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

/// Counts the bytes that have arrived for connections of this loopback port and were not read.
pub(crate) fn unread_bytes(port: u16) -> u64 {
    let table = fs::read_to_string("/proc/net/tcp").expect("/proc is mounted");
    let of_line = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (local, queues) = (fields.get(1)?, fields.get(4)?);
        let is_connection = fields.get(3) != Some(&"0A"); // a listener's queue holds connections, not bytes
        let is_on_port = is_connection && local.ends_with(&format!(":{port:04X}"));
        is_on_port.then(|| u64::from_str_radix(queues.split(':').nth(1)?, 16).ok()).flatten()
    };
    table.lines().filter_map(of_line).sum()
}

/// Returns the resident memory of a process in KiB; 0 when it has ended.
pub(crate) fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Returns the most resident memory that a process has had, in KiB; 0 when it has ended.
pub(crate) fn peak_resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Returns the threads of a process: each with its name, and how often it has gone to sleep.
pub(crate) fn threads(pid: u32) -> Vec<(String, u64)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let read = |task: fs::DirEntry| {
        let name = fs::read_to_string(task.path().join("comm")).ok()?.trim_end().to_owned();
        let status = fs::read_to_string(task.path().join("status")).ok()?;
        let sleeps = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        Some((name, sleeps.trim().parse().ok()?))
    };
    tasks.filter_map(read).collect()
}

/// Counts the open file descriptors of a process; 0 when it has ended.
pub(crate) fn fds(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Whether a process has this file open.
pub(crate) fn has_open(pid: u32, file: &Path) -> bool {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    descriptors.into_iter().any(|descriptor| fs::read_link(descriptor.path()).is_ok_and(|target| target == file))
}

/// Returns the soft and the hard limit on open files of a process.
pub(crate) fn open_files(pid: u32) -> (u64, u64) {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("the process runs");
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).expect("the kernel names it");
    let mut numbers = line.split_whitespace().map(|number| number.parse().unwrap_or(u64::MAX));
    (numbers.next().expect("a soft limit"), numbers.next().expect("a hard limit"))
}

/// Sets the soft limit on open files of a process; open descriptors stay open.
pub(crate) fn limit_open_files(pid: u32, soft: u64) {
    let mut prlimit = Command::new("prlimit");
    let status = prlimit.args(["--pid", &pid.to_string(), &format!("--nofile={soft}:")]).status();
    assert!(
        status.expect("prlimit of util-linux is installed").success(),
        "prlimit sets the limit of process {pid} to {soft}"
    );
}

/// Returns the direct children of a process, zombies included.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").expect("/proc is mounted").flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut children: Vec<u32> = pids.filter(|child| stat(*child).is_some_and(|(_, parent)| parent == pid)).collect();
    children.sort_unstable();
    children
}

/// Returns the command line of a process; empty when it has ended.
pub(crate) fn cmdline(pid: u32) -> Vec<String> {
    zero_terminated(&format!("/proc/{pid}/cmdline"))
}

/// Returns the environment with which a process was started, as `NAME=value`; empty when it has ended.
pub(crate) fn environ(pid: u32) -> Vec<String> {
    zero_terminated(&format!("/proc/{pid}/environ"))
}

/// Returns the state letter and the parent of a process.
fn stat(pid: u32) -> Option<(char, u32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let after_name = text.rsplit_once(") ")?.1; // the name may hold spaces and brackets
    let mut fields = after_name.split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

fn zero_terminated(path: &str) -> Vec<String> {
    let bytes = fs::read(path).unwrap_or_default();
    let words = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}
