//! What the checks of models return: the models that passed them, and what is wrong with the others.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use crate::embedding_heads::EmbeddingHeads;
use crate::models::{self, BrokenProjector, KindContradiction, ModelKind, Projector, RemoteName, YesNoTokens};
use crate::settings::SettingProblem;
use crate::settings::catalogue::{ModelSettings, Start};
use crate::worker::{CompanionFiles, ServedFiles, paths_among};

/// A model that passed the checks. Its load may still fail.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckedModel {
    /// The id that clients use.
    pub id: String,
    /// What the model is for.
    pub kind: ModelKind,
    /// Its configuration.
    pub settings: ModelSettings,
    /// Its file and the llama-server binary; `None` for a model with a command of its own or only remote backends.
    pub file: Option<ModelFile>,
    /// The files that the answers of its llama-server or its command depend on.
    pub files: ServedFiles,
    /// Its heads for sparse and ColBERT vectors.
    pub heads: Option<Arc<EmbeddingHeads>>,
    /// Projectors beside its file that differ from the one it uses in precision alone.
    pub passed_over_projectors: Vec<PathBuf>,
    /// Projectors beside its file that suit it equally well, so that none is used.
    pub tied_projectors: Vec<PathBuf>,
    /// Other projectors beside its file that it does not use.
    pub unused_projectors: Vec<PathBuf>,
    /// Files beside its file that would be projectors, and cannot be used.
    pub broken_projectors: Vec<BrokenProjector>,
}

impl CheckedModel {
    /// Returns a model for chat that nothing serves yet.
    pub(super) fn without_file(id: String) -> Self {
        Self {
            id,
            kind: ModelKind::Chat,
            settings: ModelSettings::default(),
            file: None,
            files: ServedFiles::default(),
            heads: None,
            passed_over_projectors: Vec::new(),
            tied_projectors: Vec::new(),
            unused_projectors: Vec::new(),
            broken_projectors: Vec::new(),
        }
    }

    /// Looks at the files that its answers depend on, once it is known which these are. Blocks on the disk.
    pub(super) fn look_at_files(&mut self) {
        let Some(local) = &self.settings.local else { return };
        let mut paths = Vec::new();
        if let Start::Command { argv, .. } = &local.start {
            paths.extend(paths_among(argv));
        }
        if let Some(file) = &self.file {
            paths.push(file.binary.clone());
            paths.extend(models::split::parts_of(&file.path));
            paths.extend(file.projector.iter().map(|projector| projector.path.clone()));
            paths.extend(file.companions.files.paths().map(Path::to_owned));
        }
        paths.extend(paths_among(&local.engine.extra_args.words));
        self.files = ServedFiles::look_at(paths);
    }

    /// Returns the names of the projectors that differ from its own in precision alone, separated by commas; empty if
    /// there are none.
    pub fn passed_over_names(&self) -> String {
        self.passed_over_projectors.iter().map(|path| file_name(path)).collect::<Vec<_>>().join(", ")
    }

    /// Returns why its file cannot serve it as its kind, which the configuration sets.
    pub(super) fn kind_contradiction(&self) -> Option<KindContradiction> {
        let (file, local) = (self.file.as_ref()?, self.settings.local.as_ref()?);
        self.kind.contradiction(&file.model.metadata, &local.engine.extra_args.words)
    }

    /// Returns the words with which it answers, if it is a reranker without a ranking head. Remote backends of the same name
    /// could not read what is written for it.
    pub fn yes_no_answers(&self) -> Option<YesNoTokens> {
        let is_alone = self.settings.remotes.is_empty();
        let file = self.file.as_ref().filter(|_| self.kind == ModelKind::Rerank && is_alone)?;
        file.model.metadata.yes_no_answers()
    }

    /// Returns the id and all aliases.
    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.settings.aliases.iter().chain(&self.settings.hidden_aliases).chain([&self.id])
    }

    /// Returns whether this is the id or an alias, or one of these with the name of an adapter.
    pub(super) fn has_name(&self, name: &str) -> bool {
        let is_own = |name: &str| self.names().any(|known| known == name);
        is_own(name) || name.rsplit_once(':').is_some_and(|(base, adapter)| is_own(base) && self.has_adapter(adapter))
    }

    fn has_adapter(&self, name: &str) -> bool {
        let local = self.settings.local.iter();
        local.flat_map(|local| local.companions.adapter_names()).any(|known| known == name)
    }
}

/// The models that passed the checks.
#[derive(Debug, Default)]
pub struct CheckedModels {
    /// Those that the configuration names.
    pub named: Vec<CheckedModel>,
    /// Those that were found below `MODELS_DIR`.
    pub shelf: Vec<CheckedModel>,
    /// What is left out of the models below `MODELS_DIR`, and was not left out before.
    pub notes: Vec<String>,
    /// Models that are not on the disk, and that a download may bring.
    pub missing: Vec<MissingModel>,
}

impl CheckedModels {
    /// Returns a problem for each model that is not on the disk.
    pub fn missing_problems(&self) -> Vec<SettingProblem> {
        let problem = |model: &MissingModel| SettingProblem {
            subject: model.subject.clone(),
            fault: "it is not on the disk, and a reload does not wait for a download".to_owned(),
            hint: Some(format!("run: llamagate pull {}, or order it with POST /v1/models/download", model.given)),
        };
        self.missing.iter().map(problem).collect()
    }

    /// Returns all models, in the order in which they are listed.
    pub fn all(&self) -> Vec<CheckedModel> {
        self.named.iter().chain(&self.shelf).cloned().collect()
    }
}

/// A model file and the program that serves it.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelFile {
    /// Absolute path of the file, or of its first part.
    pub path: PathBuf,
    /// Its modification time, which tells a reload whether the file has been replaced.
    pub modified: Option<SystemTime>,
    /// Its metadata and size.
    pub model: models::InspectedModel,
    /// The llama-server binary.
    pub binary: PathBuf,
    /// The multimodal projector that llama-server gets.
    pub projector: Option<Projector>,
    /// What else goes with the model.
    pub companions: FoundCompanions,
}

/// What goes with a model besides its projector, as it was found.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FoundCompanions {
    /// What llama-server gets.
    pub files: CompanionFiles,
    /// The modification times of the files, which tell a reload whether one has been replaced.
    pub modified: Vec<Option<SystemTime>>,
    /// Size of all adapters in bytes.
    pub size_bytes: u64,
    /// The draft model.
    pub draft: Option<models::InspectedModel>,
}

/// A model that is not on the disk, and that a download may bring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingModel {
    /// The setting that names it, with its value.
    pub subject: String,
    /// The name as it is configured, without what may be a secret.
    pub given: String,
    /// What it means.
    pub name: RemoteName,
    /// That it is not on the disk, in a few words.
    pub locally: String,
}

/// Why the models cannot be served.
pub struct Unservable {
    /// All problems with them.
    pub problems: Vec<SettingProblem>,
    /// The first broken file, if broken files are the only problems.
    pub broken: Option<BrokenFile>,
}

/// A model file that exists but cannot be served.
pub struct BrokenFile {
    /// Its name, without a path.
    pub name: String,
    /// What is wrong with it and what to do, without a path either.
    pub sentence: String,
}

/// A problem with one model.
pub(super) struct ModelFlaw {
    pub(super) problem: SettingProblem,
    /// The model, if a download may bring it.
    pub(super) missing: Option<Box<MissingModel>>,
    pub(super) broken: Option<Box<BrokenFile>>,
}

/// A model whose file can be served, and what is wrong with what goes with it.
pub(super) struct FlawedModel {
    pub(super) model: CheckedModel,
    /// Empty if nothing is.
    pub(super) flaws: Vec<ModelFlaw>,
}

impl From<CheckedModel> for FlawedModel {
    fn from(model: CheckedModel) -> Self {
        Self { model, flaws: Vec::new() }
    }
}

/// Returns the name of a file, without its folder.
pub(super) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
