//! `llamagate fit`: tells whether a model fits into memory, from its header alone.

use std::path::Path;
use std::process::ExitCode;

use serde_json::json;

use super::arguments::FitArgs;
use super::command_settings::{DOWNLOADS, LOADS, OWN_PLACES, STORES, print_warning, resolve_groups};
use super::output::{EXIT_CONFIG, print, print_stderr};
use crate::download::{DownloadError, Downloader};
use crate::fit::{FitAnswer, FitMachine, KnownModel, ModelSource, NoFit};
use crate::models::{RemoteName, shown_name};
use crate::settings::Environment;
use crate::settings::options::Settings;
use crate::settings::values::{ByteSize, Value as _};

/// Runs `llamagate fit`.
pub(super) fn run(arguments: FitArgs, environment: Environment) -> ExitCode {
    let settings = match resolve_groups(arguments.flags.0.clone(), environment, &[OWN_PLACES, STORES, DOWNLOADS, LOADS])
    {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    match answer(&arguments, &settings) {
        Ok(found) => {
            let name = shown_name(&arguments.name);
            print(&if arguments.json { format!("{}\n", found.as_json(&name)) } else { found.described(&name) });
            if found.report.fits { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => report(&error, arguments.json),
    }
}

fn answer(arguments: &FitArgs, settings: &Settings) -> Result<FitAnswer, NoFit> {
    let given = arguments.memory.as_deref().map(ByteSize::parse).transpose();
    let given = given.map_err(|rejected| NoFit::Value(format!("--memory: expected {}", rejected.allowed)))?;
    let machine = FitMachine::of_settings(settings, given.map(|size| size.0 as u64), None)?;
    Ok(machine.compare(&known_model(&arguments.name, settings)?))
}

/// Finds what is known of the model: on the disk, else on the hub.
fn known_model(name: &str, settings: &Settings) -> Result<KnownModel, NoFit> {
    let path = Path::new(name);
    let source = match path.is_file() {
        true => ModelSource::Disk(path.to_owned()),
        false => ModelSource::find(&settings.model_places(), name)?,
    };
    match source {
        ModelSource::Disk(path) => KnownModel::of_file(&path),
        ModelSource::Network(remote) => remote_model(name, &remote, settings),
    }
}

fn remote_model(name: &str, remote: &RemoteName, settings: &Settings) -> Result<KnownModel, NoFit> {
    if settings.downloads.hf_hub_offline {
        return Err(DownloadError::Offline { name: shown_name(name) }.into());
    }
    let machine = |what: &str, error: std::io::Error| NoFit::Machine(format!("{what}: {error}"));
    let (downloader, warning) =
        Downloader::of_settings(settings).map_err(|error| machine("no client for the hub", error))?;
    warning.iter().for_each(print_warning);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| machine("no runtime", error))?;
    Ok(runtime.block_on(downloader.read_header(remote))?.into())
}

fn report(error: &NoFit, is_json: bool) -> ExitCode {
    let (message, hint) = (error.to_string(), error.hint());
    if is_json {
        print(&format!("{}\n", json!({"error": message, "hint": hint})));
    } else {
        let hint = hint.map(|hint| format!("\n    hint: {hint}")).unwrap_or_default();
        print_stderr(&format!("error: {message}{hint}\n"));
    }
    let is_of_settings = match error {
        NoFit::Model(error) => error.broken_file().is_none(),
        NoFit::Download(error) => error.is_of_settings(),
        NoFit::Value(_) => true,
        NoFit::NoMemory | NoFit::Machine(_) => false,
    };
    if is_of_settings { ExitCode::from(EXIT_CONFIG) } else { ExitCode::FAILURE }
}
