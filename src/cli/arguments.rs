//! The command line: subcommands and their arguments.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser};

use super::chat::ChatArgs;
use super::client::RemoteArgs;
use super::generate::{CompletionsArgs, InitArgs, ManArgs, SchemaArgs};
use super::inputs::{Flags, PLACE_FLAGS, PlaceFlags, detect_platform, resolve_inputs};
use super::launch::LaunchArgs;
use super::live::{LogsArgs, PsArgs, TopArgs};
use crate::import::ImportFormat;
use crate::models;
use crate::models::list::printable;
use crate::settings::{Environment, Inputs, SettingProblem, resolve_only};

/// Most typing mistakes by which a word still looks like a subcommand.
const LARGEST_TYPO: usize = 2;

/// A gateway for llama.cpp's llama-server: starts, watches and restarts it, and forwards requests to it
#[derive(Parser)]
#[command(name = "llamagate", version, about)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Option<CliCommand>,
    #[command(flatten)]
    pub(super) serve: ServeArgs,
}

#[derive(clap::Subcommand)]
pub(super) enum CliCommand {
    /// Start llama-server, watch it, and serve the gateway and the health port (the default)
    Serve(ServeArgs),
    /// Print the resolved configuration and all problems with it; start nothing
    Check(ServeArgs),
    /// Ask the health port of the service on this machine; exit with 0 if it is serving or loading
    Health(Flags),
    /// List the models on this machine: those of MODELS_DIR, of the hub's cache, of Ollama and of LM Studio
    List(ListModelsArgs),
    /// List the model files in MODELS_DIR
    Models(ListModelsArgs),
    /// Download a model from the hub, or what is missing of it
    Pull(PullArgs),
    /// Remove models from the disk, after showing what goes and how much that frees
    Rm(RemoveArgs),
    /// Tell whether a model fits into memory, from its header alone; exit with 0 if it does
    Fit(FitArgs),
    /// Show what each key, person and model has used, from the file of a service on this machine, or over HTTP
    Usage(UsageArgs),
    /// Show what administrators have done, the newest first, from the file of a service on this machine, or over HTTP
    Audit(AuditArgs),
    /// Talk to a model of a service: a conversation in a terminal, or one question
    Chat(ChatArgs),
    /// Point a coding agent at a service: shows what changes in its configuration, and writes it after a yes
    Launch(LaunchArgs),
    /// Show the models of a service, what they do, and who waits
    Ps(PsArgs),
    /// Watch the models of a service while they work, until Ctrl-C
    Top(TopArgs),
    /// Show the end of a worker's log, or of the access log, and with -f what follows
    Logs(LogsArgs),
    /// Start the service in the background, or the systemd user unit llamagate.service if there is one
    Start(StartArgs),
    /// Stop the service of this user, after the requests in flight
    Stop(StopArgs),
    /// Stop the service and start it again; without arguments, with the arguments it was started with
    Restart(StartArgs),
    /// Tell whether a service runs: its address, process, uptime and models; exit with 3 if none does
    Status(StatusArgs),
    /// Write a first llamagate.yaml, after two questions or from flags
    Init(InitArgs),
    /// Print the JSON Schema of llamagate.yaml, for editors
    Schema(SchemaArgs),
    /// Print completions for a shell
    Completions(CompletionsArgs),
    /// Print a manual page
    Man(ManArgs),
    /// Convert a configuration of llama-swap, or presets of llama-server's router, into a llamagate.yaml
    Import(ImportArgs),
}

#[derive(Args)]
pub(super) struct ServeArgs {
    /// Model file: a path, a name under MODELS_DIR, or a name that `llamagate pull` takes
    model: Option<String>,
    #[command(flatten)]
    flags: Flags,
}

#[derive(Args)]
#[command(after_help = "Examples:
  llamagate start qwen3-4b.gguf
  llamagate restart             with the arguments it was started with")]
pub(super) struct StartArgs {
    #[command(flatten)]
    pub(super) serve: ServeArgs,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args)]
#[command(after_help = "Example:
  llamagate stop          waits for the requests in flight, for DRAIN_TIMEOUT at most
  llamagate stop --now    cuts them")]
pub(super) struct StopArgs {
    /// Cut the requests in flight
    #[arg(long)]
    pub(super) now: bool,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) flags: PlaceFlags,
}

#[derive(Args)]
#[command(after_help = "Example:
  llamagate status        exits with 0 if a service runs, and with 3 if none does")]
pub(super) struct StatusArgs {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) flags: PlaceFlags,
}

#[derive(Args)]
pub(super) struct ListModelsArgs {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) flags: Flags,
}

#[derive(Args)]
pub(super) struct PullArgs {
    /// ORG/NAME[:QUANT], ORG/NAME/FILE.gguf, or https://HOST/FILE.gguf#sha256=HEX
    pub(super) name: String,
    /// Print JSON, one object a line
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) flags: Flags,
}

#[derive(Args)]
pub(super) struct RemoveArgs {
    /// Names of models as `serve` and `pull` take them, or paths
    #[arg(required = true)]
    pub(super) names: Vec<String>,
    /// Do not ask
    #[arg(long, short)]
    pub(super) yes: bool,
    /// Show what would go, and remove nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) flags: Flags,
}

#[derive(Args)]
pub(super) struct FitArgs {
    /// Name of a model as `serve` and `pull` take it, or a path
    pub(super) name: String,
    /// Memory to compare with, such as 24GiB, in place of what is free on this machine
    #[arg(long, value_name = "SIZE")]
    pub(super) memory: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) flags: Flags,
}

#[derive(Args)]
#[command(after_help = "Examples:
  llamagate usage --by month,person --from 2027-01-01
  llamagate usage --url http://gpu-box:8000 --json")]
pub(super) struct UsageArgs {
    /// First day (2027-01-31) or time (2027-01-31T12:00:00Z), in UTC; an hour counts by its beginning
    #[arg(long, value_name = "TIME")]
    pub(super) from: Option<String>,
    /// The day or time before which usage ends
    #[arg(long, value_name = "TIME")]
    pub(super) to: Option<String>,
    /// Comma list of key, person, model, and one of hour, day and month [default: day,key,person,model]
    #[arg(long, value_name = "COLUMNS")]
    pub(super) by: Option<String>,
    /// Only the key of this name
    #[arg(long, value_name = "KEY_ID")]
    pub(super) name: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) remote: RemoteArgs,
    #[command(flatten)]
    pub(super) flags: Flags,
}

#[derive(Args)]
#[command(after_help = "Example:
  llamagate audit --limit 20")]
pub(super) struct AuditArgs {
    /// Most acts that are shown
    #[arg(long, value_name = "N", default_value = "100")]
    pub(super) limit: std::num::NonZeroU32,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) remote: RemoteArgs,
    #[command(flatten)]
    pub(super) flags: Flags,
}

#[derive(Args)]
pub(super) struct ImportArgs {
    /// llama-swap's config.yaml, or the file of --models-preset
    pub(super) file: PathBuf,
    /// File to write; - is standard output, the default
    #[arg(long, short, value_name = "PATH")]
    pub(super) output: Option<PathBuf>,
    /// Replace the file if it is there
    #[arg(long)]
    pub(super) force: bool,
    /// What FILE is, if its content does not tell
    #[arg(long, value_name = "FORMAT")]
    pub(super) from: Option<ImportFormat>,
}

/// The flags of settings that a subcommand has.
struct FlagsOfSettings<'a> {
    /// Those that were given after it.
    given: &'a mut BTreeMap<&'static str, String>,
    /// `None`: all of them.
    known: Option<&'static [&'static str]>,
}

impl<'a> FlagsOfSettings<'a> {
    fn of_place(flags: &'a mut PlaceFlags) -> Option<Self> {
        Some(Self { given: &mut flags.0, known: Some(PLACE_FLAGS) })
    }

    fn has(&self, key: &str) -> bool {
        self.known.is_none_or(|known| known.contains(&key))
    }
}

impl CliCommand {
    /// Returns the flags of settings that the subcommand has, or `None` if it has none.
    fn flags_of_settings(&mut self) -> Option<FlagsOfSettings<'_>> {
        let all = |flags| Some(FlagsOfSettings { given: flags, known: None });
        match self {
            Self::Serve(serve) | Self::Check(serve) => all(&mut serve.flags.0),
            Self::Health(flags) => all(&mut flags.0),
            Self::List(list) | Self::Models(list) => all(&mut list.flags.0),
            Self::Pull(pull) => all(&mut pull.flags.0),
            Self::Rm(remove) => all(&mut remove.flags.0),
            Self::Fit(fit) => all(&mut fit.flags.0),
            Self::Usage(usage) => all(&mut usage.flags.0),
            Self::Audit(audit) => all(&mut audit.flags.0),
            Self::Chat(chat) => FlagsOfSettings::of_place(&mut chat.client.flags),
            Self::Launch(launch) => FlagsOfSettings::of_place(&mut launch.client.flags),
            Self::Ps(ps) => FlagsOfSettings::of_place(&mut ps.client.flags),
            Self::Top(top) => FlagsOfSettings::of_place(&mut top.client.flags),
            Self::Logs(logs) => FlagsOfSettings::of_place(&mut logs.client.flags),
            Self::Start(start) | Self::Restart(start) => all(&mut start.serve.flags.0),
            Self::Stop(stop) => FlagsOfSettings::of_place(&mut stop.flags),
            Self::Status(status) => FlagsOfSettings::of_place(&mut status.flags),
            Self::Import(_) | Self::Init(_) | Self::Schema(_) | Self::Completions(_) | Self::Man(_) => None,
        }
    }
}

impl Cli {
    /// Returns the subcommand, by default `serve`, with the flags that were given before it.
    ///
    /// # Errors
    ///
    /// A usage error if something before the subcommand does not belong to it, or if MODEL is a subcommand that was
    /// misspelt or given in the wrong place.
    pub(super) fn into_command(self, environment: &Environment) -> Result<CliCommand, clap::Error> {
        let Self { command, serve } = self;
        let Some(mut command) = command else {
            misplaced_subcommand(&serve, environment, LARGEST_TYPO)?;
            return Ok(CliCommand::Serve(serve));
        };
        if let Some(model) = serve.model {
            let order = format!("MODEL comes after the subcommand: {}", printable(&model));
            return Err(usage_error(ErrorKind::ArgumentConflict, &order));
        }
        let mut flags = command.flags_of_settings();
        for (key, value) in serve.flags.0 {
            let flag = key.replace('_', "-");
            let flags = flags.as_mut().filter(|flags| flags.has(key));
            let Some(FlagsOfSettings { given, .. }) = flags else {
                let misplaced = format!("--{flag} has no effect on this subcommand");
                return Err(usage_error(ErrorKind::ArgumentConflict, &misplaced));
            };
            if given.insert(key, value).is_some() {
                let twice = format!("--{flag} is given twice");
                return Err(usage_error(ErrorKind::ArgumentConflict, &twice));
            }
        }
        let serve = match &command {
            CliCommand::Serve(serve) | CliCommand::Check(serve) => Some(serve),
            CliCommand::Start(start) | CliCommand::Restart(start) => Some(&start.serve),
            _ => None,
        };
        if let Some(serve) = serve {
            misplaced_subcommand(serve, environment, 0)?;
        }
        Ok(command)
    }
}

/// Checks that MODEL is not a subcommand in the wrong place, or a word that is at most `distance` typing mistakes away
/// from one, unless there is such a model. So a mistyped `check` does not start a service.
///
/// # Errors
///
/// A usage error that names the subcommand.
fn misplaced_subcommand(serve: &ServeArgs, environment: &Environment, distance: usize) -> Result<(), clap::Error> {
    let Some(model) = serve.model.as_deref().filter(|model| !model.contains(['.', '/', ':'])) else { return Ok(()) };
    let names = Cli::command().get_subcommands().map(|one| one.get_name().to_owned()).collect::<Vec<_>>();
    let mistakes = |name: &String| strsim::damerau_levenshtein(name, &model.to_ascii_lowercase());
    let nearest = names.iter().chain([&"help".to_owned()]).min_by_key(|name| mistakes(name)).cloned();
    let Some(name) = nearest.filter(|name| mistakes(name) <= distance && mistakes(name) < name.len()) else {
        return Ok(());
    };
    if Path::new(model).is_file() || has_model(serve, environment, model) {
        return Ok(());
    }
    Err(usage_error(
        ErrorKind::InvalidSubcommand,
        &format!("there is no model {:?}; did you mean: llamagate {name}", printable(model)),
    ))
}

/// Whether a file below `MODELS_DIR` has this name.
fn has_model(serve: &ServeArgs, environment: &Environment, name: &str) -> bool {
    let inputs = resolve_inputs(serve.flags.0.clone(), environment.clone());
    let settings = resolve_only(&inputs, &detect_platform(&inputs.environment), &["models_dir"]);
    settings.is_ok_and(|(settings, _)| models::resolve::resolve(&settings.files.models_dir, name).is_ok())
}

fn usage_error(kind: ErrorKind, message: &str) -> clap::Error {
    Cli::command().error(kind, message)
}

impl ServeArgs {
    /// Returns the values of settings that were given as flags.
    pub(super) fn flags(&self) -> BTreeMap<&'static str, String> {
        self.flags.0.clone()
    }

    /// Returns the arguments as words of a command line.
    pub(super) fn words(&self) -> Vec<String> {
        let flags = self.flags.0.iter().map(|(key, value)| format!("--{}={value}", key.replace('_', "-")));
        flags.chain(self.model.iter().cloned()).collect()
    }

    /// Returns MODEL as it was given.
    pub(super) fn model(&self) -> Option<String> {
        self.model.clone()
    }

    /// Combines the arguments with the environment. MODEL is a path if a file of this name exists, or if it contains a
    /// slash and names no model on the network or of a store; otherwise it is a name under MODELS_DIR.
    pub(super) fn into_inputs(self, environment: Environment) -> Inputs {
        let mut flags = self.flags.0;
        if let Some(model) = self.model {
            let is_name = models::RemoteName::parse(&model).is_ok() || models::StoreName::parse(&model).is_some();
            let is_path = Path::new(&model).is_file() || (model.contains('/') && !is_name);
            flags.remove(if is_path { "model_name" } else { "model_path" });
            flags.insert(if is_path { "model_path" } else { "model_name" }, model);
        }
        resolve_inputs(flags, environment)
    }
}

/// Says of a MODEL argument that means no model where it was looked up: unlike `MODEL_NAME`, it may be a file of the
/// current folder.
pub(super) fn explain_model(model: Option<&str>, problems: Vec<SettingProblem>) -> Vec<SettingProblem> {
    // A name with the prefix of a store is no path. Of a name on the network the problem itself says what to do.
    let is_path = |model: &&str| models::StoreName::parse(model).is_none() && models::RemoteName::parse(model).is_err();
    let Some(model) = model.filter(is_path) else { return problems };
    let subject = format!("MODEL_NAME={model:?}");
    let is_absent = |problem: &SettingProblem| {
        let starts = ["there is no model ", "the models folder "];
        problem.subject == subject && starts.iter().any(|start| problem.fault.starts_with(start))
    };
    let explain = |problem: SettingProblem| {
        match is_absent(&problem) {
        false => problem,
        true => SettingProblem {
            subject: format!("MODEL {model:?}"),
            fault: format!("there is no file {:?} here, and {}", format!("./{model}"), problem.fault),
            hint: Some(
                "give the path of a .gguf file, or the name of one below MODELS_DIR; `llamagate list` names all that are here"
                    .to_owned(),
            ),
        },
    }
    };
    problems.into_iter().map(explain).collect()
}
