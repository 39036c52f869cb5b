//! The two writers: one file for each start, and one for each day. Neither ever fails its caller.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;

use jiff::{SignedDuration, Timestamp};

use super::folder::{LogClock, LogFolder};
use super::names::{self, sanitise};

/// Least time between two attempts to open a file, and between two looks whether it was deleted.
pub const RETRY_INTERVAL: SignedDuration = SignedDuration::from_secs(1);
const SECONDS_A_DAY: i64 = 86_400;

impl LogFolder {
    /// Begins `YYYYMMDD_HHMMSS_KIND_INSTANCE.log` (UTC). A failure is counted, and tried again with later writes.
    #[must_use]
    pub fn create(&self, kind: &str, instance: &str, now: LogClock) -> LogFile {
        LogFile::begin(self.clone(), kind, instance, now)
    }

    /// Begins or continues `YYYYMMDD_KIND_INSTANCE.log`, a file for each day (UTC).
    #[must_use]
    pub fn daily(&self, kind: &str, instance: &str, now: LogClock) -> DailyFile {
        DailyFile::begin(self.clone(), kind, instance, now)
    }
}

/// A log file that belongs to one start of something, such as one run of llama-server.
#[derive(Debug)]
pub struct LogFile {
    output: Output,
    kind: String,
    stem: String,
    /// The name, once the file could be created.
    name: Option<String>,
}

impl LogFile {
    fn begin(folder: LogFolder, kind: &str, instance: &str, clock: LogClock) -> Self {
        let kind = sanitise(kind);
        let stem = names::of_start(clock(), &kind, &sanitise(instance));
        let mut file = Self { output: Output::new(folder, clock), kind, stem, name: None };
        file.write_now(b"");
        file
    }

    /// The file's name in its folder, once it could be created.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    fn write_now(&mut self, bytes: &[u8]) {
        let Self { output, kind, stem, name } = self;
        output.write((output.clock)(), bytes, |folder| {
            if let Some(name) = name {
                let file = folder.append(name)?;
                folder.announce(name);
                return Ok(file);
            }
            let (created, file) = folder.create_new(stem)?;
            folder.prune(kind, &created);
            folder.announce(&created);
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

/// A log file that is another one each day, from midnight UTC.
#[derive(Debug)]
pub struct DailyFile {
    output: Output,
    kind: String,
    instance: String,
    /// The day that the open file is for, counted from the epoch.
    day: Option<i64>,
}

impl DailyFile {
    fn begin(folder: LogFolder, kind: &str, instance: &str, clock: LogClock) -> Self {
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
            let name = names::of_day(now, kind, instance);
            let file = folder.append(&name)?;
            // Not when today's file is only opened again: many instances that share a folder would delete each other's.
            if *day != Some(today) {
                folder.prune(kind, &name);
            }
            folder.announce(&name);
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

/// The open file, or the memory of when it could not be opened or written.
#[derive(Debug)]
struct Output {
    folder: LogFolder,
    clock: LogClock,
    file: Option<File>,
    /// When the last attempt failed.
    failed: Option<Timestamp>,
    /// When the file was last seen to be in its folder.
    seen: Option<Timestamp>,
    /// The last write ended inside a line.
    torn: bool,
}

impl Output {
    fn new(folder: LogFolder, clock: LogClock) -> Self {
        Self { folder, clock, file: None, failed: None, seen: None, torn: false }
    }

    fn close(&mut self) {
        self.file = None;
        self.torn = false;
    }

    /// Writes, opening the file first where it is not open; what cannot be written is counted and dropped.
    fn write(&mut self, now: Timestamp, bytes: &[u8], open: impl FnOnce(&LogFolder) -> io::Result<File>) {
        self.let_go_if_deleted(now);
        if self.file.is_none() && self.failed.is_some_and(|failed| within_interval(failed, now)) {
            self.folder.errors.count(lines(bytes));
            return;
        }
        if let Err(error) = self.try_write(now, bytes, open) {
            // Opening again, rather than writing again, also finds a folder that was replaced or mounted meanwhile.
            self.file = None;
            self.failed = Some(now);
            self.folder.errors.because(&error);
            self.folder.errors.count(lines(bytes));
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
                self.seen = Some(now);
                file
            }
        };
        write_whole(file, bytes, &mut self.torn)
    }

    /// Somebody may delete the file or its folder while it is open; what is written then is on no disk.
    fn let_go_if_deleted(&mut self, now: Timestamp) {
        let Some(file) = &self.file else { return };
        if self.seen.is_some_and(|seen| within_interval(seen, now)) {
            return;
        }
        self.seen = Some(now);
        if file.metadata().is_ok_and(|file| file.nlink() == 0) {
            self.close();
        }
    }
}

/// Whether `now` is less than [`RETRY_INTERVAL`] after `then`; no longer when the clock was set back.
fn within_interval(then: Timestamp, now: Timestamp) -> bool {
    (SignedDuration::ZERO..RETRY_INTERVAL).contains(&now.duration_since(then))
}

fn lines(bytes: &[u8]) -> u64 {
    let whole = memchr::memchr_iter(b'\n', bytes).count() as u64;
    whole + u64::from(bytes.last().is_some_and(|last| *last != b'\n'))
}

/// Writes all of it, after ending a line that an earlier failure left unfinished.
fn write_whole(mut file: impl Write, bytes: &[u8], torn: &mut bool) -> io::Result<()> {
    if *torn && !bytes.is_empty() {
        file.write_all(b"\n")?;
        *torn = false;
    }
    let mut rest = bytes;
    while !rest.is_empty() {
        match file.write(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                *torn = count < rest.len() && rest[count - 1] != b'\n';
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

    /// Takes so many bytes and then no more.
    struct Small(Vec<u8>, usize);

    impl Write for Small {
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
    fn a_line_cut_by_a_full_disk_is_ended_before_the_next() {
        let mut torn = false;
        let mut disk = Small(Vec::new(), 10);
        write_whole(&mut disk, b"first\n", &mut torn).unwrap();
        assert!(write_whole(&mut disk, b"second\n", &mut torn).is_err());
        assert!(torn);
        assert!(write_whole(&mut disk, b"third\n", &mut torn).is_err());
        disk.1 = 100;
        write_whole(&mut disk, b"fourth\n", &mut torn).unwrap();
        write_whole(&mut disk, b"fifth\n", &mut torn).unwrap();
        assert_eq!(disk.0, b"first\nseco\nfourth\nfifth\n");
    }

    #[test]
    fn lines_are_counted_as_people_count_them() {
        assert_eq!([lines(b""), lines(b"a"), lines(b"a\n"), lines(b"a\nb")], [0, 1, 1, 2]);
    }
}
