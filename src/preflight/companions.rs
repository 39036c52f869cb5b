//! Finds what goes with a model: its configured projector, adapters, draft model and chat template. Reads their headers.
//!
//! Owns how their names are looked up: as an absolute path, in the model's folder, then as the name of any model.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::checked::{FlawedModel, FoundCompanions, MissingModel, ModelFile, ModelFlaw};
use super::llama_server::file_start;
use crate::models::{self, Metadata, ModelError, ModelKind, ProjectorSearch, RemoteName, TemplateFacts, shown_name};
use crate::settings::bounds::CHAT_TEMPLATE_SIZE;
use crate::settings::catalogue::{AdapterSetting, CompanionSettings, ModelSettings, ProjectorSetting};
use crate::settings::{SettingProblem, Settings};
use crate::worker::{ChatTemplate, LlamaHelp, is_adapter_path};

/// What to do about a model of the hub that is not on the disk while `HF_HUB_OFFLINE` forbids to download it.
const OFFLINE_HINT: &str =
    "unset HF_HUB_OFFLINE, so that it can be downloaded, or put the file into MODELS_DIR and name it";

/// Where what goes with one model is looked for.
struct Places<'a> {
    settings: &'a Settings,
    /// The model's file, if it is there.
    model: Option<&'a Path>,
}

impl Places<'_> {
    /// Finds the file that a name means.
    ///
    /// # Errors
    ///
    /// There is none, or more than one.
    fn find(&self, name: &str) -> Result<PathBuf, ModelError> {
        match self.beside(name) {
            Some(path) => Ok(path),
            None => models::find(&self.settings.model_places(), name),
        }
    }

    fn beside(&self, name: &str) -> Option<PathBuf> {
        self.model?.parent().map(|folder| folder.join(name)).filter(|path| path.is_file())
    }

    /// Describes why the name at `subject` has no usable file. A download may bring one that is missing.
    fn flaw(&self, subject: &str, name: &str, error: &ModelError) -> ModelFlaw {
        let hint = hint_of(self.settings, name, error);
        let subject = format!("{subject}: {:?}", shown_name(name));
        let missing = self.missing(&subject, name, error).map(Box::new);
        let problem = SettingProblem { subject, fault: error.to_string(), hint };
        ModelFlaw { problem, missing, broken: None }
    }

    fn missing(&self, subject: &str, name: &str, error: &ModelError) -> Option<MissingModel> {
        if !error.is_missing() || self.settings.downloads.hf_hub_offline {
            return None;
        }
        // A folder of this name is what was meant, and a stranger's repository must not stand in for it.
        let has_folder = |folder: &str| self.settings.files.models_dir.join(folder).is_dir();
        let remote = RemoteName::parse(name).ok()?;
        if name.split_once('/').is_some_and(|(folder, _)| has_folder(folder)) {
            return None;
        }
        let (subject, given) = (subject.to_owned(), shown_name(name));
        Some(MissingModel { subject, given, name: remote, locally: error.absence() })
    }
}

/// Returns what to do about a name that has no usable file. Without the network none is told to download it.
pub(super) fn hint_of(settings: &Settings, name: &str, error: &ModelError) -> Option<String> {
    let is_forbidden = settings.downloads.hf_hub_offline && error.is_missing() && RemoteName::parse(name).is_ok();
    let hint = if is_forbidden { OFFLINE_HINT } else { error.hint() };
    (!hint.is_empty()).then(|| hint.to_owned())
}

/// Returns the names of files that a model needs besides its own, each with its key.
fn names_of(model: &ModelSettings) -> Vec<(String, &str)> {
    let Some(local) = &model.local else { return Vec::new() };
    let CompanionSettings { adapters, draft, .. } = &local.companions;
    let adapters = adapters.iter().enumerate().map(|(at, adapter)| (format!("lora[{at}]"), adapter.file.as_str()));
    let draft = draft.iter().map(|name| ("draft".to_owned(), name.as_str()));
    let projector = match &local.projector {
        ProjectorSetting::File(file) => file.to_str().map(|name| ("mmproj".to_owned(), name)),
        ProjectorSetting::Auto | ProjectorSetting::Never => None,
    };
    adapters.chain(draft).chain(projector).collect()
}

/// Returns what goes with a model, is not on the disk, and may come by a download. `path` is the model's file, if that is
/// there.
pub(super) fn missing_companions(settings: &Settings, model: &ModelSettings, path: Option<&Path>) -> Vec<MissingModel> {
    let places = Places { settings, model: path };
    let id = model.known_id().unwrap_or_default();
    let missing = |(key, name): (String, &str)| {
        let error = places.find(name).err()?;
        places.missing(&format!("models.{id}.{key}: {:?}", shown_name(name)), name, &error)
    };
    names_of(model).into_iter().filter_map(missing).collect()
}

/// Returns the projector that `mmproj` names.
///
/// # Errors
///
/// It cannot be found or used.
pub(super) fn configured_projector(
    settings: &Settings,
    model: &ModelSettings,
    path: &Path,
    name: &Path,
) -> Result<ProjectorSearch, ModelFlaw> {
    let places = Places { settings, model: Some(path) };
    let subject = format!("models.{}.mmproj", model.id.as_deref().unwrap_or_default());
    let name = name.to_string_lossy();
    let found = places.find(&name);
    if matches!(RemoteName::parse(&name), Ok(RemoteName::Model { .. })) && found.is_err() {
        let problem = SettingProblem {
            subject: format!("{subject}: {name:?}"),
            fault: "it names a repository and no file".to_owned(),
            hint: Some("name the file: ORG/NAME/mmproj-F16.gguf".to_owned()),
        };
        return Err(ModelFlaw { problem, missing: None, broken: None });
    }
    match found.and_then(|path| models::read_projector(&path)) {
        Ok(projector) => Ok(ProjectorSearch { found: Some(projector), ..ProjectorSearch::default() }),
        Err(error) => {
            let mut flaw = places.flaw(&subject, &name, &error);
            let hint = "name a projector in the model's folder or under MODELS_DIR, give its full path, or set none";
            flaw.problem.hint = Some(hint.to_owned());
            Err(flaw)
        }
    }
}

/// Adds what goes with a model to it, and all that cannot be found or used to its flaws. `help` is what the llama-server says
/// of its arguments.
pub(super) fn add_companions(settings: &Settings, found: FlawedModel, help: Option<&LlamaHelp>) -> FlawedModel {
    let FlawedModel { mut model, mut flaws } = found;
    let Some(local) = model.settings.local.as_ref().filter(|_| file_start(&model.settings).is_some()) else {
        return FlawedModel { model, flaws };
    };
    let Some(file) = &mut model.file else { return FlawedModel { model, flaws } };
    if local.companions == CompanionSettings::default() {
        return FlawedModel { model, flaws };
    }
    let mut finder = Finder::new(settings, &model.id, file, &local.engine.extra_args.words);
    let wanted = &local.companions;
    for (at, adapter) in wanted.adapters.iter().enumerate() {
        flaws.extend(finder.add_adapter(at, adapter, model.kind).err());
    }
    if let Some(name) = &wanted.draft {
        flaws.extend(finder.add_draft(name).err());
    }
    let template = wanted.chat_template.as_ref().map(|name| finder.add_template(name, help));
    finder.found.files.speculative = wanted.speculative.clone();
    finder.found.files.rpc.clone_from(&wanted.rpc);
    let found = finder.found;
    match template {
        Some(Ok(facts)) => {
            let metadata = &mut file.model.metadata;
            metadata.has_chat_template = true;
            (metadata.template_has_tools, metadata.template_has_thinking) = (facts.has_tools, facts.has_thinking);
        }
        Some(Err(flaw)) => flaws.push(flaw),
        None => {}
    }
    file.companions = found;
    FlawedModel { model, flaws }
}

/// Finds what goes with one model.
struct Finder<'a> {
    places: Places<'a>,
    /// The key of the model, such as `models.qwen3`.
    section: String,
    metadata: Metadata,
    /// The model's own arguments.
    words: &'a [String],
    found: FoundCompanions,
}

impl<'a> Finder<'a> {
    fn new(settings: &'a Settings, id: &str, file: &'a ModelFile, words: &'a [String]) -> Self {
        Self {
            places: Places { settings, model: Some(&file.path) },
            section: format!("models.{id}"),
            metadata: file.model.metadata.clone(),
            words,
            found: FoundCompanions::default(),
        }
    }

    /// Finds a file and notes when it was modified.
    fn find<T>(
        &mut self,
        key: &str,
        name: &str,
        read: impl FnOnce(&Path, &Metadata) -> Result<T, ModelError>,
    ) -> Result<(PathBuf, T), ModelFlaw> {
        let subject = format!("{}.{key}", self.section);
        let found = self.places.find(name).and_then(|path| read(&path, &self.metadata).map(|read| (path, read)));
        let (path, read) = found.map_err(|error| self.places.flaw(&subject, name, &error))?;
        // Absolute, because llama-server may run in another working directory.
        let path = std::path::absolute(&path).unwrap_or(path);
        self.found.modified.push(path.metadata().and_then(|file| file.modified()).ok());
        Ok((path, read))
    }

    fn refuse(&self, key: &str, name: &str, fault: impl Into<String>, hint: &str) -> ModelFlaw {
        let subject = format!("{}.{key}: {name:?}", self.section);
        let problem = SettingProblem { subject, fault: fault.into(), hint: Some(hint.to_owned()) };
        ModelFlaw { problem, missing: None, broken: None }
    }

    fn add_adapter(&mut self, at: usize, adapter: &AdapterSetting, kind: ModelKind) -> Result<(), ModelFlaw> {
        let key = format!("lora[{at}]");
        if let Some(name) = adapter.name.as_ref().filter(|_| kind != ModelKind::Chat) {
            let fault = format!("the model is for {kind}, and only requests for text can ask for an adapter by name");
            return Err(self.refuse(&format!("{key}.name"), name, fault, "leave the name out"));
        }
        let (path, read) = self.find(&key, &adapter.file, models::read_adapter)?;
        if !is_adapter_path(&path) {
            let fault = "llama-server takes no adapter whose path has a comma, a colon or a quote";
            return Err(self.refuse(&key, &adapter.file, fault, "rename the file or its folder"));
        }
        // One with a name is only for requests that ask for it.
        let scale = if adapter.name.is_some() { 0.0 } else { adapter.scale };
        self.found.files.adapters.push((path, scale));
        self.found.size_bytes = self.found.size_bytes.saturating_add(read.size_bytes);
        Ok(())
    }

    fn add_draft(&mut self, name: &str) -> Result<(), ModelFlaw> {
        let (path, draft) = self.find("draft", name, |path, _| models::check_readable(path))?;
        if let (Some(own), Some(of_model)) = (&draft.metadata.tokenizer, &self.metadata.tokenizer)
            && own != of_model
        {
            let fault = format!("its tokenizer is {own}, and that of the model {of_model}");
            return Err(self.refuse("draft", name, fault, "name a small model of the same family"));
        }
        self.found.files.draft = Some(path);
        self.found.draft = Some(draft);
        Ok(())
    }

    /// Finds the chat template. Returns what it has.
    fn add_template(&mut self, name: &str, help: Option<&LlamaHelp>) -> Result<TemplateFacts, ModelFlaw> {
        let Some(path) = self.template_file(name) else {
            let known = help.map(LlamaHelp::built_in_templates).unwrap_or_default();
            let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            let may_be_known = known.is_empty() && name.bytes().all(is_word) && !name.ends_with(".jinja");
            if known.contains(&name) || may_be_known {
                if let Some(word) = self.words.iter().find(|word| *word == "--jinja") {
                    let fault = format!("with {word}, llama-server knows no template by its name");
                    return Err(self.refuse("chat_template", name, fault, "leave the argument out, or name a file"));
                }
                self.found.files.chat_template = Some(ChatTemplate::BuiltIn(name.to_owned()));
                return Ok(TemplateFacts::default());
            }
            let fault = "there is no such file, and llama-server has no template of this name";
            let hint = "name a file beside the model, beside the configuration file or under MODELS_DIR, give its full \
                        path, or a template that llama-server --help lists";
            return Err(self.refuse("chat_template", name, fault, hint));
        };
        let hint = "a chat template is a text in Jinja's language";
        let text = read_template(&path).map_err(|fault| self.refuse("chat_template", name, fault, hint))?;
        self.found.modified.push(path.metadata().and_then(|file| file.modified()).ok());
        self.found.files.chat_template = Some(ChatTemplate::File(std::path::absolute(&path).unwrap_or(path)));
        Ok(TemplateFacts::of(text.as_bytes()))
    }

    fn template_file(&self, name: &str) -> Option<PathBuf> {
        let files = &self.places.settings.files;
        let configuration = files.config_file.as_deref().and_then(Path::parent).unwrap_or(&files.data_dir);
        let folders = [configuration, &files.models_dir];
        let in_folders = folders.iter().map(|folder| folder.join(name));
        self.places.beside(name).into_iter().chain(in_folders).find(|path| path.is_file())
    }
}

/// Reads a chat template.
///
/// # Errors
///
/// What is wrong with the file.
fn read_template(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(CHAT_TEMPLATE_SIZE + 1).read_to_end(&mut bytes));
    read.map_err(|error| format!("the file cannot be read: {error}"))?;
    if bytes.len() as u64 > CHAT_TEMPLATE_SIZE {
        return Err(format!("the file has more than {} KiB", CHAT_TEMPLATE_SIZE >> 10));
    }
    String::from_utf8(bytes).map_err(|_| "the file is no text in UTF-8".to_owned())
}
