//! Reads configuration files, and merges those that `include:` names into the file that names them.
//!
//! Owns what a merge is: lists are appended, mappings are merged key by key, and any other value of an included file
//! replaces that of the including one. Source: LiteLLM's `proxy/common_utils/config_includes.py`, where whole mappings
//! are replaced.

use std::collections::VecDeque;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::fields::texts;
use super::node::YamlNode;
use crate::settings::bounds::{CONFIG_FILE_SIZE, MOST_INCLUDED_FILES};
use crate::settings::notes::FileNotes;

/// The key that names the files.
pub(super) const INCLUDE: &str = "include";
/// The list whose items are told apart by the file that they come from.
const MODEL_LIST: &str = "model_list";

/// A configuration file with all files that it includes.
pub(super) struct MergedFile {
    /// The top-level sections.
    pub(super) sections: Vec<(String, YamlNode)>,
    /// The locations of the items of `model_list`.
    pub(super) item_locations: Vec<String>,
    /// The paths of the included files.
    pub(super) included: Vec<PathBuf>,
}

/// A file that is still to be read.
struct PendingFile {
    /// As the configuration names it.
    name: String,
    path: PathBuf,
    /// The files through which it is included, from the first on.
    ancestors: Vec<PathBuf>,
}

/// Reads the files that these sections of `path` include, and merges them. Records problems in `notes`.
pub(super) fn merge_included(path: &Path, sections: Vec<(String, YamlNode)>, notes: &mut FileNotes) -> MergedFile {
    let root = identity(path);
    let mut merged = MergedFile { item_locations: item_locations(None, &sections), sections, included: Vec::new() };
    let mut pending: VecDeque<PendingFile> =
        take_names(&mut merged.sections, None, path, std::slice::from_ref(&root), notes);
    let mut loaded = vec![root];
    while let Some(PendingFile { name, path, ancestors }) = pending.pop_front() {
        let location = format!("include {name:?}");
        let own = identity(&path);
        if ancestors.contains(&own) {
            notes.problem(&location, "includes itself, directly or through another file", None);
            continue;
        }
        if loaded.contains(&own) {
            continue;
        }
        if merged.included.len() == MOST_INCLUDED_FILES {
            notes.problem(INCLUDE, format!("at most {MOST_INCLUDED_FILES} files are included"), None);
            break;
        }
        loaded.push(own.clone());
        merged.included.push(path.clone());
        // A device or a pipe might never end.
        let text = if path.is_file() { read_text(&path) } else { Err("there is no such file".to_owned()) };
        let mut sections = match text.and_then(|text| YamlNode::parse(&text)) {
            Ok(YamlNode::Map(sections)) => sections,
            Ok(YamlNode::Null) => continue,
            Ok(_) => {
                notes.problem(&location, "expected a mapping at the top level, such as model_list:", None);
                continue;
            }
            Err(fault) => {
                let hint = format!("it is looked for at {}", path.display());
                notes.problem(&location, format!("cannot be read: {fault}"), Some(hint));
                continue;
            }
        };
        let chain: Vec<PathBuf> = ancestors.iter().cloned().chain([own]).collect();
        pending.extend(take_names(&mut sections, Some(&name), &path, &chain, notes));
        merged.item_locations.extend(item_locations(Some(&name), &sections));
        for (key, node) in sections {
            merge(&mut merged.sections, key, node);
        }
    }
    merged
}

/// Removes `include` from the sections of the file `path`, and returns the files that it names, relative to that file.
fn take_names(
    sections: &mut Vec<(String, YamlNode)>,
    file: Option<&str>,
    path: &Path,
    ancestors: &[PathBuf],
    notes: &mut FileNotes,
) -> VecDeque<PendingFile> {
    let Some(at) = sections.iter().position(|(key, _)| key == INCLUDE) else { return VecDeque::new() };
    let (_, node) = sections.remove(at);
    let location = file.map_or_else(|| INCLUDE.to_owned(), |file| format!("{file}: {INCLUDE}"));
    let names = if node == YamlNode::Null { Vec::new() } else { texts(&location, &node, notes).unwrap_or_default() };
    let folder = path.parent().unwrap_or(Path::new(""));
    let file = |name: String| PendingFile { path: folder.join(&name), name, ancestors: ancestors.to_vec() };
    names.into_iter().map(file).collect()
}

/// Returns a path that is the same for all names of a file.
fn identity(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

fn item_locations(file: Option<&str>, sections: &[(String, YamlNode)]) -> Vec<String> {
    let items = sections.iter().find(|(key, _)| key == MODEL_LIST).map(|(_, node)| node);
    let count = if let Some(YamlNode::List(items)) = items { items.len() } else { 0 };
    let prefix = file.map_or_else(String::new, |file| format!("{file}: "));
    (0..count).map(|at| format!("{prefix}{MODEL_LIST}[{at}]")).collect()
}

fn merge(into: &mut Vec<(String, YamlNode)>, key: String, node: YamlNode) {
    match into.iter_mut().find(|(known, _)| *known == key) {
        None => into.push((key, node)),
        Some((_, known)) => match (known, node) {
            (YamlNode::List(items), YamlNode::List(more)) => items.extend(more),
            (YamlNode::Map(entries), YamlNode::Map(more)) => {
                for (key, node) in more {
                    match entries.iter_mut().find(|(known, _)| *known == key) {
                        Some((_, known)) => *known = node,
                        None => entries.push((key, node)),
                    }
                }
            }
            (known, node) => *known = node,
        },
    }
}

/// Returns the text of a configuration file.
///
/// # Errors
///
/// The file cannot be read, or is too large.
pub(crate) fn read_text(path: &Path) -> Result<String, String> {
    // The size is checked first, so that a path to a model file does not fill the memory.
    let metadata = path.metadata().map_err(|error| error.to_string())?;
    if metadata.is_dir() {
        return Err("it is a folder, not a file: name the file in it, such as llamagate.yaml".to_owned());
    }
    let size = metadata.len();
    if size > CONFIG_FILE_SIZE {
        return Err(format!("{size} bytes are more than the limit of a configuration file ({CONFIG_FILE_SIZE})"));
    }
    // A device or a pipe tells no size.
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let mut text = String::new();
    file.take(CONFIG_FILE_SIZE + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > CONFIG_FILE_SIZE {
        return Err(format!("it has more bytes than the limit of a configuration file ({CONFIG_FILE_SIZE})"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(folder: &Path, files: &[(&str, &str)]) -> (MergedFile, Vec<String>) {
        for (name, text) in files {
            let path = folder.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let path = folder.join(files[0].0);
        let YamlNode::Map(sections) = YamlNode::parse(files[0].1).unwrap() else { panic!() };
        let mut notes = FileNotes { subject: "main".to_owned(), ..FileNotes::default() };
        let merged = merge_included(&path, sections, &mut notes);
        (merged, notes.problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn lists_are_appended_mappings_merged_and_other_values_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (merged, problems) = merged(
            folder.path(),
            &[
                ("main.yaml", "include: [sub/b.yaml, c.yaml]\nmodel_list: [1]\nrouter_settings: {x: 1, y: 1}\nz: 1\n"),
                ("sub/b.yaml", "include: d.yaml\nmodel_list: [2, 3]\nrouter_settings: {y: 2}\nz: 2\n"),
                ("sub/d.yaml", "model_list: [4]\n"),
                ("c.yaml", "include: [sub/d.yaml]\nmodels: {a: 1}\n"),
            ],
        );
        assert_eq!(problems, Vec::<String>::new());
        let json = YamlNode::Map(merged.sections).json();
        assert_eq!(
            json,
            serde_json::json!({
                "model_list": [1, 2, 3, 4], "router_settings": {"x": 1, "y": 2}, "z": 2, "models": {"a": 1}
            })
        );
        assert_eq!(
            merged.item_locations,
            ["model_list[0]", "sub/b.yaml: model_list[0]", "sub/b.yaml: model_list[1]", "d.yaml: model_list[0]"]
        );
        assert_eq!(merged.included.len(), 3);
    }

    #[test]
    fn files_that_are_missing_or_broken_or_include_each_other_are_problems() {
        let folder = tempfile::tempdir().unwrap();
        for (files, part) in [
            (&[("m", "include: [none.yaml]\n")][..], "include \"none.yaml\": cannot be read"),
            (&[("m", "include: [m]\n")], "include \"m\": includes itself"),
            (&[("m", "include: [a]\n"), ("a", "include: [./b]\n"), ("b", "include: ['../m', a]\n")], "includes itself"),
            (&[("m", "include: {a: 1}\n")], "include: expected a list of strings"),
            (&[("m", "include: [a]\n"), ("a", "- 1\n")], "include \"a\": expected a mapping"),
            (&[("m", "include: [a]\n"), ("a", "x: [\n")], "include \"a\": cannot be read"),
            (&[("m", "include: ['.']\n")], "include \".\": cannot be read"),
            (&[("m", "include: [/dev/zero]\n")], "include \"/dev/zero\": cannot be read"),
        ] {
            let (_, problems) = merged(folder.path(), files);
            assert!(!problems.is_empty() && problems.iter().any(|problem| problem.contains(part)), "{problems:?}");
        }
    }
}
