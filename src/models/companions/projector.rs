//! Multimodal projectors (mmproj): which file beside a model is its projector, and which input it adds.
//!
//! A projector is told by its header, not by its name. Which model it belongs to is told by names: its name without
//! words such as `mmproj` and `f16` begins like the model's. A folder with one model and one projector needs no names. Of
//! projectors that differ in precision alone one is preferred (`companion.rs`).

use std::cmp::Reverse;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Serialize;

use super::names::{begins_precision, has_draft_name, lower_name, split_precision, words};
use crate::models::check::content_other_than_model;
use crate::models::error::{FileProblem, ModelError};
use crate::models::gguf::{self, Metadata};
use crate::models::split::{SplitPart, is_gguf};

/// Most entries of a folder that are looked at in search of a model's projector.
const MAX_ENTRIES: usize = 4096;
/// Words of a projector's name that name no model.
const GENERIC_WORDS: [&str; 9] = ["mmproj", "model", "vision", "audio", "clip", "encoder", "projector", "gguf", "ggml"];

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

/// Whether `mmproj` is a word of the file's name.
pub(in crate::models) fn has_projector_name(path: &Path) -> bool {
    words(&lower_name(path)).any(|word| word == GENERIC_WORDS[0])
}

/// Returns the words of a file name that name a model.
fn naming_words(path: &Path) -> Vec<String> {
    let name = lower_name(path);
    // What follows the precision does not name the model either.
    let names = words(&name).take_while(|word| !begins_precision(word));
    names.filter(|word| !GENERIC_WORDS.contains(word)).map(str::to_owned).collect()
}

/// The models and projectors that lie side by side in one folder.
#[derive(Debug, Clone, Default)]
pub(in crate::models) struct ProjectorFolder {
    /// Number of models; a split model counts once.
    pub(in crate::models) models: usize,
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
        self.models += usize::from(types.is_some_and(is_model) && !has_draft_name(path));
        if has_projector_name(path) || types.is_some_and(|(architecture, of)| is_projector_type(architecture, of)) {
            match read_candidate(path) {
                Ok(candidate) => self.candidates.push(candidate),
                Err(problem) => {
                    let (fault, hint) = (problem.to_string(), problem.hint());
                    self.broken.push(BrokenProjector { path: path.to_owned(), fault, hint });
                }
            }
        }
    }

    /// Chooses the projector of the model at `model`, whose vectors are `width` wide.
    pub(in crate::models) fn search(&self, model: &Path, width: Option<u64>) -> ProjectorSearch {
        let fitting: Vec<&ProjectorCandidate> =
            self.candidates.iter().filter(|candidate| candidate.may_fit(width)).collect();
        let named = || fitting.iter().filter_map(|candidate| Some((candidate.common_words(model)?, *candidate)));
        let best = named().map(|(common, _)| common).max();
        let mut chosen: Vec<&ProjectorCandidate> =
            named().filter(|(common, _)| Some(*common) == best).map(|(_, candidate)| candidate).collect();
        if chosen.is_empty() && self.models == 1 {
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

/// Returns the projector that a repository has for its model at `model`, by the names of its `files` alone: the one whose
/// name is most like the model's, in the preferred precision.
#[must_use]
pub fn projector_of(model: &Path, files: &[PathBuf]) -> Option<PathBuf> {
    let is_projector = |path: &&PathBuf| is_gguf(path) && has_projector_name(path);
    let beside = |folder: Option<&Path>| {
        let in_folder = |path: &&PathBuf| path.parent() == folder;
        files.iter().filter(is_projector).filter(in_folder).collect::<Vec<_>>()
    };
    let mut found = beside(model.parent());
    if found.is_empty() {
        found = beside(Some(Path::new("")));
    }
    let of_model = naming_words(model);
    let common = |path: &Path| naming_words(path).iter().zip(&of_model).take_while(|(one, other)| one == other).count();
    let rank = |path: &Path| split_precision(&lower_name(path)).map_or(usize::MAX, |name| name.rank);
    found.into_iter().min_by_key(|path| (Reverse(common(path)), rank(path), (*path).clone())).cloned()
}

/// Searches the folder of the model at `model` for its projector.
#[must_use]
pub fn find_projector(model: &Path, metadata: &Metadata) -> ProjectorSearch {
    let dir = model.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    ProjectorFolder::read(dir).search(model, metadata.embedding_length)
}

/// Returns whether the headers let the projector belong to the model at `model`. What cannot be read speaks against nothing.
pub(in crate::models) fn may_belong(projector: &Path, model: &Path) -> bool {
    let width = gguf::read(model).ok().and_then(|metadata| metadata.embedding_length);
    read_candidate(projector).map_or(true, |candidate| candidate.may_fit(width))
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
mod tests {
    use super::*;
    use crate::models::sample::GgufSample;

    fn projector() -> GgufSample {
        GgufSample::of("clip").text("general.type", "mmproj").flag("clip.has_vision_encoder", true)
    }

    fn model(width: u32) -> GgufSample {
        GgufSample::chat().uint("llama.embedding_length", width)
    }

    /// Returns the name of the projector that is found for each model, or the names of those that tie.
    fn search(models: &[(&str, u32)], projectors: &[(&str, Option<u32>)]) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        for (name, width) in models {
            model(*width).write(dir.path(), name);
        }
        for (name, width) in projectors {
            let sample = width.map_or_else(projector, |width| projector().uint("clip.vision.projection_dim", width));
            sample.write(dir.path(), name);
        }
        let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
        let outcome = |(model, _): &(&str, u32)| {
            let path = dir.path().join(model);
            let search = find_projector(&path, &gguf::read(&path).unwrap());
            assert!(search.found.is_none() || search.tied.is_empty());
            let unclear = search.tied.iter().map(|path| name(path)).collect::<Vec<_>>().join(" or ");
            search.found.map_or(unclear, |found| name(&found.path))
        };
        models.iter().map(outcome).collect()
    }

    #[test]
    fn one_projector_beside_one_model_is_its_projector_whatever_the_names() {
        for name in ["mmproj-F16.gguf", "mmproj.gguf", "vision.gguf", "other-mmproj.gguf", "x.mmproj.gguf"] {
            assert_eq!(search(&[("gemma-3-4b-it-Q4_K_M.gguf", 64)], &[(name, Some(64))]), [name]);
            assert_eq!(search(&[("gemma-3-4b-it-Q4_K_M.gguf", 64)], &[(name, None)]), [name]);
        }
        assert_eq!(search(&[("gemma-3-4b.gguf", 64)], &[]), [""]);
        assert_eq!(search(&[("gemma-3-4b.gguf", 64)], &[("mmproj.gguf", Some(128))]), [""], "it does not fit");
    }

    #[test]
    fn among_several_the_longest_common_name_decides() {
        let models =
            [("gemma-3-4b-it-Q4_K_M.gguf", 64), ("gemma-3-4b-it-UD-Q8_0.gguf", 64), ("Gemma-3-12b-it.gguf", 96)];
        let (small, large) = ("mmproj-gemma-3-4b-it-f16.gguf", "gemma-3-12b-it-mmproj-BF16.gguf");
        assert_eq!(search(&models, &[(small, None), (large, None)]), [small, small, large]);
        assert_eq!(search(&models, &[(small, Some(64))]), [small, small, ""], "the prefix is not a whole name");
        let llava = [("llava-v1.6-mistral-7b.Q4_K_M.gguf", 64), ("qwen3-8b.gguf", 64)];
        assert_eq!(
            search(&llava, &[("llava-v1.6-mistral-7b.mmproj-q8_0.gguf", None)]).concat(),
            "llava-v1.6-mistral-7b.mmproj-q8_0.gguf"
        );
        let minicpm = [("MiniCPM-V-2_6-Q4_K_M.gguf", 64), ("MiniCPM-V-4-Q4_K_M.gguf", 64)];
        assert_eq!(search(&minicpm, &[("mmproj-MiniCPM-V-2_6-f16.gguf", None)]), ["mmproj-MiniCPM-V-2_6-f16.gguf", ""]);
    }

    #[test]
    fn several_equally_good_ones_and_names_without_a_model_choose_none() {
        for (two, both) in [
            (["mmproj-F16.gguf", "mmproj.gguf"], "mmproj-F16.gguf or mmproj.gguf"),
            (["mmproj-F16.gguf", "vision-BF16.gguf"], "mmproj-F16.gguf or vision-BF16.gguf"),
            (["mmproj-F16.gguf", "mmproj-fp16.gguf"], "mmproj-F16.gguf or mmproj-fp16.gguf"),
            (["mmproj-Q4_K_M.gguf", "mmproj-Q4_0.gguf"], "mmproj-Q4_0.gguf or mmproj-Q4_K_M.gguf"),
        ] {
            assert_eq!(search(&[("gemma-3-4b.gguf", 64)], &two.map(|name| (name, None))), [both]);
        }
        assert_eq!(search(&[("a.gguf", 64), ("b.gguf", 64)], &[("mmproj-F16.gguf", None)]), ["", ""]);
    }

    /// Regression: a model beside the projectors of a whole repository was served without vision.
    #[test]
    fn of_projectors_that_differ_in_precision_alone_one_is_preferred() {
        let all = ["mmproj-Q8_0.gguf", "mmproj-F32.gguf", "mmproj-BF16.gguf", "mmproj-F16.gguf"];
        for count in 1..=all.len() {
            let projectors: Vec<_> = all[..count].iter().map(|name| (*name, None)).collect();
            assert_eq!(search(&[("gemma-3-4b.gguf", 64)], &projectors), [all[count - 1]]);
        }
        let two = [("mmproj-a-f16.gguf", None), ("mmproj-a-q8_0.gguf", None)];
        assert_eq!(search(&[("a.gguf", 64), ("b.gguf", 64)], &two), ["mmproj-a-f16.gguf", ""]);
        let dir = tempfile::tempdir().unwrap();
        let path = model(64).write(dir.path(), "a.gguf");
        let [first, second] = ["mmproj-BF16.gguf", "mmproj-F16.gguf"].map(|name| projector().write(dir.path(), name));
        let search = find_projector(&path, &gguf::read(&path).unwrap());
        assert_eq!((search.found.unwrap().path, search.passed_over, search.unused), (second, vec![first], vec![]));
        // One that reads something else does not differ in precision alone.
        projector().flag("clip.has_audio_encoder", true).write(dir.path(), "mmproj-F16.gguf");
        assert_eq!(find_projector(&path, &gguf::read(&path).unwrap()).tied.len(), 2);
    }

    #[test]
    fn parts_adapters_and_drafts_count_as_no_further_model() {
        let dir = tempfile::tempdir().unwrap();
        let first = model(64).uint("split.count", 2).write(dir.path(), "big-00001-of-00002.gguf");
        GgufSample::default().write(dir.path(), "big-00002-of-00002.gguf");
        GgufSample::chat().text("general.type", "adapter").write(dir.path(), "lora.gguf");
        model(64).write(dir.path(), "big-draft.gguf");
        std::fs::write(dir.path().join("broken.gguf"), "<html>").unwrap();
        let expected = projector().flag("clip.has_audio_encoder", true).write(dir.path(), "mmproj-F16.gguf");
        let found = find_projector(&first, &gguf::read(&first).unwrap()).found.unwrap();
        assert_eq!((&found.path, found.size_bytes), (&expected, expected.metadata().unwrap().len()));
        assert_eq!(found.modalities, [InputModality::Image, InputModality::Audio]);
        assert_eq!(read_projector(&expected).unwrap(), found);
        let refused = read_projector(&first).unwrap_err().to_string();
        assert!(refused.contains("no multimodal projector"), "{refused}");
    }

    #[test]
    fn a_name_with_mmproj_in_it_makes_no_projector() {
        let dir = tempfile::tempdir().unwrap();
        let named_so = model(64).write(dir.path(), "mmproj-study-llama.gguf");
        let other = model(64).write(dir.path(), "llama.gguf");
        let search = find_projector(&other, &gguf::read(&other).unwrap());
        let broken = search.broken.clone();
        assert_eq!(search, ProjectorSearch { broken: broken.clone(), ..ProjectorSearch::default() });
        assert!(matches!(&broken[..], [one] if one.path == named_so && one.fault.contains("no multimodal projector")));
        assert!(read_projector(&named_so).is_err());
        let own = find_projector(&named_so, &gguf::read(&named_so).unwrap());
        assert_eq!(own, ProjectorSearch::default(), "the model itself is no broken projector");
    }

    #[test]
    fn a_broken_projector_beside_a_model_was_dropped_in_silence() {
        let dir = tempfile::tempdir().unwrap();
        let path = model(64).write(dir.path(), "x.gguf");
        let whole = projector().tensor("v.weight", 0, &[4, 4]).write(dir.path(), "vision.gguf");
        let bytes = std::fs::read(&whole).unwrap();
        std::fs::write(&whole, &bytes[..bytes.len() - 1]).unwrap();
        std::fs::write(dir.path().join("mmproj-cut.gguf"), &bytes[..20]).unwrap();
        std::fs::write(dir.path().join("x-mmproj.gguf"), "").unwrap();
        std::os::unix::fs::symlink("nowhere", dir.path().join("mmproj.gguf")).unwrap();
        std::fs::write(dir.path().join("other.gguf"), "<html>").unwrap();
        let search = find_projector(&path, &gguf::read(&path).unwrap());
        let broken: Vec<String> = search
            .broken
            .iter()
            .map(|one| format!("{} {}", one.path.file_name().unwrap().display(), one.fault))
            .collect();
        let expected = [
            "mmproj-cut.gguf is cut short",
            "mmproj.gguf cannot be read: No such file",
            "vision.gguf is cut short",
            "x-mmproj.gguf is not a GGUF file: it is empty",
        ];
        assert_eq!(broken.len(), expected.len(), "{broken:?}");
        assert!(broken.iter().zip(expected).all(|(found, start)| found.starts_with(start)), "{broken:?}");
    }
}
