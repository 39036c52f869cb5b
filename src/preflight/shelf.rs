//! Checks the models below `MODELS_DIR` and of the stores, where they are served under their own names.

use std::path::{Path, PathBuf};

use super::bounds::MOST_BROKEN;
use super::checked::{BrokenFile, CheckedModel, ModelFlaw, file_name};
use super::llama_server::find_llama_server;
use super::model::check_file;
use crate::models::{self, ModelError, ModelPlaces, PlaceKind, RemoteName, Shelf, ShelfModel};
use crate::settings::catalogue::{LocalSettings, ModelSettings, Start};
use crate::settings::{Config, SettingProblem};

/// What may stand before the name of a model of the hub.
const HUB_PREFIXES: [&str; 3] = ["hf.co/", "hf:", "huggingface.co/"];

/// Finds the models below `MODELS_DIR` and of the stores again, if they are served. `named` are the models that the configuration names.
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
    let files = &config.settings.files;
    let scan = shelf.scan(&config.settings.model_places()).map_err(|error| SettingProblem {
        subject: match &error {
            ModelError::Store(_) => "MODEL_STORES".to_owned(),
            _ => format!("MODELS_DIR={:?}", files.models_dir.display().to_string()),
        },
        fault: error.to_string(),
        hint: Some(error.hint().to_owned()),
    })?;
    Ok((shelf_models(model, scan.models, named, &binary), scan.notes))
}

/// Finds the models below `MODELS_DIR` and of the stores for the first time. Without any other model there must be one.
///
/// # Errors
///
/// There is no model at all; if there are broken files, each of them is a problem.
pub(super) fn scan_shelf(
    config: &Config,
    named: &[CheckedModel],
    binary: Option<&Path>,
    shelf: &mut Shelf,
) -> Result<(Vec<CheckedModel>, Vec<String>), Vec<ModelFlaw>> {
    let Some(model) = &config.catalogue.shelf else { return Ok(Default::default()) };
    let places = config.settings.model_places();
    let dir = &places.models_dir;
    let is_alone = config.catalogue.models.is_empty();
    let flaw = |problem| vec![ModelFlaw { problem, missing: None, broken: None }];
    let hint = format!("put .gguf files into {}, set MODELS_DIR, ", dir.display());
    let others = describe_others(&places);
    let scan = match shelf.scan(&places) {
        Ok(scan) => scan,
        Err(error) if is_alone => {
            return Err(flaw(no_model(format!("no model is named, and {error}{others}"), &hint)));
        }
        Err(error) => return Ok((Vec::new(), vec![format!("{error}: no further model is served from there")])),
    };
    match (is_alone && scan.models.is_empty(), scan.broken.is_empty()) {
        (true, true) => {
            let fault = format!("no model is named, and there is none below {}{others}", dir.display());
            Err(flaw(no_model(fault, &hint)))
        }
        (true, false) => {
            let place = |path: &Path| if path.starts_with(dir) { "MODELS_DIR" } else { "MODEL_STORES" };
            let flaw = |broken: models::BrokenShelfFile| ModelFlaw {
                problem: SettingProblem {
                    subject: format!("{}: {:?}", place(&broken.path), broken.path.display().to_string()),
                    fault: format!("this file {}", broken.fault),
                    hint: Some(broken.hint.to_owned()),
                },
                missing: None,
                broken: Some(Box::new(BrokenFile { name: file_name(&broken.path), sentence: broken.sentence })),
            };
            Err(scan.broken.into_iter().take(MOST_BROKEN).map(flaw).collect())
        }
        (false, _) => {
            let found = binary.map(|binary| shelf_models(model, scan.models, named, binary));
            Ok((found.unwrap_or_default(), scan.notes))
        }
    }
}

/// Returns where else models were looked for, to follow a sentence about `MODELS_DIR`.
fn describe_others(places: &ModelPlaces) -> String {
    let others = places.adopted().filter(|(kind, folder)| *kind != PlaceKind::Models && folder.is_dir());
    let named: Vec<String> =
        others.map(|(kind, folder)| format!("in {} ({})", kind.title(), folder.display())).collect();
    if named.is_empty() { String::new() } else { format!("; nor is there one {}", named.join(", nor ")) }
}

/// Returns the problem that there is no model. The hint begins with `first`.
pub(super) fn no_model(fault: String, first: &str) -> SettingProblem {
    let others =
        "run `llamagate serve FILE.gguf`, set MODEL_NAME or MODEL_PATH, or list models in a configuration file";
    SettingProblem { subject: "MODEL_NAME".to_owned(), fault, hint: Some(format!("{first}{others}")) }
}

/// Returns the other spellings of the name of a model of the hub, by which it can be pulled too; none for other names.
fn hub_spellings(alias: &str) -> Vec<String> {
    let file = format!("{alias}.gguf");
    let spelled = |name: &str| HUB_PREFIXES.map(|prefix| format!("{prefix}{name}")).to_vec();
    match (RemoteName::parse(alias), RemoteName::parse(&file)) {
        (Ok(RemoteName::Model { .. }), _) => spelled(alias),
        (_, Ok(RemoteName::File { .. })) => [spelled(&file), vec![file]].concat(),
        _ => Vec::new(),
    }
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
            hidden_aliases: model.aliases.iter().flat_map(|alias| hub_spellings(alias)).collect(),
            aliases: model.aliases.into_iter().filter(|alias| !is_named(alias)).collect(),
            local: Some(local),
            ..template.clone()
        };
        // Its projector is not configured, so nothing can be wrong with it.
        let mut checked = check_file(settings, model.path, model.model, binary, |_| Ok(model.projector)).ok()?;
        checked.look_at_files();
        Some(checked)
    };
    found.into_iter().filter_map(checked).collect()
}
