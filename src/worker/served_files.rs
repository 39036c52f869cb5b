//! The files that the answers of a worker depend on, and what tells one state of them from another, also after a restart of
//! the service.

use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

/// Most files of a folder that are looked at.
const MOST_ENTRIES: usize = 4096;

/// The files of a worker: its program, the model, and all that goes with it; and their state when they were looked at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServedFiles {
    paths: Vec<PathBuf>,
    digest: u64,
}

impl ServedFiles {
    /// Looks at these files. Blocks on the disk.
    pub fn look_at(paths: Vec<PathBuf>) -> Self {
        let digest = digest_of(&paths);
        Self { paths, digest }
    }

    /// Looks at them again. Blocks on the disk.
    #[must_use]
    pub(super) fn again(&self) -> Self {
        Self::look_at(self.paths.clone())
    }

    /// Returns a number that other files, or other states of these, do not have.
    pub fn digest(&self) -> u64 {
        self.digest
    }
}

fn digest_of(paths: &[PathBuf]) -> u64 {
    let mut hash = Sha256::new();
    for path in paths {
        hash.update((path.as_os_str().len() as u64).to_be_bytes());
        hash.update(path.as_os_str().as_bytes());
        let found = fs::metadata(path);
        add_state(&mut hash, found.as_ref().ok());
        if found.is_ok_and(|found| found.is_dir()) {
            add_entries(&mut hash, path);
        }
    }
    let digest = hash.finalize();
    u64::from_be_bytes(std::array::from_fn(|at| digest[at]))
}

/// Adds the files of a folder, such as that of a model in several files. Those in folders below it are not looked at.
fn add_entries(hash: &mut Sha256, folder: &Path) {
    let mut entries: Vec<_> = fs::read_dir(folder).into_iter().flatten().flatten().take(MOST_ENTRIES).collect();
    entries.sort_unstable_by_key(|entry| entry.file_name());
    for entry in entries {
        hash.update(entry.file_name().as_bytes());
        // Followed, because a hub's cache has links.
        add_state(hash, fs::metadata(entry.path()).as_ref().ok());
    }
}

fn add_state(hash: &mut Sha256, file: Option<&Metadata>) {
    for number in file.map_or([0; 5], state_of) {
        hash.update(number.to_be_bytes());
    }
}

/// Returns what changes with the content of a file. The time of its last change is among it: programs that set the time of
/// modification, as those do that unpack archives, cannot set that one. Its number is not: some network volumes give each
/// file a new one when they are mounted.
fn state_of(file: &Metadata) -> [i64; 5] {
    let size = i64::try_from(file.len()).unwrap_or(i64::MAX);
    [size, file.mtime(), file.mtime_nsec(), file.ctime(), file.ctime_nsec()]
}

/// Returns the arguments that may be paths of files, and the values of options that may.
pub fn paths_among(arguments: &[String]) -> impl Iterator<Item = PathBuf> {
    let value = |argument: &String| argument.split_once('=').map(|(_, value)| value.to_owned());
    let all = arguments.iter().flat_map(move |argument| [Some(argument.clone()), value(argument)]).flatten();
    all.filter(|argument| argument.contains('/')).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn another_file_has_another_digest_also_if_its_size_and_its_time_are_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let [path, other, missing] = ["a", "b", "c"].map(|name| folder.path().join(name));
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        let write = |path: &Path, text: &str| {
            fs::write(path, text).unwrap();
            fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
        };
        write(&path, "one");
        let looked = ServedFiles::look_at(vec![path.clone(), missing.clone()]);
        assert_eq!(looked.again(), looked);
        write(&other, "two");
        let before = fs::metadata(&path).unwrap();
        fs::rename(&other, &path).unwrap();
        // The clock of a file system has ticks of some milliseconds.
        let changed = |file: &Metadata| (file.ctime(), file.ctime_nsec());
        while changed(&fs::metadata(&path).unwrap()) == changed(&before) {
            fs::set_permissions(&path, before.permissions()).unwrap();
        }
        assert_ne!(looked.again(), looked);
        let replaced = looked.again();
        fs::write(&missing, "").unwrap();
        assert_ne!(looked.again(), replaced);
        assert_ne!(ServedFiles::look_at(vec![missing, path]), looked.again());
    }

    #[test]
    fn only_arguments_with_a_slash_may_be_files() {
        let arguments = ["serve", "--model", "/m/a.gguf", "4096", "b/c", "--draft=/m/d.gguf"].map(str::to_owned);
        let expected = ["/m/a.gguf", "b/c", "--draft=/m/d.gguf", "/m/d.gguf"].map(Path::new);
        assert_eq!(paths_among(&arguments).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_folder_has_another_digest_if_a_file_in_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        fs::write(&path, "one").unwrap();
        let looked = ServedFiles::look_at(vec![folder.path().to_owned()]);
        assert_eq!(looked.again(), looked);
        fs::write(&path, "longer").unwrap();
        assert_ne!(looked.again(), looked);
    }
}
