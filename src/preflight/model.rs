//! Checks one model: finds its file and its projector, and reads their headers.

use std::path::{Path, PathBuf};

use super::checked::{
    BrokenFile, CheckedModel, FlawedModel, FoundCompanions, MissingModel, ModelFile, ModelFlaw, file_name,
};
use super::companions::{configured_projector, hint_of};
use super::heads::read_heads;
use super::llama_server::file_start;
use crate::models::{self, KindContradiction, ModelKind, Projector, ProjectorSearch};
use crate::settings::catalogue::{ModelSettings, ProjectorSetting, Start};
use crate::settings::{SettingProblem, Settings};

/// The arguments of llama-server that set the kind of a model that is none for chat.
const KIND_ARGUMENTS: &str = "--embeddings or --reranking";

/// Checks one model and its projector. Returns `None` if its file is good but there is no llama-server, which is a separate
/// problem. What else goes with it is not looked for yet.
///
/// # Errors
///
/// The file cannot be found or served.
pub(super) fn check_model(
    settings: &Settings,
    model: &ModelSettings,
    binary: Option<&Path>,
) -> Result<Option<FlawedModel>, ModelFlaw> {
    let Some(start) = file_start(model) else {
        let kind = model.kind.unwrap_or(ModelKind::Chat);
        let id = model.id.clone().unwrap_or_default();
        return Ok(Some(CheckedModel { kind, settings: model.clone(), ..CheckedModel::without_file(id) }.into()));
    };
    let (path, inspected) = find_model_file(settings, model, start)?;
    let Some(binary) = binary else { return Ok(None) };
    let mut flaws = Vec::new();
    let search = |path: &Path| match model.local.as_ref().map(|local| &local.projector) {
        None | Some(ProjectorSetting::Never) => Ok(ProjectorSearch::default()),
        Some(ProjectorSetting::Auto) => Ok(match start {
            Start::Named(name) => models::find_projector_of(&settings.model_places(), name, path, &inspected.metadata),
            _ => models::find_projector(path, &inspected.metadata),
        }),
        Some(ProjectorSetting::File(name)) => {
            Ok(configured_projector(settings, model, path, name).unwrap_or_else(|flaw| {
                flaws.push(flaw);
                ProjectorSearch::default()
            }))
        }
    };
    let checked = check_file(model.clone(), path, inspected.clone(), binary, search)?;
    if let Some(contradiction) = checked.kind_contradiction() {
        flaws.push(contradicted(&checked, contradiction));
        return Ok(Some(FlawedModel { model: checked, flaws }));
    }
    let heads = read_heads(settings, &checked).unwrap_or_else(|flaw| {
        flaws.push(flaw);
        None
    });
    Ok(Some(FlawedModel { model: CheckedModel { heads, ..checked }, flaws }))
}

/// Returns the problem that a model has another kind than its file can serve.
fn contradicted(model: &CheckedModel, contradiction: KindContradiction) -> ModelFlaw {
    let subject = match model.settings.kind {
        Some(kind) => format!("models.{}.kind: {kind}", model.id),
        None => format!("{} in EXTRA_ARGS or args of the model {:?}", KIND_ARGUMENTS, model.id),
    };
    let KindContradiction { fault, hint } = contradiction;
    let problem = SettingProblem { subject, fault: fault.to_owned(), hint: Some(hint.to_owned()) };
    ModelFlaw { problem, missing: None, broken: None }
}

/// Describes a model whose file has been read. `search` finds its projector, unless llama-server's arguments decide.
///
/// # Errors
///
/// The projector that is configured cannot be used.
pub(super) fn check_file(
    settings: ModelSettings,
    path: PathBuf,
    inspected: models::InspectedModel,
    binary: &Path,
    search: impl FnOnce(&Path) -> Result<ProjectorSearch, ModelFlaw>,
) -> Result<CheckedModel, ModelFlaw> {
    let id = settings.id.clone().unwrap_or_else(|| match file_start(&settings) {
        Some(Start::Named(name)) => models::id_of_found(name, &path),
        _ => models::id_of(&path),
    });
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
    let ProjectorSearch { found, passed_over, tied, unused, broken } = projectors;
    let projector = found.map(|found| Projector { path: absolute(found.path), ..found });
    let (path, binary, companions) = (absolute(path), binary.to_owned(), FoundCompanions::default());
    let file = ModelFile { path, modified, model: inspected, binary, projector, companions };
    Ok(CheckedModel {
        kind,
        settings,
        file: Some(file),
        passed_over_projectors: passed_over,
        tied_projectors: tied,
        unused_projectors: unused,
        broken_projectors: broken,
        ..CheckedModel::without_file(id)
    })
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
        (_, Start::Named(name)) if settings.files.model_name.as_ref() == Some(name) => {
            format!("MODEL_NAME={:?}", models::shown_name(name))
        }
        (_, Start::File(path)) if settings.files.model_path.as_ref() == Some(path) => {
            format!("MODEL_PATH={:?}", path.display().to_string())
        }
        (None, Start::Named(name)) => format!("MODEL_NAME={:?}", models::shown_name(name)),
        (None, Start::File(path)) => format!("MODEL_PATH={:?}", path.display().to_string()),
        (Some(id), Start::Named(name)) => format!("models.{id}.file: {:?}", models::shown_name(name)),
        (Some(id), Start::File(path)) => format!("models.{id}.file: {:?}", path.display().to_string()),
        (_, Start::Command { .. }) => String::new(),
    };
    let problem = |error: models::ModelError| {
        let hint = match start {
            Start::Named(name) => hint_of(settings, name, &error),
            _ => Some(error.hint().to_owned()).filter(|hint| !hint.is_empty()),
        };
        let problem = SettingProblem { subject: subject.clone(), fault: error.to_string(), hint };
        let broken =
            error.broken_file().map(|path| Box::new(BrokenFile { name: file_name(path), sentence: error.sentence() }));
        let missing = match start {
            Start::Named(given) if error.is_missing() && !settings.downloads.hf_hub_offline => {
                let name = models::RemoteName::parse(given).ok();
                // A folder of this name is what was meant, and a stranger's repository must not stand in for it.
                let begins_here =
                    given.split_once('/').is_some_and(|(folder, _)| settings.files.models_dir.join(folder).is_dir());
                name.filter(|_| !begins_here).map(|name| {
                    let (given, locally) = (models::shown_name(given), error.absence());
                    Box::new(MissingModel { subject: subject.clone(), given, name, locally })
                })
            }
            _ => None,
        };
        ModelFlaw { problem, missing, broken }
    };
    let path = match start {
        Start::Named(name) => models::find(&settings.model_places(), name).map_err(problem)?,
        Start::File(path) => {
            models::refuse_url(&path.to_string_lossy()).map_err(problem)?;
            path.clone()
        }
        Start::Command { .. } => PathBuf::new(),
    };
    let mut inspected = models::check_readable(&path).map_err(problem)?;
    if let Start::Named(name) = start {
        models::add_meaning_of_name(&mut inspected.metadata, name);
    }
    // Under `models:` it was chosen with its id, so it may be served all the same.
    if model.id.is_none() && models::has_draft_name(&path) {
        return Err(problem(models::ModelError::File { path, problem: Box::new(models::FileProblem::Draft) }));
    }
    Ok((path, inspected))
}
