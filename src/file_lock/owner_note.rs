//! The note of a lock's owner, which it renews while it is there.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use uuid::Uuid;

/// The note of this process as the owner of a lock.
#[derive(Debug, Clone)]
pub(super) struct OwnerNote {
    path: PathBuf,
    /// The first line, which no other note has.
    owner: String,
}

impl OwnerNote {
    /// Creates the note; `None` if there is one.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub(super) fn create(path: &Path) -> io::Result<Option<Self>> {
        let host = nix::unistd::gethostname().unwrap_or_default();
        let owner = format!("{} process {} on {}\n", Uuid::now_v7(), std::process::id(), host.display());
        match OpenOptions::new().write(true).create_new(true).open(path) {
            Ok(mut file) => file.write_all(format!("{owner}0\n").as_bytes())?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
            Err(error) => return Err(error),
        }
        Ok(Some(Self { path: path.to_owned(), owner }))
    }

    /// Changes the note, so that others see that its owner is there. Returns `false` if another process's is in its place.
    ///
    /// # Errors
    /// The note cannot be written.
    pub(super) fn renew(&self, beat: u64) -> io::Result<bool> {
        if !self.is_ours() {
            return Ok(false);
        }
        let file = OpenOptions::new().write(true).open(&self.path)?;
        file.write_all_at(format!("{}{beat}\n", self.owner).as_bytes(), 0)?;
        Ok(true)
    }

    /// Removes the note, unless it is another process's by now.
    pub(super) fn remove(&self) {
        if self.is_ours() {
            let _ = fs::remove_file(&self.path);
        }
    }

    /// Returns whether the note is still this process's; one that cannot be read may be.
    pub(super) fn is_ours(&self) -> bool {
        match fs::read_to_string(&self.path) {
            Ok(text) => text.starts_with(&self.owner),
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        }
    }
}

/// Removes a note that has lost its owner. Returns `false` if another process has put its own in its place meanwhile.
///
/// # Errors
/// The folder cannot be written.
pub(super) fn remove_note(path: &Path, text: &str) -> io::Result<bool> {
    let aside = path.with_extension(format!("owner.{}", Uuid::now_v7()));
    match fs::rename(path, &aside) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        renamed => renamed?,
    }
    let is_the_same = fs::read_to_string(&aside)? == text;
    if !is_the_same {
        // A link, because it never replaces a note that came meanwhile.
        let _ = fs::hard_link(&aside, path);
    }
    fs::remove_file(&aside)?;
    Ok(is_the_same)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_that_find_a_stale_note_one_removed_the_note_of_the_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc.owner");
        fs::write(&path, "stale").unwrap();
        let next = |text| {
            let is_removed = remove_note(&path, text).unwrap();
            if is_removed { OwnerNote::create(&path).unwrap() } else { None }
        };
        let first = next("stale").unwrap();
        assert!(next("stale").is_none() && first.is_ours());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }
}
