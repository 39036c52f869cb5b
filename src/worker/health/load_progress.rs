//! Whether a load moves. `LOAD_TIMEOUT` counts only the time without any sign of that.

use crate::pause_clock::ActiveInstant;
use crate::telemetry::files::LogTail;
use crate::worker::bounds::{LOAD_SIGN_FAULTS, LOAD_SIGN_READ};
use crate::worker::procfs::ProcStat;
use memchr::memmem;
use std::fs;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What a process that loads has done so far. Each number only says something when it grows, and 0 stands for one that
/// cannot be read here.
///
/// No single one is enough. Weights that go to a GPU through a buffer leave memory as it is and are read; weights in
/// mapped memory are not read, they cause page faults; weights that are cached cause neither, but become resident.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LoadSigns {
    /// Bytes of output, lines about our own probes left out. Not lines: progress dots are one long line.
    said: u64,
    /// Pages of memory in RAM.
    resident: u64,
    /// Bytes read, from files and from storage.
    read: u64,
    /// Page faults for which storage had to be read.
    faults: u64,
}

impl LoadSigns {
    /// Of the process with this id, whose output is in `tail`.
    pub(crate) fn of(pid: i32, tail: &Mutex<LogTail>) -> Self {
        let file = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        Self {
            said: tail.lock().unwrap_or_else(PoisonError::into_inner).progress_bytes(),
            resident: resident(&file("statm")).unwrap_or(0),
            read: read(&file("io")),
            faults: ProcStat::of(pid).map_or(0, |stat| stat.faults),
        }
    }

    /// Whether these show that something was done since `before`. Answering a probe is not enough.
    fn show_progress_since(&self, before: &Self) -> bool {
        self.said > before.said
            || self.resident > before.resident
            || self.read >= before.read.saturating_add(LOAD_SIGN_READ)
            || self.faults >= before.faults.saturating_add(LOAD_SIGN_FAULTS)
    }

    fn most(self, other: Self) -> Self {
        Self {
            said: self.said.max(other.said),
            resident: self.resident.max(other.resident),
            read: self.read.max(other.read),
            faults: self.faults.max(other.faults),
        }
    }
}

/// Whether a line of llama-server's log only says that it was asked something, as many builds do each time. That is no
/// progress of a load: our own probes ask.
pub(crate) fn is_about_a_request(line: &[u8]) -> bool {
    // Progress dots may stand before it, on the same line.
    let dots = line.iter().take_while(|byte| **byte == b'.').count();
    let text = &line[dots..line.len().min(dots + LOOKED_AT)];
    ABOUT_A_REQUEST.iter().any(|words| memmem::find(text, words).is_some())
}

/// What such a line says, and within how many bytes.
const ABOUT_A_REQUEST: [&[u8]; 2] = [b"log_server_r", b"request: GET /"];
const LOOKED_AT: usize = 128;

/// The second field of `/proc/PID/statm`.
fn resident(statm: &str) -> Option<u64> {
    statm.split(' ').nth(1)?.parse().ok()
}

/// What `/proc/PID/io` says was read: by calls (`rchar`), and from storage, be it by calls or by page faults
/// (`read_bytes`). The sum grows when either does.
fn read(io: &str) -> u64 {
    let numbers = io.lines().filter_map(|line| {
        let (name, number) = line.split_once(": ")?;
        matches!(name, "rchar" | "read_bytes").then_some(number)?.trim().parse::<u64>().ok()
    });
    numbers.fold(0, u64::saturating_add)
}

/// The silence of a load.
pub(crate) struct LoadProgress {
    since: ActiveInstant,
    most: LoadSigns,
}

impl LoadProgress {
    pub(crate) fn new(now: ActiveInstant) -> Self {
        Self { since: now, most: LoadSigns::default() }
    }

    /// Takes the signs of this moment. For how long there has been nothing new.
    pub(crate) fn stalled_for(&mut self, signs: LoadSigns, now: ActiveInstant) -> Duration {
        if signs.show_progress_since(&self.most) {
            *self = Self { since: now, most: signs.most(self.most) };
        }
        now - self.since
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn each_sign_alone_is_progress_and_a_trickle_adds_up() {
        let start = ActiveInstant::now();
        let mut progress = LoadProgress::new(start);
        let mut look = |at: u32, signs| progress.stalled_for(signs, start + at * SECOND);
        let mut signs = LoadSigns { said: 1, resident: 100, read: LOAD_SIGN_READ, faults: LOAD_SIGN_FAULTS };
        assert_eq!(look(10, signs), Duration::ZERO);
        assert_eq!(look(20, signs), 10 * SECOND, "nothing is new");
        signs.said += 1;
        assert_eq!(look(30, signs), Duration::ZERO, "it said something");
        signs.resident += 1;
        assert_eq!(look(40, signs), Duration::ZERO, "it took memory");
        signs.read += LOAD_SIGN_READ;
        assert_eq!(look(50, signs), Duration::ZERO, "it read");
        signs.faults += LOAD_SIGN_FAULTS;
        assert_eq!(look(60, signs), Duration::ZERO, "it touched mapped memory");
        signs.read += LOAD_SIGN_READ - 1;
        signs.faults += LOAD_SIGN_FAULTS - 1;
        assert_eq!(look(70, signs), 10 * SECOND, "that much it does to answer a probe");
        signs.read += 1;
        assert_eq!(look(80, signs), Duration::ZERO, "slowly, but it reads");
    }

    #[test]
    fn memory_that_comes_and_goes_is_no_progress() {
        let start = ActiveInstant::now();
        let mut progress = LoadProgress::new(start);
        let mut look = |at: u32, resident, said| {
            progress.stalled_for(LoadSigns { resident, said, ..LoadSigns::default() }, start + at * SECOND)
        };
        assert_eq!(look(1, 100, 0), Duration::ZERO);
        assert_eq!(look(2, 50, 0), SECOND);
        assert_eq!(look(3, 100, 0), 2 * SECOND);
        assert_eq!(look(4, 50, 1), Duration::ZERO);
        assert_eq!(look(5, 100, 1), SECOND, "the most that there was counts");
        assert_eq!(look(6, 0, 0), 2 * SECOND, "what can no longer be read is no progress either");
    }

    #[test]
    fn answered_probes_are_no_progress() {
        for line in [
            "srv  log_server_r: done request: GET /health 127.0.0.1 503",
            "0.17.466.965 I srv  log_server_r: request: GET /metrics 127.0.0.1 200",
            "request: GET /health 127.0.0.1 503",
            "srv  log_server_r: response: {\"error\":{\"code\":503,\"message\":\"Loading model\"}}",
        ] {
            assert!(is_about_a_request(line.as_bytes()), "{line}");
            assert!(is_about_a_request(format!("{}{line}", ".".repeat(LOOKED_AT)).as_bytes()), "{line}");
        }
        for line in ["", "main: loading model", "slot update_slots: prompt processing progress, n_tokens = 512"] {
            assert!(!is_about_a_request(line.as_bytes()), "{line}");
        }
    }

    #[test]
    fn the_kernels_files_are_read() {
        assert_eq!(resident("28341 6210 4021 1 0 12000 0\n"), Some(6210));
        assert_eq!(resident(""), None);
        let io = "rchar: 98362432\nwchar: 700\nsyscr: 12\nsyscw: 3\nread_bytes: 4096\nwrite_bytes: 9\n";
        assert_eq!(read(io), 98_366_528);
        assert_eq!(read("nonsense"), 0);
        let own = LoadSigns::of(std::process::id() as i32, &Mutex::default());
        assert!(own.resident > 0 && own.read > 0, "{own:?}");
        assert_eq!(LoadSigns::of(-1, &Mutex::default()), LoadSigns::default());
    }
}
