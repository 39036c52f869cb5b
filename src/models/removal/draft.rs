//! What goes and what stays, while a plan is made, and how many bytes that frees.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::error::RemovalError;
use super::steps::{PlannedFile, RemovalStep};

/// Bytes of a block as the kernel counts them (`stat(2)`).
const BLOCK: u64 = 512;
/// The ending of a file that has not come as a whole.
const PART_ENDING: &str = "incomplete";

/// What a name that goes is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RemovedKind {
    /// The bytes themselves.
    File,
    /// A link to them.
    Link,
    /// What has arrived of a file.
    Part,
}

/// A name that goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RemovedFile {
    /// The file or the link.
    pub path: PathBuf,
    /// What it is.
    pub kind: RemovedKind,
    /// The bytes that its removal frees.
    pub bytes: u64,
}

/// A file that stays, although the model uses it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeptFile {
    /// The file.
    pub path: PathBuf,
    /// Why it stays; follows its name.
    pub reason: String,
}

/// A plan that is being made.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct RemovalDraft {
    pub(super) files: Vec<RemovedFile>,
    pub(super) kept: Vec<KeptFile>,
    pub(super) steps: Vec<RemovalStep>,
    /// The locks that are held during the removal, each with the file that it protects.
    pub(super) locks: Vec<(PathBuf, PathBuf)>,
    /// Of each file that goes: how many names it has, and how many of them go.
    names: HashMap<PlannedFile, (u64, u64)>,
}

impl RemovalDraft {
    /// Lets the file or link at `path` go, and nothing if there is none.
    ///
    /// # Errors
    /// It cannot be looked at, or is a folder or a device.
    pub(super) fn remove(&mut self, path: &Path) -> Result<(), RemovalError> {
        let found = match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(RemovalError::Disk { path: path.to_owned(), what: "read", source }),
            Ok(found) if found.is_file() || found.is_symlink() => found,
            Ok(_) => return Err(RemovalError::NotAModel { path: path.to_owned() }),
        };
        let identity = PlannedFile::of(&found);
        let kind = match found.is_symlink() {
            true => RemovedKind::Link,
            false if path.extension().is_some_and(|ending| ending == PART_ENDING) => RemovedKind::Part,
            false => RemovedKind::File,
        };
        self.steps.push(RemovalStep::Name { path: path.to_owned(), identity });
        let bytes = self.freed_bytes(kind, identity, &found);
        self.files.push(RemovedFile { path: path.to_owned(), kind, bytes });
        Ok(())
    }

    /// Counts a name that goes. Returns what that frees: the last name of a file frees its bytes.
    fn freed_bytes(&mut self, kind: RemovedKind, identity: PlannedFile, found: &fs::Metadata) -> u64 {
        let (all, gone) = self.names.entry(identity).or_insert((found.nlink(), 0));
        *gone += 1;
        match kind {
            RemovedKind::Link => 0,
            _ if *gone < *all => 0,
            RemovedKind::File => found.len(),
            // It has its full length from the beginning, on some file systems without the room for it.
            RemovedKind::Part => found.len().min(found.blocks().saturating_mul(BLOCK)),
        }
    }

    /// Notes that a file stays.
    pub(super) fn keep(&mut self, path: PathBuf, reason: impl Into<String>) {
        self.kept.push(KeptFile { path, reason: reason.into() });
    }

    /// Lets a folder go, once it is empty.
    pub(super) fn remove_folder(&mut self, path: PathBuf) {
        self.steps.push(RemovalStep::Folder { path });
    }

    /// Says of the files that go and have other names that these keep their bytes.
    pub(super) fn note_hard_links(&mut self) {
        let has_other = |file: &&RemovedFile| {
            let identity = fs::symlink_metadata(&file.path).map(|found| PlannedFile::of(&found));
            let names = identity.ok().and_then(|identity| self.names.get(&identity));
            file.kind != RemovedKind::Link && names.is_some_and(|(all, gone)| gone < all)
        };
        let paths: Vec<PathBuf> = self.files.iter().filter(has_other).map(|file| file.path.clone()).collect();
        for path in paths {
            self.keep(path, "has another name (a hard link), which keeps its bytes");
        }
    }
}
