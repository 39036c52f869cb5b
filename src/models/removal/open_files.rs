//! Which process of this machine has a file open, mapped, or as the model of its command line.
//!
//! Sees the processes of this user (as root: all) in this container. A model that is asleep has no process.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::error::RemovalError;

/// Arguments of llama-server after which a model file is named. It may have read and closed that file.
const MODEL_FLAGS: [&str; 6] = ["-m", "--model", "-mm", "--mmproj", "-md", "--model-draft"];

/// Checks that no other process uses one of these files.
///
/// # Errors
/// [`RemovalError::InUse`] if one does.
pub(super) fn check_unused<'a>(files: impl Iterator<Item = &'a Path>) -> Result<(), RemovalError> {
    let wanted = WantedFiles::of(files);
    let own = std::process::id();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).filter(|pid| *pid != own);
    for pid in pids {
        let process = PathBuf::from(format!("/proc/{pid}"));
        let used =
            wanted.named_by(&process).or_else(|| wanted.opened_by(&process)).or_else(|| wanted.mapped_by(&process));
        if let Some(path) = used {
            let program = fs::read_to_string(process.join("comm")).unwrap_or_default().trim().to_owned();
            return Err(RemovalError::InUse { path, program, pid });
        }
    }
    Ok(())
}

/// Files that are looked for.
struct WantedFiles {
    /// Their names, and those of the files that links point to.
    paths: BTreeSet<PathBuf>,
    /// Device and inode of each.
    inodes: BTreeSet<(u64, u64)>,
}

impl WantedFiles {
    fn of<'a>(files: impl Iterator<Item = &'a Path>) -> Self {
        let named: Vec<PathBuf> = files.map(Path::to_owned).collect();
        let found = named.iter().filter_map(|path| fs::metadata(path).ok());
        let inodes = found.map(|found| (found.dev(), found.ino())).collect();
        let targets: Vec<PathBuf> = named.iter().filter_map(|path| fs::canonicalize(path).ok()).collect();
        Self { paths: named.into_iter().chain(targets).collect(), inodes }
    }

    fn opened_by(&self, process: &Path) -> Option<PathBuf> {
        let descriptors = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        let mut links = descriptors.map(|entry| entry.path());
        let open = links.find(|link| {
            fs::metadata(link).is_ok_and(|found| found.is_file() && self.inodes.contains(&(found.dev(), found.ino())))
        })?;
        fs::read_link(open).ok()
    }

    fn mapped_by(&self, process: &Path) -> Option<PathBuf> {
        let maps = fs::read(process.join("maps")).ok()?;
        let mut paths = maps.split(|byte| *byte == b'\n').filter_map(|line| {
            let start = line.iter().position(|byte| *byte == b'/')?;
            Some(Path::new(OsStr::from_bytes(line.get(start..)?)))
        });
        paths.find(|path| self.paths.contains(*path)).map(Path::to_owned)
    }

    fn named_by(&self, process: &Path) -> Option<PathBuf> {
        let line = fs::read(process.join("cmdline")).ok()?;
        let words: Vec<&OsStr> = line.split(|byte| *byte == 0).map(OsStr::from_bytes).collect();
        let mut models = words.windows(2).filter(|two| MODEL_FLAGS.iter().any(|flag| two[0] == *flag));
        models.find_map(|two| {
            // A relative path is one below the folder of that process.
            let path = fs::read_link(process.join("cwd")).unwrap_or_default().join(two[1]);
            let place = fs::canonicalize(path.parent()?).ok()?.join(path.file_name()?);
            self.paths.contains(&place).then_some(place)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_a_process_are_those_that_it_has_open() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.gguf");
        let file = fs::File::create(&path).unwrap();
        let own = PathBuf::from("/proc/self");
        let wanted = WantedFiles::of([path.as_path()].into_iter());
        assert_eq!(wanted.opened_by(&own), Some(path.canonicalize().unwrap()));
        drop(file);
        assert_eq!(wanted.opened_by(&own), None);
        assert_eq!((wanted.mapped_by(&own), wanted.named_by(&own)), (None, None));
        let program = std::env::current_exe().unwrap();
        assert!(WantedFiles::of([program.as_path()].into_iter()).mapped_by(&own).is_some());
    }
}
