//! Multimodal projectors (mmproj): which file beside a model is its projector, and which input it adds.
//!
//! A projector is told by its header, not by its name. Which model it belongs to is told by names: its name without
//! words such as `mmproj` and `f16` begins like the model's. A folder with one model and one projector needs no names. Of
//! projectors that differ in precision alone one is preferred (`names.rs`). In a snapshot of Hugging Face's cache the
//! names of all files decide, as they did at the download (`choice.rs`).

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Serialize;

use super::choice::{has_projector_name, naming_words, projector_of};
use super::names::{has_draft_name, lower_name, split_precision};
use crate::models::check::content_other_than_model;
use crate::models::error::{FileProblem, ModelError};
use crate::models::folder_walk::walk;
use crate::models::gguf::{self, Metadata};
use crate::models::split::{SplitPart, is_gguf};

/// Most entries of a folder that are looked at in search of a model's projector.
const MAX_ENTRIES: usize = 4096;
/// The folder of a repository in which each of its revisions has one.
const SNAPSHOTS: &str = "snapshots";

/// What a model can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum InputModality {
    /// Text, which every model reads.
    Text,
    /// Images, with a projector that has a vision encoder.
    Image,
    /// Sound, with a projector that has an audio encoder.
    Audio,
}

/// A multimodal projector.
#[derive(Debug, Clone, PartialEq)]
pub struct Projector {
    /// The file.
    pub path: PathBuf,
    /// Its modification time, which tells a reload whether the file has been replaced.
    pub modified: Option<SystemTime>,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// The input that it adds to text.
    pub modalities: Vec<InputModality>,
}

/// A projector in the folder of a model.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::models) struct ProjectorCandidate {
    projector: Projector,
    /// The widths of the models that it fits; empty if the file does not say.
    widths: Vec<u64>,
}

impl ProjectorCandidate {
    /// Describes the projector at `path`, whose header has been read.
    pub(in crate::models) fn new(path: &Path, metadata: &Metadata) -> Self {
        let file = std::fs::metadata(path).ok();
        let image = (metadata.has_vision_encoder || !metadata.has_audio_encoder).then_some(InputModality::Image);
        let audio = metadata.has_audio_encoder.then_some(InputModality::Audio);
        // Files of converters before `general.type` have another width under this key.
        let is_tagged = metadata.general_type.is_some();
        Self {
            projector: Projector {
                path: path.to_owned(),
                modified: file.as_ref().and_then(|file| file.modified().ok()),
                size_bytes: file.map_or(0, |file| file.len()),
                modalities: image.into_iter().chain(audio).collect(),
            },
            widths: if is_tagged { metadata.projection_dims.clone() } else { Vec::new() },
        }
    }

    /// Returns the projector.
    pub(in crate::models) fn projector(&self) -> &Projector {
        &self.projector
    }

    /// Whether nothing in the headers speaks against this projector for a model of this width.
    fn may_fit(&self, width: Option<u64>) -> bool {
        self.widths.is_empty() || width.is_none_or(|width| self.widths.contains(&width))
    }

    /// Returns how many words the names of projector and model share, if one of the names begins with all words of the
    /// other. `None` if they do not, or if the projector's name names no model.
    fn common_words(&self, model: &Path) -> Option<usize> {
        let (own, model) = (naming_words(&self.projector.path), naming_words(model));
        let common = own.iter().zip(&model).take_while(|(one, other)| one == other).count();
        (common > 0 && common == own.len().min(model.len())).then_some(common)
    }
}

/// A file that is a projector by its name or its header, and cannot be used as one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct BrokenProjector {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it; follows its name.
    pub fault: String,
    /// What to do about it.
    pub hint: &'static str,
}

impl BrokenProjector {
    fn new(path: &Path, problem: &FileProblem) -> Self {
        Self { path: path.to_owned(), fault: problem.to_string(), hint: problem.hint() }
    }
}

/// The models and projectors that lie side by side in one folder.
#[derive(Debug, Clone, Default)]
pub(in crate::models) struct ProjectorFolder {
    /// What the names of the models call them: quantisations of one model count once.
    models: BTreeSet<Vec<String>>,
    /// The projectors, sorted by path.
    pub(in crate::models) candidates: Vec<ProjectorCandidate>,
    /// Those that cannot be used, sorted by path.
    pub(in crate::models) broken: Vec<BrokenProjector>,
}

impl ProjectorFolder {
    /// Reads what the GGUF files in `dir` are. Files that cannot be read count as no model.
    fn read(dir: &Path) -> Self {
        let entries = std::fs::read_dir(dir).into_iter().flatten().take(MAX_ENTRIES).flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| is_gguf(path)).collect();
        paths.sort();
        let (mut folder, mut sets) = (Self::default(), HashSet::new());
        for path in paths {
            if SplitPart::of_path(&path).is_some_and(|part| !sets.insert((part.prefix, part.count))) {
                continue;
            }
            folder.add(&path);
        }
        folder
    }

    /// Reads what the file at `path` is, and adds it.
    fn add(&mut self, path: &Path) {
        let content = gguf::peek(path).ok();
        let types = content.as_ref().map(|content| (content.architecture.as_str(), content.general_type.as_deref()));
        let is_model = |(architecture, general_type)| content_other_than_model(architecture, general_type).is_none();
        if types.is_some_and(is_model) && !has_draft_name(path) {
            self.add_model(path);
        }
        if has_projector_name(path) || types.is_some_and(|(architecture, of)| is_projector_type(architecture, of)) {
            match read_candidate(path) {
                Ok(candidate) => self.candidates.push(candidate),
                Err(problem) => self.broken.push(BrokenProjector::new(path, &problem)),
            }
        }
    }

    /// Adds the model at `path`.
    pub(in crate::models) fn add_model(&mut self, path: &Path) {
        self.models.insert(naming_words(path));
    }

    /// Chooses the projector of the model at `model`, whose vectors are `width` wide.
    pub(in crate::models) fn search(&self, model: &Path, width: Option<u64>) -> ProjectorSearch {
        let fitting: Vec<&ProjectorCandidate> =
            self.candidates.iter().filter(|candidate| candidate.may_fit(width)).collect();
        let named = || fitting.iter().filter_map(|candidate| Some((candidate.common_words(model)?, *candidate)));
        let best = named().map(|(common, _)| common).max();
        let mut chosen: Vec<&ProjectorCandidate> =
            named().filter(|(common, _)| Some(*common) == best).map(|(_, candidate)| candidate).collect();
        if chosen.is_empty() && self.models.len() == 1 {
            chosen.clone_from(&fitting);
        }
        let passed_over = prefer_precision(&mut chosen);
        let path = |candidate: &&ProjectorCandidate| candidate.projector.path.clone();
        let is_unused = |candidate: &&ProjectorCandidate| !chosen.iter().any(|other| std::ptr::eq(*other, *candidate));
        ProjectorSearch {
            broken: self.broken.iter().filter(|broken| broken.path != model).cloned().collect(),
            unused: self
                .candidates
                .iter()
                .filter(is_unused)
                .map(|candidate| path(&candidate))
                .filter(|path| !passed_over.contains(path))
                .collect(),
            passed_over,
            tied: if chosen.len() > 1 { chosen.iter().map(path).collect() } else { Vec::new() },
            found: match chosen.as_slice() {
                [one] => Some(one.projector.clone()),
                _ => None,
            },
        }
    }
}

/// If these projectors differ in precision alone, leaves the one with the preferred precision. Returns the paths of the
/// others.
fn prefer_precision(chosen: &mut Vec<&ProjectorCandidate>) -> Vec<PathBuf> {
    let names: Vec<String> = chosen.iter().map(|candidate| lower_name(&candidate.projector.path)).collect();
    let Some(split) = names.iter().map(|name| split_precision(name)).collect::<Option<Vec<_>>>() else {
        return Vec::new();
    };
    let reads_the_same = chosen.windows(2).all(|two| two[0].projector.modalities == two[1].projector.modalities);
    if !reads_the_same || split.windows(2).any(|two| two[0].words != two[1].words) {
        return Vec::new();
    }
    let Some(best) = split.iter().map(|name| name.rank).min() else { return Vec::new() };
    if split.iter().filter(|name| name.rank == best).count() != 1 {
        return Vec::new();
    }
    let of_rank = |is_best: bool| {
        let ranked = chosen.iter().zip(&split).filter(move |(_, name)| (name.rank == best) == is_best);
        ranked.map(|(candidate, _)| *candidate).collect::<Vec<_>>()
    };
    let (preferred, others) = (of_rank(true), of_rank(false));
    *chosen = preferred;
    others.iter().map(|candidate| candidate.projector.path.clone()).collect()
}

/// The result of the search for a model's projector.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ProjectorSearch {
    /// The projector.
    pub found: Option<Projector>,
    /// Projectors that differ from it in precision alone.
    pub passed_over: Vec<PathBuf>,
    /// Projectors that suit the model equally well, so that none is used.
    pub tied: Vec<PathBuf>,
    /// Other projectors in its folder.
    pub unused: Vec<PathBuf>,
    /// Files in its folder that would be projectors, and cannot be used.
    pub broken: Vec<BrokenProjector>,
}

impl ProjectorSearch {
    /// Returns the result where it is known that these projectors belong to the model: one is used, of several none.
    pub(in crate::models) fn of_one_model(mut good: Vec<Projector>, broken: Vec<BrokenProjector>) -> Self {
        let (found, tied) = match good.len() {
            1 => (good.pop(), Vec::new()),
            _ => (None, good.into_iter().map(|projector| projector.path).collect()),
        };
        Self { found, tied, broken, ..Self::default() }
    }
}

/// Searches the folder of the model at `model` for its projector; in Hugging Face's cache, the whole snapshot.
#[must_use]
pub fn find_projector(model: &Path, metadata: &Metadata) -> ProjectorSearch {
    if let Some(snapshot) = snapshot_of(model) {
        let files = walk(snapshot).map(|below| below.models).unwrap_or_default();
        return search_snapshot(model, snapshot, files, metadata.embedding_length, &read_candidate);
    }
    let dir = model.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    ProjectorFolder::read(dir).search(model, metadata.embedding_length)
}

/// Returns whether the headers let the projector belong to the model at `model`. What cannot be read speaks against nothing.
pub(in crate::models) fn may_belong(projector: &Path, model: &Path) -> bool {
    let width = gguf::read(model).ok().and_then(|metadata| metadata.embedding_length);
    read_candidate(projector).map_or(true, |candidate| candidate.may_fit(width))
}

/// Returns the folder of the snapshot of Hugging Face's cache in which this file lies, if it lies in one.
pub(in crate::models) fn snapshot_of(file: &Path) -> Option<&Path> {
    file.ancestors().skip(1).find(|folder| {
        let Some(snapshots) = folder.parent().filter(|parent| parent.ends_with(SNAPSHOTS)) else { return false };
        let repository = snapshots.parent().and_then(Path::file_name).unwrap_or_default();
        repository.as_encoded_bytes().starts_with(b"models--")
    })
}

/// Searches the `files` of a snapshot, whose paths are relative to it, for the projector of the model at `model`: the one
/// that a download of the model brings, unless it cannot be used. `read` reads one.
pub(in crate::models) fn search_snapshot(
    model: &Path,
    snapshot: &Path,
    mut files: Vec<PathBuf>,
    width: Option<u64>,
    read: &dyn Fn(&Path) -> Result<ProjectorCandidate, FileProblem>,
) -> ProjectorSearch {
    let mut search = ProjectorSearch::default();
    let Ok(own) = model.strip_prefix(snapshot) else { return search };
    while let Some(chosen) = projector_of(own, &files) {
        let path = snapshot.join(&chosen);
        match read(&path) {
            Ok(candidate) if candidate.may_fit(width) => {
                search.passed_over = same_but_precision(&chosen, &files).map(|other| snapshot.join(other)).collect();
                search.found = Some(candidate.projector);
                return search;
            }
            Ok(_) => {}
            Err(problem) => search.broken.push(BrokenProjector::new(&path, &problem)),
        }
        files.retain(|file| *file != chosen);
    }
    search
}

/// Returns the files beside `chosen` that differ from it in the precision of their names alone.
fn same_but_precision<'a>(chosen: &'a Path, files: &'a [PathBuf]) -> impl Iterator<Item = &'a PathBuf> {
    let others = files.iter().filter(move |file| *file != chosen && file.parent() == chosen.parent());
    others.filter(|file| {
        let (one, other) = (lower_name(chosen), lower_name(file));
        let (one, other) = (split_precision(&one), split_precision(&other));
        one.zip(other).is_some_and(|(one, other)| one.words == other.words)
    })
}

/// Reads the projector at `path`.
///
/// # Errors
///
/// [`ModelError::File`] if it cannot be read or is no projector.
pub fn read_projector(path: &Path) -> Result<Projector, ModelError> {
    let refused = |problem| ModelError::File { path: path.to_owned(), problem: Box::new(problem) };
    read_candidate(path).map(|candidate| candidate.projector).map_err(refused)
}

fn read_candidate(path: &Path) -> Result<ProjectorCandidate, FileProblem> {
    let metadata = gguf::read(path).map_err(FileProblem::Gguf)?;
    match is_projector(&metadata) {
        true => Ok(ProjectorCandidate::new(path, &metadata)),
        false => Err(FileProblem::NoProjector),
    }
}

/// Whether the file is a multimodal projector.
pub(in crate::models) fn is_projector(metadata: &Metadata) -> bool {
    is_projector_type(&metadata.architecture, metadata.general_type.as_deref())
}

/// Whether a file of this architecture and `general.type` is a multimodal projector. Files made before `general.type`
/// existed only have the architecture.
fn is_projector_type(architecture: &str, general_type: Option<&str>) -> bool {
    match general_type {
        None => architecture == "clip",
        Some(general_type) => general_type == "mmproj" || general_type == "model" && architecture == "clip",
    }
}

#[cfg(test)]
#[path = "projector_tests.rs"]
mod tests;
