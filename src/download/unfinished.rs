//! Downloads that are not complete: what is there of which model.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::disk::part_file::arrived_of;

/// Ending of the files that downloads grow in, here and in other programs.
const PART_ENDING: &str = ".incomplete";
/// Most entries of folders that are looked at.
const MOST_ENTRIES: usize = 20_000;

/// A download that is not complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnfinishedDownload {
    /// The repository, `ORG/NAME`, or the hash by which a file at an address is known.
    pub model: String,
    /// The file that it grows in.
    pub path: PathBuf,
    /// Bytes that have arrived, or, of another program's, the length of the file.
    pub arrived: u64,
    /// Size of the whole file in bytes, if it is known.
    pub total: Option<u64>,
}

/// Finds the downloads into the hub's cache that are not complete. What cannot be read is passed over.
#[must_use]
pub fn unfinished_of_hub(cache: &Path) -> Vec<UnfinishedDownload> {
    let repository = |name: &str| Some(name.strip_prefix("models--")?.replacen("--", "/", 1));
    unfinished_below(cache, "blobs", repository)
}

/// Finds the downloads of files at addresses, below `MODELS_DIR`, that are not complete.
#[must_use]
pub fn unfinished_of_addresses(models_dir: &Path) -> Vec<UnfinishedDownload> {
    unfinished_below(&models_dir.join("downloads"), "", |hash| Some(hash.to_owned()))
}

fn unfinished_below(top: &Path, below: &str, model_of: impl Fn(&str) -> Option<String>) -> Vec<UnfinishedDownload> {
    let mut found = Vec::new();
    let mut left = MOST_ENTRIES;
    for folder in entries(top, &mut left) {
        let Some(model) = folder.file_name().and_then(|name| model_of(name.to_str()?)) else { continue };
        for path in entries(&folder.join(below), &mut left) {
            if !path.as_os_str().as_encoded_bytes().ends_with(PART_ENDING.as_bytes()) {
                continue;
            }
            if let Ok((arrived, total)) = arrived_of(&path) {
                found.push(UnfinishedDownload { model: model.clone(), path, arrived, total });
            }
        }
    }
    found
}

/// Returns the paths of the entries of a folder, sorted, and at most as many as are left.
fn entries(folder: &Path, left: &mut usize) -> Vec<PathBuf> {
    let listing: io::Result<fs::ReadDir> = fs::read_dir(folder);
    let mut paths: Vec<PathBuf> =
        listing.into_iter().flatten().take(*left).flatten().map(|entry| entry.path()).collect();
    *left -= paths.len();
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_of_a_download_is_known_without_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = dir.path().join("models--org--name/blobs");
        fs::create_dir_all(&blobs).unwrap();
        fs::write(blobs.join("a-whole-one"), "x").unwrap();
        fs::write(blobs.join("foreign.incomplete"), "12345").unwrap();
        fs::create_dir_all(dir.path().join("downloads/aa")).unwrap();
        fs::write(dir.path().join("downloads/aa/.m.gguf.incomplete"), "123").unwrap();
        let found = unfinished_of_hub(dir.path());
        let path = blobs.join("foreign.incomplete");
        assert_eq!(found, [UnfinishedDownload { model: "org/name".into(), path, arrived: 5, total: None }]);
        let found = unfinished_of_addresses(dir.path());
        assert_eq!((found.len(), found[0].model.as_str(), found[0].arrived), (1, "aa", 3));
        assert!(unfinished_of_hub(&dir.path().join("none")).is_empty());
    }
}
