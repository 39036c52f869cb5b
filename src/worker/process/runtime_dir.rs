//! The private runtime directory of one process, and directories that earlier gateways left behind.
//!
//! Owns the directory: the key file, the HOME, and the file with the identity of the process. [`super::leftovers`] ends
//! processes.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt, MetadataExt as _, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::HeaderValue;

use crate::os::here;
use crate::os::identity::ProcessIdentity;

/// The environment variable with the path of the runtime directory. It marks the process and all that it starts.
pub(crate) const RUNTIME_DIR_VARIABLE: &str = "LLAMAGATE_DEN";

const PREFIX: &str = "llamagate-den-";

/// A directory younger than this and without a process file may belong to a gateway that has not locked it yet.
const YOUNG: Duration = Duration::from_secs(60);

/// Bytes that are read at most of a process file; no valid one is longer.
const PROCESS_FILE_SIZE: u64 = 256;

/// The private directory of one process: the key file, and a HOME without llama.cpp configuration of the user.
///
/// It is locked while it is in use, so that a gateway that cleans up after a killed one can tell. A pid would not be
/// enough, because containers may share the parent directory but not the pids.
pub(crate) struct RuntimeDir {
    path: PathBuf,
    /// The `Authorization` header with the key.
    authorization: HeaderValue,
    /// Whether the process, or a process that it left, may be running.
    has_process: bool,
    _lock: File,
}

impl RuntimeDir {
    /// Creates the directory with a new key, in memory if there is a file system with space for that.
    ///
    /// # Errors
    ///
    /// The directory can be created nowhere; contains the last error.
    pub(crate) fn new() -> Result<Self, RuntimeDirError> {
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for parent in parents() {
            match Self::create(parent.join(format!("{PREFIX}{}", uuid::Uuid::now_v7().simple()))) {
                Ok(dir) => return Ok(dir),
                Err(error) => last = error,
            }
        }
        Err(RuntimeDirError(last))
    }

    fn create(path: PathBuf) -> io::Result<Self> {
        let (key, authorization) = random_key()?;
        DirBuilder::new().mode(0o700).create(&path)?;
        let lock = File::open(&path)?;
        lock.lock()?;
        let dir = Self { path, authorization, has_process: false, _lock: lock };
        DirBuilder::new().mode(0o700).create(dir.home())?;
        // Creating directories may succeed on a full file system; only writing a file shows whether there is space.
        write_new(&dir.key_file(), &key)?;
        Ok(dir)
    }

    /// Returns the path of the directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path of the file with the key, for `--api-key-file`.
    pub(crate) fn key_file(&self) -> PathBuf {
        self.path.join("backend.key")
    }

    /// Returns the HOME of the process, and of all that it starts.
    pub(crate) fn home(&self) -> PathBuf {
        self.path.join("home")
    }

    /// Returns the `Authorization` header with the key.
    pub(crate) fn authorization(&self) -> HeaderValue {
        self.authorization.clone()
    }

    /// Records the process that uses the directory. From now on the directory stays if the gateway ends before it calls
    /// [`RuntimeDir::clear_process`], so that the next gateway can end the process.
    ///
    /// # Errors
    ///
    /// The file cannot be written. The next gateway then finds the process only by [`RUNTIME_DIR_VARIABLE`].
    pub(crate) fn record_process(&mut self, pid: i32) -> io::Result<()> {
        self.has_process = true;
        let text = match ProcessIdentity::of(pid) {
            Ok(identity) => identity.to_text(),
            // The process has ended already; it may have left others, which the variable marks.
            Err(_) => String::new(),
        };
        write_new(&process_file(&self.path), &text)
    }

    /// Records that no process uses the directory any more.
    pub(crate) fn clear_process(&mut self) {
        self.has_process = false;
    }
}

impl Drop for RuntimeDir {
    fn drop(&mut self) {
        if !self.has_process {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// A runtime directory of a gateway that is gone. Locked, so that no other gateway cleans it up at the same time.
pub(crate) struct AbandonedDir {
    path: PathBuf,
    /// The process that used it, if that was recorded.
    pub(crate) process: Option<ProcessIdentity>,
    _lock: File,
}

impl AbandonedDir {
    /// Finds all abandoned directories of this user.
    pub(crate) fn all() -> Vec<Self> {
        parents().iter().flat_map(|parent| Self::in_folder(parent)).collect()
    }

    fn in_folder(parent: &Path) -> Vec<Self> {
        let Ok(entries) = fs::read_dir(parent) else { return Vec::new() };
        let has_prefix = |entry: &fs::DirEntry| entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        entries.flatten().filter(has_prefix).filter_map(|entry| Self::open(entry.path())).collect()
    }

    /// Locks an abandoned directory and reads its process; `None` if it is in use, too young, or not this user's.
    fn open(path: PathBuf) -> Option<Self> {
        // Every user may write to the parent directory. A directory of another user must not decide which processes are
        // ended here, so owner and permissions are checked, and links are not followed.
        let metadata = fs::symlink_metadata(&path).ok()?;
        let is_ours =
            metadata.is_dir() && metadata.uid() == nix::unistd::geteuid().as_raw() && metadata.mode() & 0o022 == 0;
        if !is_ours {
            return None;
        }
        let is_young = || metadata.modified().ok().and_then(|time| time.elapsed().ok()).is_none_or(|age| age <= YOUNG);
        if !process_file(&path).exists() && is_young() {
            return None;
        }
        let lock = File::open(&path).ok()?;
        lock.try_lock().ok()?;
        let mut text = String::new();
        let read =
            File::open(process_file(&path)).and_then(|file| file.take(PROCESS_FILE_SIZE).read_to_string(&mut text));
        let process = read.ok().and_then(|_| ProcessIdentity::parse(&text));
        Some(Self { path, process, _lock: lock })
    }

    /// Returns the path of the directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the directory.
    pub(crate) fn remove(self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// The runtime directory could be created nowhere, for lack of space or permission.
#[derive(Debug, thiserror::Error)]
#[error(
    "no private folder for llama-server's key can be made, neither in shared memory nor in a temporary folder: {0}"
)]
pub(crate) struct RuntimeDirError(#[source] pub(crate) io::Error);

impl From<RuntimeDirError> for io::Error {
    fn from(error: RuntimeDirError) -> Self {
        Self::other(error)
    }
}

/// Returns a new random key, and the `Authorization` header with it.
fn random_key() -> io::Result<(String, HeaderValue)> {
    let mut random = [0u8; 32];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let key = format!("gateway-{}", BASE64_URL_SAFE_NO_PAD.encode(random));
    let mut header = HeaderValue::try_from(format!("Bearer {key}")).map_err(io::Error::other)?;
    header.set_sensitive(true);
    Ok((key, header))
}

/// Returns the directories in which runtime directories are created, in order of preference: shared memory first.
fn parents() -> Vec<PathBuf> {
    let disk = [std::env::temp_dir(), PathBuf::from("/var/tmp")];
    let mut parents: Vec<PathBuf> = here::memory_folder().into_iter().chain(disk).collect();
    parents.dedup();
    parents
}

fn process_file(dir: &Path) -> PathBuf {
    dir.join("process")
}

/// Writes a file that only this user may read, and replaces an older one.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::{Instant, SystemTime};

    fn runtime_dir(parent: &Path, name: &str) -> RuntimeDir {
        RuntimeDir::create(parent.join(format!("{PREFIX}{name}"))).unwrap()
    }

    fn abandoned(parent: &Path) -> Vec<String> {
        let name = |dir: &AbandonedDir| dir.path.file_name().unwrap().to_str().unwrap()[PREFIX.len()..].to_owned();
        let mut names: Vec<String> = AbandonedDir::in_folder(parent).iter().map(name).collect();
        names.sort_unstable();
        names
    }

    /// Looks again until something is found. Processes that other tests of this program start hold its locks too, from
    /// `fork` until `exec`.
    fn found_within<T>(deadline: Duration, look: impl Fn() -> Vec<T>) -> Vec<T> {
        let begin = Instant::now();
        loop {
            let found = look();
            if !found.is_empty() || begin.elapsed() > deadline {
                return found;
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn only_old_unlocked_directories_of_this_user_are_abandoned() {
        let parent = tempfile::tempdir().unwrap();
        let live = runtime_dir(parent.path(), "live");
        let [dead, young, writable] = ["dead", "young", "writable"].map(|name| {
            let path = parent.path().join(format!("{PREFIX}{name}"));
            DirBuilder::new().mode(0o700).create(&path).unwrap();
            path
        });
        let foreign = parent.path().join("someone-elses");
        fs::create_dir(&foreign).unwrap();
        std::os::unix::fs::symlink(&foreign, parent.path().join(format!("{PREFIX}link"))).unwrap();
        fs::set_permissions(&writable, fs::Permissions::from_mode(0o777)).unwrap();
        let old = SystemTime::now() - 2 * YOUNG;
        for path in [&live.path, &dead, &foreign, &writable] {
            File::open(path).unwrap().set_modified(old).unwrap();
        }
        assert_eq!(abandoned(parent.path()), ["dead"]);
        AbandonedDir::in_folder(parent.path()).into_iter().for_each(AbandonedDir::remove);
        assert!(live.path.exists() && young.exists() && foreign.exists() && writable.exists());
        assert!(!dead.exists());
    }

    #[test]
    fn a_directory_with_a_process_outlives_its_gateway_and_is_found_at_once() {
        let parent = tempfile::tempdir().unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        let [mut killed, mut orderly] = ["killed", "orderly"].map(|name| runtime_dir(parent.path(), name));
        for dir in [&mut killed, &mut orderly] {
            dir.record_process(own).unwrap();
        }
        assert!(abandoned(parent.path()).is_empty(), "both are locked");
        orderly.clear_process();
        drop((killed, orderly));
        let found = found_within(Duration::from_secs(10), || AbandonedDir::in_folder(parent.path()));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].process, Some(ProcessIdentity::of(own).unwrap()));
        assert!(found[0].path().ends_with("llamagate-den-killed"));
        assert!(abandoned(parent.path()).is_empty(), "the finder has locked it");
    }
}
