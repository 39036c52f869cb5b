//! The key file on disk, seen by a reader: bounded, never half-written, and cheap to recognise as changed.
//!
//! Replacing the file is `write`'s business; what its text means is `parse`'s.

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

/// How long a reader waits for a writer to finish. Past it, it reads what is there: a lock must not stop the gateway.
const READ_LOCK_WAIT: Duration = Duration::from_secs(1);
/// How often a held lock is tried again.
pub(super) const LOCK_RETRY: Duration = Duration::from_millis(10);
/// File times may be this coarse: two changes within one step can leave the same [`Stamp`].
const COARSEST_CLOCK: Duration = Duration::from_secs(2);

/// Reads and parses the key file, keyless or not.
///
/// Bytes that are not UTF-8 spoil only their own line. Blocks on the disk.
///
/// # Errors
/// When the file is missing, unreadable, no regular file or too large.
pub fn read(path: &Path) -> Result<KeyFile, KeyFileError> {
    let (bytes, _) = read_bytes(path)?;
    Ok(parse(&String::from_utf8_lossy(&bytes)))
}

/// The file's bytes, and its metadata as of before they were read.
pub(super) fn read_bytes(path: &Path) -> Result<(Vec<u8>, Metadata), KeyFileError> {
    let failed = |source| failed_to_read(path, source);
    // Opening a pipe would block, so look before.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(KeyFileError::NotAFile { path: path.into() });
    }
    let file = lock_to_read(File::open(path).map_err(failed)?);
    let metadata = file.get().metadata().map_err(failed)?;
    let mut bytes = Vec::new();
    file.get().take(MAX_KEY_FILE_SIZE + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_KEY_FILE_SIZE {
        return Err(KeyFileError::TooLarge { path: path.into() });
    }
    Ok((bytes, metadata))
}

pub(super) fn failed_to_read(path: &Path, source: io::Error) -> KeyFileError {
    match source.kind() {
        io::ErrorKind::NotFound => KeyFileError::Missing { path: path.into() },
        _ => KeyFileError::Unreadable { path: path.into(), source },
    }
}

/// An open file, with the advisory lock if the file system has one and it could be had.
pub(super) enum Opened {
    /// The lock is held until this is dropped.
    Locked(Flock<File>),
    /// There is no lock.
    Free(File),
}

impl Opened {
    pub(super) fn get(&self) -> &File {
        match self {
            Self::Locked(file) => file,
            Self::Free(file) => file,
        }
    }
}

/// What came of one attempt at a lock.
pub(super) enum Attempt {
    Got(Opened),
    Held(File),
}

/// Tries once, without waiting. Where the file system has no locks (some network mounts) the file counts as free.
pub(super) fn try_lock(file: File, kind: FlockArg) -> Attempt {
    match Flock::lock(file, kind) {
        Ok(locked) => Attempt::Got(Opened::Locked(locked)),
        Err((file, Errno::EWOULDBLOCK | Errno::EINTR)) => Attempt::Held(file),
        Err((file, _)) => Attempt::Got(Opened::Free(file)),
    }
}

fn lock_to_read(mut file: File) -> Opened {
    let start = Instant::now();
    while start.elapsed() < READ_LOCK_WAIT {
        file = match try_lock(file, FlockArg::LockSharedNonblock) {
            Attempt::Got(opened) => return opened,
            Attempt::Held(file) => file,
        };
        thread::sleep(LOCK_RETRY);
    }
    Opened::Free(file)
}

/// What tells one state of a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// The stamp of the file that the path leads to now.
    pub(super) fn of_path(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|metadata| Self::of(&metadata))
    }

    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether the last change is so long ago that a later one is sure to give another stamp.
    pub(super) fn is_settled(&self, now: SystemTime) -> bool {
        let changed = u64::try_from(self.changed.0).unwrap_or(0);
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        now > Duration::from_secs(changed) + COARSEST_CLOCK
    }
}

/// Whether anybody but the owner may read or write the file.
pub(super) fn is_open_to_others(metadata: &Metadata) -> bool {
    metadata.mode() & 0o066 != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_regular_file_is_refused_without_blocking() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(read(dir.path()), Err(KeyFileError::NotAFile { .. })));
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(matches!(read(&pipe), Err(KeyFileError::NotAFile { .. })));
        assert!(matches!(read(&dir.path().join("none")), Err(KeyFileError::Missing { .. })));
    }

    #[test]
    fn a_file_past_the_bound_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(MAX_KEY_FILE_SIZE + 1).unwrap();
        assert!(matches!(read(file.path()), Err(KeyFileError::TooLarge { .. })));
    }

    #[test]
    fn a_latin_1_comment_spoils_no_other_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), b"# caf\xe9\na:0123456789abcdef\nb:0123456789abcde\xe9\n").unwrap();
        let keys = read(file.path()).unwrap();
        assert_eq!((keys.entries().count(), keys.problems().count()), (1, 1));
    }

    #[test]
    fn a_reader_does_not_wait_for_ever_for_a_lock() {
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
        let stamp = Stamp::of_path(file.path()).unwrap();
        let now = SystemTime::now();
        assert!(!stamp.is_settled(now));
        assert!(stamp.is_settled(now + Duration::from_secs(10)));
    }
}
