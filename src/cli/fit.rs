//! `llamagate fit`: tells whether a model fits into memory, from its header alone.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use serde_json::json;

use super::arguments::FitArgs;
use super::command_settings::{DOWNLOADS, LOADS, OWN_PLACES, STORES, print_warning, resolve_groups};
use super::output::{EXIT_CONFIG, print, print_stderr};
use crate::download::{DownloadError, Downloader, RemoteHeader};
use crate::models::estimate::{FitReport, MemoryDemand, MemoryLimit, MemoryOptions};
use crate::models::list::printable;
use crate::models::{self, Metadata, ModelError, RemoteName, human_size, shown_name};
use crate::preflight::{FoundMemory, memory_limit};
use crate::settings::Environment;
use crate::settings::options::Settings;
use crate::settings::values::{ByteSize, Value as _};

/// What is known of a model without its weights.
struct KnownModel {
    metadata: Metadata,
    size_bytes: u64,
    projector_bytes: u64,
}

/// Why there is no answer.
enum NoAnswer {
    Model(ModelError),
    Download(DownloadError),
    /// A value of the command line.
    Value(String),
    /// Something of this machine.
    Machine(String),
}

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
            print(&if arguments.json { found.as_json(&name) } else { found.described(&name) });
            if found.report.fits { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => report(&error, arguments.json),
    }
}

/// A report, with what it was made for.
struct Answer {
    report: FitReport,
    memory: FoundMemory,
    ctx: u64,
    slots: u64,
    trained: Option<u64>,
}

fn answer(arguments: &FitArgs, settings: &Settings) -> Result<Answer, NoAnswer> {
    let given = arguments.memory.as_deref().map(ByteSize::parse).transpose();
    let given = given.map_err(|rejected| NoAnswer::Value(format!("--memory: expected {}", rejected.allowed)))?;
    let options = MemoryOptions::of_arguments(&settings.engine.extra_args.words);
    let options = options.map_err(|words| NoAnswer::Value(format!("EXTRA_ARGS: {words:?} has no meaning")))?;
    let model = known_model(&arguments.name, settings)?;
    let memory = memory_limit(given.map(|size| size.0 as u64), settings);
    let memory = memory.ok_or_else(|| {
        NoAnswer::Machine("this machine does not tell how much memory is free; give --memory".to_owned())
    })?;
    let (ctx, slots) = (u64::from(settings.engine.ctx.0), settings.engine.parallel.get() as u64);
    let demand = MemoryDemand { ctx_total: ctx.saturating_mul(slots), slots, options };
    let report = FitReport::of(&model.metadata, model.size_bytes, model.projector_bytes, &demand, memory.limit);
    Ok(Answer { report, memory, ctx, slots, trained: model.metadata.context_length })
}

/// Finds what is known of the model: on the disk, else on the hub.
fn known_model(name: &str, settings: &Settings) -> Result<KnownModel, NoAnswer> {
    let path = match Path::new(name).is_file() {
        true => Ok(Path::new(name).to_owned()),
        false => models::find(&settings.model_places(), name),
    };
    match (path, RemoteName::parse(name)) {
        (Ok(path), _) => local_model(&path),
        (Err(error), Ok(remote)) if error.is_missing() => remote_model(name, &remote, settings),
        (Err(error), _) => Err(NoAnswer::Model(error)),
    }
}

fn local_model(path: &Path) -> Result<KnownModel, NoAnswer> {
    let model = models::check_readable(path).map_err(NoAnswer::Model)?;
    let projector = models::find_projector(path, &model.metadata).found.map_or(0, |found| found.size_bytes);
    Ok(KnownModel { metadata: model.metadata, size_bytes: model.size_bytes, projector_bytes: projector })
}

fn remote_model(name: &str, remote: &RemoteName, settings: &Settings) -> Result<KnownModel, NoAnswer> {
    if settings.downloads.hf_hub_offline {
        return Err(NoAnswer::Download(DownloadError::Offline { name: shown_name(name) }));
    }
    let machine = |what: &str, error: std::io::Error| NoAnswer::Machine(format!("{what}: {error}"));
    let (downloader, warning) =
        Downloader::of_settings(settings).map_err(|error| machine("no client for the hub", error))?;
    warning.iter().for_each(print_warning);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| machine("no runtime", error))?;
    let header = runtime.block_on(downloader.read_header(remote)).map_err(NoAnswer::Download)?;
    let RemoteHeader { metadata, size_bytes, projector_bytes, .. } = header;
    Ok(KnownModel { metadata, size_bytes, projector_bytes })
}

impl Answer {
    fn described(&self, name: &str) -> String {
        let FitReport { estimate, projector, layers, .. } = &self.report;
        let trained = self.trained.map(|tokens| format!(", trained for {tokens} tokens")).unwrap_or_default();
        let mut text = format!("{} ({layers} layers{trained})\n", printable(name));
        let rows = [
            ("weights", estimate.weights, String::new()),
            ("KV cache", estimate.cache, format!("  CTX={} PARALLEL={}", self.ctx, self.slots)),
            ("computing", estimate.compute.saturating_add(estimate.output), String::new()),
            ("projector", *projector, String::new()),
            ("sum", estimate.total().saturating_add(*projector), String::new()),
        ];
        for (what, bytes, of) in rows.iter().filter(|(what, bytes, _)| *what != "projector" || *bytes > 0) {
            let _ = writeln!(text, "  {what:<10}{:>11}{of}", human_size(*bytes));
        }
        let where_to = if matches!(self.memory.limit, MemoryLimit::Gpu { .. }) { "on the GPU" } else { "on the host" };
        let (needed, memory) = (human_size(self.report.needed), human_size(self.report.memory));
        let _ = writeln!(text, "{needed} {where_to}, of {memory} ({})", self.memory.source);
        text + &self.verdict()
    }

    /// Returns what fits, in a line for each way.
    fn verdict(&self) -> String {
        let FitReport { fits, layers, ngl, ctx, fits_host, .. } = &self.report;
        if *fits {
            return match ngl {
                Some(_) => "fits, with all layers on the GPU\n".to_owned(),
                None => "fits\n".to_owned(),
            };
        }
        let shorter =
            ctx.map(|ctx| format!("  CTX={ctx} fits{}\n", if ngl.is_some() { " with all layers" } else { "" }));
        let fewer = ngl.filter(|count| *count > 0);
        let fewer = fewer.map(|count| format!("  NGL={count} of {layers} layers fit with CTX={}\n", self.ctx));
        let host = fits_host.filter(|fits| *fits && ngl.is_some());
        let host = host.map(|_| "  NGL=0 runs on the CPU\n".to_owned());
        match [shorter, fewer, host].into_iter().flatten().collect::<String>() {
            ways if ways.is_empty() => "does not fit, and would not with CTX=512 on the CPU\n".to_owned(),
            ways => format!("does not fit as it was asked for; what does:\n{ways}"),
        }
    }

    fn as_json(&self, name: &str) -> String {
        let mut value = json!(self.report);
        value["name"] = json!(name);
        value["sum"] = json!(self.report.estimate.total().saturating_add(self.report.projector));
        value["memory_source"] = json!(self.memory.source);
        value["asked"] = json!({"ctx": self.ctx, "parallel": self.slots});
        format!("{value}\n")
    }
}

fn report(error: &NoAnswer, is_json: bool) -> ExitCode {
    let (message, hint, is_of_settings) = match error {
        NoAnswer::Model(error) => (error.to_string(), Some(error.hint()), error.broken_file().is_none()),
        NoAnswer::Download(error) => (error.to_string(), error.hint(), error.is_of_settings()),
        NoAnswer::Value(message) => (message.clone(), None, true),
        NoAnswer::Machine(message) => (message.clone(), None, false),
    };
    if is_json {
        print(&format!("{}\n", json!({"error": message, "hint": hint})));
    } else {
        let hint = hint.map(|hint| format!("\n    hint: {hint}")).unwrap_or_default();
        print_stderr(&format!("error: {message}{hint}\n"));
    }
    if is_of_settings { ExitCode::from(EXIT_CONFIG) } else { ExitCode::FAILURE }
}
