//! When a model was last used, in a file that the service keeps and `llamagate list` reads.
//!
//! Access times of files would say it worse: file systems keep them rarely or not at all, and a look at a header changes
//! them.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::file_replacement::{BY_UMASK, replace_unsynced};

/// The file, below `DATA_DIR`.
pub const LAST_USED_FILE: &str = "last_used.json";
/// Most models that are remembered; of more, those that were used last.
const MOST_REMEMBERED: usize = 2000;
/// Largest file that is read, in bytes.
const LARGEST_FILE: u64 = 1 << 20;
/// The version of the file's form. A file of another one counts as none.
const VERSION: u32 = 1;

/// When the models of this machine were last used, by the real paths of their files.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct LastUsed {
    models: BTreeMap<PathBuf, Timestamp>,
}

/// The file as it is written.
#[derive(Serialize, Deserialize)]
struct LastUsedFile {
    version: u32,
    models: BTreeMap<PathBuf, Timestamp>,
}

impl LastUsed {
    /// Reads the file. One that is missing, broken or of another version counts as empty: nothing but a date is lost.
    #[must_use]
    pub fn load(file: &Path) -> Self {
        let mut text = String::new();
        let read = fs::File::open(file).and_then(|file| file.take(LARGEST_FILE).read_to_string(&mut text));
        let known = read.ok().and_then(|_| serde_json::from_str::<LastUsedFile>(&text).ok());
        known.filter(|known| known.version == VERSION).map(|known| Self { models: known.models }).unwrap_or_default()
    }

    /// Notes that the model with this file was used.
    pub fn note(&mut self, path: &Path, at: Timestamp) {
        let known = self.models.entry(real(path)).or_insert(at);
        *known = at.max(*known);
    }

    /// Returns when the model with this file was last used.
    #[must_use]
    pub fn of(&self, path: &Path) -> Option<Timestamp> {
        self.models.get(&real(path)).copied()
    }

    /// Writes the file, in one step.
    ///
    /// # Errors
    ///
    /// The disk does not take it.
    pub fn save(mut self, file: &Path) -> io::Result<()> {
        self.forget_oldest();
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        // A path that is not UTF-8 cannot be written as JSON.
        self.models.retain(|path, _| path.to_str().is_some());
        let mut text = serde_json::to_string_pretty(&LastUsedFile { version: VERSION, models: self.models })?;
        text.push('\n');
        replace_unsynced(file, text.as_bytes(), BY_UMASK)
    }

    fn forget_oldest(&mut self) {
        let mut times: Vec<Timestamp> = self.models.values().copied().collect();
        times.sort_unstable_by(|one, other| other.cmp(one));
        if let Some(oldest) = times.get(MOST_REMEMBERED) {
            self.models.retain(|_, time| *time > *oldest);
        }
    }
}

/// Returns the path without links, so that a model is known by whatever name it was found.
fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: usize) -> Timestamp {
        Timestamp::from_second(seconds as i64).unwrap()
    }

    #[test]
    fn what_is_noted_is_there_after_a_restart_and_the_newest_time_counts() {
        let dir = tempfile::tempdir().unwrap();
        let (file, model) = (dir.path().join("new/last_used.json"), dir.path().join("m.gguf"));
        fs::write(&model, "x").unwrap();
        std::os::unix::fs::symlink(&model, dir.path().join("link.gguf")).unwrap();
        let mut used = LastUsed::load(&file);
        used.note(&model, at(5));
        used.note(&dir.path().join("link.gguf"), at(9));
        used.note(&model, at(7));
        used.save(&file).unwrap();
        let used = LastUsed::load(&file);
        assert_eq!((used.of(&model), used.of(Path::new("/other"))), (Some(at(9)), None));
        for broken in ["", "{", "{\"version\":2,\"models\":{}}", "{\"version\":1,\"models\":{\"/m\":5}}"] {
            fs::write(&file, broken).unwrap();
            assert_eq!(LastUsed::load(&file), LastUsed::default(), "{broken}");
        }
    }

    #[test]
    fn only_the_models_that_were_used_last_are_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f.json");
        let mut used = LastUsed::default();
        for number in 0..MOST_REMEMBERED + 5 {
            used.note(Path::new(&format!("/m/{number}")), at(number));
        }
        used.save(&file).unwrap();
        let used = LastUsed::load(&file);
        assert_eq!(used.models.len(), MOST_REMEMBERED);
        assert!(used.of(Path::new("/m/4")).is_none() && used.of(Path::new("/m/5")).is_some());
    }
}
