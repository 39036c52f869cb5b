//! Checks before the start: model files, programs, keys, file descriptors. Starts nothing.
//!
//! All problems are collected before they are returned. Also finds warnings that need the model files: configurations
//! that work, but probably not as intended.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::descriptors::{self, Descriptors};
use crate::keys::{KeyFileError, Store};
use crate::models::{self, ModelKind, Projector, ProjectorSearch, Shelf, ShelfModel};
use crate::settings::catalogue::{Catalogue, EVERY_MODEL, LocalSettings, ModelSettings, ProjectorSetting, Start};
use crate::settings::values::ServiceKey;
use crate::settings::{Config, Environment, RunpodQueue, SettingProblem, Settings, is_executable};
use crate::worker::{LlamaHelp, PROJECTOR_FLAG, UnknownArgument};

/// The result of the checks that need no model file.
pub struct Prepared {
    /// The API keys, if any route asks for one.
    pub keys: Option<Store>,
    /// How the file descriptors are divided.
    pub descriptors: Descriptors,
    /// The RunPod queue that jobs are polled from.
    pub queue: Option<RunpodQueue>,
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
struct ModelFlaw {
    problem: SettingProblem,
    broken: Option<BrokenFile>,
}

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
    /// Projectors beside its file that suit it equally well, so that none is used.
    pub tied_projectors: Vec<PathBuf>,
    /// Other projectors beside its file that it does not use.
    pub unused_projectors: Vec<PathBuf>,
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
}

impl CheckedModels {
    /// Returns all models, in the order in which they are listed.
    pub fn all(&self) -> Vec<CheckedModel> {
        self.named.iter().chain(&self.shelf).cloned().collect()
    }

    /// Returns warnings about models that work, but probably not as intended.
    pub fn warnings(&self, config: &Config) -> Vec<String> {
        warnings(&config.catalogue, &self.all())
    }
}

impl CheckedModel {
    /// Returns the id and all aliases.
    fn names(&self) -> impl Iterator<Item = &String> {
        self.settings.aliases.iter().chain(&self.settings.hidden_aliases).chain([&self.id])
    }

    fn has_name(&self, name: &str) -> bool {
        self.names().any(|known| known == name)
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
}

/// Most broken files that are reported one by one if there is no other.
const MOST_BROKEN: usize = 5;

/// The model id that a service with `MOCK_BACKEND` and no configured model uses.
const MOCK_ID: &str = "mock";

/// Runs all checks.
///
/// # Errors
///
/// All problems that were found, those of models first.
pub fn inspect(
    config: &Config,
    environment: &Environment,
    help: Option<&LlamaHelp>,
) -> Result<(Prepared, CheckedModels), Vec<SettingProblem>> {
    match (models(config, environment, help, &mut Shelf::default()), ready(config, environment)) {
        (Ok(models), Ok(prepared)) => Ok((prepared, models)),
        (models, prepared) => {
            let model_problems = models.err().map(|unservable| unservable.problems);
            Err(model_problems.into_iter().chain(prepared.err()).flatten().collect())
        }
    }
}

/// Checks everything except the models. Fast even if the disk with the models is slow.
///
/// # Errors
///
/// All problems that were found.
pub fn ready(config: &Config, environment: &Environment) -> Result<Prepared, Vec<SettingProblem>> {
    let settings = &config.settings;
    let mut problems = Vec::new();
    let queue = RunpodQueue::read(settings, environment).map_err(|found| problems.extend(found)).ok().flatten();
    let asks_for_keys = settings.access.auth_enabled || settings.access.metrics_auth_enabled;
    // A queue worker gets its requests as jobs, so it may start without a key: HTTP requests that need one are then all
    // refused.
    let has_key = settings.access.llamagate_api_key.is_some() || settings.access.auth_keys_file.exists();
    let keys = if asks_for_keys && (queue.is_none() || has_key) {
        open_keys(settings).map_err(|problem| problems.push(problem)).ok()
    } else {
        None
    };
    problems.extend(bad_log_file(settings));
    // Even with other problems, so that all of them are reported at once.
    let descriptors = descriptors::allocate(config).map_err(|problem| problems.push(problem)).ok();
    match descriptors {
        Some(descriptors) if problems.is_empty() => Ok(Prepared { keys, descriptors, queue }),
        _ => Err(problems),
    }
}

/// Checks every model and the programs that serve them. Reads the headers of all model files; `shelf` keeps those that
/// were found below `MODELS_DIR` for the next time. `help` is what the llama-server says of its arguments; without it
/// they are not checked.
///
/// # Errors
///
/// [`Unservable`] holds all problems that were found.
pub fn models(
    config: &Config,
    environment: &Environment,
    help: Option<&LlamaHelp>,
    shelf: &mut Shelf,
) -> Result<CheckedModels, Unservable> {
    let Config { settings, catalogue } = config;
    let configured = &catalogue.models;
    if settings.engine.mock_backend {
        let mock = |settings: &ModelSettings| CheckedModel {
            kind: settings.kind.unwrap_or(ModelKind::Chat),
            settings: ModelSettings { local: None, remotes: Vec::new(), ..settings.clone() },
            ..CheckedModel::without_file(settings.id.clone().unwrap_or_else(|| MOCK_ID.to_owned()))
        };
        let none = configured.is_empty().then(ModelSettings::default);
        let named = configured.iter().chain(&none).map(mock).collect();
        return Ok(CheckedModels { named, ..CheckedModels::default() });
    }
    let mut problems = Vec::new();
    if configured.is_empty() && catalogue.shelf.is_none() {
        problems.push(no_model("no model is named".to_owned(), ""));
    }
    problems.extend(help.map_or_else(Vec::new, |help| unknown_arguments(config, help)));
    let binary = match configured.is_empty() || needs_llama_server(catalogue) {
        true => find_llama_server(settings).map_err(|problem| problems.push(problem)).ok(),
        false => None,
    };
    let mut checked: Vec<CheckedModel> = Vec::with_capacity(configured.len());
    let mut broken = Vec::new();
    problems.extend(configured.iter().filter_map(|model| missing_command(model, environment)));
    for model in configured {
        match check_model(settings, model, binary.as_deref()) {
            // An id that comes from a file name is known only here, so this is the first place that sees it twice.
            Ok(Some(model)) => match checked.iter().any(|other| other.id == model.id) {
                false => checked.push(model),
                true => problems.push(SettingProblem {
                    subject: model.id,
                    fault: "two models have this id".to_owned(),
                    hint: Some("MODEL_NAME and MODEL_PATH make a model of their own, named after its file".to_owned()),
                }),
            },
            Ok(None) => {}
            Err(flaw) => {
                problems.push(flaw.problem);
                broken.extend(flaw.broken);
            }
        }
    }
    for (kind, name) in &catalogue.default_models {
        // A name that no model has is reported with the file, or belongs to a model with a problem of its own.
        for model in checked.iter().filter(|model| model.has_name(name) && model.kind != *kind) {
            problems.push(SettingProblem {
                subject: format!("default_models.{kind}: {name:?}"),
                fault: format!("this model is for {}", model.kind),
                hint: Some(format!("name a model for {kind}")),
            });
        }
    }
    let mut models = CheckedModels { named: checked, ..CheckedModels::default() };
    match scan_shelf(config, &models.named, binary.as_deref(), shelf) {
        Ok(found) => (models.shelf, models.notes) = found,
        Err(flaws) => {
            for flaw in flaws {
                problems.push(flaw.problem);
                broken.extend(flaw.broken);
            }
        }
    }
    if problems.is_empty() {
        return Ok(models);
    }
    // With a problem of another kind, replacing the broken file would not be enough.
    let broken = if broken.len() == problems.len() { broken.into_iter().next() } else { None };
    Err(Unservable { problems, broken })
}

/// Returns the llama-server that serves models of this configuration; `None` if none does, or it cannot be used.
pub fn llama_server(config: &Config) -> Option<PathBuf> {
    let binary = needs_llama_server(&config.catalogue).then(|| find_llama_server(&config.settings));
    binary.filter(|_| !config.settings.engine.mock_backend)?.ok()
}

/// Whether llama-server serves a model of this catalogue, or may do so once a file comes into the models folder.
fn needs_llama_server(catalogue: &Catalogue) -> bool {
    catalogue.shelf.is_some() || catalogue.models.iter().any(|model| file_start(model).is_some())
}

/// Returns a problem for each argument that this llama-server would not take.
fn unknown_arguments(config: &Config, help: &LlamaHelp) -> Vec<SettingProblem> {
    let Config { settings, catalogue } = config;
    let mut problems = Vec::new();
    let name = |model: &ModelSettings| format!("models.{}", model.known_id().unwrap_or_default());
    let named = catalogue.models.iter().filter(|model| file_start(model).is_some()).map(|model| (name(model), model));
    let of_shelf = catalogue.shelf.iter().map(|model| ("defaults".to_owned(), model));
    for (section, model) in named.chain(of_shelf) {
        let Some(local) = &model.local else { continue };
        let words = &local.engine.extra_args.words;
        let shared = &settings.engine.extra_args.words;
        let subject = match !shared.is_empty() && words.starts_with(shared) {
            true => "EXTRA_ARGS".to_owned(),
            false => format!("{section}.args"),
        };
        // A projector that is found without being configured is left out if llama-server takes none.
        if matches!(local.projector, ProjectorSetting::File(_)) && !help.has(PROJECTOR_FLAG) {
            problems.push(SettingProblem {
                subject: format!("{section}.mmproj"),
                fault: format!("this llama-server does not know the argument {PROJECTOR_FLAG}"),
                hint: Some("install a newer llama.cpp, or leave mmproj out".to_owned()),
            });
        }
        for UnknownArgument { fault, hint } in help.unknown_arguments(words) {
            let problem = SettingProblem { subject: subject.clone(), fault, hint };
            // Models share the arguments of EXTRA_ARGS.
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        }
    }
    problems
}

/// Finds the models below `MODELS_DIR` again, if they are served. `named` are the models that the configuration names.
/// Returns them, and what is left out and was not before.
///
/// # Errors
///
/// The folder or llama-server cannot be used.
pub fn find_shelf(
    config: &Config,
    named: &[CheckedModel],
    shelf: &mut Shelf,
) -> Result<(Vec<CheckedModel>, Vec<String>), SettingProblem> {
    let (Some(model), false) = (&config.catalogue.shelf, config.settings.engine.mock_backend) else {
        return Ok(Default::default());
    };
    let binary = find_llama_server(&config.settings)?;
    let dir = &config.settings.files.models_dir;
    let scan = shelf.scan(dir).map_err(|error| SettingProblem {
        subject: format!("MODELS_DIR={:?}", dir.display().to_string()),
        fault: error.to_string(),
        hint: Some(error.hint().to_owned()),
    })?;
    Ok((shelf_models(model, scan.models, named, &binary), scan.notes))
}

/// Finds the models below `MODELS_DIR` for the first time. Without any other model there must be one.
///
/// # Errors
///
/// There is no model at all; if there are broken files, each of them is a problem.
fn scan_shelf(
    config: &Config,
    named: &[CheckedModel],
    binary: Option<&Path>,
    shelf: &mut Shelf,
) -> Result<(Vec<CheckedModel>, Vec<String>), Vec<ModelFlaw>> {
    let Some(model) = &config.catalogue.shelf else { return Ok(Default::default()) };
    let dir = &config.settings.files.models_dir;
    let is_alone = config.catalogue.models.is_empty();
    let flaw = |problem| vec![ModelFlaw { problem, broken: None }];
    let hint = format!("put .gguf files into {}, set MODELS_DIR, ", dir.display());
    let scan = match shelf.scan(dir) {
        Ok(scan) => scan,
        Err(error) if is_alone => return Err(flaw(no_model(format!("no model is named, and {error}"), &hint))),
        Err(error) => return Ok((Vec::new(), vec![format!("{error}: no further model is served from there")])),
    };
    match (is_alone && scan.models.is_empty(), scan.broken.is_empty()) {
        (true, true) => {
            Err(flaw(no_model(format!("no model is named, and there is none below {}", dir.display()), &hint)))
        }
        (true, false) => {
            let flaw = |broken: models::BrokenShelfFile| ModelFlaw {
                problem: SettingProblem {
                    subject: format!("MODELS_DIR: {:?}", broken.path.display().to_string()),
                    fault: format!("this file {}", broken.fault),
                    hint: Some(broken.hint.to_owned()),
                },
                broken: Some(BrokenFile { name: file_name(&broken.path), sentence: broken.sentence }),
            };
            Err(scan.broken.into_iter().take(MOST_BROKEN).map(flaw).collect())
        }
        (false, _) => {
            let found = binary.map(|binary| shelf_models(model, scan.models, named, binary));
            Ok((found.unwrap_or_default(), scan.notes))
        }
    }
}

/// Returns the problem that there is no model. The hint begins with `first`.
fn no_model(fault: String, first: &str) -> SettingProblem {
    let others =
        "run `llamagate serve FILE.gguf`, set MODEL_NAME or MODEL_PATH, or list models in a configuration file";
    SettingProblem { subject: "MODEL_NAME".to_owned(), fault, hint: Some(format!("{first}{others}")) }
}

/// Returns the models of the shelf with the settings of `template`, without those whose id or file the configuration
/// names.
fn shelf_models(
    template: &ModelSettings,
    found: Vec<ShelfModel>,
    named: &[CheckedModel],
    binary: &Path,
) -> Vec<CheckedModel> {
    let Some(local) = &template.local else { return Vec::new() };
    let is_named = |id: &String| named.iter().any(|model| model.has_name(id));
    let canonical = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let files: Vec<PathBuf> =
        named.iter().filter_map(|model| model.file.as_ref()).map(|file| canonical(&file.path)).collect();
    let is_own =
        |model: &ShelfModel| !is_named(&model.id) && (files.is_empty() || !files.contains(&canonical(&model.path)));
    let found: Vec<ShelfModel> = found.into_iter().filter(is_own).collect();
    // The only model there is starts with the service, as one that is named does.
    let preload = local.preload || named.is_empty() && found.len() == 1;
    let checked = |model: ShelfModel| {
        let local = LocalSettings { start: Start::File(model.path.clone()), preload, ..local.clone() };
        let settings = ModelSettings {
            id: Some(model.id),
            aliases: model.alias.into_iter().filter(|alias| !is_named(alias)).collect(),
            local: Some(local),
            ..template.clone()
        };
        // Its projector is not configured, so nothing can be wrong with it.
        check_file(settings, model.path, model.model, binary, |_| Ok(model.projector)).ok()
    };
    found.into_iter().filter_map(checked).collect()
}

/// Returns warnings about configurations that work, but probably not as intended.
fn warnings(catalogue: &Catalogue, models: &[CheckedModel]) -> Vec<String> {
    let mut warnings = Vec::new();
    for model in models {
        for name in model.names() {
            if ["chat", "embeddings", "rerank"].contains(&&**name) {
                warnings.push(format!("the model {name:?} cannot be looked up: /v1/models/{name} is a list of models"));
            } else if name.ends_with("/load") || name.ends_with("/unload") {
                warnings.push(format!("the model {name:?} has a name that is a command at /v1/models/{name}"));
            }
        }
    }
    warnings.extend(models.iter().filter_map(ineffective_dimensions));
    if catalogue.shelf.is_some() {
        // Without a shelf, an unknown name is a problem of the configuration.
        for (name, others) in &catalogue.fallbacks {
            let is_unknown = |name: &&String| *name != EVERY_MODEL && models_named(models, name).next().is_none();
            let unknown = others.iter().chain([name]).filter(is_unknown);
            warnings.extend(unknown.map(|other| format!("fallbacks.{name}: there is no model and no tier {other:?}")));
        }
        for (kind, name) in &catalogue.default_models {
            match models.iter().find(|model| model.has_name(name)) {
                None => warnings.push(format!("default_models.{kind}: there is no model {name:?}")),
                Some(model) if model.kind != *kind => {
                    warnings.push(format!("default_models.{kind}: the model {name:?} is for {}", model.kind));
                }
                Some(_) => {}
            }
        }
    }
    warnings.extend(projector_warnings(models));
    for (name, others) in &catalogue.fallbacks {
        let kinds: Vec<ModelKind> = models_named(models, name).map(|model| model.kind).collect();
        for other in others {
            let mut found = models_named(models, other).peekable();
            let Some(kind) = found.peek().map(|model| model.kind) else { continue };
            if let Some(own) = kinds.first().filter(|_| !found.any(|model| kinds.contains(&model.kind))) {
                warnings.push(format!("fallbacks.{name}: {other} never takes over: its kind is {kind}, not {own}"));
            }
        }
    }
    warnings
}

/// Returns a warning if a model has a default length of its vectors that it does not have anyway.
fn ineffective_dimensions(model: &CheckedModel) -> Option<String> {
    let (wanted, id) = (model.settings.dimensions?.get(), &model.id);
    if model.kind != ModelKind::Embedding {
        return Some(format!("the model {id:?} has no vectors: its EMBEDDING_DIMENSION={wanted} has no effect"));
    }
    let own = model.file.as_ref().and_then(|file| file.model.metadata.embedding_length);
    match own {
        Some(own) if own == u64::from(wanted) => None,
        Some(own) => Some(format!(
            "the vectors of the model {id:?} have {own} numbers: its EMBEDDING_DIMENSION={wanted} has no effect in this version"
        )),
        None => Some(format!("the EMBEDDING_DIMENSION={wanted} of the model {id:?} has no effect in this version")),
    }
}

/// Returns warnings about projectors that are there and not used.
fn projector_warnings(models: &[CheckedModel]) -> Vec<String> {
    let names = |paths: &[PathBuf]| paths.iter().map(|path| file_name(path)).collect::<Vec<_>>().join(", ");
    let mut warnings = Vec::new();
    let mut unused: BTreeSet<&PathBuf> = models.iter().flat_map(|model| &model.unused_projectors).collect();
    for model in models {
        if !model.tied_projectors.is_empty() {
            warnings.push(format!(
                "the model {:?} gets no multimodal projector: {} suit it equally well; keep one of them, or set mmproj: of the model in llamagate.yaml",
                model.id,
                names(&model.tied_projectors)
            ));
        }
        let used = model.file.iter().filter_map(|file| file.projector.as_ref()).map(|projector| &projector.path);
        for path in used.chain(&model.tied_projectors) {
            unused.remove(path);
        }
        let Some(local) = &model.settings.local else { continue };
        let is_overridden = ProjectorSetting::of_arguments(&local.engine.extra_args.words).is_some();
        if is_overridden && local.projector != ProjectorSetting::Auto {
            warnings.push(format!("models.{}.mmproj has no effect: args or EXTRA_ARGS name the projector", model.id));
        }
    }
    warnings.extend(unused.into_iter().map(|path| {
        format!(
            "the multimodal projector {} is not used: by its name or its width it belongs to no model beside it; set mmproj: of a model in llamagate.yaml",
            file_name(path)
        )
    }));
    warnings
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Returns the models that this name means: the one with this id or alias, or all of a tier.
fn models_named<'a>(models: &'a [CheckedModel], name: &'a str) -> impl Iterator<Item = &'a CheckedModel> {
    models.iter().filter(move |model| {
        let is_of_tier = model.settings.tier.as_deref().is_some_and(|tier| tier.eq_ignore_ascii_case(name));
        is_of_tier || model.has_name(name)
    })
}

/// Returns a problem if the program of a model's command does not exist.
fn missing_command(model: &ModelSettings, environment: &Environment) -> Option<SettingProblem> {
    let Start::Command { argv, .. } = &model.local.as_ref()?.start else { return None };
    let program = argv.first()?;
    // Without PATH, execvp searches default folders that depend on the C library, so nothing can be said here.
    let (exists, fault) = match program.contains('/') {
        true => (is_executable(Path::new(program)), "there is no executable file of this name"),
        false => (
            environment.get("PATH").is_none() || environment.find_program(program).is_some(),
            "no program of this name was found on PATH",
        ),
    };
    (!exists).then(|| SettingProblem {
        subject: format!("models.{}.command: {program:?}", model.id.as_deref().unwrap_or_default()),
        fault: fault.to_owned(),
        hint: Some("install it, or say where it is".to_owned()),
    })
}

/// Returns how a model is started, if llama-server serves it from a file.
fn file_start(model: &ModelSettings) -> Option<&Start> {
    let start = &model.local.as_ref()?.start;
    (!matches!(start, Start::Command { .. })).then_some(start)
}

/// Checks one model. Returns `None` if its file is good but there is no llama-server, which is a separate problem.
///
/// # Errors
///
/// The file cannot be found or served.
fn check_model(
    settings: &Settings,
    model: &ModelSettings,
    binary: Option<&Path>,
) -> Result<Option<CheckedModel>, ModelFlaw> {
    let Some(start) = file_start(model) else {
        let kind = model.kind.unwrap_or(ModelKind::Chat);
        let id = model.id.clone().unwrap_or_default();
        return Ok(Some(CheckedModel { kind, settings: model.clone(), ..CheckedModel::without_file(id) }));
    };
    let (path, inspected) = find_model_file(settings, model, start)?;
    let Some(binary) = binary else { return Ok(None) };
    let search = |path: &Path| match model.local.as_ref().map(|local| &local.projector) {
        None | Some(ProjectorSetting::Never) => Ok(ProjectorSearch::default()),
        Some(ProjectorSetting::Auto) => Ok(models::find_projector(path, &inspected.metadata)),
        Some(ProjectorSetting::File(name)) => configured_projector(settings, model, path, name),
    };
    check_file(model.clone(), path, inspected.clone(), binary, search).map(Some)
}

/// Returns the projector that `mmproj` names.
///
/// # Errors
///
/// It cannot be found or used.
fn configured_projector(
    settings: &Settings,
    model: &ModelSettings,
    path: &Path,
    name: &Path,
) -> Result<ProjectorSearch, ModelFlaw> {
    let beside = path.parent().map(|dir| dir.join(name)).filter(|path| path.is_file());
    let found = match beside {
        Some(path) => Ok(path),
        None => models::resolve(&settings.files.models_dir, &name.to_string_lossy()),
    };
    let read = found.and_then(|path| models::read_projector(&path));
    match read {
        Ok(projector) => Ok(ProjectorSearch { found: Some(projector), ..ProjectorSearch::default() }),
        Err(error) => {
            let id = model.id.as_deref().unwrap_or_default();
            let subject = format!("models.{id}.mmproj: {:?}", name.display().to_string());
            let hint = "name a projector in the model's folder or under MODELS_DIR, give its full path, or set none";
            let problem = SettingProblem { subject, fault: error.to_string(), hint: Some(hint.to_owned()) };
            Err(ModelFlaw { problem, broken: None })
        }
    }
}

/// Describes a model whose file has been read. `search` finds its projector, unless llama-server's arguments decide.
///
/// # Errors
///
/// The projector that is configured cannot be used.
fn check_file(
    settings: ModelSettings,
    path: PathBuf,
    inspected: models::InspectedModel,
    binary: &Path,
    search: impl FnOnce(&Path) -> Result<ProjectorSearch, ModelFlaw>,
) -> Result<CheckedModel, ModelFlaw> {
    let id = settings.id.clone().unwrap_or_else(|| models::id_of(&path));
    let arguments = settings.local.as_ref().map_or(&[][..], |local| &local.engine.extra_args.words);
    let kind = settings.kind.or_else(|| ModelKind::of_arguments(arguments)).unwrap_or_else(|| inspected.kind());
    let modified = path.metadata().and_then(|metadata| metadata.modified()).ok();
    let projectors = match ProjectorSetting::of_arguments(arguments) {
        None => search(&path)?,
        // If it is unusable, llama-server says so.
        Some(ProjectorSetting::File(path)) => {
            ProjectorSearch { found: models::read_projector(&path).ok(), ..ProjectorSearch::default() }
        }
        Some(ProjectorSetting::Auto | ProjectorSetting::Never) => ProjectorSearch::default(),
    };
    // Absolute, because llama-server may run in another working directory.
    let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
    let ProjectorSearch { found, tied, unused } = projectors;
    let projector = found.map(|found| Projector { path: absolute(found.path), ..found });
    let file = ModelFile { path: absolute(path), modified, model: inspected, binary: binary.to_owned(), projector };
    Ok(CheckedModel {
        kind,
        settings,
        file: Some(file),
        tied_projectors: tied,
        unused_projectors: unused,
        ..CheckedModel::without_file(id)
    })
}

impl CheckedModel {
    /// Returns a model for chat that nothing serves yet.
    fn without_file(id: String) -> Self {
        Self {
            id,
            kind: ModelKind::Chat,
            settings: ModelSettings::default(),
            file: None,
            tied_projectors: Vec::new(),
            unused_projectors: Vec::new(),
        }
    }
}

/// Finds a model's file and reads its metadata.
///
/// # Errors
///
/// The file cannot be found or served.
fn find_model_file(
    settings: &Settings,
    model: &ModelSettings,
    start: &Start,
) -> Result<(PathBuf, models::InspectedModel), ModelFlaw> {
    let subject = match (&model.id, start) {
        // With `--alias` in EXTRA_ARGS the model of these variables has an id too.
        (_, Start::Named(name)) if settings.files.model_name.as_ref() == Some(name) => format!("MODEL_NAME={name:?}"),
        (_, Start::File(path)) if settings.files.model_path.as_ref() == Some(path) => {
            format!("MODEL_PATH={:?}", path.display().to_string())
        }
        (None, Start::Named(name)) => format!("MODEL_NAME={name:?}"),
        (None, Start::File(path)) => format!("MODEL_PATH={:?}", path.display().to_string()),
        (Some(id), Start::Named(name)) => format!("models.{id}.file: {name:?}"),
        (Some(id), Start::File(path)) => format!("models.{id}.file: {:?}", path.display().to_string()),
        (_, Start::Command { .. }) => String::new(),
    };
    let problem = |error: models::ModelError| {
        let hint = error.hint();
        let hint = (!hint.is_empty()).then(|| hint.to_owned());
        let problem = SettingProblem { subject: subject.clone(), fault: error.to_string(), hint };
        let broken = error.broken_file().map(|path| BrokenFile { name: file_name(path), sentence: error.sentence() });
        ModelFlaw { problem, broken }
    };
    let path = match start {
        Start::Named(name) => {
            models::find(&settings.files.models_dir, &settings.files.hf_hub_cache, name).map_err(problem)?
        }
        Start::File(path) => path.clone(),
        Start::Command { .. } => PathBuf::new(),
    };
    let inspected = models::check_readable(&path).map_err(problem)?;
    // Under `models:` it was chosen with its id, so it may be served all the same.
    if model.id.is_none() && models::has_draft_name(&path) {
        return Err(problem(models::ModelError::File { path, problem: Box::new(models::FileProblem::Draft) }));
    }
    Ok((path, inspected))
}

/// Returns the absolute path of llama-server.
///
/// # Errors
///
/// There is none, or `LLAMA_SERVER` names a file that cannot be executed.
fn find_llama_server(settings: &Settings) -> Result<PathBuf, SettingProblem> {
    let problem = |subject: String, fault: &str| {
        SettingProblem {
        subject,
        fault: fault.to_owned(),
        hint: Some("install llama.cpp (brew install llama.cpp, your distribution's package, or a release build) and put llama-server on PATH, or set LLAMA_SERVER".to_owned()),
    }
    };
    match &settings.engine.llama_server {
        None => {
            Err(problem("LLAMA_SERVER".to_owned(), "no llama-server was found on PATH, beside the gateway or in /app"))
        }
        Some(path) if path.is_dir() => Err(problem(
            format!("LLAMA_SERVER={:?}", path.display().to_string()),
            "this is a folder, not a program: name the llama-server in it",
        )),
        Some(path) if !is_executable(path) => Err(problem(
            format!("LLAMA_SERVER={:?}", path.display().to_string()),
            "there is no executable file of this name",
        )),
        // execvp runs a file that it does not recognise as a shell script, so check its first bytes.
        Some(path) if !is_program(path) => {
            Err(problem(format!("LLAMA_SERVER={:?}", path.display().to_string()), "this file is no program"))
        }
        // Absolute, because llama-server may run in another working directory.
        Some(path) => Ok(std::path::absolute(path).unwrap_or_else(|_| path.clone())),
    }
}

/// Whether a file begins like an ELF program or a script with `#!`. A file that may be executed but not read counts
/// too.
fn is_program(path: &Path) -> bool {
    let mut start = [0; 4];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut start));
    match read {
        Ok(()) => start.starts_with(b"#!") || start == *b"\x7fELF",
        Err(error) => error.kind() == ErrorKind::PermissionDenied,
    }
}

fn open_keys(settings: &Settings) -> Result<Store, SettingProblem> {
    let service_key = settings.access.llamagate_api_key.as_ref().map(ServiceKey::reveal);
    Store::open(&settings.access.auth_keys_file, service_key).map_err(|error| {
        let or_variable = match error {
            KeyFileError::Missing { .. } => "; or set LLAMAGATE_API_KEY to a secret of your own",
            _ => "",
        };
        SettingProblem {
            subject: format!("AUTH_KEYS_FILE={:?}", settings.access.auth_keys_file.display().to_string()),
            fault: error.to_string(),
            hint: Some(error.hint() + or_variable),
        }
    })
}

/// Returns a problem if `LOG_FILE` names a folder.
fn bad_log_file(settings: &Settings) -> Option<SettingProblem> {
    let path = settings.logs.log_file.as_ref().filter(|path| settings.logs.log_to_file && path.is_dir())?;
    Some(SettingProblem {
        subject: format!("LOG_FILE={:?}", path.display().to_string()),
        fault: "is a folder".to_owned(),
        hint: Some("name a file; LOG_DIR names the folder of all other logs".to_owned()),
    })
}
