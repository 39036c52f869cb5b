//! Reads `/proc` (see `proc(5)`), and identifies a process beyond its id.
//!
//! It ends no process; [`super::process::leftovers`] and [`super::process::reaper`] do.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

/// The fields of `/proc/PID/stat` that are used here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ProcStat {
    /// The state, for instance `R` or `Z`.
    pub(super) state: char,
    /// The id of the parent process.
    pub(super) parent: i32,
    /// The id of the process group.
    pub(super) group: i32,
    /// Page faults that read storage (major faults); for a process, those of all its threads.
    pub(super) faults: u64,
    /// CPU time in clock ticks, user and system; for a process, that of all its threads.
    pub(super) computed: u64,
    /// Time of its start, in clock ticks since boot.
    pub(super) start: u64,
}

impl ProcStat {
    /// Reads the fields of the process with this id.
    ///
    /// # Errors
    ///
    /// `NotFound` when there is no such process, or the error of reading `/proc`.
    pub(super) fn of(pid: i32) -> io::Result<Self> {
        Self::read(&format!("/proc/{pid}/stat"))
    }

    fn read(path: &str) -> io::Result<Self> {
        // A process that ends between opening and reading makes the read fail with ESRCH.
        let text = fs::read_to_string(path).map_err(|error| match error.raw_os_error() {
            Some(nix::libc::ESRCH) => io::ErrorKind::NotFound.into(),
            _ => error,
        })?;
        Self::parse(&text).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    fn parse(text: &str) -> Option<Self> {
        // The process name in brackets may contain spaces and brackets itself, so the last bracket ends it.
        let mut fields = text.rsplit_once(") ")?.1.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let (parent, group) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let faults = fields.nth(6)?.parse().ok()?;
        let (user, system): (u64, u64) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        let start = fields.nth(6)?.parse().ok()?;
        Some(Self { state, parent, group, faults, computed: user + system, start })
    }

    /// Returns whether the process has ended and only its exit status is left (a zombie).
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }
}

/// Returns the ids of all processes in this namespace.
///
/// # Errors
///
/// The error of reading `/proc`.
pub(super) fn pids() -> io::Result<Vec<i32>> {
    Ok(fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// Returns the threads of a process with the CPU time of each in clock ticks; none where they cannot be read.
pub(super) fn threads(pid: i32) -> Vec<(i32, u64)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let thread = |entry: fs::DirEntry| {
        let thread: i32 = entry.file_name().to_str()?.parse().ok()?;
        Some((thread, ProcStat::read(&format!("/proc/{pid}/task/{thread}/stat")).ok()?.computed))
    };
    tasks.filter_map(thread).collect()
}

/// Returns the resident memory of a process in bytes, pages of files included; `None` where it cannot be read.
pub(super) fn resident(pid: i32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Returns whether a process has a file open whose path begins with one of these prefixes. False where that cannot be
/// read.
pub(super) fn has_open(pid: i32, prefixes: &[&str]) -> bool {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let mut paths = descriptors.filter_map(|entry| fs::read_link(entry.path()).ok());
    paths.any(|path| path.to_str().is_some_and(|path| prefixes.iter().any(|prefix| path.starts_with(prefix))))
}

/// How `/proc/net/tcp` names the state of a listening socket.
const LISTENING: &str = "0A";
/// How it names that of an open connection.
const CONNECTED: &str = "01";

/// Returns the TCP addresses on which these processes of one network namespace listen; none where that cannot be read.
pub(super) fn listening(pids: &[i32]) -> Vec<SocketAddr> {
    sockets(pids, LISTENING)
}

/// Returns whether one of these processes of one network namespace has taken a connection to this port of its own.
pub(super) fn has_connection(pids: &[i32], port: u16) -> bool {
    sockets(pids, CONNECTED).iter().any(|address| address.port() == port)
}

/// Returns the own TCP addresses of the sockets of these processes that are in this state.
fn sockets(pids: &[i32], state: &str) -> Vec<SocketAddr> {
    let descriptors = |pid: &i32| fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let links = pids.iter().flat_map(descriptors).filter_map(|entry| fs::read_link(entry.path()).ok());
    let inodes: BTreeSet<String> =
        links.filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())).collect();
    let Some(pid) = pids.first().filter(|_| !inodes.is_empty()) else { return Vec::new() };
    let tables = ["tcp", "tcp6"].map(|name| fs::read_to_string(format!("/proc/{pid}/net/{name}")).unwrap_or_default());
    tables.iter().flat_map(|table| table.lines().skip(1)).filter_map(|line| own_address(line, &inodes, state)).collect()
}

/// Parses a line of `/proc/net/tcp` or `tcp6`; `None` unless it is a socket in this state with one of these inodes.
fn own_address(line: &str, inodes: &BTreeSet<String>, state: &str) -> Option<SocketAddr> {
    let mut fields = line.split_ascii_whitespace();
    let address = fields.nth(1)?;
    let is_in_state = fields.nth(1)? == state;
    (is_in_state && inodes.contains(fields.nth(5)?)).then(|| socket_address(address))?
}

/// Parses `0100007F:1F90`: words of 32 bits in the byte order of the machine, then the port.
fn socket_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = Vec::new();
    for at in (0..address.len()).step_by(8) {
        bytes.extend(u32::from_str_radix(address.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    }
    let ip: IpAddr = match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(four) => four.into(),
        Err(_) => <[u8; 16]>::try_from(bytes).ok()?.into(),
    };
    Some(SocketAddr::new(ip, port))
}

/// Returns a variable of the environment that a process of this user was started with; `None` for a process of another
/// user, and for a process that has ended.
pub(super) fn variable(pid: i32, name: &str) -> Option<PathBuf> {
    let folder = format!("/proc/{pid}");
    if fs::metadata(&folder).ok()?.uid() != nix::unistd::geteuid().as_raw() {
        return None;
    }
    let environment = fs::read(format!("{folder}/environ")).ok()?;
    let value = environment
        .split(|byte| *byte == 0)
        .find_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"="))?;
    Some(PathBuf::from(OsStr::from_bytes(value)))
}

/// The identity of a process: unlike its id alone, it does not match a later process with the same id, nor a process of
/// another container or of an earlier boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProcessIdentity {
    pub(crate) pid: i32,
    /// Time of its start, in clock ticks since boot.
    pub(super) start: u64,
    /// The boot and the namespace in which the id is valid, see [`pid_namespace`].
    pid_namespace: String,
}

impl ProcessIdentity {
    /// Returns the identity of the process that has this id now.
    ///
    /// # Errors
    ///
    /// `NotFound` when there is no such process, or the error of reading `/proc`.
    pub(crate) fn of(pid: i32) -> io::Result<Self> {
        Ok(Self { pid, start: ProcStat::of(pid)?.start, pid_namespace: pid_namespace()? })
    }

    /// Returns the identity as text, for [`ProcessIdentity::parse`].
    pub(crate) fn to_text(&self) -> String {
        format!("{} {} {}\n", self.pid, self.start, self.pid_namespace)
    }

    /// Parses [`ProcessIdentity::to_text`]; `None` for an identity of an earlier boot or of another container.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut words = text.trim_ascii_end().splitn(3, ' ');
        let (pid, start) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let pid_namespace = words.next()?.to_owned();
        // `kill(2)` sends a signal for pid 0 or a negative pid to many processes, so such a number must never get
        // there.
        let is_valid = pid > 1 && self::pid_namespace().is_ok_and(|current| current == pid_namespace);
        is_valid.then_some(Self { pid, start, pid_namespace })
    }

    /// Returns whether exactly this process is running.
    pub(crate) fn is_running(&self) -> bool {
        ProcStat::of(self.pid).is_ok_and(|stat| stat.start == self.start && !stat.has_ended())
    }
}

/// Returns the boot id of the machine and the namespace of process ids: a process id means nothing outside of these.
///
/// # Errors
///
/// The error of reading `/proc`.
fn pid_namespace() -> io::Result<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(format!("{} {}", boot.trim(), fs::read_link("/proc/self/ns/pid")?.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_with_brackets_in_the_name_is_parsed() {
        let line =
            "4321 (a) b) (c) S 17 4300 4300 0 -1 4194560 99 0 33 8 50 5 0 0 20 0 1 0 987654 2695168 400 18446744";
        let stat = ProcStat::parse(line).unwrap();
        assert_eq!(stat, ProcStat { state: 'S', parent: 17, group: 4300, faults: 33, computed: 55, start: 987_654 });
        assert_eq!(ProcStat::parse("4321 (a) S 17"), None);
    }

    #[test]
    fn threads_and_open_files_of_this_process_are_found() {
        let own = i32::try_from(std::process::id()).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        assert!(has_open(own, &["/dev/no-such-device", path]));
        assert!(!has_open(own, &["/dev/no-such-device"]) && !has_open(-1, &["/"]));
        let (thread, _) = threads(own).into_iter().find(|(thread, _)| *thread != own).unwrap();
        assert!(ProcStat::read(&format!("/proc/{own}/task/{thread}/stat")).is_ok());
        assert!(threads(-1).is_empty());
    }

    #[test]
    fn an_identity_matches_only_its_own_process() {
        let own = i32::try_from(std::process::id()).unwrap();
        let identity = ProcessIdentity::of(own).unwrap();
        assert!(identity.is_running());
        assert_eq!(ProcessIdentity::parse(&identity.to_text()), Some(identity.clone()));
        let successor = ProcessIdentity { start: identity.start + 1, ..identity.clone() };
        assert!(!successor.is_running(), "a later process with the same id");
        let (boot, namespace) = identity.pid_namespace.split_once(' ').unwrap();
        for other in [format!("00000000-0000-0000-0000-000000000000 {namespace}"), format!("{boot} pid:[1]")] {
            let text = ProcessIdentity { pid_namespace: other, ..identity.clone() }.to_text();
            assert_eq!(ProcessIdentity::parse(&text), None, "{text}");
        }
        assert_eq!(ProcessIdentity::parse("1 0 x"), None);
        assert_eq!(ProcessIdentity::parse(""), None);
        assert_eq!(ProcStat::of(i32::MAX).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
