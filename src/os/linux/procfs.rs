//! Reads `/proc` (see `proc(5)`).
//!
//! It ends no process; the folder `worker/process` does.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use crate::os::process::{LoadCounters, ProcessStat};

/// Device files that a process has open while it uses a GPU. `dxg` is the GPU in the Windows Subsystem for Linux.
const GPU_DEVICES: [&str; 4] = ["/dev/nvidia", "/dev/dri/", "/dev/kfd", "/dev/dxg"];

/// Bytes that are read at most of a command line. Linux allows no longer one with the usual limits.
const LONGEST_COMMAND_LINE: u64 = 6 * 1024 * 1024;

/// Reads the process with this id.
///
/// # Errors
///
/// `NotFound` when there is no such process, or the error of reading `/proc`.
pub(crate) fn stat(pid: i32) -> io::Result<ProcessStat> {
    Ok(read_stat(&format!("/proc/{pid}/stat"))?.0)
}

/// Reads a process or a thread, with its page faults that read storage (major faults).
fn read_stat(path: &str) -> io::Result<(ProcessStat, u64)> {
    // A process that ends between opening and reading makes the read fail with ESRCH.
    let text = fs::read_to_string(path).map_err(|error| match error.raw_os_error() {
        Some(nix::libc::ESRCH) => io::ErrorKind::NotFound.into(),
        _ => error,
    })?;
    parse_stat(&text).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn parse_stat(text: &str) -> Option<(ProcessStat, u64)> {
    // The process name in brackets may contain spaces and brackets itself, so the last bracket ends it.
    let mut fields = text.rsplit_once(") ")?.1.split_ascii_whitespace();
    let has_ended = matches!(fields.next()?, "Z" | "X");
    let (parent, group) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    let faults = fields.nth(6)?.parse().ok()?;
    let (user, system): (u64, u64) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
    let start = fields.nth(6)?.parse().ok()?;
    Some((ProcessStat { has_ended, parent, group, computed: user + system, start }, faults))
}

/// Returns all processes of this namespace, with their ids. Those that end meanwhile are left out.
///
/// # Errors
///
/// The error of reading `/proc`.
pub(crate) fn stats() -> io::Result<Vec<(i32, ProcessStat)>> {
    Ok(pids()?.into_iter().filter_map(|pid| Some((pid, stat(pid).ok()?))).collect())
}

/// Returns the ids of all processes in this namespace.
///
/// # Errors
///
/// The error of reading `/proc`.
fn pids() -> io::Result<Vec<i32>> {
    Ok(fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// Returns the threads of a process with the CPU time of each in clock ticks; none where they cannot be read.
pub(crate) fn threads(pid: i32) -> Vec<(i32, u64)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let thread = |entry: fs::DirEntry| {
        let thread: i32 = entry.file_name().to_str()?.parse().ok()?;
        Some((thread, read_stat(&format!("/proc/{pid}/task/{thread}/stat")).ok()?.0.computed))
    };
    tasks.filter_map(thread).collect()
}

/// Returns the resident memory of a process in bytes, pages of files included; `None` where it cannot be read.
pub(crate) fn resident(pid: i32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Returns the counters by which a load shows progress.
pub(crate) fn load_counters(pid: i32) -> LoadCounters {
    let file = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let io = file("io");
    LoadCounters {
        resident: resident_pages(&file("statm")).unwrap_or(0).saturating_mul(page_size()),
        read: io_bytes(&io, "rchar"),
        read_from_storage: io_bytes(&io, "read_bytes"),
        faults: read_stat(&format!("/proc/{pid}/stat")).map_or(0, |(_, faults)| faults),
    }
}

/// Returns the resident pages: the second field of `/proc/PID/statm`.
fn resident_pages(statm: &str) -> Option<u64> {
    statm.split(' ').nth(1)?.parse().ok()
}

/// Returns a number of `/proc/PID/io`: bytes read by system calls (`rchar`), or from storage, by calls or page faults
/// (`read_bytes`).
fn io_bytes(io: &str, name: &str) -> u64 {
    let number = |line: &str| line.strip_prefix(name)?.strip_prefix(": ")?.trim().parse::<u64>().ok();
    io.lines().find_map(number).unwrap_or(0)
}

/// Returns the size of a page of memory, in bytes.
fn page_size() -> u64 {
    nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten().map_or(4096, |size| size.unsigned_abs())
}

/// Returns whether a process has a GPU open. False where that cannot be read.
pub(crate) fn has_gpu_open(pid: i32) -> bool {
    has_open(pid, &GPU_DEVICES)
}

/// Returns whether a process has a file open whose path begins with one of these prefixes. False where that cannot be
/// read.
fn has_open(pid: i32, prefixes: &[&str]) -> bool {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let mut paths = descriptors.filter_map(|entry| fs::read_link(entry.path()).ok());
    paths.any(|path| path.to_str().is_some_and(|path| prefixes.iter().any(|prefix| path.starts_with(prefix))))
}

/// How `/proc/net/tcp` names the state of a listening socket.
const LISTENING: &str = "0A";
/// How it names that of an open connection.
const CONNECTED: &str = "01";
/// How it names that of a connection that the other side has closed, and this process not yet.
const CLOSED_BY_CLIENT: &str = "08";

/// Returns the TCP addresses on which these processes of one network namespace listen; none where that cannot be read.
pub(crate) fn listening(pids: &[i32]) -> Vec<SocketAddr> {
    sockets(pids, &[LISTENING])
}

/// Returns whether one of these processes of one network namespace has taken a connection to this port of its own. `None`
/// would be that it is not known.
pub(crate) fn find_connection(pids: &[i32], port: u16) -> Option<bool> {
    Some(sockets(pids, &[CONNECTED, CLOSED_BY_CLIENT]).iter().any(|address| address.port() == port))
}

/// Returns the own TCP addresses of the sockets of these processes that are in one of these states.
fn sockets(pids: &[i32], states: &[&str]) -> Vec<SocketAddr> {
    let descriptors = |pid: &i32| fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let links = pids.iter().flat_map(descriptors).filter_map(|entry| fs::read_link(entry.path()).ok());
    let inodes: BTreeSet<String> =
        links.filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())).collect();
    let Some(pid) = pids.first().filter(|_| !inodes.is_empty()) else { return Vec::new() };
    let tables = ["tcp", "tcp6"].map(|name| fs::read_to_string(format!("/proc/{pid}/net/{name}")).unwrap_or_default());
    tables
        .iter()
        .flat_map(|table| table.lines().skip(1))
        .filter_map(|line| own_address(line, &inodes, states))
        .collect()
}

/// Parses a line of `/proc/net/tcp` or `tcp6`; `None` unless it is a socket in one of these states with one of these inodes.
fn own_address(line: &str, inodes: &BTreeSet<String>, states: &[&str]) -> Option<SocketAddr> {
    let mut fields = line.split_ascii_whitespace();
    let address = fields.nth(1)?;
    let is_in_state = states.contains(&fields.nth(1)?);
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
pub(crate) fn variable(pid: i32, name: &str) -> Option<PathBuf> {
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

/// Returns the words of the command line of a process.
///
/// # Errors
///
/// The error of reading `/proc`, or it is too long.
pub(crate) fn command_line(pid: i32) -> io::Result<Vec<OsString>> {
    let mut text = Vec::new();
    File::open(format!("/proc/{pid}/cmdline"))?.take(LONGEST_COMMAND_LINE + 1).read_to_end(&mut text)?;
    match text.len() as u64 > LONGEST_COMMAND_LINE {
        true => Err(io::Error::other(format!("its command line has more than {LONGEST_COMMAND_LINE} bytes"))),
        false => Ok(words(&text)),
    }
}

/// Returns the words of a command line, each of which a NUL ends. A word may be empty.
fn words(text: &[u8]) -> Vec<OsString> {
    let text = text.strip_suffix(b"\0").unwrap_or(text);
    text.split(|byte| *byte == 0).map(|word| OsStr::from_bytes(word).to_owned()).collect()
}

/// Returns whether [`command_line`] tells an empty word: it does.
pub(crate) fn is_command_line_exact() -> bool {
    true
}

/// Returns the folder that a process is in.
///
/// # Errors
///
/// The error of reading `/proc`.
pub(crate) fn working_directory(pid: i32) -> io::Result<PathBuf> {
    fs::read_link(format!("/proc/{pid}/cwd"))
}

/// Returns the name of the program of a process; empty where it cannot be read.
pub(crate) fn program_name(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

/// Returns the boot id of the machine and the namespace of process ids: a process id means nothing outside of these.
///
/// # Errors
///
/// The error of reading `/proc`.
pub(crate) fn pid_namespace() -> io::Result<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(format!("{} {}", boot.trim(), fs::read_link("/proc/self/ns/pid")?.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::identity::ProcessIdentity;

    #[test]
    fn a_stat_line_with_brackets_in_the_name_is_parsed() {
        let line =
            "4321 (a) b) (c) S 17 4300 4300 0 -1 4194560 99 0 33 8 50 5 0 0 20 0 1 0 987654 2695168 400 18446744";
        let stat = ProcessStat { has_ended: false, parent: 17, group: 4300, computed: 55, start: 987_654 };
        assert_eq!(parse_stat(line), Some((stat, 33)));
        assert_eq!(parse_stat(&line.replace(" S ", " Z ")), Some((ProcessStat { has_ended: true, ..stat }, 33)));
        assert_eq!(parse_stat("4321 (a) S 17"), None);
    }

    #[test]
    fn threads_and_open_files_of_this_process_are_found() {
        let own = i32::try_from(std::process::id()).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        assert!(has_open(own, &["/dev/no-such-device", path]));
        assert!(!has_open(own, &["/dev/no-such-device"]) && !has_open(-1, &["/"]));
        let found: Vec<i32> = threads(own).into_iter().map(|(thread, _)| thread).collect();
        assert!(found.contains(&nix::unistd::gettid().as_raw()), "{found:?}");
        let other = found.into_iter().find(|thread| *thread != own).unwrap();
        assert!(read_stat(&format!("/proc/{own}/task/{other}/stat")).is_ok());
        assert!(threads(-1).is_empty());
    }

    #[test]
    fn statm_and_io_files_are_parsed() {
        assert_eq!(resident_pages("28341 6210 4021 1 0 12000 0\n"), Some(6210));
        assert_eq!(resident_pages(""), None);
        let io = "rchar: 98362432\nwchar: 700\nsyscr: 12\nsyscw: 3\nread_bytes: 4096\nwrite_bytes: 9\n";
        assert_eq!((io_bytes(io, "rchar"), io_bytes(io, "read_bytes")), (98_362_432, 4096));
        assert_eq!(io_bytes("nonsense", "rchar"), 0);
        let own = load_counters(std::process::id() as i32);
        assert!(own.resident > 0 && own.read > 0, "{own:?}");
        assert_eq!(load_counters(-1), LoadCounters::default());
    }

    #[test]
    fn the_listeners_of_this_process_are_found() {
        let listeners =
            ["127.0.0.1:0", "127.0.0.3:0", "[::1]:0"].map(|address| std::net::TcpListener::bind(address).unwrap());
        let found = listening(&[std::process::id() as i32]);
        for listener in listeners {
            let address = listener.local_addr().unwrap();
            assert!(found.contains(&address), "{address} in {found:?}");
        }
        assert_eq!(listening(&[-1]), []);
    }

    #[test]
    fn a_connection_counts_once_the_process_has_taken_it() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let has_connection = || find_connection(&[std::process::id() as i32], address.port()).unwrap();
        let client = std::net::TcpStream::connect(address).unwrap();
        assert!(!has_connection(), "it waits in the kernel's queue");
        let taken = listener.accept().unwrap();
        assert!(has_connection());
        drop(client);
        assert!(has_connection(), "the process still works for a client that was killed");
        drop(taken);
        assert!(!has_connection());
    }

    #[test]
    fn each_word_of_a_command_line_is_kept_also_an_empty_one() {
        assert_eq!(words(b"a\0\0b c\0"), ["a", "", "b c"]);
        assert_eq!(words(b"a\0--x\0\0"), ["a", "--x", ""]);
        let own = command_line(std::process::id() as i32).unwrap();
        assert_eq!(own, std::env::args_os().collect::<Vec<_>>());
    }

    #[test]
    fn a_process_id_is_of_one_boot_and_one_namespace() {
        let namespace = pid_namespace().unwrap();
        let (boot, namespace) = namespace.split_once(' ').unwrap();
        assert!(boot.len() == 36 && namespace.starts_with("pid:["), "{boot} {namespace}");
        let is_of_here = |boot: &str, namespace: &str| {
            ProcessIdentity::parse(&format!("{} 1 {boot} {namespace}\n", std::process::id())).is_some()
        };
        assert!(is_of_here(boot, namespace));
        assert!(!is_of_here("00000000-0000-0000-0000-000000000000", namespace), "an earlier boot");
        assert!(!is_of_here(boot, "pid:[1]"), "another container");
    }
}
