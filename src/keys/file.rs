//! Reads the key file from disk: at most a bounded size, never a half-written file, and with a cheap check for changes.
//!
//! `write.rs` replaces the file, and `parse.rs` parses its text.

use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::bounds::MAX_KEY_FILE_SIZE;
use super::error::KeyFileError;
use super::parse::{KeyFile, parse};
use crate::file_identity::FileIdentity;

/// How long a reader waits for a writer to finish. After that it reads without a lock: a lock must not stop the
/// gateway.
const READ_LOCK_WAIT: Duration = Duration::from_secs(1);
/// Time between two attempts to get a lock.
pub(super) const LOCK_RETRY: Duration = Duration::from_millis(10);
/// Coarsest resolution of file times (FAT's): two changes within one step can leave the same [`FileStamp`].
const COARSEST_CLOCK: Duration = Duration::from_secs(2);

/// Reads and parses the key file. A file without keys is not an error.
///
/// Bytes that are not UTF-8 make only their own line bad. Blocks on the disk.
///
/// # Errors
/// When the file is missing, unreadable, not a regular file or too large.
pub fn read(path: &Path) -> Result<KeyFile, KeyFileError> {
    read_with_mode(path).map(|(file, _)| file)
}

/// Does what [`read`] does. Also returns whether users other than the owner may read or write the file.
///
/// # Errors
/// As [`read`].
pub fn read_with_mode(path: &Path) -> Result<(KeyFile, bool), KeyFileError> {
    let (bytes, metadata) = read_bytes(path)?;
    Ok((parse(&String::from_utf8_lossy(&bytes)), is_open_to_others(&metadata)))
}

/// Reads the file's bytes, and its metadata from before the bytes were read.
///
/// # Errors
/// When the file is missing, unreadable, not a regular file or too large.
pub(super) fn read_bytes(path: &Path) -> Result<(Vec<u8>, Metadata), KeyFileError> {
    let failed = |source| failed_to_read(path, source);
    // Opening a named pipe would block until it has a writer, so check before.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(not_a_file(path));
    }
    let file = lock_to_read(File::open(path).map_err(failed)?);
    let metadata = file.get().metadata().map_err(failed)?;
    let mut bytes = Vec::new();
    // Bounded while reading, because the file may grow after its size was read. One more byte shows that it is larger.
    file.get().take(MAX_KEY_FILE_SIZE + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_KEY_FILE_SIZE {
        return Err(KeyFileError::TooLarge { path: path.into() });
    }
    Ok((bytes, metadata))
}

/// Returns the error for a path that is no regular file.
pub(super) fn not_a_file(path: &Path) -> KeyFileError {
    let path = path.to_owned();
    if path.is_dir() { KeyFileError::Folder { path } } else { KeyFileError::NotAFile { path } }
}

pub(super) fn failed_to_read(path: &Path, source: io::Error) -> KeyFileError {
    match source.kind() {
        io::ErrorKind::NotFound => KeyFileError::Missing { path: path.into() },
        _ => KeyFileError::Unreadable { path: path.into(), source },
    }
}

/// An open file, with an advisory lock if there is one.
pub(super) enum Opened {
    /// The lock is held until this is dropped.
    Locked(Flock<File>),
    /// The file system has no locks, or the lock could not be had in time.
    Unlocked(File),
}

impl Opened {
    pub(super) fn get(&self) -> &File {
        match self {
            Self::Locked(file) => file,
            Self::Unlocked(file) => file,
        }
    }
}

/// The result of one attempt to lock a file.
pub(super) enum LockAttempt {
    /// The file may be used.
    Opened(Opened),
    /// Another program holds the lock.
    Busy(File),
}

/// Tries once to lock the file, without waiting. On a file system without locks (some network mounts) the file counts
/// as free.
pub(super) fn try_lock(file: File, kind: FlockArg) -> LockAttempt {
    match Flock::lock(file, kind) {
        Ok(locked) => LockAttempt::Opened(Opened::Locked(locked)),
        Err((file, Errno::EWOULDBLOCK | Errno::EINTR)) => LockAttempt::Busy(file),
        Err((file, _)) => LockAttempt::Opened(Opened::Unlocked(file)),
    }
}

fn lock_to_read(mut file: File) -> Opened {
    let start = Instant::now();
    while start.elapsed() < READ_LOCK_WAIT {
        file = match try_lock(file, FlockArg::LockSharedNonblock) {
            LockAttempt::Opened(opened) => return opened,
            LockAttempt::Busy(file) => file,
        };
        thread::sleep(LOCK_RETRY);
    }
    Opened::Unlocked(file)
}

/// Metadata that differs between two versions of a file, so that a change is detected without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileStamp {
    identity: FileIdentity,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileStamp {
    /// Returns the stamp of the file at this path.
    ///
    /// # Errors
    /// When the file's metadata cannot be read.
    pub(super) fn of_path(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|metadata| Self::of(&metadata))
    }

    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            identity: FileIdentity::of(metadata),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether the last change is long enough ago that any later change results in another stamp.
    pub(super) fn is_settled(&self, now: SystemTime) -> bool {
        let changed = u64::try_from(self.changed.0).unwrap_or(0);
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        now > Duration::from_secs(changed) + COARSEST_CLOCK
    }
}

/// Whether users other than the owner may read or write the file.
pub(super) fn is_open_to_others(metadata: &Metadata) -> bool {
    metadata.mode() & 0o066 != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_and_a_pipe_are_refused_without_blocking() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(read(dir.path()), Err(KeyFileError::Folder { .. })));
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(matches!(read(&pipe), Err(KeyFileError::NotAFile { .. })));
        assert!(matches!(read(&dir.path().join("none")), Err(KeyFileError::Missing { .. })));
    }

    #[test]
    fn a_file_larger_than_the_bound_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(MAX_KEY_FILE_SIZE + 1).unwrap();
        assert!(matches!(read(file.path()), Err(KeyFileError::TooLarge { .. })));
    }

    #[test]
    fn a_latin_1_comment_makes_no_other_line_bad() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), b"# caf\xe9\na:0123456789abcdef\nb:0123456789abcde\xe9\n").unwrap();
        let keys = read(file.path()).unwrap();
        assert_eq!((keys.entries().count(), keys.problems().count()), (1, 1));
    }

    #[test]
    fn a_reader_waits_for_a_lock_only_for_a_bounded_time() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let held = Flock::lock(File::open(file.path()).unwrap(), FlockArg::LockExclusive).unwrap();
        let start = Instant::now();
        assert!(read(file.path()).is_ok());
        assert!((READ_LOCK_WAIT..READ_LOCK_WAIT * 5).contains(&start.elapsed()));
        drop(held);
    }

    #[test]
    fn a_stamp_is_settled_only_some_time_after_the_change() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let stamp = FileStamp::of_path(file.path()).unwrap();
        let now = SystemTime::now();
        assert!(!stamp.is_settled(now));
        assert!(stamp.is_settled(now + Duration::from_secs(10)));
    }
}
