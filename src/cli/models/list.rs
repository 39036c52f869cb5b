//! `llamagate list`: lists the models on this machine.

use std::process::ExitCode;

use crate::cli::arguments::ListModelsArgs;
use crate::cli::command_settings::{OWN_PLACES, STORES, print_warning, resolve_groups};
use crate::cli::output::{fail, print};
use crate::download::{UnfinishedDownload, unfinished_of_addresses, unfinished_of_hub};
use crate::models::{self, HeldModel, LAST_USED_FILE, LastUsed, ModelPlaces, PlaceKind};
use crate::settings::Environment;

/// Runs `llamagate list`.
pub(in crate::cli) fn run(arguments: ListModelsArgs, environment: Environment) -> ExitCode {
    let settings = match resolve_groups(arguments.flags.0, environment, &[OWN_PLACES, STORES]) {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    settings.missing_stores().into_iter().for_each(|warning| print_warning(&warning));
    let places = settings.model_places();
    let used = LastUsed::load(&settings.files.data_dir.join(LAST_USED_FILE));
    let mut found = models::inventory(&places, &used);
    found.unread.iter().for_each(print_warning);
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
