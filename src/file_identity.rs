//! Which file lies under a name, whatever names and links lead to it.

use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// The device and the number of a file or folder. Another file may get them when this one is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileIdentity {
    device: u64,
    inode: u64,
}

impl FileIdentity {
    /// Returns the identity of the file that was looked at.
    #[must_use]
    pub fn of(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }

    /// Returns the identity of the file at this path, which links are followed to. `None` if it cannot be looked at.
    #[must_use]
    pub fn at(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().as_ref().map(Self::of)
    }
}

/// Whether this path leads to this open file. False if either cannot be looked at.
#[must_use]
pub fn is_at(file: &File, path: &Path) -> bool {
    let open = file.metadata().ok().as_ref().map(FileIdentity::of);
    open.is_some() && open == FileIdentity::at(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_file_is_known_by_each_of_its_names_and_not_by_what_took_one_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let [path, link, hard, other] = ["a", "link", "hard", "b"].map(|name| folder.path().join(name));
        let file = File::create(&path).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        fs::hard_link(&path, &hard).unwrap();
        fs::write(&other, "").unwrap();
        assert!([&path, &link, &hard].into_iter().all(|name| is_at(&file, name)));
        assert!(!is_at(&file, &other));
        fs::rename(&other, &path).unwrap();
        assert!(!is_at(&file, &path) && is_at(&file, &hard));
        fs::remove_file(&path).unwrap();
        assert!(!is_at(&file, &link), "a link to nothing leads to no file");
        assert_eq!(FileIdentity::at(&link), None);
    }
}
