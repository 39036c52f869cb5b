//! Which process of this machine has a file open, mapped, or as the model of its command line.
//!
//! Sees the processes of this user (as root: all) in this container. A model that is asleep has no process.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::error::RemovalError;
use crate::file_identity::FileIdentity;
use crate::os::here;

/// Arguments of llama-server, of this and older versions, after which a file is named. It may have read and closed that
/// file.
const FILE_FLAGS: [&str; 10] = [
    "-m",
    "--model",
    "-mm",
    "--mmproj",
    "-md",
    "--model-draft",
    "--spec-draft-model",
    "-mv",
    "--model-vocoder",
    "--chat-template-file",
];
/// Arguments after which files are listed with commas between them, each with or without `:SCALE`.
const LIST_FLAGS: [&str; 4] = ["--lora", "--lora-scaled", "--control-vector", "--control-vector-scaled"];

/// Checks that no other process uses one of these files.
///
/// # Errors
/// [`RemovalError::InUse`] if one does.
pub(super) fn check_unused<'a>(files: impl Iterator<Item = &'a Path>) -> Result<(), RemovalError> {
    let wanted = WantedFiles::of(files);
    let own = std::process::id().cast_signed();
    let pids = here::stats().into_iter().flatten().map(|(pid, _)| pid).filter(|pid| *pid != own);
    for pid in pids {
        let used = wanted
            .named_by(pid)
            .or_else(|| here::opened_among(pid, &wanted.identities))
            .or_else(|| here::mapped_among(pid, &wanted.paths));
        if let Some(path) = used {
            let (program, pid) = (here::program_name(pid), pid.unsigned_abs());
            return Err(RemovalError::InUse { path, program, pid });
        }
    }
    Ok(())
}

/// Files that are looked for.
struct WantedFiles {
    /// Their names, and those of the files that links point to.
    paths: BTreeSet<PathBuf>,
    identities: BTreeSet<FileIdentity>,
}

impl WantedFiles {
    fn of<'a>(files: impl Iterator<Item = &'a Path>) -> Self {
        let named: Vec<PathBuf> = files.map(Path::to_owned).collect();
        let found = named.iter().filter_map(|path| fs::metadata(path).ok());
        let identities = found.map(|found| FileIdentity::of(&found)).collect();
        let targets: Vec<PathBuf> = named.iter().filter_map(|path| fs::canonicalize(path).ok()).collect();
        Self { paths: named.into_iter().chain(targets).collect(), identities }
    }

    /// Returns the one that the command line of a process names.
    fn named_by(&self, pid: i32) -> Option<PathBuf> {
        let words = here::command_line(pid).ok()?;
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        // A relative path is one below the folder of that process.
        let folder = here::working_directory(pid).unwrap_or_default();
        named_files(&words).into_iter().find_map(|path| {
            let path = folder.join(path);
            let place = fs::canonicalize(path.parent()?).ok()?.join(path.file_name()?);
            let target = fs::canonicalize(&place).ok();
            [Some(place), target].into_iter().flatten().find(|path| self.paths.contains(path))
        })
    }
}

/// Returns the files that a command line names.
fn named_files(words: &[&[u8]]) -> Vec<PathBuf> {
    let path = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
    let mut files = Vec::new();
    for two in words.windows(2) {
        let Ok(flag) = str::from_utf8(two[0]) else { continue };
        // As llama-server reads it.
        let flag = if flag.starts_with("--") { flag.replace('_', "-") } else { flag.to_owned() };
        if FILE_FLAGS.contains(&flag.as_str()) {
            files.push(path(two[1]));
        } else if LIST_FLAGS.contains(&flag.as_str()) {
            // Older versions take the whole as one path.
            files.push(path(two[1]));
            for item in list_items(two[1]) {
                files.extend(without_scale(&item).map(path));
                files.push(path(&item));
            }
        }
    }
    files
}

/// Splits a list at its commas, except those between double quotes.
fn list_items(list: &[u8]) -> Vec<Vec<u8>> {
    let (mut items, mut is_quoted) = (vec![Vec::new()], false);
    for byte in list {
        match (byte, items.last_mut()) {
            (b'"', _) => is_quoted = !is_quoted,
            (b',', _) if !is_quoted => items.push(Vec::new()),
            (byte, Some(item)) => item.push(*byte),
            (_, None) => {}
        }
    }
    items
}

/// Returns the path of `PATH:SCALE`; `None` if there is no scale.
fn without_scale(item: &[u8]) -> Option<&[u8]> {
    let at = item.iter().rposition(|byte| *byte == b':')?;
    let scale: Result<f32, _> = str::from_utf8(item.get(at + 1..)?).ok()?.parse();
    scale.ok().and(item.get(..at))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An adapter was removed that a llama-server had been started with.
    #[test]
    fn every_way_to_name_a_file_is_known() {
        let named = |line: &str| {
            let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            named_files(&words).into_iter().map(|path| path.display().to_string()).collect::<BTreeSet<_>>()
        };
        for (line, expected) in [
            ("llama-server -m /m.gguf -c 5 --mmproj p.gguf", &["/m.gguf", "p.gguf"][..]),
            ("x --model-draft a -md b --spec-draft-model c --spec_draft_model d", &["a", "b", "c", "d"]),
            ("x --chat-template-file t.jinja --chat-template chatml --alias a.gguf", &["t.jinja"]),
            ("x --lora a.gguf --lora b.gguf", &["a.gguf", "b.gguf"]),
            ("x --lora-scaled a.gguf 0.5", &["a.gguf"]),
            ("x -m", &[]),
        ] {
            assert_eq!(named(line).into_iter().collect::<Vec<_>>(), expected, "{line}");
        }
        for list in ["/a.gguf:1,/b.gguf:0", "/a.gguf,/b.gguf", "\"/a.gguf\":0.5,\"/b.gguf\":-1"] {
            for flag in ["--lora", "--lora-scaled", "--lora_scaled"] {
                let found = named(&format!("x {flag} {list}"));
                assert!(found.contains("/a.gguf") && found.contains("/b.gguf"), "{flag} {list}: {found:?}");
            }
        }
        assert!(named("x --lora-scaled \"/a,b:c.gguf\":1").contains("/a,b:c.gguf"));
    }

    #[test]
    fn a_process_that_names_no_file_uses_none() {
        let wanted = WantedFiles::of([Path::new("/no-such.gguf")].into_iter());
        assert_eq!(wanted.named_by(std::process::id().cast_signed()), None);
        assert_eq!(wanted.named_by(-1), None);
    }
}
