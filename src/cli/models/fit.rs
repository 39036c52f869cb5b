//! `llamagate fit`: tells whether a model fits into memory, from its header alone.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use serde_json::json;

use crate::cli::arguments::FitArgs;
use crate::cli::command_settings::{DOWNLOADS, LOADS, OWN_PLACES, STORES, print_warning, resolve_groups};
use crate::cli::inputs::{detect_platform, resolve_inputs};
use crate::cli::output::{EXIT_CONFIG, print, print_stderr};
use crate::cli::runtime;
use crate::download::{DownloadError, Downloader};
use crate::fit::{FitAnswer, FitMachine, KnownModel, ModelSource, NoFit};
use crate::models::{RemoteName, shown_name};
use crate::settings::catalogue::{ModelSettings, Start};
use crate::settings::options::{Engine, Settings};
use crate::settings::values::{ByteSize, Value as _};
use crate::settings::{Environment, examine};

/// Runs `llamagate fit`.
pub(in crate::cli) fn run(arguments: FitArgs, environment: Environment) -> ExitCode {
    let configured = ConfiguredModel::find(&arguments.name, &arguments.flags.0, &environment);
    let groups = [OWN_PLACES, STORES, DOWNLOADS, LOADS];
    let settings = match resolve_groups(arguments.flags.0.clone(), environment, &groups) {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    match answer(&arguments, settings, configured) {
        Ok(found) => {
            let name = shown_name(&arguments.name);
            print(&if arguments.json { format!("{}\n", found.as_json(&name)) } else { found.described(&name) });
            if found.report.fits { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => report(&error, arguments.json),
    }
}

/// A model that the configuration names, and llama-server runs.
struct ConfiguredModel {
    start: Start,
    engine: Engine,
}

impl ConfiguredModel {
    /// Finds the model with this id or alias; `None` if there is none. Faults of the configuration elsewhere do not matter.
    fn find(name: &str, flags: &BTreeMap<&'static str, String>, environment: &Environment) -> Option<Self> {
        let inputs = resolve_inputs(flags.clone(), environment.clone());
        let platform = detect_platform(&inputs.environment);
        let models = examine(&inputs, &platform).shown?.config.catalogue.models;
        let has_name = |model: &ModelSettings| {
            let aliases = model.aliases.iter().chain(&model.hidden_aliases);
            model.known_id().as_deref() == Some(name) || aliases.into_iter().any(|alias| alias == name)
        };
        let local = models.into_iter().find(has_name)?.local?;
        let is_file = !matches!(local.start, Start::Command { .. });
        is_file.then_some(Self { start: local.start, engine: local.engine })
    }

    /// Returns its settings, but for those that a flag of this command has.
    fn engine_with(self, flags: &BTreeMap<&'static str, String>, given: &Engine) -> Engine {
        let mut engine = self.engine;
        for flag in flags.keys() {
            match *flag {
                "ctx" => engine.ctx = given.ctx,
                "parallel" | "max_concurrent_requests" => engine.parallel = given.parallel,
                "ngl" => engine.ngl = given.ngl,
                "extra_args" => engine.extra_args.clone_from(&given.extra_args),
                _ => {}
            }
        }
        engine
    }
}

fn answer(
    arguments: &FitArgs,
    mut settings: Settings,
    configured: Option<ConfiguredModel>,
) -> Result<FitAnswer, NoFit> {
    let start = configured.as_ref().map(|model| model.start.clone());
    if let Some(model) = configured {
        settings.engine = model.engine_with(&arguments.flags.0, &settings.engine);
    }
    let given = arguments.memory.as_deref().map(ByteSize::parse).transpose();
    let given = given.map_err(|rejected| NoFit::Value(format!("--memory: expected {}", rejected.allowed)))?;
    let machine = FitMachine::of_settings(&settings, given.map(|size| size.0 as u64), None)?;
    Ok(machine.compare(&known_model(&arguments.name, start.as_ref(), &settings)?))
}

/// Finds what is known of the model: where its configuration says, on the disk, else on the hub.
fn known_model(name: &str, start: Option<&Start>, settings: &Settings) -> Result<KnownModel, NoFit> {
    let (path, name) = match start {
        Some(Start::File(path)) => (path.as_path(), name),
        Some(Start::Named(file)) => (Path::new(file), file.as_str()),
        _ => (Path::new(name), name),
    };
    let is_path = matches!(start, Some(Start::File(_))) || start.is_none() && path.is_file();
    let source = match is_path {
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
    let (downloader, warning) =
        Downloader::of_settings(settings).map_err(|error| NoFit::Machine(format!("no client for the hub: {error}")))?;
    warning.iter().for_each(print_warning);
    let runtime = runtime::on_this_thread().map_err(NoFit::Machine)?;
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
