//! Subcommands: what each reads, prints and exits with. The flags of settings come from the table.

mod serve;

use crate::dial::Trust;
use crate::http_client::{ClientOptions, HttpClient};
use crate::settings::catalogue::Catalogue;
use crate::settings::{Environment, Inputs, OPTIONS, Problem, Resolved, resolve, resolve_only, shelf_table};
use crate::{models, platform, preflight};
use bytes::Bytes;
use clap::{Arg, ArgMatches, Args, FromArgMatches, Parser, Subcommand};
use http::Request;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// Longest answer of the health port that `llamagate health` reads.
const HEALTH_CHECK_TIMEOUT: Duration = Duration::from_secs(3);

/// Exit code of a bad configuration (`EX_CONFIG` of sysexits.h).
pub const EXIT_CONFIG: u8 = 78;
/// Exit code when no worker could be kept running (`EX_UNAVAILABLE`).
pub const EXIT_BACKEND: u8 = 69;

/// A gateway for llama.cpp's llama-server: starts it, watches it, and stands in front of it.
#[derive(Parser)]
#[command(name = "llamagate", version, about, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(Subcommand)]
enum Command {
    /// Start llama-server, watch it, and serve the gateway and the health port (the default)
    Serve(Serve),
    /// Print the resolved configuration and every problem; start nothing
    Check(Serve),
    /// Ask the health port of the service on this machine; exit 0 when it serves or loads
    Health(Flags),
    /// List the model files in MODELS_DIR
    Models(Models),
}

#[derive(Args)]
struct Serve {
    /// Model file: a path, a name under MODELS_DIR, or ORG/NAME[:QUANT] in HF_HUB_CACHE
    model: Option<String>,
    #[command(flatten)]
    flags: Flags,
}

#[derive(Args)]
struct Models {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    flags: Flags,
}

/// The texts of settings that were given as flags, by key.
#[derive(Default)]
struct Flags(BTreeMap<&'static str, String>);

impl Args for Flags {
    fn augment_args(mut command: clap::Command) -> clap::Command {
        for row in OPTIONS {
            let mut arg = Arg::new(row.key)
                .long(row.flag())
                .value_name(row.key.to_ascii_uppercase())
                .help(row.doc.replace('`', ""))
                .help_heading(row.group)
                .allow_hyphen_values(row.key == "extra_args");
            if row.key == "config_file" {
                arg = arg.visible_alias("config");
            }
            if row.is_bool {
                arg = arg.num_args(0..=1).default_missing_value("true");
            }
            command = command.arg(arg);
        }
        command
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |key| matches.try_get_one::<String>(key).ok().flatten().cloned();
        Ok(Self(OPTIONS.iter().filter_map(|row| Some((row.key, given(row.key)?))).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return explain(&error),
    };
    let environment = Environment::capture();
    match cli.command.unwrap_or(Command::Serve(cli.serve)) {
        Command::Serve(serve) => serve::run(serve, environment),
        Command::Check(serve) => check(serve, environment),
        Command::Health(flags) => health(flags, environment),
        Command::Models(models) => list_models(models, environment),
    }
}

/// The platform as the real machine shows it.
pub fn detect_platform(environment: &Environment) -> platform::Platform {
    platform::detect(|name| environment.get(name), Path::new("/"))
}

impl Serve {
    /// MODEL is a path if it names a file here, or has a slash and is no ORG/NAME; else it is a name under MODELS_DIR.
    fn into_inputs(self, environment: Environment) -> Inputs {
        let mut flags = self.flags.0;
        if let Some(model) = self.model {
            let is_repository = models::Repository::named(&model).is_some();
            let is_path = Path::new(&model).is_file() || (model.contains('/') && !is_repository);
            flags.remove(if is_path { "model_name" } else { "model_path" });
            flags.insert(if is_path { "model_path" } else { "model_name" }, model);
        }
        Inputs { flags, environment }
    }
}

fn check(serve: Serve, environment: Environment) -> ExitCode {
    let platform = detect_platform(&environment);
    let inputs = serve.into_inputs(environment);
    let resolved = match resolve(&inputs, &platform) {
        Ok(resolved) => resolved,
        Err(problems) => return refuse(&problems),
    };
    print(&format!("platform: {}\n{}", platform.kind, table(&resolved)));
    let inspected = preflight::inspect(&resolved.settings, &inputs.environment);
    let mut catalogue = resolved.settings.catalogue.clone();
    if let Ok((_, models)) = &inspected {
        // What their files say of models is shown too.
        for (model, found) in catalogue.models.iter_mut().zip(models) {
            (model.id, model.kind) = (Some(found.id.clone()), Some(found.kind));
        }
    }
    print(&shelf(&catalogue));
    for warning in &resolved.warnings {
        complain(&format!("warning: {warning}\n"));
    }
    match inspected {
        Ok((ready, models)) => {
            let doubts = preflight::doubts(&resolved.settings.catalogue, &models);
            for warning in doubts.into_iter().chain(ready.descriptors.warning) {
                complain(&format!("warning: {warning}\n"));
            }
            ExitCode::SUCCESS
        }
        Err(problems) => refuse(&problems),
    }
}

fn health(flags: Flags, environment: Environment) -> ExitCode {
    let platform = detect_platform(&environment);
    // The service may run well with what the configuration was before a mistake came in.
    let inputs = Inputs { flags: flags.0, environment };
    let listen = match resolve_only(&inputs, &platform, &["host", "port_health"]) {
        Ok((settings, _)) => settings.listen,
        Err(problems) => return refuse(&problems),
    };
    let host = match listen.host {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        host => host,
    };
    let url = format!("http://{}/ping", std::net::SocketAddr::new(host, listen.port_health));
    let asked = async {
        let options = ClientOptions { connect_timeout: HEALTH_CHECK_TIMEOUT, keep_idle: None, follow_redirects: false };
        let client = HttpClient::new(&Trust::None, &options)?;
        let request = Request::get(&url).body(Bytes::new()).map_err(io::Error::other)?;
        client.send(request, HEALTH_CHECK_TIMEOUT).await.map_err(io::Error::other)
    };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return fail("no runtime");
    };
    match runtime.block_on(asked).map(|response| response.status().as_u16()) {
        Ok(200) => print("serving\n"),
        Ok(204) => print("loading\n"),
        Ok(status) => return fail(&format!("{url} answered {status}")),
        Err(_) => return fail(&format!("{url} did not answer")),
    }
    ExitCode::SUCCESS
}

fn list_models(arguments: Models, environment: Environment) -> ExitCode {
    let platform = detect_platform(&environment);
    let inputs = Inputs { flags: arguments.flags.0, environment };
    let (settings, passed_over) = match resolve_only(&inputs, &platform, &["models_dir"]) {
        Ok(settings) => settings,
        Err(problems) => return refuse(&problems),
    };
    for problem in &passed_over {
        complain(&format!("warning: {problem}\n"));
    }
    match models::list(&settings.files.models_dir) {
        Ok(found) if arguments.json => match serde_json::to_string_pretty(&found) {
            Ok(json) => print(&(json + "\n")),
            Err(error) => return fail(&error.to_string()),
        },
        Ok(found) => print(&models::table(&found)),
        Err(error) => return fail(&format!("{error}\n    hint: {}", error.hint())),
    }
    ExitCode::SUCCESS
}

fn table(resolved: &Resolved) -> String {
    let mut text = String::new();
    for (key, value, source) in &resolved.rows {
        let value = if value.is_empty() { "-" } else { value };
        let _ = writeln!(text, "{:<24} {value}  ({source})", key.to_ascii_uppercase());
    }
    text
}

/// The models under a heading, if there are any.
fn shelf(catalogue: &Catalogue) -> String {
    if catalogue.models.is_empty() { String::new() } else { format!("\nmodels:\n{}", shelf_table(catalogue)) }
}

fn refuse(problems: &[Problem]) -> ExitCode {
    let mut text = format!("error: {} problem(s) with the configuration\n", problems.len());
    for problem in problems {
        let _ = writeln!(text, "  {problem}");
    }
    complain(&text);
    ExitCode::from(EXIT_CONFIG)
}

/// The problems in a few words, which follow the listing of them.
fn summary(problems: &[Problem]) -> String {
    format!("the configuration is not usable: {} problem(s)", problems.len())
}

/// Prints help, or what of the command line is not understood.
fn explain(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    if error.use_stderr() {
        fatal("the command line is not understood");
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(EXIT_CONFIG))
}

/// The last word of a service that ends before it has a log, in the form that its last word always has.
fn fatal(message: &str) -> ExitCode {
    complain(&format!("fatal: {message}\n"));
    ExitCode::FAILURE
}

fn fail(message: &str) -> ExitCode {
    complain(&format!("error: {message}\n"));
    ExitCode::FAILURE
}

/// Data goes to standard output; a reader that has left is no reason to panic.
fn print(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}

fn complain(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}
