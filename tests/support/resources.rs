//! What the kernel knows about processes and ports.

use std::{fs, net::TcpListener};

/// Whether no such process runs any more. A zombie counts as gone: who reaps it depends on the machine's init.
pub(crate) fn pid_gone(pid: u32) -> bool {
    stat(pid).is_none_or(|(state, _)| state == 'Z' || state == 'X')
}

/// Whether the process has ended and its parent has not asked for its status.
pub(crate) fn is_zombie(pid: u32) -> bool {
    stat(pid).is_some_and(|(state, _)| state == 'Z')
}

/// Whether this loopback port could be bound now.
pub(crate) fn port_is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

/// The number of open file descriptors of a process; 0 when it is gone.
pub(crate) fn fds(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// The direct children of a process, zombies included.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").expect("/proc is mounted").flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut children: Vec<u32> = pids.filter(|child| stat(*child).is_some_and(|(_, parent)| parent == pid)).collect();
    children.sort_unstable();
    children
}

/// The command line of a process; empty when it is gone.
pub(crate) fn cmdline(pid: u32) -> Vec<String> {
    zero_terminated(&format!("/proc/{pid}/cmdline"))
}

/// The environment with which a process was started, as `NAME=value`; empty when it is gone.
pub(crate) fn environ(pid: u32) -> Vec<String> {
    zero_terminated(&format!("/proc/{pid}/environ"))
}

/// The state letter and the parent of a process.
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
