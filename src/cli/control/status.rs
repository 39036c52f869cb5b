//! `llamagate status`: tells what runs.

use std::fmt::Write as _;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::unit::{UNIT, UserUnit};
use crate::cli::arguments::StatusArgs;
use crate::cli::client::{self, CallError, ServiceAddress, ServiceClient, ShownCertificate};
use crate::cli::command_settings::{SERVICE, resolve_groups};
use crate::cli::output::print;
use crate::models::list::printable;
use crate::service_note::ServiceNote;
use crate::settings::Environment;

/// Exit status if no service runs, as init scripts have it (LSB).
const EXIT_NOT_RUNNING: u8 = 3;

/// Runs `llamagate status`.
pub(in crate::cli) fn run(arguments: StatusArgs, environment: Environment) -> ExitCode {
    let is_json = arguments.json;
    show(arguments, environment).unwrap_or_else(|error| error.report(is_json))
}

fn show(arguments: StatusArgs, environment: Environment) -> Result<ExitCode, CallError> {
    let unit = UserUnit::find(&environment).map(|_| UNIT);
    let shown = ShownCertificate::of_environment(&environment);
    let settings = resolve_groups(arguments.flags.0, environment, &[SERVICE]).map_err(CallError::Reported)?;
    let running = ServiceNote::running(&settings.files.data_dir);
    let mut services = Vec::new();
    for note in &running {
        services.push(describe(note, shown.clone()));
    }
    if arguments.json {
        print(&format!("{:#}\n", json!({"unit": unit, "services": services})));
    } else if services.is_empty() {
        let unit = unit.map(|unit| format!("; there is a unit {unit}")).unwrap_or_default();
        print(&format!("no service runs with this DATA_DIR{unit}\n"));
    } else {
        print(&services.iter().map(text).collect::<String>());
    }
    Ok(if services.is_empty() { ExitCode::from(EXIT_NOT_RUNNING) } else { ExitCode::SUCCESS })
}

fn describe(note: &ServiceNote, shown: Option<ShownCertificate>) -> Value {
    let url = note.gateway_url();
    let health = ServiceClient::new(ServiceAddress::of_health_port(note, shown));
    let health = health.and_then(|client| client::run(async { client.get_health().await }));
    json!({
        "url": url,
        "health_url": note.health_url(),
        "pid": note.pid(),
        "version": note.version,
        "health": health.as_ref().ok(),
        "error": health.as_ref().err().map(CallError::to_string),
    })
}

fn text(service: &Value) -> String {
    let word = |value: &Value| printable(value.as_str().unwrap_or_default());
    let health = &service["health"];
    let uptime = health["uptime_seconds"].as_f64().map(|seconds| format!(", up {}", duration(seconds as u64)));
    let state = match health["status"].as_str() {
        Some(state) => printable(state),
        None => format!("no answer: {}", word(&service["error"])),
    };
    let (version, url, uptime) = (word(&service["version"]), word(&service["url"]), uptime.unwrap_or_default());
    let mut text = format!("llamagate {version} at {url} (pid {}{uptime}): {state}\n", service["pid"]);
    let models = health["models"].as_array().map(Vec::as_slice).unwrap_or_default();
    let width = models.iter().map(|model| word(&model["id"]).chars().count()).max().unwrap_or_default();
    for model in models {
        let (id, state) = (word(&model["id"]), word(&model["state"]));
        // Why an earlier process ended is no news of a model that serves.
        let hint = model["last_exit"]["hint"].as_str().filter(|_| state != "ready");
        let hint = hint.map(|hint| format!("  {}", printable(hint)));
        let _ = writeln!(text, "  {id:<width$}  {state}{}", hint.unwrap_or_default());
    }
    text
}

/// Returns a time in its two largest units.
fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_tells_address_process_uptime_and_models() {
        let service = json!({
            "url": "http://127.0.0.1:8000", "pid": 7, "version": "0.1.0",
            "health": {"status": "degraded", "uptime_seconds": 3725.5, "models": [
                {"id": "a", "state": "ready", "last_exit": {"hint": "its port was taken"}},
                {"id": "long", "state": "failed", "last_exit": {"hint": "out of memory"}},
            ]},
        });
        let expected = "llamagate 0.1.0 at http://127.0.0.1:8000 (pid 7, up 1 h 2 min): degraded\n  \
                        a     ready\n  long  failed  out of memory\n";
        assert_eq!(text(&service), expected);
        assert_eq!(
            (duration(59), duration(61), duration(90_000)),
            ("59 s".into(), "1 min 1 s".into(), "1 d 1 h".into())
        );
    }
}
