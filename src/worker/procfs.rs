//! What the kernel tells about processes: reading `/proc`, and the identity of a process beyond its number.
//!
//! Owns no process and ends none; [`super::process::leftovers`] and [`super::process::reaper`] do.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

/// One line of `/proc/PID/stat`, as far as anybody here asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ProcStat {
    pub(super) state: char,
    pub(super) parent: i32,
    pub(super) group: i32,
    /// Page faults for which storage had to be read; of a process, those of all its threads.
    pub(super) faults: u64,
    /// CPU time, in clock ticks; of a process, that of all its threads.
    pub(super) computed: u64,
    /// When it was started, in clock ticks since the machine was.
    pub(super) start: u64,
}

impl ProcStat {
    /// `NotFound` when there is no such process.
    pub(super) fn of(pid: i32) -> io::Result<Self> {
        Self::read(&format!("/proc/{pid}/stat"))
    }

    fn read(path: &str) -> io::Result<Self> {
        // Between opening and reading the process may go, and then reading fails in a way of its own.
        let text = fs::read_to_string(path).map_err(|error| match error.raw_os_error() {
            Some(nix::libc::ESRCH) => io::ErrorKind::NotFound.into(),
            _ => error,
        })?;
        Self::parse(&text).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    fn parse(text: &str) -> Option<Self> {
        // The name before it may hold spaces and brackets.
        let mut fields = text.rsplit_once(") ")?.1.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let (parent, group) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let faults = fields.nth(6)?.parse().ok()?;
        let (user, system): (u64, u64) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        let start = fields.nth(6)?.parse().ok()?;
        Some(Self { state, parent, group, faults, computed: user + system, start })
    }

    /// Whether the process has ended, and only its status is left.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }
}

/// The processes that can be seen from here.
pub(super) fn pids() -> io::Result<Vec<i32>> {
    Ok(fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// The threads of a process, and the CPU time of each in clock ticks; none where that cannot be read.
pub(super) fn threads(pid: i32) -> Vec<(i32, u64)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let thread = |entry: fs::DirEntry| {
        let thread: i32 = entry.file_name().to_str()?.parse().ok()?;
        Some((thread, ProcStat::read(&format!("/proc/{pid}/task/{thread}/stat")).ok()?.computed))
    };
    tasks.filter_map(thread).collect()
}

/// Bytes of memory that a process has in RAM, pages of files included. Nothing where that cannot be read.
pub(super) fn resident(pid: i32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Whether a process has a file open whose path begins so. False where that cannot be read.
pub(super) fn has_open(pid: i32, beginnings: &[&str]) -> bool {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let mut paths = descriptors.filter_map(|entry| fs::read_link(entry.path()).ok());
    paths.any(|path| path.to_str().is_some_and(|path| beginnings.iter().any(|beginning| path.starts_with(beginning))))
}

/// A variable of the environment with which a process of this user was started. Nothing for a process of somebody else,
/// and for one that has ended.
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

/// A process that is not mistaken for a later one of the same number, for one of another container, nor for one before
/// the machine was restarted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ProcessIdentity {
    pub(super) pid: i32,
    pub(super) start: u64,
    /// Where and since when numbers mean what they mean here.
    pid_namespace: String,
}

impl ProcessIdentity {
    /// The process that has this number now.
    pub(super) fn of(pid: i32) -> io::Result<Self> {
        Ok(Self { pid, start: ProcStat::of(pid)?.start, pid_namespace: pid_namespace()? })
    }

    /// As text, for [`ProcessIdentity::read`].
    pub(super) fn written(&self) -> String {
        format!("{} {} {}\n", self.pid, self.start, self.pid_namespace)
    }

    /// What was written, unless it is of an earlier life of the machine, or of another container.
    pub(super) fn read(text: &str) -> Option<Self> {
        let mut words = text.trim_ascii_end().splitn(3, ' ');
        let (pid, start) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let realm = words.next()?.to_owned();
        // A process and its group have a number above 1; 0 and less mean many processes to a signal.
        (pid > 1 && self::pid_namespace().is_ok_and(|now| now == realm)).then_some(Self {
            pid,
            start,
            pid_namespace: realm,
        })
    }

    /// Whether this very process runs.
    pub(super) fn is_running(&self) -> bool {
        ProcStat::of(self.pid).is_ok_and(|stat| stat.start == self.start && !stat.has_ended())
    }
}

/// The machine's boot id, and the namespace of process ids.
fn pid_namespace() -> io::Result<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(format!("{} {}", boot.trim(), fs::read_link("/proc/self/ns/pid")?.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_behind_the_worst_of_names() {
        let line =
            "4321 (a) b) (c) S 17 4300 4300 0 -1 4194560 99 0 33 8 50 5 0 0 20 0 1 0 987654 2695168 400 18446744";
        let stat = ProcStat::parse(line).unwrap();
        assert_eq!(stat, ProcStat { state: 'S', parent: 17, group: 4300, faults: 33, computed: 55, start: 987_654 });
        assert_eq!(ProcStat::parse("4321 (a) S 17"), None);
    }

    #[test]
    fn what_this_process_does_and_has_open_is_seen() {
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
    fn this_process_knows_itself_and_no_other() {
        let own = i32::try_from(std::process::id()).unwrap();
        let identity = ProcessIdentity::of(own).unwrap();
        assert!(identity.is_running());
        assert_eq!(ProcessIdentity::read(&identity.written()), Some(identity.clone()));
        let successor = ProcessIdentity { start: identity.start + 1, ..identity.clone() };
        assert!(!successor.is_running(), "another process had this number");
        let (boot, namespace) = identity.pid_namespace.split_once(' ').unwrap();
        for elsewhere in [format!("00000000-0000-0000-0000-000000000000 {namespace}"), format!("{boot} pid:[1]")] {
            let note = ProcessIdentity { pid_namespace: elsewhere, ..identity.clone() }.written();
            assert_eq!(ProcessIdentity::read(&note), None, "{note}");
        }
        assert_eq!(ProcessIdentity::read("1 0 x"), None);
        assert_eq!(ProcessIdentity::read(""), None);
        assert_eq!(ProcStat::of(i32::MAX).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
