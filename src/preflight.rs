//! What must hold before anything is started: the model files, the programs, the keys, enough file descriptors. Problems
//! come all at once. Also what works but hardly as it was meant, which only shows once the files have been looked at.

use crate::descriptors::{self, Descriptors};
use crate::keys::Store;
use crate::models::{self, ModelKind};
use crate::settings::catalogue::{Catalogue, ModelSettings, Start};
use crate::settings::{Config, Environment, RunpodQueue, SettingProblem, Settings, is_executable};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What was found good without a look at any model.
pub struct Prepared {
    /// The keys, where any route asks for one.
    pub keys: Option<Store>,
    /// Who gets how many file descriptors.
    pub descriptors: Descriptors,
    /// The queue of the platform that jobs are taken from.
    pub queue: Option<RunpodQueue>,
}

/// Why the models cannot be served.
pub struct Unservable {
    /// All that is wrong with them.
    pub problems: Vec<SettingProblem>,
    /// Where nothing is wrong but files: the right ones are there, and this one is broken.
    pub broken: Option<BrokenFile>,
}

/// A model file that is there and cannot be served.
pub struct BrokenFile {
    /// Its name, without a path.
    pub name: String,
    /// What is wrong with it and what to do, without a path too.
    pub sentence: String,
}

/// What is wrong with a model.
struct ModelFlaw {
    problem: SettingProblem,
    broken: Option<BrokenFile>,
}

/// A model that can be served, as far as that is known before it is.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckedModel {
    /// The id that clients use.
    pub id: String,
    /// What the model is for.
    pub kind: ModelKind,
    /// What was configured.
    pub settings: ModelSettings,
    /// The file of a model that llama-server serves, and the binary.
    pub file: Option<ModelFile>,
}

/// A model file and the program that serves it.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelFile {
    /// The file, or the first of its parts, whatever the working directory is.
    pub path: PathBuf,
    /// When it was written last: another file may come under its name.
    pub modified: Option<SystemTime>,
    /// What it says of itself.
    pub model: models::InspectedModel,
    /// The llama-server binary.
    pub binary: PathBuf,
}

/// The id of what stands behind a service with `MOCK_BACKEND` and no model.
const MOCK_ID: &str = "mock";

/// Looks at everything; starts nothing.
pub fn inspect(
    config: &Config,
    environment: &Environment,
) -> Result<(Prepared, Vec<CheckedModel>), Vec<SettingProblem>> {
    match (models(config, environment), ready(config, environment)) {
        (Ok(models), Ok(ready)) => Ok((ready, models)),
        (models, ready) => {
            let of_models = models.err().map(|unservable| unservable.problems);
            Err(of_models.into_iter().chain(ready.err()).flatten().collect())
        }
    }
}

/// Looks at what takes no time, however slow the disk with the models is.
pub fn ready(config: &Config, environment: &Environment) -> Result<Prepared, Vec<SettingProblem>> {
    let settings = &config.settings;
    let mut problems = Vec::new();
    let queue = RunpodQueue::read(settings, environment).map_err(|found| problems.extend(found)).ok().flatten();
    let asks_for_keys = settings.access.auth_enabled || settings.access.metrics_auth_enabled;
    // Who takes jobs from a queue need not let anybody in by the door: without a key file no key opens it.
    let keys = if asks_for_keys && (queue.is_none() || settings.access.auth_keys_file.exists()) {
        keys(settings).map_err(|problem| problems.push(problem)).ok()
    } else {
        None
    };
    let descriptors = descriptors::share_out(config).map_err(|problem| problems.push(problem)).ok();
    match descriptors {
        Some(descriptors) if problems.is_empty() => Ok(Prepared { keys, descriptors, queue }),
        _ => Err(problems),
    }
}

/// Looks at every model and at the programs that serve them.
pub fn models(config: &Config, environment: &Environment) -> Result<Vec<CheckedModel>, Unservable> {
    let Config { settings, catalogue } = config;
    let configured = &catalogue.models;
    if settings.engine.mock_backend {
        let mock = |settings: &ModelSettings| CheckedModel {
            id: settings.id.clone().unwrap_or_else(|| MOCK_ID.to_owned()),
            kind: settings.kind.unwrap_or(ModelKind::Chat),
            settings: ModelSettings { local: None, remotes: Vec::new(), ..settings.clone() },
            file: None,
        };
        let none = configured.is_empty().then(ModelSettings::default);
        return Ok(configured.iter().chain(&none).map(mock).collect());
    }
    let mut problems = Vec::new();
    if configured.is_empty() {
        problems.push(SettingProblem {
            subject: "MODEL_NAME".to_owned(),
            fault: "no model is named".to_owned(),
            hint: Some(
                "say `llamagate serve FILE.gguf`, set MODEL_NAME or MODEL_PATH, or list models in a configuration file"
                    .to_owned(),
            ),
        });
    }
    let needs_program = configured.is_empty() || configured.iter().any(|model| names_file(model).is_some());
    let binary = match needs_program {
        true => program(settings).map_err(|problem| problems.push(problem)).ok(),
        false => None,
    };
    let mut shelved: Vec<CheckedModel> = Vec::with_capacity(configured.len());
    let mut broken = Vec::new();
    problems.extend(configured.iter().filter_map(|model| missing_command(model, environment)));
    for model in configured {
        match shelve(settings, model, binary.as_deref()) {
            Ok(Some(model)) => match shelved.iter().any(|other| other.id == model.id) {
                false => shelved.push(model),
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
    if problems.is_empty() {
        return Ok(shelved);
    }
    let broken = if broken.len() == problems.len() { broken.into_iter().next() } else { None };
    Err(Unservable { problems, broken })
}

/// What works, but hardly as it was meant.
pub fn warnings(catalogue: &Catalogue, models: &[CheckedModel]) -> Vec<String> {
    let mut doubts = Vec::new();
    for model in models {
        for name in model.settings.aliases.iter().chain([&model.id]) {
            if ["chat", "embeddings", "rerank"].contains(&&**name) {
                doubts.push(format!("the model {name:?} cannot be looked up: /v1/models/{name} is a list of models"));
            } else if name.ends_with("/load") || name.ends_with("/unload") {
                doubts.push(format!("the model {name:?} has a name that is an order at /v1/models/{name}"));
            }
        }
    }
    for (name, others) in &catalogue.fallbacks {
        let kinds: Vec<ModelKind> = called(models, name).map(|model| model.kind).collect();
        for other in others {
            let mut found = called(models, other).peekable();
            let Some(kind) = found.peek().map(|model| model.kind) else { continue };
            if let Some(own) = kinds.first().filter(|_| !found.any(|model| kinds.contains(&model.kind))) {
                doubts.push(format!("fallbacks.{name}: {other} never takes over: its kind is {kind}, not {own}"));
            }
        }
    }
    doubts
}

/// The models that this name means: that of an id or another name, or those of a tier.
fn called<'a>(models: &'a [CheckedModel], name: &'a str) -> impl Iterator<Item = &'a CheckedModel> {
    models.iter().filter(move |model| {
        let is_of_tier = model.settings.tier.as_deref().is_some_and(|tier| tier.eq_ignore_ascii_case(name));
        model.id == name || is_of_tier || model.settings.aliases.iter().any(|alias| alias == name)
    })
}

/// What is wrong if the program of a model's command is not there.
fn missing_command(model: &ModelSettings, environment: &Environment) -> Option<SettingProblem> {
    let Start::Command { argv, .. } = &model.local.as_ref()?.start else { return None };
    let program = argv.first()?;
    // Without a PATH the system looks in places of its own.
    let (is_there, fault) = match program.contains('/') {
        true => (is_executable(Path::new(program)), "there is no executable file of this name"),
        false => (
            environment.get("PATH").is_none() || environment.find_program(program).is_some(),
            "no program of this name was found on PATH",
        ),
    };
    (!is_there).then(|| SettingProblem {
        subject: format!("models.{}.command: {program:?}", model.id.as_deref().unwrap_or_default()),
        fault: fault.to_owned(),
        hint: Some("install it, or say where it is".to_owned()),
    })
}

/// The file that a model names, if llama-server serves it.
fn names_file(model: &ModelSettings) -> Option<&Start> {
    let start = &model.local.as_ref()?.start;
    (!matches!(start, Start::Command { .. })).then_some(start)
}

/// Looks at one model; none if there is no program to serve it with, which is a problem of its own.
fn shelve(
    settings: &Settings,
    model: &ModelSettings,
    binary: Option<&Path>,
) -> Result<Option<CheckedModel>, ModelFlaw> {
    let Some(start) = names_file(model) else {
        let id = model.id.clone().unwrap_or_default();
        let kind = model.kind.unwrap_or(ModelKind::Chat);
        return Ok(Some(CheckedModel { id, kind, settings: model.clone(), file: None }));
    };
    let (path, checked) = find(settings, model, start)?;
    let Some(binary) = binary else { return Ok(None) };
    let id = model.id.clone().unwrap_or_else(|| models::id_of(&path));
    let kind = model.kind.unwrap_or_else(|| checked.kind());
    let modified = path.metadata().and_then(|metadata| metadata.modified()).ok();
    // The working directory of a child may differ.
    let path = std::path::absolute(&path).unwrap_or(path);
    let file = ModelFile { path, modified, model: checked, binary: binary.to_owned() };
    Ok(Some(CheckedModel { id, kind, settings: model.clone(), file: Some(file) }))
}

/// Finds a model's file and reads what it says of itself.
fn find(
    settings: &Settings,
    model: &ModelSettings,
    start: &Start,
) -> Result<(PathBuf, models::InspectedModel), ModelFlaw> {
    let subject = match (&model.id, start) {
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
        let broken = error.broken_file().map(|path| BrokenFile {
            name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            sentence: error.sentence(),
        });
        ModelFlaw { problem, broken }
    };
    let path = match start {
        Start::Named(name) => {
            models::find(&settings.files.models_dir, &settings.files.hf_hub_cache, name).map_err(problem)?
        }
        Start::File(path) => path.clone(),
        Start::Command { .. } => PathBuf::new(),
    };
    let checked = models::check_readable(&path).map_err(problem)?;
    Ok((path, checked))
}

fn program(settings: &Settings) -> Result<PathBuf, SettingProblem> {
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
        Some(path) if !is_executable(path) => Err(problem(
            format!("LLAMA_SERVER={:?}", path.display().to_string()),
            "there is no executable file of this name",
        )),
        // The system would take any text for a shell script.
        Some(path) if !is_program(path) => {
            Err(problem(format!("LLAMA_SERVER={:?}", path.display().to_string()), "this file is no program"))
        }
        // The working directory of a child may differ.
        Some(path) => Ok(std::path::absolute(path).unwrap_or_else(|_| path.clone())),
    }
}

/// Whether a file begins as programs do, or as scripts that name their interpreter. One that cannot be read may be one.
fn is_program(path: &Path) -> bool {
    let mut start = [0; 4];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut start));
    match read {
        Ok(()) => start.starts_with(b"#!") || start == *b"\x7fELF",
        Err(error) => error.kind() == ErrorKind::PermissionDenied,
    }
}

fn keys(settings: &Settings) -> Result<Store, SettingProblem> {
    Store::open(&settings.access.auth_keys_file).map_err(|error| SettingProblem {
        subject: format!("AUTH_KEYS_FILE={:?}", settings.access.auth_keys_file.display().to_string()),
        fault: error.to_string(),
        hint: Some(error.hint()),
    })
}
