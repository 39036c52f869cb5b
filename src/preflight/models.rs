//! Checks all models and the programs that serve them.

use std::path::Path;

use super::checked::{CheckedModel, CheckedModels, FlawedModel, MissingModel, ModelFlaw, Unservable};
use super::companions::{add_companions, missing_companions};
use super::llama_server::{find_llama_server, needs_llama_server, unknown_arguments};
use super::model::check_model;
use super::shelf::{no_model, scan_shelf};
use crate::models::{ModelKind, Shelf};
use crate::settings::catalogue::{ModelSettings, Start};
use crate::settings::{Config, Environment, SettingProblem, Settings, is_executable};
use crate::worker::LlamaHelp;

/// The model id that a service with `MOCK_BACKEND` and no configured model uses.
const MOCK_ID: &str = "mock";

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
    let (mut broken, mut missing) = (Vec::new(), Vec::new());
    problems.extend(configured.iter().filter_map(|model| missing_command(model, environment)));
    for model in configured {
        let (found, flaws) = match check_model(settings, model, binary.as_deref()) {
            Ok(None) => continue,
            Ok(Some(found)) => {
                let FlawedModel { model, flaws } = add_companions(settings, found, help);
                (Some(model), flaws)
            }
            Err(flaw) => (None, vec![flaw]),
        };
        let path = found.as_ref().and_then(|found| Some(found.file.as_ref()?.path.as_path()));
        if flaws.iter().any(|flaw| flaw.missing.is_some()) {
            missing.extend(missing_of(settings, model, path, &flaws));
        }
        // An id that comes from a file name is known only here, so this is the first place that sees it twice.
        match found.filter(|_| flaws.is_empty()) {
            Some(model) if checked.iter().any(|other| other.id == model.id) => problems.push(SettingProblem {
                subject: model.id,
                fault: "two models have this id".to_owned(),
                hint: Some("MODEL_NAME and MODEL_PATH make a model of their own, named after its file".to_owned()),
            }),
            found => checked.extend(found),
        }
        for flaw in flaws.into_iter().filter(|flaw| flaw.missing.is_none()) {
            problems.push(flaw.problem);
            broken.extend(flaw.broken.map(|file| *file));
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
    let mut models = CheckedModels { named: checked, missing, ..CheckedModels::default() };
    match scan_shelf(config, &models.named, binary.as_deref(), shelf) {
        Ok(found) => (models.shelf, models.notes) = found,
        Err(flaws) => {
            for flaw in flaws {
                problems.push(flaw.problem);
                broken.extend(flaw.broken.map(|file| *file));
            }
        }
    }
    if problems.is_empty() {
        models.named.iter_mut().for_each(CheckedModel::look_at_files);
        return Ok(models);
    }
    // With a problem of another kind, replacing the broken file would not be enough.
    let broken = if broken.len() == problems.len() { broken.into_iter().next() } else { None };
    Err(Unservable { problems, broken })
}

/// Returns what a download may bring of a model: what its flaws name, then what was not looked for because of them. `path` is
/// its file, if that is there.
fn missing_of(
    settings: &Settings,
    model: &ModelSettings,
    path: Option<&Path>,
    flaws: &[ModelFlaw],
) -> Vec<MissingModel> {
    let mut missing: Vec<MissingModel> = flaws.iter().filter_map(|flaw| flaw.missing.as_deref().cloned()).collect();
    for other in missing_companions(settings, model, path) {
        if !missing.contains(&other) {
            missing.push(other);
        }
    }
    missing
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
