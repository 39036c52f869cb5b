//! `llamagate start` and `llamagate restart`: start the service, and wait until it listens.

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::json;

use super::unit::{UNIT, UserUnit};
use super::{earlier_start, stop};
use crate::cli::arguments::StartArgs;
use crate::cli::client::CallError;
use crate::cli::command_settings::{SERVICE, resolve_groups};
use crate::cli::output::print;
use crate::cli::serve;
use crate::file_lock::FileLock;
use crate::service_note::ServiceNote;
use crate::settings::{Environment, Settings};
use crate::worker::DetachedProcess;

/// Longest wait until the service listens.
const START_WAIT: Duration = Duration::from_secs(60);
/// Time between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Bytes of the log that are shown of a service that has ended at once.
const SHOWN_LOG: u64 = 4 * 1024;
/// What is read besides [`SERVICE`].
const LOG: &[&str] = &["log_dir", "log_file", "log_to_file", "drain_timeout"];

/// Runs `llamagate start`.
pub(in crate::cli) fn run_start(arguments: StartArgs, environment: Environment) -> ExitCode {
    let is_json = arguments.json;
    start(arguments, environment).unwrap_or_else(|error| error.report(is_json))
}

/// Runs `llamagate restart`: without arguments of its own, with those of the earlier start and in its folder. The environment
/// is always that of this command, so that a changed variable takes effect.
pub(in crate::cli) fn run_restart(arguments: StartArgs, environment: Environment) -> ExitCode {
    let is_json = arguments.json;
    restart(arguments, environment).unwrap_or_else(|error| error.report(is_json))
}

fn start(arguments: StartArgs, environment: Environment) -> Result<ExitCode, CallError> {
    if let Some(unit) = UserUnit::find(&environment) {
        return order_unit(&unit, "start", &arguments);
    }
    let folder = std::env::current_dir().map_err(|error| CallError::Broken(error.to_string()))?;
    let settings = resolve_groups(arguments.serve.flags(), environment.clone(), &[SERVICE, LOG]);
    let settings = settings.map_err(CallError::Reported)?;
    let _turn = take_turn(&settings.files.data_dir)?;
    if let Some(running) = ServiceNote::running(&settings.files.data_dir).first() {
        return Ok(tell("runs already", running, arguments.json));
    }
    let words = arguments.serve.words();
    // What can be known before is told here, where it is read.
    serve::check(arguments.serve, environment).map_err(CallError::Reported)?;
    let note = start_again(words, &folder, &settings)?;
    Ok(tell("listens", &note, arguments.json))
}

fn restart(arguments: StartArgs, environment: Environment) -> Result<ExitCode, CallError> {
    if let Some(unit) = UserUnit::find(&environment) {
        return order_unit(&unit, "restart", &arguments);
    }
    let place = resolve_groups(arguments.serve.flags(), environment.clone(), &[&["data_dir"]]);
    let data_dir = place.map_err(CallError::Reported)?.files.data_dir;
    let running = ServiceNote::running(&data_dir);
    let Some(note) = running.first() else { return start(arguments, environment) };
    let _turn = take_turn(&data_dir)?;
    let StartArgs { serve: mut again, json } = arguments;
    if again.words().is_empty() {
        again = earlier_start::enter(note, &environment)?;
    }
    let folder = std::env::current_dir().map_err(|error| CallError::Broken(error.to_string()))?;
    let settings = resolve_groups(again.flags(), environment.clone(), &[SERVICE, LOG]).map_err(CallError::Reported)?;
    let words = again.words();
    // A mistake in the configuration must not end a service that runs.
    serve::check(again, environment).map_err(CallError::Reported)?;
    stop::stop(note, false, &settings)?;
    let note = start_again(words, &folder, &settings)?;
    Ok(tell("listens", &note, json))
}

fn order_unit(unit: &UserUnit, order: &str, arguments: &StartArgs) -> Result<ExitCode, CallError> {
    if !arguments.serve.words().is_empty() {
        let message = format!("the unit {UNIT} decides what is served: `systemctl --user edit {UNIT}` changes it");
        return Err(CallError::Usage(message));
    }
    unit.order(order)?;
    if arguments.json {
        print(&format!("{}\n", json!({"unit": UNIT, "order": order})));
    }
    Ok(ExitCode::SUCCESS)
}

/// Keeps a second `start` out until this one has ended.
fn take_turn(data_dir: &Path) -> Result<FileLock, CallError> {
    let path = data_dir.join(".start.lock");
    let taken = fs::create_dir_all(data_dir).and_then(|()| FileLock::take(&path));
    match taken {
        Ok(Some(turn)) => Ok(turn),
        Ok(None) => Err(CallError::Broken("another `llamagate start` is at work here".to_owned())),
        Err(error) => Err(CallError::Broken(format!("{} cannot be locked: {error}", path.display()))),
    }
}

/// Starts the service and waits until it has published where it listens.
fn start_again(mut words: Vec<String>, folder: &Path, settings: &Settings) -> Result<ServiceNote, CallError> {
    let data_dir = &settings.files.data_dir;
    let logs = &settings.logs;
    let log = logs.log_file.clone().or_else(|| logs.log_to_file.then(|| logs.log_dir.join("llamagate.log")));
    words.insert(0, "serve".to_owned());
    let is_log_given = words.iter().any(|word| word.starts_with("--log-file"));
    if let Some(log) = log.as_ref().filter(|_| logs.log_file.is_none() && !is_log_given) {
        // Its standard error leads nowhere.
        words.push(format!("--log-file={}", log.display()));
    }
    let before = log.as_deref().and_then(|log| fs::metadata(log).ok()).map_or(0, |metadata| metadata.len());
    let failed = |error: std::io::Error| CallError::Broken(format!("the service cannot be started: {error}"));
    let mut process = DetachedProcess::start_again(&words, folder).map_err(failed)?;
    let begin = Instant::now();
    loop {
        let is_of_it = |note: &ServiceNote| note.pid().and_then(|pid| u32::try_from(pid).ok()) == Some(process.pid());
        if let Some(note) = ServiceNote::running(data_dir).into_iter().find(is_of_it) {
            return Ok(note);
        }
        if let Some(status) = process.exit_status().map_err(failed)? {
            let shown = log.as_deref().map(|log| tail(log, before)).unwrap_or_default();
            return Err(CallError::Broken(format!("the service has ended at its start ({status}){shown}")));
        }
        if begin.elapsed() > START_WAIT {
            let log = log.map(|log| format!(": see {}", log.display())).unwrap_or_default();
            return Err(CallError::Broken(format!("the service does not listen after {START_WAIT:?}{log}")));
        }
        sleep(LOOK_INTERVAL);
    }
}

/// Returns what was added to a log since it had `before` bytes, the last of it.
fn tail(log: &Path, before: u64) -> String {
    let mut text = Vec::new();
    let read = fs::File::open(log).and_then(|mut file| {
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(before.max(length.saturating_sub(SHOWN_LOG)).min(length)))?;
        file.take(SHOWN_LOG).read_to_end(&mut text)
    });
    match read {
        Ok(_) => format!("; its log says:\n{}", String::from_utf8_lossy(&text).trim_end()),
        Err(_) => String::new(),
    }
}

fn tell(what: &str, note: &ServiceNote, is_json: bool) -> ExitCode {
    let (url, pid) = (note.gateway_url(), note.pid());
    if is_json {
        print(&format!("{}\n", json!({"url": url, "pid": pid})));
    } else {
        print(&format!("llamagate {what} at {url} (pid {})\n", pid.unwrap_or_default()));
    }
    ExitCode::SUCCESS
}
