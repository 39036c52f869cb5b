//! `llamagate list`: lists the models on this machine.

use std::process::ExitCode;

use super::arguments::{ListModelsArgs, detect_platform, resolve_inputs};
use super::output::{fail, print, print_stderr, report_problems};
use crate::download::{UnfinishedDownload, unfinished_of_addresses, unfinished_of_hub};
use crate::models::{self, HeldModel, LAST_USED_FILE, LastUsed, ModelPlaces, PlaceKind};
use crate::settings::{Environment, resolve_only};

/// The settings that say where models lie.
const KEYS: &[&str] = &["data_dir", "models_dir", "hf_hub_cache", "model_stores", "ollama_models", "lm_studio_models"];

/// Runs `llamagate list`.
pub(super) fn run(arguments: ListModelsArgs, environment: Environment) -> ExitCode {
    let inputs = resolve_inputs(arguments.flags.0, environment);
    let platform = detect_platform(&inputs.environment);
    let (settings, warnings) = match resolve_only(&inputs, &platform, KEYS) {
        Ok(settings) => settings,
        Err(problems) => return report_problems(&problems),
    };
    for warning in warnings.iter().map(ToString::to_string).chain(settings.missing_stores()) {
        print_stderr(&format!("warning: {warning}\n"));
    }
    let places = settings.model_places();
    let used = LastUsed::load(&settings.files.data_dir.join(LAST_USED_FILE));
    let mut found = models::inventory(&places, &used);
    for sentence in &found.unread {
        print_stderr(&format!("warning: {sentence}\n"));
    }
    found.models.extend(unfinished(&places));
    if !arguments.json {
        print(&models::inventory_table(&found.models));
        return ExitCode::SUCCESS;
    }
    match serde_json::to_string_pretty(&found.models) {
        Ok(json) => print(&(json + "\n")),
        Err(error) => return fail(&error.to_string()),
    }
    ExitCode::SUCCESS
}

/// Returns the downloads that are not complete.
fn unfinished(places: &ModelPlaces) -> Vec<HeldModel> {
    let held = |from: PlaceKind| {
        move |UnfinishedDownload { model, path, arrived, total }: UnfinishedDownload| {
            HeldModel::unfinished(model, from, &path, arrived, total)
        }
    };
    let of_hub = if places.adopts_hub { unfinished_of_hub(&places.hub_cache) } else { Vec::new() };
    let of_addresses = unfinished_of_addresses(&places.models_dir).into_iter().map(held(PlaceKind::Models));
    of_addresses.chain(of_hub.into_iter().map(held(PlaceKind::Hub))).collect()
}
