//! Which files of a folder are read as one log: those of the same kind and instance as the newest.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use super::folder::{LATEST, LogFolder, MAX_LATEST};
use super::names;

impl LogFolder {
    /// Returns whether files are written at all: `LOG_TO_FILE`.
    #[must_use]
    pub fn is_written(&self) -> bool {
        self.rules.is_written
    }

    /// Returns the newest file; `None` if there is none. Blocks on the disk, as the other functions here do.
    #[must_use]
    pub fn newest(&self) -> Option<PathBuf> {
        self.newest_name().map(|name| self.dir().join(name))
    }

    /// Returns the names of the files of the log, the newest first.
    #[must_use]
    pub fn recent(&self) -> Vec<String> {
        let Some(newest) = self.newest_name() else { return Vec::new() };
        let mut recent = self.names();
        recent.retain(|name| names::is_same_log(name, &newest) && !names::is_begun_after(name, &newest));
        recent.sort_unstable_by(|one, other| names::part_order(other).cmp(&names::part_order(one)));
        recent
    }

    /// Returns the name of the file that follows this one, or of the newest file if none is named; `None` if there is no
    /// such file.
    #[must_use]
    pub fn file_after(&self, name: Option<&str>) -> Option<String> {
        let newest = self.newest_name()?;
        let Some(name) = name else { return Some(newest) };
        if newest == name {
            return None;
        }
        let mut later = self.recent();
        later.retain(|later| names::is_begun_after(later, name));
        later.pop()
    }

    fn newest_name(&self) -> Option<String> {
        let mut named = String::new();
        File::open(self.dir().join(LATEST)).ok()?.take(MAX_LATEST).read_to_string(&mut named).ok()?;
        let named = named.trim();
        let is_there = || self.dir().join(named).symlink_metadata().is_ok_and(|found| found.is_file());
        (names::is_plain(named) && is_there()).then(|| named.to_owned())
    }
}
