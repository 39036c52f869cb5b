//! `llamagate stop`: stops the service, and waits for its requests.

use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::unit::{UNIT, UserUnit};
use crate::cli::arguments::StopArgs;
use crate::cli::client::CallError;
use crate::cli::command_settings::{SERVICE, resolve_groups};
use crate::cli::output::print;
use crate::service_note::ServiceNote;
use crate::settings::{Environment, Settings};

/// Longest wait for the end after `DRAIN_TIMEOUT`: llama-servers end, and logs are written.
const END_WAIT: Duration = Duration::from_secs(30);
/// Time between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Runs `llamagate stop`.
pub(in crate::cli) fn run(arguments: StopArgs, environment: Environment) -> ExitCode {
    let is_json = arguments.json;
    match run_or_fail(arguments, environment) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(is_json),
    }
}

fn run_or_fail(arguments: StopArgs, environment: Environment) -> Result<(), CallError> {
    let StopArgs { now, json, flags } = arguments;
    if let Some(unit) = UserUnit::find(&environment).filter(|_| !now) {
        unit.order("stop")?;
        if json {
            print(&format!("{}\n", json!({"unit": UNIT, "order": "stop"})));
        }
        return Ok(());
    }
    let settings = resolve_groups(flags.0, environment, &[SERVICE, &["drain_timeout"]]).map_err(CallError::Reported)?;
    let running = ServiceNote::running(&settings.files.data_dir);
    for note in &running {
        stop(note, now, &settings)?;
    }
    let pids: Vec<i32> = running.iter().filter_map(ServiceNote::pid).collect();
    if json {
        print(&format!("{}\n", json!({"stopped": pids})));
    } else if pids.is_empty() {
        print("no service runs with this DATA_DIR\n");
    } else {
        print(&pids.iter().map(|pid| format!("stopped (pid {pid})\n")).collect::<String>());
    }
    Ok(())
}

/// Stops one service and waits until its process has ended.
///
/// # Errors
/// [`CallError::Broken`] if it may not be stopped, or has not ended in time.
pub(super) fn stop(note: &ServiceNote, is_now: bool, settings: &Settings) -> Result<(), CallError> {
    let Some(pid) = note.pid() else { return Ok(()) };
    send(note, pid)?;
    let wait = if is_now { END_WAIT } else { settings.service.drain_timeout.0 + END_WAIT };
    let begin = Instant::now();
    let mut is_cut = !is_now;
    while note.is_of_running_process() {
        if !is_cut {
            // A second signal cuts the requests in flight. Signals that come together are one.
            sleep(LOOK_INTERVAL);
            send(note, pid)?;
            is_cut = true;
        }
        if begin.elapsed() > wait {
            let message =
                format!("the service (pid {pid}) has not ended in {wait:?}; `llamagate stop --now` cuts requests");
            return Err(CallError::Broken(message));
        }
        sleep(LOOK_INTERVAL);
    }
    Ok(())
}

/// Sends SIGTERM, if the process is still the one that wrote the note.
fn send(note: &ServiceNote, pid: i32) -> Result<(), CallError> {
    if !note.is_of_running_process() {
        return Ok(());
    }
    match kill(Pid::from_raw(pid), Signal::SIGTERM) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
        Err(error) => Err(CallError::Broken(format!("the service (pid {pid}) cannot be stopped: {error}"))),
    }
}
