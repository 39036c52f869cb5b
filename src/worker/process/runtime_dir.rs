//! A private folder for one worker, and what is found of those whose gateway is gone.
//!
//! Owns the folder: the key file, the HOME, the note which process lives in it. It ends no process;
//! [`super::leftovers`] does.

use crate::worker::procfs::ProcessIdentity;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::HeaderValue;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt, MetadataExt as _, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The environment variable by which a process in a den is known, and all that it starts: the path of the den.
pub(crate) const MARK: &str = "LLAMAGATE_DEN";

const PREFIX: &str = "llamagate-den-";

/// A folder younger than this, in which nobody lives, may not be locked yet by whoever makes it.
const YOUNG: Duration = Duration::from_secs(60);

/// More than any note of a process takes, in bytes.
const NOTE_SIZE: u64 = 256;

/// A private folder for one worker: the key file, and a HOME without anybody's llama.cpp configuration.
///
/// It is locked while it is in use, so that whoever tidies up after a killed gateway can tell; process ids would not
/// do, for containers may share the folder above and not the ids.
pub(crate) struct RuntimeDir {
    path: PathBuf,
    /// What its llama-server will ask for.
    authorization: HeaderValue,
    /// A process lives in it, or something that this process left.
    is_inhabited: bool,
    _lock: File,
}

impl RuntimeDir {
    /// Makes the folder with a new key in it, in memory where there is a file system with room for that.
    pub(crate) fn new() -> Result<Self, RuntimeDirError> {
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for parent in parents() {
            match Self::make(parent.join(format!("{PREFIX}{}", uuid::Uuid::now_v7().simple()))) {
                Ok(den) => return Ok(den),
                Err(error) => last = error,
            }
        }
        Err(RuntimeDirError(last))
    }

    fn make(path: PathBuf) -> io::Result<Self> {
        let (key, authorization) = draw_key()?;
        DirBuilder::new().mode(0o700).create(&path)?;
        let lock = File::open(&path)?;
        lock.lock()?;
        let den = Self { path, authorization, is_inhabited: false, _lock: lock };
        DirBuilder::new().mode(0o700).create(den.home())?;
        // A full file system still makes folders: only the file shows whether there is room.
        write_new(&den.key_file(), &key)?;
        Ok(den)
    }

    /// The folder itself.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn key_file(&self) -> PathBuf {
        self.path.join("backend.key")
    }

    /// A HOME for its process, and for all that this process starts.
    pub(crate) fn home(&self) -> PathBuf {
        self.path.join("home")
    }

    /// The header that its llama-server will ask for, which has read the key.
    pub(crate) fn authorization(&self) -> HeaderValue {
        self.authorization.clone()
    }

    /// Notes which process lives here. From now on the folder outlives a gateway that ends before it calls
    /// [`RuntimeDir::vacate`], so that the next one knows what to end. Where the note cannot be written, the mark alone tells.
    pub(crate) fn inhabit(&mut self, pid: i32) -> io::Result<()> {
        self.is_inhabited = true;
        let note = match ProcessIdentity::of(pid) {
            Ok(identity) => identity.written(),
            Err(_) => String::new(),
        };
        write_new(&note_in(&self.path), &note)
    }

    /// Says that nothing lives here any more.
    pub(crate) fn vacate(&mut self) {
        self.is_inhabited = false;
    }
}

impl Drop for RuntimeDir {
    fn drop(&mut self) {
        if !self.is_inhabited {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// A den whose gateway is gone; locked, so that nobody else tidies it up at the same time.
pub(crate) struct AbandonedDir {
    path: PathBuf,
    /// Who lived in it, where that was noted.
    pub(crate) process: Option<ProcessIdentity>,
    _lock: File,
}

impl AbandonedDir {
    /// All that can be found.
    pub(crate) fn all() -> Vec<Self> {
        parents().iter().flat_map(|parent| Self::in_folder(parent)).collect()
    }

    fn in_folder(parent: &Path) -> Vec<Self> {
        let Ok(entries) = fs::read_dir(parent) else { return Vec::new() };
        let is_den = |entry: &fs::DirEntry| entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        entries.flatten().filter(is_den).filter_map(|entry| Self::look_into(entry.path())).collect()
    }

    fn look_into(path: PathBuf) -> Option<Self> {
        // Everybody may write to the folder above: a den that somebody else made must not choose what is ended here.
        let metadata = fs::symlink_metadata(&path).ok()?;
        let is_ours =
            metadata.is_dir() && metadata.uid() == nix::unistd::geteuid().as_raw() && metadata.mode() & 0o022 == 0;
        if !is_ours {
            return None;
        }
        let is_young = || metadata.modified().ok().and_then(|time| time.elapsed().ok()).is_none_or(|age| age <= YOUNG);
        if !note_in(&path).exists() && is_young() {
            return None;
        }
        let lock = File::open(&path).ok()?;
        lock.try_lock().ok()?;
        let mut note = String::new();
        let process = File::open(note_in(&path)).and_then(|file| file.take(NOTE_SIZE).read_to_string(&mut note));
        let process = process.ok().and_then(|_| ProcessIdentity::read(&note));
        Some(Self { path, process, _lock: lock })
    }

    /// The folder itself.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes it.
    pub(crate) fn remove(self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Nowhere was there room, or permission, for a folder with a key in it.
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

/// A new key, and the header that shows it.
fn draw_key() -> io::Result<(String, HeaderValue)> {
    let mut random = [0u8; 32];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let key = format!("gateway-{}", BASE64_URL_SAFE_NO_PAD.encode(random));
    let mut header = HeaderValue::try_from(format!("Bearer {key}")).map_err(io::Error::other)?;
    header.set_sensitive(true);
    Ok((key, header))
}

fn parents() -> Vec<PathBuf> {
    let mut parents = vec![PathBuf::from("/dev/shm"), std::env::temp_dir(), PathBuf::from("/var/tmp")];
    parents.dedup();
    parents
}

fn note_in(den: &Path) -> PathBuf {
    den.join("process")
}

/// Writes a file that only this user may read, in the place of an older one.
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
    use std::time::SystemTime;

    fn den(parent: &Path, name: &str) -> RuntimeDir {
        RuntimeDir::make(parent.join(format!("{PREFIX}{name}"))).unwrap()
    }

    fn abandoned(parent: &Path) -> Vec<String> {
        let name = |den: &AbandonedDir| den.path.file_name().unwrap().to_str().unwrap()[PREFIX.len()..].to_owned();
        let mut names: Vec<String> = AbandonedDir::in_folder(parent).iter().map(name).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn a_den_in_use_is_kept_and_one_without_a_note_waits_for_its_maker() {
        let parent = tempfile::tempdir().unwrap();
        let live = den(parent.path(), "live");
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
    fn an_inhabited_den_outlives_its_gateway_and_is_found_at_once() {
        let parent = tempfile::tempdir().unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        let [mut killed, mut orderly] = ["killed", "orderly"].map(|name| den(parent.path(), name));
        for den in [&mut killed, &mut orderly] {
            den.inhabit(own).unwrap();
        }
        assert!(abandoned(parent.path()).is_empty(), "both are locked");
        orderly.vacate();
        drop((killed, orderly));
        let found = AbandonedDir::in_folder(parent.path());
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].process, Some(ProcessIdentity::of(own).unwrap()));
        assert!(found[0].path().ends_with("llamagate-den-killed"));
        assert!(abandoned(parent.path()).is_empty(), "whoever found it has it to himself");
    }
}
