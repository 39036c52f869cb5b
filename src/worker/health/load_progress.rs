//! The progress of a load. `LOAD_TIMEOUT` counts only the time without any sign of progress.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use memchr::memmem;

use crate::os::here;
use crate::pause_clock::ActiveInstant;
use crate::telemetry::files::LogTail;
use crate::worker::bounds::{LOAD_SIGN_FAULTS, LOAD_SIGN_READ};

/// Signs of progress of a process that loads. Only growth of a number counts; a number that cannot be read is 0.
///
/// No single sign is enough. Weights that are copied to a GPU through a buffer are read, but do not add memory. Mapped
/// weights are not read, but cause page faults. Weights in the page cache cause neither, but become resident.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LoadSigns {
    /// Bytes of output without the lines about our own probes. Not a number of lines: progress dots are one long line.
    output: u64,
    /// Resident memory, in bytes.
    resident: u64,
    /// Bytes read, from files and from storage.
    read: u64,
    /// Page faults that read storage (major faults).
    faults: u64,
    /// The largest of what it has in memory, has read from files and has read from storage, in bytes.
    pub(crate) taken: u64,
}

impl LoadSigns {
    /// Reads the signs of the process with this id, whose output is in `tail`.
    pub(crate) fn of(pid: i32, tail: &Mutex<LogTail>) -> Self {
        let counters = here::load_counters(pid);
        Self {
            output: tail.lock().unwrap_or_else(PoisonError::into_inner).progress_bytes(),
            resident: counters.resident,
            read: counters.read.saturating_add(counters.read_from_storage),
            taken: counters.resident.max(counters.read).max(counters.read_from_storage),
            faults: counters.faults,
        }
    }

    /// Returns whether there was progress since `before`, more than what answering a probe causes.
    fn show_progress_since(&self, before: &Self) -> bool {
        self.output > before.output
            || self.resident > before.resident
            || self.read >= before.read.saturating_add(LOAD_SIGN_READ)
            || self.faults >= before.faults.saturating_add(LOAD_SIGN_FAULTS)
    }

    fn max(self, other: Self) -> Self {
        Self {
            output: self.output.max(other.output),
            resident: self.resident.max(other.resident),
            read: self.read.max(other.read),
            faults: self.faults.max(other.faults),
            taken: self.taken.max(other.taken),
        }
    }
}

/// Returns whether a line of llama-server's log is only about a request, or one of rpc-server's about a connection. Many
/// builds log each request, and our own probes are requests, so such a line is no progress of a load.
pub(crate) fn is_about_a_request(line: &[u8]) -> bool {
    // Progress dots may come before the text, on the same line.
    let dots = line.iter().take_while(|byte| **byte == b'.').count();
    let text = &line[dots..line.len().min(dots + LOOKED_AT)];
    ABOUT_A_REQUEST.iter().any(|words| memmem::find(text, words).is_some())
}

/// The texts that mark such a line, and the number of bytes in which they are searched for.
const ABOUT_A_REQUEST: [&[u8]; 4] =
    [b"log_server_r", b"request: GET /", b"Accepted client connection", b"Client connection closed"];
const LOOKED_AT: usize = 128;

/// Measures how long a load has made no progress.
pub(crate) struct LoadProgress {
    /// When it last made progress.
    since: ActiveInstant,
    /// The largest numbers so far: memory that is freed and taken again is no progress.
    peak: LoadSigns,
}

impl LoadProgress {
    /// Returns the progress of a load that begins at `now`.
    pub(crate) fn new(now: ActiveInstant) -> Self {
        Self { since: now, peak: LoadSigns::default() }
    }

    /// Records the signs of this moment, and returns for how long there has been no progress.
    pub(crate) fn stalled_for(&mut self, signs: LoadSigns, now: ActiveInstant) -> Duration {
        if signs.show_progress_since(&self.peak) {
            *self = Self { since: now, peak: signs.max(self.peak) };
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
        let mut sample = |at: u32, signs| progress.stalled_for(signs, start + at * SECOND);
        let mut signs =
            LoadSigns { output: 1, resident: 100, read: LOAD_SIGN_READ, faults: LOAD_SIGN_FAULTS, taken: 0 };
        assert_eq!(sample(10, signs), Duration::ZERO);
        assert_eq!(sample(20, signs), 10 * SECOND, "nothing is new");
        signs.output += 1;
        assert_eq!(sample(30, signs), Duration::ZERO, "it wrote output");
        signs.resident += 1;
        assert_eq!(sample(40, signs), Duration::ZERO, "it took memory");
        signs.read += LOAD_SIGN_READ;
        assert_eq!(sample(50, signs), Duration::ZERO, "it read");
        signs.faults += LOAD_SIGN_FAULTS;
        assert_eq!(sample(60, signs), Duration::ZERO, "it touched mapped memory");
        signs.read += LOAD_SIGN_READ - 1;
        signs.faults += LOAD_SIGN_FAULTS - 1;
        assert_eq!(sample(70, signs), 10 * SECOND, "answering a probe causes that much");
        signs.read += 1;
        assert_eq!(sample(80, signs), Duration::ZERO, "slowly, but it reads");
    }

    #[test]
    fn memory_that_comes_and_goes_is_no_progress() {
        let start = ActiveInstant::now();
        let mut progress = LoadProgress::new(start);
        let mut sample = |at: u32, resident, output| {
            progress.stalled_for(LoadSigns { resident, output, ..LoadSigns::default() }, start + at * SECOND)
        };
        assert_eq!(sample(1, 100, 0), Duration::ZERO);
        assert_eq!(sample(2, 50, 0), SECOND);
        assert_eq!(sample(3, 100, 0), 2 * SECOND);
        assert_eq!(sample(4, 50, 1), Duration::ZERO);
        assert_eq!(sample(5, 100, 1), SECOND, "the peak counts");
        assert_eq!(sample(6, 0, 0), 2 * SECOND, "a number that can no longer be read is no progress");
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
    fn the_signs_of_this_process_are_read() {
        let own = LoadSigns::of(std::process::id() as i32, &Mutex::default());
        assert!(own.resident > 0 && own.taken >= own.resident, "{own:?}");
        assert_eq!(LoadSigns::of(-1, &Mutex::default()), LoadSigns::default());
    }
}
