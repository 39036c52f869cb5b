//! The open file of a writer: opened when it is needed, opened again after a failure or when its path names another file
//! or none, and counted in lines that could not be written. Which file that is, and when the next part begins, is up to
//! the writers.

use std::fs::{File, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::{SignedDuration, Timestamp};

use super::errors::{FailingWriter, WriteErrors};
use super::folder::{LogClock, LogFolder};
use crate::file_identity::FileIdentity;

/// Minimum time between two attempts to open a file, and between two checks whether it was renamed or deleted.
pub const RETRY_INTERVAL: SignedDuration = SignedDuration::from_secs(1);

/// Number of calls of [`look_at_log_files`]. One for the process, because a signal is for the process.
static LOOK_ORDERS: AtomicU64 = AtomicU64::new(0);

/// Makes each writer check before its next line whether its file was renamed or deleted, without waiting for
/// [`RETRY_INTERVAL`]. Programs that rotate logs send SIGHUP after they have renamed a file.
pub fn look_at_log_files() {
    LOOK_ORDERS.fetch_add(1, Ordering::Relaxed);
}

/// A file that a writer has opened, and its path.
pub(super) type OpenedFile = (PathBuf, File);

/// The open file, or the time of the last failure to open or write it.
#[derive(Debug)]
pub(super) struct Output {
    folder: LogFolder,
    clock: LogClock,
    file: Option<OpenedFile>,
    /// The size of the open file, in bytes, as far as this writer knows.
    size: u64,
    /// When the last attempt failed.
    last_failure: Option<Timestamp>,
    /// Held while the last attempt is one that failed.
    failing: Option<FailingWriter>,
    /// When the path was last known to name the open file, and after how many [`look_at_log_files`].
    last_seen: Option<(Timestamp, u64)>,
    /// Whether the last write ended inside a line.
    is_torn: bool,
}

impl Output {
    pub(super) fn new(folder: LogFolder, clock: LogClock) -> Self {
        Self { folder, clock, file: None, size: 0, last_failure: None, failing: None, last_seen: None, is_torn: false }
    }

    /// Returns the time.
    pub(super) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// Returns the number of files to keep.
    pub(super) fn keep(&self) -> usize {
        self.folder.rules.keep
    }

    /// Returns the count of lines that could not be written.
    pub(super) fn errors(&self) -> Arc<WriteErrors> {
        self.folder.errors()
    }

    /// Returns the metadata of the open file, if there is one.
    pub(super) fn metadata(&self) -> Option<Metadata> {
        self.file.as_ref()?.1.metadata().ok()
    }

    pub(super) fn close(&mut self) {
        self.file = None;
        self.size = 0;
        self.is_torn = false;
    }

    /// Returns the whole lines at the start of `bytes` that the open file has room for. Empty if the next part must begin
    /// first: it never is for an empty file, so that a line that is longer than a part has a part of its own.
    pub(super) fn next_piece<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let Some(part_size) = self.folder.rules.part_size else { return bytes };
        if self.size.saturating_add(bytes.len() as u64) <= part_size {
            return bytes;
        }
        let room = usize::try_from(part_size.saturating_sub(self.size)).unwrap_or(usize::MAX).min(bytes.len());
        let fitting = memchr::memrchr(b'\n', &bytes[..room]).map_or(0, |end| end + 1);
        if fitting > 0 || self.size > 0 {
            return &bytes[..fitting];
        }
        let first_line = memchr::memchr(b'\n', bytes).map_or(bytes.len(), |end| end + 1);
        &bytes[..first_line]
    }

    /// Writes `bytes`; opens the file first if needed. Lines that cannot be written are counted and dropped.
    pub(super) fn write(
        &mut self,
        now: Timestamp,
        bytes: &[u8],
        mut open: impl FnMut(&LogFolder) -> io::Result<OpenedFile>,
    ) {
        if !self.folder.rules.is_written {
            return;
        }
        self.look_at_file(now, &mut open);
        if self.file.is_none() && self.last_failure.is_some_and(|last_failure| within_interval(last_failure, now)) {
            self.folder.errors.add(lines(bytes));
            return;
        }
        match self.try_write(now, bytes, open) {
            // A file that could be opened proves nothing: an empty one has room on a full disk.
            Ok(()) if bytes.is_empty() => {}
            Ok(()) => self.failing = None,
            Err(error) => {
                // Reopening, instead of only writing again, also finds a folder that was replaced or mounted in the
                // meantime.
                self.file = None;
                self.size = 0;
                self.last_failure = Some(now);
                let errors = &self.folder.errors;
                errors.set_reason(&error);
                errors.add(lines(bytes));
                self.failing.get_or_insert_with(|| FailingWriter::count(errors));
            }
        }
    }

    fn try_write(
        &mut self,
        now: Timestamp,
        bytes: &[u8],
        open: impl FnOnce(&LogFolder) -> io::Result<OpenedFile>,
    ) -> io::Result<()> {
        if self.file.is_none() {
            let opened = open(&self.folder)?;
            self.begin(now, opened);
        }
        let Some((_, file)) = &mut self.file else { return Ok(()) };
        write_whole(file, bytes, &mut self.is_torn)?;
        self.size += bytes.len() as u64;
        Ok(())
    }

    fn begin(&mut self, now: Timestamp, opened: OpenedFile) {
        self.last_seen = Some((now, LOOK_ORDERS.load(Ordering::Relaxed)));
        self.size = opened.1.metadata().map_or(0, |metadata| metadata.len());
        self.file = Some(opened);
    }

    /// Begins the file again if it was renamed or deleted, alone or with its folder: another program reads only what is
    /// at the path. Learns its size otherwise, because other instances may write to it too.
    fn look_at_file(&mut self, now: Timestamp, open: impl FnOnce(&LogFolder) -> io::Result<OpenedFile>) {
        let Some((path, file)) = &self.file else { return };
        let orders = LOOK_ORDERS.load(Ordering::Relaxed);
        if self.last_seen.is_some_and(|(time, seen)| seen == orders && within_interval(time, now)) {
            return;
        }
        self.last_seen = Some((now, orders));
        match file.metadata() {
            Ok(own) if own.is_file() && !is_at(path, &own) => match open(&self.folder) {
                Ok(opened) => {
                    self.close();
                    self.begin(now, opened);
                }
                // What is written to a deleted file is lost, and counted as lost. A renamed one still takes the lines, if
                // no new file may be made in its place.
                Err(_) if own.nlink() == 0 => self.close(),
                Err(_) => self.size = own.len(),
            },
            Ok(own) => self.size = own.len(),
            Err(_) => {}
        }
    }
}

/// Whether this path names the file with this metadata, or it cannot be found out.
fn is_at(path: &Path, own: &Metadata) -> bool {
    match path.metadata() {
        Ok(found) => FileIdentity::of(&found) == FileIdentity::of(own),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
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
