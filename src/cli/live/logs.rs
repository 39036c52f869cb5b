//! `llamagate logs`: what a worker writes, or the access log.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::process::ExitCode;

use http::Method;
use serde_json::{Value, json};

use super::args::LogsArgs;
use super::events::json_of;
use crate::cli::client::{self, CallError, ServiceAddress, ServiceClient};
use crate::cli::output::{print_stderr, print_while_read};
use crate::models::list::printable;
use crate::settings::Environment;

const LOGS: &str = "/logs";

/// Runs `llamagate logs`.
pub(in crate::cli) fn run(arguments: LogsArgs, environment: Environment) -> ExitCode {
    let is_json = arguments.client.json;
    match client::run(show(arguments, environment)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(is_json),
    }
}

async fn show(arguments: LogsArgs, environment: Environment) -> Result<(), CallError> {
    let LogsArgs { model, access, follow, lines, client: client_args } = arguments;
    let is_json = client_args.json;
    let client = ServiceClient::new(ServiceAddress::of(client_args, environment)?)?;
    let listed = client.get_json(LOGS).await?;
    let listed = listed["data"].as_array().map(Vec::as_slice).unwrap_or_default();
    let name = if access { name_of_access(listed)? } else { name_of_worker(listed, model.as_deref())? };
    let path = format!("{LOGS}/{}?lines={lines}", in_path(&name));
    if !follow {
        let body = client.send(Method::GET, &path, None).await?;
        let text = String::from_utf8_lossy(&body);
        write_lines(text.lines(), is_json);
        return Ok(());
    }
    let mut events = client.stream(Method::GET, &format!("{path}&follow=true"), None).await?;
    while let Some(event) = events.next().await? {
        let data = json_of(&event.data)?;
        let is_read = match event.name.as_str() {
            "lines" => write_lines(data["lines"].as_array().into_iter().flatten().filter_map(Value::as_str), is_json),
            "dropped" => {
                print_stderr(&format!("warning: {} bytes are left out\n", data["bytes"]));
                true
            }
            _ => true,
        };
        if !is_read {
            break;
        }
    }
    Ok(())
}

/// Writes lines, and returns whether they are still read; to a terminal without what would move its cursor, because clients' texts may be in them.
fn write_lines<'a>(lines: impl Iterator<Item = &'a str>, is_json: bool) -> bool {
    let is_terminal = std::io::stdout().is_terminal();
    let mut text = String::new();
    for line in lines {
        // Writing to a string cannot fail.
        let _ = match (is_json, is_terminal) {
            (true, _) => writeln!(text, "{}", json!({"line": line})),
            (false, true) => writeln!(text, "{}", printable(line)),
            (false, false) => writeln!(text, "{line}"),
        };
    }
    print_while_read(&text)
}

fn name_of_access(listed: &[Value]) -> Result<String, CallError> {
    let access = listed.iter().find(|log| log["kind"] == "access");
    let name = access.and_then(|log| log["name"].as_str());
    name.map(str::to_owned).ok_or_else(|| CallError::Usage("the service writes no logs (LOG_TO_FILE)".to_owned()))
}

/// Returns the name of the log that is meant: of the first worker of this model, of the one with the number after `@`, or of
/// the only worker.
fn name_of_worker(listed: &[Value], model: Option<&str>) -> Result<String, CallError> {
    let workers: Vec<&Value> = listed.iter().filter(|log| log["kind"] == "worker").collect();
    let find = |model: &str, number: u64| {
        workers.iter().find(|log| log["model"] == model && log["worker"].as_u64() == Some(number))
    };
    let numbered = |model: &str| {
        let (model, number) = model.rsplit_once('@')?;
        find(model, number.parse().ok()?)
    };
    let meant = match model {
        None => workers.first().filter(|_| workers.len() == 1),
        // A model of exactly this name comes first.
        Some(model) => find(model, 0).or_else(|| numbered(model)),
    };
    if let Some(name) = meant.and_then(|log| log["name"].as_str()) {
        return Ok(name.to_owned());
    }
    let known: Vec<String> = workers.iter().map(|log| shown(log)).collect();
    Err(CallError::Usage(match (model, known.is_empty()) {
        (_, true) => "the service has no worker that writes a log".to_owned(),
        (None, false) => format!("which model's log is meant? There are: {}", known.join(", ")),
        (Some(model), false) => {
            format!("there is no log of '{}'; there are: {}", printable(model), known.join(", "))
        }
    }))
}

fn shown(log: &Value) -> String {
    let model = log["model"].as_str().map(printable).unwrap_or_default();
    match log["worker"].as_u64() {
        Some(0) | None => model,
        Some(number) => format!("{model}@{number}"),
    }
}

/// Returns a name as it stands in a path.
fn in_path(name: &str) -> String {
    let mut path = String::new();
    for byte in name.bytes() {
        match byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            true => path.push(byte.into()),
            // Writing to a string cannot fail.
            false => _ = write!(path, "%{byte:02X}"),
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(models: &[(&str, u32)], asked: Option<&str>) -> Result<String, String> {
        let log = |&(model, worker): &(&str, u32)| json!({"name": format!("workers/{model}#{worker}"), "kind": "worker", "model": model, "worker": worker});
        let access = json!({"name": "access", "kind": "access"});
        let listed: Vec<Value> = std::iter::once(access).chain(models.iter().map(log)).collect();
        name_of_worker(&listed, asked).map_err(|error| error.to_string())
    }

    #[test]
    fn a_log_is_found_by_its_model_and_the_number_of_a_worker() {
        assert_eq!(name(&[("m", 0)], None).as_deref(), Ok("workers/m#0"));
        let two = [("m", 0), ("m", 1), ("m@1", 0)];
        assert_eq!(name(&two, Some("m")).as_deref(), Ok("workers/m#0"));
        assert_eq!(name(&two, Some("m@1")).as_deref(), Ok("workers/m@1#0"), "a model of this name comes first");
        assert_eq!(name(&two[..2], Some("m@1")).as_deref(), Ok("workers/m#1"));
        assert!(name(&two, None).unwrap_err().ends_with("There are: m, m@1, m@1"));
        assert!(name(&two, Some("x")).unwrap_err().starts_with("there is no log of 'x'"));
        assert_eq!(in_path("workers/org/m @1%"), "workers/org/m%20%401%25");
    }
}
