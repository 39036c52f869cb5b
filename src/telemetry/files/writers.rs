//! The two writers: one file per start, and one file per day. Neither ever fails its caller.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;

use jiff::{SignedDuration, Timestamp};

use super::folder::{LogClock, LogFolder};
use super::names::{self, sanitise};

/// Minimum time between two attempts to open a file, and between two checks whether it was deleted.
pub const RETRY_INTERVAL: SignedDuration = SignedDuration::from_secs(1);
const SECONDS_A_DAY: i64 = 86_400;

impl LogFolder {
    /// Starts `YYYYMMDD_HHMMSS_KIND_INSTANCE.log` (UTC). If that fails, the error is counted, and later writes retry.
    #[must_use]
    pub fn create(&self, kind: &str, instance: &str, now: LogClock) -> LogFile {
        LogFile::open(self.clone(), kind, instance, now)
    }

    /// Starts or continues `YYYYMMDD_KIND_INSTANCE.log`, one file per day (UTC).
    #[must_use]
    pub fn daily(&self, kind: &str, instance: &str, now: LogClock) -> DailyFile {
        DailyFile::open(self.clone(), kind, instance, now)
    }
}

/// A log file for one start of a program, such as one run of llama-server.
#[derive(Debug)]
pub struct LogFile {
    output: Output,
    kind: String,
    stem: String,
    /// The file's name, once the file was created.
    name: Option<String>,
}

impl LogFile {
    fn open(folder: LogFolder, kind: &str, instance: &str, clock: LogClock) -> Self {
        let kind = sanitise(kind);
        let stem = names::start_stem(clock(), &kind, &sanitise(instance));
        let mut file = Self { output: Output::new(folder, clock), kind, stem, name: None };
        file.write_now(b"");
        file
    }

    /// Returns the file's name in its folder, or `None` if it could not be created yet.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    fn write_now(&mut self, bytes: &[u8]) {
        let Self { output, kind, stem, name } = self;
        output.write((output.clock)(), bytes, |folder| {
            if let Some(name) = name {
                let file = folder.append(name)?;
                folder.write_latest(name);
                return Ok(file);
            }
            let (created, file) = folder.create_new(stem)?;
            folder.prune(kind, &created);
            folder.write_latest(&created);
            *name = Some(created);
            Ok(file)
        });
    }
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_now(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A log file that changes each day, at midnight UTC.
#[derive(Debug)]
pub struct DailyFile {
    output: Output,
    kind: String,
    instance: String,
    /// The day of the open file, in days since the Unix epoch.
    day: Option<i64>,
}

impl DailyFile {
    fn open(folder: LogFolder, kind: &str, instance: &str, clock: LogClock) -> Self {
        let mut file =
            Self { output: Output::new(folder, clock), kind: sanitise(kind), instance: sanitise(instance), day: None };
        file.write_now(b"");
        file
    }

    fn write_now(&mut self, bytes: &[u8]) {
        let Self { output, kind, instance, day } = self;
        let now = (output.clock)();
        let today = now.as_second().div_euclid(SECONDS_A_DAY);
        if *day != Some(today) {
            output.close();
        }
        output.write(now, bytes, |folder| {
            let name = names::day_name(now, kind, instance);
            let file = folder.append(&name)?;
            // Not when today's file is reopened: several instances that share a folder would delete each other's files.
            if *day != Some(today) {
                folder.prune(kind, &name);
            }
            folder.write_latest(&name);
            *day = Some(today);
            Ok(file)
        });
    }
}

impl Write for DailyFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_now(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The open file, or the time of the last failure to open or write it.
#[derive(Debug)]
struct Output {
    folder: LogFolder,
    clock: LogClock,
    file: Option<File>,
    /// When the last attempt failed.
    last_failure: Option<Timestamp>,
    /// When the file was last known to be in its folder.
    last_seen: Option<Timestamp>,
    /// Whether the last write ended inside a line.
    is_torn: bool,
}

impl Output {
    fn new(folder: LogFolder, clock: LogClock) -> Self {
        Self { folder, clock, file: None, last_failure: None, last_seen: None, is_torn: false }
    }

    fn close(&mut self) {
        self.file = None;
        self.is_torn = false;
    }

    /// Writes `bytes`; opens the file first if needed. Lines that cannot be written are counted and dropped.
    fn write(&mut self, now: Timestamp, bytes: &[u8], open: impl FnOnce(&LogFolder) -> io::Result<File>) {
        self.close_if_deleted(now);
        if self.file.is_none() && self.last_failure.is_some_and(|last_failure| within_interval(last_failure, now)) {
            self.folder.errors.add(lines(bytes));
            return;
        }
        if let Err(error) = self.try_write(now, bytes, open) {
            // Reopening, instead of only writing again, also finds a folder that was replaced or mounted in the
            // meantime.
            self.file = None;
            self.last_failure = Some(now);
            self.folder.errors.set_reason(&error);
            self.folder.errors.add(lines(bytes));
        }
    }

    fn try_write(
        &mut self,
        now: Timestamp,
        bytes: &[u8],
        open: impl FnOnce(&LogFolder) -> io::Result<File>,
    ) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                let file = none.insert(open(&self.folder)?);
                self.last_seen = Some(now);
                file
            }
        };
        write_whole(file, bytes, &mut self.is_torn)
    }

    /// Closes the file if it was deleted, alone or with its folder: what is written to it from then on is lost.
    fn close_if_deleted(&mut self, now: Timestamp) {
        let Some(file) = &self.file else { return };
        if self.last_seen.is_some_and(|last_seen| within_interval(last_seen, now)) {
            return;
        }
        self.last_seen = Some(now);
        if file.metadata().is_ok_and(|file| file.nlink() == 0) {
            self.close();
        }
    }
}

/// Whether `now` is less than [`RETRY_INTERVAL`] after `then`. False if the clock was set back.
fn within_interval(then: Timestamp, now: Timestamp) -> bool {
    (SignedDuration::ZERO..RETRY_INTERVAL).contains(&now.duration_since(then))
}

fn lines(bytes: &[u8]) -> u64 {
    let complete = memchr::memchr_iter(b'\n', bytes).count() as u64;
    complete + u64::from(bytes.last().is_some_and(|last| *last != b'\n'))
}

/// Writes all of `bytes`, after ending a line that an earlier failure left unfinished.
fn write_whole(mut file: impl Write, bytes: &[u8], is_torn: &mut bool) -> io::Result<()> {
    if *is_torn && !bytes.is_empty() {
        file.write_all(b"\n")?;
        *is_torn = false;
    }
    let mut rest = bytes;
    while !rest.is_empty() {
        match file.write(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                *is_torn = count < rest.len() && rest[count - 1] != b'\n';
                rest = &rest[count..];
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A writer that takes a limited number of bytes.
    struct LimitedDisk(Vec<u8>, usize);

    impl Write for LimitedDisk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.1 - self.0.len());
            self.0.extend(&bytes[..count]);
            if count == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(count) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_cut_by_a_full_disk_is_ended_before_the_next_line() {
        let mut is_torn = false;
        let mut disk = LimitedDisk(Vec::new(), 10);
        write_whole(&mut disk, b"first\n", &mut is_torn).unwrap();
        assert!(write_whole(&mut disk, b"second\n", &mut is_torn).is_err());
        assert!(is_torn);
        assert!(write_whole(&mut disk, b"third\n", &mut is_torn).is_err());
        disk.1 = 100;
        write_whole(&mut disk, b"fourth\n", &mut is_torn).unwrap();
        write_whole(&mut disk, b"fifth\n", &mut is_torn).unwrap();
        assert_eq!(disk.0, b"first\nseco\nfourth\nfifth\n");
    }

    #[test]
    fn an_unfinished_last_line_counts_as_a_line() {
        assert_eq!([lines(b""), lines(b"a"), lines(b"a\n"), lines(b"a\nb")], [0, 1, 1, 2]);
    }
}
